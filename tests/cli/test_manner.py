"""How a command speaks: quietly, with tracebacks, on a terminal that draws and on one that does not; and to a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from wspace.support import progress, terminal
from wspace.support.progress import LineProgress, QuietProgress, RichProgress, for_terminal

Inside = Callable[..., CompletedProcess[str]]

OWN = '''"""A command with a -q of its own."""

from typing import Annotated

import typer

from wspace import hookimpl


@hookimpl
def wspace_commands(add):
    add("ask", "asking:ask")


def ask(
    question: Annotated[str, typer.Option("-q")] = "none", plugin: Annotated[list[str] | None, typer.Option()] = None
) -> None:
    """Ask."""
    from wspace.support.progress import for_terminal

    for_terminal().say(f"asked: {question}")
    for_terminal().say("warning: heard")
'''


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plugin") / "asking.py"
    file.write_text(OWN, encoding="utf-8")
    return file


def test_quiet_leaves_warnings_and_may_follow_the_command(inside: Inside, asking: Path) -> None:
    for command in (("--quiet", "ask"), ("ask", "--quiet")):
        done = inside(*command, "--plugin", asking)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "warning: heard\n"), command


def test_an_option_that_a_command_has_itself_is_the_commands(inside: Inside, asking: Path) -> None:
    done = inside("ask", "-q", "why", "--plugin", asking)
    assert done.stderr == "asked: why\nwarning: heard\n"


def test_the_next_command_speaks_as_it_is_asked_to(inside: Inside, asking: Path) -> None:
    inside("ask", "--quiet", "--verbose", "--plugin", asking)
    assert "asked: none\n" in inside("ask", "--plugin", asking).stderr


def test_verbose_shows_where_an_error_came_from(inside: Inside) -> None:
    brief = inside("check", "nosuch")
    for command in (("-v", "check", "nosuch"), ("check", "nosuch", "--verbose")):
        done = inside(*command)
        assert done.returncode == 2 and done.stderr.startswith("Traceback") and done.stderr.endswith(brief.stderr)
    assert brief.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("is_terminal", "kind", "expected"),
    [(True, "xterm", RichProgress), (True, "dumb", LineProgress), (False, "xterm", LineProgress)],
)
def test_progress_is_drawn_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, kind: str, expected: type
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(terminal, "manner", terminal.Manner())
    assert type(for_terminal()) is expected
    terminal.manner.quiet = True
    assert type(for_terminal()) is QuietProgress


ON_A_TERMINAL = """
import os, pty, sys
code = "from wspace.runs.report.table import _show; _show((['accuracy', 'seen'], [['generated', '80.0']]), False, 'nano')"
sys.exit(pty.spawn([sys.executable, "-c", code]))
"""


@pytest.mark.parametrize(
    ("variables", "escapes"),
    [({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, None), ({"TERM": "xterm"}, True)],
)
def test_tables_have_no_colours_where_none_are_wanted(variables: dict[str, str], escapes: bool | None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables,
        timeout=300,
    )
    assert b"generated" in done.stdout, done.stderr
    if escapes is not None:
        assert (b"\x1b[" in done.stdout) == escapes
    assert b"\x1b[3" not in done.stdout.replace(b"\x1b[3m", b""), "bold and italic are no colours"


def test_a_line_is_written_in_one_piece_among_those_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every write goes out by itself, as in the processes that torchrun starts."""
    written = list[str]()
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=written.append, flush=lambda: None, isatty=lambda: False))
    monkeypatch.setattr(progress, "LINE_EVERY", -1.0)
    LineProgress().say("zoo starts")
    QuietProgress().say("warning: heard")
    with LineProgress().bar("train", 2) as bar:
        bar.advance()
    assert written[:2] == ["zoo starts\n", "warning: heard\n"]
    assert len(written) == 3 and written[2].startswith("train: 1/2, ") and written[2].endswith(" left\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wspace gen", ["generate"]),
        ("wspace generate runs --temp", ["--temperature"]),
        ("wspace zoo ex", ["export"]),
        ("wspace check co", ["compare", "core"]),
    ],
)
def test_a_shell_completes_commands_options_and_recipes(line: str, expected: list[str]) -> None:
    asked = {"_WSPACE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    command = [sys.executable, "-c", "import sys; sys.argv = ['wspace']; from wspace.__main__ import run; run()"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | asked, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, expected), done.stderr


SENDS = "threading.Thread(target=lambda: (threading.main_thread().join(), print('sent'))).start()"
LAST_WORDS = """
import atexit, sys, threading
import wspace.__main__ as process

atexit.register(print, "behind it")
{before}
sys.argv = ["wspace", *{arguments}]
process.run()
"""


@pytest.mark.parametrize(
    ("before", "arguments", "status", "out"),
    [
        ("", ["--version"], 0, ["behind it"]),
        ("", ["gnerate"], 2, ["behind it"]),
        (SENDS, ["ls"], 0, ["sent", "behind it", "left"]),
        ("sys.setprofile(lambda *_: None)", ["ls"], 0, ["behind it", "left"]),
    ],
    ids=["ends", "refuses", "sends", "profiled"],
)  # fmt: skip
def test_a_process_ends_at_once_but_for_who_has_the_last_word(
    before: str, arguments: list[str], status: int, out: list[str]
) -> None:
    """At once: without taking modules apart, which `left` would tell of."""
    left = "import os\nclass Left:\n    def __del__(self, write=os.write): write(1, b'left\\n')\nthe_last = Left()\n"
    script = left + LAST_WORDS.format(before=before, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    told = [line for line in done.stdout.splitlines() if line in ("behind it", "sent", "left")]
    assert (done.returncode, told) == (status, out), done.stderr
