"""Kinds of components, and who offers which: (kind, name) -> an import string."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wspace.support.errors import (
    MissingPackage,
    NameClash,
    UnknownComponent,
    UserError,
    WspaceError,
    did_you_mean,
    reason,
)

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
    "metric": "Metric",
}
"""Kind -> its interface, a class of `wspace.interfaces`. The order is the order of the data flow."""

GIVEN: dict[str, str] = {
    "device": "the torch.device of the run",
    "feature_dim": "width of the image features, F (int)",
    "text_dim": "width of the text features, T (int)",
    "spec": "names, shapes and axes of the target's weights (WeightSpec)",
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
    "conditioner": ("spec", "text_dim"),
    "predictor": _OF_SYSTEMS,
    "denoiser": _OF_SYSTEMS,
    "discriminator": ("layout",),
    "generator": _OF_SYSTEMS,
    "fusion": ("spec", "base"),
    "metric": (),
}
"""Which of these are known when a component of a kind is built."""


@dataclass(frozen=True)
class Component:
    kind: str
    name: str
    target: str  # "package.module:Class"
    plugin: str
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]

    @property
    def class_name(self) -> str:
        return self.target.partition(":")[2]

    def load(self) -> type:
        """Import the class. This is the only place that does.

        Raises MissingPackage, or UserError for a module that fails in any other way or has no such class.
        """
        who = f"{self.kind} {self.name!r} of plugin {self.plugin!r}"
        try:
            module = importlib.import_module(self.module)
        except WspaceError:
            raise
        except ModuleNotFoundError as error:
            raise MissingPackage(f"{who} needs the package {error.name!r}, which is not installed") from error
        except Exception as error:
            raise UserError(f"{who} cannot be imported: {reason(error)}") from error
        if not hasattr(module, self.class_name):
            raise UserError(f"{who}: module {self.module!r} has no class {self.class_name!r}")
        return getattr(module, self.class_name)


class Registry:
    def __init__(self) -> None:
        self._components: dict[tuple[str, str], Component] = {}

    def add(self, *components: Component) -> None:
        """All of them, or none: raises UnknownComponent for a kind there is not, NameClash for a name that is taken."""
        added: dict[tuple[str, str], Component] = {}
        for component in components:
            if component.kind not in KINDS:
                raise UnknownComponent(
                    f"plugin {component.plugin!r} registers {component.name!r} of unknown kind {component.kind!r}."
                    + did_you_mean(component.kind, list(KINDS))
                )
            key = (component.kind, component.name)
            if key in self._components:
                other = self._components[key].plugin
                raise NameClash(
                    f"plugins {other!r} and {component.plugin!r} both register the {component.kind} {component.name!r}: "
                    f"uninstall one, or list the plugins you want in WSPACE_PLUGINS"
                )
            added[key] = component
        self._components |= added

    def get(self, kind: str, name: str) -> Component:
        """Raises UnknownComponent, with the nearest known name."""
        if kind not in KINDS:
            raise UnknownComponent(f"no kind {kind!r}.{did_you_mean(kind, list(KINDS))}")
        if (kind, name) not in self._components:
            raise UnknownComponent(f"no {kind} named {name!r}.{did_you_mean(name, self.names(kind))}")
        return self._components[kind, name]

    def names(self, kind: str) -> list[str]:
        return sorted(name for k, name in self._components if k == kind)

    def all(self, kind: str | None = None) -> list[Component]:
        """Components in the order of KINDS, then by name."""
        kinds = list(KINDS) if kind is None else [kind]
        return [self._components[k, name] for k in kinds for name in self.names(k)]
