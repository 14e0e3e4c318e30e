"""Kinds of components, and who offers which: (kind, name) -> an import string."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wspace.support.errors import (
    MissingPackage,
    NameClash,
    Renamed,
    UnknownComponent,
    UserError,
    WspaceError,
    did_you_mean,
    reason,
)
from wspace.support.moved import warn_of_private_imports

KINDS: dict[str, str] = {
    "dataset": "Dataset",
    "backbone": "Backbone",
    "text": "Text",
    "wording": "Wording",
    "architecture": "Architecture",
    "target": "Target",
    "symmetry": "Symmetry",
    "tokenizer": "Tokenizer",
    "conditioner": "Conditioner",
    "predictor": "Predictor",
    "denoiser": "Denoiser",
    "discriminator": "Discriminator",
    "generator": "Generator",
    "fusion": "Fusion",
    "opponent": "Opponent",
    "metric": "Metric",
    "importer": "Importer",
    "exporter": "Exporter",
    "tracker": "Tracker",
    "engine": "Engine",
}
"""Kind -> its interface, a class of `wspace.interfaces`. The order is the order of the data flow."""

GIVEN: dict[str, str] = {
    "device": "the torch.device of the run",
    "feature_dim": "width of the image features, F (int)",
    "text_dim": "width of the text features, T (int)",
    "spec": "names, shapes and axes of the target's weights (WeightSpec)",
    "target": "what is generated (Target)",
    "layout": "shape and mask of the token sequence (TokenLayout)",
    "condition_width": "width of a condition token, C (int)",
    "pooled_width": "width of the pooled condition vector, C' (int)",
    "base": "weights (P,) that the zoo's networks were trained from (Tensor)",
}
"""Keyword-only constructor parameters: known only at run time, given by name, never set by a recipe."""

_OF_SYSTEMS = ("spec", "text_dim", "layout", "condition_width", "pooled_width")

GIVEN_TO: dict[str, tuple[str, ...]] = {
    "dataset": (),
    "backbone": ("device",),
    "text": ("device",),
    "wording": (),
    "architecture": (),
    "target": ("feature_dim", "text_dim"),
    "symmetry": ("spec",),
    "tokenizer": ("spec", "text_dim"),
    "conditioner": ("spec", "text_dim", "target"),
    "predictor": _OF_SYSTEMS,
    "denoiser": _OF_SYSTEMS,
    "discriminator": ("layout",),
    "generator": _OF_SYSTEMS,
    "fusion": ("spec", "base"),
    "opponent": (),
    "metric": (),
    "importer": (),
    "exporter": (),
    "tracker": (),
    "engine": (),
}
"""Which of these are known when a component of a kind is built."""


@dataclass(frozen=True)
class Component:
    kind: str
    name: str
    target: str  # "package.module:Class"
    plugin: str
    example: Mapping[str, Any] = field(default_factory=dict)
    was: tuple[str, ...] = ()  # names that it had before

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]

    @property
    def class_name(self) -> str:
        return self.target.partition(":")[2]

    def load(self) -> type:
        """Import the class. This is the only place that does.

        Raises MissingPackage, or UserError for a module that fails in any other way or has no such class, and for a class
        that lacks a method of its contract.
        """
        who = f"{self.kind} {self.name!r} of plugin {self.plugin!r}"
        loaded = imported(self.target, who, "class")
        if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
            raise UserError(f"{who}: {self.target} has no {' and no '.join(missing)}, which every {self.kind} has")
        return loaded


def imported(target: str, who: str, what: str) -> Any:
    """What an import string, "package.module:name", names; in messages, `who` offers `what`.

    Raises MissingPackage, or UserError for a module that fails in any other way or has no such name.
    """
    name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(name)
    except WspaceError:
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wspace."):
            raise UserError(
                f"{who} imports {error.name!r}, which this wspace does not have; a plugin imports wspace, wspace.api and "
                "wspace.testing alone"
            ) from error
        raise MissingPackage(f"{who} needs the package {error.name!r}, which is not installed") from error
    except Exception as error:
        raise UserError(f"{who} cannot be imported: {reason(error)}") from error
    if not hasattr(module, attribute):
        raise UserError(f"{who}: module {name!r} has no {what} {attribute!r}")
    if not name.startswith("wspace.") and (file := getattr(sys.modules[name], "__file__", None)):
        warn_of_private_imports(file)
    return getattr(module, attribute)


class Registry:
    def __init__(self) -> None:
        self._components: dict[tuple[str, str], Component] = {}
        self._renamed: dict[tuple[str, str], Component] = {}  # by their old names; a new owner of a name comes first

    def check(self, *components: Component) -> None:
        """Raises UnknownComponent for a kind there is not, NameClash for a name that is taken."""
        for component in components:
            if component.kind not in KINDS:
                raise UnknownComponent(
                    f"plugin {component.plugin!r} registers {component.name!r} of unknown kind {component.kind!r}."
                    + did_you_mean(component.kind, list(KINDS))
                )
            if (component.kind, component.name) in self._components:
                other = self._components[component.kind, component.name].plugin
                raise NameClash(
                    f"plugins {other!r} and {component.plugin!r} both register the {component.kind} {component.name!r}: "
                    f"uninstall one, or list the plugins you want in WSPACE_PLUGINS"
                )

    def add(self, *components: Component) -> None:
        """All of them, or none: raises what `check` does."""
        self.check(*components)
        self._components |= {(component.kind, component.name): component for component in components}
        renamed = {(component.kind, old): component for component in components for old in component.was}
        self._renamed = renamed | self._renamed

    def get(self, kind: str, name: str) -> Component:
        """By its name, or with a note by one that it had. Raises UnknownComponent, with the nearest known name."""
        if kind not in KINDS:
            raise UnknownComponent(f"no kind {kind!r}.{did_you_mean(kind, list(KINDS))}")
        if (kind, name) not in self._components and (kind, name) in self._renamed:
            component = self._renamed[kind, name]
            warnings.warn(f"the {kind} {name!r} is now called {component.name!r}; write that", Renamed, stacklevel=2)
            return component
        if (kind, name) not in self._components:
            raise UnknownComponent(f"no {kind} named {name!r}.{did_you_mean(name, self.names(kind))}")
        return self._components[kind, name]

    def names(self, kind: str) -> list[str]:
        return sorted(name for k, name in self._components if k == kind)

    def all(self, kind: str | None = None) -> list[Component]:
        """Components in the order of KINDS, then by name."""
        kinds = list(KINDS) if kind is None else [kind]
        return [self._components[k, name] for k in kinds for name in self.names(k)]
