"""The CLIP adapter against modules of torch.nn, one network at a time."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from wspace_t2w.clip_adapter import ClipAdapter

from wspace.api import Target, UserError

FEATURES, RANK, TEXTS = 6, 3, 5
Activation = Literal["gelu", "tanh", "none"]
MODULES: dict[str, nn.Module] = {"gelu": nn.GELU(), "tanh": nn.Tanh(), "none": nn.Identity()}
VARIANTS = [(activation, bias) for activation in MODULES for bias in (True, False)]
variants = pytest.mark.parametrize(("activation", "bias"), VARIANTS)


def target_of(activation: Activation, bias: bool, temperature: float = 50.0) -> ClipAdapter:
    return ClipAdapter(RANK, activation, bias, temperature, feature_dim=FEATURES, text_dim=TEXTS)


def inputs(count: int, images: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    """(B, M, F) and (B, K, T), in double."""
    rng = torch.Generator().manual_seed(1)
    texts = torch.randn(count, classes, TEXTS, generator=rng, dtype=torch.float64)
    features = torch.randn(count, images, FEATURES, generator=rng, dtype=torch.float64)
    return features, functional.normalize(texts, dim=2)


def weights_of(target: ClipAdapter, count: int) -> Tensor:
    return target.init(count, torch.Generator().manual_seed(2)).double()


@variants
def test_logits_are_those_of_linear_layers_and_a_cosine(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias, temperature=7.0)
    weights, (features, texts) = weights_of(target, 3), inputs(3)
    logits = target.logits(weights, features, texts)
    assert logits.shape == (3, 4, 3)
    for b in range(3):
        named = target.spec.unflatten(weights[b])
        layers = [nn.Linear(FEATURES, RANK, bias=bias), nn.Linear(RANK, TEXTS, bias=bias)]
        for number, layer in enumerate(layers, start=1):
            layer.weight = nn.Parameter(named[f"w{number}"].T)
            if bias:
                layer.bias = nn.Parameter(named[f"b{number}"])
        projected = nn.Sequential(layers[0], MODULES[activation], layers[1])(features[b])  # (M, T)
        cosine = functional.cosine_similarity(projected[:, None], texts[b][None], dim=2)  # (M, K)
        torch.testing.assert_close(logits[b], 7.0 * cosine)


@variants
def test_the_gradient_that_is_written_out_is_autograds(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias)
    weights, (features, texts) = weights_of(target, 3), inputs(3, images=7, classes=5)
    hidden = torch.zeros(3, 1, 5, dtype=torch.bool)
    hidden[1, 0, 3:] = True
    labels = torch.randint(0, 3, (3, 7), generator=torch.Generator().manual_seed(3))
    losses, gradient = target.descent(weights, features, texts, hidden, labels)
    expected_losses, expected = Target.descent(target, weights, features, texts, hidden, labels)
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(gradient, expected)


@variants
def test_outputs_of_zero_have_the_gradient_that_autograd_gives_them(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias)
    weights, (features, texts) = weights_of(target, 2), inputs(2)
    weights[0, target.spec.slices["w2"].start :] = 0.0
    given = features, texts, torch.zeros(2, 1, 3, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.long)
    losses, gradient = target.descent(weights, *given)
    expected_losses, expected = Target.descent(target, weights, *given)
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(gradient, expected)


@variants
def test_a_batch_of_networks_is_each_network_by_itself(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias)
    weights, (features, texts) = weights_of(target, 4), inputs(4)
    alone = [target.logits(weights[b : b + 1], features[b : b + 1], texts[b : b + 1]) for b in range(4)]
    torch.testing.assert_close(target.logits(weights, features, texts), torch.cat(alone))


@variants
def test_a_plain_module_is_two_layers_with_the_same_scores(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias)
    weights, (features, texts) = weights_of(target, 3), inputs(3)
    logits = target.logits(weights, features, texts)
    for b in range(3):
        module = target.plain(weights[b].float()).double()
        assert {name for name, _ in module.named_parameters()} == {
            f"{layer}.{part}" for layer in ("down", "up") for part in (("weight", "bias") if bias else ("weight",))
        }
        torch.testing.assert_close(module(features[b], texts[b]), logits[b], rtol=1e-4, atol=1e-4)


@variants
def test_gradients_agree_with_finite_differences(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias, temperature=1.0)
    features, texts = inputs(2, images=2)
    weights = weights_of(target, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: target.logits(w, features, texts), weights)


def test_a_network_that_projects_to_nothing_has_finite_logits_and_gradients() -> None:
    target = target_of("gelu", True)
    weights = torch.zeros(2, target.spec.size, dtype=torch.float64, requires_grad=True)
    logits = target.logits(weights, *inputs(2))
    logits.sum().backward()
    assert not logits.any() and weights.grad is not None and torch.isfinite(weights.grad).all()


@variants
def test_fresh_weights_are_uniform_within_the_bounds_of_linear(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias)
    named = target.spec.unflatten(target.init(4000, torch.Generator().manual_seed(0)))
    assert set(named) == ({"w1", "b1", "w2", "b2"} if bias else {"w1", "w2"})
    for name, tensor in named.items():
        layer = nn.Linear(FEATURES, RANK) if name.endswith("1") else nn.Linear(RANK, TEXTS)
        bound = layer.in_features**-0.5
        assert max(p.abs().max() for p in layer.parameters()) <= bound  # torch's own draws agree
        assert 0.99 * bound < tensor.abs().max() <= bound
        assert abs(tensor.mean()) < 0.02 * bound
        assert tensor.std() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_fresh_weights_follow_the_generator() -> None:
    target = target_of("gelu", True)
    first, again = (target.init(2, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    assert first.shape == (2, target.spec.size) and first.dtype == torch.float32


@pytest.mark.parametrize("activation", MODULES)
def test_the_linear_variant_alone_is_invariant_under_every_change_of_basis(activation: Activation) -> None:
    """Equation 15: W1 W2 = (W1 A)(A^-1 W2) for every A in GL(r)."""
    target = target_of(activation, False)
    weights, (features, texts) = weights_of(target, 5), inputs(5)
    named = target.spec.unflatten(weights)
    a = torch.randn(5, RANK, RANK, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    moved = target.spec.flatten({"w1": named["w1"] @ a, "w2": torch.linalg.solve(a, named["w2"])})
    distance = (target.logits(moved, features, texts) - target.logits(weights, features, texts)).abs().max()
    assert distance < 1e-8 if activation == "none" else distance > 1e-2


def test_dropping_a_class_leaves_the_logits_of_the_others() -> None:
    target = target_of("gelu", True)
    weights, (features, texts) = weights_of(target, 2), inputs(2, classes=5)
    torch.testing.assert_close(
        target.logits(weights, features, texts[:, :3]), target.logits(weights, features, texts)[..., :3]
    )


# ---------------------------------------------------------------- put together from linear scores


def linear_scores(classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scorers (1, K, F) and biases (1, K), features (1, M, F), unit texts (1, K, T) that share a direction."""
    rng = torch.Generator().manual_seed(classes)
    scorers, bias = torch.randn(1, classes, 40, generator=rng) / 6, torch.randn(1, classes, generator=rng)
    texts = functional.normalize(torch.randn(1, classes, 48, generator=rng) + 1, dim=2)
    return scorers, bias, torch.randn(1, 200, 40, generator=rng).abs(), texts


def centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(2, keepdim=True)


@pytest.mark.parametrize("activation", ["gelu", "tanh", "none"])
@pytest.mark.parametrize("classes", [2, 9, 16])
def test_a_head_of_enough_units_gives_the_scores_it_is_put_together_from(activation: Activation, classes: int) -> None:
    target = ClipAdapter(16, activation, feature_dim=40, text_dim=48)
    scorers, bias, features, texts = linear_scores(classes)
    weights = target.from_linear(scorers, bias, texts, torch.ones(1, classes, dtype=torch.bool))
    scores, expected = target.logits(weights, features, texts), features @ scorers.mT + bias[:, None]
    assert torch.equal(scores.argmax(2), expected.argmax(2))
    # the cosine bends them, for they change the length of the output
    assert (centred(scores) - centred(expected)).abs().max() < 0.2 * centred(expected).abs().max()


def test_a_head_of_fewer_units_has_the_principal_directions_of_the_scores() -> None:
    target = ClipAdapter(4, "none", feature_dim=40, text_dim=48)
    scorers, bias, features, texts = linear_scores(9)
    weights = target.from_linear(scorers, bias, texts, torch.ones(1, 9, dtype=torch.bool))
    about = scorers[0] - scorers[0].mean(0)
    u, s, v = torch.linalg.svd(about, full_matrices=False)
    nearest = (u[:, :4] * s[:4]) @ v[:4]
    expected = features[0] @ nearest.T + bias
    assert torch.equal(target.logits(weights, features, texts)[0].argmax(1), expected.argmax(1))


def test_padded_classes_change_nothing_of_a_head_that_is_put_together() -> None:
    target = ClipAdapter(16, feature_dim=40, text_dim=48)
    scorers, bias, _, texts = linear_scores(5)
    alone = target.from_linear(scorers, bias, texts, torch.ones(1, 5, dtype=torch.bool))
    padded = target.from_linear(
        functional.pad(scorers, (0, 0, 0, 3), value=7.0), functional.pad(bias, (0, 3), value=7.0),
        functional.pad(texts, (0, 0, 0, 3), value=7.0), torch.arange(8)[None] < 5,
    )  # fmt: skip
    features = linear_scores(5)[2]
    torch.testing.assert_close(
        target.logits(padded, features, texts), target.logits(alone, features, texts), rtol=1e-3, atol=1e-3
    )


def test_classes_of_one_text_do_not_blow_a_head_up() -> None:
    target = ClipAdapter(16, feature_dim=40, text_dim=48)
    scorers, bias, features, texts = linear_scores(5)
    texts[0, 1] = texts[0, 0]
    weights = target.from_linear(scorers, bias, texts, torch.ones(1, 5, dtype=torch.bool))
    scores = target.logits(weights, features, texts)
    assert weights.isfinite().all() and weights.abs().max() < 1e4
    torch.testing.assert_close(scores[..., 0], scores[..., 1])


def test_gelu_without_biases_cannot_be_put_together() -> None:
    target = ClipAdapter(16, bias=False, feature_dim=40, text_dim=48)
    scorers, bias, _, texts = linear_scores(3)
    with pytest.raises(UserError) as raised:
        target.from_linear(scorers, bias, texts, torch.ones(1, 3, dtype=torch.bool))
    assert str(raised.value) == (
        "clip-adapter: with activation gelu and no bias it is linear nowhere; set bias to true"
    )


@variants
def test_a_frozen_adapter_scores_as_the_target_does(activation: Activation, bias: bool) -> None:
    target = target_of(activation, bias)
    weights, (features, texts) = weights_of(target, 1), inputs(1)
    expected = target.logits(weights, features, texts)[0]
    assert torch.allclose(target.frozen(weights[0], texts[0])(features[0]), expected)


def test_a_frozen_head_of_closed_form_loses_few_digits() -> None:
    """Its biases are large: as `logits` computes them in float32, most of the error is theirs."""
    target = ClipAdapter(rank=8, feature_dim=40, text_dim=30)
    rng = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(6, 30, generator=rng), dim=1)
    scorers, bias = torch.randn(1, 6, 40, generator=rng), torch.randn(1, 6, generator=rng)
    weights = target.from_linear(scorers, bias, texts[None], torch.ones(1, 6, dtype=torch.bool))[0]
    features = torch.randn(200, 40, generator=rng)
    exact = target.logits(weights[None].double(), features[None].double(), texts[None].double())[0]

    def error(scores: torch.Tensor) -> float:
        return float((scores.double() - exact).abs().max())

    assert error(target.frozen(weights, texts)(features)) < 0.3 * error(
        target.logits(weights[None], features[None], texts[None])[0]
    )
