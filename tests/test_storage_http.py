"""Images on a web server that does not always answer well: right bits, or an error that names the object."""

import itertools

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import HaloflowError, InputError
from pipeline.geometry import Interval
from pipeline.storage import patient
from pipeline.storage.images import open_image
from tests.buckets import file_server, free_port

WHOLE = (Interval(0, 128), Interval(0, 64))
FILL = 7
PIXELS = np.random.default_rng(5).integers(0, 256, (2, 128, 64)).astype(np.uint8)
PIXELS[1, 96:] = FILL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with image.zarr (two channels, the last chunk is not stored) and shards.zarr, of the same pixels."""
    made = tmp_path_factory.mktemp("web")
    for name, shards in (("image.zarr", None), ("shards.zarr", (1, 64, 64))):
        settings = {"chunks": (1, 32, 64), "shards": shards, "dtype": "uint8", "fill_value": FILL}
        zarr.create_array(made / name, shape=PIXELS.shape, **settings)[:] = PIXELS
    return made


@pytest.fixture(scope="module")
def _server(folder):
    with file_server(folder) as made:
        yield made


@pytest.fixture(scope="module")
def other(folder):
    with file_server(folder) as made:
        yield made


@pytest.fixture
def server(_server, monkeypatch):
    """A server of the folder that answers well, and has not been asked anything yet."""
    monkeypatch.setattr(patient, "PAUSE", 0.001)
    _server.requests.clear()
    yield _server
    _server.harm = None


def read(server, name="image.zarr", region=WHOLE):
    return open_image(f"{server.url}/{name}").read(region)


def chunks(harm):
    """Harm every request of a chunk."""
    return lambda request, _: harm if "/c/" in request.path else None


@pytest.mark.parametrize("name", ["image.zarr", "shards.zarr"])
def test_an_image_on_a_server_is_read_and_a_chunk_that_is_not_there_is_fill(server, name):
    np.testing.assert_array_equal(read(server, name), PIXELS)
    missing = [r.path for r in server.requests if r.status == 404 and "/c/" in r.path]
    assert missing == (["/image.zarr/c/1/3/0"] if name == "image.zarr" else [])
    assert {r.method for r in server.requests} == {"GET"}


@pytest.mark.parametrize("name", ["image.zarr", "shards.zarr"])
@pytest.mark.parametrize("kind", ["500", "502", "503", "504", "429", "408", "reset", "cut"])
def test_passing_faults_are_waited_out_and_the_bits_are_right(server, name, kind):
    harmed = set()

    def once(request, number):
        if "/c/" not in request.path or request.path in harmed:
            return None
        harmed.add(request.path)
        return kind

    server.harm = once
    np.testing.assert_array_equal(read(server, name), PIXELS)
    assert len(harmed) == (8 if name == "image.zarr" else 4)


def test_passing_faults_of_the_metadata_are_waited_out(server):
    kinds = itertools.cycle(["500", "reset", "cut", None])
    server.harm = lambda request, _: next(kinds) if request.path.endswith("zarr.json") else None
    np.testing.assert_array_equal(read(server), PIXELS)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("500", "500"),
        ("503", "503"),
        ("429", "429"),
        ("400", "400"),
        ("410", "410"),
        ("401", "access is denied"),
        ("403", "access is denied"),
        ("reset", "cannot be reached|disconnected|reset"),
        ("cut", "payload is not completed"),
        ("page", "a chunk is damaged|whole objects where a part is asked for"),
    ],
)
@pytest.mark.parametrize("name", ["image.zarr", "shards.zarr"])
def test_a_lasting_fault_is_an_error_that_names_the_image_and_never_fill(server, name, kind, words):
    source = open_image(f"{server.url}/{name}")
    server.harm = chunks(kind)
    with pytest.raises(InputError, match=rf"{server.url}/{name}: y .* cannot be read: .*({words})") as told:
        source.read((Interval(96, 128), Interval(0, 64)))  # of the second channel nothing is stored there
    assert "\n" not in str(told.value)
    if kind != "page":
        assert f"{server.url}/{name}/c/" in str(told.value) or kind == "reset"


def test_a_server_that_stalls_is_given_up(server, monkeypatch):
    monkeypatch.setattr(patient, "BULK_DEADLINE", 1.0)
    source = open_image(f"{server.url}/image.zarr")
    server.harm = chunks("stall")
    with pytest.raises(InputError, match=r"c/0/0/0: there was no whole answer within 1 s"):
        source.read((Interval(0, 9), Interval(0, 9)))


@pytest.mark.parametrize("kind", ["500", "403", "reset", "cut", "page"])
def test_metadata_that_cannot_be_had_is_an_error_and_never_a_missing_image(server, kind):
    server.harm = lambda *_: kind
    with pytest.raises(HaloflowError, match=server.url) as told:
        open_image(f"{server.url}/image.zarr")
    assert "there is no such image" not in str(told.value)


def test_what_is_not_there_is_said(server):
    with pytest.raises(InputError, match=r"none\.zarr: there is no such image"):
        open_image(f"{server.url}/none.zarr")
    with pytest.raises(HaloflowError, match=r"cannot be reached"):
        open_image(f"http://127.0.0.1:{free_port()}/none.zarr")


@pytest.mark.parametrize("part", ["metadata", "chunks"])
@pytest.mark.parametrize(
    "leads",
    [
        "Location: {other}/image.zarr/c/0/0/0",
        "Location: //127.0.0.1:{port}/image.zarr/c/0/0/0",
        "Location: http://localhost:{port}/",
        "Location: http://{own}@127.0.0.1:{port}/",
        "Location: //127.0.0.1:{port}\\\\@{own}/",
        "Location: https://127.0.0.1:{port}/",
        "Location: ftp://127.0.0.1:{port}/",
        "Location: file://{folder}/canary",
        "URI: {other}/image.zarr/c/0/0/0",
        "Location: http://[::1",
    ],
)
def test_a_redirection_to_another_place_is_not_followed(server, other, tmp_path, part, leads):
    (tmp_path / "canary").write_bytes(b"\0" * 32 * 64)
    source = open_image(f"{server.url}/image.zarr")
    own, port = server.url.partition("//")[2], other.server.server_port
    to = leads.format(own=own, other=other.url, port=port, folder=tmp_path)
    server.harm = lambda request, _: to if part == "metadata" or "/c/" in request.path else None
    with pytest.raises(HaloflowError, match=f"{server.url}.*leads on to") as told:
        source.read(WHOLE) if part == "chunks" else open_image(f"{server.url}/image.zarr")
    assert "there is no such image" not in str(told.value)
    assert other.requests == []


def test_a_redirection_within_the_server_is_followed(server):
    server.harm = lambda request, _: (
        f"Location: {request.path.replace('moved', 'image')}" if "moved.zarr" in request.path else None
    )
    np.testing.assert_array_equal(read(server, "moved.zarr"), PIXELS)


def test_a_run_over_a_faulty_server_gives_the_bits_of_a_local_one(server, folder, tmp_path):
    def made(images, store):
        job = pipeline.load(
            {
                "input": {"images": images},
                "features": {"edge": {"rows": [[-1, 2], [3, 4]]}},
                "layers": [{"type": "convolution", "features": ["edge"], "padding": "same"}],
                "output": {"store": str(store), "chunks": 32},
            }
        )
        assert pipeline.run(pipeline.plan(job), cluster="threads", workers=2).complete
        folder = store / "image" / "convolution" / "0"
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    wanted = made(str(folder / "image.zarr"), tmp_path / "local.zarr")
    kinds = itertools.cycle(["500", None, "reset", None, "cut", None, "429", None])
    server.harm = lambda *_: next(kinds)
    assert made(f"{server.url}/image.zarr", tmp_path / "far.zarr") == wanted


def test_missing_chunks_that_nobody_can_be_asked_about_are_no_complete_image(server, tmp_path):
    config = {
        "input": {"images": f"{server.url}/image.zarr", "missing": "error"},
        "layers": [{"type": "relu"}],
        "output": {"store": str(tmp_path / "o.zarr")},
    }
    with pytest.raises(InputError, match=r"cannot be asked which of its chunks are stored, and input\.missing is"):
        pipeline.plan(pipeline.load(config))
