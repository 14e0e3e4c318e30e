"""A finished run, a zoo or generated weights, as a folder that goes to a hub: what is needed elsewhere, and a card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wspace.recipes.schema import BoundRecipe
from wspace.runs.finished import stages_of
from wspace.runs.keys import files_of, slots_of
from wspace.runs.pipeline import stages_of as stages_of_recipe
from wspace.runs.run import Run
from wspace.support.cards import CARD
from wspace.support.elsewhere import is_address
from wspace.support.errors import FileError, NotARun, UserError
from wspace.support.files import link_or_copy, write_text
from wspace.support.names import (
    HUB_CONFIG,
    HUB_MODEL,
    HUB_WEIGHTS,
    LOCK,
    MANIFEST,
    PAGE,
    RECIPE,
    RUN,
    STUDY,
    TASKS,
    USES,
    WORLD,
    WORLD_TENSORS,
    ZOO_HEADER,
)
from wspace.support.progress import Progress
from wspace.uses.hub import card
from wspace.uses.hub.parcel import SAFE, Kind, Parcel, is_safe, sized
from wspace.uses.hub.remote import DATASETS, Place
from wspace.weights.files.card import card as card_of_weights
from wspace.weights.files.network import Network
from wspace.weights.zoo.export import export as export_zoo

NEEDED = {"zoo": (TASKS, WORLD, WORLD_TENSORS), "train": None, "evaluate": None, "report": None}
"""Stage -> what of its folder `generate`, `score`, `predict`, `export` and `report` read; None: all of it.

Of the zoo that is what tasks and features were, without its networks and without its manifest: to `wspace run`, which goes by
manifests, that stage is not done.
"""


@dataclass(frozen=True)
class Asked:
    """What a user asked for beside the thing itself."""

    licence: str | None = None  # as the hub writes it
    whole: bool = False  # of a run, all that its stages left
    run: Path | None = None  # that generated the weights
    plugins: Sequence[Path] = ()  # one-file plugins of the run


@dataclass(frozen=True)
class Packed:
    """A folder that is ready to be sent."""

    folder: Path
    parcel: Parcel  # what is in it
    place: Place  # where it goes: a zoo is a data set
    notes: list[str] = field(default_factory=list)  # what does not go along, a sentence each


def kind_of(source: Path) -> Kind | None:
    """What a file or a folder is, by the names of its files; None for none of the three."""
    if (source / RUN).is_file() or (source / STUDY).is_file():
        return "generator"
    if (source / ZOO_HEADER).is_file():
        return "zoo"
    return "weights" if source.is_file() or (source / HUB_WEIGHTS).is_file() else None


@contextmanager
def packed(source: Path, place: Place, asked: Asked, progress: Progress) -> Iterator[Packed]:
    """A folder with all that is to be sent of a run, a zoo or weights, which is gone afterwards.

    Raises UserError for what is none of them, or cannot be sent as asked.
    """
    kind = kind_of(source)
    if kind is None:
        raise _strange(source)
    _check_asked(source, kind, place, asked)
    with tempfile.TemporaryDirectory(prefix="wspace-push-") as temporary:
        made = Path(temporary) / "parcel"
        if kind == "zoo":
            name, notes = export_zoo(source, made, asked.licence).header.name, list[str]()
            place = Place(place.name, "dataset")
        else:
            made.mkdir()
            fill = _fill_run if kind == "generator" else _fill_weights
            name, notes = fill(source, made, place, asked, progress)
        parcel = Parcel.of(made, kind, name)
        for file in parcel.files:
            if not is_safe(file):
                raise UserError(f"{source}: {file} is of no kind that is fetched: {', '.join(SAFE)}")
        parcel.write(made)
        yield Packed(made, parcel, place, notes)


def _strange(source: Path) -> UserError:
    if not source.exists():
        return FileError(f"{source}: no such file or folder")
    if (source / LOCK).exists():
        return NotARun(f"{source}: this run is not finished; the same `wspace run` goes on with it")
    return UserError(
        f"{source}: is none of what can be pushed: the folder of a finished run, a zoo, a file of `wspace generate`, or a "
        "folder of `wspace export --to huggingface`"
    )


def _check_asked(source: Path, kind: Kind, place: Place, asked: Asked) -> None:
    called = {"generator": "a run", "zoo": "a zoo", "weights": "generated weights"}[kind]
    if place.type == "dataset" and kind != "zoo":
        raise UserError(f"{place}: is a data set, as zoos are, and {source} is {called}: leave out {DATASETS}")
    if asked.whole and kind != "generator":
        raise UserError(f"--whole: is for runs, of which less may go; {source} is {called}")
    if asked.run is not None and kind != "weights":
        raise UserError(f"--run: says which run generated weights; {source} is {called}")
    if asked.licence is not None and (source / CARD).is_file() and kind == "weights":
        raise UserError(f"--licence: {source / CARD} says it already; name the licence to `wspace export`")


# ---------------------------------------------------------------- a run


def _fill_run(source: Path, made: Path, place: Place, asked: Asked, progress: Progress) -> tuple[str, list[str]]:
    """Its name, and what does not go along."""
    run, chosen = Run.open(source, asked.plugins, progress), chosen_of(source, asked.whole)
    notes = []
    if chosen.left_out:
        notes.append(f"left out, and not needed to generate: {', '.join(chosen.left_out)}; --whole takes it along")
    if paths := paths_in(run.recipe):
        notes.append(
            f"note: the recipe reads {' and '.join(paths)}, which stays here; the path goes along in recipe.yaml and in the "
            "report, and whoever fetches the run writes their own into recipe.yaml"
        )
    for name in chosen.names:
        if is_safe(name):
            _put(source / name, made / name)
        else:
            notes.append(f"left out: {name}, which is of no kind that is fetched")
    write_text(made / CARD, card.of_run(run, place, asked.licence, whole=not (chosen.left_out or chosen.absent)))
    return run.recipe.name, notes


@dataclass(frozen=True)
class Chosen:
    """Which files of a run go, and what of it does not."""

    names: list[str]  # of files, in the run's folder
    left_out: list[str]  # stages, and how much of each
    absent: list[str]  # stages that are not whole here either


def chosen_of(source: Path, whole: bool) -> Chosen:
    """Of a finished run, what its commands read; or with `whole` all that its stages left. Raises UserError, NotARun."""
    stages = stages_of(source)
    absent = [stage for stage, artifact in stages.items() if not (source / artifact / MANIFEST).is_file()]
    if whole and absent:
        raise UserError(f"--whole: {source} came here without {' and '.join(absent)}, and has less to send")
    files = [file for file in (source / RUN, source / RECIPE, source / PAGE) if file.is_file()]
    files += sorted(file for file in (source / USES).glob("*") if file.suffix in (".json", ".png"))
    left_out = []
    for stage, artifact in stages.items():
        needed, of_stage = (
            NEEDED.get(stage, ()),
            sorted(file for file in (source / artifact).rglob("*") if file.is_file()),
        )
        kept = [file for file in of_stage if whole or needed is None or file.name in needed]
        rest = sum(file.stat().st_size for file in of_stage if file not in kept)
        files += kept
        if rest:
            left_out.append(f"{stage} ({sized(rest)})")
    return Chosen([file.relative_to(source).as_posix() for file in files], left_out, absent)


def paths_in(recipe: BoundRecipe) -> list[str]:
    """Files and folders of this machine that a recipe names, each behind the key that does."""
    named = {
        f"{name} {slots_of(recipe, stage)[name]}"
        for stage in stages_of_recipe(recipe)
        for name in files_of(recipe, stage)
        if not is_address(str(slots_of(recipe, stage)[name]))
    }
    return sorted(named)


# ---------------------------------------------------------------- weights


def _fill_weights(source: Path, made: Path, place: Place, asked: Asked, progress: Progress) -> tuple[str, list[str]]:
    """Their name, and what does not go along."""
    file = source / HUB_WEIGHTS if source.is_dir() else source
    network = Network.read(file)
    _put(file, made / HUB_WEIGHTS)
    if source.is_dir():
        for name in (HUB_CONFIG, HUB_MODEL):
            if (source / name).is_file():
                _put(source / name, made / name)
    if (source / CARD).is_file():
        _put(source / CARD, made / CARD)
        return source.resolve().name, []
    about, notes = {"origin": network.origin, "pictures": network.pictures}, list[str]()
    if asked.run is not None:
        run = Run.open(asked.run, asked.plugins, progress)
        about = run.about(run.load_network(file), run.bench.backbone.licence)
    else:
        notes.append("note: the card does not say what accuracy to expect; --run RUN names the run that does")
    write_text(made / CARD, card_of_weights(network.classes, about, HUB_WEIGHTS, asked.licence, address=place.address))
    return file.stem, notes


def _put(file: Path, there: Path) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(file.resolve(), there)  # in a cache of the hub, a file is a link
