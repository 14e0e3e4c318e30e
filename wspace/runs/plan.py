"""What a recipe will take, before it runs: how often each kind of work is done, times what it takes once.

Nothing here is measured and no figure is that of a machine: counts follow from the recipe, rates and sizes come from
`wspace.runs.rates`, which tries the work itself, and other machines' speeds from `wspace.runs.machines`. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wspace.recipes.imports import sources_of
from wspace.recipes.schema import BoundRecipe
from wspace.runs.keys import keys, modules_of, trains_on_images
from wspace.runs.machines import Machine, identity
from wspace.runs.measured import FLOAT, TRIED_WITH, Measured, Rate
from wspace.runs.pipeline import STAGES, stages_of
from wspace.runs.spent import told
from wspace.runs.store import Store
from wspace.support import fingerprint
from wspace.support.errors import FileError
from wspace.support.files import cache_folder, read_json, write_json
from wspace.support.progress import Progress
from wspace.support.settings import TaskLoss, Train

ADAM = 4  # copies of a parameter while it is trained: itself, gradient, two moments
KEPT = 2  # further copies: the running mean, and the best of it


def measured(recipe: BoundRecipe, progress: Progress, *, again: bool = False) -> Measured:
    """From the cache, if it was measured by this code on this machine; else it is tried now.

    That takes some seconds, most of them those of opponents' closed forms. Raises UserError for what a run would refuse, before
    anything is tried, and for what does not fit here.
    """
    file = cache_folder() / "rates" / f"{_identity(recipe)[:32]}.json"
    if not again:
        try:
            content = read_json(file)
            return Measured(**content | {"rates": {name: Rate(**its) for name, its in content["rates"].items()}})
        except (FileError, KeyError, TypeError):
            pass  # not there, or damaged
    from wspace.runs.rates import measure

    made = measure(recipe, progress=progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(made))
    return made


def _identity(recipe: BoundRecipe) -> str:
    """Of what rates depend on: not on how often work is done."""
    tasks = replace(recipe.tasks, seen=min(recipe.tasks.seen, TRIED_WITH), unseen=1)
    once = replace(
        recipe,
        tasks=tasks,
        zoo=replace(recipe.zoo, steps=1, base_steps=min(1, recipe.zoo.base_steps)),
        train=replace(recipe.train, steps=min(1, recipe.train.steps), check_every=1),
        task_loss=replace(recipe.task_loss, steps=min(1, recipe.task_loss.steps), check_every=1),
        opponents=replace(recipe.opponents, steps=1, universal_steps=1, check_every=1, patience=1),
    )
    code = [sources_of({"wspace.runs.rates", *modules_of(recipe, stage)}) for stage in STAGES]
    return fingerprint.of_json([keys(once, STAGES), code, identity()])


# ---------------------------------------------------------------- how often, and what it takes


@dataclass(frozen=True)
class Part:
    """Work of one kind in a stage."""

    stage: str
    what: str
    rate: Rate
    count: float
    pieces: int = 1  # that workers can do at once
    by: str = ""  # who shares it: "workers", "processes", or nobody

    def on(self, machine: Machine) -> float:
        """Seconds."""
        together = min(machine.count, self.pieces) if self.by else 1
        return self.count * machine.seconds(self.rate) / together


def parts(recipe: BoundRecipe, made: Measured) -> Iterator[Part]:
    """All that takes time, stage by stage. What stops when validation images say so is at its longest."""
    counts, rates = made.counts, made.rates
    zoo, tasks, opponents, train, task_loss = recipe.zoo, recipe.tasks, recipe.opponents, recipe.train, recipe.task_loss
    networks = tasks.seen * zoo.copies
    held_out = networks * counts["held_out_per_thousand"] / 1000
    splits, with_pictures = counts["splits"], counts["shown"]
    scored = splits * tasks.evaluate
    size = counts["weights"] * FLOAT

    def part(stage: str, what: str, kind: str, count: float, pieces: int = 1, by: str = "") -> Part:
        return Part(stage, what, rates[kind], count, pieces, by)

    shards = -(-networks // zoo.together)
    yield part("zoo", "data and encoders opened", "opened", 1)
    if not counts["images_ready"]:
        yield part("zoo", "features", "image", counts["images"], counts["blocks"], "workers")
    if zoo.start == "base":
        yield part("zoo", "the base", "base step", zoo.base_steps)
    if zoo.source is None:
        yield part("zoo", "networks", "network step", networks * zoo.steps, shards, "workers")
        yield part("zoo", "their validation", "look", networks, shards, "workers")
        yield part("zoo", "written", "byte written", networks * size)

    names = {bound.name for bound in recipe.against if trains_on_images(bound)}
    looks = 2 + opponents.steps / opponents.check_every
    if "oracle" in names:
        tried = min(counts["rate_tasks"], held_out) * len(opponents.rates)
        yield part("opponents", "the oracle's rate", "network step", tried * opponents.steps)
        yield part("opponents", "the oracle's rate", "look", tried * looks)
        yield part("opponents", "oracles", "network step", scored * opponents.steps, splits, "workers")
        yield part("opponents", "oracles", "look", scored * looks, splits, "workers")
    if "universal" in names and not counts["places"]:
        steps = len(opponents.rates) * opponents.universal_steps
        yield part("opponents", "the universal network", "universal step", steps)
        yield part("opponents", "the universal network", "look at all classes", steps / (5 * opponents.check_every))

    checked, copy = min(counts["checked"], held_out), counts["parameters"] * FLOAT
    yield part("train", "the symmetry's proof", "proof", 1)
    yield part("train", "closed forms", "closed forms", 1)
    yield part("train", "closed forms", "closed forms, of each in the zoo", networks)
    if looks := counts.get("looks_in_parts", 0):
        yield part("train", "closed forms", "look", looks)
    if "reconstruction step" in rates:
        yield part("train", "the tokenizer's code", "reconstruction step", recipe.reconstruction.steps)
    if "task step" in rates:
        checks = 1 + task_loss.steps / task_loss.check_every
        yield part("train", "the task loss", "task step", task_loss.steps)
        yield part("train", "checks", "typical", checks * checked)
        yield part("train", "checks", "look", checks * checked)
        yield part("train", "checkpoints", "byte written", checks * _saved(task_loss) * copy)
    if "generator step" in rates:
        checks = train.steps / train.check_every
        yield part("train", "the generator's loss", "generator step", train.steps, train.batch, "processes")
        yield part("train", "checks", "network looked at", checks * checked)
        yield part("train", "checks", "look", checks * checked)
        yield part("train", "checkpoints", "byte written", checks * _saved(train) * copy)
    yield part("train", "checks", "network looked at", checked)

    written = 2 * scored + with_pictures * tasks.evaluate
    drawn = written - scored if recipe.generate.temperature == 0 else written  # of others' words: drawn already
    yield part("generate", "networks", "network drawn", drawn)
    yield part("generate", "written", "byte written", written * size)

    together = splits + with_pictures
    judged = together * tasks.evaluate
    yield part("evaluate", "opponents fitted", "opponents chosen", 1)
    yield part("evaluate", "opponents fitted", "opponents chosen, of each in the zoo", networks)
    yield part("evaluate", "opponents' networks", "contest", together, together, "workers")
    yield part("evaluate", "opponents' networks", "opponents' network", judged, together, "workers")
    yield part("evaluate", "the zoo aligned", "zoo aligned", 1)
    yield part("evaluate", "the zoo aligned", "zoo aligned, of each in the zoo", networks)
    near = judged * counts["novel"]
    yield part("evaluate", "nearest networks", "nearest", near, together, "workers")
    yield part("evaluate", "nearest networks", "nearest, of each in the zoo", near * networks, together, "workers")
    yield part("evaluate", "methods scored", "task scored", judged, together, "workers")
    yield part("evaluate", "predictor scored", "network predicted", scored)
    yield part("evaluate", "predictor scored", "look at test images", scored)
    followed = min(counts["followed"], tasks.evaluate)
    if counts["takes_steps"]:
        yield part("evaluate", "along the steps", "network drawn", 2 * followed)
        marked = min(counts["marked"], recipe.generate.steps)
        yield part("evaluate", "along the steps", "look at test images", 2 * marked * followed)
    rows = 2 * together * counts["methods"] * (len(recipe.metrics) + 1)
    yield part("evaluate", "intervals", "interval", rows)


def _saved(settings: Train | TaskLoss) -> int:
    """Copies of the parameters in a checkpoint: themselves, two moments, the best of them, and the EMA."""
    return 4 + (settings.ema > 0)


def memory_of(recipe: BoundRecipe, made: Measured) -> dict[str, tuple[float, float]]:
    """Stage -> bytes without the zoo, and for each of its networks."""
    counts = made.counts
    size, parameters, state = (counts[name] * FLOAT for name in ("weights", "parameters", "state"))
    small = counts["tried_with"] * size  # the zoo that was tried with
    if recipe.train.tokens is not None:  # networks come one by one: what one takes is in what was held
        split = 2 * recipe.tasks.evaluate * size  # of an opponent that trains on images, and put together
        beside = {"opponents": split, "train": KEPT * counts["parameters"] * FLOAT}
        return {stage: (max(held - small, 0) + beside.get(stage, 0), 0.0) for stage, held in made.resident.items()}
    split, methods = recipe.tasks.evaluate * size, counts["methods"] + counts["novel"]
    beside = {
        "opponents": (split, size),
        "train": (KEPT * parameters, size * (1 + made.copies["train"])),
        "generate": (KEPT * parameters + 2 * state + 2 * split, 0.0),  # a generator that is read beside the trained one
        "evaluate": (2 * state + methods * split, size * (1 + made.copies["evaluate"])),
    }
    return {
        stage: (max(held - small, 0) + beside.get(stage, (0.0, 0.0))[0], beside.get(stage, (0.0, 0.0))[1])
        for stage, held in made.resident.items()
    }


def plan(recipe: BoundRecipe, made: Measured, machine: Machine) -> dict[str, Any]:
    """Tokens, parameters, and time, memory and disk of each stage on a machine; its parts; and how large a zoo it can hold."""
    networks = recipe.tasks.seen * recipe.zoo.copies
    counts, size = made.counts, made.counts["weights"] * FLOAT
    splits = counts["splits"]
    drawn = 2 * splits + counts["shown"]
    # of networks in parts, the mean and the directions
    kept = 0 if recipe.train.tokens is None else 1 + min(counts.get("directions", 0), networks - 1)
    disk = {
        "zoo": networks * size,
        "opponents": splits * recipe.tasks.evaluate * size,
        "train": counts["state"] * FLOAT + kept * size,
        "generate": drawn * recipe.tasks.evaluate * size,
        "evaluate": 0,
    }
    work = list(parts(recipe, made))
    stages, most = [], {}
    for stage, (fixed, each) in memory_of(recipe, made).items():
        its = [part for part in work if part.stage == stage]
        row = {"stage": stage, "memory": round(fixed + networks * each), "disk": disk[stage]}
        if each:
            most[stage] = max(0, int((machine.ram - fixed) / each))
        seconds = sum(part.on(machine) for part in its)
        processor = sum(part.count * part.rate.processor_seconds for part in its)
        row |= {"seconds": seconds, "processor_seconds": processor}
        row["parts"] = [
            {"what": p.what, "count": p.count, "seconds": p.on(machine), "shared_by": p.by, "pieces": p.pieces}
            for p in its
        ]
        stages.append(row)
    first = min(most, key=lambda stage: most[stage]) if most else ""
    return {
        "recipe": recipe.name,
        "machine": asdict(machine),
        **{name: counts[name] for name in ("weights", "tokens", "token_width", "parameters", "images")},
        "images_per_second": 1 / max(made.rates["image"].seconds, 1e-12),
        "networks": networks,
        "largest_zoo": most[first] if most else None,  # None: memory does not grow with it
        "breaks_first": first,
        "seconds_starting": made.rates["started"].seconds,
        "stages": stages,
    }


def taken(recipe: BoundRecipe, runs: Path) -> dict[str, dict[str, float]]:
    """Stage -> what it took, of those that a run of this very recipe has done in a folder of runs."""
    store = Store(runs / recipe.name)
    manifests = {name: store.manifest(name, key) for name, key in keys(recipe, stages_of(recipe)).items()}
    return {name: told(manifest) for name, manifest in manifests.items() if manifest is not None}


def beside(planned: Mapping[str, Any], took: Mapping[str, Mapping[str, float]]) -> None:
    """Put what a finished run took beside what was planned: stage -> what its manifest says of it."""
    for row in planned["stages"]:
        if row["stage"] in took:
            row["measured"] = dict(took[row["stage"]])
