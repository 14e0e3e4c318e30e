"""The adversarial loss against logistic regression written out, whose turn it is, and what is kept on disk."""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch
from torch import Tensor, nn

from tests.support.stand_ins import Judge
from tests.support.toys import LAYOUT, MASK, tokens_of
from wspace.interfaces import Discriminator
from wspace.learning.adversary import OUTRIGHT, Adversary
from wspace.support.errors import Diverged
from wspace.support.settings import Adversary as Settings


class Linear(Discriminator):
    """A weight for each token value, and a bias."""

    def __init__(self, size: float = 0.3):
        super().__init__()
        self.weight = nn.Parameter(size * tokens_of(1, 7)[0])
        self.bias = nn.Parameter(torch.tensor(0.1))

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens * self.weight).sum((1, 2)) + self.bias


def judge(seed: int = 0, width: int = 6) -> Judge:
    torch.manual_seed(seed)
    return Judge(width, layout=LAYOUT)


REAL, GENERATED = tokens_of(6, 1) + 0.2 * MASK, tokens_of(6, 2)


def by_hand(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Equation 13 as it stands, network by network: loss, its slopes by weight and bias, and the accuracy."""
    loss, slope, slope_of_bias, right = torch.zeros(()), torch.zeros(MASK.shape), torch.zeros(()), 0
    for tokens, real in [*((t, True) for t in REAL), *((t, False) for t in GENERATED)]:
        probability = 1 / (1 + (-((tokens * weight).sum() + bias)).exp())
        loss = loss - (probability.log() if real else (1 - probability).log()) / 6
        slope = slope + (probability - float(real)) * tokens / 6
        slope_of_bias = slope_of_bias + (probability - float(real)) / 6
        right += bool(probability > 0.5) == real
    return loss, slope, slope_of_bias, right / 12


def learn(adversary: Adversary, real: Tensor, generated: Tensor) -> dict[str, Tensor]:
    """A step on a batch in one part."""
    adversary.compare(real, generated)
    return adversary.learn()


def test_a_step_of_the_discriminator_is_adam_on_the_logistic_loss_of_equation_13() -> None:
    discriminator = Linear()
    adversary = Adversary(discriminator, Settings(lr=0.05), 10)
    weight, bias = discriminator.weight.detach().clone(), discriminator.bias.detach().clone()
    moments: dict[str, tuple[Tensor, Tensor]] = {"weight": (0 * weight, 0 * weight), "bias": (0 * bias, 0 * bias)}
    running = 0.5
    for step in range(1, 6):
        loss, slope, slope_of_bias, accuracy = by_hand(weight, bias)
        shown = learn(adversary, REAL, GENERATED)
        assert float(shown["loss"]) == pytest.approx(float(loss) / (2 * log(2)), rel=1e-5)
        assert float(shown["accuracy"]) == pytest.approx(accuracy)
        norm = sqrt(float(slope.square().sum() + slope_of_bias.square()))
        assert float(shown["gradient"]) == pytest.approx(norm, rel=1e-5)
        running += 0.05 * (accuracy - running)
        for name, parameter, gradient in (("weight", weight, slope), ("bias", bias, slope_of_bias)):
            first, second = (
                decay * old + (1 - decay) * new
                for decay, old, new in zip((0.9, 0.999), moments[name], (gradient, gradient.square()), strict=True)
            )
            moments[name] = first, second
            parameter -= 0.05 * first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(discriminator.weight.detach(), weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(discriminator.bias.detach(), bias, rtol=1e-4, atol=1e-5)
    assert float(adversary.accuracy) == pytest.approx(running)


def test_one_that_knows_nothing_has_a_loss_of_one_and_no_accuracy() -> None:
    shown = learn(Adversary(Linear(0), Settings(), 10), REAL, REAL)
    assert float(shown["loss"]) == pytest.approx(1, abs=0.01)
    assert float(shown["accuracy"]) == 0.5


def test_learning_leaves_the_generator_without_a_gradient() -> None:
    made = GENERATED.clone().requires_grad_()
    learn(Adversary(judge(), Settings(), 10), REAL, 2 * made)
    assert made.grad is None


def test_judging_is_minus_the_log_of_the_probability_of_real_and_reaches_the_generator_alone() -> None:
    discriminator = Linear()
    frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    discriminator.register_parameter("frozen", frozen)
    made = GENERATED.clone().requires_grad_()
    loss = Adversary(discriminator, Settings(), 10).judge(2 * made)
    trained = {name: p.requires_grad for name, p in discriminator.named_parameters()}
    assert trained == {"weight": True, "bias": True, "frozen": False}
    loss.backward()
    scores = (2 * GENERATED * discriminator.weight.detach()).sum((1, 2)) + float(discriminator.bias.detach())
    probability = 1 / (1 + (-scores).exp())
    assert float(loss.detach()) == pytest.approx(float(-probability.log().mean()), rel=1e-5)
    expected = -(1 - probability)[:, None, None] * 2 * discriminator.weight.detach() / 6
    torch.testing.assert_close(made.grad, expected)
    assert all(p.grad is None for p in discriminator.parameters())


def test_a_judge_that_fails_leaves_its_parameters_as_they_were() -> None:
    adversary = Adversary(judge(), Settings(), 10)
    with pytest.raises(RuntimeError):
        adversary.judge(torch.zeros(2, 3, 3))
    assert all(p.requires_grad for p in adversary.discriminator.parameters())


def test_a_generator_that_descends_the_judgement_comes_to_pass_for_real() -> None:
    adversary = Adversary(judge(width=16), Settings(lr=0.01), 10)
    for _ in range(60):
        learn(adversary, REAL, GENERATED)
    made = GENERATED.clone().requires_grad_()
    before = float(adversary.judge(made).detach())
    optimizer = torch.optim.Adam([made], lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        adversary.judge(made).backward()
        optimizer.step()
    assert before > 1 and float(adversary.judge(made).detach()) < 0.3 * before


@pytest.mark.parametrize(
    ("steps", "warmup", "turn", "expected"),
    [
        (8, 0.0, 1, "DGDGDGDG"),
        (8, 0.0, 3, "DDDGGGDD"),
        (8, 0.5, 1, "DDDDDGDG"),
        (10, 0.25, 2, "DDDDGGDDGG"),
        (8, 0.99, 1, "DDDDDDDD"),
        (4, 0.1, 5, "DDDD"),
    ],
)
def test_discriminator_and_generator_take_turns_after_the_warm_up(
    steps: int, warmup: float, turn: int, expected: str
) -> None:
    adversary = Adversary(judge(), Settings(turn=turn, warmup=warmup), steps)
    assert "".join("D" if adversary.learns_at(step) else "G" for step in range(steps)) == expected


def test_it_wins_outright_when_it_has_been_right_for_long() -> None:
    adversary = Adversary(Linear(), Settings(lr=0.1), 10)
    real, generated = REAL + 9 * MASK, GENERATED - 9 * MASK
    won = []
    for _ in range(120):
        learn(adversary, real, generated)
        won.append(adversary.wins_outright)
    assert not any(won[:70]) and won[-1] and float(adversary.accuracy) > OUTRIGHT == 0.99
    learn(adversary, generated, real)  # once wrong, no more
    assert not adversary.wins_outright


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_a_number_stops_the_training(value: str) -> None:
    adversary = Adversary(Linear(), Settings(), 10)
    before = {name: tensor.clone() for name, tensor in adversary.state().items()}
    with pytest.raises(Diverged) as caught:
        learn(adversary, REAL, GENERATED * float(value))
    assert str(caught.value) == "the discriminator's loss is nan; lower adversary.lr"
    assert all(torch.equal(tensor, before[name]) for name, tensor in adversary.state().items())


def test_its_state_put_back_goes_on_to_the_same_bytes() -> None:
    whole, stopped = (Adversary(judge(), Settings(lr=0.1), 10) for _ in range(2))
    for _ in range(6):
        learn(whole, REAL, GENERATED)
    for _ in range(3):
        learn(stopped, REAL, GENERATED)
    resumed = Adversary(judge(seed=9), Settings(lr=0.1), 10)
    resumed.restore({name: tensor.clone() for name, tensor in stopped.state().items()})
    for _ in range(3):
        learn(resumed, REAL, GENERATED)
    assert set(resumed.state()) == set(whole.state()) and float(whole.accuracy) != 0.5
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in resumed.state().items())


def test_a_state_from_before_its_first_step_is_a_state() -> None:
    fresh, other = Adversary(judge(), Settings(), 10), Adversary(judge(seed=1), Settings(), 10)
    other.restore(fresh.state())
    assert all(torch.equal(tensor, fresh.state()[name]) for name, tensor in other.state().items())
