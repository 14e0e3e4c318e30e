"""The command line: parse, call, print. Bodies import what they need: `wspace --help` must not wait for torch.

It may import every room.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn

import typer

from wspace.cli.commands import Commands
from wspace.cli.deferred import deferred
from wspace.support import terminal
from wspace.support.memory import is_want_of_memory, wanted

if TYPE_CHECKING:
    from wspace.runs.pipeline import Workshop

# As `wspace.cli.commands.PLAIN` has it, but that shells complete it.
app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no notes; also after the command.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With an error, where it came from; also after the command.")
    ] = False,
) -> None:
    """Neural-network weights from a description."""
    terminal.manner.quiet |= quiet
    terminal.manner.verbose |= verbose


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


def _check_output() -> None:
    """Whether there is a standard output to print to, before anything is done for it. Raises DiskError."""
    from wspace.support.errors import DiskError

    if sys.stderr is None:  # closed: print would write to standard output instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        raise DiskError("standard output is closed; send it to a file, or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to end


def _tell(message: str) -> None:
    """On standard error, if that takes it: what became of the command is in its exit status as well."""
    with suppress(OSError):
        terminal.tell(message)


def _helps_another() -> bool:
    """Whether a launcher started this process beside a first one, which says all that is so of both."""
    from wspace.support.processes import launched

    return launched().rank > 0


def _end_output() -> None:
    """Nothing more goes to standard output, which does not take it; Python would try again in the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_fails() -> bool:
    """Whether standard output takes nothing more."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _collect_garbage_less_often() -> None:
    """Imports make objects by the hundred thousand, and all of them stay: Python would look through every 700 new ones.

    Of `import torch` that is a third of the time. What the largest imports make is not looked through at all, see
    `wspace.cli.options.importing`.
    """
    gc.set_threshold(20_000, *gc.get_threshold()[1:])


class _Signals:
    """SIGTERM, as a scheduler sends it, ends a command as Ctrl-C does: what is being written is cleared away first.

    What was heard is kept: code that is interrupted may make another exception of it, as a class does whose making is.
    """

    WORDS: ClassVar = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # Python hears signals in that one alone
            yield
            return
        ours = [by for by in self.WORDS if signal.getsignal(by) is not signal.SIG_IGN]  # `nohup` and the like
        before = {by: signal.signal(by, self._hear) for by in ours}
        hook, sys.unraisablehook = sys.unraisablehook, self._repeat
        try:
            yield
        finally:
            sys.unraisablehook = hook
            for by, handler in before.items():  # a launcher sends one to those that are about to end with the first
                signal.signal(by, signal.SIG_IGN if _helps_another() else handler)

    def _hear(self, number: int, _: object) -> None:
        self.heard = signal.Signals(number)
        raise KeyboardInterrupt

    def _repeat(self, lost: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised where nothing can catch it, as in `__del__` or when an import ends."""
        if self.heard is not None and issubclass(lost.exc_type, KeyboardInterrupt):
            again = threading.Timer(0.02, signal.pthread_kill, [threading.main_thread().ident, self.heard])
            again.start()  # in here it would be dropped as well
        else:
            sys.__unraisablehook__(lost)

    @contextmanager
    def recognised(self) -> Iterator[None]:
        """Whatever a command raises once it was interrupted is that."""
        try:
            yield
        except Exception as error:
            if self.heard is None:
                raise
            raise KeyboardInterrupt from error

    def end(self) -> NoReturn:
        by = self.heard or signal.SIGINT
        if not _helps_another():
            _tell(
                f"{self.WORDS[by]}: the same command goes on from here" if terminal.manner.goes_on else self.WORDS[by]
            )
        sys.exit(128 + by)


def main(workshop: Workshop | None = None) -> None:
    """Run the command line; errors a user can mend are one message and an exit status, never a traceback.

    workshop: what `wspace run` makes runs with, if not those of `wspace.runs.pipeline`.
    """
    signals = _Signals()
    with signals.listening():
        _main(workshop, signals)


def _main(workshop: Workshop | None, signals: _Signals) -> None:
    from wspace.support.errors import WspaceError

    terminal.manner = terminal.Manner()
    _collect_garbage_less_often()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two torch processes on few cores would starve each other
    try:
        _check_output()
        with _notes(), signals.recognised(), deferred():
            status = app(standalone_mode=False, obj=workshop)
        if status == 130:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort) as error:
        if terminal.manner.verbose and error.__cause__:
            traceback.print_exc()
        signals.end()
    except WspaceError as error:
        if terminal.manner.verbose:
            traceback.print_exc()
        _tell(f"error: {error}")
        sys.exit(error.exit_status)
    except (BrokenPipeError, SystemExit) as error:  # the reader of our output went away, as `head` does
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # typer makes a SystemExit of a broken pipe
        _end_output()
        sys.exit(0)
    except OSError as error:
        if error.filename:  # a file or a folder that is the user's to mend
            _tell(f"error: {error.filename2 or error.filename}: {error.strerror}")
        elif _output_fails():
            _end_output()
            _tell(f"error: standard output cannot be written: {error.strerror}")
        else:
            raise
        sys.exit(1)
    except Exception as error:
        if is_want_of_memory(error):
            if terminal.manner.verbose:
                traceback.print_exc()
            _tell(f"error: {wanted(error)}; `wspace plan RECIPE` says what each stage takes")
            sys.exit(1)
        if type(error).__module__.split(".")[0] not in ("click", "typer") or not hasattr(error, "exit_code"):
            raise
        of_help = type(error).__name__ == "NoArgsIsHelpError"  # a group by itself: its help is what was asked for
        if not _helps_another():
            _tell(f"{'' if of_help else 'error: '}{error.format_message()}")  # type: ignore[attr-defined]
        sys.exit(2)
