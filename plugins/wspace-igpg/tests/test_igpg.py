"""IGPG's parts against independent references: cutting and joining, codes, cached decoding, samplers, nested starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from wspace_igpg.code_transformer import CodeTransformer
from wspace_igpg.digits import Digits
from wspace_igpg.instruction_list import InstructionList
from wspace_igpg.instruction_set import InstructionSet
from wspace_igpg.layer_tokens import DESCRIBED, Cuts, described
from wspace_igpg.nested_start import Nested
from wspace_igpg.weight_codes import WeightCodes

from wspace.components.architectures.cnn import CNN
from wspace.components.architectures.mlp import MLP
from wspace.components.targets.module import Module
from wspace.interfaces import PICTURE, TEST, TRAIN, VAL, Condition, Pairs, Prompts, TokenLayout, Told
from wspace.interfaces.weights import WeightEntry, WeightSpec, plain_spec
from wspace.learning.loop import TrainingLoop
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.source import find_recipe, read_recipe
from wspace.runs.checking import check
from wspace.support.errors import UserError
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Generate, Reconstruction

SPEC = WeightSpec(
    (
        WeightEntry("hidden1.weight", (4, 7), ("hidden1", "7")),
        WeightEntry("hidden1.bias", (4,), ("hidden1",)),
        WeightEntry("conv2.weight", (3, 4, 2, 2), ("3", "hidden1", "2", "2")),
        WeightEntry("norm.weight", (3,), ("3",)),
        WeightEntry("norm.running_var", (3,), ("3",)),
        WeightEntry("cls_token", (1, 1, 5), ("1", "1", "5")),
        WeightEntry("out.weight", (6, 4), ("6", "hidden1")),
    ),
    free=("hidden1",),
)
TYPICAL = Generate(temperature=0.0)
DRAWN = replace(TYPICAL, temperature=1.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=stream(seed, "test"))


# ---------------------------------------------------------------- pieces of rows


@settings(deadline=None, max_examples=25)
@given(size=st.integers(1, 9))
def test_pieces_are_rows_cut_and_padded(size: int) -> None:
    weights, cuts = normal(2, SPEC.size), Cuts(SPEC, size)
    tensors, number = SPEC.unflatten(weights), 0
    for cut, values in cuts.with_values(weights):
        pieces = cut.pieces_of(values)
        assert torch.equal(cut.values_of(pieces), values)
        tensor = tensors[cut.entry.name][1]
        if cut.entry.name in ("conv2.weight", "out.weight"):
            rows = [tensor[:, unit].flatten() for unit in range(4)]  # a row for each hidden unit: what it gives
        elif tensor.ndim == 1:
            rows = [tensor]
        else:
            rows = list(tensor.flatten(0, -2) if cut.entry.name == "cls_token" else tensor.flatten(1))
        naive = [
            functional.pad(row[start : start + size], (0, max(0, start + size - len(row))))
            for row in rows
            for start in range(0, len(row), size)
        ]
        assert torch.equal(pieces[1], torch.stack(naive))
        places = cuts.places[number : number + cut.pieces]
        assert (places[:, 0] == cuts.each.index(cut)).all()
        assert [tuple(p) for p in places[:, 1:].tolist()] == [
            (row, block) for row in range(len(rows)) for block in range(-(-len(rows[0]) // size))
        ]
        number += cut.pieces
    assert number == cuts.count == len(cuts.places)


def test_rows_of_the_last_layer_are_those_of_its_outputs_where_these_stand_for_classes() -> None:
    weights, cuts = normal(2, SPEC.size), Cuts(SPEC, 4, by_output=True)
    out = cuts.each[-1]
    pieces = out.pieces_of(weights[:, SPEC.slices["out.weight"]])
    assert torch.equal(pieces, SPEC.unflatten(weights)["out.weight"])  # (2, 6 outputs, 4 hidden units)
    assert torch.equal(cuts.places[-6:, 1], torch.arange(6))
    for cut, values in cuts.with_values(weights):
        assert torch.equal(cut.values_of(cut.pieces_of(values)), values)


def test_an_architecture_is_told_by_kind_shape_and_depth() -> None:
    vectors = described(SPEC)
    assert vectors.shape == (7, DESCRIBED) and vectors.isfinite().all()
    assert len(vectors.unique(dim=0)) == 7
    wider = WeightSpec((replace(SPEC.entries[0], shape=(8, 7)), *SPEC.entries[1:]), free=("hidden1",))
    assert not torch.equal(described(wider)[0], vectors[0]) and torch.equal(described(wider)[4], vectors[4])


@pytest.mark.parametrize("shape", [(), (2, 2, 2, 2, 2, 2)])
def test_a_tensor_that_no_description_has_is_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as caught:
        described(plain_spec({"layer.weight": shape}))
    assert str(caught.value) == (
        f"tensor 'layer.weight' has shape {shape}, which the description of an architecture cannot express: it knows vectors, "
        "matrices and kernels of up to 5 dimensions"
    )


# ---------------------------------------------------------------- codes


def codes_of(quantizer: str = "residual", **arguments: object) -> WeightCodes:
    with seeded(0):
        return WeightCodes(4, quantizer, **{"codebook": 64, "hidden": 8, **arguments}, spec=SPEC)  # type: ignore[arg-type]


def test_a_code_begins_at_each_piece_of_the_mean_network() -> None:
    tokenizer, zoo = codes_of(), normal(1, SPEC.size) + 1e-4 * normal(12, SPEC.size, seed=1)
    tokenizer.fit(zoo)
    back = tokenizer.detokenize(tokenizer.tokenize(zoo))
    assert tokenizer.layout.codes == 64 and tokenizer.cuts.count < 64
    assert float((back - zoo).square().mean() / zoo.square().mean()) < 1e-6


def test_codes_begin_at_clusters_where_networks_began_apart() -> None:
    """Of three unrelated starts: each piece has a code for each, also of a last layer whose values are next to nothing."""
    start = torch.arange(30) % 3
    zoo = normal(3, SPEC.size)[start] + 1e-5 * normal(30, SPEC.size, seed=1)
    zoo[:, SPEC.slices["out.weight"]] *= 1e-3
    tokenizer = codes_of("vq", codebook=3 * Cuts(SPEC, 4).count, begin="clusters")
    tokenizer.fit(zoo)
    codes = tokenizer.tokenize(zoo)[..., 0].long()
    for of_piece in codes.T.tolist():
        assert len(set(of_piece)) == len(set(zip(start.tolist(), of_piece, strict=True))) == 3
    back = tokenizer.detokenize(codes[..., None])
    out = SPEC.slices["out.weight"]
    assert float((back - zoo)[:, out].square().mean() / zoo[:, out].square().mean()) < 1e-2


@pytest.mark.parametrize("quantizer, codebook", [("residual", 16), ("vq", 16), ("fsq", 256)])
def test_every_quantizer_writes_codes_and_reads_them(quantizer: str, codebook: int) -> None:
    tokenizer, zoo = codes_of(quantizer, codebook=codebook).train(), normal(40, SPEC.size)
    tokenizer.fit(zoo)
    optimizer = torch.optim.Adam(tokenizer.parameters(), 1e-2 if quantizer == "fsq" else 1e-3)
    for step in range(100):
        loss = sum(tokenizer.loss(zoo, stream(step)).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.eval()
    codes = tokenizer.tokenize(zoo)
    assert codes.shape == (40, *tokenizer.layout.mask.shape) and codes.shape[2] == (1 if quantizer == "vq" else 3)
    assert torch.equal(codes, codes.round()) and codes.min() >= 0 and codes.max() < codebook
    lost = (tokenizer.detokenize(codes) - zoo).square().sum() / (zoo - zoo.mean(0)).square().sum()
    assert lost < {"residual": 0.5, "vq": 0.9, "fsq": 0.9}[quantizer]
    values = tokenizer.log_values()
    assert 0 < values["codes_used"] <= 1 and 1 <= values["perplexity"] <= codebook


def test_the_same_code_takes_networks_of_another_shape() -> None:
    tokenizer = codes_of()
    tokenizer.fit(normal(12, SPEC.size))
    other = WeightCodes(4, codebook=64, hidden=8, spec=plain_spec({"layer.weight": (5, 9), "layer.bias": (5,)}))
    other.load_state_dict(tokenizer.state_dict())
    weights = normal(2, 50)
    tokens = other.tokenize(weights)
    assert tokens.shape == (2, 5 * 3 + 2, 3)
    parts = [
        other.through(entry.name, weights[:, other.cuts.spec.slices[entry.name]]) for entry in other.cuts.spec.entries
    ]
    assert torch.equal(torch.cat([codes for codes, _ in parts], 1), tokens)
    assert torch.equal(torch.cat([values for _, values in parts], 1), other.detokenize(tokens))


def test_a_codebook_that_collapsed_is_told() -> None:
    tokenizer, zoo = codes_of(), normal(12, SPEC.size)
    tokenizer.fit(zoo)
    tokenizer.tokenize(zoo)
    with torch.no_grad():
        tokenizer.code.quantizer.layers[0]._codebook.embed.fill_(1.0)  # type: ignore[union-attr,index]
    with pytest.raises(UserError) as caught:
        tokenizer.fit(zoo)
    assert str(caught.value) == (
        "tokenizer 'vq': the codebook has collapsed: 1 of 64 codes is in use; lower reconstruction.lr, or take another "
        "tokenizer.quantizer"
    )


@pytest.mark.parametrize("quantizer, codebook", [("residual", 16), ("vq", 16), ("fsq", 256)])
def test_a_blend_of_one_code_each_is_the_network_of_these_codes(quantizer: str, codebook: int) -> None:
    tokenizer, zoo = codes_of(quantizer, codebook=codebook), normal(12, SPEC.size)
    tokenizer.fit(zoo)
    codes = tokenizer.tokenize(zoo[:2])
    shares = functional.one_hot(codes.long(), codebook).float().requires_grad_()
    blended = tokenizer.blend(shares)
    torch.testing.assert_close(blended, tokenizer.detokenize(codes))
    (gradient,) = torch.autograd.grad(blended[0, 0], shares)
    assert gradient[0, 0].any() and not gradient[1].any()  # of the first weight, in the first piece of its own network


def test_a_row_of_the_last_layer_says_which_output_it_serves() -> None:
    serves = codes_of(by_output=True).layout.serves
    assert serves is not None and serves.unique(dim=1).shape[1] == 1  # all codes of a piece
    tensors = Cuts(SPEC, 4, by_output=True).places[:, 0]
    assert serves[tensors == 6, 0].tolist() == list(range(6))
    leading = torch.isin(tensors, torch.tensor([2, 6]))  # from hidden units to what is none
    assert (serves[~leading] == -1).all()
    of_units = codes_of().layout.serves
    assert of_units is not None and (of_units == -1).all()


def test_fsq_names_its_codebooks() -> None:
    with pytest.raises(
        UserError, match=r"^tokenizer 'vq': fsq has codebooks of 256, 512, 1024, 4096 codes, not of 100$"
    ):
        codes_of("fsq", codebook=100)


def test_no_codebook_begins_at_no_clusters() -> None:
    with pytest.raises(UserError) as caught:
        codes_of("fsq", codebook=256, begin="clusters")
    assert str(caught.value) == (
        "tokenizer 'vq': fsq learns no codebook, which could begin at clusters; leave tokenizer.begin out"
    )


# ---------------------------------------------------------------- the transformer

PIECES, CODES = 12, 7


def transformer(window: int = 1024, **settings: bool) -> CodeTransformer:
    places = torch.stack([torch.arange(PIECES) // 4, torch.arange(PIECES) % 4, torch.zeros(PIECES).long()], dim=1)
    mask, stand_for = torch.ones(PIECES, 2, dtype=torch.bool), normal(2, CODES, 3)
    serves = torch.full((PIECES, 2), -1)
    serves[8:11] = torch.arange(3)[:, None]
    layout = TokenLayout(mask, codes=CODES, places=places)
    if settings:
        layout = replace(layout, serves=serves, meanings=lambda: stand_for)
    with seeded(0):
        made = CodeTransformer(16, 2, 2, window, spec=SPEC, layout=layout, condition_width=5, **settings)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def condition(seed: int = 0) -> Condition:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return Condition(normal(2, 3, 5, seed=seed) * mask[..., None], mask, normal(2, 4))


def nothing() -> Condition:
    like = condition()
    mask = torch.zeros_like(like.mask)
    mask[:, 0] = True
    return Condition(torch.zeros_like(like.tokens), mask, torch.zeros_like(like.pooled))


def naive_logits(generator: CodeTransformer, features: Tensor, codes: Tensor, level: int) -> Tensor:
    """Of a level's code, given the piece's codes before it."""
    for earlier in range(level):
        features = features + generator.of_earlier[earlier][codes[..., earlier]]
    return generator.heads[level](features)


@pytest.mark.parametrize("by_place", [False, True])
@pytest.mark.parametrize("window", [1024, 5])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_cached_decoding_is_decoding_anew(window: int, guidance: float, by_place: bool) -> None:
    generator, how = transformer(window, by_place=by_place), replace(TYPICAL, guidance=guidance)
    generator.meanings = None  # so that the most probable code is the typical one
    cached = generator.sample(condition(), nothing(), how, stream(0)).long()
    naive = torch.zeros(2, PIECES, 2, dtype=torch.long)
    with torch.no_grad():
        for piece in range(PIECES):
            for level in range(2):
                asked, null = (
                    naive_logits(generator, generator.seen(naive, conditioned)[:, piece], naive[:, piece], level)
                    for conditioned in (condition(), nothing())
                )
                naive[:, piece, level] = (null + guidance * (asked - null)).argmax(1)
    assert torch.equal(cached, naive)


def test_no_piece_sees_itself_nor_what_comes_after() -> None:
    generator, codes = transformer(), torch.randint(CODES, (2, PIECES, 2), generator=stream(1))
    before = generator.seen(codes, condition())
    changed = codes.clone()
    changed[:, 6] = (changed[:, 6] + 1) % CODES
    after = generator.seen(changed, condition())
    assert torch.equal(after[:, :7], before[:, :7]) and (after[:, 7:] != before[:, 7:]).any(2).all()


def test_what_is_forgotten_is_seen_by_no_piece() -> None:
    generator, codes = transformer(), torch.randint(CODES, (2, PIECES, 2), generator=stream(1))
    forgotten = torch.zeros(2, PIECES, dtype=torch.bool)
    forgotten[:, 6] = True
    before = generator.seen(codes, condition(), forgotten)
    changed = codes.clone()
    changed[:, 6] = (changed[:, 6] + 1) % CODES
    assert torch.equal(generator.seen(changed, condition(), forgotten), before)
    assert not torch.equal(generator.seen(codes, condition()), before)


def test_the_typical_code_is_that_of_least_expected_squared_error() -> None:
    generator, meanings = transformer(), normal(CODES, 3)
    logits = normal(50, CODES, seed=1)
    shares = logits.softmax(1)
    risk = torch.stack([(shares * (meanings - meaning).square().sum(1)).sum(1) for meaning in meanings], dim=1)
    assert torch.equal(generator._typical(logits, meanings), risk.argmin(1))
    assert torch.equal(generator._typical(logits, None), logits.argmax(1))


def test_of_two_kinds_of_piece_the_typical_code_is_one_and_not_what_lies_between() -> None:
    meanings = torch.tensor([[-1.0], [1.0], [0.1]])
    logits = torch.tensor([[0.5, 0.49, 0.01]]).log()
    generator = transformer()
    assert generator._typical(logits, meanings).tolist() == [2]
    generator.plausible = 0.5
    assert generator._typical(logits, meanings).tolist() == [0]


def test_with_a_window_no_piece_sees_further_back() -> None:
    generator, codes = transformer(3), torch.randint(CODES, (2, PIECES, 2), generator=stream(1))
    generator.blocks = generator.blocks[:1]
    before = generator.seen(codes, condition())
    changed = codes.clone()
    changed[:, 2] = (changed[:, 2] + 1) % CODES
    differs = (generator.seen(changed, condition()) != before).any(2).all(0)
    assert differs.tolist() == [3 <= piece < 6 for piece in range(PIECES)]


def test_a_stream_stops_where_it_is_told_and_remembers_no_more_than_its_window() -> None:
    generator = transformer(4)
    few = list(generator.stream(condition(), nothing(), TYPICAL, stream(0), count=5))
    whole = generator.sample(condition(), nothing(), TYPICAL, stream(0)).long()
    assert torch.equal(torch.stack(few, dim=1), whole[:, :5])


def test_samplers_draw_from_what_they_say() -> None:
    generator, rng = transformer(), stream(3)
    generator.top_p, generator.top_k = 0.6, 3
    shares = torch.tensor([0.05, 0.4, 0.3, 0.1, 0.08, 0.05, 0.02])
    logits = shares.log().expand(20_000, -1)
    expected = {"top-p": [1, 2], "top-k": [1, 2, 3], "all": list(range(7))}
    for sampler, kept in expected.items():
        drawn = torch.bincount(generator._drawn(logits, 1.0, sampler, rng), minlength=CODES) / 20_000
        wanted = torch.zeros(CODES)
        wanted[kept] = shares[kept] / shares[kept].sum()
        assert (drawn - wanted).abs().max() < 0.015, sampler
    colder = torch.bincount(generator._drawn(logits, 0.5, "all", rng), minlength=CODES) / 20_000
    assert (colder - shares.square() / shares.square().sum()).abs().max() < 0.015


def test_loss_is_the_cross_entropy_of_each_code_given_those_before() -> None:
    generator, codes = transformer(), torch.randint(CODES, (2, PIECES, 2), generator=stream(1))
    generator.dropout = generator.forget = 0.0
    terms = generator.loss(Pairs(codes.float(), condition(), nothing()), stream(0))
    seen = generator.seen(codes, condition())
    for level in range(2):
        shares = naive_logits(generator, seen, codes, level).softmax(2)
        right = torch.stack([shares[b, n, codes[b, n, level]] for b in range(2) for n in range(PIECES)])
        assert torch.allclose(terms[f"code {level + 1}"], -right.log().mean(), atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"by_place": True}, {"by_meaning": True}])
def test_the_typical_network_is_the_one_that_is_drawn_and_has_gradients(settings: dict[str, bool]) -> None:
    generator = transformer(**settings)
    drawn, shares = generator.sample(condition(), nothing(), TYPICAL, stream(0)).long(), generator.typical(condition())
    assert shares.shape == (2, PIECES, 2, CODES) and torch.equal(shares.argmax(3), drawn)
    torch.testing.assert_close(shares, functional.one_hot(drawn, CODES).float())
    values, every = normal(PIECES, 2, CODES), torch.stack(generator.logits(drawn, condition()), dim=2)
    meanings = [None, None] if generator.meanings is None else list(generator.meanings())
    for level in range(2):
        again = generator._typical(every[:, :, level].flatten(0, 1), meanings[level])
        assert torch.equal(again, drawn[..., level].flatten())
    expected = every.softmax(3)
    for parameter, wanted in zip(
        torch.autograd.grad((shares * values).sum(), list(generator.parameters())),
        torch.autograd.grad((expected * values).sum(), list(generator.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(parameter, wanted)
        assert parameter.any()


def test_a_task_loss_trains_the_transformer_after_its_own() -> None:
    generator = transformer()
    assert generator.task_loss_last and len(generator.task_parameters()) == len(list(generator.parameters()))


def test_a_piece_that_serves_an_output_is_told_its_class_and_no_other() -> None:
    generator = transformer(by_place=True)
    there = replace(condition(), mask=torch.ones(2, 3, dtype=torch.bool))
    swapped = replace(there, tokens=there.tokens[:, [1, 0, 2]])
    one, two = (generator._asked(asked, generator.of_condition(asked.tokens)) for asked in (there, swapped))
    torch.testing.assert_close(two[:, [9, 8]], one[:, [8, 9]])
    torch.testing.assert_close(two[:, 10:], one[:, 10:])  # the mean of what is told, and the third class, are as before
    assert not torch.equal(one[:, 8], one[:, 9])
    torch.testing.assert_close(one[:, 0], one[:, 11])  # those of several outputs are told the mean alone


def test_tokens_after_the_classes_stand_at_no_place() -> None:
    """As those of an instruction's pictures, where a batch has no task with a class at the last place."""
    generator = transformer(by_place=True)
    generator.overall.weight.data.zero_()
    two = replace(condition(), mask=torch.ones(2, 3, dtype=torch.bool), classes=2)
    other = replace(two, tokens=two.tokens * torch.tensor([1.0, 1.0, 2.0])[:, None])
    one, same = (generator._asked(asked, generator.of_condition(asked.tokens)) for asked in (two, other))
    torch.testing.assert_close(one, same)
    keep = torch.tensor([True, False])
    assert two.where(keep, nothing()).classes == 2


def test_codes_alike_are_read_and_written_alike() -> None:
    generator = transformer(by_meaning=True)
    assert generator.meanings is not None
    generator.meanings()[:, 1] = 2 * generator.meanings()[:, 0]  # of one direction
    with torch.no_grad():
        generator.of_code.zero_()
        book = generator._book()
    assert book.written is not None
    torch.testing.assert_close(book.read[:, 1], book.read[:, 0])
    torch.testing.assert_close(book.written[:, 1], book.written[:, 0])
    assert not torch.equal(book.read[:, 2], book.read[:, 0])


def test_what_a_transformer_is_to_know_of_codes_and_is_not_told_is_refused() -> None:
    layout = TokenLayout(torch.ones(3, 1, dtype=torch.bool), codes=5)
    with pytest.raises(UserError) as caught:
        CodeTransformer(by_place=True, spec=SPEC, layout=layout, condition_width=5)
    assert str(caught.value) == (
        "generator 'autoregressive': no piece is known to serve one output alone, as with tokenizer 'vq' and its by_output: "
        "leave generator.by_place out"
    )
    with pytest.raises(UserError) as caught:
        CodeTransformer(by_meaning=True, spec=SPEC, layout=layout, condition_width=5)
    assert str(caught.value) == (
        "generator 'autoregressive': this tokenizer does not say what its codes stand for: leave generator.by_meaning out"
    )


def test_tokens_that_are_no_codes_are_refused() -> None:
    with pytest.raises(UserError, match="it writes codes, so it needs a tokenizer of such, as `vq` is"):
        CodeTransformer(spec=SPEC, layout=TokenLayout(torch.ones(3, 4, dtype=torch.bool)), condition_width=5)


# ---------------------------------------------------------------- instructions


def test_images_of_known_classes_are_looked_at_and_of_others_those_of_the_data_set() -> None:
    with seeded(0):
        conditioner = InstructionSet(8, spec=SPEC, text_dim=6)
    texts = functional.normalize(normal(4, 6), dim=1)
    pictures = normal(3, 2, PICTURE)
    conditioner.told(Told(texts[:3], pictures, texts[0]))
    prompts = Prompts(texts[torch.tensor([[0, 3]])], torch.tensor([[True, True]]))
    conditioner.fit(prompts)
    with torch.no_grad():
        tokens = conditioner(prompts).tokens
        assert tokens.shape == (1, 2 + 2 + len(SPEC.entries), 8)
        conditioner.told(Told(texts[:3], torch.cat([pictures[:1] + 1, pictures[1:] - 0.5]), texts[0]))
        changed = conditioner(prompts).tokens
    assert (changed[0, 0] != tokens[0, 0]).any() and torch.equal(changed[0, 1], tokens[0, 1])
    assert (changed[0, 2] != tokens[0, 2]).any() and torch.equal(changed[0, 3:], tokens[0, 3:])


def test_no_images_and_nothing_told_are_one_sentence_each() -> None:
    conditioner = InstructionSet(8, spec=SPEC, text_dim=6)
    with pytest.raises(UserError, match=r"was told neither of a data set nor of an architecture$"):
        conditioner(Prompts(normal(1, 2, 6), torch.ones(1, 2, dtype=torch.bool)))
    with pytest.raises(UserError) as caught:
        conditioner.told(Told(normal(3, 6), torch.zeros(3, 0, PICTURE), normal(6)))
    assert str(caught.value) == (
        "conditioner 'instruction' looks at a few training images of each class, and the data set has none"
    )


def listing(places: int | None = None, outputs: int | None = 3) -> InstructionList:
    target = Module(MLP((2,)), outputs=outputs, feature_dim=5, text_dim=6)
    with seeded(0):
        made = InstructionList(8, places, spec=SPEC, text_dim=6, target=target)
    made.told(Told(functional.normalize(normal(4, 6), dim=1), normal(4, 2, PICTURE), normal(6)))
    return made


def test_another_order_of_the_same_classes_is_another_instruction_and_nothing_else_changes() -> None:
    conditioner, texts = listing(), functional.normalize(normal(4, 6), dim=1)
    one, two = (
        Prompts(texts[torch.tensor([order])], torch.ones(1, 3, dtype=torch.bool)) for order in ([0, 1, 2], [2, 1, 0])
    )
    conditioner.fit(one)
    with torch.no_grad():
        first, second = conditioner(one), conditioner(two)
    assert torch.equal(first.tokens[:, 1], second.tokens[:, 1])  # the one in the middle stays there
    turned = first.tokens[0, [0, 2]] + conditioner.of_place[[2, 0]] - conditioner.of_place[[0, 2]]
    torch.testing.assert_close(second.tokens[0, [2, 0]], turned)
    torch.testing.assert_close(first.tokens[:, 3:], second.tokens[:, 3:])  # pictures, words and layers know no order
    assert not torch.equal(first.pooled, second.pooled)


def test_places_that_do_not_fit_are_one_sentence_each() -> None:
    with pytest.raises(UserError) as caught:
        listing(outputs=None)
    assert str(caught.value) == (
        "conditioner 'instruction-list': this target's outputs stand for no classes in order, so there are no places to tell: "
        "name instruction"
    )
    with pytest.raises(UserError) as caught:
        listing(places=2)
    assert str(caught.value) == "conditioner 'instruction-list': it has 2 places, and the target outputs for 3"
    with pytest.raises(UserError, match=r"^a task has 4 classes, and there are places for 3$"):
        listing()(Prompts(normal(1, 4, 6), torch.ones(1, 4, dtype=torch.bool)))


def test_a_generator_of_several_architectures_has_one_list_of_places() -> None:
    """Places are no part of a member's shape, as little as its layers are: a joint recipe shares all that is stored."""
    target = Module(MLP((2,)), outputs=3, feature_dim=5, text_dim=6)
    other = plain_spec({"layer.weight": (5, 9), "layer.bias": (5,)})
    made = InstructionList(8, spec=other, text_dim=6, target=target)
    made.load_state_dict(listing().state_dict())
    assert torch.equal(made.of_place, listing().of_place)


def test_an_instruction_that_forgets_order_is_refused_where_outputs_have_one() -> None:
    settings = ("target.outputs=6", "conditioner=instruction")
    recipe = bind(read_recipe(find_recipe("apart/igpg-orders-one"), settings), load_plugins().registry)
    dims = {"feature_dim": 64, "text_dim": 6}
    target = recipe.target.build(dims)
    with pytest.raises(UserError) as caught:
        check(recipe, target, dims)
    assert str(caught.value) == (
        "conditioner (instruction): this conditioner says the same of every order of a task's classes, and the target's "
        "outputs stand for them in order; name one that keeps it, as text-list"
    )


# ---------------------------------------------------------------- architectures and data


def built(of: MLP | CNN, inputs: tuple[int, ...]) -> dict[str, Tensor]:
    with seeded(5):
        return Nested(of).build(inputs, 9).state_dict()


@pytest.mark.parametrize(
    "small, large, inputs",
    [(MLP((3,)), MLP((5,)), (7,)), (MLP((3, 4)), MLP((4, 6)), (7,)), (CNN((3, 4)), CNN((4, 6)), (3, 8, 8))],
)
def test_a_narrower_network_is_a_part_of_a_wider_one(
    small: MLP | CNN, large: MLP | CNN, inputs: tuple[int, ...]
) -> None:
    few, many = built(small, inputs), built(large, inputs)
    for name, tensor in few.items():
        if tensor.ndim < 2:
            continue
        part = many[name][tuple(slice(side) for side in tensor.shape)]
        if not name.startswith("out") and not name.endswith("1.weight"):
            continue  # near the identity, and noise
        ratio = (tensor[0].numel() / many[name][0].numel()) ** -0.5  # of torch's bounds, 1 over the root of the fan in
        assert torch.allclose(tensor, part * ratio, atol=1e-5)


def test_a_deeper_network_begins_as_the_shallower_one_does() -> None:
    x = normal(20, 7)
    with seeded(5):
        shallow = Nested(MLP((6,))).build((7,), 9)
    with seeded(5):
        deep = Nested(MLP((6, 6, 6))).build((7,), 9)
    with torch.no_grad():
        one, two = shallow(x), deep(x)
    assert float(functional.cosine_similarity(one, two).mean()) > 0.8


def test_starts_are_few_and_the_same_for_every_width() -> None:
    def beginnings(hidden: int) -> list[Tensor]:
        made = []
        for seed in range(12):
            with seeded(seed):
                made.append(Nested(MLP((hidden,)), starts=2).build((7,), 3).state_dict()["hidden1.weight"])
        return made

    narrow, wide = beginnings(3), beginnings(5)
    assert len({tuple(weight.flatten().tolist()) for weight in narrow}) == 2
    for few, many in zip(narrow, wide, strict=True):
        assert torch.equal(few, many[:3])


def test_a_last_layer_that_begins_at_nothing_leaves_the_others_as_they_are() -> None:
    with seeded(5):
        whole = Nested(MLP((4,))).build((7,), 3).state_dict()
    with seeded(5):
        without = Nested(MLP((4,)), last=0.0).build((7,), 3).state_dict()
    assert not without["out.weight"].any() and not without["out.bias"].any()
    assert torch.equal(whole["hidden1.weight"], without["hidden1.weight"])


def test_digits_are_tested_on_other_hands(tmp_path: Path) -> None:
    grey, colours = Digits(size=16).load(tmp_path), Digits("colours", 16).load(tmp_path)
    assert grey.classes[:2] == ("zero", "one") and len(grey) == 1797 and grey.fingerprint != colours.fingerprint
    for images in (grey, colours):
        assert {split: set(images.labels[images.split == split]) for split in (TRAIN, VAL, TEST)} == {
            split: set(range(10)) for split in (TRAIN, VAL, TEST)
        }
    assert (grey.split[-449:] == TEST).all() and (grey.split[:-449] != TEST).all()
    pixels = grey.read([0, 5])
    assert pixels.shape == (2, 16, 16, 3) and (pixels[..., 0] == pixels[..., 2]).all() and pixels.max() == 255
    assert (colours.read([0])[..., 0] != colours.read([0])[..., 2]).any()


# ---------------------------------------------------------------- training a code


def loop_over(tokenizer: WeightCodes, checkpoint: Path) -> TrainingLoop:
    buffers = {name: b for name, b in tokenizer.named_buffers() if name in tokenizer.state_dict()}
    settings = Reconstruction(steps=4, lr=1e-2)
    return TrainingLoop(tokenizer, settings, checkpoint, list(tokenizer.parameters()), buffers=buffers)


def test_a_loop_keeps_the_codebook_that_was_best_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    tokenizer, zoo = codes_of(codebook=16, decay=0.5), normal(20, SPEC.size)
    tokenizer.fit(zoo)
    loop = loop_over(tokenizer, tmp_path / "loop.safetensors")
    books = []
    for step, accuracy in enumerate((0.5, 0.7, 0.1)):
        loss = sum(tokenizer.loss(zoo, stream(step)).values(), torch.zeros(()))
        loop.advance([(loss, {"tokenizer": tokenizer.log_values()})])
        loop.keep_if_best(accuracy)
        books.append({name: buffer.clone() for name, buffer in tokenizer.named_buffers()})
    loop.save()
    assert any(not torch.equal(books[1][name], books[2][name]) for name in books[1])
    other = codes_of(codebook=16, decay=0.5)
    resumed = loop_over(other, tmp_path / "loop.safetensors")
    resumed.resume()
    for name, buffer in other.named_buffers():
        assert torch.equal(buffer, books[2][name])
    for one, made in ((loop, tokenizer), (resumed, other)):
        one.finish()
        for name, buffer in made.named_buffers():
            assert torch.equal(buffer, books[1][name])
