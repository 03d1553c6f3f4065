"""NumPy's ``.npy``, (c, y, x) or (t, c, z, y, x), written band by band."""

from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from pipeline.exporting.base import Selection, Writer
from pipeline.geometry import Interval


def _write(selection: Selection, out: Path) -> tuple[str, ...]:
    times, channels, depth, height, width = selection.shape
    shape = selection.shape if times * depth > 1 else (channels, height, width)
    step = selection.band(1)
    with out.open("wb") as file:
        header = {"descr": npy.dtype_to_descr(selection.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        for place in np.ndindex(times, channels, depth):
            for top in range(0, height, step):
                values = selection.read(place, Interval(top, min(top + step, height)))
                file.write(np.ascontiguousarray(values).data)
    return ()


WRITER = Writer((".npy",), _write)
