"""The linear predictor against least squares written out, and what moves of it when it is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.toys import LAYOUT, MASK, WIDTH, condition_of, correlated, linear, tokens_of
from wspace.components.predictors.by_place import ByPlace
from wspace.components.predictors.directions import LOOKED_AT, TRIED, Directions
from wspace.components.predictors.linear import Linear
from wspace.interfaces import Condition, TokenLayout
from wspace.learning.ridge_regression import PENALTIES
from wspace.support.errors import UserError


def naive_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of min |Y - X W - b|^2 / n + penalty s |W|^2 as one augmented least-squares problem."""
    n, width = x.shape
    strength = penalty * np.trace(np.cov(x.T, bias=True)) / width
    rows = np.block([[x, np.ones((n, 1))], [np.sqrt(n * strength) * np.eye(width), np.zeros((width, 1))]])
    solved = np.linalg.lstsq(rows, np.vstack([y, np.zeros((width, y.shape[1]))]), rcond=None)[0]
    return solved[:-1], solved[-1]


def fitted(noise: float = 0.5) -> Linear:
    predictor = linear()
    predictor.fit(*correlated(12, 2, noise), correlated(6, 3, noise))
    return predictor


@pytest.mark.parametrize("noise", [0.01, 3.0])
def test_of_zoo_is_least_squares_with_the_penalty_best_on_held_out_tasks(noise: float) -> None:
    (tokens, condition), (others, asked) = correlated(12, 2, noise), correlated(6, 3, noise)
    predictor = fitted(noise)
    x, y = condition.pooled.double().numpy(), tokens.flatten(1).double().numpy()
    errors = {}
    for penalty in PENALTIES:
        weight, bias = naive_ridge(x, y, penalty)
        said = asked.pooled.double().numpy() @ weight + bias
        errors[penalty] = float(np.mean(((said - others.flatten(1).numpy()) ** 2)[:, MASK.flatten().numpy()]))
    best = min(errors, key=errors.__getitem__)
    weight, bias = naive_ridge(x, y, best)
    expected = (asked.pooled.double().numpy() @ weight + bias).reshape(6, *MASK.shape)
    np.testing.assert_allclose(predictor.of_zoo(asked).numpy(), expected, rtol=1e-3, atol=1e-3)
    assert float(predictor.spread) == pytest.approx(errors[best] ** 0.5, rel=1e-3)
    assert min(errors.values()) < 0.9 * max(errors.values())  # the choice matters


@pytest.mark.parametrize("stretch", [1.0, 1e-3, 1e3])
def test_what_is_trained_starts_at_of_zoo(stretch: float) -> None:
    """Also where the conditions vary along one axis a thousand times as much as along the others."""

    def stretched(tokens: Tensor, condition: Condition) -> tuple[Tensor, Condition]:
        pooled = condition.pooled * torch.tensor([stretch, 1.0, 1.0])
        return tokens, Condition(pooled[:, None], condition.mask, pooled)

    predictor, (_, asked) = linear(), stretched(*correlated(5, 9, 0.5))
    predictor.fit(*stretched(*correlated(12, 2, 0.5)), stretched(*correlated(6, 3, 0.5)))
    torch.testing.assert_close(predictor(asked), predictor.of_zoo(asked), rtol=1e-3, atol=1e-3)


def test_inputs_are_turned_to_their_axes_and_half_way_to_white() -> None:
    _, condition = correlated(400, 2, 0.5)
    pooled = condition.pooled * torch.tensor([4.0, 1.0, 0.5])
    stretched = Condition(pooled[:, None], condition.mask, pooled)
    predictor = linear()
    predictor.fit(tokens_of(400), stretched, (tokens_of(400, 1), stretched))
    turned = np.cov((pooled @ predictor.turn).T.numpy(), bias=True)
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-3)
    before = np.linalg.eigvalsh(np.cov(pooled.T.numpy(), bias=True)) ** 0.5  # ascending, as the axes are
    after = np.diag(turned) ** 0.5
    np.testing.assert_allclose(after / after[-1], (before / before[-1]) ** 0.5, rtol=0.05)
    assert np.mean(after**2) == pytest.approx(1, rel=0.01)


def test_with_fewer_axes_it_starts_at_of_zoo_along_the_widest_ones() -> None:
    """Also for conditions that are not about zero: the mean condition has the mean network."""
    (tokens, condition), spread = correlated(40, 2, 0.5), torch.tensor([0.3, 4.0, 1.0])
    pooled = condition.pooled * spread + torch.tensor([5.0, -3.0, 2.0])
    shifted = Condition(pooled[:, None], condition.mask, pooled)
    predictor = Linear(2, layout=LAYOUT, pooled_width=WIDTH)
    predictor.fit(tokens, shifted, (tokens, shifted))
    assert predictor.weight.shape == (2, MASK.numel())
    _, axes = np.linalg.eigh(np.cov(pooled.T.numpy(), bias=True))
    wide = torch.tensor(axes[:, 1:] @ axes[:, 1:].T, dtype=torch.float32)
    center = pooled.mean(0)
    projected = center + (pooled - center) @ wide
    expected = predictor.of_zoo(Condition(projected[:, None], condition.mask, projected))
    torch.testing.assert_close(predictor(shifted), expected, rtol=1e-3, atol=1e-3)
    assert (predictor(shifted) - predictor.of_zoo(shifted)).abs().max() > 0.1


def test_training_moves_the_prediction_and_not_of_zoo() -> None:
    predictor, asked = fitted(), condition_of(4)
    before, spread = predictor.of_zoo(asked), predictor.spread.clone()
    optimizer = torch.optim.Adam(predictor.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        predictor(asked).square().sum().backward()
        optimizer.step()
    assert [name for name, p in predictor.named_parameters() if p.grad is not None and p.grad.any()] == [
        "weight",
        "bias",
    ]
    assert (predictor(asked) - before).abs().max() > 0.1
    assert torch.equal(predictor.of_zoo(asked), before) and torch.equal(predictor.spread, spread)
    assert not predictor.of_zoo(asked).requires_grad


def test_a_fresh_predictor_takes_the_state_of_a_fitted_one() -> None:
    predictor, fresh, asked = fitted(), linear(), condition_of(4)
    fresh.load_state_dict(predictor.state_dict())
    assert torch.equal(fresh(asked), predictor(asked)) and torch.equal(fresh.of_zoo(asked), predictor.of_zoo(asked))
    assert float(fresh.spread) == float(predictor.spread) != 1


def test_networks_all_alike_are_predicted_with_a_small_spread() -> None:
    condition, tokens = condition_of(5), torch.ones(5, *MASK.shape) * MASK
    predictor = linear()
    predictor.fit(tokens, condition, (tokens, condition))
    assert 0 < float(predictor.spread) < 1e-5
    torch.testing.assert_close(predictor(condition), tokens, rtol=0, atol=1e-4)


def test_conditions_all_alike_predict_the_mean_network() -> None:
    tokens, asked = tokens_of(5), condition_of(3)
    alike = Condition(torch.ones(5, 1, WIDTH), torch.ones(5, 1, dtype=torch.bool), torch.ones(5, WIDTH))
    predictor = linear()
    predictor.fit(tokens, alike, (tokens, alike))
    mean = tokens.mean(0).expand(3, -1, -1)
    for said in (predictor.of_zoo(asked), predictor(asked)):
        torch.testing.assert_close(said, mean, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- by place

SERVES = torch.tensor([[0, 1, -1, 2], [0, 2, 1, -1]])  # rows of two weights each, and two weights of all


def by_place(serves: Tensor | None = SERVES, task: bool = True) -> ByPlace:
    return ByPlace(4, task, layout=TokenLayout(torch.ones(2, 4, dtype=torch.bool), serves=serves), condition_width=4)


def of_classes(tasks: list[list[int]]) -> Condition:
    """A token for each class, of seven, in the task's order."""
    texts = torch.randn(7, 4, generator=torch.Generator().manual_seed(5))
    mask = torch.arange(3) < torch.tensor([len(task) for task in tasks])[:, None]
    tokens = torch.stack([texts[task + [0] * (3 - len(task))] for task in tasks]) * mask[..., None]
    return Condition(tokens, mask, torch.zeros(len(tasks), 1))


def networks_of(condition: Condition, noise: float = 0.0) -> Tensor:
    """Of each class its first value and its second, in the place's row; of the task the means of the others."""
    mean = condition.tokens.sum(1) / condition.mask.sum(1, keepdim=True)
    tokens = torch.randn(len(mean), 2, 4, generator=torch.Generator().manual_seed(6)) * noise
    for place in range(3):
        tokens[:, place == SERVES] += condition.tokens[:, place, :2] + 1
    tokens[:, SERVES == -1] += mean[:, 2:]
    return tokens


def fitted_by_place(noise: float = 0.0) -> ByPlace:
    rng = torch.Generator().manual_seed(7)
    tasks = [torch.randperm(7, generator=rng)[: 2 + n % 2].tolist() for n in range(60)]
    condition, held_out, predictor = of_classes(tasks[:40]), of_classes(tasks[40:]), by_place()
    predictor.fit(networks_of(condition, noise), condition, (networks_of(held_out, noise), held_out))
    return predictor


def test_what_serves_a_class_follows_from_its_text_in_orders_that_nobody_trained() -> None:
    asked, predictor = of_classes([[6, 5, 4], [2, 3]]), fitted_by_place()
    here, expected = predictor.of_zoo(asked), networks_of(asked)
    torch.testing.assert_close(here[0], expected[0], rtol=0.01, atol=0.02)
    used = SERVES < 2
    torch.testing.assert_close(here[1][used], expected[1][used], rtol=0.01, atol=0.02)
    torch.testing.assert_close(predictor(asked), here, rtol=1e-3, atol=1e-3)


def test_to_exchange_two_classes_exchanges_their_rows_also_when_trained() -> None:
    predictor = fitted_by_place(0.3)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8)))
    one, other = predictor(of_classes([[1, 4, 6], [4, 1, 6]])).detach()
    torch.testing.assert_close(one[SERVES == 0], other[SERVES == 1])
    torch.testing.assert_close(one[SERVES == 1], other[SERVES == 0])
    for same in (SERVES == 2, SERVES == -1):
        torch.testing.assert_close(one[same], other[same])
    assert not torch.allclose(one[SERVES == 0], one[SERVES == 1], atol=0.05)


def test_without_the_task_it_is_one_network_of_which_rows_are_taken() -> None:
    predictor = by_place(task=False)
    condition = of_classes([[0, 1, 2], [3, 4], [5, 6, 0], [2, 4, 1], [6, 3]])
    predictor.fit(networks_of(condition, 0.3), condition, (networks_of(condition), condition))
    one, other = predictor(of_classes([[1, 4, 6], [3, 4]])).detach()
    for same in (SERVES == 1, SERVES == -1):
        torch.testing.assert_close(one[same], other[same])


@pytest.mark.parametrize(
    ("serves", "message"),
    [
        (
            None,
            "predictor 'by-place': no weight is known to serve one class alone, as in a target with outputs and a tokenizer "
            "that is not lossy; use predictor 'linear'",
        ),
        (
            torch.tensor([[0, 1, 1, 0], [0, -1, -1, -1]]),
            "predictor 'by-place': outputs have unlike numbers of weights of their own (3, 2): use predictor 'linear'",
        ),
    ],
)
def test_without_weights_of_places_it_is_refused(serves: Tensor | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        by_place(serves)
    assert str(caught.value) == message


# ---------------------------------------------------------------- directions


def directions(count: int) -> Directions:
    return Directions(count, layout=LAYOUT, pooled_width=WIDTH)


def test_along_all_directions_it_is_ridge_regression_on_all_weights() -> None:
    training, held_out = correlated(12, 2, 0.5), correlated(6, 3, 0.5)
    predictor, whole, (_, asked) = directions(8), linear(), correlated(5, 9, 0.5)
    predictor.fit(*training, held_out)
    whole.fit(*training, held_out)
    torch.testing.assert_close(predictor.of_zoo(asked), whole.of_zoo(asked), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(predictor(asked), whole.of_zoo(asked), rtol=1e-3, atol=1e-3)
    assert float(predictor.spread) == pytest.approx(float(whole.spread), rel=1e-3)


def test_directions_are_the_principal_axes_in_order_and_of_unit_size() -> None:
    tokens, condition = correlated(12, 2, 0.5)
    predictor = directions(2)
    predictor.fit(tokens, condition, correlated(6, 3, 0.5))
    flat = (tokens - tokens.mean(0)).flatten(1)[:, MASK.flatten()]
    axes = torch.linalg.svd(flat, full_matrices=False).Vh[:2] * MASK.sum() ** 0.5
    along = predictor.along.flatten(1)[:, MASK.flatten()]
    signs = (axes * along).sum(1, keepdim=True).sign()
    torch.testing.assert_close(along, axes * signs, rtol=1e-3, atol=1e-3)


def test_fewer_networks_than_directions_leave_the_others_at_zero() -> None:
    tokens, condition = correlated(3, 2, 0.5)
    predictor = directions(8)
    predictor.fit(tokens, condition, correlated(2, 3, 0.5))
    sizes = predictor.along.square().mean((1, 2))
    assert (sizes[:2] > 0).all() and (sizes[2:] == 0).all()
    alike = tokens[:1].expand(3, -1, -1)
    predictor.fit(alike, condition, (alike[:2], condition_of(2)))
    torch.testing.assert_close(predictor.of_zoo(condition_of(2)), alike[:2])


@pytest.mark.parametrize("best", [TRIED[0], TRIED[3], TRIED[-1]])
def test_in_parts_the_penalty_is_that_whose_networks_are_the_most_accurate(best: float) -> None:
    """Of those held out, and then of others: made of all networks but its own, and of all."""
    (tokens, condition), (others, asked) = correlated(12, 2, 0.5), correlated(3, 3, 0.5)
    away = (torch.cat([tokens, others]) - tokens.mean(0)).flatten(1).double()
    products, seen = away @ away.mT / MASK.sum(), list[tuple[int, torch.Tensor]]()

    def look(shares: Tensor, number: int) -> float:
        penalty = TRIED[len(seen) % len(TRIED)]
        seen.append((number, shares))
        return float(penalty == best)

    predictor = directions(8)
    sums = predictor.fit_parts(products, condition, asked, look)
    twice = [number for number in (0, 1, 2, 3, 4) for _ in range(2)]
    assert [number for number, _ in seen[:: len(TRIED)]] == [12, 13, 14, *twice] and LOOKED_AT == 8
    assert [bool(shares[number] != 0) for number, shares in seen[:: len(TRIED)]] == 3 * [False] + 5 * [False, True]
    for _, shares in seen:
        assert (shares[12:] == 0).all() and float(shares.sum()) == pytest.approx(1, abs=1e-6)
    weight, bias = naive_ridge(condition.pooled.double().numpy(), tokens.flatten(1).double().numpy(), best)
    predictor.at(LAYOUT, (sums.double() @ away[:12]).float().unflatten(1, MASK.shape))
    expected = (asked.pooled.double().numpy() @ weight + bias).reshape(3, *MASK.shape)
    made = tokens.mean(0) + predictor.of_zoo(asked)
    np.testing.assert_allclose(made.numpy(), expected, rtol=1e-3, atol=1e-3)
    assert predictor.along.shape[0] == 8 and torch.equal(predictor.mean, torch.zeros(MASK.shape))


def test_of_penalties_as_good_it_takes_the_smallest_which_gives_a_seen_task_its_own_network() -> None:
    tokens, condition = correlated(3, 2, 0.5)
    away = (torch.cat([tokens, tokens[:1]]) - tokens.mean(0)).flatten(1).double()
    predictor = directions(4)
    held_out = condition_of(1)
    sums = predictor.fit_parts(away @ away.mT / MASK.sum(), condition, held_out, lambda *_: 0.5)
    predictor.at(LAYOUT, (sums.double() @ away[:3]).float().unflatten(1, MASK.shape))
    torch.testing.assert_close(tokens.mean(0) + predictor.of_zoo(condition), tokens, rtol=1e-2, atol=1e-2)
