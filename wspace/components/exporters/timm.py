"""Checkpoints of timm, in the folders that it loads as `local-dir:`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional

from wspace.data.encoders.frozen import PicturesEncoder
from wspace.interfaces import Answers, Classifier, Exporter, Precision
from wspace.support.errors import UserError
from wspace.weights.files.directions import Directions
from wspace.weights.modules import CosineScores

LINEAR = 1e-4  # of the largest score, by which one that is linear in the features may differ from its matrix
WHO = "exporter 'timm'"


class TimmFolder(Exporter):
    """A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads: config and weights of one model.

    Of a timm backbone with a head whose scores are linear in the features, the classifier as a whole. Of a timm network
    that sees the pictures themselves, with an adapter merged or all of its weights generated, that network, and beside it
    `classes.safetensors`: the probabilities are softmax(temperature · cos(its output, directions)).
    """

    suffix = ""

    def __init__(self) -> None: ...

    def write(self, classifier: Classifier, out: Path, precision: Precision) -> None:
        encoder = classifier.backbone
        seeing = merged(classifier)
        if seeing is not None and hasattr(seeing.network, "pretrained_cfg"):
            seeing.directions.save(out)
            _save(seeing.network, out, classifier, seeing.mean, seeing.std, seeing.side)
            return
        if not isinstance(encoder, PicturesEncoder) or not hasattr(encoder.network, "pretrained_cfg"):
            raise UserError(f"{WHO}: this classifier has no network of timm in it: export it to onnx or torch")
        if encoder.encoder.network is not encoder.network:
            raise UserError(
                f"{WHO}: this backbone's features are more than what its timm model gives (stages): export it to onnx or torch"
            )
        weight, bias = _linear(classifier.head, encoder)
        model: Any = encoder.network
        model.reset_classifier(len(classifier.classes))
        last = model.get_classifier()
        if not isinstance(last, nn.Linear) or last.weight.shape != weight.shape:
            raise UserError(
                f"{WHO}: timm ends this model in no linear layer of its features: export it to onnx or torch"
            )
        last.load_state_dict({"weight": weight, "bias": bias})
        scale = encoder.scale.flatten(1) / 255  # (2, 3)
        _save(model, out, classifier, scale[0].tolist(), scale[1].tolist(), encoder.encoder.size or classifier.side)

    def read(self, out: Path) -> Answers:
        model: Any = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        config, directions = model.pretrained_cfg, Directions.load(out)
        mean, std = (255 * torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
        side = config["input_size"][-1]

        def answers(pixels: np.ndarray) -> np.ndarray:
            x = torch.tensor(pixels).permute(0, 3, 1, 2).float()
            if x.shape[2] != side:
                if directions is None:
                    x = functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
                else:
                    x = functional.adaptive_avg_pool2d(x, side)
            with torch.inference_mode():
                outputs = model((x - mean) / std)
            return (outputs if directions is None else directions.scores(outputs)).softmax(1).numpy()

        return answers


@dataclass(frozen=True)
class Seeing:
    """A network that sees the pictures themselves, how they come to it, and the directions of its classes."""

    network: nn.Module  # pictures (M, 3, side, side), standardised by mean and std -> (M, D)
    directions: Directions
    mean: list[float]  # of pixels from 0 to 1
    std: list[float]
    side: int


def merged(classifier: Classifier) -> Seeing | None:
    """The classifier as such a network; None if it is another."""
    encoder = classifier.backbone
    scaled: Any = classifier.head
    head = getattr(scaled, "head", None)
    if not isinstance(encoder, PicturesEncoder) or not isinstance(head, CosineScores) or len(head.inputs) != 3:
        return None
    mean, std = encoder.scale.flatten(1) / 255  # (3,) each
    directions = Directions(classifier.classes, head.directions, head.temperature)
    return Seeing(head.network, directions, mean.tolist(), (std * scaled.rms).tolist(), head.inputs[-1])


@torch.no_grad()
def _linear(head: nn.Module, encoder: PicturesEncoder) -> tuple[Tensor, Tensor]:
    """Matrix (K, F) and bias (K,) of the scores, up to what is the same for all classes. Raises UserError if there is none."""
    network: Any = encoder.network
    width: int = network.num_features

    def scores(features: Tensor) -> Tensor:
        of_all = head(features)
        return of_all - of_all.mean(1, keepdim=True)

    bias = scores(torch.zeros(1, width))[0]
    weight = (scores(torch.eye(width)) - bias).T
    features = torch.randn(64, width, generator=torch.Generator().manual_seed(0))
    for size in (0.1, 1.0, 10.0):
        exact, ours = scores(size * features), size * features @ weight.T + bias
        if not (exact - ours).abs().max() <= LINEAR * max(1.0, float(exact.abs().max())):
            raise UserError(
                f"{WHO}: this target's scores are not linear in the features, and a classifier of timm is: export it to onnx "
                "or torch"
            )
    return weight, bias


def _save(model: Any, out: Path, classifier: Classifier, mean: list[float], std: list[float], side: int) -> None:
    shape = {"input_size": (3, side, side), "crop_pct": 1.0, "interpolation": "bilinear", "fixed_input_size": False}
    model.pretrained_cfg = model.pretrained_cfg | {"mean": tuple(mean), "std": tuple(std)} | shape
    patches = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    made_with = {"img_size": side, "patch_size": patches[0]} if patches else None  # what a recipe may have set
    plain = model.to(memory_format=torch.contiguous_format)
    names = {"label_names": list(classifier.classes)}
    save_for_hf(plain, str(out), model_config=names, model_args=made_with, safe_serialization=True)
