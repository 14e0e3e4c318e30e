"""Laws of tokenizers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Tokenizer, TokenLayout
from wspace.learning.terms import reserved_names
from wspace.testing.every import kept_in_file, reaches, repeats, rows_alone
from wspace.testing.law import check
from wspace.testing.subject import Instance, Subject, normal, rng_of
from wspace.weights.permutations import AxisPermutations

ZOO, OTHERS = 9, 4
STEPS, RATE = 60, 1e-3  # of Adam, of one that learns
ROUNDING = 1e-5  # relative, float32


@check("tokenizer")
def check_mask_has_a_place_for_every_weight(subject: Subject) -> None:
    for instance in subject.instances:
        mask, size = instance.made.layout.mask, instance.around.spec.size
        subject.hold(mask.dtype == torch.bool and mask.ndim == 2, "its mask should be bool of shape (N, D)")
        if instance.made.lossy:
            continue
        places = int(mask.sum())
        subject.hold(places == size, f"its mask should have {size} places for {size} weights, and has {places}")


@check("tokenizer")
def check_tokens_are_shaped_as_laid_out(subject: Subject) -> None:
    for tokenizer, others in _fitted(subject):
        shape = (OTHERS, *tokenizer.layout.mask.shape)
        subject.shaped("its tokens", tokenizer.tokenize(others), shape)
        if not tokenizer.lossy:
            subject.shaped("what it arranges", tokenizer.arrange(others), shape)
        subject.shaped("the weights of its tokens", tokenizer.detokenize(tokenizer.tokenize(others)), others.shape)


@check("tokenizer")
def check_round_trip_is_exact(subject: Subject) -> None:
    for tokenizer, others in _exact(subject):
        back = tokenizer.detokenize(tokenizer.tokenize(others))
        subject.near("weights made tokens and weights again", back, others, ROUNDING)


@check("tokenizer")
def check_round_trip_is_exact_where_a_zoo_does_not_vary(subject: Subject) -> None:
    """Networks all alike have no spread to divide by."""
    for instance in subject.instances:
        tokenizer = subject.build(instance.around)
        alike = normal(1, instance.around.spec.size).expand(ZOO, -1)
        tokenizer.fit(alike)
        tokens = tokenizer.tokenize(alike)
        subject.hold(tokens.isfinite().all(), "tokens of a zoo of networks all alike should be finite, and are not")
        subject.near("such a zoo made tokens and weights again", tokenizer.detokenize(tokens), alike, ROUNDING)


@check("tokenizer")
def check_collect_undoes_arrange(subject: Subject) -> None:
    for tokenizer, others in _exact(subject):
        subject.equal("values arranged and collected", tokenizer.collect(tokenizer.arrange(others)), others)


@check("tokenizer")
def check_padding_is_zero(subject: Subject) -> None:
    for tokenizer, others in _fitted(subject):
        sequences = [("tokens", tokenizer.tokenize(others))]
        if not tokenizer.lossy:
            sequences.append(("arranged values", tokenizer.arrange(others)))
        for what, tokens in sequences:
            filled = tokens[:, ~tokenizer.layout.mask].abs()
            subject.hold(not filled.any(), f"padding among its {what} should be zero, and is up to {_most(filled):.2g}")


@check("tokenizer")
def check_filled_padding_is_ignored(subject: Subject) -> None:
    for tokenizer, others in _fitted(subject):
        tokens = tokenizer.tokenize(others)
        filled = tokens.masked_fill(~tokenizer.layout.mask, 9.0)
        subject.equal(
            "weights of tokens whose padding is 9", tokenizer.detokenize(filled), tokenizer.detokenize(tokens)
        )


@check("tokenizer")
def check_units_permuted_are_tokens_permuted(subject: Subject) -> None:
    """Of a layout that promises a token for each hidden unit."""
    for instance in subject.instances:
        tokenizer, spec = instance.made, instance.around.spec
        units = tokenizer.layout.units
        if not units or tokenizer.lossy:
            continue
        weights = normal(OTHERS, spec.size, seed=1)
        before, holds = tokenizer.arrange(weights), False
        for axis in (axis for axis in spec.free if spec.axis_size(axis) == units):
            group = AxisPermutations(spec, (axis,))
            places = group.sample(OTHERS, rng_of("units"))
            after = tokenizer.arrange(group.act(places, weights))
            expected = before.clone()
            expected[:, :units] = torch.stack(
                [row[order] for row, order in zip(before[:, :units], places, strict=True)]
            )
            holds = holds or torch.equal(after, expected)
        subject.hold(holds, f"its first {units} tokens should move as the units of a free axis do, and do not")


@check("tokenizer")
def check_units_of_each_axis_permuted_move_as_laid_out(subject: Subject) -> None:
    """Of a layout with groups of tokens: those of an axis move with its units, and values along it within other tokens."""
    for instance in subject.instances:
        tokenizer, spec = instance.made, instance.around.spec
        if not tokenizer.layout.groups or tokenizer.lossy:
            continue
        weights = normal(1, spec.size, seed=1)
        before = tokenizer.arrange(weights)[0]
        for moved in tokenizer.layout.groups:
            units = spec.axis_size(moved.axis)
            subject.hold(
                moved.count == units,
                f"its layout should have {units} tokens of units of {moved.axis!r}, and has {moved.count}",
            )
            group = AxisPermutations(spec, (moved.axis,))
            places = group.sample(1, rng_of("groups", moved.axis))
            after = tokenizer.arrange(group.act(places, weights))[0]
            expected = _permuted(before, tokenizer.layout, moved.axis, places[0])
            subject.equal(f"its tokens with the units of {moved.axis!r} permuted", after, expected)


def _permuted(tokens: Tensor, layout: TokenLayout, axis: str, places: Tensor) -> Tensor:
    """Tokens (N, D) of one network as its layout says that they move with the units of an axis."""
    moved, start = tokens.clone(), 0
    for group in layout.groups:
        rows, place = slice(start, start + group.count), 0
        for span in group.spans:
            values = slice(place, place + span.length)
            if span.axis == axis:
                moved[rows, values] = moved[rows, values].unflatten(1, (len(places), -1))[:, places].flatten(1)
            place += span.length
        if group.axis == axis:
            moved[rows] = moved[rows][places]
        start += group.count
    return moved


@check("tokenizer")
def check_stretches_are_weights_side_by_side(subject: Subject) -> None:
    """Of a layout that says where in the flat vector tokens lie: they are those weights, and nothing else is done to them."""
    for tokenizer, others in _exact(subject):
        where, width = tokenizer.layout.stretches, tokenizer.layout.width
        if where is None:
            continue
        subject.shaped("its layout's stretches", where, (tokenizer.layout.count, 2), torch.int64)
        in_order = torch.equal(where[1:, 0], where[:-1].sum(1)) and int(where[0, 0]) == 0
        subject.hold(in_order, "its stretches should follow each other, from the first weight on")
        of_tokens = [
            functional.pad(others[:, start : start + length], (0, width - length)) for start, length in where.tolist()
        ]
        subject.equal(
            "tokens, against the weights of their stretches", tokenizer.tokenize(others), torch.stack(of_tokens, 1)
        )


@check("tokenizer")
def check_gradients_reach_tokens(subject: Subject) -> None:
    """Of a tokenizer whose tokens are numbers: codes have no gradient."""
    for tokenizer, others in _fitted(subject):
        if tokenizer.layout.codes:
            continue
        tokens = tokenizer.tokenize(others).detach().requires_grad_()
        weights = tokenizer.detokenize(tokens)
        subject.hold(
            weights.requires_grad, "no gradient comes from weights to tokens: a task loss could not train anything"
        )
        (gradient,) = torch.autograd.grad(weights.square().sum(), tokens)
        if tokenizer.lossy:
            inside = gradient[:, tokenizer.layout.mask]
        else:
            inside = gradient[(tokenizer.arrange(torch.ones_like(others)) != 0) & tokenizer.layout.mask]
        all_come = (inside != 0).all()
        subject.hold(inside.isfinite().all() and all_come, "a gradient should come to every token value")


@check("tokenizer")
def check_networks_do_not_see_each_other(subject: Subject) -> None:
    for tokenizer, others in _fitted(subject):
        tokens = tokenizer.tokenize(others)
        rows_alone(
            subject, "the tokens of network", tokens, lambda row, t=tokenizer, o=others: t.tokenize(o[row : row + 1])
        )


@check("tokenizer")
def check_scales_are_kept_in_its_state(subject: Subject) -> None:
    for instance in subject.instances:
        tokenizer, others = _fit(subject, instance)
        kept_in_file(subject, instance, tokenizer, lambda module, others=others: module.tokenize(others))  # type: ignore


@check("tokenizer")
def check_a_code_is_learnt_from_networks(subject: Subject) -> None:
    """Of a lossy one: its loss falls, follows the seed and reaches every parameter; and what it keeps tells networks apart."""
    for instance in subject.instances:
        if not instance.made.lossy:
            subject.hold(
                not list(instance.made.parameters()), "one that is not lossy has nothing to learn: no parameters"
            )
            continue
        tokenizer = subject.build(instance.around)
        zoo = 1 + torch.linspace(0.1, 2.0, instance.around.spec.size) * normal(ZOO, instance.around.spec.size, seed=2)
        tokenizer.fit(zoo)

        def loss(rng: torch.Generator, tokenizer: Tokenizer = tokenizer, zoo: Tensor = zoo) -> Tensor:
            return sum(tokenizer.loss(zoo, rng).values(), torch.zeros(()))

        terms = tokenizer.loss(zoo, rng_of("loss"))
        for name in reserved_names(terms):
            subject.fail(f"its loss {name!r} has a name that the training keeps for its own")
        for name, value in terms.items():
            subject.shaped(f"its loss {name!r}", value, ())
        repeats(subject, "its loss", lambda rng, loss=loss: loss(rng).detach())
        before = sum(float(loss(rng_of("look", n)).detach()) for n in range(8))
        optimizer = torch.optim.Adam(tokenizer.parameters(), RATE)
        for step in range(STEPS):
            optimizer.zero_grad()
            loss(rng_of("step", step)).backward()
            optimizer.step()
        after = sum(float(loss(rng_of("look", n)).detach()) for n in range(8))
        subject.hold(
            after < before, f"{STEPS} steps of Adam should lower its loss, and take {before:.3g} to {after:.3g}"
        )
        reaches(subject, loss(rng_of("reach")), dict(tokenizer.named_parameters()))
        tokenizer.fit(zoo)
        with torch.no_grad():
            left = (tokenizer.detokenize(tokenizer.tokenize(zoo)) - zoo).square().sum()
        most = (zoo - zoo.mean(0)).square().sum()
        subject.hold(left < most, "networks after a round trip should be nearer to themselves than their mean is")


def _exact(subject: Subject) -> list[tuple[Tokenizer, Tensor]]:
    return [(tokenizer, others) for tokenizer, others in _fitted(subject) if not tokenizer.lossy]


def _fit(subject: Subject, instance: Instance) -> tuple[Tokenizer, Tensor]:
    """Fitted to a zoo of weights of very different sizes, and networks that it has not seen."""
    size = instance.around.spec.size
    spread = torch.linspace(0.1, 2.0, size)
    tokenizer = subject.build(instance.around)
    tokenizer.fit(1 + spread * normal(ZOO, size, seed=2))
    return tokenizer, 1 + spread * normal(OTHERS, size, seed=3)


def _fitted(subject: Subject) -> list[tuple[Tokenizer, Tensor]]:
    return [_fit(subject, instance) for instance in subject.instances]


def _most(tensor: Tensor) -> float:
    return float(tensor.max()) if tensor.numel() else 0.0
