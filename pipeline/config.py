"""The config: its models, its JSON Schema, and errors that name file, line, key and the nearest valid name.

Together with `pipeline.document` the only reader of YAML.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from os import PathLike, fspath
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from pipeline import consistency
from pipeline.document import MAX_BYTES, Document, Path, assign, parse
from pipeline.errors import ConfigError, nearest
from pipeline.features import FeatureSpec, family, spec_of
from pipeline.layers import LAYERS, Layer
from pipeline.layers.base import Finite, Names, as_tuple
from pipeline.layers.vote import VOTES
from pipeline.sections import (
    Compression,
    Decisions,
    Detections,
    Histogram,
    Output,
    RegionOf,
    Section,
    Selection,
    Summaries,
)

if TYPE_CHECKING:
    AnyLayer = Layer
else:
    AnyLayer = Annotated[reduce(operator.or_, LAYERS.values()), Discriminator("type")]


TOLD = 50
"""Things that are wrong and told at once: of a file with thousands nobody reads them, and each takes its time."""

Model = TypeVar("Model", bound=BaseModel)


class Input(Selection):
    """The images and what their pixel values mean."""

    images: Names = Field(min_length=1, description="paths or globs of Zarr images, one or a list")
    black: Finite | None = Field(None, description="the pixel value that means -1 (default: the type's least)")
    white: Finite | None = Field(None, description="the pixel value that means +1 (default: the type's greatest)")
    missing: Literal["fill", "error"] = Field(
        "fill",
        description="what a chunk is that is not stored: the image's fill value, or a reason to refuse the image",
    )

    @model_validator(mode="after")
    def _tells_black_from_white(self) -> Self:
        if self.black is not None and self.black == self.white:
            raise ValueError(f"black and white are both {self.black:g}; they must differ")
        return self


class Config(Section):
    """A whole config."""

    input: Input
    features: dict[str, FeatureSpec] = Field(default_factory=dict)
    layers: Annotated[tuple[AnyLayer, ...], Field(min_length=1), BeforeValidator(as_tuple)]
    output: Output


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a config, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "Haloflow config",
    }


Written = str | FilePath | Mapping[str, Any] | Document
"""A config: the path of its YAML file, a mapping of the same form, or what `opened` made of one of these."""


def opened(source: Written, settings: Iterable[str] = ()) -> Document:
    """Return a config as it is written, with ``key.path=value`` settings applied; nothing of it is checked."""
    if isinstance(source, Document):
        return source
    if not isinstance(source, str | PathLike | Mapping):
        raise TypeError(f"expected a config, the path of a YAML file or a mapping, not {type(source).__name__}")
    if isinstance(settings, str):
        raise ConfigError(f"settings: expected a list of 'key.path=value', not the text {settings!r}")
    document = Document("config", plain(source)) if isinstance(source, Mapping) else load(FilePath(source))
    for setting in settings:
        assign(document, setting)
    if not isinstance(document.data, dict):
        raise ConfigError(f"{document.source}: expected the keys {', '.join(Config.model_fields)}")
    return document


def plain(value: Any) -> Any:
    """Return a copy of what stands in a mapping, with paths and NumPy's numbers and arrays as YAML would have them.

    >>> plain({"images": (FilePath("a.zarr"),), "window": np.int64(3)})
    {'images': ['a.zarr'], 'window': 3}
    """
    match value:
        case Mapping():
            return {key: plain(inside) for key, inside in value.items()}
        case list() | tuple():
            return [plain(inside) for inside in value]
        case PathLike():
            return fspath(value)
        case np.ndarray() | np.generic():
            return value.tolist()
    return deepcopy(value)


def read(source: Written, settings: Iterable[str] = ()) -> tuple[Config, Document]:
    """Return the config in a YAML file or a mapping, with ``key.path=value`` settings applied first.

    Raises `ConfigError` that lists everything wrong, a line each.
    """
    document = opened(source, settings)
    _take_votes(document)
    config = checked(document, Config, _keys)
    families = {name: family(name, spec) for name, spec in config.features.items()}
    consistency.check(config.layers, families, config.output, document)
    layers = tuple(layer.naming(families) for layer in config.layers)
    return config.model_copy(update={"layers": layers}), document


def _take_votes(document: Document) -> None:
    """Put what files of votes say in the place of their names, so that a job knows it like what the config says."""
    layers = document.data.get("layers")
    for place, layer in enumerate(layers if isinstance(layers, list) else []):
        if not isinstance(layer, dict) or layer.get("type") != "vote" or (name := vote_file(document, place)) is None:
            continue
        at = document.where(("layers", place, "file"))
        if both := [key for key in VOTES if key in layer]:
            raise ConfigError(
                f"{at}: the file holds {' and '.join(VOTES)}; leave out {' and '.join(both)}, or the file"
            )
        del layer["file"]
        try:
            votes = load(FilePath(name)).data
        except ConfigError as error:
            raise ConfigError(f"{at}: {error}; 'haloflow fit' writes such a file") from None
        if not isinstance(votes, dict) or not {"weights"} <= votes.keys() <= set(VOTES):
            raise ConfigError(f"{at}: {name}: expected the keys {' and '.join(VOTES)}, as 'haloflow fit' writes them")
        layer.update(votes)


def vote_file(document: Document, place: int) -> str | None:
    """Return the file that the vote in a place of the layers names, if any; `ConfigError` where it can be none."""
    name = document.data["layers"][place].get("file")
    if not isinstance(name, str):
        return None
    if not name or FilePath(name).is_dir():
        at = document.where(("layers", place, "file"))
        found = f"{name}: is a folder" if name else "is empty"
        raise ConfigError(f"{at}: {found}; name the YAML file of the votes")
    return name


def checked(document: Document, model: type[Model], keys: Callable[[Path, Any], Iterable[str]]) -> Model:
    """Return a document as its model; raises `ConfigError` that lists what is wrong, a line each.

    ``keys`` gives those that may stand at a path, from the path and the value there.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        found = _root_causes(error.errors())
        told = dict.fromkeys(_tell(document, detail, keys) for detail in found[:TOLD])
        more = [f"{document.source}: and {len(found) - TOLD} more"] if found[TOLD:] else []
        raise ConfigError("\n".join([*told, *more])) from None


def load(path: FilePath) -> Document:
    """Return what a YAML file holds; raises `ConfigError` where it cannot be read, or is more than plain data."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_BYTES} bytes; a config is small")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse(text, str(path))


def _tell(document: Document, detail: ErrorDetails, keys: Callable[[Path, Any], Iterable[str]]) -> str:
    """Say one of pydantic's findings in the user's words."""
    path, value = _user_path(document.data, detail["loc"])
    at = document.where(path)
    found = detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return f"{at}: unknown key; {nearest(str(path[-1]), keys(path[:-1], value))}"
        case "missing":
            return f"{at}: is missing"
        case "union_tag_not_found":
            return f"{document.where((*path, 'type'))}: is missing{_as_layer(found)}"
        case "literal_error":
            options = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            message = f"{found!r} is not possible; {nearest(str(found), options)}"
        case "union_tag_invalid":
            return f"{at}.type: there is no layer type '{context['tag']}'; {nearest(context['tag'], LAYERS)}"
        case "value_error":
            message = context["error"]
        case "model_attributes_type" | "model_type" | "dict_type":
            message = f"expected keys and their values; found {_short(found)}{_as_layer(found)}"
        case _:
            message = (
                detail["msg"]
                .removeprefix("Input ")
                .replace("a valid integer", "an integer")
                .replace("valid ", "")
                .replace(" after validation", "")
                .partition(" or instance of ")[0]
            )
            message = message.replace("tuple", "list").replace("Tuple", "list")
            message = f"{message[0].lower() + message[1:]}; found {_short(found)}"
    return f"{at}: {message}"


def _as_layer(found: Any) -> str:
    """Return how a layer is written, where only its type was: 'relu', or a key of that name."""
    named = next(iter(found), None) if isinstance(found, dict) and len(found) == 1 else found
    return f"; write 'type: {named}'" if isinstance(named, str) and named in LAYERS else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _root_causes(found: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Drop what is said of a list only because of what is wrong with its items."""
    places = [detail["loc"] for detail in found]
    return [
        detail
        for detail in found
        if detail["type"] != "too_short"
        or not any(len(p) > len(detail["loc"]) and p[: len(detail["loc"])] == detail["loc"] for p in places)
    ]


def _user_path(data: Any, location: tuple[str | int, ...]) -> tuple[Path, Any]:
    """Drop from pydantic's location the tags of its unions, and return the value that holds its last part."""
    path = [part for part in location if part not in ("(number)", "(list)", "(names)", "[key]")]
    if path[:1] in (["features"], ["layers"]) and len(path) > 2:
        del path[2]  # the form of the feature, the type of the layer
    for number, part in enumerate(path[:-1], 1):
        if not isinstance(data[part], dict | list | tuple):  # one number that stands for a pair
            return tuple(path[:number]), data
        data = data[part]
    return tuple(path), data


def _keys(path: Path, value: Any) -> Iterable[str]:
    """Return the keys that may stand at a path."""
    sections: dict[Path, type[BaseModel]] = {
        (): Config,
        ("input",): Input,
        ("input", "region"): RegionOf,
        ("output",): Output,
        ("output", "compression"): Compression,
        ("output", "detections"): Detections,
        ("output", "decisions"): Decisions,
        ("output", "summaries"): Summaries,
        ("output", "summaries", "histogram"): Histogram,
    }
    model: type[BaseModel] | None = sections.get(path)
    if path[:1] == ("layers",) and isinstance(value, dict):
        model = LAYERS.get(value.get("type", ""))
    elif path[:1] == ("features",) and len(path) == 2:
        model = spec_of(value)
    elif path[:1] == ("features",):
        model = spec_of({path[2]: None})
        model = model.model_fields[str(path[2])].annotation if model else None
    return model.model_fields if model else ()
