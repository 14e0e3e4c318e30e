"""A device that gives other numbers than the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.support.pretended import DEVICE, pretended
from wspace.learning import probe
from wspace.learning.probe import check_device
from wspace.support.errors import WspaceError


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    check_device.cache_clear()
    yield
    check_device.cache_clear()


def test_a_device_that_computes_as_the_cpu_does_is_taken() -> None:
    check_device(torch.device("cpu"))
    with pretended():
        check_device(DEVICE)


@pytest.mark.parametrize(("added", "off"), [(0.1, "10.0%"), (torch.nan, "nan%")])
def test_a_device_whose_products_are_wrong_is_refused_by_name(
    added: float, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(x: torch.Tensor) -> torch.Tensor:
        product = x @ x.mT
        return product if x.device.type == "cpu" else product * (1 + added)

    monkeypatch.setattr(probe, "PROBES", {"a matrix product": wrong})
    with pretended(), pytest.raises(WspaceError) as caught:
        check_device(DEVICE)
    assert str(caught.value) == (
        f"device pretended:0 does not compute what the CPU does: a matrix product is off by {off}, where rounding gives less "
        "than 1%; nothing can be trusted that is computed on it: 'device: cpu' does without"
    )


@pytest.mark.parametrize("what", probe.PROBES)
def test_each_probe_sees_a_value_that_is_wrong(what: str) -> None:
    """One in a thousand of its values, off by their size, is more than rounding."""
    values = torch.randn(probe.SIDE, probe.SIDE, generator=torch.Generator().manual_seed(0))
    result = probe.PROBES[what](values)
    broken = result.flatten().clone()
    broken[::1000] *= 2
    off = float((broken - result.flatten()).norm() / result.norm())
    assert off > probe.MOST and torch.isfinite(result).all()
