"""A scene as the state of neuroglancer, in its JSON."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from pipeline.storage.units import base_unit
from pipeline.viewing.scene import Layer, Scene

IMAGE_SHADER = """\
#uicontrol invlerp contrast
#uicontrol vec3 colour color
void main() {
  emitRGB(colour * contrast());
}
"""
MAP_SHADER = """\
#uicontrol invlerp contrast
#uicontrol vec3 colour color
void main() {
  emitRGBA(vec4(colour, contrast()));
}
"""
"""A map lets its image through where it is low."""

_PANE = (780.0, 640.0)
"""The pixels (x, y) of screen that a whole image is fitted into at first."""


def state(scene: Scene, address: Callable[[Layer], str]) -> dict[str, Any]:
    """Return the viewer's state; ``address`` gives the URL of a layer's root or of what stands for its array."""
    first = scene.layers[0]
    order = [first.axes.index(axis) for axis in ("x", "y")]
    order += [n for n, axis in enumerate(first.axes) if axis not in ("x", "y", "c")]
    sizes = {first.axes[n]: _size(first, n) for n in order}
    finest = min(sizes["x"][0], sizes["y"][0])
    zoom = max(
        first.shape[n] * sizes[axis][0] / finest / pane for n, axis, pane in zip(order, "xy", _PANE, strict=False)
    )
    places = [first.translation[n] / first.scale[n] for n in order]
    for n in range(2):
        places[n] += (first.shape[order[n]] - 1) / 2
    chosen = next((layer for layer in scene.layers if layer.is_map and layer.visible), first)
    return {
        "title": f"{scene.path} - haloflow",
        "dimensions": {axis: list(size) for axis, size in sizes.items()},
        "position": places,
        "crossSectionScale": zoom,
        "layout": "xy",
        "showAxisLines": False,
        "showDefaultAnnotations": False,
        "crossSectionBackgroundColor": "#000000",
        "layers": [_layer(layer, address(layer)) for layer in scene.layers],
        "selectedLayer": {"layer": chosen.name, "visible": True, "size": 300},
        "layerListPanel": {"visible": True, "size": 300},
    }


def _layer(layer: Layer, address: str) -> dict[str, Any]:
    whole = layer.is_whole and layer.is_plain
    window, contrast = ([round(v) if whole else v for v in span] for span in (layer.window, layer.contrast))
    made = {
        "type": "image",
        "name": layer.name,
        "source": _source(layer, address),
        "opacity": 1,
        "blend": "default" if layer.is_map or not layer.channel else "additive",
        "shader": MAP_SHADER if layer.is_map else IMAGE_SHADER,
        "shaderControls": {"contrast": {"range": contrast, "window": window}, "colour": layer.colour},
        "visible": layer.visible,
        "tab": "rendering",
        "codeVisible": False,
    }
    if layer.is_plain and layer.channel is not None:
        made |= {"localDimensions": {"c'": [1, ""]}, "localPosition": [layer.channel]}
    return made


def _source(layer: Layer, address: str) -> Any:
    """Return where the pixels come from, and where they lie.

    In neuroglancer a pixel's number is its lower corner, in OME-Zarr the centre. It knows that of OME-Zarr; other
    arrays are moved here by half a pixel, for their maps lie as OME-Zarr says.
    """
    if layer.is_plain:
        address = f"{address}{quote(layer.inner, safe='/')}/|zarr{layer.zarr_format}:".replace("//|", "/|")
        if layer.is_ome:
            return address
    axes = [n for n, axis in enumerate(layer.axes) if layer.is_plain or axis != "c"]
    rows = [[*(float(n == m) for m in axes), layer.translation[n] / layer.scale[n] - 0.5] for n in axes]
    names = {("c'" if layer.axes[n] == "c" else layer.axes[n]): list(_size(layer, n)) for n in axes}
    return {"url": address, "transform": {"outputDimensions": names, "matrix": rows}}


def _size(layer: Layer, axis: int) -> tuple[float, str]:
    """Return the size of a pixel along an axis, and in what."""
    factor, unit = base_unit(layer.units[axis])
    return layer.scale[axis] * factor, unit
