"""A store far away: passing faults are waited out, within a deadline; lasting ones are told in the user's words.

What is not there, and only that, is None to the reader: a server's error is never a missing chunk.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import NoReturn, TypeVar

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from pipeline.errors import PlaceError

DEADLINE = 30.0
"""Seconds that a small request may take, all attempts together: what there is, is known within a minute."""

BULK_DEADLINE = 300.0
"""Seconds that a chunk may take, all attempts together. One that stalls is given up earlier, and asked for again."""

STALL = 15.0
"""Seconds without a byte after which a request is given up."""

ATTEMPTS = 5
"""Times a request is made where faults pass."""

PAUSE = 0.2
"""Half the seconds that the first pause before a request is made again takes at the most; each next one may take twice
as long."""

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""What a server answers that may do better the next time."""

SMALL = (".json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")

Result = TypeVar("Result")


class Patient(WrapperStore[Store]):
    """A zarr store with deadlines and plain errors.

    Parameters
    ----------
    store
        Of zarr; it raises `FileNotFoundError` for what is not there.
    root
        What the user calls it.
    secrets
        Texts that no error may hold.
    retry
        Whether all requests are made again here, because the client below makes none.
    """

    def __init__(self, store: Store, root: str = "", secrets: tuple[str, ...] = (), *, retry: bool = False) -> None:
        super().__init__(store)
        self.root, self.secrets, self.retry = root, secrets, retry

    def _with_store(self, store: Store) -> "Patient":
        return type(self)(store, self.root, self.secrets, retry=self.retry)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of a key; None where there is none."""

        async def read() -> Buffer | None:
            return await self._store.get(key, prototype, byte_range)

        try:
            found = await self._do(key, read, DEADLINE if key.endswith(SMALL) else BULK_DEADLINE)
        except FileNotFoundError:
            return None
        if found is not None and len(found) > _most(byte_range):
            raise PlaceError(f"{self.root}/{key}: the server sends whole objects where a part is asked for")
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return the bytes of several keys or parts of them."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Say whether there is a key."""
        return await self._do(key, lambda: self._store.exists(key))

    async def getsize(self, key: str) -> int:
        """Return how many bytes a key has; raises `FileNotFoundError` where there is none."""
        return await self._do(key, lambda: self._store.getsize(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Write the bytes of a key."""
        await self._do(key, lambda: self._store.set(key, value), BULK_DEADLINE)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write the bytes of a key that is not there yet, in one request."""
        await self.create(key, value)

    async def create(self, key: str, value: Buffer) -> bool:
        """Write the bytes of a key that is not there yet, and say whether it was not."""
        return await self._do(key, lambda: self._store.create(key, value))  # type: ignore[attr-defined]

    async def delete(self, key: str) -> None:
        """Delete a key; nothing is done where there is none."""
        with suppress(FileNotFoundError):
            await self._do(key, lambda: self._store.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete all keys below one."""
        with suppress(FileNotFoundError):
            await self._do(prefix, lambda: self._store.delete_dir(prefix), BULK_DEADLINE)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Give all keys below one."""
        for key in await self._do(prefix, lambda: _all(self._store.list_prefix(prefix)), BULK_DEADLINE):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Give the names directly below a key."""
        for key in await self._do(prefix, lambda: _all(self._store.list_dir(prefix)), BULK_DEADLINE):
            yield key

    async def _do(self, key: str, request: Callable[[], Awaitable[Result]], limit: float = DEADLINE) -> Result:
        left = ATTEMPTS
        try:
            async with asyncio.timeout(limit):
                while True:
                    try:
                        return await request()
                    except Exception as error:
                        left -= 1
                        if not left or not _may_pass(error, every=self.retry):
                            raise
                    # Each waits a while of its own, so that many do not come back together.
                    await asyncio.sleep(random.uniform(0, PAUSE * 2 ** (ATTEMPTS - left)))  # noqa: S311 - no secret
        except TimeoutError:
            raise PlaceError(f"{self.root}/{key}: there was no whole answer within {limit:.0f} s") from None
        except Exception as error:  # noqa: BLE001 - whatever clients raise
            self._tell(key, error)

    def _tell(self, key: str, error: Exception) -> NoReturn:
        """Raise an error again in the user's words, without secrets and without its many causes."""
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        every = f"{type(error).__name__} {error}".casefold()
        for secret in self.secrets:
            text = text.replace(secret, "…")
        if "nosuchbucket" in every or "bucket does not exist" in every:
            raise PlaceError(f"{self.root}: there is no such bucket; check its name, and the endpoint") from None
        if isinstance(error, FileNotFoundError | PlaceError):
            raise error
        if isinstance(error, TypeError) and (unknown := re.search(r"unexpected keyword argument ('\w+')", text)):
            # Options that a client looks at when it first connects.
            raise PlaceError(f"{self.root}: there is no storage option {unknown[1]} for such places") from None
        if any(words in every for words in ("credential", "169.254.169.254", "metadata.google.internal")):
            raise PlaceError(
                f"{self.root}: no credentials were found; set them as the cloud's own tools take them (for S3 in "
                "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or give storage options (for a public "
                "bucket --storage-option anon=true)"
            ) from None
        status = getattr(error, "status", None)
        if isinstance(error, PermissionError) or status in (401, 403) or "403 forbidden" in every:
            raise PlaceError(
                f"{self.root}/{key}: access is denied ({text}); check the keys and what they allow"
            ) from None
        if any(word in every for word in ("connect", "resolve", "dns")):
            raise PlaceError(
                f"{self.root}: cannot be reached ({text}); check the name, the network, and the endpoint"
            ) from None
        raise PlaceError(f"{self.root}/{key}: {text}") from None


def _most(part: ByteRequest | None) -> float:
    """Return the bytes that a part of an object has at the most."""
    if isinstance(part, RangeByteRequest):
        return part.end - part.start
    return part.suffix if isinstance(part, SuffixByteRequest) else float("inf")


def _may_pass(error: Exception, *, every: bool) -> bool:
    """Say whether a request may do better again; but for ``every`` fault, only what botocore does not ask again for."""
    answer = getattr(error.__cause__, "response", None)
    if isinstance(answer, dict) and answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 429:
        return True
    if not every:
        return False
    import aiohttp  # noqa: PLC0415 - an extra; what is asked again here came through it

    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in PASSING
    return isinstance(error, aiohttp.ClientError | ConnectionError | TimeoutError)


async def _all(keys: AsyncIterator[str]) -> list[str]:
    return [key async for key in keys]
