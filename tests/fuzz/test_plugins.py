"""What installed packages say of themselves: a broken plugin is told, and stops nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import wspace
from tests.support.hostile import cases, held, names, refused_or_done, values
from wspace.recipes.plugins import load_plugins

targets = names | st.sampled_from(["os:system", "nothing.here:Thing", "wspace.api:Target", ":", "a:", ":b", "a:b:c"])
kinds = names | st.sampled_from(["target", "dataset", "tokenizer", "generator", "opponent"])
calls = st.tuples(kinds | values, names | values, targets | values)


ERRORS = [ImportError("no"), SyntaxError("no"), SystemExit(3), RecursionError(), AttributeError("x"), MemoryError()]


@dataclass(frozen=True)
class Entry:
    """As importlib.metadata has it."""

    name: str
    value: str = "hostile"
    dist: Any = None
    module: ModuleType | None = field(default=None, compare=False)
    error: BaseException | None = None

    def load(self) -> ModuleType:
        if self.error is not None:
            raise self.error
        assert self.module is not None
        return self.module


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    name = draw(names)
    if draw(st.integers(0, 4)) == 0:
        return Entry(name, error=draw(st.sampled_from(ERRORS)))
    module, registered, added = (
        ModuleType("hostile"),
        draw(st.lists(calls, max_size=3)),
        draw(st.lists(calls, max_size=2)),
    )

    @wspace.hookimpl
    def wspace_register(register: Any) -> None:
        for kind, called, target in registered:
            register(kind, called, target)

    @wspace.hookimpl
    def wspace_commands(add: Any) -> None:
        for _, called, target in added:
            add(called, target)

    module.wspace_register, module.wspace_commands = wspace_register, wspace_commands  # type: ignore[attr-defined]
    if draw(st.booleans()):
        module.PLUGIN_API = draw(values)  # type: ignore[attr-defined]
    return Entry(name, module=module)


@cases(3_000)
@given(st.lists(entries(), max_size=3))
def test_plugins_are_in_use_or_told(installed: list[Entry]) -> None:
    with held():
        plugins = refused_or_done(lambda: load_plugins(installed=installed))
    if plugins is not None:
        assert all(isinstance(sentence, str) and sentence for sentence in plugins.warnings)
        assert plugins.registry.names("generator")
