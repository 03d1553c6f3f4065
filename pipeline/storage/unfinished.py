"""What tells an image that is still being ingested from a whole one."""

from typing import Any

from pipeline.errors import InputError

INGEST = "_haloflow_ingest"
"""The attribute of an ingested image, and, until it is whole, the name below which the records lie."""


def refuse_unfinished(path: str, attributes: dict[str, Any]) -> None:
    """Raise `InputError` where a group's attributes say that its ingest is not finished."""
    told = attributes.get(INGEST)
    if isinstance(told, dict) and not told.get("complete"):
        raise InputError(
            f"{path}: is an unfinished ingest; finish it with 'haloflow ingest {told.get('source', 'IMAGE')} {path} "
            "--resume' and the other options as they were"
        )
