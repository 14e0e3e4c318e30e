"""Laws of generators."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from wspace.interfaces import Condition, Generator, Moves, Pairs
from wspace.learning.shares import Share
from wspace.learning.terms import SYMMETRY, reserved_names
from wspace.support.errors import UserError
from wspace.support.seeding import seeded
from wspace.support.settings import Generate
from wspace.testing.every import kept_in_file, reaches, repeats, rows_alone, stirred
from wspace.testing.law import check
from wspace.testing.subject import Instance, Subject, rng_of
from wspace.testing.toys import BATCH, closed_of, condition_of, null_of, pairs_of, rows_of
from wspace.testing.verdicts import Unbuilt

STEPS, RATE = 40, 1e-2  # of Adam, on the toy zoo
TYPICAL = Generate(steps=4, guidance=1.0, temperature=0.0)
DRAWN = replace(TYPICAL, temperature=1.0)


@check("generator")
def check_loss_is_named_finite_numbers(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _fitted(subject, instance)
        terms = generator.loss(pairs_of(instance.around), rng_of("loss"))
        subject.hold(
            terms or not _trained_by_loss(generator),
            "it should have a loss, for it has parameters that no task loss trains",
        )
        for name, value in terms.items():
            subject.shaped(f"its loss {name!r}", value, ())


@check("generator")
def check_loss_terms_have_names_of_their_own(subject: Subject) -> None:
    """None is a name that the training keeps; `symmetry` is for batches that ask for it."""
    for instance in subject.instances:
        generator, pairs = _fitted(subject, instance), pairs_of(instance.around)
        for name in reserved_names(generator.loss(replace(pairs, moves=None), rng_of("names"))):
            subject.fail(
                f"its loss {name!r} has a name that the training keeps for its own"
                if name != SYMMETRY
                else "its loss has the term 'symmetry' for a batch without moves, which asks for none"
            )


@check("generator")
def check_loss_follows_the_seed(subject: Subject) -> None:
    for instance in subject.instances:
        generator, pairs = _fitted(subject, instance), pairs_of(instance.around)
        repeats(subject, "its loss", lambda rng, g=generator, p=pairs: _total(g, p, rng).detach())


@check("generator")
def check_loss_of_a_batch_is_that_of_its_shares(subject: Subject) -> None:
    """Else a gradient depends on how many processes train, and on `train.accumulate`."""
    for instance in subject.instances:
        generator, pairs = _stirred(_fitted(subject, instance)), pairs_of(instance.around)
        whole, again = (_total(generator, pairs, rng_of("shares")).detach() for _ in range(2))
        if not torch.equal(whole, again):
            raise Unbuilt("its loss does not follow the seed")
        total, count = torch.zeros(()), len(pairs.tokens)
        for rows in (slice(0, count // 3), slice(count // 3, count)):
            share = Share(rows, count)
            some = Pairs(pairs.tokens[rows], rows_of(pairs.condition, rows), rows_of(pairs.null, rows))
            with share.drawing(torch.device("cpu")):
                total += share.count / count * _total(generator, some, rng_of("shares")).detach()
        subject.near("the mean of its loss over shares of a batch", total, whole, 1e-4)


@check("generator")
def check_loss_falls_in_a_few_steps(subject: Subject) -> None:
    for instance in subject.instances[:1]:
        generator, pairs = _fitted(subject, instance), pairs_of(instance.around)
        parameters = list(_trained_by_loss(generator).values())
        if not parameters:  # all of it has a closed form, or is a task loss's to train
            continue
        before, optimizer = _mean_loss(generator, pairs), torch.optim.Adam(parameters, RATE)
        for step in range(STEPS):
            loss = _total(generator, pairs, rng_of("step", step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after = _mean_loss(generator, pairs)
        subject.hold(
            after < 0.98 * before,
            f"{STEPS} steps of Adam should lower its loss on 16 networks, and take {before:.3g} to {after:.3g}",
        )


@check("generator")
def check_loss_reaches_all_that_no_task_loss_trains(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        parameters = _trained_by_loss(generator)
        if not parameters:
            continue
        loss = sum(
            (_total(generator, pairs_of(instance.around), rng_of("reach", n)) for n in range(4)), torch.zeros(())
        )
        reaches(subject, loss, parameters)


@check("generator")
def check_loss_leaves_task_parameters_alone(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        theirs, loss = generator.task_parameters(), _total(generator, pairs_of(instance.around), rng_of("leave"))
        if not theirs or not loss.requires_grad or generator.task_loss_last:
            continue
        gradients = torch.autograd.grad(loss, theirs, allow_unused=True)
        subject.hold(
            all(gradient is None or not gradient.any() for gradient in gradients),
            "its loss should leave its task parameters alone, and has a gradient in some",
        )


@check("generator")
def check_a_task_loss_reaches_its_task_parameters(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _fitted(subject, instance)
        theirs = generator.task_parameters()
        if not theirs:
            continue
        typical, layout = generator.typical(condition_of(BATCH)), instance.around.layout
        shares = (layout.codes,) if layout.codes and generator.task_loss_last else ()
        subject.shaped("its typical networks", typical, (BATCH, *layout.mask.shape, *shares))
        reaches(subject, typical, {f"task parameter {number}": p for number, p in enumerate(theirs)})


@check("generator")
def check_what_it_predicts_is_shaped_as_tokens(subject: Subject) -> None:
    """Of a generator that draws around what a predictor makes."""
    for instance in subject.instances:
        predicted = _fitted(subject, instance).predicted(condition_of(BATCH))
        if predicted is not None:
            subject.shaped("what it predicts", predicted, (BATCH, *instance.around.layout.mask.shape))


@check("generator")
def check_symmetry_loss_is_zero_where_nothing_moves(subject: Subject) -> None:
    """Of a generator that offers that term (T2W, eq. 12)."""
    for instance in subject.instances:
        generator, pairs = _stirred(_fitted(subject, instance)), pairs_of(instance.around)
        still = Moves(lambda tokens: tokens, torch.zeros(len(pairs.tokens), dtype=torch.bool), penalty=True)
        terms = generator.loss(replace(pairs, moves=still), rng_of("still"))
        if "symmetry" in terms:
            value = float(terms["symmetry"].detach())
            subject.hold(abs(value) < 1e-6, f"its symmetry loss should be zero for the identity, and is {value:.2g}")


@check("generator")
def check_estimates_are_networks_with_gradients(subject: Subject) -> None:
    """Of a generator that offers estimates for a discriminator (T2W, eq. 13)."""
    if type(subject.instances[0].made).estimate is Generator.estimate:
        return
    for instance in subject.instances:
        generator, pairs = _stirred(_fitted(subject, instance)), pairs_of(instance.around)
        estimates = generator.estimate(pairs, 0.2, rng_of("estimate"))
        subject.shaped("its estimates", estimates, tuple(pairs.tokens.shape))
        subject.hold(
            estimates.requires_grad or not _trained_by_loss(generator),
            "no gradient comes from its estimates to its parameters",
        )
        repeats(subject, "its estimates", lambda rng, g=generator, p=pairs: g.estimate(p, 0.2, rng).detach())


@check("generator")
def check_networks_of_every_sampler_are_shaped_as_tokens(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        for sampler in (None, *generator.samplers):
            networks = _sampled(generator, replace(DRAWN, sampler=sampler))
            subject.shaped(f"its networks (sampler {sampler})", networks, (BATCH, *instance.around.layout.mask.shape))
            subject.hold(not networks.requires_grad, f"its networks (sampler {sampler}) should need no gradient")


@check("generator")
def check_an_unknown_sampler_is_told(subject: Subject) -> None:
    generator = _fitted(subject, subject.instances[0])
    try:
        _sampled(generator, replace(TYPICAL, sampler="no such sampler"))
    except UserError:
        return
    subject.fail("a sampler that it has not should be a UserError, and it drew all the same")


@check("generator")
def check_networks_follow_the_seed(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        repeats(subject, "its networks", lambda rng, g=generator: _sampled(g, DRAWN, rng))


@check("generator")
def check_temperature_zero_draws_nothing(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        for sampler in (None, *generator.samplers):
            one, two = (_sampled(generator, replace(TYPICAL, sampler=sampler), rng_of("draw", n)) for n in (0, 1))
            subject.equal(f"its networks of temperature 0 from another seed (sampler {sampler})", two, one)


@check("generator")
def check_tasks_do_not_see_each_other_in_a_draw(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        condition, together = condition_of(BATCH), _sampled(generator, TYPICAL)
        if not torch.equal(_sampled(generator, TYPICAL, rng_of("other")), together):
            raise Unbuilt("its networks of temperature 0 depend on the seed")

        def alone(row: int, generator: Generator = generator, condition: Condition = condition) -> Tensor:
            one = rows_of(condition, slice(row, row + 1))
            return generator.sample(one, null_of(one), TYPICAL, rng_of("alone"))

        rows_alone(subject, "the network drawn for task", together, alone, within=1e-3)


@check("generator")
def check_drawn_padding_is_zero(subject: Subject) -> None:
    for instance in subject.instances:
        padding = ~instance.around.layout.mask
        drawn_padding = _sampled(_stirred(_fitted(subject, instance)), DRAWN)[:, padding].abs()
        most = float(drawn_padding.max()) if drawn_padding.numel() else 0.0
        subject.hold(most < 1e-4, f"its networks should be zero where tokens are padding, and are up to {most:.2g}")


@check("generator")
def check_who_watches_sees_every_step_and_the_end(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        watched, seen = _watched(generator)
        with seeded(0):
            unseen = _sampled(generator, DRAWN)
        subject.equal("its networks while somebody watches", watched, unseen)
        counted = [done for done, _ in seen]
        subject.hold(counted == list(range(1, len(seen) + 1)), f"steps should be counted from 1, and are {counted}")
        for _, now in seen:
            subject.shaped("the networks it shows on the way", now, tuple(watched.shape))
        if seen:
            subject.near("the networks it shows after the last step", seen[-1][1], watched, 1e-3)


@check("generator")
def check_what_it_learnt_is_kept_in_its_state(subject: Subject) -> None:
    for instance in subject.instances:
        generator = _stirred(_fitted(subject, instance))
        kept_in_file(subject, instance, generator, lambda module: _sampled(module, DRAWN))


def _fitted(subject: Subject, instance: Instance) -> Generator:
    generator: Generator = subject.build(instance.around)
    with torch.no_grad():
        generator.fit(closed_of(instance.around))
    return generator


def _stirred(generator: Generator) -> Generator:
    """All but its task parameters, which closed forms have found, if no loss has to."""
    stirred(generator, *([] if generator.task_loss_last else generator.task_parameters()))
    return generator


def _trained_by_loss(generator: Generator) -> dict[str, nn.Parameter]:
    """What `loss` trains."""
    theirs = [] if generator.task_loss_last else generator.task_parameters()
    return {name: p for name, p in generator.named_parameters() if not any(p is other for other in theirs)}


def _total(generator: Generator, pairs: Pairs, rng: torch.Generator) -> Tensor:
    return sum(generator.loss(pairs, rng).values(), torch.zeros(()))


@torch.no_grad()
def _mean_loss(generator: Generator, pairs: Pairs) -> float:
    """Over draws that no step of training sees."""
    return sum(float(_total(generator, pairs, rng_of("look", n))) for n in range(16)) / 16


def _watched(generator: Generator) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Networks, and what somebody saw who watched them come."""
    seen: list[tuple[int, Tensor]] = []
    condition = condition_of(BATCH)

    def watch(done: int, now: Tensor) -> None:
        seen.append((done, now))

    with seeded(0):
        return generator.sample(condition, null_of(condition), DRAWN, rng_of("drawn"), watch), seen


def _sampled(generator: nn.Module, how: Generate, rng: torch.Generator | None = None) -> Tensor:
    assert isinstance(generator, Generator)
    condition = condition_of(BATCH)
    return generator.sample(condition, null_of(condition), how, rng or rng_of("drawn"))
