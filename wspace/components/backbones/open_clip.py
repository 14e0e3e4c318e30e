"""The image tower of open_clip's models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import open_clip
import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.components.backbones.timm import maps_of, stages_of
from wspace.data.encoders.clip import build
from wspace.data.encoders.frozen import ImageEncoder, as_maps, freeze, precision_for
from wspace.interfaces import Backbone, Layers
from wspace.support.checkpoints import fingerprint_of
from wspace.support.errors import UserError


class OpenClipBackbone(Backbone):
    """The image tower of an open_clip model, frozen; features are not normalised.

    `pretrained` names the weights (their published tag) and with them the preprocessing; `file` is a
    local copy of them. With `pretrained: null` and no file they are random, from `seed`.
    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str | None = "openai",
        file: Path | None = None,
        batch: Annotated[int, Ge(1)] = 64,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        seed: int = 0,
        *,
        device: torch.device,
    ):
        network, tag = build("backbone", model, pretrained, file, seed)
        visual: Any = freeze(network.visual, device)

        def features(x: Tensor) -> Tensor:
            y = visual(x)
            return y[0] if isinstance(y, tuple) else y  # CoCa gives its tokens as well

        size = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        mean = tuple(tag.get("mean", open_clip.OPENAI_DATASET_MEAN))
        std = tuple(tag.get("std", open_clip.OPENAI_DATASET_STD))
        used = precision_for(precision, device)
        self._visual, self._features = visual, features
        self._encode = ImageEncoder(features, mean, std, size, batch, used, device)
        try:
            self.dim = self._encode.dim(size)
        except UserError as error:
            raise UserError(f"backbone 'open_clip' {model}: {error}") from error
        quick = tag.get("quick_gelu", False)
        self.fingerprint = fingerprint_of(visual.state_dict(), "open_clip", model, quick, mean, std, size, used)

    def encode(self, pixels: np.ndarray) -> Tensor:
        return self._encode(pixels)

    def layers(self) -> Layers:
        visual = self._visual
        if hasattr(visual, "trunk"):
            maps, stages = maps_of(visual.trunk), tuple(f"trunk.{name}" for name in stages_of(visual.trunk))
        elif hasattr(visual, "transformer"):
            maps = partial(as_maps, prefix=1)  # behind the class token
            stages = (f"transformer.resblocks.{len(visual.transformer.resblocks) - 1}.ln_1",)
        else:
            maps, stages = as_maps, tuple(name for name, _ in visual.named_children() if name.startswith("layer"))
        return Layers(visual, self._features, self._encode.prepare, maps, stages)

    def module(self) -> nn.Module:
        return self._encode.module(self._visual)
