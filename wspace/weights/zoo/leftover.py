"""What an importer did not take of a folder, so that nothing is left out in silence."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from wspace.support.errors import FileError

SAFE = ".safetensors"
PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
NO_NETWORKS = {
    ".bib", ".cfg", ".css", ".csv", ".html", ".ini", ".ipynb", ".jinja", ".json", ".jsonl", ".log", ".md", ".md5", ".pdf",
    ".py", ".rst", ".sh", ".sha256", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml",
    ".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp",
}  # fmt: skip
"""Suffixes of texts and pictures."""
NAMES = {"README", "LICENSE", "LICENCE", "NOTICE", "COPYING", "CITATION", "Thumbs.db", "latest"}
OF_TRAINING = (
    "optimizer.*", "scheduler.*", "scaler.*", "rng_state*.pth", "training_args.bin", "events.out.tfevents.*", "tokenizer.model",
    "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""What training programs put beside a network that is none: an optimizer's state, random numbers, a tokenizer."""


def below(root: Path) -> list[Path]:
    """The files of a folder and of those in it, and links to folders, which are not followed; sorted.

    Raises FileError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise FileError(f"{error.filename}: cannot be read: {error.strerror}") from error

    paths: list[Path] = []
    for parent, folders, files in os.walk(root, onerror=refuse):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        paths += [Path(parent) / name for name in (*files, *links)]
    return sorted(paths)


def left_over(root: Path, taken: Collection[Path], takes: str) -> list[str]:
    """A sentence for everything in a folder that is neither taken nor known to be no network.

    takes: what the importer takes, for messages.
    """
    return [
        _why(path, takes) for path in below(root) if path not in taken and not _is_no_network(path.relative_to(root))
    ]


def is_of_training(path: Path) -> bool:
    return any(path.match(pattern) for pattern in OF_TRAINING)


def _is_no_network(path: Path) -> bool:
    """By its name: a text, a picture, what is hidden, a README or LICENSE, or what a training program put there."""
    suffix = path.suffix.lower()
    if any(part.startswith(".") for part in path.parts) and suffix not in {SAFE, *PICKLES}:
        return True
    return suffix in NO_NETWORKS or path.name in NAMES or is_of_training(path)


def _why(path: Path, takes: str) -> str:
    if path.is_dir():
        return f"{path}: a link to a folder, and links are not followed"
    if not path.exists():
        return f"{path}: a link to a file that is not there"
    return f"{path}: not understood among {takes}"
