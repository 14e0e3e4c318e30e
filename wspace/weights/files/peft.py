"""Folders of LoRA adapters as PEFT writes and reads them: adapter_config.json, adapter_model.safetensors, README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace.interfaces.weights import WeightSpec
from wspace.support.errors import FileError, UserError
from wspace.support.files import read_json, save_tensors, write_json, write_text
from wspace.support.yaml import dump
from wspace.weights.lowrank import trimmed

CONFIG, WEIGHTS, PICKLE, README = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "README.md"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.\w+)?\.weight")
UNFILLED = "Model Card for Model ID"
"""Title of the card that PEFT writes by itself: it says nothing of the task."""


@dataclass(frozen=True)
class Layer:
    """What is known of one adapted layer without reading its weights."""

    a: str  # name of the tensor (r, in) in the file
    b: str  # and of (out, r)
    rank: int
    out: int
    width: int
    scale: float  # scale · B · A is added


@dataclass(frozen=True)
class AdapterFolder:
    folder: Path
    layers: dict[str, Layer]
    base_model: str
    texts: tuple[str, ...]  # what its README says; none, if that is PEFT's own, not filled in
    classes: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path) -> AdapterFolder:
        """Raises FileError unless this is plain LoRA of linear layers, in safetensors."""
        config = _config(folder)
        layers = _layers(folder / WEIGHTS, config)
        texts, classes = _task_of(folder / README)
        return cls(folder, layers, str(config.get("base_model_name_or_path") or ""), texts, classes)

    def read(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> B (out, r) and A (r, in). Raises FileError."""
        try:
            with safe_open(self.folder / WEIGHTS, "pt") as opened:
                return {
                    name: (opened.get_tensor(layer.b), opened.get_tensor(layer.a))
                    for name, layer in self.layers.items()
                }
        except SafetensorError as error:
            raise FileError(f"{self.folder / WEIGHTS}: truncated, or not a safetensors file") from error


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    config = read_json(file)
    if not isinstance(config, dict):
        raise FileError(f"{file}: not the configuration of an adapter")
    if config.get("peft_type") != "LORA":
        raise FileError(f"{file}: its peft_type is {config.get('peft_type')!r}, and only LORA can be read")
    for key in ("use_dora", "lora_bias", "modules_to_save"):
        if config.get(key):
            raise FileError(f"{file}: has {key}, and only plain LoRA can be read")
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            raise pickled(folder / PICKLE)
        raise FileError(f"{folder}: has no {WEIGHTS}")
    return config


def pickled(file: Path) -> FileError:
    return FileError(
        f"{file}: a pickle can run any program when it is opened, so it is not; where you trust it, convert it: python -c "
        f"\"import torch, safetensors.torch as s; s.save_file(torch.load('{file.name}', weights_only=True), "
        f"'{file.stem}.safetensors')\""
    )


def _layers(file: Path, config: Mapping[str, Any]) -> dict[str, Layer]:
    factors: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    try:
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (not a dict)
                match, shape = FACTOR.fullmatch(key), tuple(opened.get_slice(key).get_shape())
                if match is None or len(shape) != 2:
                    raise FileError(f"{file}: holds {key}, which is no factor of a linear layer's LoRA")
                factors.setdefault(match[1], {})[match[2]] = (key, shape)
    except SafetensorError as error:
        raise FileError(f"{file}: truncated, or not a safetensors file") from error
    if not factors:
        raise FileError(f"{file}: holds no tensors")
    layers = {}
    for name, pair in factors.items():
        if set(pair) != {"A", "B"}:
            raise FileError(f"{file}: layer {name!r} has lora_{next(iter(pair))} alone")
        (a, (rank, width)), (b, (out, other)) = pair["A"], pair["B"]
        if rank != other:
            raise FileError(f"{file}: layer {name!r} has lora_A of rank {rank} and lora_B of rank {other}")
        layers[name] = Layer(a, b, rank, out, width, _scale(name, config, file))
    return layers


def _scale(layer: str, config: Mapping[str, Any], file: Path) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA; a layer may have its own, by a pattern of its name."""

    def by_pattern(patterns: Mapping[str, Any], otherwise: Any) -> float:
        matching = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer))
        value = next(matching, otherwise)
        if not isinstance(value, int | float) or value <= 0:
            raise FileError(f"{file.with_name(CONFIG)}: r and lora_alpha must be above 0")
        return value

    rank = by_pattern(config.get("rank_pattern") or {}, config.get("r"))
    alpha = by_pattern(config.get("alpha_pattern") or {}, config.get("lora_alpha"))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _task_of(file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts and classes of the task: those that wspace wrote, else the first paragraph of prose."""
    if not file.is_file():
        return (), ()
    content = file.read_text(encoding="utf-8", errors="replace")
    front, body = {}, content
    if content.startswith("---\n") and "\n---\n" in content[4:]:
        head, _, body = content[4:].partition("\n---\n")
        try:
            front = YAML(typ="safe").load(head) or {}
        except YAMLError:
            front = {}
    task = front.get("wspace_task") if isinstance(front, dict) else None
    if isinstance(task, dict):
        return tuple(map(str, task.get("texts") or ())), tuple(map(str, task.get("classes") or ()))
    if UNFILLED in body:
        return (), ()
    body = re.sub(r"<!--.*?-->|```.*?```", "", body, flags=re.DOTALL)
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", body))
    prose = (text for text in paragraphs if text and not text.startswith(("#", "-", "*", "|", "<", "!", "[")))
    return tuple(prose)[:1], ()


# ---------------------------------------------------------------- writing


def write_adapter(
    folder: Path,
    spec: WeightSpec,
    tensors: Mapping[str, Tensor],
    *,
    base_model: str,
    texts: Sequence[str],
    classes: Sequence[str],
) -> None:
    """A folder that `peft.PeftModel.from_pretrained(base, folder)` loads; directions that are all zero are left out.

    Raises UserError for weights that are not LoRA adapters.
    """
    covered = {name for product in spec.products for name in (product.left, product.right)}
    if not covered or covered != set(tensors):
        raise UserError("these weights are not LoRA adapters of linear layers, so PEFT has no form for them")
    factors = {p.layer: (p, *trimmed(tensors[p.left], tensors[p.right])) for p in spec.products}
    ranks = {layer: left.shape[1] for layer, (_, left, _) in factors.items()}
    alphas = {layer: product.scale * ranks[layer] for layer, (product, _, _) in factors.items()}
    rank, alpha = max(ranks.values()), max(alphas.values())
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_model or None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {re.escape(layer): r for layer, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(layer): a for layer, a in alphas.items() if a != alpha},
        "target_modules": sorted(factors),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    named = {}
    for layer, (_, left, right) in factors.items():
        named[f"{PREFIX}{layer}.lora_A.weight"] = right
        named[f"{PREFIX}{layer}.lora_B.weight"] = left
    save_tensors(folder / WEIGHTS, named, {"format": "pt"})
    write_json(folder / CONFIG, config)
    front = {
        "library_name": "peft",
        "tags": ["lora", "wspace"],
        "wspace_task": {"texts": [*texts], "classes": [*classes]},
    }
    if base_model:
        front = {"base_model": base_model, **front}
    description = "; ".join(texts) or ", ".join(classes)
    write_text(folder / README, f"---\n{dump(front)}---\n\n{description}\n")
