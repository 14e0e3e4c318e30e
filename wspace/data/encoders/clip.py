"""open_clip's models, both towers: found, built, loaded, and kept quiet."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip

from wspace.data.encoders.downloads import Hub, Url, find_or_download
from wspace.support.checkpoints import UNREADABLE, first_misfit, read_state
from wspace.support.errors import FileError, MissingPackage, MissingWeights, UnknownComponent, did_you_mean, nearest
from wspace.support.files import expanded
from wspace.support.seeding import seeded


def build(kind: str, model: str, pretrained: str | None, file: Path | None, seed: int) -> tuple[Any, dict[str, Any]]:
    """An open_clip model on the CPU, and what is known of its weights: mean, std, quick_gelu.

    `pretrained` says which weights, `file` where they are; without both they come from `seed`.
    """
    who = f"{kind} 'open_clip'"
    if model not in open_clip.list_models():
        raise UnknownComponent(f"{who}: open_clip has no model {model!r}{nearest(model, open_clip.list_models())}")
    tag: dict[str, Any] = {}
    if pretrained is not None:
        tag = open_clip.pretrained.get_pretrained_cfg(model, pretrained)
        tags = open_clip.list_pretrained_tags_by_model(model)
        if not tag:
            raise UnknownComponent(f"{who} {model}: no weights {pretrained!r}.{did_you_mean(pretrained, tags)}")
    if file is not None and not file.is_file():
        raise FileError(f"{file}: there is no such file")
    path = file
    if pretrained is not None and file is None:
        path = _downloaded(f"{who} {model}", tag)
    text: dict[str, Any] = (open_clip.get_model_config(model) or {}).get("text_cfg", {})
    if "hf_model_name" in text:
        need_transformers(who, model)
    try:
        with quiet(), seeded(seed):
            network = open_clip.create_model(
                model,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=tag.get("quick_gelu", False),  # open_clip itself only warns that the two differ
            )
    except OSError as error:  # a text tower of transformers, whose shape is described on the hub
        raise MissingWeights(f"{who} {model}: {text.get('hf_model_name')} is not here: {error}") from error
    if path is not None:
        _load(network, path, model)
    return network, tag


def need_transformers(who: str, model: str) -> None:
    if importlib.util.find_spec("transformers") is None:
        raise MissingPackage(f'{who} {model} needs the package transformers: pip install "wspace[clip]"')


def _downloaded(who: str, tag: dict[str, Any]) -> Path:
    if tag.get("hf_hub"):
        repository, _, name = tag["hf_hub"].rpartition("/")
        safe = Path(name).with_suffix(".safetensors").as_posix() if name else "open_clip_model.safetensors"
        source: Hub | Url = Hub(repository, (safe, name or "open_clip_pytorch_model.bin"))
    else:
        source = Url(tag["url"], expanded(Path("~/.cache/clip")))
    return find_or_download(source, who, "give 'file: PATH', or set 'pretrained: null'")


def _load(network: Any, file: Path, model: str) -> None:
    try:
        with quiet():
            open_clip.load_checkpoint(network, str(file), strict=True, weights_only=True)
    except (*UNREADABLE, KeyError, AttributeError, StopIteration, TypeError) as error:
        read_state(file)  # which says what it holds instead, if that is no network at all
        raise FileError(f"{file}: its tensors do not fit {model}{first_misfit(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without open_clip's notes: it logs through the root logger, which then keeps a handler of its own."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    logging.root.addFilter(_is_error)
    try:
        yield
    finally:
        logging.root.removeFilter(_is_error)
        logging.root.removeHandler(handler)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
