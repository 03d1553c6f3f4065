"""Where something is: a local path, a zip file, or a place in a bucket or on a server, in one form.

The options that open a place (keys, endpoints) travel with it to the workers, and go nowhere else: they are in no text
of a place, and so in no store, record, log or error.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from pipeline.errors import PlaceError
from pipeline.storage.allowed import allowed
from pipeline.storage.files import get, put, put_aside
from pipeline.storage.remote import NOT_LISTED, SCHEMES, WRITABLE, connect

VARIABLE = "HALOFLOW_STORAGE_OPTIONS"
"""The environment variable that holds storage options, as a JSON object."""

METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")
"""What Zarr's two formats call the metadata of a group or an array."""


@dataclass(frozen=True)
class Place:
    """A place: what the user wrote, and what lies below it. A frozen record that crosses processes.

    >>> str(Place.of("s3://bucket/scans") / "a.zarr" / "0")
    's3://bucket/scans/a.zarr/0'
    """

    scheme: str
    """``file``, ``zip``, or a URL's scheme."""
    root: str
    """What is opened: a path or URL. Zarr makes groups above what it makes, and so never above this."""
    key: str = ""
    """Where in it, without slashes at the ends; empty for its top. Of a local path all is in ``root``."""
    _options: str = field(default="{}", repr=False)

    @classmethod
    def of(cls, text: "Where", options: Mapping[str, Any] | None = None) -> "Place":
        """Return the place of a path or URL; one that is a place already stays as it is.

        Parameters
        ----------
        text
            A path (``~/`` is the user's folder), a ``.zip`` file, or a URL: ``s3://bucket/key``, ``gs://bucket/key``,
            ``https://host/path``.
        options
            What opens URLs, beside what the environment variable `VARIABLE` says and before it.

        Raises
        ------
        PlaceError
            For URLs of other schemes, chains of them, and such as lead elsewhere; for NULs. Nothing is read.
        """
        if isinstance(text, Place):
            return text
        if "::" in text:
            raise PlaceError(f"{text}: is a chain of places ('::'); name one place")
        if "\0" in text:
            raise PlaceError(f"{text!r}: no path and no URL holds a NUL")
        if "://" not in text:
            if text.startswith("~/"):
                text = os.path.expanduser(text)
            inner = _zip_in(text)
            return cls("file", text) if inner is None else cls("zip", text[: len(text) - len(inner)], inner.strip("/"))
        scheme, _, rest = text.partition("://")
        if scheme not in SCHEMES and scheme not in allowed("scheme"):
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise PlaceError(
                f"{scheme}://…: is no kind of place that can be used; expected a path, or {known}; give --allow "
                f"scheme:{scheme} to read by fsspec from there, if you trust it"
            )
        host, _, key = rest.partition("/")
        if "@" in host or any(sign in rest for sign in "?#"):
            raise PlaceError(
                f"{scheme}://{host.rpartition('@')[2]}…: holds a user, a query or a fragment; give keys as storage "
                "options"
            )
        parts = key.rstrip("/").split("/") if key.rstrip("/") else []
        if not host or any(part in ("", ".", "..") for part in parts):
            raise PlaceError(f"{text}: expected {scheme}://NAME/KEY, without '.', '..' and empty parts")
        return cls(scheme, "/".join((f"{scheme}://{host}", *parts)), "", json.dumps(_merged(options), sort_keys=True))

    @property
    def is_local(self) -> bool:
        """Whether this is a path on this machine's disks (a zip file is not: its parts are no files)."""
        return self.scheme == "file"

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can ever be written there."""
        return self.scheme not in WRITABLE

    @property
    def real(self) -> str:
        """Where it really is, links followed, with a slash at the end: so begins what lies below it, and nothing else.

        >>> Place.of("s3://bucket/scans").real
        's3://bucket/scans/'
        """
        root = os.path.realpath(self.root) if self.scheme in ("file", "zip") else self.root
        return f"{root.rstrip('/')}/{self.key}".rstrip("/") + "/"

    @property
    def is_listed(self) -> bool:
        """Whether it can be asked what is there."""
        return self.scheme not in NOT_LISTED

    @property
    def top(self) -> "Place":
        """The whole bucket that this place is in."""
        scheme, _, rest = self.root.partition("://")
        return replace(self, root=f"{scheme}://{rest.partition('/')[0]}", key="")

    @property
    def path(self) -> Path:
        """The path of a local place."""
        return Path(self.root)

    def __truediv__(self, below: str) -> "Place":
        if self.is_local:
            return Place(self.scheme, f"{self.root}/{below}", self.key, self._options)
        return Place(self.scheme, self.root, f"{self.key}/{below}".strip("/"), self._options)

    def __str__(self) -> str:
        return f"{self.root.rstrip('/')}/{self.key}" if self.key else self.root

    def store(self) -> str | StorePath:
        """Return what `zarr.open` takes: a path, or a zarr store and a path in it."""
        return self.root if self.is_local else StorePath(self._store, self.key)

    def exists(self) -> bool:
        """Say whether there is anything at a local path, or Zarr's metadata at another place."""
        if self.is_local:
            try:
                return self.path.exists()
            except (OSError, ValueError):  # a name that no file can have
                return False
        return any(self.read(name) is not None for name in METADATA)

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a key below this place, or None where there is none."""
        if self.is_local:
            try:
                return get(f"{self.root}/{key}")
            except (FileNotFoundError, NotADirectoryError):
                return None
        found = sync(self._store.get((self / key).key, default_buffer_prototype()))
        return None if found is None else found.to_bytes()

    def write(self, key: str, data: bytes) -> None:
        """Write the bytes of a key, whole or not at all."""
        if self.is_local:
            put(f"{self.root}/{key}", data)
            return
        self._check_writable()
        sync(self._store.set((self / key).key, default_buffer_prototype().buffer.from_bytes(data)))

    def read_all(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Return what `read` does of several keys; elsewhere than here all are asked for at once."""
        wanted = list(keys)
        if self.is_local:
            return {key: self.read(key) for key in wanted}
        prototype = default_buffer_prototype()
        asked = [self._store.get((self / key).key, prototype) for key in wanted]
        return {
            key: None if found is None else found.to_bytes()
            for key, found in zip(wanted, sync(_together(asked)), strict=True)
        }

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Do what `write` does for several keys; elsewhere than here all at once."""
        if self.is_local:
            for key, data in files.items():
                self.write(key, data)
            return
        self._check_writable()
        buffer = default_buffer_prototype().buffer
        sync(_together([self._store.set((self / key).key, buffer.from_bytes(data)) for key, data in files.items()]))

    def create(self, key: str, data: bytes) -> bool:
        """Write the bytes of a key that is not there yet; False, and nothing is changed, where it is.

        Of several that try at once, one succeeds.
        """
        if self.is_local:
            target = f"{self.root}/{key}"
            while True:
                partial = put_aside(target, data)
                try:
                    os.link(partial, target)
                except FileExistsError:
                    return False
                except FileNotFoundError:  # whoever owns the store took it for what a kill had left, and swept it up
                    continue
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(partial)
                return True
        self._check_writable()
        return bool(sync(self._store.create((self / key).key, default_buffer_prototype().buffer.from_bytes(data))))

    def list(self, folder: str = "") -> Iterator[str]:
        """Give all keys below a folder, each as seen from this place, in no order; elsewhere than here in one request.

        (In one for each thousand keys, that is.)
        """
        if self.is_local:
            for above, _, names in os.walk(f"{self.root}/{folder}" if folder else self.root):
                below = above[len(self.root) :].strip("/")
                yield from (f"{below}/{name}" if below else name for name in names)
            return
        yield from sync(self._list(folder))

    def names(self) -> Sequence[str]:
        """Return the names directly below a place that is not local, each once, in no order; in one request."""
        return sync(self._names())

    def delete(self, key: str = "") -> None:
        """Delete a key, and all that lies below it; of nothing there is nothing to do."""
        if self.is_local:
            target = self.path / key
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            return
        self._check_writable()
        place = self / key
        if place.key:
            sync(self._store.delete(place.key))
        sync(self._store.delete_dir(place.key))

    @property
    def _store(self) -> Any:
        return connect(self.scheme, self.root, self._options)

    async def _list(self, folder: str) -> Sequence[str]:
        mine, below = (f"{place.key}/" if place.key else "" for place in (self, self / folder))
        return [key.removeprefix(mine) async for key in self._store.list_prefix(below)]

    async def _names(self) -> Sequence[str]:
        return [name.rstrip("/") async for name in self._store.list_dir(f"{self.key}/" if self.key else "")]

    def _check_writable(self) -> None:
        if self.is_read_only:
            raise PlaceError(f"{self}: nothing can be written to {self.scheme} places; name another place")


Where = Union[Place, str]  # noqa: UP007 - the class is not there yet when its own methods are read
"""A place, or the text of one."""


async def _together(asked: Sequence[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*asked)


def _zip_in(text: str) -> str | None:
    """Return what a path names inside a zip file, or None where it leads through none."""
    parts = text.split("/")
    for n in range(len(parts), 0, -1):
        path = "/".join(parts[:n])
        if path.endswith(".zip"):
            try:
                if Path(path).is_file():
                    return text[len(path) :]
            except (OSError, ValueError):
                return None
    return None


def _merged(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of the environment and, before them, those given."""
    said = os.environ.get(VARIABLE)
    try:
        outer = json.loads(said) if said else {}
    except ValueError:
        outer = None
    if not isinstance(outer, dict):
        raise PlaceError(f'{VARIABLE}: expected a JSON object, such as {{"anon": true}}')
    try:
        given = json.loads(json.dumps(dict(options or {})))
    except (TypeError, ValueError):
        raise PlaceError("the storage options hold more than text, numbers, lists and mappings") from None
    return {**outer, **given}
