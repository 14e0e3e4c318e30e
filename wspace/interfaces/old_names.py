"""Methods of a contract that were renamed: a class that has the old one alone goes on working for one minor version."""

from __future__ import annotations

import functools
import warnings
from typing import Any


def keep_old_method(cls: type, old: str, new: str) -> None:
    """For the `__init_subclass__` of the contract, which itself has both methods.

    A class that overrides `old` alone is given `new`, with a DeprecationWarning at its `class` statement. One that has `new`
    alone answers to `old` as well, with the warning at the call.
    """
    owner = next(base for base in cls.__mro__ if old in vars(base) or new in vars(base))
    if new not in vars(owner):
        message = f"{owner.__qualname__}.{old} is now called {new}; write that"
        warnings.warn(message, DeprecationWarning, stacklevel=4)  # past __init_subclass__ and ABCMeta.__new__
        setattr(cls, new, vars(owner)[old])
    elif old not in vars(owner):
        setattr(cls, old, _forwarding(vars(owner)[new], old))


def _forwarding(method: Any, old: str) -> Any:
    """To this very method and no override of it: the old name in a subclass may call its parent's by `super()`."""

    @functools.wraps(method)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        message = f"{type(self).__qualname__}.{old} is now called {method.__name__}; call that"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return method(self, *args, **kwargs)

    return forward
