"""The methods of a report in one table, made of the opponents' classes: what each is, and in which order they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from wspace.recipes.registry import Component
from wspace.recipes.signature import UnreadableSignature, signature_of
from wspace.support.methods import OURS


class Method(NamedTuple):
    name: str
    what: str  # as the page explains it
    called: str  # as a sentence calls it
    place: int  # in tables, the lowest first
    prominence: str  # see `wspace.interfaces.Opponent`
    novelty: bool


LAST = 100
GENERATED = Method(
    OURS,
    "the recipe's generator: weights from the task's texts alone, and from pictures where a split has such",
    OURS,
    10,
    "tables",
    True,
)


@dataclass(frozen=True)
class Methods:
    """The generator and its opponents, from strong to weak by their nature."""

    rows: tuple[Method, ...]

    @property
    def order(self) -> list[str]:
        return [row.name for row in self.rows]

    def place(self, name: str) -> int:
        """Of a method in tables; one that is not in this table comes last."""
        return self.order.index(name) if name in self.order else len(self.rows)

    def what(self, name: str) -> str:
        """What it is; nothing of a method that is not in this table: its plugin is not here."""
        return next((row.what for row in self.rows if row.name == name), "")

    def called(self, name: str) -> str:
        return next((row.called for row in self.rows if row.name == name), name)

    @property
    def headline(self) -> tuple[str, ...]:
        """Those that what is generated is always set beside, the strongest last."""
        return tuple(row.name for row in reversed(self.rows) if row.prominence == "headline")

    @property
    def of_several(self) -> tuple[str, ...]:
        """Those that the tables of several runs show."""
        return tuple(row.name for row in self.rows if row.prominence != "report")

    @property
    def novel(self) -> tuple[str, ...]:
        """Those of which a report says how new their networks are: ours first."""
        others = (row.name for row in reversed(self.rows) if row.novelty and row.name != OURS)
        return (OURS, *others)


def methods_of(opponents: Iterable[Component]) -> Methods:
    """The table of these opponents, read from their source: the last are those that do not say where they stand."""
    rows = [GENERATED]
    for component in opponents:
        with suppress(UnreadableSignature):  # said where it is used; here it stops nobody's table
            rows.append(_read(component, signature_of(component).constants))
    return Methods(tuple(sorted(rows, key=lambda row: (row.place, row.name))))


def _read(component: Component, constants: Mapping[str, Any]) -> Method:
    place = constants.get("place")
    return Method(
        name=component.name,
        what=str(constants.get("what", "")),
        called=str(constants.get("called", component.name)),
        place=place if isinstance(place, int) else LAST,
        prominence=str(constants.get("prominence", "tables")),
        novelty=constants.get("novelty") is True,
    )


METRIC = "accuracy"
"""What the tables of studies and joint recipes are of."""
RESAMPLES, CONFIDENCE = 2000, 0.95
"""Of the intervals in those tables."""
