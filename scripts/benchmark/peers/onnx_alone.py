"""ONNX Runtime alone: the whole stack as one graph over tiles that are in memory; nothing read, nothing written."""

import time
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import zarr
from onnx import TensorProto, helper, numpy_helper

from benchmark.data import to_map
from benchmark.jobs import Job, Layer
from benchmark.room import Contestant

EDGES = (64, 128, 256, 512, 1024)
"""Tile edges to choose from."""

PROBE = 2**21
"""Pixels to run for the choice of an edge, at the least a tile."""


class Peer(Contestant):
    """ONNX Runtime in both workers, in tiles of the best edge, as many as cover the image once; no halos."""

    name = "onnxruntime"

    def prepare(self) -> None:
        """Try the edges on both workers at once, as neighbours share caches and memory."""
        room = self.room
        self.model = model(self.job)
        room.client.run(_session.cache_clear)
        stored: Any = zarr.open_array(room.image, mode="r")
        middle = room.side // 2 // room.unit * room.unit
        edges = [edge for edge in EDGES if 2 * edge <= room.side and edge > self.job.stride] or [room.side // 2]
        crop = slice(middle, middle + edges[-1])
        self.tile = to_map(stored[..., crop, crop].reshape(self.job.channels, edges[-1], -1))
        self.middle = middle
        rates = {}
        for edge in edges:
            self._hold(edge)
            count = max(1, PROBE // edge**2 // (8 if self.job.share > 1 else 1))
            self._both(1)
            started = time.perf_counter()
            self._both(count)
            rates[edge] = count * edge**2 / (time.perf_counter() - started)
        self.edge = max(rates, key=lambda edge: rates[edge])
        self.note = f"tiles of {self.edge}²; no halo, nothing read or written"
        self._hold(self.edge)

    def run(self) -> None:
        """Run half of the tiles in each worker."""
        tiles = (self.room.side / self.edge) ** 2
        count = max(1, round(tiles / 2))
        self._both(count)
        self.scale = tiles / 2 / count

    def difference(self, margin: int) -> float | None:
        """Compare one tile, without what its own border falsifies."""
        made = _run(self.model, np.ascontiguousarray(self.tile))
        edge = -(-self.job.halo // self.job.stride)
        del margin
        start = self.middle // self.job.stride
        region = slice(start + edge, start + made.shape[-1] - edge)
        expected = self.room.truth[:, region, region]
        if not expected.size:
            return None
        off = np.abs(made[:, edge : made.shape[1] - edge, edge : made.shape[2] - edge] - expected).max()
        return float(off / np.abs(expected).max())

    def _hold(self, edge: int) -> None:
        tile = np.ascontiguousarray(self.tile[:, :edge, :edge])
        self.room.client.run(hold, self.model, tile)

    def _both(self, count: int) -> None:
        client = self.room.client
        for future in [client.submit(work, count, workers=[w], pure=False) for w in self.room.workers]:
            future.result()


def model(job: Job) -> bytes:
    """Return a stack as an ONNX model."""
    nodes, arrays, maps = [], [], "image"
    for number, layer in enumerate(job.stack):
        made = f"maps{number}"
        nodes.append(_node(layer, number, maps, made))
        if not isinstance(layer, str):
            arrays.append(numpy_helper.from_array(layer, f"weights{number}"))
        maps = made
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, job.channels, None, None])
    given = helper.make_tensor_value_info(maps, TensorProto.FLOAT, [1, job.features, None, None])
    graph = helper.make_graph(nodes, job.name, [image], [given], arrays)
    made_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    serialised: bytes = made_model.SerializeToString()
    return serialised


def _node(layer: Layer, number: int, maps: str, made: str) -> Any:
    if not isinstance(layer, str):
        return helper.make_node("Conv", [maps, f"weights{number}"], [made], pads=[layer.shape[-1] // 2] * 4)
    if layer == "relu":
        return helper.make_node("Relu", [maps], [made])
    return helper.make_node("MaxPool", [maps], [made], kernel_shape=[2, 2], strides=[2, 2])


@cache
def _session(serialised: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])


def _run(serialised: bytes, tile: Any) -> Any:
    return _session(serialised).run(None, {"image": tile[None]})[0][0]


_HELD: dict[str, Any] = {}


def hold(serialised: bytes, tile: Any) -> None:
    """Keep model and tile in a worker."""
    _HELD.update(model=serialised, tile=tile)


def work(count: int) -> None:
    """Run the held tile ``count`` times in a worker."""
    for _ in range(count):
        _run(_HELD["model"], _HELD["tile"])
