"""Folders for a model hub: weights, configuration, and a card that says what they are."""

from __future__ import annotations

from pathlib import Path

from wspace.components.exporters.onnx import Onnx
from wspace.interfaces import Answers, Classifier, Exporter, Precision
from wspace.support.cards import CARD
from wspace.support.files import save_tensors, write_json, write_text
from wspace.support.names import HUB_CONFIG, HUB_MODEL, HUB_WEIGHTS
from wspace.weights.files.card import Whole, card
from wspace.weights.files.network import Network


class HubFolder(Exporter):
    """A folder that a model hub takes: the classifier as ONNX, the generated weights as safetensors, config and card.

    `licence` is of the whole, as the hub writes it (apache-2.0); without it the card says that none was named.
    """

    suffix = ""
    precisions = Onnx.precisions

    def __init__(self, licence: str | None = None):
        self.licence, self.onnx = licence, Onnx()

    def write(self, classifier: Classifier, out: Path, precision: Precision) -> None:
        self.onnx.write(classifier, out / HUB_MODEL, precision)
        about = classifier.about
        known = {key: about[key] for key in ("origin", "zoo", "pictures", "as_scored") if key in about}
        network = Network(classifier.classes, dict(classifier.network), **known)
        save_tensors(out / HUB_WEIGHTS, network.tensors, network.metadata)
        numbered = list(enumerate(classifier.classes))
        config = {
            "model_type": "onnx",
            "num_labels": len(numbered),
            "id2label": {str(number): name for number, name in numbered},
            "label2id": {name: number for number, name in numbered},
            "image_size": classifier.side,
            "precision": precision,
            "wspace": about,
        }
        write_json(out / HUB_CONFIG, config)
        whole = Whole(HUB_MODEL, classifier.side, precision)
        write_text(out / CARD, card(classifier.classes, about, HUB_WEIGHTS, self.licence, whole))

    def read(self, out: Path) -> Answers:
        return self.onnx.read(out / HUB_MODEL)
