"""Fresh models of timm, of a size that a recipe asks for."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from wspace.support.errors import UnknownComponent, UserError, nearest


def check_known(who: str, model: str) -> None:
    """Raises UnknownComponent if timm has no such model."""
    if not timm.is_model(model):
        raise UnknownComponent(f"{who}: timm has no model {model!r}{nearest(model, timm.list_models())}")


def fresh(who: str, model: str, outputs: int, **options: Any) -> nn.Module:
    """A model with so many outputs, 0: its pooled features. Initialised by torch's global random numbers.

    Raises UnknownComponent, or UserError for options that timm's constructor refuses.
    """
    check_known(who, model)
    try:
        return timm.create_model(model, num_classes=outputs, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        asked_for = " and ".join(f"{name} {value}" for name, value in options.items()) or "its defaults"
        reason = str(error).strip() or type(error).__name__
        raise UserError(f"{who}: timm cannot make {model} with {asked_for}: {reason.splitlines()[0]}") from error


def takes_one_size(model: str) -> bool:
    """Whether it is made for pictures of one size (as transformers are), and not for any."""
    config = timm.get_pretrained_cfg(model)
    return config is not None and config.fixed_input_size
