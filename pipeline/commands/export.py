"""``haloflow export``."""
# ruff: noqa: PLC0415

import re

import click

from pipeline.commands.common import options, show

_REGION = re.compile(r"(\d+):(\d+),(\d+):(\d+)")


def _region(context: click.Context, option: click.Parameter, text: str | None) -> object:
    del context, option
    if text is None:
        return None
    found = _REGION.fullmatch(text.replace(" ", ""))
    if not found:
        raise click.BadParameter(f"{text!r}: expected Y0:Y1,X0:X1 in pixels, such as 0:512,1024:1536")
    y0, y1, x0, x1 = map(int, found.groups())
    return (y0, y1), (x0, x1)


def _window(context: click.Context, option: click.Parameter, text: str | None) -> object:
    del context, option
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected LOW:HIGH, such as 0:1") from None
    return low, high


@click.command()
@click.argument("image")
@click.argument("file")
@click.option(
    "--channel", "channels", multiple=True, metavar="NAME", help="A channel's name or number; again for more."
)
@click.option("--region", callback=_region, metavar="Y0:Y1,X0:X1", help="In pixels of the level. [default: all]")
@click.option("--level", type=click.IntRange(0), default=0, show_default=True, help="Of the image's pyramid.")
@click.option("--t", type=click.IntRange(0), help="The plane along t, from 0. [default: all]")
@click.option("--z", type=click.IntRange(0), help="The plane along z, from 0. [default: all]")
@click.option(
    "--window",
    callback=_window,
    metavar="LOW:HIGH",
    help="For PNG, the numbers to show as black and white. [default: as the image says]",
)
@options("memory", "overwrite", "storage", "allow", "json", "quiet")
def export(
    image: str,
    file: str,
    channels: tuple[str, ...],
    region: tuple[tuple[int, int], tuple[int, int]] | None,
    level: int,
    t: int | None,
    z: int | None,
    window: tuple[float, float] | None,
    memory: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write an IMAGE or a map (results/x.zarr/image/pool), or a region of it, to a FILE (.tif, .png or .npy)."""
    import pipeline

    made = pipeline.export(
        image,
        file,
        channels=channels,
        region=region,
        level=level,
        t=t,
        z=z,
        window=window,
        memory=memory or "1GB",
        overwrite=overwrite,
    )
    show(made, as_json=as_json, quiet=quiet)
