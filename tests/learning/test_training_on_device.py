"""Training a generator on a device that is not the CPU: nothing is mixed, and no step waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.learning.test_phases import coded
from tests.learning.test_training_loop import (
    ADVERSARY,
    CLASS_TEXTS,
    PROMPTS,
    SETTINGS,
    SPEC,
    WEIGHTS,
    loop_of,
    system_of,
)
from tests.support.pretended import DEVICE, Counted, pretended
from tests.support.stand_ins import Adapter, Judge, Units
from wspace.data.features import Pool
from wspace.data.prompts import prompts_of
from wspace.data.tasks import Task
from wspace.learning.adversary import Adversary
from wspace.learning.loop import Log
from wspace.learning.phases import GeneratorTraining, TaskLossStep, TrainingPairs, TrainingSet
from wspace.learning.system import System
from wspace.support.errors import Diverged
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.support.settings import Generate, Losses, Reconstruction, TaskLoss

FEW, MANY = 2, 6
TASKS: list[Task] = [(0, 1), (1, 2, 3), (3, 4)]


def training(pairs: TrainingPairs, folder: Path) -> GeneratorTraining:
    return GeneratorTraining(TrainingSet((pairs,)), DEVICE, 3, folder, Progress())


def there(system: System) -> TrainingPairs:
    return TrainingPairs(system.to(DEVICE), WEIGHTS[:8], PROMPTS[:8]).to(DEVICE)


def by_the_generators_loss(steps: int, folder: Path) -> Log:
    system = system_of().to(DEVICE)
    adversary = Adversary(Judge(6, layout=system.tokenizer.layout), ADVERSARY, steps).to(DEVICE)
    return training(there(system), folder).generator(
        replace(SETTINGS, steps=steps, check_every=steps, augment=0.5, accumulate=2),
        Losses(symmetry=0.1, adversarial=0.1),
        lambda: 0.5,
        symmetry=Units(spec=SPEC),
        adversary=adversary,
    )


def by_a_task_loss(steps: int, folder: Path) -> Log:
    settings = TaskLoss(steps=steps, batch=3, images=4, zoo=0.1, check_every=steps)
    rng = stream(0, "images")
    pool = Pool.of(torch.randn(30, 3, generator=rng), torch.arange(30) % 6, 6).to(DEVICE)
    texts, pairs = CLASS_TEXTS.to(DEVICE), there(system_of())

    def drawn(count: int, rng: torch.Generator) -> Sequence[Task]:
        return [TASKS[row] for row in torch.randint(3, (count,), generator=rng).tolist()]

    target = Adapter(2, feature_dim=3, text_dim=4)
    step = TaskLossStep(pairs, settings, target, pool, texts, drawn, lambda tasks: prompts_of(tasks, texts), DEVICE)
    return training(pairs, folder).task_loss(settings, step, lambda: 0.5)


def of_a_code(steps: int, folder: Path) -> Log:
    pairs = coded()
    settings = Reconstruction(steps=steps, batch=4, check_every=steps)
    return training(replace(pairs, system=pairs.system.to(DEVICE)).to(DEVICE), folder).reconstruction(
        settings, lambda: 0.5
    )


PHASES: dict[str, Callable[[int, Path], Log]] = {
    "by the generator's loss": by_the_generators_loss,
    "by a task loss": by_a_task_loss,
    "of a code": of_a_code,
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_step_waits_for_nothing_is_in_the_log_and_tells_the_device_which_rows_it_takes_not_what_is_in_them(
    phase: str, tmp_path: Path
) -> None:
    def counted(steps: int) -> tuple[Counted, Log]:
        folder = tmp_path / str(steps)
        folder.mkdir()
        with pretended() as counts:
            log = PHASES[phase](steps, folder)
        return counts, log

    (few, short), (many, long) = counted(FEW), counted(MANY)
    assert many.waits == few.waits
    assert (many.copies - few.copies) / (MANY - FEW) <= 10
    assert (many.bytes - few.bytes) / (MANY - FEW) <= 400  # of four networks
    assert [entry["step"] for entry in long] == list(range(1, MANY + 1))
    assert all(isinstance(entry["loss"], float) and entry["gradient"] > 0 for entry in long)
    assert short[0]["loss"] == long[0]["loss"]


def test_a_training_that_diverges_there_says_at_which_step_it_did(tmp_path: Path) -> None:
    with pretended(), pytest.raises(Diverged, match=r"the loss .*nan at step 2; lower train\.lr"):
        loop = loop_of(tmp_path)
        loop.module.to(DEVICE)
        for number in range(6):
            weight = next(iter(loop.parameters.values()))
            loop.advance([(weight.square().mean() * (torch.nan if number == 2 else 1.0), {})])
        loop.read()


def test_networks_sampled_there_are_those_of_the_cpu() -> None:
    def sampled(device: torch.device) -> Tensor:
        system = system_of().eval().to(device)
        return system.sample(PROMPTS.to(device), Generate(steps=3, temperature=1.0), stream(0, "draw")).cpu()

    with pretended():
        made = sampled(DEVICE)
    torch.testing.assert_close(made, sampled(torch.device("cpu")))
