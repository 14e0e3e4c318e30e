"""Laws of conditioners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces import Condition, Conditioner
from wspace.testing.every import kept_in_file, reaches, repeats, rows_alone, stirred
from wspace.testing.law import check
from wspace.testing.subject import Instance, Subject, apart
from wspace.testing.toys import BATCH, TASKS, prompts_of


@check("conditioner")
def check_conditions_are_shaped_as_promised(subject: Subject) -> None:
    conditioner = _fitted(subject)
    condition = conditioner(prompts_of(BATCH))
    length = condition.tokens.shape[1]
    subject.shaped("its condition tokens", condition.tokens, (BATCH, length, conditioner.width))
    subject.shaped("its pooled vectors", condition.pooled, (BATCH, conditioner.pooled_width))
    subject.shaped("the mask of its tokens", condition.mask, (BATCH, length), torch.bool)


@check("conditioner")
def check_its_recipe_knows_whether_it_takes_pictures(subject: Subject) -> None:
    """`tasks.pictures` is checked against the source of its class, without an import."""
    takes, read = _fitted(subject).takes_pictures, subject.bound.signature.constants.get("takes_pictures", False)
    subject.hold(
        takes == read,
        f"its class should say `takes_pictures` itself, as a literal, and in its source it is {read!r}, where it is {takes!r}",
    )


@check("conditioner")
def check_every_task_has_a_token_to_look_at(subject: Subject) -> None:
    conditioner = _fitted(subject)
    condition = conditioner(prompts_of(BATCH))
    for what, encoded in (("of a task", condition), ("of null", conditioner.null(condition))):
        subject.hold(
            encoded.mask.any(1).all(), f"the condition {what} should have a visible token: attention needs one"
        )


@check("conditioner")
def check_padded_classes_are_ignored(subject: Subject) -> None:
    conditioner, prompts = _fitted(subject), prompts_of(BATCH)
    texts, mask = functional.pad(prompts.texts, (0, 0, 0, 3)), functional.pad(prompts.mask, (0, 3))
    longer = replace(prompts, texts=texts, mask=mask)
    with torch.no_grad():
        expected, padded = conditioner(prompts), conditioner(longer)
    for row in range(BATCH):
        one, two = padded.tokens[row, padded.mask[row]], expected.tokens[row, expected.mask[row]]
        subject.near(f"the tokens of task {row} with three more padded classes", one, two, 1e-5)
    subject.near("the pooled vectors with three more padded classes", padded.pooled, expected.pooled, 1e-5)


@check("conditioner")
def check_tasks_do_not_see_each_other(subject: Subject) -> None:
    conditioner, prompts = _fitted(subject), prompts_of(BATCH)
    with torch.no_grad():
        together = conditioner(prompts)
        rows_alone(subject, "the condition of task", _flat(together), lambda r: _flat(conditioner(prompts[r : r + 1])))


@check("conditioner")
def check_tells_tasks_apart(subject: Subject) -> None:
    conditioner = _fitted(subject)
    with torch.no_grad():
        flat = _flat(conditioner(prompts_of(BATCH)))
    subject.hold(
        apart(flat[1:], flat[:-1]) > 1e-4, "different tasks should have different conditions, and have the same"
    )


@check("conditioner")
def check_its_recipe_knows_whether_it_keeps_order(subject: Subject) -> None:
    """And what says that it does tells a task from the same classes the other way round."""
    conditioner, prompts = _fitted(subject), prompts_of(BATCH)
    keeps, read = conditioner.keeps_order, subject.bound.signature.constants.get("keeps_order", False)
    subject.hold(
        keeps == read,
        f"its class should say `keeps_order` itself, as a literal, and in its source it is {read!r}, where it is {keeps!r}",
    )
    if not keeps:
        return
    last, place = prompts.count() - 1, torch.arange(prompts.mask.shape[1])
    turned = torch.where(prompts.mask, last - place, place)  # (B, K)
    texts = prompts.texts.gather(1, turned[..., None].expand_as(prompts.texts))
    names = tuple(f"{name}, turned" for name in prompts.names or ())
    with torch.no_grad():
        one, two = conditioner(prompts), conditioner(replace(prompts, texts=texts, names=names))
    subject.hold(
        apart(_flat(two), _flat(one)) > 1e-4,
        "it says that it keeps order, and another order of a task's classes should be another condition, and is the same",
    )


@check("conditioner")
def check_null_says_nothing_of_the_task(subject: Subject) -> None:
    conditioner = _fitted(subject)
    with torch.no_grad():
        one, two = (conditioner(prompts_of(BATCH, seed)) for seed in (0, 3))
        null, other = conditioner.null(one), conditioner.null(two)
    for name in ("tokens", "mask", "pooled"):
        of_null, of_task = getattr(null, name), getattr(one, name)
        subject.hold(of_null.shape == of_task.shape, f"the {name} of null should be shaped as those of a condition are")
        subject.equal(f"the {name} of null for other tasks", getattr(other, name), of_null)
    subject.hold(
        apart(_flat(null), _flat(one)) > 1e-4, "null should be another condition than a task's, and is the same"
    )


@check("conditioner")
def check_one_training_task_is_enough(subject: Subject) -> None:
    instance = subject.instances[0]
    conditioner = subject.build(instance.around)
    conditioner.fit(prompts_of(1))
    flat = _flat(conditioner(prompts_of(BATCH)))
    subject.hold(flat.isfinite().all(), "conditions should be finite when it was fitted to a single task, and are not")


@check("conditioner")
def check_pooled_vectors_hang_on_no_parameter(subject: Subject) -> None:
    """Linear paths read them in closed form, before anything is trained."""
    conditioner = _fitted(subject)
    before = conditioner(prompts_of(BATCH)).pooled.detach().clone()
    after = stirred(conditioner)(prompts_of(BATCH)).pooled
    subject.near("pooled vectors after its parameters changed", after, before, 1e-5)


@check("conditioner")
def check_gradients_reach_every_parameter(subject: Subject) -> None:
    conditioner = stirred(_fitted(subject))
    condition = conditioner(prompts_of(BATCH))
    null = conditioner.null(condition)
    reaches(subject, torch.cat([condition.tokens, null.tokens]), dict(conditioner.named_parameters()))


@check("conditioner")
def check_says_the_same_twice(subject: Subject) -> None:
    def encoded(rng: torch.Generator) -> Tensor:
        with torch.no_grad():
            return _flat(_fitted(subject)(prompts_of(BATCH)))

    repeats(subject, "what it says of tasks, fitted again", encoded)


@check("conditioner")
def check_statistics_are_kept_in_its_state(subject: Subject) -> None:
    instance: Instance = subject.instances[0]
    answer: Callable[[nn.Module], Tensor] = lambda module: _flat(module(prompts_of(BATCH)))  # noqa: E731
    kept_in_file(subject, instance, stirred(_fitted(subject)), answer)


@check("conditioner")
def check_what_it_drew_from_what_it_was_told_is_enough(subject: Subject) -> None:
    """A generator is loaded with this in place of what the conditioner was told."""
    told = _fitted(subject)
    drawn = told.drawn_from_told()
    if not drawn:
        return
    other: Conditioner = subject.bound.build(subject.instances[0].around.given).eval()  # and told of nothing
    other.load_state_dict(told.state_dict())
    try:
        other.recall(drawn)
    except NotImplementedError as error:
        subject.fail(str(error))
    prompts = prompts_of(BATCH)
    with torch.no_grad():
        subject.equal("the condition after `recall`", _flat(other(prompts)), _flat(told(prompts)))
        recalled, networks = other.starting_networks(prompts), told.starting_networks(prompts)
        if recalled is not None and networks is not None:
            subject.equal("networks to start from after `recall`", recalled, networks)


def _fitted(subject: Subject) -> Conditioner:
    conditioner: Conditioner = subject.build(subject.instances[0].around)
    conditioner.fit(prompts_of(TASKS))
    return conditioner


def _flat(condition: Condition) -> Tensor:
    """All it says, a row a task: (B, L * C + L + C'). Hidden tokens count as zeros."""
    shown = torch.where(condition.mask[..., None], condition.tokens, 0)
    return torch.cat([shown.flatten(1), condition.mask.float(), condition.pooled], dim=1)
