"""A multilayer perceptron."""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn

from wspace.interfaces import Architecture
from wspace.support.parameters import Since

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(Architecture):
    """Linear layers as wide as `hidden` says, each followed by its norm, if any, and the activation; `bias`: with biases."""

    def __init__(
        self,
        hidden: tuple[Annotated[int, Ge(1)], ...] = (64,),
        activation: Literal["relu", "gelu", "tanh"] = "relu",
        norm: Literal["none", "batch", "layer"] = "none",
        bias: Annotated[bool, Since("0.2")] = True,
    ):
        self.hidden, self.activation, self.norm, self.bias = hidden, activation, norm, bias

    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        layers, width = OrderedDict[str, nn.Module](), prod(inputs)
        for number, units in enumerate(self.hidden, start=1):
            layers[f"hidden{number}"] = nn.Linear(width, units, bias=self.bias)
            if self.norm != "none":
                layers[f"norm{number}"] = NORMS[self.norm](units)
            layers[f"act{number}"] = ACTIVATIONS[self.activation]()
            width = units
        layers["out"] = nn.Linear(width, outputs, bias=self.bias)
        return nn.Sequential(layers)
