"""Networks matched and compared on a device that is not the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.support.pretended import DEVICE, pretended
from tests.weights.test_novelty import SYMMETRIES, rng_of, zoo
from wspace.interfaces import Symmetry
from wspace.weights.novelty import Neighbourhood


@pytest.mark.parametrize("symmetry", [None, *SYMMETRIES])
def test_neighbours_looked_for_there_are_those_of_the_cpu_and_said_where_they_were_asked_for(
    symmetry: Symmetry | None,
) -> None:
    (weights, base), (asked, _) = zoo(), zoo(1, 5)
    on_cpu = Neighbourhood(weights, base, symmetry, rng_of(2)).nearest(asked)
    with pretended():
        there = Neighbourhood(weights.to(DEVICE), base, symmetry, rng_of(2)).nearest(asked)
    assert torch.equal(there.index, on_cpu.index)
    torch.testing.assert_close(there.novelty, on_cpu.novelty)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_more_networks_to_match_do_not_wait_for_the_device_more_often(symmetry: Symmetry) -> None:
    def waited(count: int) -> int:
        weights, base = zoo(0, 1)
        with pretended() as counts:
            symmetry.canonicalize(weights.repeat(count, 1).to(DEVICE), base.to(DEVICE))
        return counts.waited

    assert waited(1) == waited(7)
