"""``haloflow features``."""
# ruff: noqa: PLC0415

from pathlib import Path

import click

from pipeline.commands.common import load, options
from pipeline.errors import OutputError, counted


@click.command()
@click.argument("config")
@click.option("-o", "--output", default="features.png", show_default=True, help="The picture, a PNG file.")
@options("overwrite", "set", "storage", "allow", "quiet")
def features(config: str, output: str, overwrite: bool, settings: tuple[str, ...], quiet: bool) -> None:
    """Draw all features of CONFIG, the members of families too, with their names."""
    from pipeline.sheet import sheet
    from pipeline.storage.target import check_file

    job = load(config, settings)
    path = Path(output)
    if path.suffix.lower() != ".png":
        raise OutputError(f"{output}: the sheet is a PNG file; end its name in .png")
    check_file(path, overwrite=overwrite)
    if not job.features:
        raise OutputError(f"{config}: has no features to draw")
    try:
        with path.open("wb") as file:
            sheet(job.features).save(file, "PNG")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from None
    if not quiet:
        click.echo(f"{output}: {counted(len(job.features), 'feature')}")
