"""Conformance checks: whether a plugin's components keep the contracts of `wspace.interfaces`.

In a plugin's tests, one line holds all of its components to all laws of their kinds:

    from wspace.testing import conformance

    test_conformance = conformance("my-plugin")

`pytest --pyargs wspace.testing` does so for every plugin there is, the built-in components among them. Components are built
from the arguments that they are registered with as an `example`. What needs a package or weights that are not here is
skipped, and said; whatever else stands in the way fails.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspace.recipes.plugins import Plugins, load_plugins
from wspace.recipes.registry import Component, Registry
from wspace.support.errors import MissingPackage, MissingWeights, did_you_mean
from wspace.testing import (  # noqa: F401 (each registers its checks)
    architectures,
    conditioners,
    data,
    denoisers,
    engines,
    every,
    exporters,
    fusions,
    generators,
    importers,
    metrics,
    opponents,
    symmetries,
    targets,
    tokenizers,
    trackers,
)
from wspace.testing.law import CHECKS, Check
from wspace.testing.subject import Subject
from wspace.testing.verdicts import Unbuilt, Unlawful

__all__ = ["CHECKS", "Case", "Subject", "Unlawful", "cases", "cases_of", "conformance"]

HEAVY = ("torch", "timm", "open_clip", "diffusers", "transformers", "matplotlib")
"""What registration must not import: the command line registers every plugin for every command."""


@dataclass(frozen=True)
class Case:
    """One check of one component, or of a plugin as a whole."""

    name: str  # kind, component and law
    run: Callable[[], None]  # raises Unlawful; Unbuilt, MissingPackage or MissingWeights where the check does not apply


def conformance(plugin: str | None = None) -> Callable[..., None]:
    """A test for pytest: each check of each component of a plugin; of every plugin, if none is named.

    A plugin is called by its entry point's name; one of a single file, by the file.
    """
    import pytest

    @pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases(plugin)])
    def test_conformance(case: Case) -> None:
        broken = None
        try:
            case.run()
        except (MissingPackage, MissingWeights) as error:
            pytest.skip(str(error))
        except Unbuilt as error:
            pytest.skip(f"does not apply: {error}")
        except Unlawful as error:
            broken = str(error)
        if broken is not None:  # out here, pytest shows the sentence alone
            pytest.fail(broken, pytrace=False)

    return test_conformance


def cases(plugin: str | None = None) -> list[Case]:
    """Of one plugin, or of all; a plugin that is not there, is broken or offers nothing is a case that fails."""
    one_file = plugin is not None and plugin.endswith(".py")
    loaded = load_plugins([Path(plugin)] if one_file and plugin else ())
    names = [fact.name for fact in loaded.facts if not fact.skipped]
    name = Path(plugin).stem if one_file and plugin else plugin
    if name is not None and name not in names:
        return [_failing(name, f"no plugin {name!r} is in use here.{did_you_mean(name, names)}")]
    return [case for plugin in names if name in (None, plugin) for case in _cases_of_plugin(plugin, loaded, one_file)]


def cases_of(component: Component, registry: Registry) -> list[Case]:
    """Every law of its kind."""
    subject = Subject(component, registry)
    who = f"{component.kind}/{component.name}"
    return [
        Case(f"{who}-{check.__name__.removeprefix('check_')}", functools.partial(_run, check, subject))
        for check in CHECKS[component.kind]
    ]


def _run(check: Check, subject: Subject) -> None:
    """What a component raises on the way breaks the law as well; its traceback follows."""
    try:
        check(subject)
    except (Unlawful, Unbuilt, MissingPackage, MissingWeights):
        raise
    except Exception as error:
        law = check.__name__.removeprefix("check_").replace("_", " ")
        message = " ".join(str(error).split())
        raise AssertionError(f"{subject.who}: {law}: it raised {type(error).__name__}: {message}") from error


def _cases_of_plugin(name: str, loaded: Plugins, one_file: bool) -> list[Case]:
    (fact,) = [fact for fact in loaded.facts if fact.name == name]
    if fact.error is not None:
        return [_failing(name, f"plugin {name!r} cannot be used: {fact.error}")]
    components = [c for c in loaded.registry.all() if c.plugin == name]
    laws = [case for component in components for case in cases_of(component, loaded.registry)]
    light = [] if one_file else [Case(f"plugin/{name}-registration_is_light", functools.partial(_is_light, name))]
    return [*light, *laws]


def _failing(name: str, law: str) -> Case:
    def run() -> None:
        raise Unlawful(law)

    return Case(f"plugin/{name}", run)


def _is_light(name: str) -> None:
    """In a process of its own: in this one, torch is there already."""
    code = (
        "import sys; from wspace.recipes.plugins import load_plugins; load_plugins(allowed=sys.argv[1]); "
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    done: Any = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unlawful(f"plugin {name!r}: cannot be registered by itself: {done.stderr.strip().splitlines()[-1]}")
    if done.stdout.strip():
        raise Unlawful(
            f"plugin {name!r}: its registration should import nothing heavy, and imports {done.stdout.strip()}: name "
            "components as 'package.module:Class', and import what they need in their own modules"
        )
