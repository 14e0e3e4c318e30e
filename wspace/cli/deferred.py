"""diffusers without what is imported with it and not used, in processes of the command line alone.

`wspace generate` needs one scheduler of it. With that come torch's compiler, which marks parts of diffusers' own networks
(2 s), `scipy.stats`, for schedules of beta quantiles (1 s), and a list of the distribution that each installed module is of
(.3 s). The compiler is left out, as where there is none; the others are there once they are asked for. A process that others
share, as one that imports wspace, keeps all: somebody's diffusers may be compiled there.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

COMPILER, STATISTICS = "torch._dynamo", "scipy.stats"


@contextmanager
def _module(name: str, stand_in: ModuleType | None) -> Iterator[None]:
    """Inside, an import of a module that is not there yet has the stand-in; that there is no such module, if None."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in  # type: ignore[assignment]  # None: by which Python knows that there is none
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _no_compiler() -> AbstractContextManager[None]:
    return _module(COMPILER, None)


def _statistics_when_asked() -> AbstractContextManager[None]:
    """`import scipy.stats` binds scipy, whose attribute `stats` is imported when it is first looked at."""
    return _module(STATISTICS, ModuleType(STATISTICS))


class _Packages(Mapping[str, list[str]]):
    """`importlib.metadata.packages_distributions()`, when something of it is asked for."""

    def __init__(self, list_all: Callable[[], Mapping[str, list[str]]]):
        self._list_all = list_all

    @cached_property
    def _listed(self) -> Mapping[str, list[str]]:
        return self._list_all()

    def __getitem__(self, module: str) -> list[str]:
        return self._listed[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def __bool__(self) -> bool:
        return True  # `packages or {}` asks for nothing


@contextmanager
def _packages_when_asked() -> Iterator[None]:
    list_all = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = lambda: _Packages(list_all)
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = list_all


WITHOUT: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "diffusers.utils.torch_utils": _no_compiler,
    "diffusers.utils.import_utils": _packages_when_asked,
    "diffusers.schedulers.scheduling_dpmsolver_multistep": _statistics_when_asked,
}
"""Module of diffusers -> what it is executed in."""


class _Within(Loader):
    """Another loader, whose module is executed in a context."""

    def __init__(self, loader: Loader, context: Callable[[], AbstractContextManager[None]]):
        self.loader, self.context = loader, context

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with self.context():
            self.loader.exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in WITHOUT or (spec := PathFinder.find_spec(fullname, path)) is None or spec.loader is None:
            return None
        spec.loader = _Within(spec.loader, WITHOUT[fullname])
        return spec


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, diffusers is imported without what this module's docstring names, unless that is there already."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
