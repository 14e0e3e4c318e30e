"""Laws of the networks that generators are made of: predictors, denoisers, discriminators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wspace.interfaces import Condition, Denoiser, Discriminator, Predictor
from wspace.support.errors import UserError
from wspace.testing.every import kept_in_file, reaches, repeats, rows_alone, stirred
from wspace.testing.law import check
from wspace.testing.subject import Instance, Subject, apart, normal
from wspace.testing.toys import BATCH, closed_of, condition_of, otherwise_padded, rows_of, zoo_of

SEEN = 1e-6  # relative: less is rounding

# ---------------------------------------------------------------- predictors


@check("predictor")
def check_networks_are_shaped_as_tokens(subject: Subject) -> None:
    for instance in subject.instances:
        predictor, condition = _fitted(subject, instance), condition_of(BATCH)
        shape = (BATCH, *instance.around.layout.mask.shape)
        subject.shaped("what it says of the zoo", predictor.of_zoo(condition), shape)
        subject.shaped("its networks", predictor(condition), shape)


@check("predictor")
def check_training_starts_at_the_zoo(subject: Subject) -> None:
    for instance in subject.instances:
        predictor, condition = _fitted(subject, instance), closed_of(instance.around).condition
        subject.near("forward, fresh from fit, against of_zoo", predictor(condition), predictor.of_zoo(condition), 1e-3)


@check("predictor")
def check_of_zoo_stays(subject: Subject) -> None:
    """Training moves `forward` alone: the spread of the zoo is about a point that does not move."""
    for instance in subject.instances:
        predictor, condition = _fitted(subject, instance), condition_of(BATCH)
        before = predictor.of_zoo(condition).detach().clone()
        subject.equal("of_zoo after its parameters changed", stirred(predictor).of_zoo(condition).detach(), before)


@check("predictor")
def check_knows_more_than_nothing(subject: Subject) -> None:
    """Of networks that follow from their tasks but for some noise, about a mean that is not zero."""
    for instance in subject.instances:
        closed = closed_of(instance.around)
        left = _size(closed.tokens - _fitted(subject, instance).of_zoo(closed.condition), instance)
        whole = _size(closed.tokens, instance)
        subject.hold(left < 0.9 * whole, f"of_zoo leaves {left / whole:.0%} of a zoo that follows from its tasks")


@check("predictor")
def check_spread_is_what_of_zoo_leaves(subject: Subject) -> None:
    for instance in subject.instances:
        predictor, closed = _fitted(subject, instance), closed_of(instance.around)
        pairs = ((closed.tokens, closed.condition), closed.held_out)
        left = [_size(tokens - predictor.of_zoo(condition), instance) for tokens, condition in pairs]
        spread = float(predictor.spread)
        subject.hold(
            min(left) / 2 <= spread <= max(left) * 2,
            f"its spread should be the size of what of_zoo leaves ({left[0]:.2g} of the zoo, {left[1]:.2g} of held-out "
            f"networks), and is {spread:.2g}",
        )


@check("predictor")
def check_padding_stays_zero(subject: Subject) -> None:
    for instance in subject.instances:
        predictor, condition, padding = _fitted(subject, instance), condition_of(BATCH), ~instance.around.layout.mask
        for what, tokens in (("of_zoo", predictor.of_zoo(condition)), ("forward", predictor(condition))):
            most = float(tokens[:, padding].detach().abs().max()) if padding.any() else 0.0
            subject.hold(most < 1e-4, f"{what} should be zero where tokens are padding, and is up to {most:.2g}")


@check("predictor")
def check_fits_the_same_twice(subject: Subject) -> None:
    for instance in subject.instances:
        repeats(
            subject, "of_zoo, fitted again", lambda rng, i=instance: _fitted(subject, i).of_zoo(condition_of(BATCH))
        )


@check("predictor")
def check_hidden_condition_tokens_do_not_matter(subject: Subject) -> None:
    for instance in subject.instances:
        predictor, condition = stirred(_fitted(subject, instance)), condition_of(BATCH)
        subject.near(
            "its networks with other padding", predictor(otherwise_padded(condition)), predictor(condition), 1e-4
        )


@check("predictor")
def check_predicted_tasks_do_not_see_each_other(subject: Subject) -> None:
    for instance in subject.instances:
        predictor, condition = stirred(_fitted(subject, instance)), condition_of(BATCH)

        def alone(row: int, predictor: nn.Module = predictor, condition: Condition = condition) -> Tensor:
            return predictor(rows_of(condition, slice(row, row + 1)))

        rows_alone(subject, "the network of task", predictor(condition), alone)


@check("predictor")
def check_gradients_reach_every_weight_of_it(subject: Subject) -> None:
    for instance in subject.instances:
        predictor = stirred(_fitted(subject, instance))
        reaches(subject, predictor(condition_of(BATCH)), dict(predictor.named_parameters()))


@check("predictor")
def check_what_it_fitted_is_kept_in_its_state(subject: Subject) -> None:
    for instance in subject.instances:
        predictor, condition = stirred(_fitted(subject, instance)), condition_of(BATCH)

        def answer(module: nn.Module, condition: Condition = condition) -> Tensor:
            assert isinstance(module, Predictor)
            return torch.cat(
                [module(condition), module.of_zoo(condition), module.spread.expand(module(condition).shape)]
            )

        kept_in_file(subject, instance, predictor, answer)


@check("predictor")
def check_networks_in_parts_are_as_whole(subject: Subject) -> None:
    """Of one that takes parts of networks: from inner products and directions of the zoo it says what it says of whole ones."""
    for instance in subject.instances:
        whole, closed, condition = _fitted(subject, instance), closed_of(instance.around), condition_of(BATCH)
        layout, count, said = instance.around.layout, len(closed.tokens), whole.of_zoo(condition_of(BATCH))
        mean = closed.tokens.mean(0)
        away = (torch.cat([closed.tokens, closed.held_out[0]]) - mean).flatten(1).double()
        predictor: Predictor = subject.build(instance.around)
        try:
            sums = predictor.fit_parts(away @ away.mT / layout.mask.sum(), closed.condition, closed.held_out[1])
        except UserError:
            return
        subject.hold(
            1 <= len(sums) <= predictor.directions,
            f"it should have from 1 to {predictor.directions} directions, by its word, and has {len(sums)}",
        )
        subject.shaped("the sums that its directions are", sums, (len(sums), count))
        along = (sums.double() @ away[:count]).float().unflatten(1, mean.shape)
        for rows in (torch.arange(0, layout.count, 2), torch.arange(1, layout.count, 2)):
            predictor.at(layout.part(rows), along[:, rows])
            for what, made in (("of_zoo", predictor.of_zoo(condition)), ("forward", predictor(condition))):
                subject.near(f"{what} for tokens without the others", mean[rows] + made, said[:, rows], 1e-3)


def _fitted(subject: Subject, instance: Instance) -> Predictor:
    predictor: Predictor = subject.build(instance.around)
    closed = closed_of(instance.around)
    predictor.fit(closed.tokens, closed.condition, closed.held_out)
    return predictor


def _size(tokens: Tensor, instance: Instance) -> float:
    """Root mean square of values that are weights."""
    return float(tokens[:, instance.around.layout.mask].detach().square().mean().sqrt())


# ---------------------------------------------------------------- denoisers


@check("denoiser")
def check_output_is_shaped_as_the_tokens(subject: Subject) -> None:
    for instance, denoiser in _live(subject):
        subject.shaped("what it returns", _denoised(denoiser, instance), (BATCH, *instance.around.layout.mask.shape))


@check("denoiser")
def check_denoises_the_same_twice(subject: Subject) -> None:
    for instance, denoiser in _live(subject):
        repeats(subject, "what it returns", lambda rng, i=instance, d=denoiser: _denoised(d, i))


@check("denoiser")
def check_denoised_networks_do_not_see_each_other(subject: Subject) -> None:
    for instance, denoiser in _live(subject):
        x, level, condition, anchor = _noisy(instance)

        def alone(row: int, denoiser: nn.Module = denoiser, given: tuple = (x, level, condition, anchor)) -> Tensor:
            rows = slice(row, row + 1)
            return denoiser(given[0][rows], given[1][rows], rows_of(given[2], rows), given[3][rows])

        with torch.no_grad():
            rows_alone(subject, "what it returns for network", _denoised(denoiser, instance), alone)


@check("denoiser")
def check_padded_condition_tokens_are_ignored(subject: Subject) -> None:
    for instance, denoiser in _live(subject):
        condition = otherwise_padded(_noisy(instance)[2])
        repadded = _denoised(denoiser, instance, condition=condition)
        subject.near(
            "what it returns with other padding in the condition", repadded, _denoised(denoiser, instance), 1e-4
        )


@check("denoiser")
def check_sees_tokens_level_and_condition(subject: Subject) -> None:
    """As trained for a while: a fresh one may return zero whatever it is given."""
    for instance, denoiser in _live(subject):
        x, level, condition, _ = _noisy(instance)
        other = condition_of(BATCH, seed=3)
        exchanged = Condition(other.tokens, condition.mask, other.pooled)
        before = _denoised(denoiser, instance)
        changes: dict[str, dict[str, Any]] = {
            "its tokens": {"x": -x},
            "the level": {"level": 1 - level},
            "the condition": {"condition": exchanged},
        }
        for what, changed in changes.items():
            off = apart(_denoised(denoiser, instance, **changed), before)
            subject.hold(off > SEEN, f"what it returns should hang on {what}, and does not")


@check("denoiser")
def check_leaves_its_inputs_alone(subject: Subject) -> None:
    for instance, denoiser in _live(subject):
        given = _noisy(instance)
        with torch.no_grad():
            denoiser(*given)
        x, level, condition, anchor = _noisy(instance)
        for what, after, before in (
            ("tokens", given[0], x),
            ("level", given[1], level),
            ("condition tokens", given[2].tokens, condition.tokens),
            ("pooled condition", given[2].pooled, condition.pooled),
            ("anchor", given[3], anchor),
        ):
            subject.equal(f"the {what} it was given, after it ran", after, before)


@check("denoiser")
def check_tokens_in_parts_are_as_together(subject: Subject) -> None:
    """Of one that takes parts of networks: what it says of a token does not hang on which others are there."""
    for instance, denoiser in _live(subject):
        layout, (x, level, condition, anchor) = instance.around.layout, _noisy(instance)
        together = _denoised(denoiser, instance)
        for rows in (torch.arange(0, layout.count, 2), torch.arange(1, layout.count, 2)):
            try:
                denoiser.at(layout.part(rows))
            except UserError:
                return
            with torch.no_grad():
                of_part = denoiser(x[:, rows], level, condition, anchor[:, rows])
            subject.near("what it returns for tokens without the others", of_part, together[:, rows], 1e-5)


@check("denoiser")
def check_gradients_reach_all_of_it(subject: Subject) -> None:
    for instance, denoiser in _live(subject):
        reaches(subject, denoiser(*_noisy(instance)), dict(denoiser.named_parameters()))


@check("denoiser")
def check_its_state_goes_through_a_file(subject: Subject) -> None:
    for instance, denoiser in _live(subject):
        kept_in_file(subject, instance, denoiser, lambda module, i=instance: _denoised(module, i))


def _live(subject: Subject) -> list[tuple[Instance, Denoiser]]:
    return [(instance, stirred(subject.build(instance.around))) for instance in subject.instances]


def _noisy(instance: Instance) -> tuple[Tensor, Tensor, Condition, Tensor]:
    mask, condition = instance.around.layout.mask, condition_of(BATCH)
    x, anchor = (normal(BATCH, *mask.shape, seed=seed) * mask for seed in (70, 71))
    return x, torch.linspace(0.1, 0.8, BATCH), condition, anchor


@torch.no_grad()
def _denoised(
    denoiser: nn.Module,
    instance: Instance,
    x: Tensor | None = None,
    level: Tensor | None = None,
    condition: Condition | None = None,
) -> Tensor:
    """What is not given is as in `_noisy`."""
    tokens, levels, given, anchor = _noisy(instance)
    return denoiser(tokens if x is None else x, levels if level is None else level, condition or given, anchor)


# ---------------------------------------------------------------- discriminators


@check("discriminator")
def check_one_logit_for_each_network(subject: Subject) -> None:
    for instance, discriminator in _judges(subject):
        subject.shaped("its logits", discriminator(_networks(instance)), (BATCH,))


@check("discriminator")
def check_judges_the_same_twice(subject: Subject) -> None:
    for instance, discriminator in _judges(subject):
        repeats(subject, "its logits", lambda rng, i=instance, d=discriminator: d(_networks(i)).detach())


@check("discriminator")
def check_judged_networks_do_not_see_each_other(subject: Subject) -> None:
    for instance, discriminator in _judges(subject):
        tokens = _networks(instance)
        rows_alone(
            subject, "the logit of network", discriminator(tokens), lambda r, d=discriminator, t=tokens: d(t[r : r + 1])
        )


@check("discriminator")
def check_gradients_reach_it_and_its_tokens(subject: Subject) -> None:
    """Its own parameters, to learn; the tokens, to teach the generator that made them."""
    for instance, discriminator in _judges(subject):
        tokens = nn.Parameter(_networks(instance))
        reaches(subject, discriminator(tokens), {**dict(discriminator.named_parameters()), "its tokens": tokens})


@check("discriminator")
def check_its_state_is_kept_in_a_file(subject: Subject) -> None:
    for instance, discriminator in _judges(subject):
        kept_in_file(subject, instance, discriminator, lambda module, i=instance: module(_networks(i)))


def _judges(subject: Subject) -> list[tuple[Instance, Discriminator]]:
    return [(instance, stirred(subject.build(instance.around))) for instance in subject.instances]


def _networks(instance: Instance) -> Tensor:
    return zoo_of(instance.around, condition_of(BATCH))
