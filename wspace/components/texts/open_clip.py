"""The text tower of open_clip's models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import open_clip
import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.data.encoders.clip import build, need_transformers, quiet
from wspace.data.encoders.frozen import freeze
from wspace.interfaces import Text
from wspace.support.checkpoints import fingerprint_of
from wspace.support.errors import MissingWeights


class OpenClipText(Text):
    """The text tower of an open_clip model, frozen.

    `pretrained` names the weights (their published tag); `file` is a local copy of them. With
    `pretrained: null` and no file they are random, from `seed`.
    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str | None = "openai",
        file: Path | None = None,
        batch: Annotated[int, Ge(1)] = 64,
        seed: int = 0,
        *,
        device: torch.device,
    ):
        network, tag = build("text", model, pretrained, file, seed)
        network.visual = nn.Identity()
        self._network: Any = freeze(network, device)
        self._tokenize = _tokenizer(model)
        self._batch, self._device = batch, device
        self.fingerprint = fingerprint_of(network.state_dict(), "open_clip", model, tag.get("quick_gelu", False))
        self.dim = self.encode(["a"]).shape[1]

    def encode(self, sentences: Sequence[str]) -> Tensor:
        blocks = [torch.empty(0, getattr(self, "dim", 0))] if not sentences else []
        with torch.inference_mode():
            for start in range(0, len(sentences), self._batch):
                tokens = self._tokenize(list(sentences[start : start + self._batch])).to(self._device)  # (n, context)
                blocks.append(self._network.encode_text(tokens, normalize=True).float())  # (n, T)
        return torch.cat(blocks).cpu()  # outside: an inference tensor could not be an input of training


def _tokenizer(model: str) -> Any:
    text: dict[str, Any] = (open_clip.get_model_config(model) or {}).get("text_cfg", {})
    if "hf_tokenizer_name" in text:
        need_transformers("text 'open_clip'", model)
    try:
        with quiet():
            return open_clip.get_tokenizer(model)
    except OSError as error:
        name = text.get("hf_tokenizer_name", "its tokenizer")
        reason = str(error).strip().splitlines()[0]
        raise MissingWeights(f"text 'open_clip' {model}: {name} is not here: {reason}") from error
