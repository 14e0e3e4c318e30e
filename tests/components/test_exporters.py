"""Exporters: files that answer as the classifier does, in programs that know nothing of wspace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from PIL import Image, ImageOps
from safetensors import safe_open
from torch import nn

from wspace.components.backbones.pixels import Pixels
from wspace.components.backbones.timm import TimmBackbone
from wspace.components.exporters.huggingface import HubFolder
from wspace.components.exporters.onnx import Onnx
from wspace.components.exporters.timm import TimmFolder
from wspace.components.exporters.torch import TorchProgram
from wspace.components.exporters.transformers import TransformersFolder
from wspace.components.targets.lora import Lora
from wspace.components.targets.module import Module
from wspace.data.encoders.frozen import ImageEncoder
from wspace.data.pictures import open_picture
from wspace.interfaces import Classifier, Exporter, Precision
from wspace.runs.exporting import Scaled
from wspace.support.errors import MissingPackage, UserError
from wspace.support.seeding import seeded, stream
from wspace.testing.exporters import CLASSES, classifier, pictures

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is not installed here")
sys.meta_path.insert(0, Blocked())
"""


def elsewhere(code: str, *arguments: object, without: tuple[str, ...]) -> str:
    """What a program prints in a process that cannot import these packages."""
    command = [sys.executable, "-c", WITHOUT.format(blocked=without) + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def difference(made: Classifier, exporter: Exporter, out: Path, count: int = 3) -> float:
    """Of the probabilities of what was written, and of the classifier itself."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, made.side, made.side, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = made.module()(torch.from_numpy(pixels)).numpy()
    return float(np.abs(exporter.read(out)(pixels) - expected).max())


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "head.onnx"
    Onnx().write(classifier(), out, "float32")
    return out


# ---------------------------------------------------------------- onnx


def test_an_onnx_file_names_its_classes_and_takes_any_number_of_pictures(onnx_file: Path) -> None:
    session = onnxruntime.InferenceSession(onnx_file)
    (pixels,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(uint8)", [8, 8, 3])
    assert (probabilities.name, probabilities.shape[1:]) == ("probabilities", [3])
    for count in (1, 7):
        (answer,) = session.run(None, {"pixels": pictures(count)})
        assert answer.shape == (count, 3)
        assert answer.sum(1) == pytest.approx(1, abs=1e-5)


def test_the_script_of_the_documentation_answers_without_wspace_and_without_torch(
    onnx_file: Path, tmp_path: Path
) -> None:
    Image.fromarray(pictures(1)[0]).resize((30, 20)).save(tmp_path / "picture.png")
    code = "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    script = ROOT / "docs/classify.py"
    said = elsewhere(code, script, onnx_file, tmp_path / "picture.png", without=("wspace", "torch", "onnx", "timm"))
    shares = {line[8:]: float(line[:6].rstrip("%")) for line in said.splitlines()}
    assert set(shares) == set(CLASSES)
    assert sum(shares.values()) == pytest.approx(100, abs=0.2)
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 25


def test_the_script_prepares_a_picture_as_wspace_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transparent one that is wider than high: its middle, on white."""
    wide = np.zeros((20, 30, 4), np.uint8)
    wide[:, :15] = (200, 30, 40, 255)
    Image.fromarray(wide).save(tmp_path / "picture.png")
    source = (ROOT / "docs/classify.py").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["classify.py", "head.onnx", str(tmp_path / "picture.png")])
    names = {"Image": Image, "ImageOps": ImageOps, "np": np, "side": 8, "sys": sys}
    exec(source[source.index("with Image") : source.index("probabilities =")], names)
    assert np.array_equal(names["square"], open_picture(tmp_path / "picture.png", 8))


@pytest.mark.parametrize(("precision", "share"), [("float16", 0.6), ("int8", 0.4)])
@pytest.mark.slow
def test_a_backbone_in_fewer_bytes_answers_nearly_the_same(tmp_path: Path, precision: Precision, share: float) -> None:
    with seeded(0):
        network = nn.Sequential(nn.Conv2d(3, 256, 8), nn.ReLU(), nn.Flatten()).requires_grad_(False)
    encoder = ImageEncoder(network, (0.5,) * 3, (0.25,) * 3, None, 4, "float32", CPU)
    made = replace(classifier(), backbone=encoder.module(network), head=nn.Linear(256, 3).requires_grad_(False))
    Onnx().write(made, tmp_path / "small.onnx", precision)
    assert (tmp_path / "small.onnx").stat().st_size < share * 4 * 3 * 256 * 8 * 8
    assert 0 < difference(made, Onnx(), tmp_path / "small.onnx") < 0.02


@pytest.mark.slow
def test_pictures_are_resized_inside_the_file_and_500_classes_have_room(tmp_path: Path) -> None:
    backbone = TimmBackbone("test_resnet", pretrained=False, size=24, precision="float32", stages=2, device=CPU)
    with seeded(0):
        head = nn.Linear(backbone.dim, 500).requires_grad_(False)
    made = Classifier(backbone.module(), head, tuple(f"class {number}" for number in range(500)), 40, {})
    Onnx().write(made, tmp_path / "many.onnx", "float32")
    assert difference(made, Onnx(), tmp_path / "many.onnx") < 1e-4


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_onnx_without_its_packages_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage) as caught:
        Onnx()
    assert str(caught.value) == f"exporter 'onnx' needs the package {package}: pip install \"wspace[onnx]\""


# ---------------------------------------------------------------- torch


@pytest.mark.slow
def test_a_program_of_torch_loads_where_wspace_is_not_installed(tmp_path: Path) -> None:
    TorchProgram().write(classifier(), tmp_path / "head.pt2", "float32")
    np.save(tmp_path / "pixels.npy", pictures(3))
    code = """
import json, numpy as np, torch
names = {"classes.json": ""}
program = torch.export.load(sys.argv[1], extra_files=names).module()
print(json.dumps([json.loads(names["classes.json"]), program(torch.tensor(np.load(sys.argv[2]))).tolist()]))
"""
    said = elsewhere(code, tmp_path / "head.pt2", tmp_path / "pixels.npy", without=("wspace", "timm"))
    names, probabilities = json.loads(said)
    with torch.inference_mode():
        expected = classifier().module()(torch.from_numpy(pictures(3)))
    assert names == list(CLASSES)
    assert torch.allclose(torch.tensor(probabilities), expected, atol=1e-5)


# ---------------------------------------------------------------- timm and transformers


def on_timm(head: nn.Module | None = None, stages: int | None = None) -> Classifier:
    backbone = TimmBackbone("test_efficientnet", pretrained=False, precision="float32", stages=stages, device=CPU)
    with seeded(0):
        head = head or nn.Linear(backbone.dim, 3).requires_grad_(False)
    return Classifier(backbone.module(), Scaled(head, torch.tensor(0.7)), CLASSES, 32, {})


def test_a_linear_head_and_its_timm_backbone_are_one_checkpoint_of_timm(tmp_path: Path) -> None:
    made = on_timm()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = made.module()(torch.from_numpy(pixels)).numpy()
    TimmFolder().write(made, tmp_path, "float32")
    assert np.abs(TimmFolder().read(tmp_path)(pixels) - expected).max() < 1e-5
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert (loaded.num_classes, loaded.pretrained_cfg["label_names"]) == (3, list(CLASSES))


def test_timm_takes_no_head_that_is_not_linear(tmp_path: Path) -> None:
    with seeded(0):
        bent = nn.Sequential(nn.Linear(256, 5), nn.Tanh(), nn.Linear(5, 3)).requires_grad_(False)
    with pytest.raises(UserError) as caught:
        TimmFolder().write(on_timm(bent), tmp_path, "float32")
    assert str(caught.value) == (
        "exporter 'timm': this target's scores are not linear in the features, and a classifier of timm is: export it to onnx "
        "or torch"
    )
    with pytest.raises(UserError, match="more than what its timm model gives"):
        TimmFolder().write(on_timm(bent, stages=2), tmp_path, "float32")
    with pytest.raises(UserError, match="has no network of timm in it"):
        TimmFolder().write(classifier(), tmp_path, "float32")


def merged(target: Lora | Module, side: int) -> tuple[Classifier, torch.Tensor, torch.Tensor]:
    """A classifier of a target that sees pictures, its weights (P,) and texts (3, 6)."""
    texts = nn.functional.normalize(torch.randn(3, 6, generator=stream(0, "texts")), dim=1)
    weights = target.init(1, stream(0, "weights"))[0] + 0.05 * torch.randn(target.spec.size, generator=stream(1, "w"))
    head = Scaled(target.frozen(weights, texts), torch.tensor(0.8))
    return Classifier(Pixels(side, device=CPU).module(), head, CLASSES, side, {}), weights, texts


def check_merged(made: Classifier, target: Lora | Module, weights, texts, exporter: Exporter, out: Path) -> None:
    """The merged network answers as the target does, and what is written as the merged network."""
    features = Pixels(made.side, device=CPU).encode(np.zeros((1, made.side, made.side, 3), np.uint8)) + torch.rand(2, 1)
    with torch.no_grad():
        expected = target.logits(weights[None], features[None] / 0.8, texts[None])[0]
        assert torch.allclose(made.head(features), expected, atol=1e-3)
    exporter.write(made, out, "float32")
    assert difference(made, exporter, out) < 1e-4


def test_an_adapter_of_a_timm_network_is_merged_into_it(tmp_path: Path) -> None:
    target = Lora("timm", model="test_vit", patch=8, rank=2, feature_dim=3 * 16**2, text_dim=6)
    made, weights, texts = merged(target, 16)
    check_merged(made, target, weights, texts, TimmFolder(), tmp_path)
    with safe_open(tmp_path / "classes.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["classes"]) == list(CLASSES)


def test_an_adapter_of_a_transformers_network_is_merged_into_it(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    with seeded(0):
        ViTModel(config).save_pretrained(tmp_path / "base")
    target = Lora(
        "transformers",
        modules=("*q_proj", "*v_proj"),
        rank=2,
        file=tmp_path / "base",
        feature_dim=3 * 16**2,
        text_dim=6,
    )
    made, weights, texts = merged(target, 16)
    (tmp_path / "out").mkdir()
    check_merged(made, target, weights, texts, TransformersFolder(), tmp_path / "out")
    with pytest.raises(UserError, match="is no network of transformers that sees the pictures themselves"):
        TransformersFolder().write(classifier(), tmp_path / "out", "float32")


# ---------------------------------------------------------------- a hub's folder


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    about = {
        "origin": "nano, seed 42",
        "texts": [f"a photo of {name}" for name in CLASSES],
        "licences": {"backbone": "apache-2.0"},
        "expected_accuracy": {
            "mean": 0.65,
            "low": 0.41,
            "high": 0.86,
            "confidence": 0.9,
            "tasks": 40,
            "guessed": False,
        },
    }
    out = tmp_path_factory.mktemp("hub")
    HubFolder(licence="mit").write(replace(classifier(), about=about), out, "float32")
    return out


def test_a_folder_for_a_hub_has_weights_config_and_a_card(hub_folder: Path) -> None:
    assert {path.name for path in hub_folder.iterdir()} == {
        "README.md", "config.json", "model.onnx", "model.safetensors",
    }  # fmt: skip
    card = ModelCard.load(hub_folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "onnx")
    for line in (
        "| expected accuracy | 65 % on pictures like the data set's; 90 % of such tasks are between 41 % and 86 % |",
        "| licence of the backbone | apache-2.0 |",
    ):
        assert line in card.text.splitlines()
    assert "<b>" not in card.text
    assert "étoile &lt;b&gt;" in card.text
    config = json.loads((hub_folder / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {str(number): name for number, name in enumerate(CLASSES)}
    with safe_open(hub_folder / "model.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["wspace"])["classes"] == list(CLASSES)


def test_the_way_to_load_that_a_card_shows_works(hub_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(hub_folder, tmp_path, dirs_exist_ok=True)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "picture.jpg")
    code = (hub_folder / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    said = elsewhere(f"import os; os.chdir(sys.argv[1])\n{code}", tmp_path, without=("wspace", "torch"))
    assert said.rpartition(" ")[0] in CLASSES


def test_an_opset_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    with pytest.raises(UserError, match=f"^exporter 'onnx': the installed onnx knows opset {newest} at most, not 200$"):
        Onnx(opset=200)
    Onnx(opset=20).write(classifier(), tmp_path / "c.onnx", "float32")
    assert [known.version for known in onnx.load(tmp_path / "c.onnx").opset_import if not known.domain] == [20]
