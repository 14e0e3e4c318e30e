"""LoRA: low-rank products, the target against merged weights, GL(r) on every layer, and folders that stock PEFT reads."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.support.synthetic import bench_of, recipe_of, run
from wspace.components.importers.peft import Peft
from wspace.components.symmetries.gl import GL
from wspace.components.targets.lora import Lora
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.runs.artifacts import Zoo
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.files import read_json, write_json
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.weights.files.network import Network
from wspace.weights.files.peft import AdapterFolder, write_adapter
from wspace.weights.lowrank import balanced, lora_spec, padded, squared_distance, trimmed
from wspace.weights.proof import prove
from wspace.weights.zoo.export import take
from wspace.weights.zoo.format import StoredZoo
from wspace.weights.zoo.importing import import_zoo

SEEDS = st.integers(0, 2**20)
property_test = settings(max_examples=25, deadline=None)
LAYERS = {"first": (7, 6), "deep.second": (5, 9)}
SPEC = lora_spec(LAYERS, 3, {"first": 2.0, "deep.second": 0.5})


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said_by(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def pair(seed: int, rank: int = 3, lost: int = 0, batch: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Factors in double of a product that has lost so many of its directions."""
    rng = rng_of(seed)
    left = torch.randn(*batch, 7, rank - lost, generator=rng, dtype=torch.float64)
    right = torch.randn(*batch, rank - lost, 6, generator=rng, dtype=torch.float64)
    turn = torch.randn(*batch, rank - lost, rank, generator=rng, dtype=torch.float64)
    return left @ turn, torch.linalg.pinv(turn) @ right


def products(weights: Tensor, spec: WeightSpec = SPEC) -> list[Tensor]:
    named = spec.unflatten(weights)
    return [p.scale * torch.einsum("bor,bri->boi", named[p.left], named[p.right]) for p in spec.products]


# ---------------------------------------------------------------- products


@property_test
@given(seed=SEEDS, rank=st.integers(1, 5), more=st.integers(0, 4))
def test_padding_changes_no_product_and_trimming_undoes_it(seed: int, rank: int, more: int) -> None:
    left, right = pair(seed, rank)
    wide = padded(left, right, rank + more)
    assert (wide[0].shape, wide[1].shape) == ((7, rank + more), (rank + more, 6))
    torch.testing.assert_close(wide[0] @ wide[1], left @ right, rtol=0, atol=1e-12)
    narrow = trimmed(*wide)
    assert torch.equal(narrow[0], left) and torch.equal(narrow[1], right)


def test_trimming_leaves_what_is_zero_on_one_side_only_and_at_least_one_direction() -> None:
    left, right = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[3.0], [0.0], [0.0]])
    narrow = trimmed(left, right)
    assert torch.equal(narrow[0], left[:, :2]) and torch.equal(narrow[1], right[:2])
    assert trimmed(0 * left, 0 * right)[0].shape == (1, 1)


@property_test
@given(seed=SEEDS, lost=st.integers(0, 2))
def test_the_balanced_pair_is_that_of_the_singular_value_decomposition(seed: int, lost: int) -> None:
    left, right = pair(seed, 3, lost, batch=(2,))
    found_left, found_right = balanced(left, right)
    torch.testing.assert_close(found_left @ found_right, left @ right, rtol=1e-9, atol=1e-9)
    values = torch.linalg.svdvals(left @ right)[:, :3]
    values[:, 3 - lost :] = 0
    for gram in (found_left.mT @ found_left, found_right @ found_right.mT):
        torch.testing.assert_close(gram, torch.diag_embed(values), rtol=1e-7, atol=1e-7)
    # the same for every pair of this product, whatever its rank is made of
    turn = torch.randn(2, 3, 3, generator=rng_of(seed + 1), dtype=torch.float64)
    again = balanced(left @ turn, torch.linalg.solve(turn, right))
    torch.testing.assert_close(again[0][..., : 3 - lost], found_left[..., : 3 - lost], rtol=1e-4, atol=1e-6)


def test_a_rank_above_the_layers_own_width_is_balanced_too() -> None:
    left, right = torch.randn(2, 2, 5, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    found = balanced(left, right)
    assert (found[0].shape, found[1].shape) == (left.shape, right.shape)
    torch.testing.assert_close(found[0] @ found[1], left @ right)


@property_test
@given(seed=SEEDS)
def test_the_distance_of_products_is_that_of_the_matrices_and_knows_no_basis(seed: int) -> None:
    rng = rng_of(seed)
    ours, theirs = (torch.randn(4, SPEC.size, generator=rng, dtype=torch.float64) for _ in range(2))
    expected = sum((a - b).square().sum((1, 2)) for a, b in zip(products(ours), products(theirs), strict=True))
    torch.testing.assert_close(squared_distance(SPEC, ours, theirs), expected)
    symmetry = GL(spec=SPEC)
    moved = [symmetry.act(symmetry.sample(4, rng).double(), weights) for weights in (ours, theirs)]
    torch.testing.assert_close(squared_distance(SPEC, *moved), expected)
    assert squared_distance(SPEC, ours, moved[0]).max() < 1e-9 * expected.max()


# ---------------------------------------------------------------- GL(r) of every layer


@property_test
@given(seed=SEEDS)
def test_gl_moves_every_layer_by_a_matrix_of_its_own_and_no_product(seed: int) -> None:
    symmetry, rng = GL(spec=SPEC), rng_of(seed)
    assert symmetry.axes == ("first.rank", "deep.second.rank") == SPEC.free
    weights, elements = torch.randn(3, SPEC.size, generator=rng, dtype=torch.float64), symmetry.sample(3, rng)
    moved = symmetry.act(elements, weights)
    for before, after in zip(products(weights), products(moved), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    first, second = elements.double().view(3, 2, 3, 3).unbind(1)
    assert not torch.allclose(first, second)
    old, new = SPEC.unflatten(weights), SPEC.unflatten(moved)
    torch.testing.assert_close(new["first.lora_B"], old["first.lora_B"] @ first)
    torch.testing.assert_close(second @ new["deep.second.lora_A"], old["deep.second.lora_A"])


@property_test
@given(seed=SEEDS, canonical=st.sampled_from(["nearest", "svd"]))
def test_the_canonical_form_depends_on_the_orbit_alone(seed: int, canonical: Any) -> None:
    symmetry, rng = GL(canonical=canonical, spec=SPEC), rng_of(seed)
    weights, reference = (torch.randn(2, SPEC.size, generator=rng, dtype=torch.float64) for _ in range(2))
    expected = symmetry.canonicalize(weights, reference)
    found = symmetry.canonicalize(symmetry.act(symmetry.sample(2, rng).double(), weights), reference)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for before, after in zip(products(weights), products(found), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@property_test
@given(seed=SEEDS)
def test_the_canonical_form_by_svd_is_the_decomposition_of_each_product(seed: int) -> None:
    """Columns of B and rows of A are the singular vectors, each times the root of its value, whatever B and A were."""
    symmetry, weights = (
        GL(canonical="svd", spec=SPEC),
        torch.randn(2, SPEC.size, generator=rng_of(seed), dtype=torch.float64),
    )
    found = SPEC.unflatten(symmetry.canonicalize(weights, weights[0]))
    named = SPEC.unflatten(weights)
    for p in SPEC.products:
        values = torch.linalg.svdvals(named[p.left] @ named[p.right])[:, :3]
        left, right = found[p.left], found[p.right]
        torch.testing.assert_close(left @ right, named[p.left] @ named[p.right], rtol=1e-4, atol=1e-4)
        for gram in (left.mT @ left, right @ right.mT):
            torch.testing.assert_close(gram, torch.diag_embed(values), rtol=1e-3, atol=1e-3)


def test_padded_adapters_have_a_canonical_form_by_svd_alone() -> None:
    weights = torch.randn(2, SPEC.size, generator=rng_of(0))
    for name, tensor in SPEC.unflatten(weights).items():
        (tensor[:, 2:] if name.endswith("A") else tensor[:, :, 2:]).zero_()
    found = SPEC.unflatten(GL(canonical="svd", spec=SPEC).canonicalize(weights, weights[0]))
    assert found["first.lora_B"][:, :, 2].abs().max() < 1e-3 < found["first.lora_B"][:, :, 1].abs().max()
    assert "are not independent" in said_by(lambda: GL(spec=SPEC).canonicalize(weights, weights[0]))


def test_axes_that_share_a_tensor_are_refused() -> None:
    names = ("in", "one", "two", "out")
    spec = WeightSpec(tuple(WeightEntry(f"w{n}", (3, 3), (names[n], names[n + 1])) for n in range(3)), ("one", "two"))
    assert said_by(lambda: GL(("one", "two"), spec=spec)) == (
        "symmetry 'gl': axes 'one' and 'two' share tensor 'w1': name one of them"
    )


# ---------------------------------------------------------------- the target

FEATURES, TEXTS, SIDE = 20, 5, 16


def on_features(**arguments: Any) -> Lora:
    return Lora(width=8, heads=2, rank=2, alpha=3.0, feature_dim=FEATURES, text_dim=TEXTS, **arguments)


def on_pictures(**arguments: Any) -> Lora:
    chosen = {"base": "timm", "patch": 8, "rank": 2, "modules": ("blocks.*.attn.qkv", "blocks.?.mlp.fc1")} | arguments
    return Lora(**chosen, feature_dim=3 * SIDE**2, text_dim=TEXTS)


def inputs(target: Lora, count: int, images: int = 3, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng, width = rng_of(1), torch.Size(target.input_shape).numel()
    texts = torch.randn(count, classes, TEXTS, generator=rng)
    return torch.randn(count, images, width, generator=rng), functional.normalize(texts, dim=2)


def random_weights(target: Lora, count: int, seed: int = 2) -> Tensor:
    rng = rng_of(seed)
    return target.init(count, rng) + 0.3 * torch.randn(count, target.spec.size, generator=rng)


def merged(network: nn.Module, spec: WeightSpec, weights: Tensor) -> nn.Module:
    """A copy whose linear layers have the products added."""
    network, named = copy.deepcopy(network), spec.unflatten(weights)
    with torch.no_grad():
        for p in spec.products:
            network.get_submodule(p.layer).weight += p.scale * named[p.left] @ named[p.right]
    return network


@pytest.mark.parametrize("target", [on_features(), on_pictures()], ids=["features", "timm"])
def test_scores_are_those_of_a_network_with_the_products_added(target: Lora) -> None:
    weights, (features, texts) = random_weights(target, 3), inputs(target, 3)
    logits = target.logits(weights, features, texts)
    assert logits.shape == (3, 3, 4)
    for b in range(3):
        pooled = merged(target.network, target.spec, weights[b])(features[b].view(-1, *target.input_shape))
        directions = texts[b] @ target.projection
        cosine = functional.cosine_similarity(pooled[:, None], directions[None], dim=2)
        torch.testing.assert_close(logits[b], 20.0 * cosine, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        target.logits(weights[1:2], features[1:2], texts[1:2])[0], logits[1], rtol=1e-4, atol=1e-4
    )


def test_gradients_agree_with_finite_differences() -> None:
    target = on_features(depth=1, modules=("blocks.0.mlp.fc1", "blocks.0.attn.qkv"), temperature=1.0)
    features, texts = (t.double() for t in inputs(target, 2, images=2))
    weights = random_weights(target, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: target.logits(w, features, texts), weights)


def test_a_fresh_adapter_changes_nothing_and_scores_are_the_same_again() -> None:
    target = on_features()
    features, texts = inputs(target, 2)
    fresh = target.init(2, rng_of(0))
    expected = target.network(features.flatten(0, 1))
    pooled = functional.normalize(expected, dim=1).view(2, 3, -1)
    directions = functional.normalize(texts @ target.projection, dim=2)
    torch.testing.assert_close(target.logits(fresh, features, texts), 20 * pooled @ directions.mT)
    named = target.spec.unflatten(fresh)
    for name, tensor in named.items():
        bound = tensor.shape[2] ** -0.5
        assert (tensor.abs().max() <= bound and tensor.std() > 0.5 * bound) if name.endswith("A") else not tensor.any()
    again = on_features()
    assert torch.equal(again.logits(fresh, features, texts), target.logits(fresh, features, texts))
    assert not torch.equal(on_features(seed=1).projection, target.projection)


@pytest.mark.parametrize("target", [on_features(), on_pictures()], ids=["features", "timm"])
def test_scores_and_the_loss_of_products_know_no_basis_and_plain_errors_do(target: Lora) -> None:
    symmetry, weights, (features, texts) = GL(spec=target.spec), random_weights(target, 3), inputs(target, 3)
    moved = symmetry.act(symmetry.sample(3, rng_of(5)), weights)
    torch.testing.assert_close(
        target.logits(moved, features, texts), target.logits(weights, features, texts), rtol=1e-3, atol=1e-3
    )
    other = weights.roll(1, 0)
    apart = squared_distance(target.spec, weights, other)
    torch.testing.assert_close(squared_distance(target.spec, moved, other), apart, rtol=1e-3, atol=0)
    assert squared_distance(target.spec, moved, weights).max() < 1e-4 * apart.min()
    assert (moved - weights).square().sum(1).min() > 0.1 * weights.square().sum(1).max()


def test_the_group_is_proven_on_the_target() -> None:
    target = on_pictures()
    prove(GL(spec=target.spec), target, "gl", (3 * SIDE**2, TEXTS), stream(0, "proof"))


def test_shapes_are_those_of_the_layers_that_match() -> None:
    target = on_pictures(modules=("blocks.1.*",))
    assert [(e.name, e.shape) for e in target.spec.entries[:4]] == [
        ("blocks.1.attn.qkv.lora_A", (2, 64)),
        ("blocks.1.attn.qkv.lora_B", (192, 2)),
        ("blocks.1.attn.proj.lora_A", (2, 64)),
        ("blocks.1.attn.proj.lora_B", (64, 2)),
    ]
    assert len(target.spec.products) == 4 and {p.scale for p in target.spec.products} == {4.0}


class Mixing(nn.Module):
    """Normalises over the batch, so that one picture sees the others."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(FEATURES, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.used(x)
        return x - x.mean(0)


def test_networks_that_cannot_serve_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert said_by(lambda: on_features(modules=("block.*",))).startswith(
        "target 'lora': no linear layer is called 'block.*': did you mean blocks."
    )
    assert said_by(lambda: on_features(modules=())) == "target 'lora': modules names no layer"
    assert said_by(lambda: Lora(base="timm", feature_dim=20, text_dim=5)) == (
        "target 'lora': features of width 20 are no pictures: use `backbone: pixels`, or `base: features`"
    )
    assert said_by(lambda: Lora(width=9, heads=2, feature_dim=20, text_dim=5)) == (
        "target 'lora': width 9 is no multiple of heads 2"
    )
    assert said_by(lambda: on_pictures(model="test_vitt")).startswith(
        "target 'lora': timm has no model 'test_vitt': did you mean test_vit"
    )
    assert said_by(lambda: on_pictures(model="test_resnet", patch=None)).startswith(
        "target 'lora': timm cannot make test_resnet with img_size 16: "
    )
    save_file({"norm.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert said_by(lambda: on_features(file=tmp_path / "other.safetensors")).startswith(
        f"{tmp_path}/other.safetensors: its tensors do not fit this transformer (the first that does not: "
    )
    assert said_by(lambda: on_pictures(base="transformers")) == (
        "target 'lora': `base: transformers` needs `file`, the folder that save_pretrained wrote"
    )
    assert said_by(lambda: on_pictures(base="transformers", file=tmp_path)) == (
        f"{tmp_path}: not a folder that save_pretrained wrote: it has no config.json"
    )
    monkeypatch.setattr("wspace.components.targets.lora.FeatureTransformer", lambda *_: Mixing())
    assert said_by(lambda: on_features(modules=("unused",))) == (
        "target 'lora': the network does not call its layer 'unused': leave it out of modules"
    )
    assert said_by(lambda: on_features(modules=("used",))) == (
        "target 'lora': this network mixes the images of a batch: it cannot serve several adapters"
    )


def test_the_frozen_network_may_come_from_a_file(tmp_path: Path) -> None:
    network = timm.create_model("test_vit", img_size=SIDE, patch_size=8)  # with a classifier, which is left out
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    images = torch.randn(2, 3, SIDE, SIDE, generator=rng_of(0))
    target = on_pictures(file=tmp_path / "vit.safetensors")
    network.eval().reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(target.network(images), network(images))


def test_a_file_of_another_depth_or_width_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file(on_features(depth=3).network.state_dict(), file)
    assert said_by(lambda: on_features(depth=2, file=file)) == (
        f"{file}: its weights are of another network than this transformer, which has no blocks.2.attn.proj.bias, "
        "blocks.2.attn.proj.weight, blocks.2.attn.qkv.bias and 9 more"
    )
    with pytest.raises(UserError, match="the first that does not: blocks.3.norm1.weight"):
        on_features(depth=4, file=file)
    with pytest.raises(UserError, match="the first that does not: position"):
        Lora(width=16, heads=2, depth=3, feature_dim=FEATURES, text_dim=TEXTS, file=file)
    deeper = timm.create_model("test_vit", img_size=SIDE, patch_size=8, depth=7)
    save_file(deeper.state_dict(), file)
    assert "test_vit, which has no blocks.6.attn.proj.bias" in said_by(lambda: on_pictures(file=file))


# ---------------------------------------------------------------- folders of adapters


def folder_of(folder: Path, seed: int, rank: int, scale: Mapping[str, float] | None = None) -> dict[str, Tensor]:
    """Adapters of that rank, written as PEFT has them."""
    spec = lora_spec(LAYERS, rank, scale or {"first": 2.0, "deep.second": 0.5})
    weights = torch.randn(spec.size, generator=rng_of(seed))
    named = {name: tensor.clone() for name, tensor in spec.unflatten(weights).items()}
    write_adapter(folder, spec, named, base_model="toy", texts=(f"task {seed}",), classes=("a", f"b{seed}"))
    return named


def test_adapters_go_through_a_zoo_as_they_were(tmp_path: Path) -> None:
    written = [folder_of(tmp_path / f"adapters/{n}", n, 3) for n in range(3)]
    zoo = import_zoo(tmp_path / "adapters", tmp_path / "zoo", Peft(), licence="mit")
    assert zoo.problems() == [] and {*zoo.spec.entries} == {*SPEC.entries} and {*zoo.spec.products} == {*SPEC.products}
    assert zoo.header.made_with == {"base_model": "toy"}
    assert zoo.header.target == {"use": "lora", "rank": 3}
    for number, named in enumerate(written):
        entry = zoo.entries[number]
        assert (entry.name, entry.texts, entry.classes, entry.extra) == (
            str(number), (f"task {number}",), ("a", f"b{number}"), {},
        )  # fmt: skip
        assert all(torch.equal(tensor, named[name]) for name, tensor in zoo.read(number).items())
        take(tmp_path / "zoo", str(number), tmp_path / f"again/{number}", peft=True)
        for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
            assert (tmp_path / f"again/{number}/{name}").read_bytes() == (
                tmp_path / f"adapters/{number}/{name}"
            ).read_bytes()


@pytest.mark.parametrize(
    ("target", "base_model", "expected"),
    [
        ({"use": "mine"}, "hub/vit", "hub/vit"),
        ({"use": "lora", "base": "timm", "model": "test_vit"}, "", "test_vit"),  # as 0.1 wrote it
        ({"use": "mine", "base": "timm", "model": "test_vit"}, "", ""),
        ({"use": "lora", "base": "features", "model": "test_vit"}, "", ""),
    ],
    ids=["recorded", "of 0.1", "another target", "no name"],
)
def test_an_adapter_out_of_a_zoo_names_its_base(
    target: dict[str, Any], base_model: str, expected: str, tmp_path: Path
) -> None:
    spec, folder = SPEC, tmp_path / "adapters/one"
    named = spec.unflatten(torch.randn(spec.size, generator=rng_of(1)))
    write_adapter(folder, spec, named, base_model="", texts=("t",), classes=())
    import_zoo(tmp_path / "adapters", tmp_path / "zoo", Peft(), target=(target, spec), base_model=base_model)
    take(tmp_path / "zoo", "one", tmp_path / "taken", peft=True)
    assert AdapterFolder.open(tmp_path / "taken").base_model == expected


def test_a_zoo_of_a_run_says_what_its_target_is_added_to(tmp_path: Path) -> None:
    assert (on_pictures().base_model, on_features().base_model) == ("test_vit", "")
    recipe = recipe_of(tmp_path, LORA, *HOW)
    bench = bench_of(recipe)
    bench.target.base_model = "hub/vit"
    run(recipe, bench, tmp_path, "zoo")
    zoo = StoredZoo.open(tmp_path / "zoo")
    take(zoo.folder, zoo.entries[0].name, tmp_path / "taken", peft=True)
    assert zoo.header.made_with["base_model"] == AdapterFolder.open(tmp_path / "taken").base_model == "hub/vit"


def test_ranks_and_scales_may_differ_and_products_stay(tmp_path: Path) -> None:
    scales = [{"first": 2.0, "deep.second": 0.5}, {"first": 1.0, "deep.second": 3.0}]
    ranks = (4, 2)
    written = [folder_of(tmp_path / f"adapters/{n}", n, ranks[n], scales[n]) for n in range(2)]
    zoo = import_zoo(tmp_path / "adapters", tmp_path / "zoo", Peft())
    assert [entry.extra for entry in zoo.entries] == [{}, {"ranks": {"first": 2, "deep.second": 2}}]
    found = products(zoo.weights(), zoo.spec)
    for number, named in enumerate(written):
        for layer, product in zip((p.layer for p in zoo.spec.products), found, strict=True):
            expected = scales[number][layer] * named[f"{layer}.lora_B"] @ named[f"{layer}.lora_A"]
            torch.testing.assert_close(product[number], expected)
    take(tmp_path / "zoo", "1", tmp_path / "again", peft=True)
    again = AdapterFolder.open(tmp_path / "again")
    assert {layer.rank for layer in again.layers.values()} == {2}, "padding is left out again"
    for layer, (b, a) in again.read().items():
        expected = scales[1][layer] * written[1][f"{layer}.lora_B"] @ written[1][f"{layer}.lora_A"]
        torch.testing.assert_close(again.layers[layer].scale * b @ a, expected)


def test_the_text_is_the_first_prose_of_a_readme_unless_nobody_filled_it_in(tmp_path: Path) -> None:
    folder_of(tmp_path, 0, 2)
    readme = tmp_path / "README.md"
    for content, texts in {
        "---\nlicense: mit\n---\n# Title\n\n<!-- note -->\n- **by:** x\n\nTells owls\nfrom   eagles.\n\nMore.\n": (
            "Tells owls from eagles.",
        ),
        "# Model Card for Model ID\n\nUsers should be aware.\n": (),
        "---\nnot: [yaml\n---\nProse.": ("Prose.",),
        "": (),
    }.items():
        readme.write_text(content, encoding="utf-8")
        opened = AdapterFolder.open(tmp_path)
        assert (opened.texts, opened.classes) == (texts, ())


def configured(**changed: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / "1/adapter_config.json"
        write_json(file, read_json(file) | changed)

    return change


def retensored(change: Any) -> Any:
    def rewrite(folder: Path) -> None:
        file = folder / "1/adapter_model.safetensors"
        save_file(change(load_file(file)), file)

    return rewrite


PREFIX = "base_model.model.first"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            configured(peft_type="IA3"),
            "{s}/1/adapter_config.json: its peft_type is 'IA3', and only LORA can be read{skip}",
        ),
        (
            configured(use_dora=True),
            "{s}/1/adapter_config.json: use_dora is True, and only plain LoRA can be read{skip}",
        ),
        (configured(r=0), "{s}/1/adapter_config.json: r: must be greater than 0"),
        (
            configured(base_model_name_or_path="other"),
            "{s}/1: is for base model 'other'; {s}/0 is for 'toy'",
        ),
        (
            lambda s: (s / "1/adapter_config.json").write_text("{"),
            "{s}/1/adapter_config.json: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (
            lambda s: (s / "1/adapter_model.safetensors").rename(s / "1/adapter_model.bin"),
            "{s}/1/adapter_model.bin: a pickle can run any program when it is opened, so it is not; where you trust it, "
            "convert it: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', "
            "weights_only=True), 'adapter_model.safetensors')\"{skip}",
        ),
        (lambda s: (s / "1/adapter_model.safetensors").unlink(), "{s}/1: has no adapter_model.safetensors{skip}"),
        (
            lambda s: (s / "1/adapter_model.safetensors").write_bytes(b"cut"),
            "{s}/1/adapter_model.safetensors: truncated, or not a safetensors file",
        ),
        (
            retensored(lambda t: t | {f"{PREFIX}.lora_magnitude_vector": torch.zeros(3)}),
            "{s}/1/adapter_model.safetensors: holds base_model.model.first.lora_magnitude_vector, which is no factor of a "
            "linear layer's LoRA{skip}",
        ),
        (
            retensored(lambda t: {k: v for k, v in t.items() if "first.lora_B" not in k}),
            "{s}/1/adapter_model.safetensors: layer 'first' has lora_A alone",
        ),
        (
            retensored(lambda t: t | {f"{PREFIX}.lora_A.weight": torch.zeros(2, 6)}),
            "{s}/1/adapter_model.safetensors: layer 'first' has lora_A of rank 2 and lora_B of rank 3",
        ),
        (
            retensored(lambda t: t | {f"{PREFIX}.lora_A.weight": torch.zeros(3, 8)}),
            "{s}/1: layer 'first' is 7 x 8; in {s}/0 it is 7 x 6",
        ),
        (
            retensored(lambda t: {k: v for k, v in t.items() if "first" not in k}),
            "{s}/1: does not adapt 'first', and {s}/0 does",
        ),
        (
            lambda s: (s / "1/README.md").unlink(),
            "{s}/1: nothing says what it was trained for; put a 1.txt or .json beside it, or one CSV for all into the folder",
        ),
    ],
)
def test_adapters_that_cannot_be_imported(tmp_path: Path, spoil: Any, message: str) -> None:
    source = tmp_path / "adapters"
    for n in range(2):
        folder_of(source / str(n), n, 3)
    spoil(source)
    before = set(tmp_path.rglob("*"))
    expected = message.format(s=source, skip="; --skip-unknown leaves it out")
    assert said_by(lambda: import_zoo(source, tmp_path / "zoo", Peft())) == expected
    assert set(tmp_path.rglob("*")) == before


def test_a_sidecar_says_what_a_folder_of_adapters_is_for(tmp_path: Path) -> None:
    folder_of(tmp_path / "a/0", 0, 3)
    (tmp_path / "a/0.json").write_text('{"texts": "another task", "classes": ["x", "y"]}')
    (entry,) = import_zoo(tmp_path / "a", tmp_path / "zoo", Peft()).entries
    assert (entry.texts, entry.classes) == (("another task",), ("x", "y"))


# ---------------------------------------------------------------- stock PEFT


@pytest.fixture(scope="module")
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages it imports
        return pytest.importorskip("peft", reason='peft is not installed: pip install "wspace[lora]"')


def loaded(peft: Any, base: nn.Module, folder: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers about itself
        return peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()


@pytest.mark.parametrize("made", [on_features, on_pictures], ids=["features", "timm"])
def test_peft_loads_and_runs_what_is_written(peft: Any, made: Any, tmp_path: Path) -> None:
    target = made()
    weights, (features, texts) = random_weights(target, 1), inputs(target, 1)
    network = Network(("a", "b"), target.spec.unflatten(weights[0]))
    layer = target.spec.products[0].layer
    for name, tensor in network.tensors.items():  # one layer of smaller rank, which is written so
        if name.startswith(layer):
            (tensor[1:] if name.endswith("A") else tensor[:, 1:]).zero_()
    write_adapter(tmp_path, target.spec, network.tensors, base_model="", texts=("a", "b"), classes=network.classes)
    assert read_json(tmp_path / "adapter_config.json")["rank_pattern"] == {"^" + layer.replace(".", r"\."): 1}
    model = loaded(peft, target.network, tmp_path)
    with torch.no_grad():
        pooled = model(features[0].view(-1, *target.input_shape))
        directions = texts[0] @ target.projection
        expected = 20 * functional.cosine_similarity(pooled[:, None], directions[None], dim=2)
        torch.testing.assert_close(
            target.logits(target.spec.flatten(network.tensors)[None], features, texts)[0],
            expected,
            rtol=1e-4,
            atol=1e-4,
        )
        plain = target.network(features[0].view(-1, *target.input_shape))
    assert not torch.allclose(pooled, plain, atol=1e-2), "the adapter does something"
    merged_model = model.merge_and_unload()
    with torch.no_grad():
        again = merged_model(features[0].view(-1, *target.input_shape))
    torch.testing.assert_close(again, pooled, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A small transformer of transformers, with weights from a seed, and its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason='not installed: pip install "wspace[lora]"')
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=SIDE, patch_size=8
    )
    torch.manual_seed(0)
    model = transformers.ViTModel(config).eval()
    folder = tmp_path_factory.mktemp("vit")
    model.save_pretrained(folder)
    return model, folder


def on_folder(folder: Path) -> Lora:
    return on_pictures(base="transformers", modules=("*layers*",), file=folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"num_hidden_layers": 1},
            "its weights are of another network than its config.json says, which has no layers.1.attention.k_proj.bias, "
            "layers.1.attention.k_proj.weight, layers.1.attention.o_proj.bias and 13 more",
        ),
        (
            {"num_hidden_layers": 3},
            "its weights lack layers.2.attention.k_proj.bias, which its config.json asks for",
        ),
        (
            {"intermediate_size": 32},
            "its weights do not fit its config.json (the first that does not: layers.0.mlp.fc1.bias)",
        ),
    ],
    ids=["shallower", "deeper", "wider"],
)
def test_a_folder_of_transformers_holds_the_network_it_says(
    vit: Any, changed: dict[str, int], message: str, tmp_path: Path
) -> None:
    shutil.copytree(vit[1], tmp_path / "vit")
    config = tmp_path / "vit/config.json"
    write_json(config, read_json(config) | changed)
    assert said_by(lambda: on_folder(tmp_path / "vit")) == f"{tmp_path}/vit: {message}"


def test_a_classifier_of_transformers_is_read_without_a_random_pooler(vit: Any, tmp_path: Path) -> None:
    import transformers

    classifier = transformers.ViTForImageClassification(vit[0].config).eval()
    classifier.save_pretrained(tmp_path)
    images = torch.randn(2, 3, SIDE, SIDE, generator=rng_of(0))
    target = on_folder(tmp_path)
    with torch.no_grad():
        expected = classifier.vit(images).last_hidden_state.mean(1)
        torch.testing.assert_close(target._pooled(images.flatten(1)), expected)


def test_what_peft_wrote_is_a_zoo_and_the_targets_weights(peft: Any, vit: Any, tmp_path: Path) -> None:
    base, where = vit
    linear = [name for name, layer in base.named_modules() if isinstance(layer, nn.Linear) and "layers" in name]
    images = torch.randn(3, 3, SIDE, SIDE, generator=rng_of(0))
    pooled = {}
    for number, (rank, alpha, options) in enumerate(
        [(3, 6, {}), (2, 8, {"use_rslora": True}), (3, 6, {"rank_pattern": {linear[0]: 1}})]
    ):
        torch.manual_seed(number)
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear, init_lora_weights=False, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own
            model = peft.get_peft_model(copy.deepcopy(base), config).eval()
            model.save_pretrained(tmp_path / f"adapters/{number}")
        (tmp_path / f"adapters/{number}.txt").write_text(f"task {number}")
        with torch.no_grad():
            pooled[str(number)] = model(images).pooler_output
    zoo = import_zoo(tmp_path / "adapters", tmp_path / "zoo", Peft())
    target = Lora(
        "transformers", ("*layers*",), 3, 6.0, file=where, temperature=1.0, feature_dim=3 * SIDE**2, text_dim=16
    )
    assert {p.layer for p in target.spec.products} == set(linear)
    for number, entry in enumerate(zoo.entries):
        named = zoo.read(number)
        raw = load_file(tmp_path / f"adapters/{entry.name}/adapter_model.safetensors")
        if entry.name == "0":  # neither padded nor scaled: the very bytes
            for name, tensor in raw.items():
                assert torch.equal(named[name.removeprefix("base_model.model.").removesuffix(".weight")], tensor)
        texts = torch.eye(16)[None]
        scores = target.logits(target.spec.flatten(named)[None], images.flatten(1)[None], texts)[0]
        expected = functional.normalize(pooled[entry.name], dim=1) @ functional.normalize(target.projection, dim=1).T
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
        take(tmp_path / "zoo", entry.name, tmp_path / f"out/{entry.name}", peft=True)
        with torch.no_grad():
            again = loaded(peft, base, tmp_path / f"out/{entry.name}")(images).pooler_output
        torch.testing.assert_close(again, pooled[entry.name], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- from adapters to adapters

LORA = "target={use: lora, width: 4, heads: 2, depth: 1, rank: 2, alpha: 4}"
HOW = ("symmetry=gl", "tokenizer={use: chunk, size: 8, scale: centered}", "losses={product: 0.5}")


def test_adapters_are_generated_from_a_zoo_of_adapters(peft: Any, tmp_path: Path) -> None:
    """Trained here, given away as PEFT folders, imported, learnt from, and generated as PEFT folders again."""
    recipe = recipe_of(tmp_path, LORA, *HOW)
    run(recipe, bench_of(recipe), tmp_path / "made", "zoo")
    for entry in StoredZoo.open(tmp_path / "made/zoo").entries:
        take(tmp_path / "made/zoo", entry.name, tmp_path / "adapters" / entry.name, peft=True)
    zoo = import_zoo(tmp_path / "adapters", tmp_path / "zoo", Peft())
    made = Zoo(tmp_path / "made/zoo")
    named = made.stored.spec.unflatten(made.weights)
    assert all(torch.equal(tensor, named[name]) for name, tensor in zoo.spec.unflatten(zoo.weights()).items())

    other = recipe_of(tmp_path, LORA.replace("alpha: 4", "alpha: 3"), *HOW, f"zoo.source={tmp_path / 'zoo'}")
    assert said_by(lambda: run(other, bench_of(other), tmp_path / "other", "zoo")) == (
        f"zoo.source: {tmp_path}/zoo: the scale of the product at blocks.0.attn.proj is 2.0 there, and 1.5 in this recipe"
    )
    recipe = recipe_of(tmp_path, LORA, *HOW, f"zoo.source={tmp_path / 'zoo'}")
    bench = bench_of(recipe)
    run(recipe, bench, tmp_path / "run", "zoo", "opponents", "train", "generate", "evaluate")
    log = (tmp_path / "run/train/log.jsonl").read_text().splitlines()
    assert all(json.loads(line)["terms"]["product"] > 0 for line in log if json.loads(line)["phase"] == "train")
    generated = load_file(tmp_path / "run/generate/generated-unseen-tasks.safetensors")["weights"]
    target = bench.target
    assert isinstance(target, Lora) and torch.equal(Zoo(tmp_path / "run/zoo").weights, made.weights)
    features = torch.randn(5, 6, generator=rng_of(0))
    opened = Run(
        tmp_path / "run", recipe, {name: tmp_path / "run" / name for name in ("zoo", "train", "evaluate")}, Progress()
    )
    opened.bench = bench
    told = opened.generate(["class 3", "class 5"])
    opened.save_adapter(told, tmp_path / "told")
    assert AdapterFolder.open(tmp_path / "told").classes == ("class 3", "class 5")
    with torch.no_grad():
        pooled = loaded(peft, target.network, tmp_path / "told")(features)
        expected = merged(target.network, target.spec, target.spec.flatten(told.tensors))(features)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)
    for row in range(2):
        folder = tmp_path / f"generated/{row}"
        write_adapter(
            folder, target.spec, target.spec.unflatten(generated[row]), base_model="", texts=("t",), classes=("a", "b")
        )
        with torch.no_grad():
            pooled = loaded(peft, target.network, folder)(features)
            expected = merged(target.network, target.spec, generated[row])(features)
        torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_a_product_loss_needs_products(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "losses={product: 0.5}")
    bench = bench_of(recipe)
    run(recipe, bench, tmp_path, "zoo")
    assert said_by(lambda: run(recipe, bench, tmp_path, "train")) == (
        "losses.product: the weights of this target are no low-rank products; set it to 0"
    )
