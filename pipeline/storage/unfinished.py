"""What tells an image that is still being ingested from a whole one."""

from typing import Any

from pipeline.errors import InputError

INGEST = "_haloflow_ingest"
"""The attribute of an ingested image, and, until it is whole, the name below which the records lie."""

ARRAY = "0"
"""Where in an ingested image its array lies."""


def refuse_unfinished(path: str, attributes: dict[str, Any]) -> None:
    """Raise `InputError` where the attributes of an ingested group, or of its array, say that it is not finished."""
    told = attributes.get(INGEST)
    if isinstance(told, dict) and not told.get("complete"):
        raise InputError(
            f"{path}: is an unfinished ingest; finish it with 'haloflow ingest {told.get('path', 'IMAGE')} {path} "
            "--resume' and the other options as they were"
        )
