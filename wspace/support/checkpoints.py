"""Files of weights that others wrote: read without unpickling, and told apart by content."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from wspace.support.errors import FileError

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError)
"""What reading a truncated or foreign file of weights raises."""
SHOWN = 4  # tensors that a message names, of many


def read_state(file: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors or torch file, out of the common wrappers. Raises FileError."""
    if not file.is_file():
        raise FileError(f"{file}: there is no such file")
    try:
        if file.suffix == ".safetensors":
            content = safetensors.torch.load_file(file)
        else:
            # timm's own checkpoints hold the command line beside the tensors
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise unreadable(file) from error
    if isinstance(content, dict):
        wrappers = ("state_dict_ema", "model_ema", "state_dict", "model")
        content = next((content[key] for key in wrappers if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise unreadable(file)
    return {
        str(key).removeprefix("module.").removeprefix("_orig_mod."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


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


CLASSIFIERS = frozenset(
    {"aux_head", "classif", "classifier", "fc", "head", "head_dist", "heads", "heads_dist", "last_linear"}
)
"""What timm, torchvision and transformers call the layers that end a network: the first part of their tensors' names."""


def left_over(given: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Names of a checkpoint's tensors that a network does not have and that are of no classifier: it is of another network."""
    has = set(expected)
    return [name for name in given if name not in has and name.partition(".")[0] not in CLASSIFIERS]


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
