"""Arrays with named axes and coordinates, through xarray (the extra ``xarray``): of a stack and of a store."""

from collections.abc import Callable, Hashable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.errors import HaloflowError, InputError, OutputError
from pipeline.geometry import Window
from pipeline.kinds import images_of
from pipeline.storage.ome import distinct, read_level
from pipeline.storage.place import Place
from pipeline.storage.target import recorded

CHANNELS = ("c", "channel", "band")
"""What the axis of the channels may be called."""

FEATURE = "feature"
"""What the axis of the maps is called."""

EVEN = 1e-6
"""Of a step: how far coordinates may lie from evenly spaced ones."""

Run = Callable[[Any], Any]


def xarray() -> Any:
    """Return the package; raises `InputError` naming the extra where it is not installed."""
    try:
        return import_module("xarray")
    except ImportError:
        raise InputError("xarray is not installed: pip install 'haloflow[xarray]'") from None


def stack_labelled(image: Any, run: Run, maps: tuple[str, ...], windows: tuple[Window, ...]) -> Any:
    """Return the maps of a DataArray as one with the axes (…, feature, y, x): every plane is run on its own.

    Parameters
    ----------
    image
        Raw pixels with axes y, x, one of `CHANNELS` or none, and any others, along which planes lie.
    run
        Returns the maps (c, y, x) of one plane's pixels (c, y, x), NumPy's or Dask's.
    maps
        The maps' names.
    windows
        Of all layers together, for y and x: where the maps' pixels lie follows from them. y and x have coordinates
        where those of the image are evenly spaced, and none otherwise.
    """
    channel = _channel_axis(image)
    outer = [axis for axis in image.dims if axis not in (channel, "y", "x")]
    order = [*outer, *([channel] if channel else []), "y", "x"]
    pixels = image.transpose(*order).data
    if not channel:
        pixels = pixels[..., None, :, :]
    made = _planes(pixels, len(outer), run)
    # What lies along the axes that stay, or along none, such as the reference system of a map of the Earth.
    coords: dict[Hashable, Any] = {n: c for n, c in image.coords.items() if not {*c.dims} & {channel, "y", "x"}}
    coords[FEATURE] = list(maps)
    for axis, window in zip("yx", windows, strict=True):
        numbers = _moved(image, axis, window, made.shape[-2 if axis == "y" else -1])
        if numbers is not None:
            coords[axis] = (axis, numbers, dict(image.coords[axis].attrs))
    return xarray().DataArray(made, dims=[*outer, FEATURE, "y", "x"], coords=coords, name=image.name)


def channels_of(image: Any) -> tuple[str, ...]:
    """Return the channels' names: their coordinate's where that is of text, else numbers, as of an image in Zarr.

    Raises `InputError` for what is no image.
    """
    axis = _channel_axis(image)
    told = image.coords[axis].values.tolist() if axis in image.coords else []
    if told and all(isinstance(name, str) for name in told):
        return distinct(told)
    return tuple(map(str, range(image.sizes[axis] if axis else 1)))


def _channel_axis(image: Any) -> Hashable | None:
    """Return what the axis of channels is called, if there is one; raises `InputError` for what is no image."""
    if not isinstance(image, xarray().DataArray):
        held = ", ".join(map(str, getattr(image, "data_vars", ()))) or "none"
        raise InputError(f"the stack takes a DataArray, not a {type(image).__name__}; its variables are: {held}")
    if not {"y", "x"} <= set(image.dims):
        raise InputError(f"the DataArray has the axes {', '.join(map(str, image.dims))}; expected y and x among them")
    found = [axis for axis in image.dims if axis in CHANNELS]
    if len(found) > 1:
        raise InputError(f"the DataArray has the axes {' and '.join(map(str, found))}; only one can be of channels")
    if FEATURE in image.dims:
        raise InputError(
            f"the DataArray has an axis {FEATURE}, as the maps will have; rename it, to channel if its maps are the "
            "image's channels"
        )
    if empty := [axis for axis in image.dims if not image.sizes[axis]]:
        raise InputError(f"the DataArray has no pixels along {', '.join(map(str, empty))}")
    return found[0] if found else None


def _planes(pixels: Any, outer: int, run: Run) -> Any:
    """Return the maps of all planes along so many outer axes."""
    if not outer:
        return run(pixels)
    return np.stack([_planes(part, outer - 1, run) for part in pixels])


def _moved(image: Any, axis: str, window: Window, extent: int) -> NDArray[np.float64] | None:
    """Return where the pixels of a map lie along an axis: each amid the pixels it depends on."""
    if axis not in image.coords or image.coords[axis].dims != (axis,) or image.coords[axis].dtype.kind not in "iuf":
        return None
    before = image.coords[axis].values.astype(np.float64)
    if len(before) < 2:
        return None
    step = (before[-1] - before[0]) / (len(before) - 1)
    off = np.abs(before - (before[0] + step * np.arange(len(before)))).max()
    kind = image.coords[axis].dtype
    rounding = 4 * np.finfo(kind).eps * np.abs(before).max() if kind.kind == "f" else 0.0
    if not step or not off <= EVEN * abs(step) + rounding:
        return None
    first = before[0] + step * ((window.span - 1) / 2 - window.pad_lo)
    return np.asarray(first + step * window.stride * np.arange(extent))


def open_store(store: str | Path, options: Mapping[str, Any] | None = None) -> Any:
    """Return all maps of all images of a store as an xarray DataTree, a Dask array each; nothing is read yet.

    The node ``image/layer`` has a variable of the layer's name (``x_maps`` for a layer that is called as an axis is,
    here x) with the axes (t, feature, z, y, x), those there are, float32 (what is stored as scaled integers is
    decoded), and coordinates from the OME-Zarr metadata.

    Parameters
    ----------
    store
        A path or URL of what `pipeline.run` has made.
    options
        Storage options for a URL.

    Raises
    ------
    HaloflowError
        `OutputError` where there is no such store or a map cannot be read; `InputError` without xarray.
    """
    xr, place = xarray(), Place.of(str(store), options)
    record = recorded(place)
    if record is None:
        raise OutputError(f"{store}: is no store that haloflow made")
    nodes = {}
    for image in images_of(record["plan"]):
        for kept in image["kept"]:
            path = f"{image['name']}/{kept['layer']}"
            # A variable that is called as an axis would be taken for its coordinates.
            name = f"{kept['layer']}_maps" if kept["layer"] in (FEATURE, *"tzyx") else kept["layer"]
            nodes[f"/{path}"] = xr.Dataset({name: _map(xr, place / path)})
    return xr.DataTree.from_dict(nodes)


def _map(xr: Any, place: Place) -> Any:
    try:
        level = read_level(str(place), dict(zarr.open_group(place.store(), mode="r").attrs), 0)
        stored: Any = zarr.open_array((place / level.path).store(), mode="r")
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged store makes zarr raise
        raise OutputError(f"{place}: cannot be read: {error}") from None
    import dask.array as da  # noqa: PLC0415 - brings pandas with it, 100 MB and a second, and few ask for this

    values = da.from_array(stored, chunks=stored.chunks, name=False)
    values = da.map_blocks(_decoded, values, dict(stored.attrs), dtype=np.float32)
    coords: dict[str, Any] = {FEATURE: list(level.channels or map(str, range(stored.shape[level.axes.index("c")])))}
    for axis, extent, scale, first, unit in zip(
        level.axes, stored.shape, level.scale, level.translation, level.units, strict=True
    ):
        if axis != "c":
            coords[axis] = (axis, first + scale * np.arange(extent), {"units": unit} if unit else {})
    return xr.DataArray(values, dims=[FEATURE if axis == "c" else axis for axis in level.axes], coords=coords)


def _decoded(stored: NDArray[Any], attributes: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return map values, by the CF conventions' attributes where there are some."""
    if "scale_factor" not in attributes:
        return stored.astype(np.float32)
    values = stored * attributes["scale_factor"] + attributes["add_offset"]
    return np.where(stored == attributes["missing_value"], np.nan, values).astype(np.float32)
