"""How chunks are compressed: the codecs by the names that a user writes, for both formats of Zarr."""

from dataclasses import dataclass
from typing import Any

import numcodecs
from zarr.codecs import BloscCodec, ZstdCodec


@dataclass(frozen=True)
class Codec:
    """A codec and its level: ``lz4`` (1 to 9, with Blosc's byte shuffle), ``zstd`` (1 to 22), or ``none``.

    >>> str(Codec("zstd")), str(Codec("zstd", 7))
    ('zstd', 'zstd, level 7')
    """

    name: str = "lz4"
    level: int | None = None
    """None for the default: 5 for lz4, 3 for zstd."""

    def made(self, zarr_format: int = 3) -> Any:
        """Return what `zarr.create_array` takes as ``compressors`` for arrays of Zarr's format 2 or 3."""
        match self.name, zarr_format:
            case "lz4", 3:
                return BloscCodec(cname="lz4", clevel=self.level or 5, shuffle="shuffle")
            case "lz4", _:
                return numcodecs.Blosc("lz4", self.level or 5, numcodecs.Blosc.SHUFFLE)
            case "zstd", 3:
                return ZstdCodec(level=self.level or 3)
            case "zstd", _:
                return numcodecs.Zstd(self.level or 3)
            case _:
                return None

    def __str__(self) -> str:
        return self.name if self.level is None else f"{self.name}, level {self.level}"
