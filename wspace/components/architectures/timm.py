"""Any image model of timm."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import nn

from wspace.data.encoders.timm import current_name, fresh, takes_one_size
from wspace.interfaces import Architecture


class TimmModel(Architecture):
    """timm's `model`, with a classifier as wide as the text vectors.

    One that is made for pictures of one size (a transformer) is made for those that `backbone: pixels` gives, its patches
    `patch` pixels wide where that is set.
    """

    sees = "pictures"

    def __init__(self, model: str = "test_vit", patch: Annotated[int, Ge(1)] | None = None):
        self.model, self.patch = current_name("architecture 'timm'", model), patch

    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        options = {"img_size": inputs[-1]} if takes_one_size(self.model) else {}
        if self.patch is not None:
            options["patch_size"] = self.patch
        network = fresh("architecture 'timm'", self.model, outputs, **options)
        for layer in network.modules():
            if hasattr(layer, "fused_attn"):
                vars(layer)["fused_attn"] = False  # the fused kernel serves one network at a time
        return network
