"""Permutations inferred by tracing: against specs of the literature, and proven on what they are said of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.support.stand_ins import Units
from wspace.interfaces.axes import names_in
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import FileError, UserError
from wspace.support.progress import Bar, Progress
from wspace.weights.tracing import module_proof
from wspace.weights.tracing.infer import Inferred, infer, weights_of
from wspace.weights.tracing.module_proof import module_error, prove_module
from wspace.weights.tracing.spec_file import read_spec, spec_text, write_spec

ERROR = 1e-5  # relative, float32
PICTURES, SMALL, ROWS = (2, 3, 32, 32), (2, 3, 8, 8), (2, 4)


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module | nn.Parameter):
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.GELU(), nn.Linear(6, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 10), nn.ReLU(), nn.Linear(10, 4),
    )  # fmt: skip


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", depth=2, img_size=32, patch_size=8, embed_dim=48, num_heads=3, num_classes=5
    )


def gated() -> nn.Module:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        left, right = net.a(x).chunk(2, -1)
        return net.b(functional.silu(left) * right)

    return Net(forward, a=nn.Linear(4, 12), b=nn.Linear(6, 2))


def tied() -> nn.Module:
    net = Net(lambda net, x: net.o(net.g(net.h(net.e(x)).relu())), e=nn.Linear(4, 6, bias=False), h=nn.Linear(6, 8),
              g=nn.Linear(8, 6), o=nn.Linear(6, 4, bias=False))  # fmt: skip
    net.o.weight = nn.Parameter(net.e.weight.T.contiguous().detach())
    net.h.weight = net.g.weight = nn.Parameter(torch.randn(6, 6))
    net.h.bias = net.g.bias = nn.Parameter(torch.randn(6))
    return net


def unknown() -> nn.Module:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.c(torch.linalg.matrix_exp(net.b(net.a(x).relu()).unflatten(1, (3, 3))).flatten(1))

    return Net(forward, a=nn.Linear(4, 5), b=nn.Linear(5, 9), c=nn.Linear(9, 2))


def grouped_queries() -> nn.Module:
    """Two heads of keys for four of queries."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x[:, None]).unflatten(2, (-1, 5)).transpose(1, 2) for layer in (net.q, net.k, net.v))
        found = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return net.o(found.transpose(1, 2).flatten(2))

    return Net(forward, q=nn.Linear(4, 20), k=nn.Linear(4, 10), v=nn.Linear(4, 10), o=nn.Linear(20, 2))


def rolled() -> nn.Module:
    return Net(lambda net, x: net.b((h := net.a(x).relu()) + h.roll(1, 1)), a=nn.Linear(4, 6), b=nn.Linear(6, 2))


def head_by_head() -> nn.Module:
    """Every head against every other: their dimensions cannot differ."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        q = net.a(x).unflatten(1, (3, 4))
        return net.b((q @ q.mT).flatten(1))

    return Net(forward, a=nn.Linear(4, 12), b=nn.Linear(9, 2))


def joined() -> nn.Module:
    return Net(lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x)], 1)), a=nn.Linear(4, 5), b=nn.Linear(4, 6),
               c=nn.Linear(11, 2))  # fmt: skip


def between(middle: nn.Module, channels: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 1), middle, nn.ReLU(), nn.Conv2d(out, 2, 1))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # with how many free axes there are
    "mlp": (mlp, ROWS, 2),
    "cnn": (cnn, SMALL, 3),
    "resnet18": (lambda: timm.create_model("resnet18", num_classes=5), PICTURES, 12),
    "vit": (vit, PICTURES, 9),
    "depthwise": (lambda: between(nn.Conv2d(8, 8, 3, groups=8), 8, 8), SMALL, 1),
    "depthwise, two each": (lambda: between(nn.Conv2d(8, 16, 3, groups=8), 8, 16), SMALL, 2),
    "grouped": (lambda: between(nn.Conv2d(8, 12, 3, groups=4), 8, 12), SMALL, 2),
    "grouped, transposed": (lambda: between(nn.ConvTranspose2d(8, 12, 3, groups=4), 8, 12), SMALL, 2),
    "group norm": (lambda: between(nn.GroupNorm(4, 8), 8, 8), SMALL, 2),
    "shuffled channels": (lambda: between(nn.ChannelShuffle(3), 12, 12), SMALL, 1),
    "gated": (gated, ROWS, 1),
    "joined": (joined, ROWS, 2),
    "tied": (tied, ROWS, 1),
    "unknown": (unknown, ROWS, 1),
    "grouped queries": (grouped_queries, ROWS, 1),
    "rolled": (rolled, ROWS, 0),
    "head by head": (head_by_head, ROWS, 0),
    "torch's own attention": (lambda: nn.TransformerEncoderLayer(12, 3, 16, batch_first=True), (2, 4, 12), 4),
}


@pytest.fixture(scope="module")
def nets() -> dict[str, tuple[nn.Module, Tensor, Inferred]]:
    torch.manual_seed(0)
    made = {name: (make(), torch.zeros(shape)) for name, (make, shape, _) in NETS.items()}
    return {name: (net, x, infer(net, x)) for name, (net, x) in made.items()}


Nets = Mapping[str, tuple[nn.Module, Tensor, Inferred]]
each = pytest.mark.parametrize("name", NETS)


# ---------------------------------------------------------------- which axes there are


def test_the_axes_of_an_mlp(nets: Nets) -> None:
    assert nets["mlp"][2] == Inferred(
        {
            "0.weight": ("layer0", "4"), "0.bias": ("layer0",),
            "2.weight": ("layer2", "layer0"), "2.bias": ("layer2",),
            "4.weight": ("3", "layer2"), "4.bias": ("3",),
        },
        ("layer0", "layer2"),
    )  # fmt: skip


def test_the_axes_of_a_cnn_with_batch_norm_and_a_flattened_layer(nets: Nets) -> None:
    axes = nets["cnn"][2].axes
    assert [axes[f"1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")] == [("layer0",)] * 4
    assert axes["4.weight"] == ("layer4", "layer0", "3", "3")
    assert axes["7.weight"] == ("layer7", "layer4/16")
    assert axes["9.weight"] == ("4", "layer7")


def git_re_basin_resnet18() -> dict[str, tuple[str, ...]]:
    """As Ainsworth et al. (2022, appendix A.3, and their code) have it: each stage's stream, each block's inner channels."""
    axes = {"fc.weight": ("5", "P4"), "fc.bias": ("5",)}

    def conv(name: str, norm: str, out: str, source: str, size: int) -> None:
        axes[f"{name}.weight"] = (out, source, str(size), str(size))
        axes.update({f"{norm}.{part}": (out,) for part in ("weight", "bias", "running_mean", "running_var")})

    conv("conv1", "bn1", "P1", "3", 7)
    for stage, before in enumerate(("P1", "P1", "P2", "P3"), start=1):
        for block, source in enumerate((before, f"P{stage}")):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1", f"{name}.bn1", f"{name}.inner", source, 3)
            conv(f"{name}.conv2", f"{name}.bn2", f"P{stage}", f"{name}.inner", 3)
        if stage > 1:
            conv(f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1", f"P{stage}", before, 1)
    return axes


def groups(axes: Mapping[str, tuple[str, ...]]) -> set[frozenset[tuple[str, int, str]]]:
    """Which dimensions are one axis, whatever it is called; and those that stay, with their lengths."""
    found: dict[str, set[tuple[str, int, str]]] = {}
    for name, dims in axes.items():
        for dim, text in enumerate(dims):
            found.setdefault(text, set()).add((name, dim, text if text.isdigit() else ""))
    return {frozenset(group) for group in found.values()}


def test_resnet18_has_the_groups_of_the_literature(nets: Nets) -> None:
    assert groups(nets["resnet18"][2].axes) == groups(git_re_basin_resnet18())


def test_a_vit_has_a_stream_heads_dimensions_of_heads_and_hidden_units(nets: Nets) -> None:
    found = nets["vit"][2]
    blocks = [f"blocks.{n}.{axis}" for n in range(2) for axis in ("attn.heads", "attn.qk", "attn.v", "mlp.fc1")]
    assert found.free == ("patch_embed.proj", *blocks)
    attn = "blocks.1.attn"
    packed = f"2*{attn}.heads[3]/{attn}.qk + {attn}.heads[3]/{attn}.v"
    assert found.axes["blocks.1.attn.qkv.weight"] == (packed, "patch_embed.proj")
    assert found.axes["blocks.1.attn.qkv.bias"] == (packed,)
    assert found.axes["blocks.1.attn.proj.weight"] == ("patch_embed.proj", f"{attn}.heads[3]/{attn}.v")
    assert found.axes["pos_embed"] == ("1", "17", "patch_embed.proj")
    spec = found.spec(nets["vit"][0])
    assert [spec.axis_size(axis) for axis in found.free[:5]] == [48, 3, 48, 48, 192]
    assert spec.outer(f"{attn}.qk") == f"{attn}.heads"


@pytest.mark.parametrize(
    ("name", "tensor", "axes"),
    [
        ("depthwise", "1.weight", ("layer0", "1", "3", "3")),
        ("depthwise, two each", "3.weight", ("2", "layer0/layer1", "1", "1")),
        ("grouped", "0.weight", ("layer0/2", "3", "1", "1")),  # which of a group's inputs a weight reads is its place
        ("grouped", "1.weight", ("layer0/layer1", "2", "3", "3")),
        ("grouped, transposed", "1.weight", ("layer0.groups/layer0", "3", "3", "3")),
        ("group norm", "1.bias", ("layer0.groups[4]/layer0",)),
        ("shuffled channels", "3.weight", ("2", "4*layer0", "1", "1")),
        ("gated", "a.weight", ("2*a", "4")),
        ("joined", "c.weight", ("2", "a + b")),
        ("grouped queries", "q.weight", ("q/10", "4")),
        ("grouped queries", "k.weight", ("q/5", "4")),
        ("tied", "h.weight", ("e", "e")),
    ],
)
def test_the_axes_of_other_layers(nets: Nets, name: str, tensor: str, axes: tuple[str, ...]) -> None:
    assert nets[name][2].axes[tensor] == axes


@each
def test_every_tensor_has_its_axes_and_no_more_are_free_than_are_known_to_be(nets: Nets, name: str) -> None:
    net, x, found = nets[name]
    assert len(found.free) == NETS[name][2]
    named = {axis for dims in found.axes.values() for text in dims for axis in names_in(text)}
    assert named == set(found.free)
    spec = found.spec(net)
    assert [(entry.name, entry.shape) for entry in spec.entries] == [
        (key, tuple(tensor.shape)) for key, tensor in weights_of(net).items()
    ]
    for entry in spec.entries:
        spec.layout(entry)  # every dimension is filled
    assert infer(net, x) == found  # again, by the same names


def test_what_is_not_understood_stays_and_is_said(nets: Nets) -> None:
    found = nets["unknown"][2]
    assert found.notes == (
        "operation aten.linalg_matrix_exp.default is not understood: the axes that it reads stay in place",
    )
    assert found.axes["b.weight"] == ("9", "a") and found.axes["c.weight"] == ("2", "9")
    assert all(not said.notes for name, (_, _, said) in nets.items() if name != "unknown")


ELEMENTWISE = {
    name: layer
    for name, layer in vars(nn.modules.activation).items()
    if isinstance(layer, type) and layer.__module__ == nn.modules.activation.__name__ and issubclass(layer, nn.Module)
    and name not in ("MultiheadAttention", "Softmax", "Softmin", "LogSoftmax", "Softmax2d", "GLU", "Threshold")
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_elementwise_layer_of_torch_keeps_units_apart(name: str) -> None:
    net = nn.Sequential(nn.Linear(4, 6), ELEMENTWISE[name](), nn.Linear(6, 2))
    found = infer(net, torch.zeros(ROWS))
    assert (found.free, found.notes) == (("layer0",), ())
    assert module_error(net, found, [torch.zeros(ROWS)], rng_of(0)) < ERROR


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_units_of_each_recurrent_layer_and_direction_are_an_axis(kind: type[nn.RNNBase]) -> None:
    """An LSTM is one operation on a CPU; what is left of the last states joins no layers."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        steps, states = net.over(x)
        states = states[0] if isinstance(states, tuple) else states
        return net.out(torch.cat([steps[:, -1], *states], 1))

    recurrent = kind(4, 6, num_layers=2, bidirectional=True, batch_first=True)
    net, x = Net(forward, over=recurrent, out=nn.Linear(36, 2)), torch.zeros(2, 5, 4)
    found = infer(net, x)
    assert (found.free, found.notes) == (("over", "over.1", "over.2", "over.3"), ())
    gates = {nn.RNN: "", nn.GRU: "3*", nn.LSTM: "4*"}[kind]
    assert found.axes["over.weight_hh_l0_reverse"] == (f"{gates}over.1", "over.1")
    assert found.axes["over.weight_ih_l1"] == (f"{gates}over.2", "over + over.1")
    assert found.axes["out.weight"] == ("2", "over.2 + over.3 + over + over.1 + over.2 + over.3")
    prove_module(net, found, [x], rng_of(0))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_an_lstm_without_biases_or_with_projected_states_has_its_axes() -> None:
    for options, axes in (({"bias": False}, 1), ({"proj_size": 3}, 2)):
        net = Net(lambda net, x: net.out(net.over(x)[0]), over=nn.LSTM(4, 6, **options), out=nn.Linear(9 - 3 * axes, 2))
        found = infer(net, torch.zeros(2, 5, 4))
        assert len(found.free) == axes and not found.notes
        prove_module(net, found, [torch.zeros(2, 5, 4)], rng_of(0))


@pytest.mark.parametrize("made", [
    weight_norm, spectral_norm, lambda layer: weight_norm(layer, dim=1), lambda layer: weight_norm(layer, dim=None),
], ids=["weight norm", "spectral norm", "weight norm of inputs", "weight norm of the whole"])  # fmt: skip
def test_parametrised_weights_keep_their_units(made: Callable[[nn.Module], nn.Module]) -> None:
    linear = nn.Sequential(made(nn.Linear(4, 6)), nn.ReLU(), made(nn.Linear(6, 5)), nn.Tanh(), made(nn.Linear(5, 2)))
    convolution = nn.Sequential(made(nn.Conv2d(3, 6, 3)), nn.ReLU(), made(nn.ConvTranspose2d(6, 2, 3)))
    for net, x, axes in ((linear, torch.zeros(ROWS), 2), (convolution, torch.zeros(SMALL), 1)):
        found = infer(net, x)
        assert len(found.free) == axes and not found.notes
        prove_module(net, found, [x], rng_of(0))


def test_a_softmax_over_outer_units_leaves_no_inner_ones_of_their_own() -> None:
    net = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 4)), nn.Softmax(1), nn.Flatten(), nn.Linear(12, 2))
    found = infer(net, torch.zeros(ROWS))
    assert found.axes["0.weight"] == ("layer0/4", "4") and found.axes["4.weight"] == ("2", "layer0/4")


@pytest.mark.parametrize("pool", [nn.AvgPool2d((1, 3), 1, (0, 1)), nn.MaxPool2d(3, 1, 1), nn.AdaptiveAvgPool2d((6, 3))])
def test_pixels_of_an_unbatched_picture_stay_in_place(pool: nn.Module) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.b(pool(net.a(x).view(4, 6, 6)).sum(2))

    net = Net(forward, a=nn.Linear(5, 144), b=nn.Linear(6, 2))
    assert infer(net, torch.zeros(5)).axes["b.weight"] == ("2", "6")


def test_what_an_operation_runs_by_a_condition_stays_and_is_said() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.b(torch.cond(x.sum() > 0, torch.sin, torch.cos, (net.a(x),)).relu())

    found = infer(Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2)), torch.zeros(ROWS))
    assert found.free == ()
    assert found.notes == ("operation cond is not understood: the axes that it reads stay in place",)


def test_tracing_leaves_the_module_as_it_was(nets: Nets) -> None:
    net = cnn().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    infer(net, torch.zeros(SMALL))
    module_error(net, nets["cnn"][2], [torch.zeros(SMALL)], rng_of(0))
    assert net.training and all(layer.training for layer in net)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


# ---------------------------------------------------------------- that they are right


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "resnet18" else name for name in NETS]
)
def test_moving_every_free_axis_changes_nothing(nets: Nets, name: str) -> None:
    net, x, found = nets[name]
    assert module_error(net, found, [x], rng_of(1)) < ERROR
    prove_module(net, found, [x], rng_of(2))


@pytest.mark.parametrize("name", ["cnn", "vit", "grouped", "shuffled channels"])
def test_they_are_a_group_and_move_weights(nets: Nets, name: str) -> None:
    net, _, found = nets[name]
    spec = found.spec(net)
    group = Units(spec=spec)
    weights = torch.randn(2, spec.size, generator=rng_of(0))
    g, h = group.sample(2, rng_of(1)), group.sample(2, rng_of(2))
    assert torch.equal(group.act(group.identity(2), weights), weights)
    assert torch.equal(group.act(group.inverse(g), group.act(g, weights)), weights)
    assert torch.equal(group.act(group.compose(g, h), weights), group.act(g, group.act(h, weights)))
    for part in group.parts():
        one = part.on(spec=spec)
        assert not torch.equal(one.act(one.sample(2, rng_of(3)), weights), weights)


@pytest.mark.parametrize(
    ("model", "digest"),
    [
        ("test_byobnet", "32f83f5512f89531"),
        ("test_efficientnet", "51ede9265b5e3f9e"),
        ("test_resnet", "39e0026571f333b5"),
        ("test_vit", "a8bcf651ddcb757c"),
    ],
)
def test_the_spec_file_of_a_model_is_the_same_byte_by_byte(model: str, digest: str) -> None:
    """As it was when it was last read line by line: another way to infer it may not give others."""
    network = timm.create_model(model)
    text = spec_text(infer(network, torch.zeros(2, *network.default_cfg["input_size"])))
    assert sha256(text.encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize(
    ("name", "tensor", "axes", "said"),
    [
        (
            "cnn",
            "1.running_var",
            ("8",),
            "axis 'layer0' (of 0.weight, 0.bias, 1.weight, 1.bias, 1.running_mean, 4.weight)",
        ),
        ("mlp", "2.bias", ("6",), "axis 'layer2' (of 2.weight, 4.weight)"),
        ("gated", "a.bias", ("a + 6",), "axis 'a' (of a.weight, a.bias, b.weight)"),
    ],
)
def test_a_wrong_spec_is_refused_with_its_axis_and_tensor(
    nets: Nets, name: str, tensor: str, axes: tuple[str, ...], said: str
) -> None:
    net, x, found = nets[name]
    wrong = replace(found, axes=found.axes | {tensor: axes})
    assert module_error(net, wrong, [x], rng_of(0)) > 1e-3
    with pytest.raises(UserError) as caught:
        prove_module(net, wrong, [x], rng_of(0))
    text = re.sub(r"by [\d.e+]+%", "by X%", str(caught.value))
    assert text.startswith(
        f"symmetry 'permutation': permuting {said} changes what {type(net).__name__} computes, by X% of the largest score"
    )
    if name != "gated":  # of which no whole dimension is right
        axis = found.axes[tensor][0]
        assert text.endswith(
            f"; the spec of {type(net).__name__} is wrong about tensor {tensor!r}: axis {axis!r} is its dimension 0"
        )


def refused(net: nn.Module, said: Inferred, x: Tensor, seed: int = 0) -> str:
    with pytest.raises(UserError) as caught:
        prove_module(net, said, [x], rng_of(seed))
    return re.sub(r"by [\d.e+]+%", "by X%", str(caught.value))


def relus(*layers: nn.Module) -> nn.Module:
    """With a ReLU after each, the last as well."""
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


EASILY_MISSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {  # with the tensor that is wrong
    "two units": (lambda: nn.Sequential(nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 3)), (2, 5), "0.bias"),
    "two channels": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3)), SMALL, "0.bias"),
    "dead units": (
        lambda: relus(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3), nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), nn.Linear(3, 1)),
        (1, 3, 8, 8),
        "0.bias",
    ),
    "statistics of batch norm": (lambda: between(nn.BatchNorm2d(2), 2, 2), SMALL, "1.running_mean"),
    "statistics of instance norm": (
        lambda: between(nn.InstanceNorm2d(2, affine=True, track_running_stats=True), 2, 2), SMALL, "1.running_mean",
    ),
    "two outputs, one large": (
        lambda: Net(lambda net, x: (1e6 + x.sum(1), net.b(net.a(x).relu())), a=nn.Linear(5, 8), b=nn.Linear(8, 3)),
        (2, 5),
        "a.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EASILY_MISSED)
def test_no_wrong_spec_is_proven_with_any_seed(name: str, thorough: bool) -> None:
    make, shape, tensor = EASILY_MISSED[name]
    torch.manual_seed(0)
    net, x = make(), torch.zeros(shape)
    right = infer(net, x)
    wrong = replace(right, axes=right.axes | {tensor: (str(len(weights_of(net)[tensor])),)})
    assert prove_module(net, right, [x], rng_of(0)) < ERROR
    for seed in range(15 if thorough else 4):
        assert f"wrong about tensor {tensor!r}: axis " in refused(net, wrong, x, seed)


@pytest.mark.parametrize("units", [2, 3, 4, 5, 16, 17])
def test_a_unit_with_a_place_of_its_own_is_seen_however_few_elements_are_tried(units: int, thorough: bool) -> None:
    first = 1 + torch.eye(units)[0]  # which unit 0 alone is multiplied by

    net, x = (
        Net(lambda net, x: net.b(net.a(x) * first.to(x.dtype)), a=nn.Linear(5, units), b=nn.Linear(units, 3)),
        torch.zeros(2, 5),
    )
    wrong = Inferred({"a.weight": ("a", "5"), "a.bias": ("a",), "b.weight": ("3", "a"), "b.bias": ("3",)}, ("a",))
    for seed in range(30 if thorough else 5):
        assert "what Net computes, by X%" in refused(net, wrong, x, seed)


@pytest.mark.parametrize(("units", "elements"), [(2, 4), (3, 3), (4, 2), (15, 2), (16, 1), (300, 1)])
def test_the_shortest_axis_decides_how_many_elements_are_tried(units: int, elements: int) -> None:
    assert module_proof._elements(WeightSpec((WeightEntry("a", (units, 64), ("a", "b")),), ("a", "b"))) == elements
    within = WeightSpec((WeightEntry("a", (4 * units,), ("heads[4]/keys",)),), ("keys",))
    assert module_proof._elements(within) == elements


def test_the_time_that_a_proof_takes_is_known_from_its_first_element_on() -> None:
    done = list[int]()

    class Counted(Bar):
        def advance(self, amount: int = 1) -> None:
            super().advance(amount)
            done.append(self.done)

    class Shown(Progress):
        @contextmanager
        def bar(self, name: str, total: int) -> Iterator[Bar]:
            yield Counted(name, total)

    net, x = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)), torch.zeros(2, 5)
    prove_module(net, infer(net, x), [x], rng_of(0), Shown())
    assert [*dict.fromkeys(done)] == [*range(1, 13)]


def test_an_axis_on_which_no_output_depends_is_not_proven() -> None:
    net, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), nn.Softmax(-1)), torch.zeros(3, 5)
    assert refused(net, infer(net, x), x) == (
        "symmetry 'permutation': nothing is proven of axis 'layer0' (of 0.weight, 0.bias, 2.weight): what Sequential "
        "computes does not depend on it, with any random weights and inputs that were tried"
    )


def test_a_right_spec_is_not_refused_for_the_rounding_of_float32() -> None:
    torch.manual_seed(3)  # of many seeds one whose network rounds much
    x = torch.zeros(2, 4)
    deep = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(6, 6), Net(lambda _, x: torch.sin(40 * x)))))
    net = nn.Sequential(nn.Linear(4, 6), *deep, nn.Linear(6, 2))
    said = infer(net, x)
    assert module_error(net, said, [x], rng_of(0)) > 1e-3
    assert prove_module(net, said, [x], rng_of(0)) < 1e-9
    wrong = replace(said, axes=said.axes | {"0.bias": ("6",)})
    assert refused(net, wrong, x).endswith("wrong about tensor '0.bias': axis 'layer0' is its dimension 0")


def test_a_module_that_rounds_to_float32_within_is_decided_in_float64_all_the_same() -> None:
    def upcast(net: nn.Module, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return torch.sin(10 * net.size * normed.type_as(x))

    def norm() -> nn.Module:
        return Net(upcast, size=nn.Parameter(torch.ones(64)))

    torch.manual_seed(0)
    layers = (part for _ in range(4) for part in (nn.Linear(64, 64), norm()))
    net, x = nn.Sequential(nn.Linear(4, 64), *layers, nn.Linear(64, 2)), torch.zeros(2, 4)
    assert prove_module(net, infer(net, x), [x], rng_of(0)) < 1e-9


@pytest.mark.parametrize("within", [torch.float16, torch.float64])
def test_a_module_of_two_precisions_is_proven(within: torch.dtype) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.b(net.a(x).relu().to(within)).float()

    net, x = Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2).to(within)), torch.zeros(2, 4)
    said = infer(net, x)
    assert said.free == ("a",)
    assert prove_module(net, said, [x], rng_of(0)) < ERROR


@pytest.mark.parametrize("size", [1e-3, 1e-5, 1e-7])
def test_an_axis_that_matters_little_is_proven_or_refused_as_another_is(size: float) -> None:
    net = Net(
        lambda net, x: net.c(x) + size * net.b(net.a(x).relu()), a=nn.Linear(5, 6), b=nn.Linear(6, 2), c=nn.Linear(5, 2)
    )
    x = torch.zeros(2, 5)
    said = infer(net, x)
    assert prove_module(net, said, [x], rng_of(0)) < ERROR
    wrong = replace(said, axes=said.axes | {"a.bias": ("6",)})
    assert refused(net, wrong, x).endswith("wrong about tensor 'a.bias': axis 'a' is its dimension 0")


def test_a_loss_is_an_output_like_another() -> None:
    net = Net(lambda net, x: {"loss": net.b(net.a(x).relu()).sum()}, a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    x = torch.zeros(2, 5)
    said = infer(net, x)
    assert said.free == ("a", "b")
    assert prove_module(net, said, [x], rng_of(0)) < ERROR
    refused(net, replace(said, axes=said.axes | {"a.bias": ("6",)}), x)


def test_axes_that_cannot_be_those_of_the_module_are_refused_in_a_sentence(nets: Nets) -> None:
    net, x, said = nets["mlp"]
    for changed, text in (
        ({"axes": said.axes | {"nosuch": ("4",)}}, "the network has no tensor 'nosuch'"),
        ({"free": ("layer0", "nosuch")}, "free: no tensor has an axis 'nosuch'"),
        ({"axes": said.axes | {"0.bias": ("5",)}}, "tensor '0.bias': dimension 0, '5', is 5 long"),
    ):
        assert text in refused(net, replace(said, **changed), x)


def test_where_there_is_no_gradient_or_no_float64_a_proof_is_one_all_the_same() -> None:
    plain = Net(lambda net, x: net.b(net.a(x).relu()), a=nn.Linear(4, 6), b=nn.Linear(6, 2))
    x = torch.zeros(2, 4)
    said = infer(plain, x)
    wrong = replace(said, axes=said.axes | {"a.bias": ("6",)})
    ways: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
        "none": lambda net, x: net.b(net.a(x).relu()).detach(),
        "rounded": lambda net, x: (100 * net.b(net.a(x).relu())).round(),
        "whole numbers": lambda net, x: (100 * net.b(net.a(x).relu())).long(),
        "float32": lambda net, x: net.b(net.a(x.float()).relu()),
    }
    for forward in ways.values():
        net = Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2))
        assert prove_module(net, said, [x], rng_of(0)) < ERROR
        assert "wrong about tensor 'a.bias': axis 'a' is its dimension 0" in refused(net, wrong, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_of_another_precision_is_proven_in_float32(dtype: torch.dtype) -> None:
    net, x = cnn().to(dtype), torch.zeros(SMALL, dtype=dtype)
    assert prove_module(net, infer(net, x), [x], rng_of(0)) < ERROR


def test_what_cannot_be_proven_of_a_module_is_said_for_what_it_is() -> None:
    def net(forward: Callable[[nn.Module, Tensor], Any]) -> nn.Module:
        return Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2))

    x = torch.zeros(2, 4)
    said = infer(net(lambda net, x: net.b(net.a(x).relu())), x)
    assert refused(net(lambda net, x: net.b(net.a(x)) * torch.nan), said, x) == (
        "symmetry 'permutation': what Net computes is no finite number, with any random weights"
    )
    assert refused(net(lambda net, x: net.b(net.a(x)) + torch.rand(2)), said, x) == (
        "symmetry 'permutation': what Net computes differs from call to call with the same weights and inputs, so nothing "
        "can be proven of it: leave out what draws random numbers or keeps a state"
    )
    assert refused(net(lambda net, x: None), said, x) == "Net returns no tensor, so nothing can be proven of its axes"
    in_place = net(lambda net, x: net.b(net.a(x.mul_(3).add_(1)).relu()))
    assert prove_module(in_place, said, [x], rng_of(0)) < ERROR  # which is proven, on inputs of its own each time


@pytest.mark.slow
def test_tensors_that_are_wrong_beside_a_packed_one_are_named(nets: Nets) -> None:
    net, x, found = nets["vit"]
    about = "the spec of VisionTransformer is wrong about tensor"
    bias, norm, packed = "blocks.0.attn.proj.bias", "norm.weight", "blocks.0.attn.qkv.bias"
    axis = "axis 'patch_embed.proj' is its dimension 0"
    for wrong, hint in (
        ((norm,), f"; {about} {norm!r}: {axis}"),
        ((bias, norm), f"; {about} {bias!r}: {axis}, and about tensor {norm!r}: {axis}"),
        ((packed,), f"; {about} {packed!r}: {found.axes[packed][0]!r} is its dimension 0"),
    ):
        length = {name: (str(len(weights_of(net)[name])),) for name in wrong}
        assert refused(net, replace(found, axes=found.axes | length), x).endswith(hint)


BLOCKS: dict[str, Callable[[int], nn.Module]] = {  # from and to 12 channels
    "conv": lambda n: nn.Conv2d(n, n, 3, padding=1),
    "depthwise": lambda n: nn.Conv2d(n, n, 3, padding=1, groups=n),
    "grouped": lambda n: nn.Conv2d(n, n, 1, groups=3),
    "grouped otherwise": lambda n: nn.ConvTranspose2d(n, n, 1, groups=2),
    "batch norm": nn.BatchNorm2d,
    "group norm": lambda n: nn.GroupNorm(4, n),
    "layer norm": lambda n: nn.GroupNorm(1, n),
    "relu": lambda n: nn.ReLU(),
    "each its slope": nn.PReLU,
    "shuffle": lambda n: nn.ChannelShuffle(3),
    "doubled": lambda n: Net(lambda net, x: net.a(torch.cat([x, x.flip(2)], 1)), a=nn.Conv2d(2 * n, n, 1)),
    "glu": lambda n: Net(lambda net, x: functional.glu(net.a(x), 1), a=nn.Conv2d(n, 2 * n, 1)),
    "residual": lambda n: Net(lambda net, x: x + net.b(net.a(x).tanh()), a=nn.Conv2d(n, 5, 1), b=nn.Conv2d(5, n, 1)),
    "squeezed": lambda n: Net(lambda net, x: x * net.a(x.mean((2, 3), keepdim=True)).sigmoid(), a=nn.Conv2d(n, n, 1)),
    "attention": lambda n: Net(_attention, qkv=nn.Linear(n, 3 * n), proj=nn.Linear(n, n)),
    "swapped halves": lambda n: Net(lambda net, x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "shifted": lambda n: Net(lambda net, x: x + x.roll(1, 1)),
    "padded": lambda n: Net(lambda net, x: net.a(functional.pad(x, (0, 0, 0, 0, 1, 2))), a=nn.Conv2d(n + 3, n, 1)),
    "one taken": lambda n: Net(lambda net, x: x + x[:, :1] * x[:, 3:4]),
}  # fmt: skip


def _attention(net: nn.Module, x: Tensor) -> Tensor:
    tokens = x.flatten(2).mT
    q, k, v = net.qkv(tokens).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    found = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return x + net.proj(found).mT.unflatten(2, x.shape[2:])


@pytest.mark.slow
@settings(deadline=None, max_examples=40, derandomize=True)
@given(names=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=2, max_size=6), twice=st.booleans())
@example(names=["grouped otherwise", "swapped halves"], twice=False)  # a cut into units of one
def test_whatever_layers_are_put_together_what_is_said_of_them_holds(names: list[str], twice: bool) -> None:
    torch.manual_seed(0)
    blocks = [BLOCKS[name](12) for name in names]
    body = [*blocks, *blocks[:2]] if twice else blocks  # modules that are called twice
    net = nn.Sequential(nn.Conv2d(3, 12, 1), *body, nn.Conv2d(12, 2, 1))
    x = torch.zeros(2, 3, 4, 4)
    assert module_error(net, infer(net, x), [x], rng_of(0)) < ERROR


# ---------------------------------------------------------------- what cannot be traced


class Choosing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Filtering(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


def test_a_module_that_cannot_be_traced_says_why_and_what_to_do() -> None:
    line = Choosing.forward.__code__.co_firstlineno + 1
    by_hand = "; write its axes by hand (docs/symmetries.md)"
    for module, why in (
        (Choosing(), f"what it does depends on the values of a tensor (test_tracing.py, line {line})"),
        (Filtering(), "the size of a tensor in it depends on the values of another"),
    ):
        with pytest.raises(UserError) as caught:
            infer(module, torch.zeros(2, 3))
        assert str(caught.value) == f"{type(module).__name__} cannot be traced: {why}{by_hand}"
    with pytest.raises(UserError, match=r"^Sequential cannot be traced: RuntimeError: .*; write its axes by hand"):
        infer(mlp(), torch.zeros(2, 5))
    with pytest.raises(
        UserError, match=r"^Sequential cannot be traced: input 0 has shape \[0, 4\], and so no values; "
    ):
        infer(mlp(), torch.zeros(0, 4))
    with pytest.raises(
        UserError, match=r"^DataParallel cannot be traced: it only wraps a module; .* its attribute module$"
    ):
        infer(nn.DataParallel(mlp()), torch.zeros(2, 4))


def test_a_layer_without_units_has_no_axes() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.c(torch.cat([functional.linear(x, net.a), net.b(x)], 1))

    net, x = Net(forward, a=nn.Parameter(torch.zeros(0, 4)), b=nn.Linear(4, 6), c=nn.Linear(6, 2)), torch.zeros(2, 4)
    said = infer(net, x)
    assert said.free == ("b",)
    assert prove_module(net, said, [x], rng_of(0)) < ERROR


# ---------------------------------------------------------------- files


TELL = "as far as other tensors tell; the tensor has "
NO_AXIS = "says no axis of a dimension; 'hidden', '7', 'conv/16', '2*gate' and 'a + b' do"


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights_of(net).items()}


@each
def test_a_spec_goes_through_a_file(nets: Nets, name: str, tmp_path: Path) -> None:
    net, _, found = nets[name]
    write_spec(tmp_path / "spec.yaml", found)
    assert read_spec(tmp_path / "spec.yaml", shapes_of(net)) == replace(found, notes=())


def test_a_file_is_one_line_for_each_tensor(nets: Nets) -> None:
    assert spec_text(nets["mlp"][2]).splitlines() == [
        "tensors:",
        "  0.weight: [layer0, 4]",
        "  0.bias: [layer0]",
        "  2.weight: [layer2, layer0]",
        "  2.bias: [layer2]",
        "  4.weight: [3, layer2]",
        "  4.bias: [3]",
        "free:",
        "- layer0",
        "- layer2",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2.bias", "2.bais", "the network has no tensor '2.bais': did you mean 2.bias, 4.bias or 0.bias?"),
        ("  2.bias: [layer2]\n", "", "tensor '2.bias' is missing; write [6] if nothing of it moves"),
        ("[3, layer2]", "[3]", "tensor '4.weight' has 2 dimensions, [3, 6], and 1 are written"),
        ("[3, layer2]", "layer2", "tensor '4.weight' is not a list with an axis, or a number, for each dimension"),
        ("[layer0, 4]", "[layer0, 5]", "tensor '0.weight': dimension 1, '5', is 5 long, " + TELL + "4"),
        ("[3, layer2]", "[3, layer0]", "tensor '4.weight': dimension 1, 'layer0', is 7 long, " + TELL + "6"),
        ("[3, layer2]", "[3, 2*3*a]", "tensor '4.weight', dimension 1: '2*3*a' " + NO_AXIS),
        ("- layer2", "- leyer2", "free: no tensor has an axis 'leyer2': did you mean layer2 or layer0?"),
        ("tensors:", "tensor:", "a spec has `tensors:`, lists of axes by the tensor's name, and `free:`, a list of axes"),
        ("- layer2", "- 2", "free: is not a list of names"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_tensor_and_dimension(
    nets: Nets, old: str, new: str, said: str, tmp_path: Path
) -> None:
    net, _, found = nets["mlp"]
    file = tmp_path / "spec.yaml"
    file.write_text(spec_text(found).replace(old, new), encoding="utf-8")
    with pytest.raises(FileError) as caught:
        read_spec(file, shapes_of(net))
    assert str(caught.value) == f"{file}: {said}"


def test_a_file_that_is_no_yaml_or_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"spec.yaml: cannot be read: No such file or directory$"):
        read_spec(tmp_path / "spec.yaml", {})
    (tmp_path / "spec.yaml").write_text("tensors: [")
    with pytest.raises(FileError, match=r"spec.yaml: is no YAML: "):
        read_spec(tmp_path / "spec.yaml", {})
