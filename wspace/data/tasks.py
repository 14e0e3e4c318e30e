"""Which tasks there are: random sets of classes, drawn once, seen and unseen ones apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import comb, factorial, perm
from pathlib import Path

import torch

from wspace.data.splits import OF_WAYS, SEEN, UNSEEN_CLASSES, UNSEEN_ORDERS, UNSEEN_TASKS, WITH_PICTURES, of_ways
from wspace.interfaces import Task
from wspace.support.errors import DataError
from wspace.support.quantities import counted
from wspace.support.settings import Tasks


@dataclass(frozen=True)
class Shown:
    """What a split has that shares its tasks with another one: these tasks, and pictures of each of their classes."""

    split: str  # whose tasks these are
    pictures: int  # of each class, or all its training images where these are fewer


FEWEST_UNSEEN = 4  # classes, of which tasks of unseen classes can be made, and known ones beside them


@dataclass(frozen=True)
class TaskSet:
    classes: tuple[int, ...]  # that seen and unseen tasks are made of; nothing is ever trained on the others
    seen: tuple[Task, ...]  # one for each network of the zoo: a task comes as often as it has networks
    unseen: tuple[Task, ...]
    novel: tuple[Task, ...]  # of the other classes alone; none, if those are too few
    held_out: int  # the last so many seen ones: networks never trained on, for choosing strengths
    evaluate: int  # at most so many tasks of each split are scored
    notes: tuple[str, ...] = ()
    further: Mapping[str, tuple[Task, ...]] = field(default_factory=dict)  # splits beside these, by name
    shown: Mapping[str, Shown] = field(default_factory=dict)  # splits whose tasks come with pictures, too
    left_out: tuple[int, ...] = ()  # classes neither known nor set apart as unseen: nothing is made of them
    ordered: bool = False  # whether another order of the same classes is another task

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of tasks that go by their words, each with tasks of its own; `shown` are scored beside them."""
        return (SEEN, UNSEEN_TASKS, *([UNSEEN_CLASSES] if self.novel else []), *self.further)

    @property
    def training(self) -> tuple[Task, ...]:
        return self.seen[: len(self.seen) - self.held_out]

    @property
    def choosing(self) -> tuple[Task, ...]:
        return self.seen[len(self.seen) - self.held_out :]

    @cached_property
    def kept_back(self) -> frozenset[Task]:
        """Known classes' tasks that nothing may be trained on."""
        orders = self.further.get(UNSEEN_ORDERS, ())
        return frozenset((*self.choosing, *self.unseen, *orders)) - frozenset(self.training)

    @cached_property
    def kept_back_sets(self) -> frozenset[frozenset[int]]:
        """Sets of classes that nothing may be trained on in any order."""
        return _sets(self.unseen) if UNSEEN_ORDERS in self.further else frozenset()

    def scored(self, split: str) -> tuple[Task, ...]:
        """Tasks of a split that the report is about; the seen ones are among those trained on."""
        tasks = {SEEN: self.training, UNSEEN_TASKS: self.unseen, UNSEEN_CLASSES: self.novel, **self.further}
        return tasks[self.shown[split].split if split in self.shown else split][: self.evaluate]

    def save(self, file: Path) -> None:
        raw = asdict(self)
        for name in ("further", "shown", "left_out", "ordered"):
            if not raw[name]:  # as before 0.2
                del raw[name]
        file.write_text(json.dumps(raw), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> TaskSet:
        raw = json.loads(file.read_text(encoding="utf-8"))
        tasks = {name: tuple(map(tuple, raw[name])) for name in ("seen", "unseen", "novel")}
        rest = {name: tuple(raw.get(name, ())) for name in ("classes", "notes", "left_out")}
        further = {split: tuple(map(tuple, of_split)) for split, of_split in raw.get("further", {}).items()}
        shown = {split: Shown(**its) for split, its in raw.get("shown", {}).items()}
        numbers = {name: raw[name] for name in ("held_out", "evaluate")}
        return cls(**tasks, **rest, **numbers, further=further, shown=shown, ordered=raw.get("ordered", False))


def first_of_task(tasks: Iterable[Task]) -> list[int]:
    """Of each task the number of the first that is the same: itself, where it comes once."""
    first: dict[Task, int] = {}
    return [first.setdefault(task, number) for number, task in enumerate(tasks)]


def draw_tasks(
    settings: Tasks, classes: int, rng: torch.Generator, copies: int = 1, *, ordered: bool = False
) -> TaskSet:
    """Distinct sets of k classes, k uniform in the range asked for (T2W, section 4.1); each seen one `copies` times.

    Where tasks are `ordered`, another order of the same classes is another task, and all orders are as probable.
    Classes set apart as unseen make tasks of their own, the same ones however many of the others are known. With fewer
    classes than all that needs, the range and the number of tasks shrink, and `notes` says so. Raises DataError if there are
    too few classes for two different tasks on each side.
    """
    _check_orders(settings, ordered)
    if settings.classes[0] > settings.classes[1]:
        raise DataError(f"tasks.classes: {settings.classes[0]} to {settings.classes[1]} is an empty range")
    least = 3 if ordered else 4
    if classes < least:
        raise DataError(
            f"{counted(classes, 'class is', 'classes are')} too few to make seen and unseen tasks of; {least} are the least"
        )
    notes: list[str] = []
    apart = round(settings.unseen_classes * classes)
    if settings.unseen_classes and min(apart, classes - apart) < FEWEST_UNSEEN:
        notes.append(
            f"{classes} classes: none is set apart as unseen; it would be {apart} beside {classes - apart}, "
            f"and {FEWEST_UNSEEN} are the least of either"
        )
        apart = 0
    shuffled = torch.randperm(classes, generator=rng)
    parts = shuffled[:apart], shuffled[apart:], shuffled[apart:][: settings.known]
    others, not_apart, known_classes = (tuple(part.sort().values.tolist()) for part in parts)
    if settings.known is not None and settings.known > len(not_apart):
        notes.append(
            f"tasks.known: all {len(not_apart)} classes that are not set apart are known, not {settings.known}"
        )
    notes_of_known, notes_of_novel = list[str](), list[str]()
    seen, unseen = _known_tasks(settings, not_apart, rng, notes_of_known, ordered)
    novel = _novel_tasks(settings, others, rng, notes_of_novel, ordered) if others else ()
    if known_classes != not_apart:  # only now, for tasks of unseen classes to be the same however many are known
        notes_of_known.clear()
        seen, unseen = _known_tasks(settings, known_classes, rng, notes_of_known, ordered)
    trained_on, chosen_on = _parted(settings, seen, copies)
    further = _other_orders(settings, trained_on, (*seen, *unseen), rng, notes_of_known)
    return TaskSet(
        known_classes,
        trained_on + chosen_on,
        unseen,
        novel,
        len(chosen_on),
        settings.evaluate,
        (*notes, *notes_of_known, *notes_of_novel),
        further=further,
        left_out=tuple(number for number in not_apart if number not in known_classes),
        ordered=ordered,
    )


def _parted(settings: Tasks, seen: tuple[Task, ...], copies: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """A task for each network that is trained on, and for each that is held out; first come those of different tasks.

    Raises DataError where nothing would be left of either.
    """
    if not settings.held_out:
        if copies < 2:
            raise DataError(
                "tasks.held_out: 0 leaves no network to make choices on; set zoo.copies to 2 or more, of which the last is "
                "then held out"
            )
        return seen * (copies - 1), seen
    if len(seen) < 2:
        raise DataError(
            "tasks.seen: 1 leaves no task to hold out; set tasks.held_out to 0, and zoo.copies to 2 or more"
        )
    first_held_out = len(seen) - _chosen_on(settings, len(seen))
    return seen[:first_held_out] * copies, seen[first_held_out:] * copies


def tasks_around(
    settings: Tasks, given: Sequence[Task], classes: int, rng: torch.Generator, *, ordered: bool = False
) -> tuple[TaskSet, list[int]]:
    """Tasks around those of a zoo that is there already: these are the seen ones, `tasks.seen` different ones at most.

    Unseen tasks are drawn as by `draw_tasks`, from the classes that `given` tasks have; the others are unseen classes.
    Also which of the given tasks the seen ones are, in their order: where a task comes several times, all are trained
    on, or all held out. Raises DataError for fewer than two different tasks, and for `tasks.known`.
    """
    _check_orders(settings, ordered)
    if settings.known is not None:
        raise DataError("tasks.known: with zoo.source, known are the classes of the zoo's networks; leave it out")
    different = list(dict.fromkeys(given))[: settings.seen]
    if len(different) < 2:
        raise DataError("all networks of the zoo were trained for the same task; two different ones are the least")
    notes: list[str] = []
    known_classes = tuple(sorted({c for task in different for c in task}))
    others = tuple(c for c in range(classes) if c not in known_classes)
    if len(others) < FEWEST_UNSEEN or not settings.unseen_classes:
        others = ()
    low, high = _range(settings, len(known_classes))
    by_sets = settings.unseen_orders > 0
    trained = _sets(given) if by_sets else frozenset(given)
    available = _number(len(known_classes), low, high, ordered and not by_sets)
    available -= sum(low <= len(task) <= high for task in trained)
    unseen = min(settings.unseen, available // 2)
    if unseen < 1:
        raise DataError(f"the zoo's networks leave no {'set' if by_sets else 'task'} of {low} to {high} classes unseen")
    if unseen < settings.unseen:
        notes.append(f"{counted(unseen, 'unseen task')}, not {settings.unseen}: the zoo's networks leave no more")
    if by_sets:
        drawn = _of_new_sets(known_classes, low, high, unseen, rng, _sets(given))
    else:
        drawn = _distinct(known_classes, low, high, unseen, rng, frozenset(given), ordered=ordered)
    novel = _novel_tasks(settings, others, rng, notes, ordered) if others else ()
    chosen_on = frozenset(different[len(different) - _chosen_on(settings, len(different)) :])
    trained_on = frozenset(different) - chosen_on
    trained = [number for number, task in enumerate(given) if task in trained_on]
    held_out = [number for number, task in enumerate(given) if task in chosen_on]
    rows = trained + held_out
    seen = tuple(given[number] for number in rows)
    further = _other_orders(settings, seen[: len(trained)], seen, rng, notes)
    tasks = TaskSet(
        known_classes,
        seen,
        drawn,
        novel,
        len(held_out),
        settings.evaluate,
        tuple(notes),
        further=further,
        ordered=ordered,
    )
    return tasks, rows


def _check_orders(settings: Tasks, ordered: bool) -> None:
    if settings.unseen_orders and not ordered:
        raise DataError(
            "tasks.unseen_orders: the order of a task's classes means something only where outputs stand for them "
            "(target.outputs); leave it out"
        )


def _sets(tasks: Iterable[Task]) -> frozenset[frozenset[int]]:
    return frozenset(map(frozenset, tasks))


def _of_new_sets(
    classes: tuple[int, ...], low: int, high: int, count: int, rng: torch.Generator, taken: frozenset[frozenset[int]]
) -> tuple[Task, ...]:
    """Tasks of as many different sets of classes, each in some order, none of the sets in `taken`."""
    drawn = dict[frozenset[int], Task]()
    while len(drawn) < count:
        task = _one(classes, low, high, rng, ordered=True)
        if frozenset(task) not in taken:
            drawn.setdefault(frozenset(task), task)
    return tuple(drawn.values())


def _other_orders(
    settings: Tasks, trained_on: Sequence[Task], taken: Iterable[Task], rng: torch.Generator, notes: list[str]
) -> dict[str, tuple[Task, ...]]:
    """The split of sets that networks are trained for, in orders that none is: one for each trained task at most."""
    if not settings.unseen_orders:
        return {}
    drawn, others = dict[Task, None](), frozenset(taken)
    different = list(dict.fromkeys(trained_on))
    for number in torch.randperm(len(different), generator=rng).tolist():
        task = different[number]
        turned = tuple(task[place] for place in torch.randperm(len(task), generator=rng).tolist())
        if turned not in others and len(drawn) < settings.unseen_orders:
            drawn[turned] = None
    if len(drawn) < settings.unseen_orders:
        notes.append(
            f"{len(drawn)} unseen orders, not {settings.unseen_orders}: one at most is drawn for each trained task"
        )
    return {UNSEEN_ORDERS: tuple(drawn)} if len(drawn) > 1 else {}


def _chosen_on(settings: Tasks, seen: int) -> int:
    """How many seen tasks are held out, for choosing; at least one is left to train on."""
    return min(max(1, round(settings.held_out * seen)), seen - 1)


def fresh_tasks(settings: Tasks, tasks: TaskSet, count: int, rng: torch.Generator) -> list[Task]:
    """As the seen tasks are drawn, with repetition; none that is held out or unseen."""
    low, high = _range(settings, len(tasks.classes))
    kept_back, kept_sets, drawn = tasks.kept_back, tasks.kept_back_sets, list[Task]()
    while len(drawn) < count:
        task = _one(tasks.classes, low, high, rng, tasks.ordered)
        if task not in kept_back and (not kept_sets or frozenset(task) not in kept_sets):
            drawn.append(task)
    return drawn


def _known_tasks(
    settings: Tasks, known_classes: tuple[int, ...], rng: torch.Generator, notes: list[str], ordered: bool
) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """Seen and unseen tasks of the known classes."""
    classes, wanted, unseen = len(known_classes), settings.seen + settings.unseen, settings.unseen
    low, high = _range(settings, classes)
    if (low, high) != settings.classes:
        notes.append(
            f"{classes} classes: tasks have {low} to {high} classes, not {settings.classes[0]} to {settings.classes[1]}"
        )
    available = _number(classes, low, high, ordered)
    if available < 4:
        raise DataError(
            f"{classes} classes make {counted(available, 'different task')} of {low} to {high} classes; 4 are the least"
        )
    if wanted > available // 2 and wanted > 4:
        wanted = max(available // 2, 4)
        unseen = round(wanted * settings.unseen / (settings.seen + settings.unseen))
        unseen = min(max(unseen, min(2, settings.unseen)), wanted - 2)
        notes.append(f"{classes} classes: {wanted} tasks, not {settings.seen + settings.unseen}; more would repeat")
    if settings.unseen_orders:
        return _known_sets(known_classes, low, high, wanted - unseen, unseen, rng, notes)
    tasks = _distinct(known_classes, low, high, wanted, rng, ordered=ordered)
    return tasks[: wanted - unseen], tasks[wanted - unseen :]


def _known_sets(
    classes: tuple[int, ...], low: int, high: int, seen: int, unseen: int, rng: torch.Generator, notes: list[str]
) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """Seen tasks, and unseen ones whose sets no seen one has in any order: at most a quarter of all sets."""
    most = max(2, _number(len(classes), low, high, False) // 4)
    if unseen > most:
        notes.append(f"{len(classes)} classes: {most} unseen sets, not {unseen}; the others are for seen tasks")
    drawn = _of_new_sets(classes, low, high, min(unseen, most), rng, frozenset())
    left = _number(len(classes), low, high, True) - sum(factorial(len(task)) for task in drawn)
    if seen > left // 2:
        notes.append(
            f"{len(classes)} classes: {counted(left // 2, 'seen task')}, not {seen}; unseen sets leave no more"
        )
    taken, trained = _sets(drawn), dict[Task, None]()
    while len(trained) < min(seen, left // 2):
        task = _one(classes, low, high, rng, ordered=True)
        if frozenset(task) not in taken:
            trained[task] = None
    return tuple(trained), drawn


def _novel_tasks(
    settings: Tasks, others: tuple[int, ...], rng: torch.Generator, notes: list[str], ordered: bool
) -> tuple[Task, ...]:
    """Tasks of the classes set apart, as many as are scored."""
    classes = len(others)
    low, high = _range(settings, classes)
    if not ordered:
        low = min(low, classes - 1)  # all of them together make but one task, and there is to be a mismatched one
    if (low, high) != settings.classes:
        notes.append(
            f"{classes} unseen classes: tasks have {low} to {high} classes, "
            f"not {settings.classes[0]} to {settings.classes[1]}"
        )
    available = _number(classes, low, high, ordered)
    count = min(settings.evaluate, -(-available // 2))
    if count < settings.evaluate:
        notes.append(f"{classes} unseen classes: {counted(count, 'task')}, not {settings.evaluate}; more would repeat")
    return _distinct(others, low, high, count, rng, ordered=ordered)


def with_ways(settings: Tasks, tasks: TaskSet, names: Sequence[str], rng: torch.Generator) -> TaskSet:
    """The same tasks, and the further splits that `tasks.unseen_ways` asks for: `unseen-classes-5`, `unseen-near-5`, ...

    `names` are of all classes. A split for which there are too few classes is left out, which `notes` says. Those of all
    unseen classes have the same tasks however many classes are known.
    """
    if not tasks.novel:
        return tasks
    notes = list[str]()
    further = _of_ways(settings, names, (*tasks.classes, *tasks.left_out), (), rng, notes, tasks.ordered)
    if tasks.left_out:  # near and far by those that are known, and only now, as in `draw_tasks`
        notes.clear()
        of_any = {of_ways(ways)[0] for ways in settings.unseen_ways}
        by_known = _of_ways(settings, names, tasks.classes, tasks.left_out, rng, notes, tasks.ordered)
        further = {split: further[split] if split in of_any else by_known[split] for split in by_known}
    return replace(tasks, further={**tasks.further, **further}, notes=(*tasks.notes, *notes))


def _of_ways(
    settings: Tasks,
    names: Sequence[str],
    known: Task,
    left_out: Task,
    rng: torch.Generator,
    notes: list[str],
    ordered: bool,
) -> dict[str, tuple[Task, ...]]:
    """Split -> tasks of classes that are neither `known` nor `left_out`."""
    near, far = (tuple(number for number in group if number not in left_out) for group in near_and_far(names, known))
    further = dict[str, tuple[Task, ...]]()
    for ways in settings.unseen_ways:
        for split, classes in zip(of_ways(ways), (tuple(sorted((*near, *far))), near, far), strict=True):
            available = _number(len(classes), ways, ways, ordered)
            if available < 2:  # all of them together make but one task, and there is to be a mismatched one
                least = "" if ordered else "more than "
                notes.append(f"no split {split}: it needs {least}{ways} such classes, and there are {len(classes)}")
                continue
            count = min(settings.evaluate, -(-available // 2))
            further[split] = _distinct(classes, ways, ways, count, rng, ordered=ordered)
    return further


def with_pictures(settings: Tasks, tasks: TaskSet, images: Sequence[int]) -> TaskSet:
    """The same tasks, and the further splits that `tasks.pictures` asks for: `unseen-classes-5-pictures-1`, ...

    They are of the tasks of `unseen-classes-5`, and so on for each of `tasks.unseen_ways`; without any, of
    `unseen-classes`. `images` says how many training images each class has; `notes` says where these are too few.
    """
    if not settings.pictures:
        return tasks
    ways = dict.fromkeys(OF_WAYS.format(UNSEEN_CLASSES, ways) for ways in settings.unseen_ways)
    splits = [split for split in ways or (UNSEEN_CLASSES,) if split in tasks.splits]
    shown, notes = dict[str, Shown](), list(tasks.notes)
    for split in splits:
        for pictures in sorted(set(settings.pictures)):
            shown[WITH_PICTURES.format(split, pictures)] = Shown(split, pictures)
    if not shown:
        notes.append("no task comes with pictures: there is no split of unseen classes that they would be of")
    for pictures in sorted(set(settings.pictures)) if shown else ():
        classes = {number for split in splits for task in tasks.scored(split) for number in task}
        if few := sum(images[number] < pictures for number in classes):
            have = "has" if few == 1 else "have"
            notes.append(
                f"{few} of {len(classes)} unseen classes {have} fewer than {counted(pictures, 'training image')}, and "
                f"{'comes with all it has' if few == 1 else 'come with all they have'} where tasks show so many"
            )
    return replace(tasks, shown=shown, notes=tuple(notes))


def near_and_far(names: Sequence[str], known: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the classes that are not known, those whose names share a word with a known one's; and those that share none."""
    words = [frozenset(name.casefold().split()) for name in names]
    of_known, known_classes = frozenset().union(*(words[number] for number in known)), frozenset(known)
    others = [number for number in range(len(names)) if number not in known_classes]
    near = tuple(number for number in others if words[number] & of_known)
    return near, tuple(number for number in others if not words[number] & of_known)


def _range(settings: Tasks, classes: int) -> tuple[int, int]:
    """Fewest and most classes of a task, where there are so many to choose from."""
    low, high = settings.classes
    return (low, high) if classes >= high else (min(low, max(2, classes // 4)), classes)


def _distinct(
    classes: tuple[int, ...],
    low: int,
    high: int,
    count: int,
    rng: torch.Generator,
    taken: frozenset[Task] = frozenset(),
    *,
    ordered: bool,
) -> tuple[Task, ...]:
    drawn: dict[Task, None] = {}
    while len(drawn) < count:
        task = _one(classes, low, high, rng, ordered)
        if task not in taken:
            drawn[task] = None
    return tuple(drawn)


def _number(classes: int, low: int, high: int, ordered: bool) -> int:
    """Of different tasks of `low` to `high` classes."""
    return sum((perm if ordered else comb)(classes, k) for k in range(low, high + 1))


def _one(classes: tuple[int, ...], low: int, high: int, rng: torch.Generator, ordered: bool) -> Task:
    k = int(torch.randint(low, high + 1, (), generator=rng))
    return task_of([classes[c] for c in torch.randperm(len(classes), generator=rng)[:k].tolist()], ordered)


def task_of(classes: Iterable[int], ordered: bool) -> Task:
    """The task of these classes: in this order where it means something, and in that of the data set where not."""
    return tuple(classes) if ordered else tuple(sorted(classes))
