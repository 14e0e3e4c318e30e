"""Fresh models of timm, of a size that a recipe asks for."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from wspace.support.errors import UnknownComponent, UserError, nearest


def current_name(who: str, model: str) -> str:
    """What timm now calls a model: its older names are taken too. Raises UnknownComponent if it has none of this name."""
    if ":" in model or "/" in model:
        name = model.replace(":", "/").rpartition("/")[2]
        instead = f": write {name!r}" if timm.is_model(name) else nearest(name, timm.list_models())
        raise UnknownComponent(
            f"{who}: {model!r} is of a hub or a folder, and only models by timm's own names are known{instead}"
        )
    if not timm.is_model(model):
        raise UnknownComponent(f"{who}: timm has no model {model!r}{nearest(model, timm.list_models())}")
    older = timm.models.get_deprecated_models()
    if model in older:
        current = older[model]
        if current is None:
            raise UnknownComponent(f"{who}: timm has no model {model!r} any more{nearest(model, timm.list_models())}")
        return current
    name, dot, tag = model.partition(".")
    if dot and not tag:
        raise UnknownComponent(f"{who}: {model!r} names no weights behind its dot: leave the dot out")
    try:
        timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise UnknownComponent(
            f"{who}: timm has no weights {model!r}{nearest(model, timm.list_pretrained(f'{name}.*'))}"
        ) from error
    return model


def fresh(who: str, model: str, outputs: int, **options: Any) -> nn.Module:
    """A model with so many outputs, 0: its pooled features. Initialised by torch's global random numbers.

    Raises UnknownComponent, or UserError for options that timm's constructor refuses.
    """
    model = current_name(who, model)
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


def classifiers(model: str) -> tuple[str, ...]:
    """What its last layers are called, one of most models: that which knows classes."""
    config = timm.get_pretrained_cfg(model)
    named = None if config is None else config.classifier
    return (named,) if isinstance(named, str) else tuple(named or ())
