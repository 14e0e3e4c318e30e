"""diffusers without torch's compiler, in processes of the command line alone.

Its schedulers come with a module that marks parts of diffusers' own networks for `torch.compile`, and so imports the compiler:
2 s, of which `wspace generate` needs nothing. Where there is none, that module does without. A process that others share, as
one that imports wspace, keeps the compiler: somebody's diffusers may be compiled there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MARKS = "diffusers.utils.torch_utils"
COMPILER = "torch._dynamo"


class _Uncompiled(Loader):
    """Another loader, whose module is executed as if there were no compiler."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if COMPILER in sys.modules:
            self.loader.exec_module(module)
            return
        sys.modules[COMPILER] = None  # type: ignore[assignment]  # by which Python knows that there is none
        try:
            self.loader.exec_module(module)
        finally:
            sys.modules.pop(COMPILER, None)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MARKS or (spec := PathFinder.find_spec(fullname, path)) is None or spec.loader is None:
            return None
        spec.loader = _Uncompiled(spec.loader)
        return spec


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, diffusers is imported without the compiler, unless that is there already."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
