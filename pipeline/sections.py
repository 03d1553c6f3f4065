"""The config's sections on what is read of an image and on the output, and what every section of a config is."""

import math
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.layers.base import LEAST, Finite, Names, NoneOrNames, Pair, as_tuple


class Section(BaseModel):
    """A part of a config: frozen, with no keys but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Place = Annotated[int, Field(ge=0)]
Bounds = Annotated[tuple[Finite, Finite], BeforeValidator(as_tuple)]


def _as_range(value: Any) -> Any:
    """Let an index stand for the range of this one; [start, stop] is half-open."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return (value, value + 1)
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(isinstance(n, int) and not isinstance(n, bool) for n in value)
        or not 0 <= value[0] < value[1]
    ):
        raise ValueError(f"expected an index from 0, or [start, stop] with start below stop; found {value!r}")
    return tuple(value)


Range = Annotated[tuple[int, int], BeforeValidator(_as_range, json_schema_input_type=Place | tuple[Place, Place])]
"""An index, or start and stop, which does not count."""


class RegionOf(Section):
    """A part of each plane, an image of its own: padding happens at its edges."""

    y: Bounds | None = Field(None, description="[start, stop], half-open (default: all)")
    x: Bounds | None = Field(None, description="[start, stop], half-open (default: all)")
    unit: Literal["pixel", "physical"] = Field(
        "pixel",
        description="of y and x: pixels of the level, or what its scale, translation and unit say; a pixel is in the "
        "region where its centre is",
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        for name, bounds in (("y", self.y), ("x", self.x)):
            if bounds and not bounds[0] < bounds[1]:
                raise ValueError(f"{name} goes from {bounds[0]:g} to {bounds[1]:g}; the first must be less")
        if self.unit == "pixel" and any(n != int(n) for bounds in (self.y, self.x) for n in bounds or ()):
            raise ValueError("pixels are whole numbers; or give unit: physical")
        return self


def _as_channels(value: Any) -> Any:
    """Let a name or a number stand for the list of it."""
    listed = tuple(value) if isinstance(value, list | tuple) else (value,)
    for one in listed:
        if isinstance(one, bool) or not (isinstance(one, str) or (isinstance(one, int) and one >= 0)):
            raise ValueError(f"expected a channel's name, its number from 0, or a list of them; found {value!r}")
    return listed


Channels = Annotated[
    tuple[str | Place, ...],
    Field(min_length=1),
    BeforeValidator(
        _as_channels,
        json_schema_input_type=str | Place | Annotated[tuple[str | Place, ...], Field(min_length=1)],
    ),
]
"""Names or numbers, one or a list."""


class Part(Section):
    """Which of an image's pixels: of one level, some channels."""

    level: int = Field(0, ge=0, description="the resolution level of an OME-Zarr image, 0 the finest")
    channels: Channels | None = Field(
        None, description="channels by name or by number from 0, one or a list, in this order (default: all)"
    )


class Selection(Part):
    """What of an image is read."""

    t: Range | None = Field(None, description="times: an index from 0, or [start, stop], half-open (default: all)")
    z: Range | None = Field(
        None, description="planes along z: an index from 0, or [start, stop], half-open (default: all)"
    )
    region: RegionOf | None = Field(None, description="a part of each plane (default: all)")


def check_level(codec: str, level: int | None) -> None:
    """Raise `ValueError` where a codec has no such level."""
    if level is None:
        return
    if codec == "none":
        raise ValueError("level has no effect without a codec")
    most = 9 if codec == "lz4" else 22
    if not 1 <= level <= most:
        raise ValueError(f"{codec} has the levels 1 to {most}; found {level}")


class Compression(Section):
    """How chunks are compressed."""

    codec: Literal["lz4", "zstd", "none"] = "lz4"
    level: int | None = Field(None, ge=1, le=22, description="lz4 has 1 to 9 (default: 5), zstd 1 to 22 (default: 3)")

    @model_validator(mode="after")
    def _has_a_level(self) -> Self:
        check_level(self.codec, self.level)
        return self


CODECS = get_args(Compression.model_fields["codec"].annotation)
"""The names of codecs."""


def _as_codec(value: Any) -> Any:
    if isinstance(value, dict | Compression):
        return value
    if value not in CODECS:
        raise ValueError(f"expected {', '.join(CODECS)}, or a codec and its level; found {value!r}")
    return {"codec": value}


def _as_text(value: Any) -> Any:
    """Let a version stand without quotes, which YAML reads as a number."""
    return str(value) if isinstance(value, float) else value


class Detections(Section):
    """A table of the peaks of a layer's maps, each map by itself.

    A pixel of a map is a peak where it is at least ``threshold`` and the greatest of the (2 · distance + 1)² pixels
    around it, those beyond the map's edge and NaN left out; of equal pixels the one that comes first, by y and then by
    x. So no two peaks of a map lie within ``distance`` of each other along both axes, and whether a pixel is one
    follows from its window alone: A. Neubeck, L. Van Gool, "Efficient Non-Maximum Suppression", ICPR 2006. A pixel
    that a greater one in its window hides stays hidden, whether that one is a peak or not.
    """

    layer: str | None = Field(None, description="the layer whose maps to look at (default: the last)")
    threshold: Finite = Field(description="the least value of a peak")
    distance: int = Field(1, ge=1, le=1024, description="how far peaks of a map are apart, in pixels of the map")
    top: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="of each image and map the so many greatest peaks, over all planes; of equal ones those that come "
        "first (default: all)",
    )
    refine: bool = Field(
        False,
        description="place peaks between pixels, where the quadratic function through the 3 × 3 pixels around has its "
        "top; at most half a pixel away",
    )
    format: Literal["parquet", "csv", "geojson"] = "parquet"


def _refuse_no_range(bounds: tuple[float, float]) -> None:
    """Raise `ValueError` where the width between two values is no positive number."""
    low, high = bounds
    if not low < high:
        raise ValueError(f"range goes from {low:g} to {high:g}; the first must be less")
    if math.isinf(high - low):
        raise ValueError(f"range goes from {low:g} to {high:g}, which is wider than any number")


class Histogram(Section):
    """Counts of values in bins of equal width; a value at an edge counts above it, one at the last edge below."""

    range: Bounds = Field(description="[low, high]: what lies outside is not counted")
    bins: int = Field(64, ge=1, le=4096)

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        _refuse_no_range(self.range)
        return self


class Summaries(Section):
    """A table of what each map is like as a whole, plane by plane: greatest value and its place, mean, deviation."""

    layers: Names | None = Field(None, min_length=1, description="the layers to sum up (default: the last)")
    over: Finite | None = Field(None, description="tell which part of the pixels is at least this")
    histogram: Histogram | None = None


class Decisions(Section):
    """The table of what the layers from the ``global_pool`` on make of each plane: there is one where there is such."""

    format: Literal["parquet", "csv"] = "parquet"


class Output(Section):
    """Where the maps go and how they are stored, and what tables are made of them."""

    store: str = Field(min_length=1, description="the Zarr group of the run")
    layers: NoneOrNames | None = Field(
        None,
        description="the layers whose maps to keep (default: the last; none where there are tables: detections, "
        "summaries, or the decisions that a global_pool leads to)",
    )
    detections: Detections | None = None
    summaries: Summaries | None = None
    decisions: Decisions = Decisions()
    dtype: Literal["float32", "float16", "int8", "uint8", "int16", "uint16"] = "float32"
    range: Annotated[tuple[Finite, Finite], BeforeValidator(as_tuple)] | None = Field(
        None, description="for integers: the map values that the type is spread over (default: -1 to 1)"
    )
    chunks: Pair | None = Field(
        None,
        description="one number for both axes, or (y, x) (default: about 2048 input pixels, 256 to 1024 of the map)",
    )
    shards: Pair | None = Field(
        None,
        description="pixels that lie together in one object, a multiple of chunks: one number for both axes, or (y, x)",
    )
    compression: Annotated[
        Compression, BeforeValidator(_as_codec, json_schema_input_type=Literal["lz4", "zstd", "none"] | Compression)
    ] = Compression()
    pyramid: Literal["mean", "max"] | None = Field(
        None, description="how further levels are made, each half as wide and high (default: there are none)"
    )
    ome_zarr: Annotated[Literal["0.5", "0.4"], BeforeValidator(_as_text)] = Field(
        "0.5", description="OME-Zarr's version; 0.4 lies in Zarr's format 2"
    )

    @model_validator(mode="after")
    def _has_whole_shards(self) -> Self:
        if self.shards is not None and self.chunks is None:
            raise ValueError("shards needs chunks, too: the pixels of a chunk, of which a shard holds several")
        if self.shards and self.chunks and any(s % c for s, c in zip(self.shards, self.chunks, strict=True)):
            raise ValueError(
                f"shards of {self.shards[0]} × {self.shards[1]} do not hold whole chunks of {self.chunks[0]} × "
                f"{self.chunks[1]}; make them a multiple"
            )
        return self

    @model_validator(mode="after")
    def _gives_something(self) -> Self:
        if self.layers == () and not (self.detections or self.summaries):
            raise ValueError("layers is empty and no tables are asked for: nothing would come of a run")
        return self

    @model_validator(mode="after")
    def _may_have_shards(self) -> Self:
        if self.shards is not None and self.ome_zarr == "0.4":
            raise ValueError("OME-Zarr 0.4 has no shards; leave out shards, or take ome_zarr '0.5'")
        return self

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.range is not None and self.dtype.startswith("float"):
            raise ValueError(f"range has no effect on {self.dtype}")
        if self.range is not None:
            _refuse_no_range(self.range)
            low, high = self.range
            if high - low < LEAST:
                raise ValueError(f"range goes from {low:g} to {high:g}, closer than any two numbers of float32 are")
        return self
