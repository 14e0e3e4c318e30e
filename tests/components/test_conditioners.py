"""The set of class texts as a condition, against loops over tasks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from wspace.components.conditioners.class_prototypes import ClassPrototypes
from wspace.components.conditioners.text_set import TextSet
from wspace.data.prompts import pad, prompts_of
from wspace.interfaces import Condition, Prompts, Told
from wspace.testing.subject import HIDDEN, INPUTS, TEXTS, Toy

WIDTH = TEXTS
TASKS = [(0, 3, 4), (1, 2), (5, 6, 7, 8, 9), (2, 9)]


def class_texts() -> Tensor:
    return functional.normalize(torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)


def padded_to(prompts: Prompts, length: int) -> Prompts:
    extra = length - prompts.mask.shape[1]
    return Prompts(functional.pad(prompts.texts, (0, 0, 0, extra)), functional.pad(prompts.mask, (0, extra)))


def fitted() -> tuple[TextSet, Prompts]:
    conditioner, prompts = TextSet(text_dim=WIDTH), prompts_of(TASKS, class_texts())
    conditioner.fit(prompts)
    return conditioner, prompts


def test_prompts_hold_the_texts_of_each_task_and_zeros_after_them() -> None:
    prompts, texts = prompts_of(TASKS, class_texts()), class_texts()
    assert prompts.texts.shape == (4, 5, WIDTH)
    for b, task in enumerate(TASKS):
        assert prompts.mask[b].tolist() == [True] * len(task) + [False] * (5 - len(task))
        assert torch.equal(prompts.texts[b, : len(task)], texts[list(task)])
        assert not prompts.texts[b, len(task) :].any()
    index, mask = pad(TASKS)
    assert [row[m].tolist() for row, m in zip(index, mask, strict=True)] == [list(task) for task in TASKS]


def test_tokens_are_the_class_texts_about_their_mean_over_the_training_tasks() -> None:
    conditioner, prompts = fitted()
    condition, texts = conditioner(prompts), class_texts()
    center = torch.stack([texts[c] for task in TASKS for c in task]).mean(0)
    assert torch.equal(condition.mask, prompts.mask) and conditioner.width == condition.tokens.shape[2] == WIDTH
    for b, task in enumerate(TASKS):
        for k, c in enumerate(task):
            torch.testing.assert_close(condition.tokens[b, k], (texts[c] - center) * WIDTH**0.5)
        assert not condition.tokens[b, len(task) :].any()


def test_pooled_is_the_mean_text_and_one_over_k_at_unit_variance() -> None:
    conditioner, prompts = fitted()
    texts, raw = class_texts(), []
    for task in TASKS:
        mean = sum(texts[c] for c in task) / len(task)
        raw.append(torch.cat([mean, torch.tensor([1 / len(task)])]))
    stacked = torch.stack(raw)
    expected = (stacked - stacked.mean(0)) / stacked.std(0, correction=0)
    pooled = conditioner(prompts).pooled
    assert pooled.shape[1] == conditioner.pooled_width
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_padding_a_task_to_more_classes_changes_nothing() -> None:
    conditioner, prompts = fitted()
    short, long = conditioner(prompts), conditioner(padded_to(prompts, 9))
    torch.testing.assert_close(long.pooled, short.pooled)
    assert torch.equal(long.tokens[:, :5], short.tokens) and not long.tokens[:, 5:].any() and not long.mask[:, 5:].any()
    again = TextSet(text_dim=WIDTH)
    again.fit(padded_to(prompts, 9))
    for name, value in conditioner.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


def test_the_order_of_classes_permutes_tokens_and_leaves_pooled_alone() -> None:
    conditioner, _ = fitted()
    texts = class_texts()
    one, other = (conditioner(prompts_of([task], texts)) for task in ((5, 6, 7), (7, 5, 6)))
    torch.testing.assert_close(other.pooled, one.pooled)
    torch.testing.assert_close(other.tokens[0], one.tokens[0][[2, 0, 1]])
    assert not torch.equal(other.tokens, one.tokens)


def test_statistics_of_constant_values_do_not_blow_up_other_tasks() -> None:
    """Training tasks all of two classes: 1/k never varies, and a task of five must still be near."""
    conditioner, texts = TextSet(text_dim=WIDTH), class_texts()
    conditioner.fit(prompts_of([(0, 1), (2, 3), (4, 5), (6, 7)], texts))
    pooled = conditioner(prompts_of([(0, 1, 2, 3, 4)], texts)).pooled
    assert pooled.abs().max() < 10
    conditioner.fit(prompts_of([(0, 1)], texts))
    assert torch.isfinite(conditioner(prompts_of(TASKS, texts)).pooled).all()


def test_the_null_condition_says_nothing_and_is_no_prompt() -> None:
    conditioner, prompts = fitted()
    condition = conditioner(prompts)
    null = conditioner.null(condition)
    assert not null.tokens.any() and not null.pooled.any()
    assert null.mask.tolist() == [[True] + [False] * 4] * 4
    for b in range(len(TASKS)):
        assert not torch.equal(null.tokens[b], condition.tokens[b])
        assert not torch.equal(null.pooled[b], condition.pooled[b])


def test_where_takes_each_task_from_one_condition_or_the_other() -> None:
    conditioner, prompts = fitted()
    condition = conditioner(prompts)
    null = conditioner.null(condition)
    mixed = condition.where(torch.tensor([True, False, True, False]), null)
    for b, source in enumerate((condition, null, condition, null)):
        assert isinstance(mixed, Condition)
        for part in ("tokens", "mask", "pooled"):
            assert torch.equal(getattr(mixed, part)[b], getattr(source, part)[b])


# ---------------------------------------------------------------- class-prototypes


def prototypes() -> ClassPrototypes:
    """Told of the first six of ten classes."""
    rng = torch.Generator().manual_seed(3)
    scatter = torch.randn(50, INPUTS, generator=rng)
    conditioner = ClassPrototypes(text_dim=TEXTS, target=Toy(HIDDEN))
    means = 3 * torch.randn(6, INPUTS, generator=rng)
    conditioner.told(
        Told(class_texts()[:6], torch.zeros(6, 0, 192), class_texts()[0], means, scatter.mT @ scatter / 50)
    )
    return conditioner


def test_words_place_every_class_and_all_places_are_of_one_length() -> None:
    conditioner = prototypes()
    places, words = (
        conditioner.places(prompts_of([(0, 5, 8), (7, 9)], class_texts())),
        conditioner.of_words(class_texts()),
    )
    for row, k, number in [(0, 0, 0), (0, 1, 5), (0, 2, 8), (1, 0, 7), (1, 1, 9)]:
        torch.testing.assert_close(places[row, k] / places[row, k].norm(), words[number] / words[number].norm())
        torch.testing.assert_close(float(places[row, k].norm()), conditioner.of_words.length)
    known = words[:6].norm(dim=1).mean()
    torch.testing.assert_close(conditioner.of_words.length, float(known))


def test_pictures_move_a_class_by_their_number_and_one_without_stays() -> None:
    conditioner = prototypes()
    assert conditioner.space is not None
    plain = prompts_of([(7, 8, 9)], class_texts())
    pictures = torch.randn(1, 3, INPUTS, generator=torch.Generator().manual_seed(5))
    shown = replace(plain, pictures=pictures, shots=torch.tensor([[0, 1, 6]]))
    before, after = conditioner.of_words(class_texts()[7:]), conditioner.places(shown)[0]
    seen = (pictures[0] - conditioner.space.centre) @ conditioner.space.whiten
    expected = conditioner.of_words.left_open.posterior(before, seen, torch.tensor([0, 1, 6]), trust=2.0)
    torch.testing.assert_close(after, conditioner.of_words.length * functional.normalize(expected, dim=1))
    torch.testing.assert_close(after[0] / after[0].norm(), before[0] / before[0].norm())
    off = (expected - seen).norm(dim=1)
    assert off[2] < off[1] < (before - seen).norm(dim=1)[1]


def test_unlabelled_pictures_say_where_the_centre_is() -> None:
    conditioner, prompts = prototypes(), prompts_of([(0, 3, 8, 9), (1, 2)], class_texts())
    assert conditioner.space is not None
    rng = torch.Generator().manual_seed(6)
    features, aside, pictures = (torch.randn(2, count, INPUTS, generator=rng) for count in (20, 1, 4))

    def predicted(prompts: Prompts, features: torch.Tensor) -> torch.Tensor:
        scores = Toy(HIDDEN).logits(conditioner.starting_networks(prompts), features, prompts.texts)
        return scores.masked_fill(~prompts.mask[:, None], -torch.inf).argmax(2)

    same = replace(prompts, centre=conditioner.space.centre.expand(2, -1))
    moved = replace(prompts, centre=(conditioner.space.centre + aside)[:, 0])
    assert torch.equal(predicted(same, features), predicted(prompts, features))
    assert torch.equal(predicted(moved, features + aside), predicted(prompts, features))
    shots = {"shots": torch.full((2, 4), 2)}
    torch.testing.assert_close(
        conditioner.places(replace(moved, pictures=pictures + aside, **shots)),
        conditioner.places(replace(prompts, pictures=pictures, **shots)),
    )


def test_a_network_to_start_from_is_the_targets_own_of_these_places() -> None:
    conditioner = prototypes()
    assert conditioner.space is not None
    prompts = prompts_of([(0, 3, 8, 9), (1, 2)], class_texts())
    scorers, bias = conditioner.space.linear(conditioner.places(prompts), prompts.mask)
    assert torch.equal(
        conditioner.starting_networks(prompts), Toy(HIDDEN).from_linear(scorers, bias, prompts.texts, prompts.mask)
    )
    assert TextSet(text_dim=TEXTS).starting_networks(prompts) is None
