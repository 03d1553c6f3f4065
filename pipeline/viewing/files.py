"""The files of images and stores over HTTP, as web viewers read Zarr: whole or by range, with CORS headers.

Tornado's own handler answers ranges (206, 416), HEAD and conditional requests, and refuses what leads out of a root,
by ``..`` or by a symbolic link. What is added here: who may read (origins), an entity tag that needs no reading of the
file, and a content type that no browser will run.
"""

from pathlib import Path

from tornado.web import HTTPError, StaticFileHandler

_METHODS = "GET, HEAD, OPTIONS"


class Files(StaticFileHandler):
    """Serves one directory, ``path``, to pages of the ``origins``; nothing is listed and nothing can be written."""

    def initialize(self, path: str, origins: frozenset[str]) -> None:  # type: ignore[override]
        """Take the directory and the origins, such as ``http://127.0.0.1:8080``, whose pages may read it."""
        self.origins = origins  # the headers below are also those of an error that comes before the rest
        super().initialize(path)

    def set_default_headers(self) -> None:
        """Allow the viewer's own origins, on errors too: a viewer must see that a chunk is not there."""
        self.set_header("Vary", "Origin")
        self.set_header("X-Content-Type-Options", "nosniff")

    def prepare(self) -> None:
        """Answer who may read."""
        self._allow()

    def write_error(self, status_code: int, **kwargs: object) -> None:
        """Answer an error with its number alone: a path is nobody's business."""
        del kwargs
        self._allow()
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{status_code}\n")

    def _allow(self) -> None:
        origin = self.request.headers.get("Origin")
        if origin in self.origins:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "Accept-Ranges, Content-Length, Content-Range, ETag")

    def options(self, path: str) -> None:
        """Answer a browser that asks, before it reads, whether it may."""
        del path
        self.set_header("Access-Control-Allow-Methods", _METHODS)
        self.set_header("Access-Control-Allow-Headers", "Range, If-None-Match")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)

    def parse_url_path(self, url_path: str) -> str:
        """Refuse names that no file can have."""
        if "\0" in url_path:
            raise HTTPError(404)
        return super().parse_url_path(url_path)

    def compute_etag(self) -> str | None:
        """Return a tag from time and size: Tornado's own would read a whole shard to serve a part of it."""
        found = Path(self.absolute_path or "").stat()
        return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'

    def get_content_type(self) -> str:
        """Return a type that is never run as a page or script, whatever a store holds."""
        return "application/octet-stream"

    def get_cache_time(self, path: str, modified: object, mime_type: str) -> int:
        """Return 0: a store may be written again while it is looked at."""
        del path, modified, mime_type
        return 0

    def set_extra_headers(self, path: str) -> None:
        """Have a browser ask each time whether what it holds is still true."""
        del path
        self.set_header("Cache-Control", "no-cache")
