"""One head for two tasks: from their joined texts, or from two heads by their weights (T2W, section 4.4 and table 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wspace.data.prompts import prompts_of
from wspace.data.tasks import Task
from wspace.interfaces import Fusion, Prompts
from wspace.learning.fitting import Schedule, fit
from wspace.recipes.bind import bind_example, bind_one
from wspace.recipes.schema import Bound
from wspace.recipes.source import parse_recipe
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Form, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.support.errors import UserError, did_you_mean
from wspace.support.methods import BASE, OURS, RIDGE, UNIVERSAL
from wspace.support.quantities import counted
from wspace.support.seeding import stream
from wspace.uses.enhance import Start
from wspace.uses.ensemble import oracles
from wspace.weights.files.network import Network

SIZE = 8  # classes of each of the two tasks, where there are enough
TRIES = 1000  # drawings of a pair, before there are taken to be no more

HEADS = ("head A", "head B")
REBASIN = "git-rebasin"
JOINTLY = "trained jointly"
STARTS: dict[Start, str] = {"base": "from the base", "fresh": "from scratch"}
BOTH, JOINT = "A and B", "joint"

Tell = Callable[[Sequence[Task]], Prompts]

BY_TEXT: dict[str, Callable[[Run, Tell, Sequence[Task], Sequence[Task], int], Tensor]] = {
    OURS: lambda run, tell, first, second, seed: _drawn(run, tell(_joined(first, second)), seed),
    "text-then-average": lambda run, tell, first, second, seed: (
        (_drawn(run, tell(first), seed) + _drawn(run, tell(second), seed)) / 2
    ),
}
"""What needs the texts of both tasks and no head: one generated from all of them together, as T2W does it; and the mean of
two, each generated from the texts of one task."""

PAPER = 19.3  # points on A and B by which generation is above Git Re-Basin in T2W's table 3


def _drawn(run: Run, prompts: Prompts, seed: int) -> Tensor:
    return run.system.sample(prompts, run.recipe.generate, stream(seed, "fuse")).cpu()


def _joined(first: Sequence[Task], second: Sequence[Task]) -> list[Task]:
    return [tuple(sorted(a + b)) for a, b in zip(first, second, strict=True)]


# ---------------------------------------------------------------- methods


def fusions(run: Run) -> dict[str, Bound]:
    """Every registered one, with the arguments that it is registered with."""
    return {c.name: bind_example(c, run.registry) for c in run.registry.all("fusion")}


def fusion(run: Run, method: str) -> tuple[str, Bound]:
    """By name, or `{use: NAME, ...}` as in a recipe. Raises UserError for one there is not, or an argument it has not."""
    block = parse_recipe(method, "--method").values if method.startswith("{") else {"use": method}
    name = str(block.get("use"))
    methods = [*BY_TEXT, *run.registry.names("fusion")]
    if name not in methods[len(BY_TEXT) :]:
        raise UserError(f"--method: no fusion named {name!r}.{did_you_mean(name, methods)}")
    return name, bind_one("fusion", block, run.registry, "--method")


def _chosen(run: Run, method: str | None) -> dict[str, Bound]:
    every = fusions(run)
    if method is None:
        return every
    return {REBASIN: every[REBASIN]} | ({} if method in BY_TEXT else dict([fusion(run, method)]))


def _check_sets(run: Run) -> None:
    """Raises UserError where outputs stand for a task's classes in its order: the outputs of two heads are the same ones."""
    if run.zoo.tasks.ordered:
        raise UserError(
            f"{run.folder}: its networks' outputs stand for the classes of one task in its order, and fused ones would stand "
            "for those of two: heads that learn class texts can be fused"
        )


def fused(run: Run, bound: Bound, first: Tensor, second: Tensor) -> Tensor:
    """first[b] with second[b]: (B, P), (B, P) -> (B, P)."""
    base = {BASE: run.zoo.base} if BASE in bound.signature.given else {}
    made: Fusion = bound.build({"spec": run.target.spec, **base})
    return made.fuse(first, second)


# ---------------------------------------------------------------- the study


def drawn_pairs(run: Run, count: int, seed: int, tries: int = TRIES) -> tuple[list[Task], list[Task]]:
    """Tasks A and B without a class in common, of known classes; neither, nor both together, is one of the zoo's.

    A pair is drawn `tries` times before there are taken to be no more.

    Raises UserError if there are too few classes for so many.
    """
    classes, taken = run.zoo.tasks.classes, set(run.zoo.tasks.seen)
    size, rng = min(SIZE, len(classes) // 2), stream(seed, "fuse pairs")
    pairs: dict[tuple[Task, Task], None] = {}
    for _ in range(tries * count):
        order = [classes[c] for c in torch.randperm(len(classes), generator=rng)[: 2 * size].tolist()]
        first, second = tuple(sorted(order[:size])), tuple(sorted(order[size:]))
        if not taken & {first, second, tuple(sorted(order))}:
            pairs[first, second] = None
        if len(pairs) == count:
            return [a for a, _ in pairs], [b for _, b in pairs]
    raise UserError(
        f"--pairs {count}: {len(classes)} known classes make no more than {counted(len(pairs), 'pair')} of tasks of {size} "
        "classes that the zoo has not"
    )


def trained(run: Run, tasks: Sequence[Task], start: Start, seed: int) -> Tensor:
    """Heads (B, P), from the zoo's base as the zoo's are; or each from fresh weights of its own, for as long as both took."""
    zoo, bench, count = run.recipe.zoo, run.bench, len(tasks)
    if start == "base":
        begun, steps = run.zoo.base.expand(count, -1), zoo.steps
    else:
        begun, steps = run.target.init(count, stream(seed, "fuse fresh")), zoo.steps
        steps += zoo.base_steps if run.zoo.shares_base else 0
    schedule = Schedule(steps, zoo.batch, zoo.lr, zoo.average)
    return fit(run.target, begun, tasks, bench.train, bench.class_texts, schedule, stream(seed, "fuse heads", start))


def study(run: Run, *, pairs: int = 20, method: str | None = None, seed: int = 0) -> Section:
    """Heads of two tasks fused in every way, on both tasks' test images and on all their classes at once.

    Heads (B, P) are trained for each task of `pairs` = B pairs. With a method, a name or `{use: NAME, ...}`, they are fused
    by that one alone and by Git Re-Basin. Accuracies are in percent; differences from Git Re-Basin are in points.

    Raises UserError for a method there is not or more pairs than the unseen classes make, WspaceError if the run's data are
    no longer those of its zoo.
    """
    _check_sets(run)
    chosen = _chosen(run, method)
    run.zoo.check(run.bench.accepted)
    first, second = drawn_pairs(run, pairs, seed)
    others = _without_heads(run, first, second, seed)
    scores, says = dict[str, Fused](), list[str]()
    for start, label in STARTS.items():
        if start == "base" and not run.zoo.shares_base:
            continue
        heads = trained(run, [*first, *second], start, seed).split(pairs)
        # without a common base there is nothing that they learned since
        methods = {n: b for n, b in chosen.items() if start == "base" or BASE not in b.signature.given}
        networks = dict(zip(HEADS, heads, strict=True))
        networks |= {name: fused(run, bound, *heads) for name, bound in methods.items()} | others
        scores[label] = _scores(run, networks, first, second)
        says += _sentences(run, scores[label], tuple(methods), label)
    settings = {"pairs": pairs, "classes of a task": len(first[0]), "seed": seed}
    return Section("fuse", "Fusing two heads", says, settings, _tables(run, scores, first, second))


def _without_heads(run: Run, first: list[Task], second: list[Task], seed: int) -> dict[str, Tensor]:
    """Name -> networks (B, P): those by text, unless the generator goes by other than texts, and references."""
    joint, count = _joined(first, second), len(first)
    by_text = BY_TEXT if run.knows([*first, *second, *joint]) else {}
    base = {BASE: run.zoo.base.expand(count, -1)} if run.zoo.shares_base else {}
    return {name: make(run, run.prompts, first, second, seed) for name, make in by_text.items()} | {
        **base,
        UNIVERSAL: run.opponents.universal.expand(count, -1),
        RIDGE: run.ridge(joint),
        JOINTLY: oracles(run, joint, 1, seed)[0],
    }


Fused = Mapping[str, Mapping[str, Tensor]]
"""Method -> accuracy (B,) on A, on B, their mean, and jointly: on the classes of both at once."""


def _scores(run: Run, networks: Mapping[str, Tensor], first: list[Task], second: list[Task]) -> Fused:
    scores = {}
    for name, weights in networks.items():
        a, b, joint = (_scored(run, weights, tasks) for tasks in (first, second, _joined(first, second)))
        scores[name] = {"A": a, "B": b, BOTH: (a + b) / 2, JOINT: joint}
    return scores


def _scored(run: Run, networks: Tensor, tasks: Sequence[Task]) -> Tensor:
    return run.bench.accuracies(networks, tasks, run.bench.test)


def _tables(run: Run, scores_of: Mapping[str, Fused], first: list[Task], second: list[Task]) -> list[Table]:
    """T2W's table 3 for each kind of heads, with the joint task beside it; and all methods against Git Re-Basin, by pairs."""
    tables, behind = list[Table](), dict[str, dict[str, dict[str, float]]]()
    of_a, of_b = len(first[0]), len(second[0])
    for label, fused_ in scores_of.items():
        rows = []
        for name, scores in fused_.items():
            rows.append(
                Row(
                    name,
                    {where: summary(values, run.recipe) for where, values in scores.items()},
                    own=name == OURS,
                )
            )
            if name != REBASIN:
                gains = {where: summary(scores[where] - fused_[REBASIN][where], run.recipe) for where in (BOTH, JOINT)}
                cells = {f"{label}: {where}": gain for where, gain in gains.items()}
                behind.setdefault(name, {}).update(cells)
        title = (
            f"heads {label}: accuracy (%) on the {of_a} classes of A, on the {of_b} of B, and jointly on {of_a + of_b}"
        )
        tables.append(Table(title, dict.fromkeys(rows[0].cells, "percent"), rows))
    rows = [Row(name, cells, own=name == OURS) for name, cells in behind.items()]
    columns: dict[str, Form] = dict.fromkeys(max(behind.values(), key=len), "points")
    return [*tables, Table(f"minus {REBASIN}, pair by pair: points of accuracy", columns, rows)]


def _sentences(run: Run, scores: Fused, methods: Sequence[str], label: str) -> list[str]:
    """`methods` are those that fused heads."""
    sentences = []
    if OURS in scores:
        gain = {where: summary(scores[OURS][where] - scores[REBASIN][where], run.recipe) for where in (BOTH, JOINT)}
        sentences.append(
            f"Heads {label}: one generated from the joined texts is {percent(gain[BOTH], 'points')} points from {REBASIN} "
            f"on A and B (in T2W's table 3, +{PAPER}), and {percent(gain[JOINT], 'points')} on the joint task."
        )
    asked = [name for name in (*methods, *BY_TEXT) if name in scores]
    for where, called in ((BOTH, "A and B"), (JOINT, "the joint task")):
        ranked = sorted(asked, key=lambda n: float(scores[n][where].mean()), reverse=True)
        best = scores[ranked[0]][where]
        leads = [
            f", {percent(summary(best - scores[name][where], run.recipe), 'points')} points before {name}"
            for name in ranked[1:2]
        ]
        base = f", the base alone {100 * float(scores[BASE][where].mean()):.1f}" if BASE in scores else ""
        sentences.append(
            f"Heads {label}, best on {called}: {ranked[0]}, {percent(summary(best, run.recipe))} %{''.join(leads)}; a head "
            f"{JOINTLY} has {100 * float(scores[JOINTLY][where].mean()):.1f}{base}."
        )
    return sentences


# ---------------------------------------------------------------- two heads of a user's


def load_pair(run: Run, first: Path, second: Path) -> tuple[Network, Network]:
    """Raises UserError unless they are different heads of this run, or from elsewhere, without a class in common."""
    _check_sets(run)
    ours, theirs = run.load_network(first), run.load_network(second)
    for file, head in ((first, ours), (second, theirs)):
        if head.zoo not in ("", run.zoo.folder.name):
            raise UserError(f"{file}: a head of another run ({head.zoo}; this one has {run.zoo.folder.name})")
    if all(torch.equal(ours.tensors[entry.name], theirs.tensors[entry.name]) for entry in run.target.spec.entries):
        raise UserError(f"{first} and {second} hold the same head: name two different ones")
    common = [name for name in ours.classes if name in theirs.classes]
    if common:
        raise UserError(
            f"{first} and {second} both tell {', '.join(map(repr, common))} apart: fuse heads without a class in common"
        )
    return ours, theirs


def one(run: Run, first: Network, second: Network, method: str, seed: int) -> Network:
    """A user's two heads as one for the classes of both; by text methods, a head generated for these.

    Raises UserError for a method there is not.
    """
    names = (*first.classes, *second.classes)
    if method in BY_TEXT:
        texts, cut = run.bench.encode_prompt_texts(names), len(first.classes)

        def tell(tasks: Sequence[Task]) -> Prompts:
            prompts = prompts_of(tasks, texts, names)
            run.system.conditioner.check(prompts)
            return prompts.to(run.bench.device)

        weights = BY_TEXT[method](run, tell, [tuple(range(cut))], [tuple(range(cut, len(names)))], seed)
    else:
        _, bound = fusion(run, method)
        weights = fused(run, bound, *(run.flat(head) for head in (first, second)))
    ready = run.calibrated_for(weights, names)
    return run.network(names, ready[0], f"{run.recipe.name}, two heads fused by {method}")


def compared(run: Run, first: Network, second: Network, method: str | None, seed: int) -> Section:
    """A user's two heads fused in every way, or by one method and Git Re-Basin, scored on their classes' test images.

    Raises UserError for classes that the data set has no images of, or a method there is not.
    """
    chosen = _chosen(run, method)
    run.zoo.check(run.bench.accepted)
    tasks = [run.task_of(head.classes) for head in (first, second)]
    flat = [run.flat(head) for head in (first, second)]
    networks = dict(zip(HEADS, flat, strict=True))
    networks |= {name: fused(run, bound, *flat) for name, bound in chosen.items()}
    networks |= _without_heads(run, [tasks[0]], [tasks[1]], seed)
    scores = _scores(run, networks, [tasks[0]], [tasks[1]])
    says = _sentences(run, scores, tuple(chosen), "given")
    return Section(
        "fuse", "Fusing two heads", says, {"seed": seed}, _tables(run, {"given": scores}, [tasks[0]], [tasks[1]])
    )
