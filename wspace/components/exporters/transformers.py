"""Models of transformers, in the folders that it loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from wspace.components.exporters.timm import merged
from wspace.interfaces import Answers, Classifier, Exporter, Precision
from wspace.support.errors import MissingPackage, UserError
from wspace.support.files import read_json, write_json
from wspace.weights.files.directions import Directions
from wspace.weights.modules import pooled

PREPROCESSING = "preprocessor_config.json"


class TransformersFolder(Exporter):
    """A folder that `AutoModel.from_pretrained` loads: a network with its adapter merged into it (`target: lora`).

    Beside it, `classes.safetensors`: the probabilities are softmax(temperature · cos(its pooled output, directions)).
    """

    suffix = ""

    def __init__(self) -> None:
        try:
            import transformers  # noqa: F401 (asked for before any work)
        except ImportError as error:
            raise MissingPackage(
                "exporter 'transformers' needs the package transformers: pip install \"wspace[lora]\""
            ) from error

    def write(self, classifier: Classifier, out: Path, precision: Precision) -> None:
        seeing = merged(classifier)
        network: Any = seeing and seeing.network
        if seeing is None or not hasattr(network, "save_pretrained"):
            raise UserError(
                "exporter 'transformers': this classifier is no network of transformers that sees the pictures themselves "
                "(`base: transformers` of target 'lora'): export it to onnx or torch"
            )
        network.save_pretrained(out, safe_serialization=True)
        seeing.directions.save(out)
        size = {"height": seeing.side, "width": seeing.side}
        write_json(
            out / PREPROCESSING,
            {
                "image_processor_type": "ViTImageProcessor",
                "do_normalize": True,
                "image_mean": seeing.mean,
                "image_std": seeing.std,
                "size": size,
            },
        )

    def read(self, out: Path) -> Answers:
        from transformers import AutoModel

        network = AutoModel.from_pretrained(out, local_files_only=True, use_safetensors=True).eval()
        config, directions = read_json(out / PREPROCESSING), Directions.load(out)
        assert directions is not None
        mean, std = (255 * torch.tensor(config[name])[:, None, None] for name in ("image_mean", "image_std"))

        def answers(pixels: np.ndarray) -> np.ndarray:
            x = functional.adaptive_avg_pool2d(
                torch.tensor(pixels).permute(0, 3, 1, 2).float(), config["size"]["height"]
            )
            with torch.inference_mode():
                return directions.scores(pooled(network((x - mean) / std))).softmax(1).numpy()

        return answers
