"""Servers of the tests' own on loopback: S3 (moto, a process of its own) or files, behind a proxy that does harm."""

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3

KEYS = {"key": "key-of-the-tests", "secret": "secret-of-the-tests"}


@dataclass
class Request:
    """A request that came, and what was answered."""

    method: str
    path: str
    query: dict[str, list[str]]
    status: int = 0
    sent: int = 0
    """Bytes of the body of the answer."""

    @property
    def is_list(self) -> bool:
        return "list-type" in self.query or (self.method == "GET" and self.path.count("/") < 2)


Harm = Callable[[Request, int], str | None]
"""What to do to a request, the n-th: None, a status from 400 on, ``reset``, ``cut``, ``stall``, ``page`` (200,
and words instead of the object), or a header and where it leads to, such as ``Location: http://…``."""


@dataclass
class Proxy:
    """Stands before a server on this machine, notes every request, and harms those it is told to."""

    port: int
    requests: list[Request] = field(default_factory=list)
    harm: Harm | None = None
    server: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def count(self, *methods: str) -> int:
        return sum(r.method in methods and not r.is_list for r in self.requests)

    @property
    def lists(self) -> list[Request]:
        return [r for r in self.requests if r.is_list]


def _answer(handler: BaseHTTPRequestHandler, request: Request, harm: str) -> None:
    """Answer with a status, a page or a redirection."""
    request.status = int(harm) if harm.isdecimal() else 200 if harm == "page" else 302
    words = b"<html>This is not what you look for.</html>" if harm == "page" else b""
    handler.send_response(request.status)
    if ": " in harm:
        handler.send_header(*harm.split(": ", 1))
    handler.send_header("Content-Length", str(len(words)))
    handler.end_headers()
    handler.wfile.write(words)


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            request = Request(self.command, parts.path, parse_qs(parts.query, keep_blank_values=True))
            with lock:
                proxy.requests.append(request)
                harm = proxy.harm(request, len(proxy.requests)) if proxy.harm else None
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if harm == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.connection.close()
                self.close_connection = True
                return
            if harm and (harm.isdecimal() or harm == "page" or ": " in harm):
                _answer(self, request, harm)
                return
            behind = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
            behind.request(self.command, self.path, body, dict(self.headers))
            answer = behind.getresponse()
            data = answer.read()
            behind.close()
            request.status, request.sent = answer.status, len(data)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if harm == "stall":
                self.wfile.write(data[: len(data) // 2])
                time.sleep(3)
            if harm in ("cut", "stall"):
                self.wfile.write(data[: len(data) // 2] if harm == "cut" else b"")
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_one  # noqa: N815 - as http.server calls them

        def log_message(self, *words: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # those whom harm was done to
                super().handle()

    return Handler


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """Give a proxy before a port."""
    proxy = Proxy(port)
    proxy.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    proxy.server.daemon_threads = True
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()


def _files(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = folder / urlsplit(self.path).path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data, asked = path.read_bytes(), self.headers.get("Range")
            if asked:
                first, last = asked.removeprefix("bytes=").split("-")
                data = data[int(first) : int(last) + 1 if last else None] if first else data[-int(last) :]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


@contextmanager
def file_server(folder: Path) -> Iterator[Proxy]:
    """Give a web server of the files below a folder, parts of them too, as it is seen through a proxy."""
    behind = ThreadingHTTPServer(("127.0.0.1", 0), _files(folder))
    behind.daemon_threads = True
    threading.Thread(target=behind.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with proxied(behind.server_port) as proxy:
            yield proxy
    finally:
        behind.shutdown()
        behind.server_close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def s3_server() -> Iterator[int]:
    """Give the port of an S3 server."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < until, "the S3 server did not start"
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def client(port: int) -> Any:
    """Return Amazon's own client for the server, which the tests compare with."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEYS["key"],
        aws_secret_access_key=KEYS["secret"],
    )


def upload(port: int, folder: Path, bucket: str, prefix: str) -> int:
    """Put a folder into a bucket, and return how many bytes."""
    total = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client_of = client(port)
        client_of.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())
        total += path.stat().st_size
    return total


def objects(port: int, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """Return all that is in a bucket below a prefix."""
    s3 = client(port)
    keys = [o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
