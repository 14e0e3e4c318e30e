"""Folders of LoRA adapters as PEFT writes and reads them: adapter_config.json, adapter_model.safetensors, README.md."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from pydantic import Field, TypeAdapter, ValidationError
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace.interfaces.weights import WeightSpec
from wspace.support.errors import FileError, UserError
from wspace.support.expressions import matches
from wspace.support.files import read_json, save_tensors, write_json, write_text
from wspace.support.invalid import first
from wspace.support.yaml import dump, load
from wspace.weights.lowrank import trimmed

CONFIG, WEIGHTS, PICKLE, README = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "README.md"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.(\w+))?\.weight")
FLOATS = ("F16", "BF16", "F32", "F64")  # types of factors, as safetensors calls them
ANY_FACTOR = re.compile(
    r"[._]lora_?[._]?(A|B|a|b|up|down|mid|embedding_A|embedding_B|magnitude_vector|linear_layer)\.|"
    r"\.(lora_[ab]|(hada|lokr|oft|boft)_\w+)$"
)
"""In names of tensors of adapters by PEFT, Kohya's scripts, diffusers, LyCORIS, torchtune and MLX, and never of wspace."""
SETTINGS_OF_A_FACTOR = (".alpha", ".dora_scale", ".scalar")

NEUTRAL = {
    "task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout", "fan_in_fan_out", "layers_to_transform",
    "layers_pattern", "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
}  # fmt: skip
"""Keys that change nothing of what a trained adapter computes: what they say is in its tensors, or is of its training alone."""
KEPT_BASE = ("gaussian", "eva", "orthogonal", "mica")
"""`init_lora_weights`, besides true and false, that leave the network below as it is. Others subtract B · A from it."""

MOST_FRONT = 100_000  # characters of the YAML that a card begins with
UNFILLED = "Model Card for Model ID"
"""Title of the card that PEFT writes by itself: it says nothing of the task."""
BY_A_TRAINER = re.compile(
    r"axolotl version|More information needed|It achieves the following results|It has been trained using \[TRL\]|"
    r"This model is a fine-tuned version of|This model was trained (from scratch on|using AutoTrain)|"
    r"This (\S+ )?model was trained 2x faster|This is a merge of pre-trained|This is a LoRA extracted from|"
    r"Model trained with \[AI Toolkit|Trained on Replicate|The following \S+ (quantization config )?(was|were) used|"
    r"Users \(both direct and downstream\)|Use the code below to get started|Carbon emissions can be estimated",
    re.IGNORECASE,
)
"""How paragraphs begin that training programs write into cards by themselves: they are the same for every task."""


class NotUnderstood(FileError):
    """Adapters, but none that can be read: the file is whole, and of another kind."""


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
    revision: str  # of the base model; none is its newest
    texts: tuple[str, ...]  # what its README says; none, if nobody but a program wrote it
    classes: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path) -> AdapterFolder:
        """Raises NotUnderstood unless this is plain LoRA of linear layers, in safetensors; FileError for what is broken."""
        settings = _settings(folder)
        layers = _layers(folder / WEIGHTS, settings)
        texts, classes = _task_of(folder / README)
        base_model, revision = settings.base_model_name_or_path or "", settings.revision or ""
        return cls(folder, layers, base_model, revision, texts, classes)

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


_Alpha = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class _Settings:
    """The keys of adapter_config.json whose values are used here, and what PEFT takes where they are missing."""

    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: Annotated[int, Gt(0)] = 8
    lora_alpha: _Alpha = 8
    rank_pattern: dict[str, Annotated[int, Gt(0)]] | None = None  # by a regular expression of the layer's name
    alpha_pattern: dict[str, _Alpha] | None = None
    use_rslora: bool = False
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None


_SETTINGS = TypeAdapter(_Settings)
READ = {"peft_type", *(field.name for field in fields(_Settings))}


def _settings(folder: Path) -> _Settings:
    file = folder / CONFIG
    config = read_json(file)
    if not isinstance(config, dict):
        raise FileError(f"{file}: not the configuration of an adapter")
    if config.get("peft_type") != "LORA":
        raise NotUnderstood(f"{file}: its peft_type is {config.get('peft_type')!r}, and only LORA can be read")
    for key, value in config.items():
        if not _is_plain(key, value):
            raise NotUnderstood(
                f"{file}: {key} is {reprlib.repr(value)}, and only plain LoRA can be read{_way_out(key)}"
            )
    try:
        settings = _SETTINGS.validate_json(json.dumps(config), strict=True)
    except ValidationError as error:
        raise FileError(f"{file}: {first(error)}") from error
    for modules in (settings.target_modules, settings.exclude_modules):
        if isinstance(modules, str):
            _check_expression(modules, modules, file)
    for key in (*(settings.rank_pattern or ()), *(settings.alpha_pattern or ())):
        _check_expression(f"({key})", key, file)  # as PEFT puts it into another, where it may not set flags
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            raise NotUnderstood(str(pickled(folder / PICKLE)))
        raise NotUnderstood(f"{folder}: has no {WEIGHTS}")
    return settings


def _check_expression(text: str, written: str, file: Path) -> None:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:  # of a count too large, or nested too deeply
        raise FileError(
            f"{file}: {reprlib.repr(written)} is no regular expression: {getattr(error, 'msg', error)}"
        ) from error


def _is_plain(key: str, value: Any) -> bool:
    """Whether an adapter with this setting is scale · B · A, as far as it is known here.

    A key that is not known passes if it is off, as PEFT writes what is not used.
    """
    if key in READ or key in NEUTRAL:
        return True
    if key == "init_lora_weights" and value is not None:
        return isinstance(value, bool) or str(value).lower() in KEPT_BASE
    return value is None or value is False or value in ({}, [], "") or (key, value) == ("bias", "none")


def _way_out(key: str) -> str:
    if key != "init_lora_weights":
        return ""
    return "; PEFT's save_pretrained makes that of some others, by path_initial_model_for_weight_conversion"


def is_adapter(names: Collection[str]) -> bool:
    """Whether tensors of these names are what is added to a network, in whatever form, and no network."""
    return any(map(ANY_FACTOR.search, names)) and all(
        ANY_FACTOR.search(name) or name.endswith(SETTINGS_OF_A_FACTOR) for name in names
    )


def pickled(file: Path) -> FileError:
    return FileError(
        f"{file}: a pickle can run any program when it is opened, so it is not; where you trust it, convert it: python -c "
        f"\"import torch, safetensors.torch as s; s.save_file(torch.load('{file.name}', weights_only=True), "
        f"'{file.stem}.safetensors')\""
    )


def _layers(file: Path, settings: _Settings) -> dict[str, Layer]:
    factors: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    named: dict[str | None, str] = {}  # adapter, as keys may name it -> the first of its keys
    try:
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (not a dict)
                match, held = FACTOR.fullmatch(key), opened.get_slice(key)
                shape = tuple(held.get_shape())
                # below `base_layer` is what PEFT put into a layer that is not linear
                if match is None or len(shape) != 2 or "base_layer" in match[1].split("."):
                    raise NotUnderstood(f"{file}: holds {key}, which is no factor of a linear layer's LoRA")
                if held.get_dtype() not in FLOATS:
                    raise FileError(f"{file}: {key} is of type {held.get_dtype()}, and not of {', '.join(FLOATS)}")
                pair = factors.setdefault(match[1], {})
                twins = [pair[match[2]][0]] if match[2] in pair else []
                strangers = [other for name, other in named.items() if name != match[3]]
                if twins or strangers:
                    raise NotUnderstood(
                        f"{file}: holds {(twins + strangers)[0]} and {key}, which are of two adapters: keep one of them"
                    )
                pair[match[2]] = (key, shape)
                named.setdefault(match[3], key)
    except SafetensorError as error:
        raise FileError(f"{file}: truncated, or not a safetensors file") from error
    if not factors:
        raise FileError(f"{file}: holds no tensors")
    layers, patterns = {}, _Patterns.of(settings, tuple(factors), file)
    for name, pair in factors.items():
        if set(pair) != {"A", "B"}:
            raise FileError(f"{file}: layer {name!r} has lora_{next(iter(pair))} alone")
        (a, (rank, width)), (b, (out, other)) = pair["A"], pair["B"]
        if rank != other:
            raise FileError(f"{file}: layer {name!r} has lora_A of rank {rank} and lora_B of rank {other}")
        if not patterns.target(name):
            raise FileError(
                f"{file}: holds layer {name!r}, and {CONFIG} does not target it, so PEFT would leave it out"
            )
        configured = patterns.first(name, settings.rank_pattern, settings.r)
        if rank != configured:
            raise FileError(f"{file}: layer {name!r} has rank {rank}, and {configured} by {CONFIG}")
        alpha = patterns.first(name, settings.alpha_pattern, settings.lora_alpha)
        layers[name] = Layer(a, b, rank, out, width, alpha / (rank**0.5 if settings.use_rslora else rank))
    return layers


@dataclass(frozen=True)
class _Patterns:
    """Which layers the expressions of a configuration match, as PEFT matches them."""

    settings: _Settings
    matched: Mapping[str, frozenset[str]]  # expression -> layers

    @classmethod
    def of(cls, settings: _Settings, layers: tuple[str, ...], file: Path) -> _Patterns:
        """Raises FileError for expressions that take too long."""
        whole = [text for text in (settings.target_modules, settings.exclude_modules) if isinstance(text, str)]
        ends = [_of_end(key) for key in (*(settings.rank_pattern or ()), *(settings.alpha_pattern or ()))]
        expressions = (*((text, True) for text in whole), *((text, False) for text in ends))
        try:
            matched = matches(expressions, layers)
        except TimeoutError as error:
            raise FileError(f"{file.with_name(CONFIG)}: its regular expressions cannot be used: {error}") from error
        return cls(settings, {text: of for (text, _), of in zip(expressions, matched, strict=True)})

    def first(self, layer: str, patterns: Mapping[str, float] | None, otherwise: float) -> float:
        """Of the first pattern of its name that matches a layer; else what all layers have."""
        patterns = patterns or {}
        matching = (value for key, value in patterns.items() if layer in self.matched[_of_end(key)])
        return next(matching, patterns.get(layer, otherwise))

    def target(self, layer: str) -> bool:
        """Whether PEFT adapts a layer of this name; where it chooses by the kind of layer or of model, it may."""

        def names(modules: Sequence[str] | str) -> bool:
            if isinstance(modules, str):
                return layer in self.matched[modules]
            return any(layer == name or layer.endswith(f".{name}") for name in modules)

        targets, excluded = self.settings.target_modules, self.settings.exclude_modules
        return (targets in (None, "all-linear") or names(targets)) and not (excluded and names(excluded))


def _of_end(key: str) -> str:
    """The expression that PEFT makes of one for the end of a layer's name."""
    return rf"(.*\.)?({key})$"


def _task_of(file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts and classes of the task: those that wspace wrote, else the first paragraph of prose that is not a program's."""
    if not file.is_file():
        return (), ()
    content = file.read_text(encoding="utf-8", errors="replace")
    front, body = {}, content
    if content.startswith("---\n") and "\n---\n" in content[4:]:
        head, _, body = content[4:].partition("\n---\n")
        try:
            front = load(head, MOST_FRONT) or {}
        except YAMLError:
            front = {}
    task = front.get("wspace_task") if isinstance(front, dict) else None
    if isinstance(task, dict):
        return tuple(map(str, task.get("texts") or ())), tuple(map(str, task.get("classes") or ()))
    if UNFILLED in body:
        return (), ()
    body = re.sub(r"<!--.*?-->|```.*?```", "", body, flags=re.DOTALL)
    prose = _prose(body)[:1]
    if prose and BY_A_TRAINER.match(prose[0]):
        _, _, described = body.partition("## Model description\n")  # which people are asked to fill in
        prose = [text for text in _prose(described.partition("\n#")[0])[:1] if not BY_A_TRAINER.match(text)]
    return tuple(prose), ()


def _prose(text: str) -> list[str]:
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [part for part in paragraphs if part and not part.startswith(("#", "-", "*", "|", "<", "!", "["))]


# ---------------------------------------------------------------- writing


def write_adapter(
    folder: Path,
    spec: WeightSpec,
    tensors: Mapping[str, Tensor],
    *,
    base_model: str,
    revision: str = "",
    texts: Sequence[str],
    classes: Sequence[str],
) -> None:
    """A folder that `peft.PeftModel.from_pretrained(base, folder)` loads; directions that are all zero are left out.

    Layers are named by anchored patterns: of plain names PEFT would also take layers whose names end so.
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
        "revision": revision or None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(layer)}": r for layer, r in ranks.items() if r != rank},
        "alpha_pattern": {f"^{re.escape(layer)}": a for layer, a in alphas.items() if a != alpha},
        "target_modules": "|".join(map(re.escape, sorted(factors))),
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
