"""Classes that nothing was trained on: placed by words and by pictures, scored apart, and told what to expect."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import wspace
from tests.conftest import BY_PICTURES, PLACED, ROOT, Wspace
from wspace.components.conditioners.class_prototypes import ClassPrototypes
from wspace.components.opponents.text_prototype import TextPrototype
from wspace.data.prompts import prompts_of
from wspace.interfaces import ClassStatistics
from wspace.recipes.bind import bind_one
from wspace.runs.run import Run
from wspace.runs.telling import auxiliary
from wspace.runs.workbench import Workbench
from wspace.support.names import DRAWN_FROM_TOLD, PROMPT_TEXTS
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.testing.opponents import contests_of, evidence_of

OF_TWO = "unseen-classes-2"


def settings(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.fixture(scope="module")
def run(placed: Path) -> Run:
    return wspace.load(placed)


@pytest.fixture(scope="module")
def apart(run: Run) -> list[str]:
    """Names of classes of the data set that nothing was trained on."""
    return [name for number, name in enumerate(run.zoo.classes) if number not in run.zoo.tasks.classes]


def pictures_of(run: Run, name: str, folder: Path, count: int) -> None:
    """Test images of a class, as files."""
    images = run.bench.images
    rows = np.flatnonzero((images.labels == images.classes.index(name)) & (images.split == 2))[:count]
    (folder / name).mkdir(parents=True)
    for number, pixels in enumerate(images.read(rows)):
        Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_the_report_scores_unseen_classes_by_ways_beside_the_closed_forms(placed: Path, inside: Wspace) -> None:
    report = json.loads(inside("report", placed, "--json").stdout)
    accuracy = {(s["split"], s["method"]): s["mean"] for s in report["scores"] if s["metric"] == "accuracy"}
    assert {split for split, _ in accuracy} >= {"unseen-classes", "unseen-classes-2"}
    for split in ("unseen-classes", "unseen-classes-2"):
        assert accuracy[split, "generated"] == pytest.approx(accuracy[split, "text-prototype"], abs=0.1)
        assert 0 < accuracy[split, "eszsl"] < 1
    assert accuracy["seen", "generated"] > accuracy["seen", "universal"]


def test_what_words_were_fitted_to_is_stored_and_a_run_without_it_fits_them_again(
    run: Run, placed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(placed, tmp_path / "old")
    [stored] = tmp_path.glob(f"old/train-*/{DRAWN_FROM_TOLD}")
    stored.unlink()  # as before 0.2
    names = run.names_of(run.unseen(1)[0])
    pictures = {names[0]: [ROOT / "docs/unseen-known.png"]}
    refitted = [wspace.load(tmp_path / "old").generate(names, pictures=shown) for shown in ({}, pictures)]
    monkeypatch.setattr(ClassPrototypes, "told", None)
    recalled = [wspace.load(placed).generate(names, pictures=shown) for shown in ({}, pictures)]
    for one, other in zip(refitted, recalled, strict=True):
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_the_report_scores_words_with_pictures_beside_pictures_alone(placed: Path, inside: Wspace) -> None:
    report = json.loads(inside("report", placed, "--json").stdout)
    rows = {(s["split"], s["method"]): s for s in report["scores"] if s["metric"] == "accuracy"}
    asked = {split for split, method in rows if method in BY_PICTURES}
    assert asked == {f"{OF_TWO}-pictures-1", f"{OF_TWO}-pictures-4"}
    for split in asked:
        for name in ("oracle", "universal", "text-prototype", "eszsl"):  # they are what they are without pictures
            assert rows[split, name] == rows[OF_TWO, name] | {"split": split}
        assert {method for of_split, method in rows if of_split == split} > {"generated", *BY_PICTURES}
    assert rows[f"{OF_TWO}-pictures-4", "generated"]["mean"] > rows[OF_TWO, "generated"]["mean"]
    choices = ("nearest-mean_one_length", "shrunk-mean_trust", "logistic_penalty", "tip-linear_share")
    assert {f"{name}_4" for name in choices} < {*report["chosen"]}
    differences = {(d["split"], d["method"]) for d in report["differences"]}
    assert {(split, name) for split in asked for name in BY_PICTURES} < differences
    page = (placed / "report.html").read_text(encoding="utf-8")
    assert 'id="by_pictures"' in page and f"{OF_TWO}-pictures-4" in page


def test_nothing_that_goes_by_words_is_made_again_for_tasks_with_pictures(run: Run) -> None:
    made = {
        stage: {file.name for file in run.artifacts[stage].glob("*.safetensors")} for stage in ("opponents", "generate")
    }
    assert not any("pictures" in name for name in made["opponents"])
    assert {name for name in made["generate"] if "pictures" in name} == {
        f"generated-{OF_TWO}-pictures-{count}.safetensors" for count in (1, 4)
    }


def test_pictures_are_training_images_of_the_tasks_own_classes_and_what_is_generated_goes_by_them(run: Run) -> None:
    tasks, split = run.zoo.tasks, f"{OF_TWO}-pictures-4"
    shots, fewer = run.bench.shots_of(tasks, split), run.bench.shots_of(tasks, f"{OF_TWO}-pictures-1")
    assert shots is not None and fewer is not None and run.bench.shots_of(tasks, OF_TWO) is None
    for row, task in enumerate(tasks.scored(split)):
        for place, number in enumerate(task):
            pictures = shots.features[row, place, : int(shots.counts[row, place])]
            own, of_test = run.bench.train.of_task([number])[0], run.bench.test.features
            assert (pictures[:, None] == own).all(2).any(1).all() and not (pictures[:, None] == of_test).all(2).any()
            assert torch.equal(fewer.features[row, place, 0], pictures[0])
    prompts = prompts_of(tasks.scored(split), run.prompt_texts, run.zoo.classes, shots)
    stored = load_file(run.artifacts["generate"] / f"generated-{split}.safetensors")["weights"]
    torch.testing.assert_close(run.system.sample(prompts, run.recipe.generate, stream(0, "any")), stored)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("tasks.pictures=[1]",),
            "tasks.pictures: conditioner 'prior-fusion' goes by words alone and takes no pictures; name one that does, as "
            "class-prototypes, or leave tasks.pictures out",
        ),
        (
            ("against=[oracle, nearest-mean]",),
            "against.1: the opponent 'nearest-mean' goes by pictures, and no task comes with any; set tasks.pictures, or leave "
            "it out",
        ),
        (("tasks.pictures=[0]",), "tasks.pictures.0: must be greater than or equal to 1, got 0"),
    ],
)
def test_pictures_that_nobody_looks_at_are_refused(settings: tuple[str, ...], said: str, inside: Wspace) -> None:
    done = inside("check", ROOT / "recipes/nano.yaml", *(part for setting in settings for part in ("--set", setting)))
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr


def test_a_picture_or_two_of_an_unseen_class_change_its_weights_and_help(
    run: Run, placed: Path, apart: list[str], inside: Wspace, tmp_path: Path
) -> None:
    words, shown = tmp_path / "words.safetensors", tmp_path / "shown.safetensors"
    for name in apart[:2]:
        pictures_of(run, name, tmp_path / "pictures", 4)
    names = ("--classes", ",".join(apart[:3]))
    assert inside("generate", placed, *names, "--out", words).returncode == 0
    done = inside("generate", placed, *names, "--pictures", tmp_path / "pictures", "--out", shown)
    assert done.returncode == 0 and "expected accuracy" not in done.stderr, done.stderr
    assert not any(repr(name) in done.stderr for name in apart[:2])  # it has seen them now
    assert not torch.equal(load_file(words)["w1"], load_file(shown)["w1"])
    scores = [json.loads(inside("score", placed, file, "--json").stdout)["accuracy"] for file in (words, shown)]
    assert scores[1] > scores[0]
    files = {name: sorted((tmp_path / "pictures" / name).iterdir()) for name in apart[:2]}
    in_python = run.generate(apart[:3], pictures=files).tensors
    assert all(torch.equal(tensor, in_python[name]) for name, tensor in load_file(shown).items())


def test_pictures_that_cannot_be_used_are_refused(
    run: Run, placed: Path, nano: Path, apart: list[str], inside: Wspace, tmp_path: Path
) -> None:
    pictures_of(run, apart[0], tmp_path, 1)
    for folder, classes, said in (
        (nano, apart[:2], "error: this run's conditioner 'prior-fusion' goes by words alone and takes no pictures; "),
        (
            placed,
            apart[1:3],
            f"error: {tmp_path}: has pictures of {apart[0]!r}, which is none of the classes asked for.",
        ),
    ):
        out = tmp_path / "head.safetensors"
        done = inside("generate", folder, "--classes", ",".join(classes), "--pictures", tmp_path, "--out", out)
        assert done.returncode == 2 and done.stderr.startswith(said) and not out.exists(), done.stderr
    with pytest.raises(
        wspace.api.UserError, match="there are pictures of 'nothing', which is none of the classes asked for"
    ):
        run.generate(apart[:2], pictures={"nothing": []})
    with pytest.raises(wspace.api.UserError, match=f"pictures of {apart[0]!r}: give a list of files, as \\['1.png'\\]"):
        run.generate(apart[:2], pictures={apart[0]: "1.png"})


def test_unlabelled_pictures_change_the_weights_of_a_conditioner_that_takes_pictures(
    run: Run, placed: Path, nano: Path, apart: list[str], inside: Wspace, tmp_path: Path
) -> None:
    pictures_of(run, apart[3], tmp_path / "pictures", 4)
    out = tmp_path / "head.safetensors"
    asked = ("--classes", ",".join(apart[:3]), "--unlabelled", tmp_path / "pictures", "--out", out)
    done = inside("generate", placed, *asked)
    assert done.returncode == 0 and "expected accuracy" not in done.stderr, done.stderr
    files = sorted((tmp_path / "pictures" / apart[3]).iterdir())
    in_python, by_words = run.generate(apart[:3], unlabelled=files).tensors, run.generate(apart[:3]).tensors
    assert all(torch.equal(tensor, in_python[name]) for name, tensor in load_file(out).items())
    assert not all(torch.equal(tensor, by_words[name]) for name, tensor in in_python.items())
    done = inside("generate", nano, *asked)
    assert done.returncode == 2 and "'prior-fusion' goes by words alone and takes no pictures" in done.stderr
    (tmp_path / "none").mkdir()
    done = inside("generate", placed, "--classes", ",".join(apart[:3]), "--unlabelled", tmp_path / "none", "--out", out)
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path / 'none'}: has no pictures\n"


@pytest.mark.parametrize(
    ("change", "who"),
    [
        ("conditioner=class-prototypes", "conditioner (class-prototypes)"),
        ("against=[oracle, eszsl]", "against[1] (eszsl)"),
    ],
)
def test_a_target_that_cannot_be_put_together_is_refused_before_anything_is_trained(
    change: str, who: str, inside: Wspace, tmp_path: Path
) -> None:
    done = inside("run", "nano", "--runs", tmp_path, "--set", change, "--set", "target.bias=false")
    assert done.returncode == 2 and done.stderr.endswith(
        f"error: {who}: clip-adapter: with activation gelu and no bias it is linear nowhere; set bias to true\n"
    ), done.stderr
    assert not list(tmp_path.glob("**/networks-*.safetensors"))


def test_generate_says_how_each_class_stands_and_what_to_expect(
    run: Run, placed: Path, inside: Wspace, tmp_path: Path
) -> None:
    known = [run.zoo.classes[number] for number in run.zoo.tasks.classes]
    asked = (known[0], f"blue {known[1]}", "quasar")
    done = inside("generate", placed, "--classes", ",".join(asked), "--out", tmp_path / "h.safetensors", "--json")
    said = json.loads(done.stdout)
    assert said["files"] == [str(tmp_path / "h.safetensors")]
    assert [(c["name"], c["kind"]) for c in said["classes"]] == [
        (asked[0], "known"),
        (asked[1], "near"),
        (asked[2], "far"),
    ]
    assert said["classes"][0]["nearest"] == known[0] and said["classes"][0]["likeness"] == pytest.approx(1, abs=1e-4)
    expected = said["expected_accuracy"]
    assert 0 <= expected["low"] < expected["mean"] < expected["high"] <= 1 and expected["confidence"] == 0.9
    assert expected["tasks"] == sum(len(run.zoo.tasks.scored(split)) for split in run.zoo.tasks.splits)
    other = run.expected_accuracy(known[:5])
    assert other is not None and other.mean != expected["mean"]
    assert not other.guessed


def test_a_name_whose_text_is_of_a_known_class_is_known(run: Run) -> None:
    known = run.zoo.classes[run.zoo.tasks.classes[0]]
    (standing,) = run.standings([f" {known.upper()}"])
    assert (standing.name, standing.kind, standing.nearest) == (known.upper(), "known", known)


def test_no_class_is_more_like_a_known_one_than_that_is_itself(run: Run) -> None:
    known = [run.zoo.classes[number] for number in run.zoo.tasks.classes]
    assert all(1 - 1e-4 < standing.likeness <= 1 for standing in run.standings(known))


def test_names_are_encoded_once_for_weights_and_all_that_is_said_of_them(placed: Path, apart: list[str]) -> None:
    run, asked = wspace.load(placed), list[int]()
    encode = run.bench.text.encode
    run.bench.text.encode = lambda sentences: (asked.append(len(sentences)), encode(sentences))[1]
    run.generate(apart[:3])
    run.standings(apart[:3])
    run.expected_accuracy(apart[:3])
    assert asked == [3]


def test_names_that_are_no_task_have_no_standing_and_no_expectation(run: Run) -> None:
    known = run.zoo.classes[run.zoo.tasks.classes[0]]
    for names, said in (([], "no classes"), ([known], "one class"), ([known, known], "named twice"), (known, "a list")):
        with pytest.raises(wspace.api.UserError, match=said):
            run.expected_accuracy(names)
    with pytest.raises(wspace.api.UserError, match="classes are a list of names, not the string"):
        run.standings(known)


def test_more_classes_than_any_scored_task_has_are_a_guess(
    run: Run, placed: Path, inside: Wspace, tmp_path: Path
) -> None:
    names = list(run.zoo.classes)
    expected = run.expected_accuracy(names)
    assert expected is not None and expected.guessed
    done = inside("generate", placed, "--classes", ",".join(names), "--out", tmp_path / "h.safetensors")
    assert done.stderr.endswith(f"; this is a guess: the report scores no task of {len(names)} classes\n"), done.stderr


def test_what_the_report_did_not_score_has_no_expectation_and_equal_draws_are_noted(
    run: Run, placed: Path, inside: Wspace, tmp_path: Path
) -> None:
    known = [run.zoo.classes[number] for number in run.zoo.tasks.classes]
    asked = ("generate", placed, "--classes", ",".join(known[:5]), "--out", tmp_path / "h.safetensors")
    for setting in (("--guidance", 4), ("--temperature", 1), ("--steps", 2), ("--count", 2)):
        done = inside(*asked, *setting)
        assert done.returncode == 0 and "expected accuracy" not in done.stderr, done.stderr
    assert "note: all 2 draws are the same: this run's generator 'predicted' gave one network" in done.stderr


# ---------------------------------------------------------------- auxiliary data sets

AUXILIARY = (
    "auxiliary=[{use: icons, concepts: 24, renderings: 2, size: 64}]"  # the data set of recipes/nano.yaml itself
)


def test_an_auxiliary_data_set_tells_of_its_classes_but_those_that_are_set_apart(
    placed: Path, inside: Wspace, tmp_path: Path
) -> None:
    again = shutil.copytree(placed, tmp_path / "nano")
    recipe = ("run", ROOT / "recipes/nano.yaml", "--runs", tmp_path, *settings(*PLACED, AUXILIARY))
    dry = inside(*recipe, "--dry").stdout
    assert re.findall(r"^(\w+) +(cached|will run)", dry, re.MULTILINE) == [
        ("zoo", "cached"), ("opponents", "cached"), ("train", "will run"), ("generate", "will run"),
        ("evaluate", "will run"), ("report", "will run"),
    ]  # fmt: skip
    run, before = wspace.load(again), set(again.glob("train-*"))
    done = inside(*recipe, "--only", "train")
    assert done.returncode == 0, done.stderr
    (trained,) = set(again.glob("train-*")) - before
    known, told = list(run.zoo.tasks.classes), load_file(trained / PROMPT_TEXTS)
    assert len(known) < len(run.zoo.classes)
    torch.testing.assert_close(told["told.texts"], run.prompt_texts[known * 2])
    torch.testing.assert_close(told["told.means"][len(known) :], told["told.means"][: len(known)])


def test_text_prototypes_know_auxiliary_classes_as_well() -> None:
    evidence, heads = evidence_of(TextPrototype()), []
    (contest, *_) = contests_of(TextPrototype())
    other = ClassStatistics(evidence.class_texts.roll(1, 0), torch.randn(len(evidence.class_texts), 7), torch.eye(7))
    for others in ((), (other,)):
        opponent, known = TextPrototype(), replace(evidence, auxiliary=others)
        opponent.choose(known)
        heads.append(opponent.weights(known, contest))
    assert heads[0].shape == heads[1].shape and not torch.allclose(*heads)


def test_an_auxiliary_data_set_of_which_too_few_classes_are_left_is_refused(
    run: Run, apart: list[str], tmp_path: Path
) -> None:
    for name in (apart[0], apart[1].upper(), "quasar"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    bound = bind_one("dataset", {"use": "folder", "path": str(tmp_path)}, run.registry, "here")
    bench = Workbench(replace(run.recipe, auxiliary=(bound,)), Progress(), dims=lambda: run.zoo.dims)
    with pytest.raises(wspace.api.DataError) as refused:
        auxiliary(bench, run.zoo.tasks.classes, lambda other: other.class_texts)
    assert str(refused.value) == (
        "auxiliary: of the classes of data set 'folder' all but 1 are set apart as unseen; two are the least that say anything"
    )


def test_a_conditioner_that_looks_at_no_features_is_given_no_auxiliary_data_set(inside: Wspace) -> None:
    done = inside("check", "nano", *settings(AUXILIARY))
    assert done.returncode == 2 and done.stderr.endswith(
        "auxiliary: says nothing to conditioner 'prior-fusion', which looks at no features of classes as class-prototypes "
        "does; name that one, or leave auxiliary out\n"
    ), done.stderr
