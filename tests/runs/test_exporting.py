"""Exports of a run: what is written is tried on test pictures, and what cannot come of it is one sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
import torch

from tests.conftest import Wspace
from wspace.runs import exporting
from wspace.runs.run import Run
from wspace.support.errors import UserError, WspaceError
from wspace.support.files import _beside
from wspace.support.progress import Bar, Progress
from wspace.weights.files.card import card
from wspace.weights.files.network import Network

PLUGIN = '''"""Exporters that keep what they write in memory: one right, one wrong, and a folder."""

import torch

from wspace import hookimpl
from wspace.api import Exporter


@hookimpl
def wspace_register(register):
    for name in ("Right", "Wrong", "Folder"):
        register("exporter", name.lower(), f"kept:{name}")


class Right(Exporter):
    suffix = ".kept"
    precisions = ("float32", "int8")

    def __init__(self) -> None: ...

    def write(self, classifier, out, precision):
        out.write_text(f"{precision}: {', '.join(classifier.classes)}")
        Right.module = classifier.module()
        assert classifier.about["texts"][0] == f"a photo of {classifier.classes[0]}"

    def read(self, out):
        module = self.module
        return lambda pixels: module(torch.tensor(pixels).to(module.backbone.scale.device)).float().numpy()


class Wrong(Right):
    def __init__(self) -> None: ...

    def read(self, out):
        return lambda pixels: super(Wrong, self).read(out)(pixels)[:, ::-1]


class Folder(Right):
    suffix = ""

    def __init__(self) -> None: ...

    def write(self, classifier, out, precision):
        super().write(classifier, out / "kept.txt", precision)
'''


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TRIED", 24)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plugin") / "kept.py"
    file.write_text(PLUGIN, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def opened(nano: Path, plugin: Path) -> Run:
    return Run.open(nano, [plugin])


@pytest.fixture(scope="module")
def network(opened: Run) -> Network:
    return opened.generate(opened.zoo.classes[:4])


@pytest.fixture
def weights(network: Network, tmp_path: Path) -> Path:
    network.save(tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


def test_what_is_written_is_tried_on_test_pictures_of_its_classes(
    opened: Run, network: Network, tmp_path: Path
) -> None:
    exported = opened.export(network, "right", tmp_path / "deep/head.kept")
    assert (tmp_path / "deep/head.kept").read_text() == f"float32: {', '.join(network.classes)}"
    assert (exported.format, exported.precision, exported.side) == ("right", "float32", 64)
    assert (exported.pictures, exported.same, exported.scored) == (24, 24, 24)
    assert exported.difference < 1e-6
    assert exported.accuracy == exported.network_accuracy
    assert exported.bytes == (tmp_path / "deep/head.kept").stat().st_size


def test_a_classifier_computes_what_the_run_does(opened: Run, network: Network) -> None:
    made = opened.classifier(network)
    pixels = opened.bench.images.read(range(6))
    with torch.inference_mode():
        features = opened.zoo.scale(made.backbone(torch.tensor(pixels)))
        texts = opened.bench.encode_classes(network.classes)
        logits = opened.target.logits(opened.flat(network), features[None], texts[None])[0]
        assert torch.allclose(made.module()(torch.tensor(pixels)), logits.softmax(1), atol=1e-6)
        ours = opened.bench.backbone.encode(pixels)
        assert torch.nn.functional.cosine_similarity(ours, made.backbone(torch.tensor(pixels))).min() > 0.99


def test_a_file_that_answers_otherwise_is_not_left_behind(opened: Run, network: Network, tmp_path: Path) -> None:
    (tmp_path / "head.kept").write_text("of before")
    with pytest.raises(
        WspaceError, match="head.kept: not written: what exporter 'wrong' made answers otherwise"
    ) as caught:
        opened.export(network, "wrong", tmp_path / "head.kept")
    assert caught.value.exit_status == 1
    assert [path.name for path in tmp_path.iterdir()] == ["head.kept"]
    assert (tmp_path / "head.kept").read_text() == "of before"


def test_weights_for_classes_without_pictures_are_tried_on_others(opened: Run, tmp_path: Path) -> None:
    exported = opened.export(opened.generate(["otter", "heron"]), "folder", tmp_path / "made")
    assert (exported.pictures, exported.scored, exported.accuracy) == (24, 0, None)
    assert exported.bytes == sum(path.stat().st_size for path in (tmp_path / "made").iterdir())


def test_the_command_says_what_was_written_and_what_it_costs(
    inside: Wspace, nano: Path, plugin: Path, weights: Path
) -> None:
    out = weights.with_suffix(".kept")
    done = inside("export", nano, weights, "--to", "right", "--plugin", plugin)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert "tried on 24 test pictures: the same class on 24" in done.stderr
    assert "on 24 test pictures of its classes, as the network itself" in done.stderr
    assert "is replaced" not in done.stderr
    done = inside("export", nano, weights, "--to", "{use: right}", "--out", out, "--json", "--plugin", plugin)
    told = json.loads(done.stdout)
    assert (told["out"], told["format"], told["replaced"], told["scored"]) == (str(out), "right", True, 24)


def test_another_precision_has_a_name_of_its_own_and_folders_are_made_with_a_note(
    inside: Wspace, nano: Path, plugin: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, deep = weights.with_name("head-int8.kept"), weights.with_name("deep") / "head.kept"
    weights.with_suffix(".kept").write_text("of before")
    done = inside("export", nano, weights, "--to", "right", "--precision", "int8", "--plugin", plugin)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert "is made" not in done.stderr and weights.with_suffix(".kept").read_text() == "of before"
    note = f"note: there is no folder {deep.parent}, so it is made\n"
    done = inside("export", nano, weights, "--to", "right", "--out", deep, "--plugin", plugin)
    assert done.returncode == 0 and note in done.stderr
    shutil.rmtree(deep.parent)
    done = inside("generate", nano, "--classes", "book, camera", "--out", deep)
    assert done.returncode == 0 and note in done.stderr


def test_what_a_killed_export_began_goes_with_the_next_one(opened: Run, network: Network, tmp_path: Path) -> None:
    dead = Popen(["true"])
    dead.wait()
    begun, folder = (_beside(tmp_path / name) for name in ("head.kept", "made"))
    left, left_folder = (
        place.with_name(place.name.replace(str(os.getpid()), str(dead.pid))) for place in (begun, folder)
    )
    for place in (folder, left_folder):
        place.mkdir()
        (place / "kept.txt").touch()
    left.touch()
    opened.export(network, "right", tmp_path / "other.kept")
    assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / "other.kept"]), "one that lives goes on"
    folder.rename(left_folder)
    opened.export(network, "folder", tmp_path / "folder")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "folder", tmp_path / "other.kept"])


def test_an_export_shows_how_far_it_is(opened: Run, network: Network, tmp_path: Path, monkeypatch) -> None:
    shown: list[tuple[str, int, int]] = []

    class Watched(Progress):
        @contextmanager
        def bar(self, name: str, total: int) -> Iterator[Bar]:
            bar = Bar(name, total)
            yield bar
            shown.append((name, bar.done, total))

    monkeypatch.setattr(opened.bench, "progress", Watched())
    opened.export(network, "right", tmp_path / "head.kept")
    assert shown == [("exporting", 1, 1), ("trying", 24, 24), ("trying", 24, 24)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--to": "onx"}, "no exporter named 'onx'. Did you mean 'onnx'? Known: "),
        ({"--to": "{use: right, opset: 20}"}, "--to: opset: exporter 'right' takes no 'opset'."),
        (
            {"--precision": "int4"},
            "precision int4: exporter 'right' writes float32, int8 alone. Did you mean 'int8'?",
        ),
        ({"--out": "."}, ".: is a folder; name a file to write"),
        ({"--to": "folder", "--out": "taken"}, "taken: is there already"),
    ],
)
def test_what_cannot_come_of_it_is_one_sentence(
    inside: Wspace, nano: Path, plugin: Path, weights: Path, change: dict[str, str], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(weights.parent)
    Path("taken").mkdir()
    Path("taken/file").touch()
    options = {"--to": "right", "--plugin": str(plugin)} | change
    done = inside("export", nano, weights, *(word for pair in options.items() for word in pair))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert sorted(path.name for path in weights.parent.iterdir()) == ["head.safetensors", "taken"]


@pytest.mark.parametrize(
    ("asked", "origin", "worth"),
    [
        ({}, "nano, seed 42, temperature 0.0, draw 1 of 1", r"\d+ % on pictures like the data set's"),
        (
            {"guidance": 3.0, "steps": 2},
            "nano, seed 42, temperature 0.0, steps 2, guidance 3.0, draw 1 of 1",
            "unknown: the report scores no weights that were drawn so",
        ),
    ],
    ids=["as scored", "otherwise"],
)
def test_a_card_expects_of_weights_what_the_report_scores_and_of_others_nothing(
    opened: Run, tmp_path: Path, asked: dict[str, float], origin: str, worth: str
) -> None:
    """Also of weights that were written to a file and read from it."""
    opened.generate(opened.zoo.classes[:3], **asked).save(tmp_path / "head.safetensors")
    network = opened.load_network(tmp_path / "head.safetensors")
    assert network.as_scored == (not asked) and network.origin == origin
    about = opened.about(network, "MIT")
    assert (about["expected_accuracy"] is None) == bool(asked)
    for pictures in (0, 12):
        text = card(network.classes, about | {"pictures": pictures}, "head.safetensors")
        assert re.search(f"expected accuracy . {worth}", text)
        assert ("from the names of the classes alone" in text) == (not pictures) == ("trained on no picture" in text)
        assert ("from the names of the classes and 12 pictures" in text) == bool(pictures)


def test_weights_of_another_run_are_refused(opened: Run, network: Network, tmp_path: Path) -> None:
    other = Network(network.classes, network.tensors, network.origin, "zoo-of-another")
    with pytest.raises(UserError) as caught:
        opened.export(other, "right", tmp_path / "head.kept")
    assert str(caught.value) == (
        f"these weights are of another run (its zoo is zoo-of-another, and here it is {opened.zoo.folder.name}): export them "
        "from that run"
    )
