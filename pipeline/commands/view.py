"""``haloflow view``."""
# ruff: noqa: PLC0415

import os
import sys
import threading
import webbrowser

import click

from pipeline.commands.common import options


@click.command()
@click.argument("path")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Where to listen on loopback. [default: any free]"
)
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@options("storage", "allow")
def view(path: str, port: int, no_browser: bool) -> None:
    """Show the maps of a store over their images, or the image at PATH, in a browser, until Ctrl-C."""
    from pipeline.viewing.scene import scene
    from pipeline.viewing.server import served

    shown = scene(path)
    for note in shown.notes:
        click.echo(note, err=True)
    try:
        with served(shown, port) as page:
            click.echo(page.url)
            if not no_browser and _has_screen():
                webbrowser.open(page.url)
            threading.Event().wait()
    except KeyboardInterrupt:
        # This is how a viewer is meant to end, and nothing was left undone: not an interrupt's 130, but 0.
        return


def _has_screen() -> bool:
    """Say whether there is a screen for a browser; without one, Python would open one in the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
