"""Modules that torch makes trouble of: copied, traced and matched, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.support.modules import Keeps
from wspace.support.errors import UserError
from wspace.weights.matching.activations import match_activations
from wspace.weights.matching.barrier import MeanLoss
from wspace.weights.matching.by_weights import match
from wspace.weights.modules import copy_of, tie
from wspace.weights.tracing.infer import infer, weights_of
from wspace.weights.tracing.module_proof import module_error, prove_module

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, that weight_norm and quantization are old
INPUTS = torch.zeros(2, 3)


def mlp(width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


def pruned() -> nn.Module:
    module = mlp()
    prune.l1_unstructured(module[0], "weight", 0.5)
    return module


NOT_COPIED: dict[str, Callable[[], nn.Module]] = {
    "old weight norm": lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)),
    "pruned": pruned,
    "kept activations and a lock": lambda: nn.Sequential(Keeps(3, 3), nn.ReLU(), nn.Linear(3, 2)),
}


@pytest.mark.parametrize("name", NOT_COPIED)
def test_a_module_that_deepcopy_refuses_is_copied_and_left_as_it_was(name: str) -> None:
    module = NOT_COPIED[name]()
    with pytest.raises((RuntimeError, TypeError)):
        deepcopy(module)
    copied, x = copy_of(module), torch.randn(5, 3)
    before = module(x).detach()
    assert torch.equal(copied(x), before)
    kept = [len(part.kept) for part in module.modules() if isinstance(part, Keeps)]
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(2)
    assert not torch.equal(copied(x), before) and torch.equal(MeanLoss(module, [])._module(x), before)
    prove_module(module, infer(module, INPUTS), [INPUTS], torch.Generator().manual_seed(0))
    assert kept == [len(part.kept) for part in module.modules() if isinstance(part, Keeps)]
    assert torch.equal(module(x), before)


def test_a_module_that_refuses_to_be_copied_is_one_sentence() -> None:
    class Alone(nn.Linear):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise NotImplementedError("there is one of me")

    with pytest.raises(UserError) as caught:
        copy_of(Alone(3, 2))
    assert str(caught.value).startswith("Alone cannot be copied: NotImplementedError: there is one of me")


def test_views_of_one_memory_are_tied_where_they_are_the_same_view() -> None:
    module = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(3)))
    module[1].weight = nn.Parameter(module[0].weight.data)
    module[2].weight = nn.Parameter(module[0].weight.data.T)
    tie(module)
    assert module[1].weight is module[0].weight and module[2].weight is not module[0].weight
    empty = nn.Sequential(nn.Linear(3, 0, bias=False), nn.Linear(3, 0, bias=False))
    tie(empty)
    assert empty[0].weight is not empty[1].weight


def transposed() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    module[2].weight = nn.Parameter(module[0].weight.data.T)
    return module


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            transposed,
            "2.weight shares memory with 0.weight, as another view: make them one parameter, or give each value memory of "
            "its own (clone)",
        ),
        (
            lambda: nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)),
            "0.weight is lazy and has no shape yet: call the module once before, or give its sizes",
        ),
        (
            lambda: torch.ao.quantization.quantize_dynamic(mlp()),
            "0._packed_params.dtype is of a quantized layer, and its weights are no real numbers: quantize it later",
        ),
    ],
)
def test_what_has_no_weights_of_its_own_cannot_be_traced(make: Callable[[], nn.Module], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        infer(make(), INPUTS)
    assert str(caught.value) == f"Sequential cannot be traced: {expected}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_precision_are_matched_as_in_float32(dtype: torch.dtype) -> None:
    network, order = mlp(8), torch.randperm(8, generator=torch.Generator().manual_seed(1))
    other = deepcopy(network)
    with torch.no_grad():
        other[0].weight.copy_(network[0].weight[order])
        other[0].bias.copy_(network[0].bias[order])
        other[2].weight.copy_(network[2].weight[:, order])
    inferred = infer(network, INPUTS)
    spec, expected = inferred.spec(network), order.argsort().tolist()
    network, other = network.to(dtype), other.to(dtype)
    ours, theirs = (spec.flatten(weights_of(module)) for module in (other, network))  # parameters, gradients and all
    assert match(ours[None], theirs, spec, spec.free)["layer0"].places[0].tolist() == expected
    batch = torch.randn(500, 3, generator=torch.Generator().manual_seed(2))
    moves = match_activations(other, network, [batch.to(dtype)], spec)
    assert moves["layer0"].places[0].tolist() == expected


def test_activation_matching_names_the_format_of_inputs_that_a_network_fails_on() -> None:
    network = mlp().half()
    spec = infer(mlp(), INPUTS).spec(network)
    with pytest.raises(UserError) as caught:
        match_activations(network, network, [torch.randn(5, 3)], spec)
    assert str(caught.value).startswith(
        "activation matching: a network fails on inputs of float32: RuntimeError: mat1 and"
    )


def test_an_extra_state_is_no_weight() -> None:
    class Remembers(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"scale": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    module = nn.Sequential(Remembers(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inferred = infer(module, INPUTS)
    assert inferred.free == ("layer0",)
    assert module_error(module, inferred, [INPUTS], torch.Generator().manual_seed(0)) < 1e-4


def test_half_precision_is_proven_in_float32_and_a_module_that_insists_on_it_is_one_sentence() -> None:
    for network in (mlp().half(), mlp().bfloat16(), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2).half())):
        prove_module(network, infer(network, INPUTS), [INPUTS], torch.Generator().manual_seed(0))

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.there, self.back = nn.Linear(3, 4).bfloat16(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.back(self.there(x.bfloat16()).float())

    class Insists(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            if self.there.weight.dtype != torch.bfloat16:
                raise RuntimeError("bfloat16 alone")
            return super().forward(x)

    prove_module(Mixed(), infer(Mixed(), INPUTS), [INPUTS], torch.Generator().manual_seed(0))
    with pytest.raises(UserError) as caught:
        prove_module(Insists(), infer(Insists(), INPUTS), [INPUTS], torch.Generator().manual_seed(0))
    assert str(caught.value).startswith(
        "Insists cannot be tried in float32, where there.weight is bfloat16: RuntimeError: bfloat16 alone"
    )
