"""``haloflow ingest``."""
# ruff: noqa: PLC0415

import logging
from typing import Literal

import click

from pipeline.commands.common import options, progress_bar, show


@click.command()
@click.argument("image")
@click.argument("store")
@click.option("--chunks", type=click.IntRange(1), default=1024, show_default=True, help="Chunk edge in pixels.")
@click.option(
    "--shards", type=click.IntRange(1), help="Edge of a shard of several chunks, in pixels. [default: no shards]"
)
@click.option(
    "--compression",
    type=click.Choice(["lz4", "zstd", "none"]),
    default="lz4",
    show_default=True,
    help="Codec.",
)
@click.option(
    "--level", type=click.IntRange(1, 22), help="Of the codec; lz4 has 1 to 9. [default: 5 for lz4, 3 for zstd]"
)
@click.option(
    "--pages", type=click.Choice(["t", "c", "z"]), help="What the pages of a TIFF are that does not say so itself."
)
@click.option("--workers", type=click.IntRange(1), help="How many threads, at the most. [default: one a core]")
@click.option("--resume", is_flag=True, help="Go on with an ingest that was stopped; what is done is not done again.")
@options("memory", "overwrite", "storage", "json", "quiet")
def ingest(
    image: str,
    store: str,
    chunks: int,
    shards: int | None,
    compression: str,
    level: int | None,
    pages: Literal["t", "c", "z"] | None,
    workers: int | None,
    resume: bool,
    memory: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn an IMAGE file (TIFF, PNG, JPEG, JPEG 2000, .npy …) into a chunked OME-Zarr image at STORE, band by band."""
    import pipeline

    logging.disable(logging.CRITICAL)  # of several writes that fail at once asyncio would log all but the one told
    with progress_bar(store, "bands", quiet=quiet or as_json) as progress:
        made = pipeline.ingest(
            image,
            store,
            chunks=chunks,
            shards=shards,
            compression=compression,
            level=level,
            pages=pages,
            memory=memory or "1GB",
            workers=workers,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
    show(made, as_json=as_json, quiet=quiet)
