"""The command line: its verbs, signals and exit codes over the Python interface.

0 done; 2 refused before any work; 3 ran, but something failed; 130 and 143 interrupted; 1 a bug.
"""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from pipeline.commands.export import export
from pipeline.commands.features import features
from pipeline.commands.fit import fit
from pipeline.commands.ingest import ingest
from pipeline.commands.plan import plan, schema, validate
from pipeline.commands.run import run
from pipeline.commands.store import info, status, verify
from pipeline.commands.view import view
from pipeline.errors import HaloflowError


class _Terminated(BaseException):
    """SIGTERM came."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="haloflow", prog_name="haloflow")
def cli() -> None:
    """Run stacks of convolution and pooling layers over chunked images too large for memory."""


for _verb in (
    run,
    plan,
    validate,
    schema,
    features,
    fit,
    ingest,
    export,
    status,
    verify,
    info,
    view,
):
    cli.add_command(_verb)


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Terminated


def main() -> None:
    """Run the command line and end with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except HaloflowError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        code = error.exit_code
    except ImportError as error:
        # A signal that comes while a compiled package is loaded comes out as an error of that.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, KeyboardInterrupt):
            _end_at_once("interrupted", 130)
        if isinstance(cause, _Terminated):
            _end_at_once("terminated", 143)
        raise
    except (KeyboardInterrupt, click.Abort):
        _end_at_once("interrupted", 130)
    except _Terminated:
        _end_at_once("terminated", 143)
    sys.exit(code)


def _end_at_once(word: str, code: int) -> NoReturn:
    """End an interrupted run with its exit code, whatever state its cluster is in.

    A cluster that was only half made raises when Python closes it at exit: its handlers are run here, unheard.
    """
    click.echo(word, err=True)
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way to run them early
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
