"""A job: a config with its features made and its stack built, ready to be planned or laid over an array."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, Written, read
from pipeline.errors import FeatureError, InputError, StackError, nearest
from pipeline.features import CropOf, CropSpec, File, make_all
from pipeline.geometry import Interval, Window
from pipeline.kept import OutputSpec
from pipeline.labelled import channels_of, stack_labelled
from pipeline.pixels import Encoding, PixelScale, is_interleaved, stored_dtype
from pipeline.stack import Stack, run_whole
from pipeline.storage.codecs import Codec
from pipeline.storage.images import open_image
from pipeline.storage.place import Place
from pipeline.storage.selecting import select
from pipeline.storage.source import Source
from pipeline.tables import formats as tables
from pipeline.tables.watch import wanted_of, watches_of


@dataclass(frozen=True, eq=False)
class JobStack:
    """The layers of a job, callable on arrays."""

    layers: Stack
    black: float | None
    white: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names."""
        return self.layers.names

    def __call__(self, image: Any, layer: str | None = None, kernel: str | None = None) -> Any:
        """Return the maps of one layer for an image.

        Parameters
        ----------
        image
            Raw pixels (c, y, x) or (y, x): a NumPy array gives a NumPy array, a Dask array a lazy Dask array. Of a
            DataArray the axes are known by their names (y, x; c, channel or band), every plane along others is run,
            and what it gives is a DataArray (…, feature, y, x) with coordinates, lazy where it holds a Dask array.
            Channels are called by their coordinate where it is of text, and numbered from 0 otherwise.
        layer
            The name of the layer; by default the last.
        kernel
            Force a kernel backend by name.

        Returns
        -------
        float32 maps (c, y, x), the same bits as a run over the image in Zarr.

        Raises
        ------
        InputError
            Where the image is nothing that a stack runs over.
        StackError
            Where the layers do not fit the image, or there is no such layer.
        """
        if type(image).__module__.startswith("xarray"):
            return self._labelled(image, layer, kernel)
        return self._bare(image, layer, kernel)

    def _bare(self, image: Any, layer: str | None, kernel: str | None, channels: tuple[str, ...] | None = None) -> Any:
        """Return the maps of an array whose channels have these names, or are numbered."""
        lazy = _is_lazy(image)
        if not (lazy or isinstance(image, np.ndarray)):
            raise InputError(
                f"the stack takes NumPy and Dask arrays, and xarray's DataArrays of them, not {type(image).__name__}"
            )
        if isinstance(image._meta if lazy else image, np.ma.MaskedArray):  # noqa: SLF001 - Dask has no other name for it
            raise InputError("the image is a masked array; say what masked pixels are: image.filled(VALUE)")
        if any(math.isnan(extent) for extent in image.shape):
            raise InputError("the array's chunk sizes are unknown; call its compute_chunk_sizes() first")
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise InputError(f"the image has the shape {image.shape}; expected (y, x) or (c, y, x)")
        if channels is None and is_interleaved(image.shape):
            raise InputError(
                f"the image has the shape {image.shape}, which looks like (y, x, c); expected (c, y, x): "
                "numpy.moveaxis(image, -1, 0), or a DataArray that names its axes"
            )
        place = self._place(layer)
        pixels = image if image.ndim == 3 else image[None]
        bound = self.layers.bind(channels or tuple(map(str, range(pixels.shape[0]))), kernel)
        bound.extents(pixels.shape[1:])
        scale = PixelScale(stored_dtype(image.dtype), self.black, self.white)
        if lazy:
            from pipeline.execute.lazy import join_lazily, stack_lazily  # noqa: PLC0415 - see _is_lazy

            local = bound.part(0, bound.local)
            lazily = stack_lazily(pixels, local, scale, min(place, bound.local - 1))
            return lazily if place < bound.local else join_lazily(lazily, bound.part(bound.local, place + 1))
        native = pixels.astype(scale.dtype, copy=False)
        return run_whole(bound, scale.to_map(native), place)

    def _labelled(self, image: Any, layer: str | None, kernel: str | None) -> Any:
        place, channels = self._place(layer), channels_of(image)
        bound = self.layers.bind(channels, kernel)
        run = partial(self._bare, layer=layer, kernel=kernel, channels=channels)
        windows = bound.window(place)
        if place >= bound.local:  # one pixel lies in the middle of all
            windows = (Window(image.sizes["y"]), Window(image.sizes["x"]))
        return stack_labelled(image, run, bound.operations[place].maps, windows)

    def _place(self, layer: str | None) -> int:
        if layer is not None and layer not in self.names:
            raise StackError(f"there is no layer '{layer}'; {nearest(str(layer), self.names)}")
        return len(self.names) - 1 if layer is None else self.names.index(layer)


def _is_lazy(image: Any) -> bool:
    """Say whether something is a Dask array, without dask.array: it brings pandas with it, 100 MB and a second."""
    return any(one.__module__.startswith("dask.array.") for one in type(image).__mro__)


@dataclass(frozen=True, eq=False)  # arrays do not compare as one; its `config` does
class Job:
    """What a config says, checked as far as it can be without the images."""

    config: Config
    stack: JobStack
    features: Mapping[str, NDArray[np.float64]]
    output: OutputSpec
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What opens the URLs among its places."""

    @property
    def reads(self) -> tuple[Place, ...]:
        """The places that features are made from."""
        crops = [spec.crop.image for spec in self.config.features.values() if isinstance(spec, CropOf)]
        files = [spec.file for spec in self.config.features.values() if isinstance(spec, File)]
        return tuple(Place.of(text, self.options) for text in (*crops, *files))

    def opened_with(self, options: Mapping[str, Any]) -> "Job":
        """Return this job with other storage options."""
        store = Place.of(str(self.output.store), options)
        return replace(self, options=dict(options), output=replace(self.output, store=store))

    def scale(self, dtype: str) -> PixelScale:
        """Return what pixel values of a type mean in this job."""
        return PixelScale(dtype, self.config.input.black, self.config.input.white)


def load(
    config: Written,
    settings: Iterable[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> Job:
    """Return the job of a config: a YAML file's path, or a mapping of the same form.

    ``settings`` are ``key.path=value`` changes made before anything is checked; ``storage_options`` open the URLs
    in it, such as keys and endpoints, and are written nowhere. Raises `ConfigError` or `FeatureError`
    naming what is wrong, and `TypeError` where it is given neither a path nor a mapping.
    """
    checked, document = read(config, settings)
    options = dict(storage_options or {})
    features = dict[str, NDArray[np.float64]]()
    for name, spec in checked.features.items():
        try:
            features |= make_all(name, spec, lambda crop, name=name: _crop(name, crop, checked, options))  # type: ignore[misc]
        except FeatureError as error:
            raise FeatureError(f"{document.where(('features', name))}: {error}") from None
    layers = Stack(checked.layers, features)
    out = checked.output
    joins = layers.local < len(layers.names)
    watches = watches_of(out, layers.names[layers.local - 1], joins=joins)
    tables.check(wanted_of(watches.values()), set())
    if joins:
        tables.FORMATS[out.decisions.format].check(set())
    output = OutputSpec(
        store=Place.of(out.store, options),
        layers=layers.names[-1:] if out.layers is None and not watches else out.layers or (),
        encoding=Encoding(out.dtype, *(out.range or (-1.0, 1.0))),
        chunks=out.chunks,
        shards=out.shards,
        compression=Codec(out.compression.codec, out.compression.level),
        shrink=out.pyramid,
        version=out.ome_zarr,
        watches=watches,
    )
    return Job(checked, JobStack(layers, checked.input.black, checked.input.white), features, output, options)


def _crop(name: str, crop: CropSpec, config: Config, options: Mapping[str, Any]) -> NDArray[np.float64]:
    try:
        source = select(open_image(Place.of(crop.image, options), crop.level, "crop.level"), crop.selection, "crop")
        return _cut(name, crop, source, config)
    except InputError as error:
        raise FeatureError(f"feature '{name}': {error}") from None


def _cut(name: str, crop: CropSpec, source: Source, config: Config) -> NDArray[np.float64]:
    region = (Interval(crop.y, crop.y + crop.height), Interval(crop.x, crop.x + crop.width))
    if any(i.stop > extent for i, extent in zip(region, source.extents, strict=True)):
        raise FeatureError(
            f"feature '{name}': the crop goes to y {region[0].stop}, x {region[1].stop}; {crop.image} is "
            f"{source.extents[0]} × {source.extents[1]}"
        )
    scale = PixelScale(source.dtype, config.input.black, config.input.white)
    return scale.exact(source.read(region))
