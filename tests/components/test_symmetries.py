"""Groups acting on weights: their laws, that functions stay as they are, and that alignment finds what is to be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.support.mlp import DIMS, FIRST, MLP, SECOND, SPEC, without
from tests.support.stand_ins import Adapter, Units
from wspace.components.symmetries.gl import GL, STRETCH
from wspace.components.symmetries.none import Trivial
from wspace.components.symmetries.sign_permutation import SignPermutation
from wspace.interfaces import Symmetry, Target
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.weights.matching.by_weights import ROWS

CHAIN = WeightSpec(
    (
        WeightEntry("w1", (2, 3), ("in", "first")),
        WeightEntry("w2", (4, 3), ("second", "first")),
        WeightEntry("b2", (4,), ("second",)),
        WeightEntry("square", (3, 2, 3), ("first", "in", "first")),
        WeightEntry("out", (4, 2), ("second", "out")),
    ),
    free=("first", "second"),
)
PLAIN = without("mix")  # no tensor with one axis twice
LINEAR = MLP(lambda x: x, PLAIN)
MOVED: dict[str, tuple[Symmetry, Target]] = {
    "permutation": (Units(spec=SPEC), MLP(functional.relu)),
    "one axis": (Units(("second",), spec=SPEC), MLP(functional.relu)),
    "sign-permutation": (SignPermutation(spec=SPEC), MLP(torch.tanh)),
    "gl": (GL(spec=PLAIN), LINEAR),
    "gl of the other axis": (GL(("second",), spec=PLAIN), LINEAR),
    "gl of an adapter": (
        GL(spec=(adapter := Adapter(4, "none", feature_dim=DIMS[0], text_dim=DIMS[1])).spec),
        adapter,
    ),
    "none": (Trivial(), MLP(functional.gelu)),
}
each = pytest.mark.parametrize("kind", MOVED)
SEEDS = st.integers(0, 10_000)
property_test = settings(deadline=None, max_examples=15, derandomize=True)


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(kind: str, seed: int, count: int = 4) -> tuple[Symmetry, Target, Tensor, Tensor, Tensor]:
    """A symmetry and its target, two elements a network, and weights (count, P) in double."""
    symmetry, target = MOVED[kind]
    rng = rng_of(seed)
    g, h = (symmetry.sample(count, rng) for _ in range(2))
    return symmetry, target, g, h, torch.randn(count, target.spec.size, generator=rng, dtype=torch.float64)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- the laws of a group, and of its action


@each
@property_test
@given(seed=SEEDS)
def test_the_identity_moves_nothing(kind: str, seed: int) -> None:
    symmetry, _, _, _, weights = drawn(kind, seed)
    assert torch.equal(symmetry.act(symmetry.identity(len(weights)), weights), weights)


@each
@property_test
@given(seed=SEEDS)
def test_the_inverse_undoes_on_either_side(kind: str, seed: int) -> None:
    symmetry, _, g, _, weights = drawn(kind, seed)
    back = symmetry.inverse(g)
    assert_same(symmetry.act(back, symmetry.act(g, weights)), weights)
    assert_same(symmetry.act(g, symmetry.act(back, weights)), weights)
    for product_ in (symmetry.compose(back, g), symmetry.compose(g, back)):
        assert_same(product_.double(), symmetry.identity(len(g)).double())


@each
@property_test
@given(seed=SEEDS)
def test_acting_twice_is_acting_with_the_product(kind: str, seed: int) -> None:
    symmetry, _, g, h, weights = drawn(kind, seed)
    assert_same(symmetry.act(symmetry.compose(g, h), weights), symmetry.act(g, symmetry.act(h, weights)))


@each
@property_test
@given(seed=SEEDS, factor=st.floats(-3, 3))
def test_the_action_is_linear_in_the_weights(kind: str, seed: int, factor: float) -> None:
    symmetry, _, g, _, weights = drawn(kind, seed)
    others = weights.roll(1, 0)
    combined = symmetry.act(g, weights) + factor * symmetry.act(g, others)
    torch.testing.assert_close(symmetry.act(g, weights + factor * others), combined)


@each
@property_test
@given(seed=SEEDS)
def test_the_function_stays_as_it_is(kind: str, seed: int) -> None:
    symmetry, target, g, _, weights = drawn(kind, seed)
    features = torch.randn(len(weights), 6, DIMS[0], generator=rng_of(seed), dtype=torch.float64)
    texts = torch.randn(len(weights), 5, DIMS[1], generator=rng_of(seed + 1), dtype=torch.float64)
    moved = symmetry.act(g, weights)
    assert kind == "none" or not torch.equal(moved, weights)
    torch.testing.assert_close(target.logits(moved, features, texts), target.logits(weights, features, texts))


@each
def test_samples_follow_the_seed_and_the_weights_keep_their_type(kind: str) -> None:
    symmetry, _, g, h, weights = drawn(kind, 1, count=5)
    assert torch.equal(drawn(kind, 1, count=5)[2], g) and g.shape == symmetry.identity(5).shape == h.shape
    assert kind == "none" or not torch.equal(g, h)
    assert symmetry.act(g, weights.float()).dtype == torch.float32
    assert symmetry.canonicalize(weights.float(), weights[0].float()).dtype == torch.float32


# ---------------------------------------------------------------- permutations, with and without signs


def per_axis(symmetry: Units, elements: Tensor) -> list[Tensor]:
    return list(elements.split(symmetry.lengths, dim=1))


@property_test
@given(seed=SEEDS)
def test_unit_g_i_moves_to_place_i_in_every_tensor(seed: int) -> None:
    symmetry, rng = Units(("second", "first"), spec=CHAIN), rng_of(seed)
    g, weights = symmetry.sample(4, rng), torch.randn(4, CHAIN.size, generator=rng)
    before, after = CHAIN.unflatten(weights), CHAIN.unflatten(symmetry.act(g, weights))
    for b in range(len(weights)):
        second, first = (p[b] for p in per_axis(symmetry, g))
        assert torch.equal(after["w1"][b], before["w1"][b][:, first])
        assert torch.equal(after["w2"][b], before["w2"][b][second][:, first])
        assert torch.equal(after["b2"][b], before["b2"][b][second])
        assert torch.equal(after["square"][b], before["square"][b][first][:, :, first])
        assert torch.equal(after["out"][b], before["out"][b][second])


@property_test
@given(seed=SEEDS)
def test_signs_multiply_both_sides_of_a_unit(seed: int) -> None:
    symmetry, rng = SignPermutation(("first",), spec=SPEC), rng_of(seed)
    g, weights = symmetry.sample(4, rng), torch.randn(4, SPEC.size, generator=rng)
    before, after = SPEC.unflatten(weights), SPEC.unflatten(symmetry.act(g, weights))
    for b, element in enumerate(g):
        places, signs = element[:FIRST].long(), element[FIRST:]
        assert set(signs.tolist()) <= {1.0, -1.0} and places.sort().values.tolist() == list(range(FIRST))
        assert torch.equal(after["w1"][b], before["w1"][b][:, places] * signs)
        assert torch.equal(after["b1"][b], before["b1"][b][places] * signs)
        assert torch.equal(after["mix"][b], before["mix"][b][places][:, places] * signs[:, None] * signs)
        assert torch.equal(after["w2"][b], before["w2"][b][places] * signs[:, None])
        assert torch.equal(after["w3"][b], before["w3"][b])


@pytest.mark.parametrize(
    ("kind", "size", "limit"),
    [(Units, 6, 20.5), (SignPermutation, 48, 82.7)],  # chi-squared of 5 and 47 degrees: p = 0.001
)
def test_samples_are_uniform_over_the_group(kind: type[Units | SignPermutation], size: int, limit: float) -> None:
    elements = kind(spec=Adapter(3, feature_dim=2, text_dim=2).spec).sample(1000 * size, rng_of(0))
    _, counts = elements.unique(dim=0, return_counts=True)
    assert len(counts) == size and float((counts - 1000).square().sum() / 1000) < limit


def everything(symmetry: Units | SignPermutation) -> Tensor:
    """Every element of the group."""
    places = product(*(permutations(range(n)) for n in symmetry.lengths))
    elements = torch.tensor([sum(axes, ()) for axes in places])
    if isinstance(symmetry, Units):
        return elements
    signs = torch.tensor(list(product((1.0, -1.0), repeat=elements.shape[1])))
    return torch.cat([elements.repeat_interleave(len(signs), 0).float(), signs.repeat(len(elements), 1)], dim=1)


@pytest.mark.parametrize("kind", [Units, SignPermutation])
@property_test
@given(seed=SEEDS)
def test_matching_of_one_axis_is_the_best_of_all_elements(kind: type[Units | SignPermutation], seed: int) -> None:
    spec = Adapter(4, feature_dim=3, text_dim=2).spec
    symmetry, rng = kind(spec=spec), rng_of(seed)
    weights, reference = torch.randn(3, spec.size, generator=rng), torch.randn(spec.size, generator=rng)
    elements = everything(symmetry)
    assert len(elements) == (24 if kind is Units else 24 * 16)
    for network, found in zip(weights, symmetry.canonicalize(weights, reference), strict=True):
        members = symmetry.act(elements, network.expand(len(elements), -1))
        assert (found - reference).norm() <= (members - reference).norm(dim=1).min() * (1 + 1e-6)


@pytest.mark.parametrize("kind", [Units, SignPermutation])
@property_test
@given(seed=SEEDS)
def test_matching_of_several_axes_ends_where_no_axis_alone_can_better_it(
    kind: type[Units | SignPermutation], seed: int
) -> None:
    symmetry, rng = kind(spec=PLAIN), rng_of(seed)
    weights, reference = torch.randn(3, PLAIN.size, generator=rng), torch.randn(PLAIN.size, generator=rng)
    for network in symmetry.canonicalize(weights, reference):
        for axis in symmetry.axes:
            alone = kind((axis,), spec=PLAIN)
            elements = everything(alone)
            members = alone.act(elements, network.expand(len(elements), -1))
            assert (network - reference).norm() <= (members - reference).norm(dim=1).min() * (1 + 1e-6)


@pytest.mark.parametrize("kind", [Units, SignPermutation])
@property_test
@given(seed=SEEDS)
def test_matching_ends_no_farther_away_even_where_a_tensor_has_an_axis_twice(
    kind: type[Units | SignPermutation], seed: int
) -> None:
    symmetry, rng = kind(spec=SPEC), rng_of(seed)
    weights, reference = torch.randn(20, SPEC.size, generator=rng), torch.randn(SPEC.size, generator=rng)
    weights = torch.where(torch.rand(SPEC.size, generator=rng) < 0.8, weights * 0.1, weights)
    found = symmetry.canonicalize(weights, reference)
    assert ((found - reference).norm(dim=1) <= (weights - reference).norm(dim=1) * (1 + 1e-6)).all()


@property_test
@given(seed=SEEDS)
def test_a_tensor_with_an_axis_twice_is_matched_too(seed: int) -> None:
    symmetry, rng = Units(("first",), spec=SPEC), rng_of(seed)
    reference = torch.zeros(1, SPEC.size)
    SPEC.unflatten(reference)["mix"][:] = torch.randn(FIRST, 1, generator=rng)  # nothing else tells the units apart
    moved = symmetry.act(symmetry.sample(1, rng), reference)
    assert torch.equal(symmetry.canonicalize(moved, reference[0]), reference)


OF_ONE_AXIS: dict[str, Callable[[], Units | SignPermutation]] = {
    "permutation": lambda: Units(("second",), spec=SPEC),
    "permutation of an axis that a tensor has twice": lambda: Units(("first",), spec=SPEC),
    "signed": lambda: SignPermutation(("second",), spec=SPEC),
    "signed, of an axis that a tensor has twice": lambda: SignPermutation(("first",), spec=SPEC),
}
OF_SEVERAL: dict[str, Callable[[], Units | SignPermutation]] = {
    "permutation": lambda: Units(spec=SPEC),
    "permutation, in the other order": lambda: Units(("second", "first"), spec=SPEC),
    "signed": lambda: SignPermutation(spec=SPEC),
}


def undone(symmetry: Units | SignPermutation, seed: int, count: int) -> Tensor:
    """Of random networks moved by a random element, and noise that is next to none: which alignment brings back (count,)."""
    rng = rng_of(seed)
    reference = torch.randn(count, SPEC.size, generator=rng)
    planted, noise = symmetry.sample(count, rng), 1e-6 * torch.randn(reference.shape, generator=rng)
    moved = symmetry.act(planted, reference + noise)
    found = (symmetry.align(moved, reference) == symmetry.inverse(planted)).all(1)
    back = symmetry.canonicalize(moved, reference)
    torch.testing.assert_close(back[found], reference[found], rtol=0, atol=1e-5)
    return found


@pytest.mark.parametrize("case", OF_ONE_AXIS)
@property_test
@given(seed=SEEDS)
def test_a_planted_element_of_one_axis_is_found_and_undone(case: str, seed: int) -> None:
    assert undone(OF_ONE_AXIS[case](), seed, 20).all()


@pytest.mark.parametrize("case", OF_SEVERAL)
def test_a_planted_element_of_several_axes_is_found_but_for_few_local_optima(case: str) -> None:
    """Matching goes axis by axis: now and then it ends where no axis by itself can better it."""
    assert float(undone(OF_SEVERAL[case](), 0, 1000).float().mean()) > 0.99


def test_what_a_tensor_with_an_axis_twice_misleads_the_others_put_right() -> None:
    """With `second` in place, `mix` alone spoke against the best places of `first`, and the step was not taken."""
    assert undone(Units(("second", "first"), spec=SPEC), 3961, 3).all()


@each
def test_a_reference_for_each_network_or_one_for_all_in_any_number_of_them(kind: str) -> None:
    symmetry, _, g, _, weights = drawn(kind, 3, count=ROWS + 2)
    moved, references = symmetry.act(g, weights), weights.roll(1, 0)
    of_one, of_each = symmetry.canonicalize(moved, weights[0]), symmetry.canonicalize(moved, references)
    torch.testing.assert_close(symmetry.canonicalize(moved, weights[0].expand_as(weights)), of_one)
    for b in (0, ROWS - 1, ROWS + 1):
        alone = moved[b : b + 1]
        torch.testing.assert_close(symmetry.canonicalize(alone, weights[0])[0], of_one[b])
        torch.testing.assert_close(symmetry.canonicalize(alone, references[b])[0], of_each[b])


# ---------------------------------------------------------------- changes of basis


@property_test
@given(seed=SEEDS)
def test_gl_multiplies_what_comes_in_and_divides_what_goes_out(seed: int) -> None:
    symmetry, rng = GL(("second",), spec=PLAIN), rng_of(seed)
    g, weights = symmetry.sample(2, rng), torch.randn(2, PLAIN.size, generator=rng, dtype=torch.float64)
    before, after = PLAIN.unflatten(weights), PLAIN.unflatten(symmetry.act(g, weights))
    for b, element in enumerate(g):
        m = element.view(SECOND, SECOND).double()
        torch.testing.assert_close(after["w2"][b], before["w2"][b] @ m)
        torch.testing.assert_close(after["b2"][b], before["b2"][b] @ m)
        torch.testing.assert_close(m @ after["w3"][b], before["w3"][b])
        assert all(torch.equal(after[name][b], before[name][b]) for name in ("w1", "b1", "b3"))


def test_sampled_bases_are_well_conditioned_and_turned_every_way() -> None:
    matrices = GL(spec=PLAIN).sample(4000, rng_of(0)).view(-1, FIRST, FIRST)
    values = torch.linalg.svdvals(matrices)
    assert values.max() < STRETCH * (1 + 1e-5) and values.min() > (1 - 1e-5) / STRETCH
    assert values.max() > 0.99 * STRETCH and values.min() < 1.01 / STRETCH
    assert matrices.mean(0).abs().max() < 0.03 and 0.45 < (torch.linalg.det(matrices) > 0).float().mean() < 0.55


@pytest.mark.parametrize("kind", [kind for kind in MOVED if kind.startswith("gl")])
@property_test
@given(seed=SEEDS)
def test_the_canonical_form_under_gl_depends_on_the_orbit_alone(kind: str, seed: int) -> None:
    symmetry, _, g, h, weights = drawn(kind, seed, count=3)
    reference = symmetry.act(g, torch.randn(weights.shape, generator=rng_of(seed), dtype=torch.float64))  # unbalanced
    expected = symmetry.canonicalize(weights, reference)
    for element in (h, symmetry.compose(g, h)):
        found = symmetry.canonicalize(symmetry.act(element, weights), reference)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert_same(symmetry.canonicalize(symmetry.act(h, reference), reference), reference)


def balanced(w: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of the product W V by its singular value decomposition, each with the root of the values."""
    left, values, right = torch.linalg.svd(w @ v, full_matrices=False)
    rank, root = w.shape[1], values[: w.shape[1]].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


@property_test
@given(seed=SEEDS)
def test_with_a_balanced_reference_gl_finds_the_nearest_of_all_balanced_members(seed: int) -> None:
    spec = Adapter(3, "none", False, feature_dim=6, text_dim=5).spec
    rng = rng_of(seed)
    pairs = [[torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((6, 3), (3, 5))] for _ in range(2)]
    (w, v), (w_reference, v_reference) = balanced(*pairs[0]), balanced(*pairs[1])
    flat = [torch.cat([a.flatten(), b.flatten()]) for a, b in (pairs[0], (w_reference, v_reference))]
    found = spec.unflatten(GL(spec=spec).canonicalize(flat[0][None], flat[1])[0])
    torch.testing.assert_close(found["w1"] @ found["w2"], pairs[0][0] @ pairs[0][1])
    torch.testing.assert_close(found["w1"].T @ found["w1"], found["w2"] @ found["w2"].T)
    turns = torch.linalg.qr(torch.randn(200, 3, 3, generator=rng, dtype=torch.float64)).Q
    distances = (w @ turns - w_reference).square().sum((1, 2)) + (turns.mT @ v - v_reference).square().sum((1, 2))
    own = (found["w1"] - w_reference).square().sum() + (found["w2"] - v_reference).square().sum()
    assert own <= distances.min() * (1 + 1e-9)


def test_a_basis_of_one_unit_is_a_number_whose_size_and_sign_have_a_closed_form() -> None:
    spec = Adapter(1, "none", False, feature_dim=2, text_dim=2).spec
    weights, reference = torch.tensor([[3.0, 4.0, 0.1, 0.0]]), torch.tensor([-2.0, -2.0, -8.0, 0.5])
    # |w| = 5, |v| = 0.1: m balances to 5m = 0.1/m, then goes the reference's own way back, with the sign that agrees.
    own, its = (0.1 / 5) ** 0.5, (8.0156 / 8**0.5) ** 0.5
    torch.testing.assert_close(GL(spec=spec).align(weights, reference), torch.tensor([[-own / its]]), rtol=1e-4, atol=0)


def test_a_network_that_has_lost_rank_is_not_aligned_under_gl() -> None:
    target = Adapter(3, "none", feature_dim=6, text_dim=5)
    weights = target.init(2, rng_of(0))
    target.spec.unflatten(weights)["w1"][1][:, 2] = 0
    target.spec.unflatten(weights)["b1"][1][2] = 0
    with pytest.raises(UserError) as caught:
        GL(spec=target.spec).align(weights, weights[0])
    message = (
        "symmetry 'gl': a network's 3 units of axis 'hidden' are not independent, so that it cannot be aligned; "
        "lower the rank, or use another symmetry"
    )
    assert str(caught.value) == message
    narrow = Adapter(3, "none", feature_dim=6, text_dim=2)
    weights = narrow.init(2, rng_of(0))
    with pytest.raises(UserError) as caught:
        GL(spec=narrow.spec).align(weights, weights[0])
    assert str(caught.value) == message


# ---------------------------------------------------------------- what is refused


UNEVEN = WeightSpec(
    (WeightEntry("w1", (2, 3), ("in", "hidden")), WeightEntry("w2", (4, 2), ("hidden", "out"))), ("hidden",)
)
BOUND = WeightSpec((WeightEntry("w", (2, 3), ("in", "out")),))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Units((), spec=CHAIN), "symmetry 'permutation': no axis to act on; free axes: first, second"),
        (lambda: SignPermutation(spec=BOUND), "symmetry 'sign-permutation': no axis to act on; free axes: none"),
        (lambda: GL(spec=BOUND), "symmetry 'gl': no axis to act on; free axes: none"),
        (
            lambda: Units(spec=replace(BOUND, notes=("operation sort is not understood",))),
            "symmetry 'permutation': no axis to act on; free axes: none (operation sort is not understood)",
        ),
        (
            lambda: Units(("first", "third"), spec=CHAIN),
            "symmetry 'permutation': this target has no axis 'third'; it has first, in, out, second",
        ),
        (
            lambda: SignPermutation(("first", "second", "first"), spec=CHAIN),
            "symmetry 'sign-permutation': axis 'first' is named twice",
        ),
        (
            lambda: Units(spec=UNEVEN),
            "symmetry 'permutation': the lengths of axis 'hidden' differ: 3 in 'w1' and 4 in 'w2'",
        ),
        (lambda: GL(spec=UNEVEN), "symmetry 'gl': the lengths of axis 'hidden' differ: 3 in 'w1' and 4 in 'w2'"),
        (
            lambda: GL(("first",), spec=SPEC),
            "symmetry 'gl': tensor 'mix' of axes first, first is on neither side of axis 'first': "
            "incoming tensors have it last, outgoing ones are matrices that have it first",
        ),
        (
            lambda: GL(("in",), spec=CHAIN),
            "symmetry 'gl': tensor 'square' of axes first, in, first is on neither side of axis 'in': "
            "incoming tensors have it last, outgoing ones are matrices that have it first",
        ),
        (lambda: GL(("text",), spec=SPEC), "symmetry 'gl': axis 'text' has no outgoing tensor: it has w3, b3 alone"),
        (lambda: GL(("feature",), spec=SPEC), "symmetry 'gl': axis 'feature' has no incoming tensor: it has w1 alone"),
    ],
)
def test_axes_that_cannot_be_moved_are_refused(build: Callable[[], Symmetry], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value) == message


def test_the_free_axes_are_moved_if_none_is_named_and_the_first_of_them_by_gl() -> None:
    assert Units(spec=CHAIN).axes == SignPermutation(spec=CHAIN).axes == ("first", "second")
    assert GL(spec=PLAIN).axes == ("first",)
