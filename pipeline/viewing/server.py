"""The viewer's server: neuroglancer's own, on loopback, which also serves the files that the viewer reads."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from pipeline.errors import ViewError
from pipeline.storage.units import base_unit
from pipeline.viewing.scene import Layer, Scene
from pipeline.viewing.state import state

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Page:
    """The page that shows a scene: its URL, and the state that neuroglancer was given."""

    url: str
    state: dict[str, Any]


@contextmanager
def served(scene: Scene, port: int = 0) -> Iterator[Page]:
    """Give the page that shows a scene, while it is served on loopback.

    Raises `ViewError` where neuroglancer is not installed or the ``port`` (0: any) is taken.
    """
    try:
        import neuroglancer  # noqa: PLC0415 - an extra
        from neuroglancer import server  # noqa: PLC0415
    except ImportError:
        raise ViewError("view needs neuroglancer: pip install 'haloflow[view]'") from None
    from pipeline.viewing.files import Files  # noqa: PLC0415 - needs the extra's Tornado

    server.set_server_bind_address(HOST, port)
    try:
        server.start()
    except OSError as error:
        raise ViewError(f"--port {port}: cannot be listened on: {error.strerror or error}") from None
    try:
        running = server.global_server
        origins = frozenset(f"http://{host}:{running.port}" for host in (HOST, "localhost"))
        roots = list(dict.fromkeys(layer.root for layer in scene.layers if layer.is_plain))
        token = secrets.token_hex(20)
        running.app.add_handlers(
            ".*",
            [
                (f"/data/{token}/{number}/(.*)", Files, {"path": str(root.path.resolve()), "origins": origins})
                for number, root in enumerate(roots)
            ],
        )
        viewer = neuroglancer.Viewer(allow_credentials=False)

        def address(layer: Layer) -> str:
            if layer.is_plain:
                return f"http://{HOST}:{running.port}/data/{token}/{roots.index(layer.root)}/"
            return str(viewer.volume_manager.register_volume(_volume(layer)))

        page = Page(viewer.get_viewer_url(), state(scene, address))
        viewer.set_state(page.state)
        with viewer.config_state.txn() as config:
            config.show_layer_panel = False  # its list, at the side, takes less room and any number of layers
        yield page
    finally:
        server.stop()


def _volume(layer: Layer) -> Any:
    """Return what decodes here, chunk by chunk, the pixels that a browser cannot."""
    import neuroglancer  # noqa: PLC0415

    axes = [n for n, axis in enumerate(layer.axes) if axis != "c"]
    sizes = [base_unit(layer.units[n]) for n in axes]
    space = neuroglancer.CoordinateSpace(
        names=[layer.axes[n] for n in axes],
        scales=[layer.scale[n] * factor for n, (factor, _) in zip(axes, sizes, strict=True)],
        units=[unit for _, unit in sizes],
    )
    return neuroglancer.LocalVolume(_Decoded(layer), space, volume_type="image", downsampling="2d")


class _Decoded:
    """A channel of an array as float32, read where it is asked for."""

    def __init__(self, layer: Layer) -> None:
        self._array = zarr.open_array(layer.array.store(), mode="r")
        self._axes = layer.axes
        self._channel = layer.channel
        self.dtype = np.dtype(np.float32)
        self.shape = tuple(n for n, axis in zip(layer.shape, layer.axes, strict=True) if axis != "c")

    def __getitem__(self, box: tuple[slice, ...]) -> Any:
        rest = iter(box)
        chosen = tuple(self._channel if axis == "c" else next(rest) for axis in self._axes)
        return np.asarray(self._array[chosen], self.dtype)  # type: ignore[index]
