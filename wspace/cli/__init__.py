"""The command line: parse, call, print. Bodies import what they need: `wspace --help` must not wait for torch.

It may import every room.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wspace.cli.commands import PLAIN, Commands

if TYPE_CHECKING:
    from wspace.runs.pipeline import Workshop

app = typer.Typer(cls=Commands, no_args_is_help=True, **PLAIN)


def _print_version(asked: bool) -> None:
    if asked:
        from wspace import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def wspace(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Neural-network weights from a description."""


@contextmanager
def _notes() -> Iterator[None]:
    """What was renamed is a note on standard error, once for each."""
    from wspace.support.errors import Renamed

    noted: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Renamed)
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, Renamed):
                show(message, category, *where, **more)
            elif str(message) not in noted:
                noted.add(str(message))
                print(f"note: {message}", file=sys.stderr)

        warnings.showwarning = note
        yield


def main(workshop: Workshop | None = None) -> None:
    """Run the command line; errors a user can mend are one message and an exit status, never a traceback.

    workshop: what `wspace run` makes runs with, if not the stages of `wspace.runs.keys`.
    """
    from wspace.support.errors import WspaceError

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two torch processes on few cores would starve each other
    try:
        with _notes():
            status = app(standalone_mode=False, obj=workshop)
        if status == 130:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()
    except WspaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except (BrokenPipeError, SystemExit) as error:  # the reader of our output went away, as `head` does
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # typer makes a SystemExit of a broken pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("click", "typer") or not hasattr(error, "exit_code"):
            raise
        print(f"error: {error.format_message()}", file=sys.stderr)  # type: ignore[attr-defined]
        sys.exit(2)
