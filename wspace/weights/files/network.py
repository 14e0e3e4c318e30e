"""Weights of one network with the classes they tell apart: what `generate` gives, as a file and as an object."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace.interfaces.weights import WeightSpec
from wspace.support.classes import check_classes, listed_shortly
from wspace.support.errors import FileError
from wspace.support.files import check_file, check_is_file, disk_errors, parse_json, save_tensors
from wspace.support.quantities import counted
from wspace.support.templates import template

METADATA = "wspace"
"""The entry of a file's metadata that says what its weights are: JSON with `classes`, `origin` and, of a run's, `zoo`."""


SHOWN = 12  # tensors, in a notebook


@dataclass(frozen=True)
class Network:
    """Weights of one network, and the classes that it tells apart."""

    classes: tuple[str, ...]  # in the order of its scores
    tensors: dict[str, Tensor]  # by the names of the target's WeightSpec, and what that sets aside
    origin: str = ""  # the run it comes from, and how it was drawn
    zoo: str = ""  # the artifact that its run stands on; none of weights from elsewhere
    pictures: int = 0  # that it was made from, beside its classes' names
    as_scored: bool = False
    """Whether it was drawn as those that the run's report scores: then it is worth what the run expects of these classes."""

    def save(self, file: str | Path) -> None:
        """As safetensors, the classes in its metadata. Raises DiskError, and UserError for what cannot be a file."""
        file = Path(file)
        check_file(file)
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(file, self.tensors, self.metadata)

    @property
    def metadata(self) -> dict[str, str]:
        """What its file says of it. One entry: safetensors writes several in an order that changes with the process."""
        about: dict[str, object] = {"classes": self.classes, "origin": self.origin}
        more = {"zoo": self.zoo, "pictures": self.pictures, "as_scored": self.as_scored}
        about |= {key: value for key, value in more.items() if value}
        return {METADATA: json.dumps(about, ensure_ascii=False)}

    def __repr__(self) -> str:
        size = sum(tensor.numel() for tensor in self.tensors.values())
        return f"<Network: {counted(size, 'weight', form=',')}, for {listed_shortly(self.classes)}>"

    def _repr_html_(self) -> str:
        tensors = list(self.tensors.items())
        return template("wspace.weights.files", "network.html.j2").render(
            weights=counted(sum(tensor.numel() for _, tensor in tensors), "weight", form=","),
            classes=", ".join(self.classes),
            tensors=[(name, " × ".join(map(str, tensor.shape)) or "1") for name, tensor in tensors[:SHOWN]],
            more=f"and {counted(len(tensors) - SHOWN, 'other tensor')}" if len(tensors) > SHOWN else "",
            origin=self.origin,
        )

    @classmethod
    def load(cls, file: Path, spec: WeightSpec) -> Network:
        """Raises FileError unless the file holds whole, finite weights of this target."""
        network = cls.read(file)
        spec.validate(network.tensors, str(file))
        tensors = {name: t if name in spec.aside else t.float() for name, t in network.tensors.items()}
        return replace(network, tensors=tensors)

    @classmethod
    def read(cls, file: Path) -> Network:
        """Weights of any target, as they are stored. Raises FileError unless the file is whole and says its classes."""
        check_is_file(file)
        try:
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise FileError(f"{file}: truncated, or not a safetensors file") from error
        try:
            about = parse_json(metadata[METADATA])
            classes, origin, zoo = about["classes"], str(about.get("origin", "")), str(about.get("zoo", ""))
            pictures, as_scored = int(about.get("pictures", 0)), about.get("as_scored") is True
            if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
                raise ValueError("not a list of names")
        except (KeyError, ValueError, TypeError) as error:
            raise FileError(f"{file}: does not say its classes; `wspace generate` writes files that do") from error
        return cls(check_classes(classes), tensors, origin, zoo, pictures, as_scored)
