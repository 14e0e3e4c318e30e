"""Loss terms of a generator or a tokenizer: names that the training keeps for its own, and the check of what comes back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from wspace.interfaces import Generator, Tokenizer
from wspace.support.errors import UserError

SYMMETRY = "symmetry"
"""The one term whose weight is the recipe's (`losses.symmetry`): a generator returns it where `Moves.penalty` asks for it."""

WEIGHED_TERMS = ("adversarial", "product")
"""Terms that the training adds, each with its weight under `losses`."""

LOG_FIELDS = ("phase", "step", "loss", "gradient", "terms", "discriminator", "tokenizer", "validation_accuracy")
"""What a line of the log says beside the terms."""

RESERVED = (*WEIGHED_TERMS, *LOG_FIELDS)
"""Names that no component may give to a term of its own."""


def reserved_names(terms: Mapping[str, Tensor], *, penalty: bool = False) -> list[str]:
    """Those names among `terms` that are not a component's to give, in their order.

    `symmetry` is a generator's to give if the batch asks for it (`penalty`): unasked, no weight would be right for it.
    """
    refused = RESERVED if penalty else (*RESERVED, SYMMETRY)
    return [name for name in terms if name in refused]


def check_terms(
    component: Generator | Tokenizer, terms: Mapping[str, Tensor], *, penalty: bool = False
) -> Mapping[str, Tensor]:
    """`terms`, as a component's `loss` returned them: name -> scalar. Raises UserError for a name that is reserved."""
    for name in reserved_names(terms, penalty=penalty):
        who = type(component).__name__
        if name == SYMMETRY:
            raise UserError(
                f"{who}.loss returned the term 'symmetry' for a batch that did not ask for it (pairs.moves.penalty): return "
                "it where it is asked for, or give it another name"
            )
        raise UserError(
            f"{who}.loss returned a term named {name!r}, a name that the training keeps for its own: give it another name"
        )
    return terms
