"""Training a generator on tensors: what a step adds up, whose zoo a batch is of, which names of terms are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.learning.test_training_loop import ADVERSARY, PROMPTS, SETTINGS, SPEC, WEIGHTS, system_of
from tests.support.stand_ins import Judge, Units
from wspace.components.conditioners.text_set import TextSet
from wspace.interfaces import Closed, Condition, Generator, Pairs, Tokenizer, TokenLayout, Told
from wspace.learning.adversary import Adversary
from wspace.learning.phases import (
    GeneratorStep,
    GeneratorTraining,
    ReconstructionStep,
    TrainingPairs,
    TrainingSet,
    generator_parameters,
)
from wspace.learning.system import System
from wspace.learning.terms import RESERVED, check_terms
from wspace.support.errors import UserError
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.support.settings import Generate, Losses, Reconstruction, Train

CPU = torch.device("cpu")
FOUR = replace(SETTINGS, batch=4)


class Code(Tokenizer):
    """Weights as tokens of one value times a learnt factor."""

    lossy = True

    def __init__(self, term: str = "squares"):
        super().__init__()
        self.layout = TokenLayout(torch.ones(SPEC.size, 1, dtype=torch.bool))
        self.factor, self.term, self.encoded = nn.Parameter(torch.tensor(0.5)), term, 0

    def fit(self, weights: Tensor) -> None:
        pass

    def tokenize(self, weights: Tensor) -> Tensor:
        self.encoded += len(weights)
        return weights[..., None]

    def detokenize(self, tokens: Tensor) -> Tensor:
        return self.factor * tokens[..., 0]

    def loss(self, weights: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {self.term: (self.detokenize(self.tokenize(weights)) - weights).square().mean()}

    def log_values(self) -> dict[str, Tensor]:
        return {"factor": self.factor.detach()}


class Mean(Generator):
    """One learnt network for every task."""

    def __init__(self, layout: TokenLayout, *terms: str):
        super().__init__()
        self.mean, self.terms = nn.Parameter(torch.zeros(layout.mask.shape)), terms or ("squares",)

    def fit(self, closed: Closed) -> None:
        pass

    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        return {name: (pairs.tokens - self.mean).square().mean() for name in self.terms}

    def sample(
        self, condition: Condition, null: Condition, how: Generate, rng: torch.Generator, watch: object = None
    ) -> Tensor:
        return self.mean.expand(len(condition.pooled), -1, -1)


def coded(*terms: str, code: str = "squares") -> TrainingPairs:
    tokenizer = Code(code)
    return TrainingPairs(System(SPEC, tokenizer, TextSet(text_dim=4), Mean(tokenizer.layout, *terms)), WEIGHTS, PROMPTS)


def step_on(pairs: TrainingPairs, losses: Losses | None = None, **more: object) -> GeneratorStep:
    return GeneratorStep(TrainingSet((pairs,)), FOUR, losses or Losses(), CPU, **more)  # type: ignore[arg-type]


def training_of(folder: Path, *zoos: TrainingPairs, joint: bool = False) -> GeneratorTraining:
    return GeneratorTraining(TrainingSet(zoos, joint), CPU, 3, folder, Progress())


# ---------------------------------------------------------------- a step


def test_the_loss_is_the_sum_of_terms_each_by_its_weight() -> None:
    system = system_of()
    adversary = Adversary(Judge(6, layout=system.tokenizer.layout), replace(ADVERSARY, warmup=0.0), 6)
    step = step_on(
        TrainingPairs(system, WEIGHTS[:8], PROMPTS[:8]),
        Losses(symmetry=0.3, adversarial=0.2),
        symmetry=Units(spec=SPEC),
        adversary=adversary,
    )
    for number in range(2):
        ((loss, values),) = step(number, stream(number))
        terms = values["terms"]
        total = terms["denoising"] + 0.3 * terms["symmetry"] + 0.2 * terms.get("adversarial", torch.zeros(()))
        torch.testing.assert_close(loss.detach(), total)
        assert ("discriminator" in values) == (number == 0) and ("adversarial" in terms) == (number == 1)
        assert not any(value.requires_grad for group in values.values() for value in group.values())


def test_codes_are_made_once_for_a_zoo_and_anew_for_each_batch_of_several() -> None:
    alone, one, other = coded(), coded(), coded()
    step = step_on(alone)
    together = GeneratorStep(TrainingSet((one, other), joint=True), FOUR, Losses(), CPU)
    for number in range(8):
        assert len(list(step(number, stream(number)))) == len(list(together(number, stream(number)))) == 1
    encoded = [pairs.system.tokenizer.encoded for pairs in (alone, one, other)]  # type: ignore[union-attr]
    assert encoded[0] == len(WEIGHTS) and encoded[1] + encoded[2] == 8 * 4 and min(encoded) > 0


def test_a_code_is_learnt_and_the_generator_after_it_in_the_phases_of_one_training(tmp_path: Path) -> None:
    pairs = coded()
    training, tokenizer = training_of(tmp_path, pairs), pairs.system.tokenizer
    code = training.reconstruction(Reconstruction(steps=30, batch=8, lr=0.1, check_every=10), lambda: 0.5)
    assert [line["step"] for line in code] == list(range(1, 31))
    assert set(code[0]) == {"step", "loss", "gradient", "terms", "tokenizer"} and set(code[0]["tokenizer"]) == {
        "factor"
    }
    assert code[0]["terms"] == {"squares": code[0]["loss"]} and code[-1]["loss"] < 0.1 * code[0]["loss"]
    assert [line["step"] for line in code if "validation_accuracy" in line] == [10, 20, 30]
    tokenizer.requires_grad_(False)
    own = Train(steps=30, batch=8, lr=0.1, check_every=30)
    log = training.generator(own, Losses(), lambda: 0.5)
    generated = pairs.system.sample(PROMPTS[:1], Generate(), stream(0))[0] / tokenizer.factor.detach()  # type: ignore[operator]
    assert (generated - WEIGHTS.mean(0)).norm() < 0.8 * WEIGHTS.mean(0).norm()  # where it began
    assert len(log) == 30 and not pairs.system.training
    assert {file.name for file in tmp_path.iterdir()} == {
        "reconstruction.checkpoint.safetensors", "train.checkpoint.safetensors",
    }  # fmt: skip
    again = training_of(tmp_path, coded())  # finished already, as its checkpoint says: nothing is trained, or looked at
    assert again.generator(own, Losses(), lambda: pytest.fail("validated")) == log
    assert torch.equal(again.system.generator.mean, pairs.system.generator.mean)  # type: ignore[arg-type]


def test_the_generators_own_loss_trains_neither_task_parameters_nor_a_code() -> None:
    system = system_of()
    names = {name for name, p in system.named_parameters() if any(p is one for one in generator_parameters(system))}
    assert names == {name for name, _ in system.named_parameters()} - {
        "generator.predictor.weight", "generator.predictor.bias",
    }  # fmt: skip
    assert [p.shape for p in generator_parameters(coded().system)] == [(SPEC.size, 1)]


def test_what_a_task_loss_trains_last_the_generators_own_loss_trains_before() -> None:
    system = system_of()
    system.generator.task_loss_last = True
    assert len(generator_parameters(system)) == len(list(system.parameters()))


# ---------------------------------------------------------------- names of terms


@pytest.mark.parametrize(
    "name", ["adversarial", "product", "loss", "gradient", "step", "phase", "terms", "validation_accuracy"]
)
def test_a_term_with_a_name_that_the_training_keeps_is_refused(name: str) -> None:
    refusal = f"loss returned a term named {name!r}, a name that the training keeps for its own: give it another name"
    with pytest.raises(UserError) as caught:
        list(step_on(coded("squares", name))(0, stream(0)))
    assert str(caught.value) == f"Mean.{refusal}"
    with pytest.raises(UserError) as caught:
        ReconstructionStep(TrainingSet((coded(code=name),)), 4, CPU)(0, stream(0))
    assert str(caught.value) == f"Code.{refusal}"
    assert name in RESERVED


def test_a_symmetry_term_that_was_not_asked_for_is_refused() -> None:
    """Its weight would be the recipe's 0."""
    asked_for = "return it where it is asked for, or give it another name"
    with pytest.raises(UserError) as caught:
        list(step_on(coded("squares", "symmetry"))(0, stream(0)))
    assert str(caught.value) == (
        f"Mean.loss returned the term 'symmetry' for a batch that did not ask for it (pairs.moves.penalty): {asked_for}"
    )
    terms = {"symmetry": torch.zeros(())}
    assert check_terms(coded().system.generator, terms, penalty=True) == terms


# ---------------------------------------------------------------- the order of calls


class Asking(TextSet):
    """Texts, from where it is told to begin."""

    asks = True

    def told(self, what: Told) -> None:
        self.start = what.texts.mean()


def test_a_conditioner_that_asks_is_told_before_it_is_used_and_after_it_is_loaded() -> None:
    tokenizer = Code()
    system = System(SPEC, tokenizer, Asking(text_dim=4), Mean(tokenizer.layout))
    again = "call System.tell before this, and again after load_state_dict"
    told = Told(torch.ones(3, 4), torch.zeros(3, 1, 192), torch.ones(4))

    def use() -> None:
        system.sample(PROMPTS, Generate(), stream(0))

    for call in (use, lambda: system.fit(WEIGHTS, PROMPTS, (WEIGHTS, PROMPTS)), lambda: system.pairs(WEIGHTS, PROMPTS)):
        with pytest.raises(RuntimeError) as caught:
            call()
        assert str(caught.value) == f"Asking asks for the data set and the architecture: {again}"
    with pytest.raises(RuntimeError) as caught:
        system.tell(None)
    assert str(caught.value) == "Asking asks for the data set and the architecture, and is told nothing"
    system.tell(told)
    use()
    system.load_state_dict(system.state_dict())
    with pytest.raises(RuntimeError):
        use()
    system.tell(told)
    use()
