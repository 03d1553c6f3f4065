"""What is read of images that somebody else has made: kinds of places and codecs that are known to do no harm.

Others may be installed, and a store's metadata can name them: codecs that unpickle run what a chunk says, and URLs lead
to places nobody thought of. A user who trusts one can allow it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import InputError, PlaceError

VARIABLE = "HALOFLOW_ALLOW"
"""The environment variable of what else a user allows: ``codec:NAME`` and ``scheme:NAME``, with spaces between."""

KINDS = ("codec", "scheme")

CODECS = frozenset(
    [
        "adler32",
        "astype",
        "bitround",
        "blosc",
        "bytes",
        "bz2",
        "crc32",
        "crc32c",
        "delta",
        "fixedscaleoffset",
        "fletcher32",
        "gzip",
        "jenkins_lookup3",
        "lz4",
        "lzma",
        "packbits",
        "quantize",
        "sharding_indexed",
        "shuffle",
        "transpose",
        "zlib",
        "zstd",
    ]
)
"""Zarr's and numcodecs' codecs of numbers, which make numbers of bytes and nothing else."""


def allowed(kind: str) -> frozenset[str]:
    """Return the names of a kind that the user allows besides; raises `PlaceError` where no name stands."""
    found = []
    for word in os.environ.get(VARIABLE, "").split():
        what, colon, name = word.partition(":")
        if what not in KINDS or not colon or not name or word == "scheme:file":
            raise PlaceError(f"--allow {word}: expected codec:NAME or scheme:NAME, such as codec:imagecodecs_jpeg2k")
        if what == kind:
            found.append(name)
    return frozenset(found)


def check_codecs(path: str, array: Any) -> None:
    """Raise `InputError` where the chunks of a Zarr array go through a codec that is not allowed."""
    for name in dict.fromkeys(_names(array.metadata)):
        # In format 3 numcodecs' are told from Zarr's own by a prefix; they are the same.
        if name.removeprefix("numcodecs.") not in CODECS and name not in allowed("codec"):
            raise InputError(
                f"{path}: its chunks need the codec {name}, which is not one that is known to do no harm; give "
                f"--allow codec:{name} if you trust it and whoever made the image"
            )


def _names(metadata: Any) -> Iterator[str]:
    if metadata.zarr_format == 2:
        for codec in (*(metadata.filters or ()), metadata.compressor):
            if codec is not None:
                yield str(codec.codec_id)
        return
    yield from _of(metadata.to_dict()["codecs"])


def _of(codecs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for codec in codecs:
        yield str(codec["name"])
        inner = codec.get("configuration", {})
        for key in ("codecs", "index_codecs"):
            if key in inner:
                yield from _of(inner[key])
