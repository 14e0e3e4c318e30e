"""What is noted of a training that does not end of it."""

from __future__ import annotations

from wspace.learning.health import Health


def log_of(losses: list[float], used: list[float] | None = None) -> list[dict]:
    log = [{"step": number + 1, "loss": loss, "gradient": 1.0} for number, loss in enumerate(losses)]
    return (
        [entry | {"tokenizer": {"codes_used": share}} for entry, share in zip(log, used, strict=True)] if used else log
    )


def test_a_loss_that_leaps_is_said_once_with_its_step() -> None:
    health, log = Health("train", "train"), log_of([1.0] * 30 + [12.0] + [1.0] * 9)
    assert health.complaints(log[:20], 0) == []
    assert health.complaints(log, 20) == [
        "train: the loss leaps to 12 at step 31, 12 times what it was in the steps before; if it stays there, lower train.lr, "
        "or train.clip"
    ]
    assert health.complaints([*log, log[30]], 40) == []


def test_losses_that_waver_fall_begin_high_or_are_below_zero_are_as_they_should_be() -> None:
    for losses in ([1.0, 2.0] * 40, [100.0 / n for n in range(1, 80)], [-1.0] * 50 + [3.0], [1.0] * 10 + [50.0] * 40):
        assert Health("task", "task_loss").complaints(log_of(losses), 0) == []


def test_a_codebook_that_dies_is_said_once() -> None:
    health, shares = Health("reconstruction", "reconstruction"), [0.1, 0.4, *[0.6] * 30, *[0.1] * 30]
    log = log_of([1.0] * len(shares), shares)
    assert health.complaints(log[:32], 0) == []
    assert health.complaints(log, 32) == [
        "reconstruction: the tokenizer's codebook dies: at step 62 10.0% of its codes are in use, where it was 60.0%; lower "
        "reconstruction.lr"
    ]
    assert health.complaints(log, 62) == []
