"""Hostile input guided by coverage: with WSPACE_FUZZ=guided, atheris chooses the bytes that hypothesis draws by."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given

from tests.support.hostile import FUZZ, SLOWEST

SECONDS = os.environ.get("WSPACE_FUZZ_SECONDS", "20")  # for each test

if FUZZ == "guided":
    import atheris

    atheris.instrument_imports(include=["wspace"]).__enter__()  # for good: tests are imported after this


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test of hypothesis by atheris instead, in a process of its own: atheris ends the one that it is in."""
    drawn = getattr(pyfuncitem.obj, "hypothesis", None)
    if FUZZ != "guided" or drawn is None:
        return None
    fixtures = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    def test(*values: Any) -> None:
        drawn.inner_test(*fixtures.values(), *values)

    whole = inspect.signature(drawn.inner_test)
    remaining = [parameter for parameter in whole.parameters.values() if parameter.name not in fixtures]
    test.__signature__ = whole.replace(parameters=remaining)  # type: ignore[attr-defined]
    failing: Path = pyfuncitem._request.getfixturevalue("tmp_path")
    child = os.fork()
    if child == 0:
        _guided(given(**drawn._given_kwargs)(test), failing)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"what came of it stands above; the bytes drawn by are in {failing}"
    return True


def _guided(test: Callable[[], object], failing: Path) -> NoReturn:
    limits = [f"-max_total_time={SECONDS}", f"-timeout={SLOWEST.seconds}", "-rss_limit_mb=0", "-max_len=8192"]
    try:
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={failing}/"], test.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
        atheris.Fuzz()
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(1)
