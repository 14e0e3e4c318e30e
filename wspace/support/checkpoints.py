"""Files of weights that others wrote: read without unpickling, and told apart by content."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from wspace.support.errors import FileError, nearest
from wspace.support.files import read_json

UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError,
    MemoryError, struct.error, pickle.UnpicklingError, SafetensorError,
)  # fmt: skip
"""What reading a truncated or foreign file of weights raises: torch's reader takes its steps as they come."""
SHOWN = 3  # tensors that a message names, of many
INDEX = ".index.json"  # ends the name of the list of a checkpoint's shards
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
POINTER = b"version https://git-lfs"
WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "model_state_dict", "state_dict", "model", "module", "network",
    "net", "params_ema", "params", "weights",
)  # fmt: skip
"""Under which trainers put a network's weights; averages of weights first, as timm takes them."""


def read_state(file: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors or torch file, or of the shards that an index lists, out of the common wrappers.

    Raises FileError, which says what the file holds instead.
    """
    if file.is_dir():
        inside = sorted(path.name for path in file.iterdir() if path.suffix in SUFFIXES or path.name.endswith(INDEX))
        raise FileError(f"{file}: is a folder: name the file of weights in it{nearest('model.safetensors', inside)}")
    if not file.is_file():
        raise FileError(f"{file}: there is no such file")
    if file.name.endswith(INDEX):
        content: Any = {name: tensor for shard in shards_of(file) for name, tensor in _loaded(shard).items()}
    else:
        content = _loaded(file)
    while isinstance(content, dict) and (wrapped := [key for key in WRAPPERS if isinstance(content.get(key), dict)]):
        content = content[wrapped[0]]
    if not isinstance(content, dict):
        raise FileError(
            f"{file}: holds a {type(content).__name__}, and not tensors by name: save the network's state_dict()"
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if {"state", "param_groups"} <= set(content):
        raise FileError(f"{file}: is the state of an optimizer, and not of a network")
    if not tensors:
        raise FileError(
            f"{file}: holds {some_of(list(map(str, content))) or 'nothing'}, and no tensors of a network by name"
        )
    plain = plain_names(tensors)
    return {plain[name]: tensor for name, tensor in tensors.items() if name in plain}


def _loaded(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        # timm's own checkpoints hold the command line beside the tensors
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an old pickle: it is read, or refused in our words
            return torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        what = _instead(file, str(error))
        raise FileError(f"{file}: {what}") if what else unreadable(file) from error


def _instead(file: Path, error: str) -> str:
    """What a file is that is no file of tensors, as far as it can be told; nothing otherwise."""
    with file.open("rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            return "is a pointer of Git LFS, and not the file itself: `git lfs pull` brings it"
    if "TorchScript" in error:
        return "is a scripted module, and not tensors alone: save its state_dict()"
    if kind := re.search(r"Unsupported (?:global|class).*?GLOBAL (\S+)", error, re.DOTALL):
        return (
            f"holds an object ({kind.group(1)}), which is not unpickled, and not tensors alone: save the state_dict()"
        )
    return ""


def shards_of(index: Path) -> list[Path]:
    """The files that `model.safetensors.index.json` says a checkpoint is in. Raises FileError."""
    written = read_json(index)
    places = written.get("weight_map") if isinstance(written, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise FileError(f"{index}: has no `weight_map` that says in which file each tensor is")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not index.with_name(name).is_file():
            raise FileError(f"{index}: lists {name}, which is not beside it")
    return [index.with_name(name) for name in names]


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """What a checkpoint calls its tensors -> what the network does, without what wrappers of torch put before or between.

    Those are torch.compile, data parallel training, and averages of weights, whose counter is left out.
    """
    plain = {name: name.replace("_orig_mod.", "") for name in names if name != "n_averaged"}
    while plain and all(name.startswith("module.") for name in plain.values()):
        plain = {written: name.removeprefix("module.") for written, name in plain.items()}
    return plain


def unreadable(file: Path) -> FileError:
    return FileError(f"{file}: truncated, or not a file of weights (.safetensors, or a torch file of tensors alone)")


def fingerprint_of(state: Mapping[str, Tensor], *facts: object) -> str:
    """sha256 of every byte of the tensors, and of whatever else changes what they compute."""
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def first_misfit(error: Exception | None) -> str:
    """The first tensor that torch complains of, in brackets."""
    match = re.search(r'size mismatch for (\S+):|key\(s\) in state_dict: "([^"]+)"', str(error))
    return f" (the first that does not: {match.group(1) or match.group(2)})" if match else ""


CLASSIFIER = re.compile(r"(aux_head|classif|fc|heads?(_dist)?|last_linear|lm_head|score|(\w+_)?classifier)\.")
"""How tensors begin of the layers that end a network, as timm, torchvision and transformers call them."""


def left_over(given: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Names of a checkpoint's tensors that a network does not have and that are of no classifier: it is of another network."""
    has = set(expected)
    return [name for name in given if name not in has and not CLASSIFIER.match(name)]


def some_of(names: Sequence[str]) -> str:
    """The first names and how many more there are, for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def check_numbers(source: object, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises FileError for complex or whole numbers where a network has real ones: copying would drop what they mean."""
    for name, tensor in given.items():
        if name in expected and expected[name].is_floating_point() and not tensor.is_floating_point():
            dtypes = (str(t.dtype).removeprefix("torch.") for t in (tensor, expected[name]))
            raise FileError(f"{source}: {name} is {next(dtypes)}, where the network has {next(dtypes)}")
