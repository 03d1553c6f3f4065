"""``haloflow ingest``."""
# ruff: noqa: PLC0415

import click

from pipeline.commands.common import options, progress_bar, show


@click.command()
@click.argument("image")
@click.argument("store")
@click.option("--chunks", type=click.IntRange(1), default=1024, show_default=True, help="Chunk edge in pixels.")
@click.option(
    "--compression",
    type=click.Choice(["lz4", "zstd", "none"]),
    default="lz4",
    show_default=True,
    help="Codec.",
)
@options("memory", "overwrite", "json", "quiet")
def ingest(
    image: str,
    store: str,
    chunks: int,
    compression: str,
    memory: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn an IMAGE file (TIFF, PNG, JPEG) into a chunked OME-Zarr image at STORE, band by band."""
    import pipeline

    with progress_bar(store, "chunks", quiet=quiet or as_json) as progress:
        made = pipeline.ingest(
            image,
            store,
            chunks=chunks,
            compression=compression,
            memory=memory or "1GB",
            overwrite=overwrite,
            progress=progress,
        )
    show(made, as_json=as_json, quiet=quiet)
