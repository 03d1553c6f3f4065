"""Codecs and kinds of places: what is not known to do no harm is refused before it is read, unless it is allowed."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numcodecs
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from numcodecs.abc import Codec

import pipeline
from pipeline.cli import cli
from pipeline.errors import InputError, PlaceError
from pipeline.storage.allowed import VARIABLE
from pipeline.storage.images import open_image
from pipeline.storage.place import Place

Call = Callable[..., tuple[int, str, str]]

CANARY = Path("canary")


class Evil(Codec):
    """Does harm when it decodes, and else is numcodecs' zlib."""

    codec_id = "evil"

    def encode(self, buf: object) -> bytes:
        return numcodecs.Zlib().encode(buf)

    def decode(self, buf: object, out: object = None) -> object:
        CANARY.touch()
        return numcodecs.Zlib().decode(buf, out)


class Elsewhere(MemoryFileSystem):
    """A place that notes that it was opened."""

    protocol = "canary"
    store: dict[str, object] = {}  # noqa: RUF012 - as in fsspec
    pseudo_dirs = [""]  # noqa: RUF012

    def __init__(self, *words: object, **named: object) -> None:
        CANARY.touch()
        super().__init__(*words, **named)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("canary://").strip("/")


@pytest.fixture(autouse=True)
def _registered(small: Path) -> Iterator[None]:
    numcodecs.registry.register_codec(Evil)
    fsspec.register_implementation("canary", Elsewhere, clobber=True)
    Elsewhere.store.clear()
    yield
    numcodecs.registry.codec_registry.pop("evil")
    Elsewhere.clear_instance_cache()


def with_codec(position: str) -> None:
    """Give the image a codec that does harm, as a filter or as its compressor."""
    image = zarr.open_array("image.zarr", mode="r")[:]
    place = {"filters": [Evil()]} if position == "filters" else {"compressors": Evil()}
    zarr.create_array("image.zarr", data=image, chunks=(1, 16, 16), zarr_format=2, overwrite=True, **place)


@pytest.mark.parametrize("position", ["filters", "compressor"])
def test_a_codec_that_is_not_known_is_refused_before_a_chunk_is_read(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch, position: str
) -> None:
    expected = pipeline.load("config.yaml").stack(zarr.open_array("image.zarr", mode="r")[:])
    with_codec(position)
    for verb in ("plan", "run"):
        code, out, err = haloflow(verb, "config.yaml")
        assert (code, out) == (2, "")
        assert "image.zarr: its chunks need the codec evil" in err
        assert "--allow codec:evil if you trust it" in err
    crop = "features.cut={crop: {image: image.zarr, y: 0, x: 0, height: 3, width: 3, channel: 0}}"
    assert "codec evil" in haloflow("info", "image.zarr")[2]
    assert haloflow("validate", "config.yaml", "--set", crop)[0] == 2
    assert not CANARY.exists()
    assert not Path("maps.zarr").exists()
    assert haloflow("run", "config.yaml", "--allow", "codec:evil", "--cluster", "serial")[0] == 0
    assert CANARY.exists()
    assert VARIABLE not in os.environ
    assert np.array_equal(zarr.open_array("maps.zarr/image/pool/0")[:], expected)
    monkeypatch.setenv(VARIABLE, "codec:evil")
    assert open_image("image.zarr").extents == (40, 37)


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "bytes"}, {"name": "numcodecs.pickle"}],
        [{"name": "bytes"}, {"name": "numcodecs.evil"}],
        [{"name": "vlen-utf8"}],
        [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [8, 8],
                    "codecs": [{"name": "bytes"}, {"name": "numcodecs.json2"}],
                    "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                },
            }
        ],
    ],
    ids=["pickle", "evil", "strings", "in a shard"],
)
def test_codecs_of_format_3_are_refused_wherever_they_stand(small: Path, codecs: list[dict]) -> None:
    zarr.create_array("h.zarr", shape=(16, 16), chunks=(16, 16), dtype="u1")
    told = json.loads(Path("h.zarr/zarr.json").read_text())
    Path("h.zarr/zarr.json").write_text(json.dumps({**told, "codecs": codecs}))
    with pytest.raises(InputError, match=r"h\.zarr"):
        open_image("h.zarr")
    assert not CANARY.exists()


@pytest.mark.parametrize("name", ["zlib", "lzma", "bz2", "lz4", "blosc", "zstd", "gzip"])
@pytest.mark.parametrize("filters", [[], [{"id": "shuffle", "elementsize": 2}], [{"id": "delta", "dtype": "<u2"}]])
def test_codecs_of_numbers_are_read_without_asking(small: Path, name: str, filters: list[dict]) -> None:
    values = np.arange(256, dtype="uint16").reshape(16, 16)
    made = [numcodecs.get_codec(dict(one)) for one in filters]
    zarr.create_array(
        "n.zarr", data=values, chunks=(8, 8), zarr_format=2, filters=made, compressors=numcodecs.get_codec({"id": name})
    )
    source = open_image("n.zarr")
    from pipeline.geometry import Interval  # noqa: PLC0415

    assert np.array_equal(source.read((Interval(0, 16), Interval(0, 16)))[0], values)


def test_a_kind_of_place_that_is_not_known_is_neither_opened_nor_written(small: Path, haloflow: Call) -> None:
    image = zarr.open_array("image.zarr", mode="r")[:]
    words = ["--cluster", "serial", "--set", "input.images=canary://box/image.zarr"]
    code, out, err = haloflow("run", "config.yaml", *words)
    assert (code, out) == (2, "")
    assert "canary://…: is no kind of place that can be used" in err
    assert "give --allow scheme:canary to read by fsspec from there, if you trust it" in err
    code, _, err = haloflow("run", "config.yaml", "--set", "output.store=canary://box/maps.zarr")
    assert (code, "is no kind of place" in err) == (2, True)
    assert not CANARY.exists()
    for path in Path("image.zarr").rglob("*"):
        if path.is_file():
            Elsewhere.store[f"/box/{path}"] = fsspec.implementations.memory.MemoryFile(
                None, f"/box/{path}", path.read_bytes()
            )
    code, _, err = haloflow("run", "config.yaml", *words, "--allow", "scheme:canary")
    assert code == 0, err
    assert CANARY.exists()
    assert np.array_equal(zarr.open_array("maps.zarr/image/pool/0")[:], pipeline.load("config.yaml").stack(image))
    code, _, err = haloflow(
        "run", "config.yaml", "--set", "output.store=canary://box/maps.zarr", "--allow", "scheme:canary"
    )
    assert (code, "nothing can be written to canary://box/maps.zarr" in err) == (2, True)


@pytest.mark.parametrize("word", ["codec", "codec:", "evil", "scheme:file", "key:x", ":", "codec=evil"])
def test_what_cannot_be_allowed_is_told(small: Path, haloflow: Call, word: str) -> None:
    code, _, err = haloflow("plan", "config.yaml", "--allow", word, "--set", "input.images=canary://box/x.zarr")
    assert (code, f"--allow {word}: expected codec:NAME or scheme:NAME" in err) == (2, True)


@pytest.mark.parametrize(
    "text", ["simplecache::s3://b/k", "zip://x::canary://b/k", "file:///etc", "FILE://x/y", "ftp://h/x"]
)
def test_chains_and_other_places_are_refused_unread(small: Path, text: str) -> None:
    with pytest.raises(PlaceError):
        Place.of(text)
    assert not CANARY.exists()


@pytest.mark.parametrize("name", sorted(set(cli.commands) - {"schema", "ingest"}))  # which reads files of this machine
def test_every_command_that_reads_can_be_told_what_opens_a_bucket_and_what_is_allowed(name: str) -> None:
    assert {"--allow", "--storage-option"} <= {word for option in cli.commands[name].params for word in option.opts}


def test_a_crop_of_what_is_allowed(small: Path, haloflow: Call) -> None:
    for path in [path for path in Path("image.zarr").rglob("*") if path.is_file()]:
        fsspec.filesystem("canary").pipe(f"canary://box/{path}", path.read_bytes())
    crop = "features.cut={crop: {image: canary://box/image.zarr, y: 2, x: 3, height: 4, width: 5}}"
    words = ["features", "config.yaml", "--set", crop]
    code, _, err = haloflow(*words)
    assert (code, "give --allow scheme:canary" in err) == (2, True)
    assert haloflow(*words, "--allow", "scheme:canary")[0] == 0
