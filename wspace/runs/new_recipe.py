"""A first recipe for a folder of one's own pictures: how large it can be, by what the folder holds and the time there is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from PIL import Image

from wspace.components.datasets.folder import Folder
from wspace.recipes.bind import bind
from wspace.recipes.registry import Registry
from wspace.recipes.source import find_recipe, read_recipe
from wspace.support.errors import DataError, UserError
from wspace.support.files import check_file, disk_errors, expanded, write_text
from wspace.support.quantities import counted, in_words

PACKAGED = "unseen"  # the recipe that a first one is like
LOOKED_AT = 60  # pictures that are opened to see how large they are
FEWEST = 4  # classes: fewer make no seen and unseen tasks
ICONS_TAKE = 300  # seconds on two cores, to draw them all and to look at them
FEW = 300  # classes; with fewer, others beside them say more of how words and looks go together
APART = 0.15  # share of the classes that nothing is trained on
ASIDE = 4  # classes at least, of which tasks of unseen classes are made
SIDES = (64, 96, 128, 160, 224)  # that pictures are cut to
MOST_LARGE = 3000  # pictures; more are cut small, or looking at them takes most of the time


@dataclass(frozen=True)
class Look:
    """What a folder of pictures holds."""

    folder: Path
    classes: Literal["outer", "inner"] | None  # which folders are the classes, where that has to be said
    pictures: Counter[str]  # class -> how many
    side: int  # pixels, the shorter side of a middling picture

    def __str__(self) -> str:
        counts = self.pictures.most_common()
        (most, many), (fewest, few) = counts[0], counts[-1]
        of_each = f"{few:,} ({fewest}) to {many:,} ({most})" if few < many else f"{few:,}"
        return (
            f"{len(counts)} classes, {self.pictures.total():,} pictures: {of_each} of each, "
            f"about {self.side} pixels on the shorter side"
        )


@dataclass(frozen=True)
class Effort:
    """How surely a run is measured: heads do not get better by it, for they are a closed form."""

    seconds: float  # on two cores, of a folder of a few thousand pictures
    settings: dict[str, dict[str, Any]]


EFFORTS = (
    Effort(
        120,
        {
            "tasks": {"seen": 320, "unseen": 40, "evaluate": 20},
            "zoo": {"base_steps": 300, "steps": 60},
            "opponents": {"steps": 60, "universal_steps": 600, "rates": [0.001]},
        },
    ),
    Effort(
        600,
        {
            "tasks": {"seen": 1000, "unseen": 200, "evaluate": 80, "pictures": [1]},
            "zoo": {"base_steps": 600, "steps": 120},
            "opponents": {"steps": 200, "universal_steps": 2000, "rates": [0.001, 0.003]},
        },
    ),
    Effort(
        1500,
        {
            "tasks": {"seen": 2000, "unseen": 500, "evaluate": 200, "pictures": [1, 2, 4]},
            "zoo": {"base_steps": 1000, "steps": 120},
            "opponents": {"steps": 400, "universal_steps": 3000, "rates": [0.0003, 0.001, 0.003]},
        },
    ),
)


def look_at(folder: Path, classes: Literal["outer", "inner"] | None = None) -> Look:
    """Raises DataError for a folder that a run could not be made of."""
    listing = Folder(folder, classes=classes).check()
    counts = Counter(picture.class_name for picture in listing.pictures)
    if len(counts) < FEWEST:
        few = counted(len(counts), "class is", "classes are")
        raise DataError(f"{folder}: {few} too few to make tasks of; {FEWEST} are the least")
    every = max(1, len(listing.pictures) // LOOKED_AT)
    sides = [side for picture in listing.pictures[::every] if (side := _side(folder / picture.path))]
    if not sides:
        raise DataError(f"{folder}: none of the pictures looked at can be opened")
    return Look(folder, classes, counts, round(median(sides)))


def _side(file: Path) -> int | None:
    """Of the shorter side; None of a file that is no picture."""
    try:
        with Image.open(file) as image:
            return min(image.size)
    except Exception:  # decoders raise almost anything
        return None


def takes(effort: Effort, with_icons: bool) -> float:
    """Seconds on two cores, of the first run: later ones find the icons drawn."""
    return effort.seconds + with_icons * ICONS_TAKE


def effort_for(seconds: float, with_icons: bool) -> Effort:
    """The largest that fits into this time on two cores; or the smallest."""
    return next((effort for effort in reversed(EFFORTS) if takes(effort, with_icons) <= seconds), EFFORTS[0])


def recipe_for(look: Look, effort: Effort, file: Path, *, with_icons: bool) -> str:
    """The text of a recipe that is to be in a file: the packaged one for classes that nothing was trained on, made to fit."""
    packaged = read_recipe(find_recipe(PACKAGED)).values
    count, total = len(look.pictures), look.pictures.total()
    apart = APART if round(APART * count) >= ASIDE else 0.25 if round(0.25 * count) >= ASIDE else 0
    set_apart = round(apart * count)
    most = min(32, (count - set_apart) // 2)
    fewest = max(2, min(8, most // 2))
    ways = [ways for ways in (5, 20, 10, 2) if ways <= set_apart // 2] if apart else []
    side = next((side for side in reversed(SIDES) if side <= look.side), SIDES[0])
    side = side if total <= MOST_LARGE else min(side, 96)
    tasks = effort.settings["tasks"] | {"classes": [fewest, max(fewest, most)], "unseen_classes": apart}
    if ways:
        tasks["unseen_ways"] = ways
    else:
        tasks.pop("pictures", None)  # they come with tasks of unseen classes
    dataset = {"use": "folder", "path": str(expanded(look.folder).absolute()), "size": side}
    dataset |= {} if look.classes is None else {"classes": look.classes}
    by_pictures = ", shrunk-mean, nearest-mean, logistic" if tasks.get("pictures") else ""
    apart_note = (
        f"`unseen_classes` is the share of classes that nothing is trained\n# on, {set_apart} here: their scores say what to "
        "expect of names that you have no pictures of."
        if apart
        else "There are too few classes to set some apart, so that\n# nothing says what to expect of names that you have no "
        "pictures of."
    )
    icons = (
        "# The icons beside them: with few classes of one's own, thousands of others say more of how words and looks\n"
        "# go together. The zoo and all that is trained on pictures are of your folder alone.\n"
        f"auxiliary: [{_flow(packaged['dataset'])}]\n\n"
        if with_icons
        else ""
    )
    return f"""\
# wspace run {_in_comment(file.name)}   heads for classes of one's own by their names
# {_in_comment(str(look))}.
# It takes about {in_words(takes(effort, with_icons))} on two cores. `wspace plan` says what its stages take on this machine,
# once pictures and features are made, `wspace check --fill` prints it with every default, and `wspace show KIND NAME` says
# what a component takes.

# Pictures are cut to their middle square and brought to `size` pixels: larger ones show more, and take longer.
dataset: {_flow(dataset)}

{icons}\
# What pictures and names are turned into: two frozen encoders that come as packages.
backbone: {_flow(packaged["backbone"])}
text: minilm

# What is generated: a small head on these features. The generator places classes by their words, in closed form.
target: {_flow(packaged["target"])}
tokenizer: neuron
symmetry: permutation
conditioner: class-prototypes
generator: {{use: predicted, predictor: offset}}

# How much is trained and scored. More makes figures surer, and heads no better.
# A task is some of your classes. {apart_note}
tasks: {_flow(tasks)}
zoo: {_flow(effort.settings["zoo"] | {"batch": 32, "lr": 0.001})}
opponents: {_flow(effort.settings["opponents"])}

metrics: [accuracy]
against: [oracle, universal, base, ridge, text-prototype, mismatched{by_pictures}]
"""


def _in_comment(text: str) -> str:
    """A name of a file may have line ends, and a comment none."""
    return " ".join(text.split())


def write_recipe(file: Path, text: str, registry: Registry) -> Path:
    """A new file, if it is a recipe without problems. Raises UserError for a file that is there, RecipeError."""
    check_file(file)
    if file.exists():
        raise UserError(f"{file}: is there already; name another with --out")
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
        try:
            bind(read_recipe(file), registry)
        except BaseException:
            file.unlink()
            raise
    return file


def _flow(block: dict[str, Any]) -> str:
    """As one line of YAML; strings that may hold anything in quotes."""

    def written(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(written, value))}]"
        if isinstance(value, bool) or (isinstance(value, str) and not value.isidentifier()):
            return json.dumps(value, ensure_ascii=False)
        return f"{value:g}" if isinstance(value, float) else str(value)

    return f"{{{', '.join(f'{key}: {written(value)}' for key, value in block.items())}}}"
