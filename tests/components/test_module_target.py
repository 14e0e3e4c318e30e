"""Any torch module as a target, against the module itself: one network at a time, by load_state_dict."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from tests.support.modules import Keeps
from tests.support.stand_ins import Units
from wspace.components.architectures.cnn import CNN
from wspace.components.architectures.mlp import MLP
from wspace.components.architectures.timm import TimmModel
from wspace.components.targets.module import Module
from wspace.components.tokenizers.chunk import Chunk
from wspace.components.tokenizers.neuron import Neuron
from wspace.data.features import Pool
from wspace.interfaces import Architecture
from wspace.learning.fitting import Schedule, accuracies, calibrated, fit
from wspace.support.errors import UserError
from wspace.weights.files.network import Network
from wspace.weights.proof import prove

SIDE, TEXTS = 8, 5
PIXELS = 3 * SIDE**2
ARCHITECTURES = {
    "mlp": lambda: MLP((6, 4), "gelu", "layer"),
    "mlp with batch norm": lambda: MLP((6,), norm="batch"),
    "cnn": lambda: CNN((4, 6)),
    "vit": lambda: TimmModel("test_vit", 4),
}


class Given(Architecture):
    """A module that is there."""

    def __init__(self, make: Callable[[], nn.Module], axes: dict[str, tuple[str, ...]] | None = None):
        self.make, self.said = make, axes

    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        return self.make()

    def axes(self, module: nn.Module) -> dict[str, tuple[str, ...]] | None:
        return self.said


def target_of(architecture: Architecture, side: int = SIDE, **arguments: Any) -> Module:
    return Module(architecture, **arguments, feature_dim=3 * side**2, text_dim=TEXTS)


def of_module(make: Callable[[], nn.Module], inputs: int = 3, outputs: int = 2, **arguments: Any) -> Module:
    return Module(Given(make), **arguments, feature_dim=inputs, text_dim=outputs)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_weights(target: Module, count: int = 3) -> Tensor:
    """(B, P), none of them as it was made; variances above 0."""
    fresh = target.init(count, rng())
    moved = target.spec.unflatten(fresh + 0.1 * torch.randn(fresh.shape, generator=rng(1)))
    return target.spec.flatten({n: t.abs() + 0.1 if n.endswith("running_var") else t for n, t in moved.items()})


def inputs(count: int = 3, images: int = 7, side: int = SIDE) -> tuple[Tensor, Tensor]:
    features = torch.randn(count, images, 3 * side**2, generator=rng(2))
    return features, functional.normalize(torch.randn(count, 4, TEXTS, generator=rng(3)), dim=2)


def loaded(target: Module, weights: Tensor) -> nn.Module:
    """A module of its own with these weights, as a user of the exported file makes it."""
    module = copy.deepcopy(target.network)
    module.load_state_dict(target.exported(weights), strict=False)
    return module.eval()


def said_by(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


# ---------------------------------------------------------------- what its networks compute


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("together", [True, False])
def test_scores_are_those_of_the_module_itself_and_a_cosine(name: str, together: bool) -> None:
    target, (features, texts) = target_of(ARCHITECTURES[name](), temperature=7.0), inputs()
    assert target.together
    vars(target)["together"] = together
    weights = trained_weights(target)
    logits = target.logits(weights, features, texts)
    for b in range(3):
        output = loaded(target, weights[b])(features[b].unflatten(1, target.inputs))  # (M, T)
        cosine = functional.cosine_similarity(output[:, None], texts[b][None], dim=2)
        torch.testing.assert_close(logits[b], 7.0 * cosine, rtol=1e-4, atol=1e-5)


def test_many_images_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    target, (features, texts) = target_of(CNN((4,))), inputs()
    weights = trained_weights(target)
    whole = target.logits(weights, features, texts)
    monkeypatch.setattr("wspace.components.targets.module.TOGETHER", 10)
    torch.testing.assert_close(target.logits(weights, features, texts), whole)


def test_whether_torch_calls_networks_together_does_not_depend_on_who_asks_first() -> None:
    with torch.no_grad():
        assert target_of(MLP()).together


@pytest.mark.parametrize(
    ("architecture", "alone"),
    [(CNN((4, 6)), True), (TimmModel("test_efficientnet"), True), (TimmModel("test_vit", 8), False)],
)
def test_large_convolutions_are_called_one_by_one_and_give_the_same(
    architecture: Architecture, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Module(architecture, feature_dim=3 * 16**2, text_dim=TEXTS)
    weights = trained_weights(target).double()
    images, texts = (
        torch.randn(3, count, width, generator=rng(2), dtype=torch.float64) for count, width in ((4, 768), (2, TEXTS))
    )
    hidden, labels = torch.zeros(3, 1, 2, dtype=torch.bool), torch.tensor([[0, 1, 0, 1]] * 3)
    assert target.together and target._goes_alone(torch.device("cpu")) == alone
    losses, gradient = target.descent(weights, images, texts, hidden, labels)
    monkeypatch.setattr(Module, "_goes_alone", lambda self, device: not alone)
    other_losses, other_gradient = target.descent(weights, images, texts, hidden, labels)
    torch.testing.assert_close(losses, other_losses)
    torch.testing.assert_close(gradient, other_gradient)


def test_of_weights_that_are_held_no_gradient_is_computed() -> None:
    target = Module(CNN((4, 6)), feature_dim=3 * 8**2, text_dim=TEXTS)
    weights, trained = trained_weights(target), torch.zeros(target.spec.size, dtype=torch.bool)
    trained[target.spec.slices["out.weight"]] = True
    images, texts = torch.randn(3, 4, 3 * 8**2, generator=rng(2)), torch.randn(3, 2, TEXTS, generator=rng(3))
    asked = (weights, images, texts, torch.zeros(3, 1, 2, dtype=torch.bool), torch.tensor([[0, 1, 0, 1]] * 3))
    losses, gradient = target.descent(*asked)
    with target.holding(trained):
        same, of_some = target.descent(*asked)
    assert torch.equal(same, losses) and (gradient[:, ~trained] != 0).any()
    torch.testing.assert_close(of_some, gradient * trained)
    assert torch.equal(target.descent(*asked)[1], gradient)


def test_a_module_that_torch_cannot_call_together_is_called_one_by_one() -> None:
    class Hesitant(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if float(self.weight.sum()) > 0 else -super().forward(x)

    target = of_module(lambda: Hesitant(3, 2))
    assert not target.together
    weights, features = target.init(4, rng()), torch.randn(4, 5, 3)
    logits = target.logits(weights, features, torch.eye(2).expand(4, -1, -1))
    for b in range(4):
        expected = functional.normalize(loaded(target, weights[b])(features[b]), dim=1)
        torch.testing.assert_close(logits[b], target.temperature * expected)


@pytest.mark.parametrize("name", ["mlp with batch norm", "cnn"])
def test_gradients_agree_with_finite_differences_running_statistics_included(name: str) -> None:
    target, (features, texts) = target_of(ARCHITECTURES[name](), temperature=1.0), inputs(2, 3)
    weights = trained_weights(target, 2).double().requires_grad_()
    direction = torch.randn(weights.shape, generator=rng(4), dtype=torch.float64)
    for score in (target.logits, target.training_logits):

        def total(w: Tensor, score: Callable[..., Tensor] = score) -> Tensor:
            return score(w, features.double(), texts.double()).square().sum()

        (gradient,) = torch.autograd.grad(total(weights), weights)
        with torch.no_grad():
            slope = (total(weights + 1e-6 * direction) - total(weights - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- batch norm


@pytest.mark.parametrize(
    ("architecture", "side"), [(MLP((6, 4), norm="batch"), SIDE), (CNN((4, 6)), SIDE), (TimmModel("test_resnet"), 16)]
)
def test_statistics_are_those_of_a_pass_in_training_mode_without_momentum(
    architecture: Architecture, side: int
) -> None:
    target, (features, _) = target_of(architecture, side), inputs(2, 16, side)
    weights = trained_weights(target, 2)
    before = weights.clone()
    found = target.calibrated(weights, features)
    assert torch.equal(weights, before)
    for b in range(2):
        module = loaded(target, weights[b])
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.reset_running_stats()
                layer.momentum = None
        with torch.no_grad():
            module.train()(features[b].unflatten(1, target.inputs))
        for name, tensor in target.spec.unflatten(found[b]).items():
            if name in target.statistics:
                torch.testing.assert_close(tensor, module.state_dict()[name], rtol=1e-4, atol=1e-5)
            else:
                assert torch.equal(tensor, target.spec.unflatten(weights[b])[name]), name
    assert {name.rpartition(".")[2] for name in target.statistics} == {"running_mean", "running_var"}


def test_training_takes_the_statistics_of_its_own_images_and_keeps_none() -> None:
    target, (features, texts) = target_of(CNN((4, 6))), inputs()
    weights = trained_weights(target)
    found = target.training_logits(weights, features, texts)
    for b in range(3):
        output = loaded(target, weights[b]).train()(features[b].unflatten(1, target.inputs))
        expected = target.temperature * functional.cosine_similarity(output[:, None], texts[b][None], dim=2)
        torch.testing.assert_close(found[b], expected, rtol=1e-4, atol=1e-4)
    changed = target.spec.unflatten(weights.clone())
    for name in target.statistics:
        changed[name] = changed[name] + 1
    assert torch.equal(target.training_logits(target.spec.flatten(changed), features, texts), found)


def test_a_network_without_batch_norm_has_nothing_to_calibrate() -> None:
    target, (features, texts) = target_of(MLP((6,))), inputs()
    weights = target.init(3, rng())
    assert target.statistics == () and target.calibrated(weights, features) is weights
    assert torch.equal(target.training_logits(weights, features, texts), target.logits(weights, features, texts))


def test_a_layer_that_is_not_selected_keeps_its_statistics() -> None:
    target, (features, texts) = target_of(CNN((4, 6)), select=("out.*",)), inputs()
    weights = target.init(3, rng())
    assert target.statistics == ()
    assert torch.equal(target.training_logits(weights, features, texts), target.logits(weights, features, texts))


def test_batch_norm_cannot_train_on_one_image() -> None:
    target, (features, texts) = target_of(CNN((4,))), inputs(3, 1)
    assert said_by(lambda: target.training_logits(target.init(3, rng()), features, texts)) == (
        "target 'module': batch norm needs two images at once, at least: raise zoo.batch"
    )


def test_statistics_taken_anew_save_networks_that_a_generator_made_too_large() -> None:
    """Trained on coloured noise of a colour a class; then each convolution's weights a little off, as generated ones are."""
    classes, each = 6, 30
    colours = torch.randn(classes, 3, generator=rng(6)).repeat_interleave(each, 0)
    pictures = colours[..., None, None] + 0.5 * torch.randn(classes * each, 3, SIDE, SIDE, generator=rng(7))
    train, test = (
        Pool.of(pictures.flatten(1)[half::2], torch.arange(classes).repeat_interleave(each)[half::2], classes)
        for half in (0, 1)
    )
    texts = functional.normalize(torch.randn(classes, TEXTS, generator=rng(8)), dim=1)
    target, tasks = target_of(CNN((8, 8))), [(0, 1, 2), (3, 4, 5), (1, 3, 5)]
    schedule = Schedule(steps=60, batch=16, lr=2e-2)
    weights = fit(target, target.init(3, rng()), tasks, train, texts, schedule, rng(9))
    assert accuracies(target, weights, tasks, test, texts).mean() > 0.9
    tensors = target.spec.unflatten(weights.clone())
    for name in ("conv1.weight", "conv2.weight"):
        tensors[name] = 2 * tensors[name] + 0.3 * tensors[name].std() * torch.randn(
            tensors[name].shape, generator=rng(10)
        )
    made = target.spec.flatten(tensors)
    anew = calibrated(target, made, tasks, train, texts)
    before, after = (accuracies(target, w, tasks, test, texts).mean() for w in (made, anew))
    assert after > 0.9 and after > before + 0.1, (before, after)


def test_a_generated_variance_below_zero_is_read_as_zero() -> None:
    target, (features, texts) = target_of(CNN((4,))), inputs()
    tensors = target.spec.unflatten(trained_weights(target))
    tensors["norm1.running_var"] = -tensors["norm1.running_var"]
    weights = target.spec.flatten(tensors)
    assert torch.isfinite(target.logits(weights, features, texts)).all()
    assert target.exported(weights[0])["norm1.running_var"].eq(0).all()


# ---------------------------------------------------------------- state dict -> weights -> state dict

LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": nn.Linear,
    "conv": lambda i, o: nn.Conv1d(i, o, 3, padding=1),
    "plain": lambda i, o: nn.Linear(i, o, bias=False),
    "norm": lambda i, o: nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o)),
    "affine-free": lambda i, o: nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o, affine=False)),
    "half": lambda i, o: Half(i, o),
    "tied": lambda i, o: Tied(i, o),
}


class Half(nn.Module):
    """A tensor of half the bytes."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, outputs).bfloat16())
        self.register_buffer("table", torch.randn(outputs))
        self.register_buffer("passing", torch.randn(outputs), persistent=False)
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.float() + self.table


class Tied(nn.Module):
    """One matrix, there and back, under two names; and a scalar."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.there, self.back, self.out = (
            nn.Linear(width, 4),
            nn.Linear(4, width, bias=False),
            nn.Linear(width, outputs),
        )
        self.back.weight = nn.Parameter(self.there.weight.T.clone(memory_format=torch.contiguous_format))
        self.again = self.out
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.again(self.back(self.there(x)))


def assembled(kinds: list[str], widths: list[int]) -> nn.Module:
    """Layers one after the other; a convolution sees its input as one position."""
    layers, width = OrderedDict[str, nn.Module](), 3
    for number, (kind, wide) in enumerate(zip(kinds, [*widths, 2], strict=True)):
        layer = LAYERS[kind](width, wide)
        layers[f"l{number}"] = (
            nn.Sequential(nn.Unflatten(1, (width, 1)), layer, nn.Flatten()) if kind == "conv" else layer
        )
        layers[f"a{number}"] = nn.Tanh()
        width = wide
    return nn.Sequential(layers)


def same(first: Tensor, second: Tensor) -> bool:
    """Bytes, types and shapes."""
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_state_dict_comes_back_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=3))
    widths = data.draw(st.lists(st.integers(1, 4), min_size=len(kinds) - 1, max_size=len(kinds) - 1))
    torch.manual_seed(data.draw(st.integers(0, 2**20)))
    module = assembled(kinds, widths)
    module.train()(torch.randn(5, 3))  # so that counters and running statistics are no longer fresh
    state = module.state_dict()
    file = tmp_path_factory.mktemp("state") / "weights.pt"
    torch.save(state, file)
    target = of_module(lambda: assembled(kinds, widths), file=file)
    flat = target.spec.flatten(state)
    assert flat.dtype == torch.float32 or "half" in kinds
    back = target.exported(flat.float())
    assert list(back) and set(back) == set(state)
    assert all(same(back[name], tensor) for name, tensor in state.items())
    assert torch.equal(target.spec.flatten(back).float(), flat.float())
    storages = [tensor.data_ptr() for tensor in back.values()]
    assert len(set(storages)) == len(storages), "files cannot hold tensors that share memory"
    names = [entry.name for entry in target.spec.entries]
    assert not [name for name in names if name.endswith((".passing", ".count", "num_batches_tracked"))]


def test_a_tied_tensor_is_one_entry_under_its_first_name_and_a_file_has_both() -> None:
    target = of_module(lambda: Tied(3, 2))
    names = [entry.name for entry in target.spec.entries]
    assert names == ["scale", "there.weight", "there.bias", "back.weight", "out.weight", "out.bias"]
    assert target.spec.aside == ("again.weight", "again.bias")
    weights = target.init(2, rng())
    assert torch.isfinite(target.logits(weights, torch.randn(2, 4, 3), torch.randn(2, 3, 2))).all()
    assert all(type(tensor) is Tensor for tensor in target.network.state_dict().values())  # put back as they were
    weights[:, target.spec.slices["out.bias"]] = 9.0
    exported = target.exported(weights[0])
    assert exported["again.bias"].tolist() == exported["out.bias"].tolist() == [9.0, 9.0]
    assert loaded(target, weights[0]).again.bias.tolist() == [9.0, 9.0]


def test_a_file_of_a_generated_network_is_read_back_and_a_broken_one_is_not(tmp_path: Path) -> None:
    target = of_module(lambda: assembled(["norm"], []))
    weights = trained_weights(target, 1)[0]
    Network(("a", "b"), target.exported(weights)).save(tmp_path / "head.safetensors")
    assert load_file(tmp_path / "head.safetensors")["l0.1.num_batches_tracked"].dtype == torch.int64
    network = Network.load(tmp_path / "head.safetensors", target.spec)
    assert torch.equal(target.spec.flatten(network.tensors), weights)
    fresh = assembled(["norm"], [])
    fresh.load_state_dict(network.tensors)  # counters among them
    for dtype in (torch.float16, torch.complex64):
        Network(("a", "b"), {name: t.to(dtype) for name, t in target.exported(weights).items()}).save(
            tmp_path / f"{dtype}.safetensors"
        )
    half = Network.load(tmp_path / "torch.float16.safetensors", target.spec)
    torch.testing.assert_close(target.spec.flatten(half.tensors), weights, rtol=1e-3, atol=1e-3)
    assert said_by(lambda: Network.load(tmp_path / "torch.complex64.safetensors", target.spec)).endswith(
        ": l0.0.weight is complex64; this target needs real numbers, such as float32"
    )
    Network(("a", "b"), {**target.exported(weights), "more": torch.ones(1)}).save(tmp_path / "more.safetensors")
    assert "; this target has l0.0.weight, " in said_by(
        lambda: Network.load(tmp_path / "more.safetensors", target.spec)
    )


# ---------------------------------------------------------------- what is selected

MLP_NAMES = ["hidden1.weight", "hidden1.bias", "out.weight", "out.bias"]
CNN_NAMES = ["conv1.weight", "norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_var"]


@pytest.mark.parametrize(
    ("architecture", "select", "expected"),
    [
        (MLP((6,)), ("*",), MLP_NAMES),
        (MLP((6,)), ("out.*",), MLP_NAMES[2:]),
        (MLP((6,)), ("*", "-*.bias"), MLP_NAMES[::2]),
        (MLP((6,)), ("-out.*", "*"), MLP_NAMES[:2]),
        (CNN((4,)), ("norm*",), CNN_NAMES[1:]),
        (CNN((4,)), ("norm1.weight",), [CNN_NAMES[1], *CNN_NAMES[3:]]),
        (CNN((4,)), ("conv1.weight", "norm1.bias"), [CNN_NAMES[0], *CNN_NAMES[2:]]),
        (CNN((4,)), ("norm*", "-*running*"), CNN_NAMES[1:3]),
        (CNN((4,)), ("*running*",), CNN_NAMES[3:]),
    ],
)
def test_what_is_selected(architecture: Architecture, select: tuple[str, ...], expected: list[str]) -> None:
    assert [entry.name for entry in target_of(architecture, select=select).spec.entries] == expected


def test_what_is_not_selected_is_the_same_in_every_network_and_comes_from_the_seed() -> None:
    one, again, other = (target_of(MLP((6,)), select=("out.*",), seed=seed) for seed in (1, 1, 2))
    hidden = [target.network.state_dict()["hidden1.weight"] for target in (one, again, other)]
    assert torch.equal(hidden[0], hidden[1]) and not torch.equal(hidden[0], hidden[2])
    weights, (features, texts) = one.init(3, rng()), inputs()
    assert not torch.equal(one.logits(weights, features, texts), other.logits(weights, features, texts))


def test_an_axis_that_a_frozen_tensor_has_is_not_free() -> None:
    assert set(target_of(MLP((6, 4))).spec.free) == {"hidden1", "hidden2"}
    assert target_of(MLP((6, 4)), select=("out.*",)).spec.free == ()
    assert target_of(MLP((6, 4)), select=("*", "-hidden1.*")).spec.free == ("hidden2",)
    assert target_of(MLP((6, 4)), select=("*", "-out.bias")).spec.free == ("hidden1", "hidden2")


def test_weights_of_a_file_stay_where_nothing_is_selected_and_are_a_start_elsewhere(tmp_path: Path) -> None:
    state = MLP((6,)).build((PIXELS,), TEXTS).state_dict()
    save_file(state, tmp_path / "whole.safetensors")
    target = target_of(MLP((6,)), select=("out.*",), file=tmp_path / "whole.safetensors")
    assert torch.equal(target.network.state_dict()["hidden1.weight"], state["hidden1.weight"])
    assert all(torch.equal(row, target.spec.flatten(state)) for row in target.init(2, rng()))
    save_file({**state, "out.weight": torch.ones(9, 6)}, tmp_path / "classes.safetensors")
    target = target_of(MLP((6,)), file=tmp_path / "classes.safetensors")  # a classifier of another size is drawn
    first, second = (target.spec.unflatten(row) for row in target.init(2, rng()))
    assert torch.equal(first["hidden1.weight"], state["hidden1.weight"])
    assert torch.equal(first["out.bias"], state["out.bias"])
    assert not torch.equal(first["out.weight"], second["out.weight"])


def test_fresh_networks_are_what_the_architecture_makes() -> None:
    target = target_of(CNN((4, 6)))
    weights = target.init(3, rng(5))
    assert torch.equal(weights, target.init(3, rng(5))) and not torch.equal(weights[0], weights[1])
    tensors = target.spec.unflatten(weights)
    assert tensors["norm1.weight"].eq(1).all() and tensors["norm2.running_mean"].eq(0).all()
    assert 0.9 * 27**-0.5 < tensors["conv1.weight"].abs().max() <= 27**-0.5  # torch's own bound


# ---------------------------------------------------------------- symmetry and tokens


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_found_free_is_proven(name: str) -> None:
    target = target_of(ARCHITECTURES[name]())
    assert target.spec.free
    prove(Units(spec=target.spec), target, "permutation", (PIXELS, TEXTS), rng())


BY_HAND = {
    "hidden1.weight": ("unit", str(PIXELS)),
    "hidden1.bias": ("unit",),
    "out.weight": (str(TEXTS), "unit"),
    "out.bias": (str(TEXTS),),
}


def test_axes_by_hand_are_taken_and_proven() -> None:
    target = target_of(Given(lambda: MLP((6,)).build((PIXELS,), TEXTS), BY_HAND))
    assert target.spec.free == ("unit",)
    prove(Units(spec=target.spec), target, "permutation", (PIXELS, TEXTS), rng())
    wrong = target_of(Given(lambda: MLP((6,)).build((PIXELS,), TEXTS), BY_HAND | {"hidden1.bias": ("6",)}))
    said = said_by(lambda: prove(Units(spec=wrong.spec), wrong, "permutation", (PIXELS, TEXTS), rng()))
    assert said.endswith("the target's spec is wrong about tensor 'hidden1.bias': axis 'unit' is its dimension 0")


def test_axes_of_a_file_are_taken(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        f"tensors:\n  hidden1.weight: [unit, {PIXELS}]\n  hidden1.bias: [unit]\n"
        f"  out.weight: [{TEXTS}, unit]\n  out.bias: [{TEXTS}]\nfree: [unit]\n"
    )
    target = target_of(MLP((6,)), spec=tmp_path / "spec.yaml")
    assert target.spec.free == ("unit",) and target.spec.entries[2].axes == (str(TEXTS), "unit")


def test_units_that_a_buffer_holds_in_place_are_said() -> None:
    class Masked(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2))
            self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf, -torch.inf]))

        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[1](self[0](x) + self.mask))

    target = of_module(Masked)
    note = "units of layer0 stay in place: so do those of mask, not generated"
    assert target.spec.free == () and note in target.notes


def test_a_module_that_cannot_be_traced_is_a_target_without_symmetry() -> None:
    class Hesitant(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if float(self.weight.sum()) > 0 else -super().forward(x)

    target = of_module(lambda: Hesitant(3, 2))
    assert target.spec.free == () and [entry.axes for entry in target.spec.entries] == [("2", "3"), ("2",)]
    (note,) = target.notes
    assert note.startswith(
        "target 'module': none of its units is permuted: Hesitant cannot be traced: what it does depends on"
    )
    with pytest.raises(UserError) as caught:
        Units(spec=target.spec)
    assert str(caught.value) == f"symmetry 'permutation': no axis to act on; free axes: none ({note})"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_chunks_of_any_module_come_back(name: str) -> None:
    target = target_of(ARCHITECTURES[name]())
    weights, tokenizer = trained_weights(target, 4), Chunk(32, "centered", spec=target.spec)
    tokenizer.fit(weights)
    torch.testing.assert_close(tokenizer.detokenize(tokenizer.tokenize(weights)), weights)


def test_a_hidden_layer_is_a_token_for_each_unit() -> None:
    tokenizer = Neuron("hidden1", spec=target_of(MLP((6,), norm="batch")).spec)
    assert tokenizer.layout.units == 6 and tokenizer.layout.width == PIXELS + 1 + 4 + TEXTS


def test_units_within_a_longer_dimension_are_no_tokens() -> None:
    class Flat(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * SIDE**2, TEXTS))

    class OnPictures(Given):
        sees = "pictures"

    target = target_of(OnPictures(Flat))
    (axis,) = target.spec.free
    text = next(entry for entry in target.spec.entries if entry.name == "3.weight").axes[1]
    assert said_by(lambda: Neuron(axis, spec=target.spec)) == (
        f"tokenizer 'neuron': axis {axis!r} is only a part of a dimension of '3.weight', {text!r}, so that its units are no "
        "tokens: use the tokenizer 'chunk', or another axis"
    )


# ---------------------------------------------------------------- bad input


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    assert said_by(lambda: target_of(MLP((6,)), select=("outt.*",))) == (
        "target 'module': select: no tensor is called 'outt.*': did you mean out.bias or out.weight?"
    )
    assert said_by(lambda: target_of(MLP((6,)), select=("*", "-outt.*"))).startswith(
        "target 'module': select: no tensor is called 'outt.*'"
    )
    assert said_by(lambda: target_of(MLP((6,)), select=("out.*", "-out.*"))) == (
        "target 'module': select leaves nothing to generate"
    )
    assert said_by(lambda: Module(CNN((4,)), feature_dim=20, text_dim=5)) == (
        "target 'module': features of width 20 are no pictures: use `backbone: pixels`, or an architecture that sees features"
    )
    assert said_by(lambda: of_module(lambda: nn.Linear(3, 4))) == (
        "target 'module': this architecture gives (2, 4) for two images, where (2, 2) was asked for"
    )
    assert said_by(lambda: of_module(lambda: nn.Linear(4, 2))).startswith(
        "target 'module': this architecture fails on images of 3: RuntimeError: "
    )
    short = {name: axes for name, axes in BY_HAND.items() if name != "out.bias"}
    assert said_by(lambda: target_of(Given(lambda: MLP((6,)).build((PIXELS,), TEXTS), short))) == (
        "target 'module': this architecture says of its axes: tensor 'out.bias' is missing; write [5] if nothing of "
        "it moves"
    )
    more = BY_HAND | {"out.bais": ("5",)}
    assert said_by(lambda: target_of(Given(lambda: MLP((6,)).build((PIXELS,), TEXTS), more))) == (
        "target 'module': this architecture says of its axes: the network has no tensor 'out.bais': did you mean out.bias, "
        "out.weight or hidden1.bias?"
    )
    assert said_by(lambda: of_module(lambda: nn.Sequential(nn.Linear(3, 2), nn.Softmax(0)))) == (
        "target 'module': this architecture mixes the images of a batch, in evaluation mode too"
    )
    assert said_by(lambda: of_module(lambda: nn.Linear(3, 2).double())) == (
        "target 'module': weight is float64, and weights are generated in float32: make it float32"
    )
    save_file({"hidden1.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    assert said_by(lambda: target_of(MLP((6,)), file=tmp_path / "other.safetensors")) == (
        f"{tmp_path}/other.safetensors: none of its tensors fits this architecture"
    )
    save_file({f"{run}.out.bias": torch.ones(TEXTS) for run in ("ema", "model")}, tmp_path / "two.safetensors")
    assert said_by(lambda: target_of(MLP((6,)), file=tmp_path / "two.safetensors")).endswith(
        "none of its tensors fits this architecture: it holds ema.out.bias, model.out.bias, where hidden1.weight, "
        "hidden1.bias, out.weight and 1 more are looked for"
    )
    assert said_by(lambda: target_of(MLP((6,)), select=("out.*",), file=tmp_path / "other.safetensors")) == (
        f"{tmp_path}/other.safetensors: its tensors do not fit this architecture (the first that does not: hidden1.weight)"
    )


# ---------------------------------------------------------------- buffers, ties, number formats


class Standardised(nn.Module):
    """An MLP that standardises its inputs and masks a unit, by buffers that no training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]))
        self.register_buffer("std", torch.tensor([2.0, 3.0, 4.0]))
        self.register_buffer("mask", torch.tensor([0.0, 0.0, float("-inf"), 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.hidden((x - self.mean) / self.std))
        return self.out(functional.softmax(hidden + self.mask, -1))


class Frozen(nn.Module):
    """A batch norm as torchvision freezes it: four buffers."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) * self.running_var.rsqrt() * self.weight + self.bias


def around(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), *middle, nn.Linear(4, 2))


def generated(target: Module) -> list[str]:
    return [entry.name for entry in target.spec.entries]


BUFFERS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "input mean and a mask": (Standardised, ["mean", "std", "mask"]),
    "frozen batch norm": (lambda: around(Frozen()), ["1.weight", "1.bias", "1.running_mean", "1.running_var"]),
    "instance norm": (
        lambda: around(
            nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten()
        ),
        ["2.running_mean", "2.running_var"],
    ),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 2)),
        ["0.weight_u", "0.weight_v"],
    ),
    "parametrised spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 2)),
        ["0.parametrizations.weight.0._u", "0.parametrizations.weight.0._v"],
    ),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_that_is_no_statistic_of_batch_norm_stays_as_it_is_and_is_in_the_file(name: str) -> None:
    make, buffers = BUFFERS[name]
    target = of_module(make)
    before = {name: tensor.clone() for name, tensor in target.network.state_dict().items()}
    assert not set(buffers) & set(generated(target)) and set(buffers) <= set(target.spec.aside)
    weights = trained_weights(target, 2)
    target.logits(weights, torch.randn(2, 5, 3), torch.eye(2).expand(2, -1, -1))
    exported = target.exported(weights[0])
    assert set(exported) == set(before)
    assert all(same(exported[buffer], before[buffer]) for buffer in buffers)
    if target.spec.free:
        prove(Units(spec=target.spec), target, "permutation", (3, 2), rng())


def test_a_buffer_is_generated_where_a_glob_matches_buffers_alone() -> None:
    assert generated(of_module(Standardised, select=("hidden.*", "std"))) == ["std", "hidden.weight", "hidden.bias"]
    assert generated(of_module(lambda: around(Frozen()), select=("1.*",))) == BUFFERS["frozen batch norm"][1]
    assert "norm.running_mean" in generated(of_module(Standardised)) and "mean" not in generated(
        of_module(Standardised, select=("*m*",))
    )


def test_values_that_are_not_finite_are_not_generated() -> None:
    assert said_by(lambda: of_module(Standardised, select=("*", "mask"))) == (
        "target 'module': mask holds values that are not finite numbers: leave it out, by '-mask' in select"
    )


class Views(nn.Module):
    """Two layers, the second's weight a view of the first's; or another tensor that follows from it."""

    def __init__(self, view: Callable[[Tensor], Tensor], wide: int = 3):
        super().__init__()
        self.first, self.second = nn.Linear(3, wide, bias=False), nn.Linear(wide, 3, bias=False)
        self.out = nn.Linear(3, 2)
        self.second.weight = nn.Parameter(view(self.first.weight.data))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(torch.tanh(self.first(x))))


def test_parameters_that_are_one_view_of_one_memory_are_tied() -> None:
    target = of_module(lambda: Views(lambda weight: weight))
    assert generated(target) == ["first.weight", "out.weight", "out.bias"]
    weights, features = trained_weights(target, 2), torch.randn(2, 5, 3, generator=rng(2))
    cosines = target.logits(weights, features, torch.eye(2).expand(2, -1, -1)) / target.temperature
    module = Views(lambda weight: weight)
    module.load_state_dict(target.exported(weights[1]))
    torch.testing.assert_close(cosines[1], functional.normalize(module(features[1]), dim=1), rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("view", "wide"),
    [(lambda weight: weight.T, 3), (lambda weight: weight.T, 4), (lambda weight: weight.view(3, 4), 4)],
)
def test_other_views_of_one_memory_are_refused(view: Callable[[Tensor], Tensor], wide: int) -> None:
    assert said_by(lambda: of_module(lambda: Views(view, wide))) == (
        "target 'module': second.weight shares memory with first.weight, as another view: make them one parameter, or give "
        "each value memory of its own (clone)"
    )


def test_a_part_of_another_tensor_and_a_value_repeated_are_refused() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(3, 2)
            self.register_buffer("first", self.lin.weight.data[0], persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(x) + x @ self.first[:, None]

    assert said_by(lambda: of_module(Part)).startswith("target 'module': first shares memory with lin.weight, ")

    def repeated() -> nn.Module:
        module = nn.Linear(3, 2)
        module.bias = nn.Parameter(torch.zeros(1).expand(2))
        return module

    assert said_by(lambda: of_module(repeated)).startswith("target 'module': bias has several values in one place: ")


def test_parameters_cut_out_of_one_vector_are_each_their_own() -> None:
    def flat() -> nn.Module:
        module, start = around(nn.ReLU()), 0
        vector = torch.randn(sum(p.numel() for p in module.parameters()))
        for parameter in module.parameters():
            parameter.data = vector[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        return module

    assert generated(of_module(flat)) == ["0.weight", "0.bias", "2.weight", "2.bias"]

    def interleaved() -> nn.Module:
        module, both = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), torch.randn(3, 6)
        module[0].weight, module[1].weight = nn.Parameter(both[:, ::2]), nn.Parameter(both[:2, 1::2])
        return module

    assert len(generated(of_module(interleaved))) == 4


def test_what_follows_from_a_weight_and_is_no_buffer_is_refused() -> None:
    class Held(nn.Linear):
        """A list has the parameter too, and forward reads the list."""

        def __init__(self) -> None:
            super().__init__(3, 2)
            self.held = [self.weight]

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.held[0], self.bias)

    class Once(nn.Linear):
        """What follows from the weight is computed at the first call."""

        def __init__(self) -> None:
            super().__init__(3, 2)
            self.first: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.first = self.weight / self.weight.norm() if self.first is None else self.first
            return functional.linear(x, self.first, self.bias)

    for make in (Held, Once):
        assert said_by(lambda make=make: of_module(make)).startswith(
            "target 'module': with generated weights this architecture computes something else than with a file of them: "
        )


class Rotated(nn.Module):
    """Turns hidden units by angles in the complex plane."""

    def __init__(self, trained: bool):
        super().__init__()
        self.there, self.back = nn.Linear(3, 4), nn.Linear(4, 2)
        if trained:
            self.turn = nn.Parameter(ANGLES.clone())
        else:
            self.register_buffer("turn", ANGLES.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.back((self.there(x) * self.turn).real)


ANGLES = torch.polar(torch.ones(4), torch.arange(4.0))


def test_complex_and_whole_parameters_are_not_generated() -> None:
    assert said_by(lambda: of_module(lambda: Rotated(True))) == (
        "target 'module': turn is complex64, and weights are generated in float32: leave it out, by '-turn' in select"
    )

    def packed() -> nn.Module:
        module = nn.Linear(3, 2)
        module.codes = nn.Parameter(torch.zeros(4, dtype=torch.int8), requires_grad=False)
        return module

    assert said_by(lambda: of_module(packed)).startswith(
        "target 'module': codes is int8, and weights are generated in "
    )


@pytest.mark.parametrize("trained", [True, False])
def test_complex_numbers_that_are_not_generated_stay_complex(trained: bool) -> None:
    target = of_module(lambda: Rotated(trained), select=("*", "-turn") if trained else ("*",))
    weights, features = trained_weights(target, 2), torch.randn(2, 5, 3)
    texts = torch.eye(2).expand(2, -1, -1)
    target.logits(weights.double(), features.double(), texts.double())
    logits = target.logits(weights, features, texts)
    module = Rotated(trained)
    module.load_state_dict(target.exported(weights[1]))
    torch.testing.assert_close(logits[1], target.temperature * functional.normalize(module(features[1]), dim=1))
    assert same(target.exported(weights[1])["turn"], ANGLES)


@pytest.mark.parametrize("dtypes", [(torch.float16,) * 2, (torch.bfloat16,) * 2, (torch.float32, torch.float16)])
def test_half_precision_is_computed_in_float32_and_kept_in_files(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    target = of_module(lambda: nn.Sequential(nn.Linear(3, 4).to(dtypes[0]), nn.ReLU(), nn.Linear(4, 2).to(dtypes[1])))
    weights, features = trained_weights(target, 2), torch.randn(2, 5, 3)
    logits = target.logits(weights, features, torch.eye(2).expand(2, -1, -1))
    exported = target.exported(weights[1])
    assert [tensor.dtype for tensor in exported.values()] == [dtypes[0]] * 2 + [dtypes[1]] * 2
    module = around(nn.ReLU())
    module.load_state_dict(exported)
    expected = target.temperature * functional.normalize(module(features[1]), dim=1)
    torch.testing.assert_close(logits[1], expected, rtol=0.05, atol=0.2)
    assert target.spec.free == ("layer0",)


def test_a_module_that_insists_on_half_precision_is_refused_and_one_whose_outputs_are_half_is_not() -> None:
    class Insists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.there, self.back = nn.Linear(3, 4).bfloat16(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.back(self.there(x.bfloat16()).float())

    assert said_by(lambda: of_module(Insists)).startswith(
        "target 'module': there.weight is bfloat16, and in float32 this architecture fails on images of 3: RuntimeError: "
    )

    class Ends(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).half()

    for end, expected in (
        (torch.Tensor.log, "this architecture gives values that are not finite numbers"),
        (torch.Tensor.long, "this architecture gives int64 numbers, where real ones were asked for"),
    ):

        class Other(nn.Linear):
            def forward(self, x: Tensor, end: Callable[[Tensor], Tensor] = end) -> Tensor:
                return end(-super().forward(x).abs())

        assert said_by(lambda other=Other: of_module(lambda: other(3, 2))) == f"target 'module': {expected}"
    target = of_module(lambda: Ends(3, 2))
    logits = target.logits(target.init(2, rng()), torch.randn(2, 5, 3), torch.eye(2).expand(2, -1, -1))
    assert logits.dtype == torch.float32 and logits.isfinite().all()


# ---------------------------------------------------------------- modules that torch itself makes trouble of


def pruned() -> nn.Module:
    module = around(nn.ReLU())
    prune.l1_unstructured(module[0], "weight", 0.5)
    return module


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        pruned,
        lambda: Keeps(3, 2),
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)),
    ],
)
def test_modules_that_cannot_be_deep_copied_are_targets(make: Callable[[], nn.Module]) -> None:
    target = of_module(make)
    weights, features = trained_weights(target, 2), torch.randn(2, 5, 3)
    logits = target.logits(weights, features, torch.eye(2).expand(2, -1, -1))
    module = make()
    module.load_state_dict(target.exported(weights[1]))
    torch.testing.assert_close(logits[1], target.temperature * functional.normalize(module(features[1]), dim=1))


class Remembers(nn.Linear):
    """An extra state of any kind."""

    def __init__(self, extra: object):
        super().__init__(3, 2)
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def test_an_extra_state_is_in_the_file_if_it_is_a_tensor_and_is_noted_if_it_is_not(tmp_path: Path) -> None:
    target = of_module(lambda: Remembers(torch.tensor([1.5])))
    exported = target.exported(target.init(1, rng())[0])
    Remembers(torch.zeros(1)).load_state_dict(exported)
    assert exported["_extra_state"].tolist() == [1.5] and target.notes == ()
    save_file({**exported, "_extra_state": torch.tensor([2.5])}, tmp_path / "file.safetensors")
    target = of_module(lambda: Remembers(torch.tensor([1.5])), file=tmp_path / "file.safetensors")
    assert target.exported(target.init(1, rng())[0])["_extra_state"].tolist() == [2.5]
    target = of_module(lambda: Remembers({"scale": 1}))
    assert set(target.exported(target.init(1, rng())[0])) == {"weight", "bias"}
    assert target.notes == (
        "target 'module': _extra_state is no tensor, and is not in the files of networks: load them with strict=False",
    )


@pytest.mark.filterwarnings("ignore")  # of torch, that all this is old
def test_weights_that_are_not_there_or_are_no_real_numbers_are_one_sentence() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(around(nn.ReLU()))
    for make, expected in (
        (
            lambda: nn.LazyLinear(2),
            "weight is lazy and has no shape yet: call the module once before, or give its sizes",
        ),
        (lambda: nn.Linear(3, 2, device="meta"), "weight is on the device meta and has no values: make it on the CPU"),
        (
            lambda: quantized,
            "0._packed_params.dtype is of a quantized layer, and its weights are no real numbers: quantize it later",
        ),
        (
            lambda: torch.jit.script(around(nn.ReLU())),
            "this architecture is a scripted module, whose weights stay: give the module itself",
        ),
    ):
        assert said_by(lambda make=make: of_module(make)) == f"target 'module': {expected}"


# ---------------------------------------------------------------- checkpoints of something else


def test_a_checkpoint_of_a_deeper_network_is_refused_and_what_it_lacks_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file(MLP((6, 6)).build((PIXELS,), TEXTS).state_dict(), file)
    assert said_by(lambda: target_of(MLP((6,)), file=file)) == (
        f"{file}: holds tensors that this architecture has not: hidden2.bias, hidden2.weight"
    )
    state = MLP((6,)).build((PIXELS,), TEXTS).state_dict()
    save_file({**state, "out.weight": torch.ones(9, 6), "head.weight": torch.ones(2, 6)}, file)
    assert target_of(MLP((6,)), file=file).notes == (
        f"target 'module': {file} does not have these in this shape, and they start as the architecture makes them: out.weight",
    )
    torch.save({**state, "out.weight": state["out.weight"].to(torch.complex64)}, tmp_path / "file.pt")
    assert said_by(lambda: target_of(MLP((6,)), file=tmp_path / "file.pt")) == (
        f"{tmp_path}/file.pt: out.weight is complex64, where the network has float32"
    )
