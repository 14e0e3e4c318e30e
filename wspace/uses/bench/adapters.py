"""Generated LoRA adapters, loaded and switched between: by wspace, and by stock PEFT from the folders that it is given."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wspace.components.targets.lora import Lora
from wspace.runs.run import Run
from wspace.support.progress import Progress
from wspace.weights.files.network import Network
from wspace.weights.files.peft import write_adapter
from wspace.weights.modules import pooled


def adapters(run: Run, count: int, images: int, turns: int) -> dict[str, Any]:
    """Adapters that a run of target `lora` generates for its unseen tasks, at most so many, each on the same test images."""
    assert isinstance(run.target, Lora)
    tasks = run.unseen(count)
    weights = run.sample(tasks, torch.Generator().manual_seed(run.recipe.seed))
    networks = [run.network(run.names_of(t), w, "generated") for t, w in zip(tasks, weights, strict=True)]
    texts = run.bench.class_texts[list(tasks[0])]
    measured = of_target(run.target, networks, run.bench.test.features[:images], texts, turns, run.bench.progress)
    return {"benchmark": "adapters", "run": str(run.folder)} | measured


@torch.no_grad()
def of_target(
    target: Lora, networks: Sequence[Network], features: Tensor, texts: Tensor, turns: int, progress: Progress
) -> dict[str, Any]:
    """What both take with N networks, on images (M, F), by texts (K, T): medians of their turns, one after the other.

    `load`: from N files, or folders, to where they can be applied. `one by one`: switching to each, and its scores (M, K) of
    all images. `together`: the scores of all N, in one call. `difference` is the greatest between scores of both, over the
    greatest score.
    """
    seconds = dict[str, dict[str, list[float]]]()
    scores = dict[str, list[Tensor]]()
    with TemporaryDirectory() as temporary, progress.bar("turns", turns) as bar:
        ways = {"wspace": _Ours(target, Path(temporary)), "peft": _Peers(target, Path(temporary))}
        for number, network in enumerate(networks):
            for way in ways.values():
                way.save(network, number)
        for _ in range(turns):
            for who, way in ways.items():
                started = time.perf_counter()
                way.load(len(networks))
                loaded = time.perf_counter()
                switched = torch.stack([way.scores(number, features, texts) for number in range(len(networks))])
                ended = time.perf_counter()
                together = way.together(features, texts)
                took = {"load": loaded - started, "one by one": ended - loaded, "together": time.perf_counter() - ended}
                for what, each in took.items():
                    seconds.setdefault(what, {}).setdefault(who, []).append(each)
                scores[who] = [switched, together]
            bar.advance()
    all_scores = torch.stack([each for of_one in scores.values() for each in of_one])
    return {
        "adapters": len(networks),
        "parameters": target.spec.size,
        "images": len(features),
        "turns": turns,
        "threads": torch.get_num_threads(),
        "seconds": {what: {who: median(each) for who, each in of.items()} for what, of in seconds.items()},
        "difference": float((all_scores - all_scores[0]).abs().max() / all_scores[0].abs().max()),
    }


class _Ours:
    """Flat weights, which the target takes as an argument."""

    def __init__(self, target: Lora, folder: Path):
        self.target, self.folder = target, folder

    def save(self, network: Network, number: int) -> None:
        network.save(self.folder / f"{number}.safetensors")

    def load(self, count: int) -> None:
        spec = self.target.spec
        files = [self.folder / f"{number}.safetensors" for number in range(count)]
        self.weights = torch.stack([spec.flatten(Network.load(file, spec).tensors) for file in files])

    def scores(self, number: int, features: Tensor, texts: Tensor) -> Tensor:
        return self.target.logits(self.weights[number][None], features[None], texts[None])[0]

    def together(self, features: Tensor, texts: Tensor) -> Tensor:
        count = len(self.weights)
        return self.target.logits(self.weights, features.expand(count, -1, -1), texts.expand(count, -1, -1))


class _Peers:
    """Adapters by name in a PEFT model, of which one is active, or one for each image."""

    def __init__(self, target: Lora, folder: Path):
        self.target, self.folder = target, folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages it imports
            import peft
        self.peft = peft

    def save(self, network: Network, number: int) -> None:
        spec, classes = self.target.spec, network.classes
        write_adapter(self.folder / str(number), spec, network.tensors, base_model="", texts=classes, classes=classes)

    def load(self, count: int) -> None:
        base = deepcopy(self.target.network)
        self.model = self.peft.PeftModel.from_pretrained(base, self.folder / "0", adapter_name="0").eval()
        for number in range(1, count):
            self.model.load_adapter(self.folder / str(number), adapter_name=str(number))
        self.names = [str(number) for number in range(count)]

    def scores(self, number: int, features: Tensor, texts: Tensor) -> Tensor:
        self.model.set_adapter(str(number))
        return self._by_texts(self.model(features.unflatten(1, self.target.input_shape)), texts)

    def together(self, features: Tensor, texts: Tensor) -> Tensor:
        names = [name for name in self.names for _ in features]
        inputs = features.repeat(len(self.names), 1).unflatten(1, self.target.input_shape)
        return self._by_texts(self.model(inputs, adapter_names=names), texts).unflatten(0, (len(self.names), -1))

    def _by_texts(self, output: Any, texts: Tensor) -> Tensor:
        directions = functional.normalize(texts @ self.target.projection, dim=1)
        return self.target.temperature * functional.normalize(pooled(output), dim=1) @ directions.T
