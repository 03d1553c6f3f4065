"""Images to ingest, and what must hold of an ingest that succeeds or is refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image

from pipeline.errors import InputError
from pipeline.ingesting.ingest import ingest
from pipeline.storage.images import open_image

RNG = np.random.default_rng(7)
COLOURS = ("red", "green", "blue", "alpha")


def noise(*shape, dtype="uint8"):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, data):
    """Return a PNG of these rows, each after the number of its filter."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def holds(store, values, channels=None):
    """Assert that a store is a valid OME-Zarr image of exactly these values (c, y, x)."""
    Image.from_zarr(zarr.open_group(store, mode="r"))
    array = zarr.open_array(store / "0", mode="r")
    assert array.dtype == values.dtype.newbyteorder("=")
    assert array.metadata.dimension_names == ("c", "y", "x")
    assert array[:].tobytes() == np.ascontiguousarray(values, array.dtype).tobytes()
    source = open_image(str(store))
    assert source.channels == (channels or tuple(map(str, range(len(values)))))
    return source


def refused(folder, path, error=InputError, match=None, **options):
    """Assert that a file is refused with a message that names it, and that nothing is left behind."""
    before = names(folder)
    with pytest.raises(error, match=match) as caught:
        ingest(path, folder / "out.zarr", **options)
    assert Path(path).name in str(caught.value) or error is not InputError
    assert names(folder) == before
    return str(caught.value)
