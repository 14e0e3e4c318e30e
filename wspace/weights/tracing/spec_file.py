"""The axes of a network's tensors as a YAML file, for people to read and to write.

tensors:
  0.weight: [hidden, 784]
  0.bias: [hidden]
  2.weight: [10, hidden]
  2.bias: [10]
free: [hidden]
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from wspace.support.errors import FileError, UserError
from wspace.support.files import check_file, disk_errors, read_text, write_text
from wspace.support.yaml import load
from wspace.weights.tracing.by_hand import Shapes, checked
from wspace.weights.tracing.infer import Inferred


def spec_text(inferred: Inferred) -> str:
    """As YAML, with the notes as comments in front."""
    tensors = CommentedMap()
    for name, dims in inferred.axes.items():
        tensors[name] = _flow([int(text) if text.isdigit() else text for text in dims])
    yaml, stream = YAML(), io.StringIO()
    yaml.width = 10**6  # a tensor a line
    yaml.dump(CommentedMap(tensors=tensors, free=list(inferred.free)), stream)
    return "".join(f"# {note}\n" for note in inferred.notes) + stream.getvalue()


def _flow(items: list[Any]) -> CommentedSeq:
    sequence = CommentedSeq(items)
    sequence.fa.set_flow_style()
    return sequence


def write_spec(file: Path, inferred: Inferred) -> None:
    """Raises DiskError, and UserError for what cannot be a file."""
    check_file(file)
    with disk_errors(file):
        write_text(file, spec_text(inferred))


def read_spec(file: Path, shapes: Shapes) -> Inferred:
    """What a file says of a network with tensors of these shapes. Raises FileError, which names tensor and dimension."""
    tensors, free = _content(file)
    try:
        return checked(tensors, shapes, free)
    except UserError as error:
        raise FileError(f"{file}: {error}") from error


def _content(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        content = load(read_text(file))
    except YAMLError as error:
        raise FileError(f"{file}: is no YAML: {' '.join(str(error).split())}") from error
    if (
        not isinstance(content, dict)
        or set(content) - {"tensors", "free"}
        or not isinstance(content.get("tensors"), dict)
    ):
        raise FileError(
            f"{file}: a spec has `tensors:`, lists of axes by the tensor's name, and `free:`, a list of axes"
        )
    free = content.get("free") or []
    if not isinstance(free, list) or not all(isinstance(axis, str) for axis in free):
        raise FileError(f"{file}: free: is not a list of names")
    return {str(name): dims for name, dims in content["tensors"].items()}, tuple(free)
