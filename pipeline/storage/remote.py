"""Stores that are not folders: zip files, buckets, servers, memory. Each is opened once a process."""

import asyncio
import atexit
import json
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore, ZipStore

from pipeline.errors import PlaceError
from pipeline.storage.patient import ATTEMPTS, DEADLINE, STALL, Patient

SCHEMES = ("s3", "gs", "https", "http", "memory")
"""The URLs that can be used; others are refused before anything is read."""

WRITABLE = ("file", "s3", "gs", "memory")
"""Where something can be made that must not be there yet, which is how a store has one owner."""

NOT_LISTED = ("https", "http")
"""What cannot be listed: a page of links names what it likes."""

EXTRAS = {"s3": "s3", "gs": "gs", "https": "http", "http": "http"}
"""The extra of the distribution that carries what a scheme needs."""

BACKEND = "backend"
"""The storage option that chooses who speaks to buckets and servers: fsspec (the default) or obstore."""

_opened: dict[tuple[str, str, str], Any] = {}
_clients: dict[tuple[str, str, str], Any] = {}
"""fsspec's file systems by scheme, host and options: their connections serve all that lies in a bucket."""
_lock = Lock()


def connect(scheme: str, root: str, options: str) -> Any:
    """Return the zarr store of a place's root; ``options`` is a JSON object. Raises `PlaceError` where it cannot."""
    if scheme == "zip":
        return _zip(root, Path(root).stat().st_mtime_ns)
    with _lock:
        found = _opened.get((scheme, root, options))
        if found is None:
            found = _opened[scheme, root, options] = _open(scheme, root, options)
    return found


@lru_cache(maxsize=8)
def _zip(root: str, changed: int) -> Any:
    del changed  # a file that is replaced is opened anew
    try:
        return sync(ZipStore.open(root, mode="r"))
    except Exception as error:  # noqa: BLE001 - whatever a damaged archive makes zipfile raise
        raise PlaceError(f"{root}: is not a zip file, or is damaged: {error}") from None


def _open(scheme: str, root: str, said: str) -> Patient:
    options = json.loads(said)
    backend = options.pop(BACKEND, "fsspec")
    if backend not in ("fsspec", "obstore"):
        raise PlaceError(f"{root}: the storage option {BACKEND} is none that there is; expected fsspec or obstore")
    if backend == "obstore" and scheme in ("http", "https"):  # it follows redirections to places nobody named
        raise PlaceError(f"{root}: {scheme} places are read with fsspec; leave the storage option {BACKEND} out")
    secrets = tuple(sorted(_texts(options), key=len, reverse=True))
    try:
        if backend == "obstore":
            return Patient(_obstore(root, options), root, secrets)
        return Patient(_fsspec(scheme, root, options), root, secrets, retry=scheme in ("http", "https"))
    except PlaceError:
        raise
    except ImportError as error:
        if scheme not in SCHEMES:
            raise PlaceError(f"{root}: needs a package that is not installed: {error}") from None
        extra = "obstore" if backend == "obstore" else EXTRAS[scheme]
        raise PlaceError(f"{root}: needs packages that are not installed: pip install 'haloflow[{extra}]'") from None
    except Exception as error:  # noqa: BLE001 - whatever a client makes of options it does not know
        names = ", ".join(sorted(options)) or "none"
        raise PlaceError(
            f"{root}: {backend} takes no such storage options ({type(error).__name__}); given: {names}"
        ) from None


def _texts(value: Any) -> set[str]:
    """Return the texts in storage options that may be secrets: all but short words such as a region's part."""
    if isinstance(value, dict | list):
        return set().union(*(_texts(v) for v in (value.values() if isinstance(value, dict) else value)))
    return {value} if isinstance(value, str) and len(value) > 7 and "://" not in value else set()


class _Fsspec(FsspecStore):
    async def create(self, key: str, value: Buffer) -> bool:
        try:
            # The asynchronous side of fsspec's interface.
            await self.fs._pipe_file(f"{self.path}/{key}", value.to_bytes(), mode="create")  # noqa: SLF001
        except FileExistsError:
            return False
        return True


class _Memory(_Fsspec):
    """In this process alone."""

    async def create(self, key: str, value: Buffer) -> bool:
        def put() -> bool:
            with _lock:
                if self.fs.sync_fs.exists(path):
                    return False
                self.fs.sync_fs.pipe_file(path, value.to_bytes())
                return True

        path = f"{self.path}/{key}"
        return await asyncio.to_thread(put)


class _Obstore(ObjectStore[Any]):
    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        import obstore  # noqa: PLC0415 - an extra

        asked: Any = None
        match byte_range:
            case RangeByteRequest():
                asked = (byte_range.start, byte_range.end)
            case OffsetByteRequest():
                asked = {"offset": byte_range.offset}
            case SuffixByteRequest():
                asked = {"suffix": byte_range.suffix}
        answer = await obstore.get_async(self.store, key, options={"range": asked} if asked else None)
        return prototype.buffer.from_bytes(memoryview(await answer.bytes_async()))

    async def create(self, key: str, value: Buffer) -> bool:
        import obstore  # noqa: PLC0415 - an extra

        try:
            await obstore.put_async(self.store, key, value.to_bytes(), mode="create", use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return False
        return True


def _fsspec(scheme: str, root: str, options: dict[str, Any]) -> _Fsspec:
    import fsspec  # noqa: PLC0415 - an extra
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper  # noqa: PLC0415

    path = root.partition("://")[2]
    if scheme == "memory":
        fs = AsyncFileSystemWrapper(fsspec.filesystem("memory"), asynchronous=True)
        return _Memory(fs, path=f"/{path}", allowed_exceptions=())
    client = (scheme, path.partition("/")[0], json.dumps(options, sort_keys=True))
    if scheme == "s3":
        patience = {
            "connect_timeout": 5,
            "read_timeout": STALL,
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        }
        options = {
            "max_concurrency": 1,  # else the size of each object is asked for before it is read
            "use_listings_cache": False,
            **options,
            "config_kwargs": {**patience, **options.get("config_kwargs", {})},
        }
    elif scheme in ("https", "http"):
        path, options = root, {**options, "get_client": _session}
    elif scheme != "gs":
        return _another(scheme, root, options)
    fs = _clients.get(client)
    if fs is None:
        fs = _clients[client] = fsspec.filesystem(scheme, asynchronous=True, skip_instance_cache=True, **options)
        if scheme == "s3":
            fs.retries = 3  # of bodies that were cut short, and each of these with botocore's own
    return _Fsspec(fs, path=path, allowed_exceptions=())


def _another(scheme: str, root: str, options: dict[str, Any]) -> _Fsspec:
    """Return the store of a scheme that is not ours, by whichever file system of fsspec is installed for it."""
    import fsspec  # noqa: PLC0415 - an extra
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper  # noqa: PLC0415

    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise PlaceError(f"{root}: fsspec has no file system for {scheme}://") from None
    if kind.async_impl:
        fs, path = fsspec.url_to_fs(root, asynchronous=True, skip_instance_cache=True, **options)
        return _Fsspec(fs, path=path, allowed_exceptions=())
    fs, path = fsspec.url_to_fs(root, **options)
    return _Fsspec(AsyncFileSystemWrapper(fs, asynchronous=True), path=path, allowed_exceptions=())


async def _session(**options: Any) -> Any:
    """Return a web client that follows a redirection on the same server only: another is a place nobody named.

    The same server is the same host and port, and HTTPS on its own port for HTTP on its.
    """
    import aiohttp  # noqa: PLC0415 - an extra
    from yarl import URL  # noqa: PLC0415 - aiohttp's own, so that both understand a URL alike

    async def check(session: Any, context: Any, params: aiohttp.TraceRequestRedirectParams) -> None:
        del session, context
        here, headers = params.url.origin(), params.response.headers
        told = headers.get("Location") or headers.get("URI") or ""  # as aiohttp has it
        try:
            to = params.url.join(URL(told)).origin()
        except ValueError:
            to = None
        if to != here and (to is None or to != here.with_scheme("https") or not here.is_default_port()):
            raise PlaceError(f"{here}: leads on to {to or told or 'nowhere'}; name that place instead, if you trust it")

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(check)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=STALL)
    return aiohttp.ClientSession(**{"timeout": timeout, **options, "trace_configs": [tracing]})


def _obstore(root: str, options: Any) -> _Obstore:
    from obstore.store import from_url  # noqa: PLC0415 - an extra

    client: Any = {"connect_timeout": "5s", "timeout": "60s", **options.pop("client_options", {})}
    if root.startswith("http://") or str(options.get("endpoint", "")).startswith("http://"):
        client["allow_http"] = True  # the user wrote it
    retry: Any = {"max_retries": ATTEMPTS, "retry_timeout": timedelta(seconds=DEADLINE - 5)}
    return _Obstore(from_url(root, client_options=client, retry_config=retry, **options))


@atexit.register
def _close() -> None:
    """End what is still asked for after an error, and close the connections: both would else be complained of."""
    if _opened:
        sync(_cancel_all())
    for fs in _clients.values():
        for name in ("_s3creator", "_session"):
            if (client := getattr(fs, name, None)) is not None:
                sync(client.__aexit__(None, None, None), timeout=1)


async def _cancel_all() -> None:
    """Cancel the other tasks of this loop, zarr's, and wait until they have ended, or for a second."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=1)
