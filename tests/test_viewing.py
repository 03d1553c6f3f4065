"""`haloflow view`: what its server gives and refuses, what it shows, and how it ends."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from pipeline.errors import HaloflowError, ViewError
from pipeline.viewing.scene import scene
from pipeline.viewing.server import Page, served
from tests.viewed import dotted

Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dotted(tmp_path_factory.mktemp("view"), dtype="float32", plain=False)


@pytest.fixture(scope="module")
def page(store: Path) -> Iterator[Page]:
    (store.parent / "secret").write_text("secret")
    (store.parent / "maps.zarr-beside").mkdir()
    (store.parent / "maps.zarr-beside" / "secret").write_text("secret")
    (store / "leak").symlink_to(store.parent / "secret")
    (store / "leaks").symlink_to(store.parent)
    (store / "digits").write_bytes(b"0123456789")
    with served(scene(str(store))) as shown:
        yield shown


@pytest.fixture
def data(page: Page) -> str:
    """The path of the store's root on the server."""
    source = next(la["source"] for la in page.state["layers"] if "pool" in la["name"])
    return urlsplit(source.split("|")[0]).path.removesuffix("dots/pool/")


def ask(page: Page, path: str, method: str = "GET", **headers: str) -> Reply:
    """Send a path just as it is written."""
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def test_whole_files_are_those_of_the_store(page: Page, data: str, store: Path) -> None:
    files = [p for p in store.rglob("*") if p.is_file() and "leak" not in str(p.relative_to(store))]
    assert len(files) > 3
    for file in files:
        status, headers, body = ask(page, f"{data}{file.relative_to(store)}")
        assert (status, body) == (200, file.read_bytes())
        assert headers["accept-ranges"] == "bytes"
        assert headers["content-type"] == "application/octet-stream"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "status", "body", "said"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=-99", 200, b"0123456789", None),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=10-12", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
    ],
)
def test_ranges(page: Page, data: str, asked: str, status: int, body: bytes, said: str | None) -> None:
    found, headers, got = ask(page, f"{data}digits", Range=asked)
    assert (found, got, headers.get("content-range")) == (status, body, said)
    assert int(headers["content-length"]) == len(body)


def test_head_answers_without_the_body(page: Page, data: str) -> None:
    status, headers, body = ask(page, f"{data}digits", "HEAD")
    assert (status, headers["content-length"], body) == (200, "10", b"")
    status, headers, body = ask(page, f"{data}digits", "HEAD", Range="bytes=2-4")
    assert (status, headers["content-length"], headers["content-range"], body) == (206, "3", "bytes 2-4/10", b"")
    assert ask(page, f"{data}nothing", "HEAD")[0] == 404


def test_only_the_viewers_pages_may_read(page: Page, data: str) -> None:
    port = urlsplit(page.url).port
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        for path, status in ((f"{data}digits", 200), (f"{data}dots/pool/0/c/9/9/9", 404)):
            found, headers, _ = ask(page, path, Origin=origin)
            assert (found, headers["access-control-allow-origin"]) == (status, origin)
            assert "Content-Range" in headers["access-control-expose-headers"]
        status, headers, body = ask(
            page, f"{data}digits", "OPTIONS", Origin=origin, Access_Control_Request_Method="GET"
        )
        assert (status, body, headers["access-control-allow-origin"]) == (204, b"", origin)
        assert {"GET", "HEAD", "OPTIONS"} == set(headers["access-control-allow-methods"].split(", "))
        assert "Range" in headers["access-control-allow-headers"]
    for origin in ("http://127.0.0.1:1", "https://example.org", "null"):
        _, headers, _ = ask(page, f"{data}digits", Origin=origin)
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "%2e%2e%2fsecret",
        "dots/../../secret",
        "../maps.zarr-beside/secret",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "..%5csecret",
        "%252e%252e%252fsecret",
        "leak",
        "leaks/secret",
        "leaks",
        "dots",
        "",
        "digits%00",
        "%00",
        "digits/x",
        "a" * 5000,
    ],
)
def test_nothing_beyond_the_roots_is_given(page: Page, data: str, path: str) -> None:
    status, _, body = ask(page, data + path)
    assert status in (403, 404)
    assert b"secret" not in body
    assert b"root:" not in body


@pytest.mark.parametrize(
    "path", ["/data/", "/data/0/digits", "/data/{wrong}/0/digits", "/data/{token}/9/digits", "/digits"]
)
def test_the_token_and_the_roots_name_are_needed(page: Page, data: str, path: str) -> None:
    token = data.split("/")[2]
    assert len(token) >= 32
    assert ask(page, path.format(token=token, wrong="0" * len(token)))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(page: Page, data: str, store: Path, method: str) -> None:
    assert ask(page, f"{data}digits", method, Content_Length="0")[0] == 405
    assert (store / "digits").read_bytes() == b"0123456789"


def test_names_of_any_letters(page: Page, data: str, store: Path) -> None:
    name = "ä b%23#?|.txt"
    (store / name).write_bytes(b"here")
    assert ask(page, data + quote(name))[::2] == (200, b"here")


def test_what_changed_is_read_again(page: Page, data: str, store: Path) -> None:
    file = store / "changing"
    file.write_bytes(b"one")
    _, headers, _ = ask(page, f"{data}changing")
    assert ask(page, f"{data}changing", If_None_Match=headers["etag"])[0] == 304
    file.write_bytes(b"other")
    assert ask(page, f"{data}changing", If_None_Match=headers["etag"])[::2] == (200, b"other")


def test_it_listens_on_loopback_alone(page: Page) -> None:
    assert urlsplit(page.url).hostname == "127.0.0.1"
    port = urlsplit(page.url).port
    bound = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in bound
    assert f"00000000:{port:04X}" not in bound


def test_the_page_is_there_and_loads_nothing_from_elsewhere(page: Page) -> None:
    status, _, body = ask(page, urlsplit(page.url).path)
    assert status == 200
    assert b"<script" in body
    assert b"http" not in body


def test_a_port_that_is_taken_is_refused(page: Page, store: Path) -> None:
    port = urlsplit(page.url).port
    ended = haloflow("view", str(store), "--no-browser", "--port", str(port), timeout=60)
    assert ended.returncode == 2
    assert f"error: --port {port}: cannot be listened on" in ended.stderr
    assert "Traceback" not in ended.stderr


def haloflow(*args: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *args], capture_output=True, text=True, timeout=timeout, check=False
    )


def test_what_opens_a_bucket_and_what_is_allowed_are_given_as_to_other_commands() -> None:
    given = ["--allow", "scheme:ftp", "--storage-option", "backend=boto"]
    ended = haloflow("view", "s3://nobody/a.zarr", "--no-browser", *given, timeout=60)
    assert ended.returncode == 2
    assert "expected fsspec or obstore" in ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_ends_when_told_and_leaves_nothing(store: Path, number: int, code: int) -> None:
    # Started in the background by a shell, Python would ignore Ctrl-C.
    source = "import signal; signal.signal(2, signal.default_int_handler); from pipeline.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", source, "view", str(store), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout
    url = child.stdout.readline().strip()
    assert ask(Page(url, {}), urlsplit(url).path)[0] == 200
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert child.returncode == code
    assert (out, "Traceback" in err) == ("", False)
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
    with pytest.raises(ConnectionRefusedError):
        ask(Page(url, {}), "/")


@pytest.mark.parametrize("path", ["ftp://host/x.zarr", "nowhere.zarr", "pyproject.toml"])
def test_what_cannot_be_shown_is_refused(path: str) -> None:
    with pytest.raises(HaloflowError, match=path.partition("://")[0]):
        scene(path)


def test_without_neuroglancer_the_extra_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    with pytest.raises(ViewError, match=r"haloflow\[view\]"), served(scene(str(store))):
        pass
