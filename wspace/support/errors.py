"""What can go wrong, as a tree. The command line prints the message alone and exits with `exit_status`.

WspaceError              1  it failed while running
├── Diverged                 a loss or a weight is not a finite number
├── DiskError                an artifact could not be written
└── UserError            2  the user's input is wrong
    ├── RecipeError          problems of a recipe, all at once, with file and line
    ├── UnknownComponent     a name no registry knows, with the nearest known one
    ├── NameClash            two plugins register one name
    ├── DataError            a data set, a picture or a list of class names cannot be used
    ├── MissingWeights       encoder weights are not here and cannot be downloaded now
    ├── MissingPackage       an optional package is not installed
    ├── FileError            a file is missing, truncated, or not of the expected shape
    └── NotARun              the folder is not a finished run
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path


class WspaceError(Exception):
    """Anything that wspace raises on purpose. The message is complete: the command line prints it and nothing else."""

    exit_status = 1  # of the command line


class Renamed(FutureWarning):
    """A recipe uses a name that will go. Shown to users, as a note that names the new one; no error."""


class Diverged(WspaceError):
    pass


class DiskError(WspaceError):
    pass


class UserError(WspaceError):
    """The user's input is wrong. One sentence: what is wrong, and what to do."""

    exit_status = 2  # of the command line


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a recipe: `recipes/t2w.yaml:14: denoiser.dpth: ...`."""

    line: int | str | None  # of the file; or the option that it was written in, as "--set" or "--engine"
    where: str
    message: str

    def text(self, file: str) -> str:
        if self.line == "--set":
            return f"{self.line} {self.where}: {self.message}"
        if isinstance(self.line, str):  # which says where by itself
            return f"{self.line}: {self.message}"
        position = f"{file}:{self.line}" if self.line is not None else file
        return f"{position}: {self.where}: {self.message}" if self.where else f"{position}: {self.message}"


def _place(problem: Problem) -> tuple[int, str]:
    return problem.line if isinstance(problem.line, int) else 0, problem.where


class RecipeError(UserError):
    def __init__(self, file: str, problems: Sequence[Problem]):
        self.problems = sorted(problems, key=_place)
        super().__init__("\n".join(problem.text(file) for problem in self.problems))


class UnknownComponent(UserError):
    pass


class NameClash(UserError):
    pass


class DataError(UserError):
    """A data set, a picture or a list of class names cannot be used."""


class MissingWeights(UserError):
    pass


class MissingPackage(UserError):
    pass


class FileError(UserError):
    """A file is missing, truncated, or not of the expected form. The message names it."""


class NotARun(UserError):
    pass


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """' Did you mean 'chunk'? Known: chunk, neuron', for the end of an error message."""
    nearest = get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"{hint} Known: {', '.join(sorted(choices)) or '(none)'}"


def nearest(name: str, choices: Sequence[str]) -> str:
    """': did you mean a, b or c?', for the end of a message where all that is known is too much to print."""
    names = get_close_matches(name, choices, n=3, cutoff=0.4)
    *others, last = names or [""]
    return (f": did you mean {', '.join(others)} or {last}?" if others else f": did you mean {last}?") if last else ""


PACKAGE = Path(__file__).parent.parent


def reason(error: BaseException) -> str:
    """Somebody else's exception on one line: its type, what it says, and where in their code it was raised."""
    lines = [*str(error).splitlines(), *getattr(error, "__notes__", ())]
    message = "; ".join(line.strip() for line in lines if line.strip())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError):  # says where by itself
        return text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _between(Path(frame.filename))]
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text


def _between(file: Path) -> bool:
    """Whether a file is of what stands between us and a plugin, or our own."""
    return "importlib" in str(file) or "pluggy" in file.parts or PACKAGE in file.parents
