"""`Tokenizer.log_values`, which was `figures`: tokenizers of before go on being asked."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wspace.api import Tokenizer, TokenLayout


class Plain(Tokenizer):
    """Weights as they are, a token each."""

    layout = TokenLayout(torch.ones(3, 1, dtype=torch.bool))

    def fit(self, weights: Tensor) -> None:
        pass

    def tokenize(self, weights: Tensor) -> Tensor:
        return weights[..., None]

    def detokenize(self, tokens: Tensor) -> Tensor:
        return tokens[..., 0]


class Modern(Plain):
    def log_values(self) -> dict[str, Tensor]:
        return {"codes": torch.tensor(3.0)}


def old_child_of(parent: type[Tokenizer]) -> type[Tokenizer]:
    """With the warning that its definition gives."""
    with pytest.warns(DeprecationWarning, match=r"Old\.figures is now called log_values; write that$") as caught:

        class Old(parent):  # type: ignore[misc,valid-type]
            def figures(self) -> dict[str, Tensor]:
                return super().figures() | {"old": torch.tensor(1.0)}

    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]  # at the class, not in wspace
    return Old


def test_a_tokenizer_that_has_the_old_method_alone_is_asked_by_the_new_name() -> None:
    old = old_child_of(Plain)
    assert old().log_values() == {"old": torch.tensor(1.0)}

    class Heir(old):  # type: ignore[misc,valid-type]
        """Says nothing itself: no second warning, which the tests would turn into an error."""

    assert Heir().log_values() == {"old": torch.tensor(1.0)}


def test_an_old_method_above_one_that_goes_by_the_new_name_still_has_its_parents_values() -> None:
    old = old_child_of(Modern)()
    with pytest.warns(DeprecationWarning, match="^.*Old.figures is now called log_values; call that$"):
        assert sorted(old.log_values()) == ["codes", "old"]


def test_an_old_method_from_a_mixin_is_honoured() -> None:
    class Counting:
        def figures(self) -> dict[str, Tensor]:
            return {"count": torch.tensor(2.0)}

    with pytest.warns(DeprecationWarning, match="Counting.figures is now called log_values"):

        class Mixed(Counting, Plain):
            pass

    assert Mixed().log_values() == {"count": torch.tensor(2.0)}


def test_who_calls_the_old_name_is_answered_and_told_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="^Modern.figures is now called log_values; call that$") as caught:
        assert Modern().figures() == {"codes": torch.tensor(3.0)}
    assert caught[0].filename == __file__


def test_a_class_that_has_both_is_asked_by_the_new_name_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Both(Plain):  # runs with wspace 0.1 and with this one
            def log_values(self) -> dict[str, Tensor]:
                return {"new": torch.tensor(1.0)}

            def figures(self) -> dict[str, Tensor]:
                return {"new": torch.tensor(1.0)}

        assert Both().log_values() == {"new": torch.tensor(1.0)}
