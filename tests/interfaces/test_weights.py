"""Flat vectors <-> named tensors, and what is said of files that hold other tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import FileError

SHAPES = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=5)
BATCHES = st.lists(st.integers(0, 3), max_size=2).map(tuple)
SPEC = WeightSpec((WeightEntry("w", (3, 2), ("in", "out")), WeightEntry("b", (2,), ("out",)), WeightEntry("g", (), ())))


def spec_of(shapes: list[tuple[int, ...]]) -> WeightSpec:
    return WeightSpec(
        tuple(WeightEntry(f"t{i}", s, tuple(f"a{i}{d}" for d in range(len(s)))) for i, s in enumerate(shapes))
    )


def whole() -> dict[str, torch.Tensor]:
    return {"w": torch.zeros(3, 2), "b": torch.zeros(2), "g": torch.zeros(())}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(shapes=SHAPES, batch=BATCHES)
def test_flatten_undoes_unflatten_and_the_other_way_round(
    shapes: list[tuple[int, ...]], batch: tuple[int, ...]
) -> None:
    spec = spec_of(shapes)
    assert spec.size == sum(torch.Size(s).numel() for s in shapes)
    flat = torch.randn(*batch, spec.size)
    named = spec.unflatten(flat)
    assert [tuple(t.shape) for t in named.values()] == [batch + s for s in shapes]
    assert torch.equal(spec.flatten(named), flat)
    tensors = {f"t{i}": torch.randn((*batch, *s)) for i, s in enumerate(shapes)}
    back = spec.unflatten(spec.flatten(tensors))
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_the_flat_vector_is_the_tensors_one_after_another_in_row_order() -> None:
    tensors = {"g": torch.tensor(8.0), "b": torch.tensor([6.0, 7.0]), "w": torch.arange(6.0).view(3, 2)}
    assert SPEC.flatten(tensors).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert SPEC.slices == {"w": slice(0, 6), "b": slice(6, 8), "g": slice(8, 9)}


def test_unflattened_tensors_are_views_even_of_a_vector_repeated_or_transposed() -> None:
    flat = torch.randn(9, 4).T  # (4, P), not contiguous
    assert SPEC.unflatten(flat)["w"].untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
    assert SPEC.unflatten(torch.arange(9.0).expand(2, -1))["b"].tolist() == [[6, 7], [6, 7]]


def test_the_size_of_an_axis_is_that_of_any_tensor_which_has_it() -> None:
    assert (SPEC.axis_size("in"), SPEC.axis_size("out")) == (3, 2)
    with pytest.raises(KeyError, match="hidden"):
        SPEC.axis_size("hidden")


def test_whole_finite_weights_are_valid_in_any_order() -> None:
    SPEC.validate(dict(reversed(whole().items())), "head.safetensors")


def test_names_that_are_not_the_targets_are_listed() -> None:
    tensors = {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}
    with pytest.raises(FileError) as caught:
        SPEC.validate(tensors, "head.safetensors")
    assert str(caught.value) == "head.safetensors: holds tensors bias, weight; this target has w, b, g"
    with pytest.raises(FileError) as caught:
        SPEC.validate({}, "head.safetensors")
    assert str(caught.value) == "head.safetensors: holds tensors (none); this target has w, b, g"


@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 1), (6,)])
def test_another_shape_is_named_with_the_one_needed(shape: tuple[int, ...]) -> None:
    with pytest.raises(FileError) as caught:
        SPEC.validate(whole() | {"w": torch.zeros(shape)}, "head.safetensors")
    assert str(caught.value) == f"head.safetensors: w has shape {shape}; this target needs (3, 2)"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(FileError) as caught:
        SPEC.validate(whole() | {"b": torch.tensor([0.0, value])}, "head.safetensors")
    assert str(caught.value) == "head.safetensors: b holds values that are not finite numbers"


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8])
def test_numbers_that_are_not_real_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(FileError) as caught:
        SPEC.validate(whole() | {"b": torch.zeros(2, dtype=dtype)}, "head.safetensors")
    name = str(dtype).removeprefix("torch.")
    assert str(caught.value) == f"head.safetensors: b is {name}; this target needs real numbers, such as float32"
