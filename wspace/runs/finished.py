"""The folder of a finished run: which artifacts are its own, and its report. Reading these imports no torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wspace.runs.report.section import sections
from wspace.runs.store import intact
from wspace.support.errors import FileError, NotARun, Renamed
from wspace.support.files import disk_errors, read_json, read_text, write_text
from wspace.support.names import MANIFEST, PAGE, RECIPE, REPORT, RUN, STUDY

if TYPE_CHECKING:
    from wspace.recipes.registry import Registry
    from wspace.recipes.schema import BoundRecipe


def stages_of(folder: Path) -> dict[str, str]:
    """Stage -> artifact folder. Raises NotARun."""
    if (folder / STUDY).is_file():
        member = read_json(folder / STUDY)["members"][0]
        raise NotARun(f"{folder}: the folder of a study, not of a run; name one of its runs, such as {folder / member}")
    if not (folder / RUN).is_file() or not (folder / RECIPE).is_file():
        if how := _unfinished(folder):
            raise NotARun(f"{folder}: this run is not finished: {how}")
        under = Path("runs") / folder
        hint = (
            f"did you mean {under}?" if (under / RUN).is_file() else "`wspace run RECIPE` makes one and prints it last"
        )
        raise NotARun(f"{folder}: not the folder of a finished run; {hint}")
    stages = read_json(folder / RUN)["stages"]
    for stage, artifact in stages.items():
        if Path(artifact).name != artifact or artifact in ("", ".", ".."):  # somebody else may have made the run
            raise FileError(f"{folder / RUN}: {artifact!r}, of stage {stage!r}, is not the name of a folder here")
    return stages


def _unfinished(folder: Path) -> str | None:
    """Of the folder of a run that began and did not end, where it stopped; None of any other folder."""
    stopped = sorted(folder.glob("*-*.partial"), key=lambda partial: partial.stat().st_mtime)
    if stopped:
        return (
            f"it stopped in stage {stopped[-1].name.partition('-')[0]!r}, and the same `wspace run` goes on from there"
        )
    return "the same `wspace run` goes on with it" if any(folder.glob(f"*-*/{MANIFEST}")) else None


def recipe_of(folder: Path, registry: Registry) -> BoundRecipe:
    """The recipe that made a run. Raises NotARun, and RecipeError where `registry` lacks one of its components."""
    from wspace.recipes.bind import bind  # a third of a second, which a report is spared
    from wspace.recipes.source import read_recipe

    stages_of(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Renamed)  # a run of an older version is as good as any
        return bind(read_recipe(folder / RECIPE), registry, read_json(folder / RUN)["recipe"])


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a run, as `wspace report --json` prints it. Raises NotARun."""
    report = read_json(intact(folder / stages_of(folder)["report"], REPORT))
    uses = {section.use: section.as_json() for section in sections(folder)}
    return {"recipe": report["recipe"], "run": str(folder)} | report | {"uses": uses}


def write_page(folder: Path) -> Path:
    """The run's report.html: what its stages left, and what was studied since. Raises NotARun, FileError."""
    from wspace.runs.report.page import with_sections  # its figures need numpy, which what only reads is spared

    page = read_text(intact(folder / stages_of(folder)["report"], PAGE))
    with disk_errors(folder):
        write_text(folder / PAGE, with_sections(page, sections(folder)))
    return folder / PAGE
