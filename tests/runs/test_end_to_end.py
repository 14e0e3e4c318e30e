"""The whole path on the nano recipe, as a user walks it: run, report, generate, score, predict, and bad input."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import wspace as package
from wspace.support.errors import UserError

pytestmark = pytest.mark.plugins("t2w")

ROOT = Path(__file__).parents[2]
NANO = ROOT / "recipes/nano.yaml"
METHODS = {
    "generated", "oracle", "universal", "base", "zoo-mean",
    "retrieval", "ridge", "noise", "random", "mismatched",
}  # fmt: skip


@pytest.fixture(scope="module")
def report(nano, inside):
    done = inside("report", nano, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def known(nano) -> list[str]:
    """Some class names of the data set."""
    return list(package.load(nano).zoo.classes)


@pytest.fixture(scope="module")
def head(nano, inside, known, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("head") / "head.safetensors"
    done = inside("generate", nano, "--classes", ", ".join(known[:3]), "--out", file)
    assert done.returncode == 0, done.stderr
    return file


# ---------------------------------------------------------------- the report


def test_report_has_the_contracts_keys_and_every_method_on_every_split(report):
    assert {"recipe", "run", "seed", "scores", "seconds"} <= set(report)
    assert {"zoo", "opponents", "train", "generate", "evaluate"} <= set(report["seconds"])
    assert {row["split"] for row in report["scores"]} == {"seen", "unseen-tasks", "unseen-classes"}
    for split in ("seen", "unseen-tasks", "unseen-classes"):
        for metric in ("accuracy", "weight_mse"):
            rows = [s for s in report["scores"] if s["split"] == split and s["metric"] == metric]
            assert {row["method"] for row in rows} == METHODS
            for row in rows:
                assert row["ci_low"] <= row["mean"] <= row["ci_high"] and row["n"] == 16


def accuracy(report, method: str, split: str = "unseen-tasks") -> float:
    return next(
        s["mean"] for s in report["scores"] if (s["method"], s["split"], s["metric"]) == (method, split, "accuracy")
    )


def test_the_text_is_worth_something_even_in_nano(report):
    assert accuracy(report, "generated") > accuracy(report, "mismatched") + 0.03
    assert accuracy(report, "generated") > accuracy(report, "zoo-mean")
    assert accuracy(report, "oracle") > accuracy(report, "random") + 0.2


def test_the_oracle_is_its_own_reference_for_weight_error(report):
    assert next(s["mean"] for s in report["scores"] if s["method"] == "oracle" and s["metric"] == "weight_mse") == 0


def test_paired_differences_agree_with_the_scores(report):
    row = next(
        d
        for d in report["differences"]
        if (d["method"], d["split"], d["metric"]) == ("universal", "unseen-tasks", "accuracy")
    )
    assert row["mean"] == pytest.approx(accuracy(report, "generated") - accuracy(report, "universal"), abs=1e-6)


def test_the_report_page_is_self_contained(nano):
    page = next(nano.glob("report-*/report.html")).read_text(encoding="utf-8")
    assert 'src="http' not in page and "unseen tasks" in page


def test_recipe_versions_and_seed_lie_beside_the_results(nano):
    assert "seed: 42" in (nano / "recipe.yaml").read_text(encoding="utf-8")
    manifest = json.loads(next(nano.glob("train-*/artifact.json")).read_text(encoding="utf-8"))
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0] or manifest["versions"]["torch"]
    assert manifest["seed"] == 42


# ---------------------------------------------------------------- running again


def drawn(generate: Path, split: str) -> list[torch.Tensor]:
    """A split's networks (n, P), of its tasks' own words and of others'."""
    return [load_file(generate / f"{who}-{split}.safetensors")["weights"] for who in ("generated", "mismatched")]


def test_networks_of_other_words_are_those_that_the_words_own_tasks_have(nano):
    run, (folder,) = package.load(nano), nano.glob("generate-*")
    for split in run.zoo.tasks.splits:
        own, others = drawn(folder, split)
        assert torch.equal(others, own.roll(-1, 0)) and not torch.equal(others, own)
        first, *rest = run.zoo.tasks.scored(split)
        torch.testing.assert_close(others, run.sample([*rest, first], torch.Generator()), rtol=1e-4, atol=1e-5)


def test_networks_of_other_words_are_drawn_anew_where_draws_are_random(nano, inside, tmp_path):
    shutil.copytree(nano, tmp_path / "nano", symlinks=True)
    done = inside("run", NANO, "--runs", tmp_path, "--set", "generate.temperature=1", "--only", "generate")
    assert done.returncode == 0, done.stderr
    newest = max((tmp_path / "nano").glob("generate-*"), key=lambda folder: folder.stat().st_mtime)
    own, others = drawn(newest, "seen")
    assert not any(torch.equal(one, other) for one, other in zip(others, own.roll(-1, 0), strict=True))


def test_a_second_run_does_nothing_and_says_so(nano, wspace):
    before = {f: f.stat().st_mtime_ns for f in nano.rglob("*") if f.is_file() and "-" in f.parent.name}
    done = wspace("run", NANO, "--runs", nano.parent)
    assert done.returncode == 0, done.stderr
    assert "nothing has changed: no stage had to run" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1] == str(nano)
    assert before == {f: f.stat().st_mtime_ns for f in nano.rglob("*") if f.is_file() and "-" in f.parent.name}


def test_dry_says_which_key_changed_and_what_follows(nano, inside):
    done = inside("run", NANO, "--runs", nano.parent, "--set", "generate.steps=7", "--dry")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["zoo", "cached"], ["opponents", "cached"], ["train", "cached"]]
    assert "generate.steps 5 -> 7" in lines[3]
    assert "follows" in lines[4]


def test_a_sampler_there_is_not_ends_with_2_and_trains_nothing(nano, inside):
    done = inside("run", NANO, "--runs", nano.parent, "--set", "generate.sampler=dpm")
    assert (done.returncode, done.stdout) == (2, "")
    known = "Did you mean 'ddpm'? Known: ddim, ddpm, dpm-solver++"
    assert done.stderr == f"error: --set generate.sampler: generator 'diffusion' has no sampler 'dpm'. {known}\n"


def test_nano_has_all_three_losses_and_their_health(nano):
    """Eq. 14 of T2W: each term is in the log, and what became of discriminator and symmetry beside the results."""
    folder = next(nano.glob("train-*"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = [entry for entry in log if entry["phase"] == "train"]
    terms = [entry["terms"] for entry in trained]
    assert all(each["denoising"] > 0 and each["symmetry"] >= 0 for each in terms)
    assert any(each["symmetry"] > 0 for each in terms) and any("adversarial" in each for each in terms)
    assert any(entry["discriminator"]["gradient"] > 0 for entry in trained if "discriminator" in entry)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert 0.3 < summary["discriminator_accuracy"] <= 1 and summary["equivariance_error"] > 1e-4


def _until(condition, process: subprocess.Popen, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < end, "what the test waits for did not come"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_and_an_interrupted_run_go_on_to_the_same_bytes(nano, inside, tmp_path):
    """Killed while it makes the zoo, interrupted while it trains; what comes between and behind is there already."""
    for stage in ("opponents", "evaluate", "report"):
        (folder,) = nano.glob(f"{stage}-*")
        shutil.copytree(folder, tmp_path / "nano" / folder.name)
    code = "from wspace.__main__ import run; run()"
    command = [sys.executable, "-c", code, "run", str(NANO), "--runs", str(tmp_path)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}

    first = subprocess.Popen(command, **silent)
    _until(lambda: any(tmp_path.glob("nano/zoo-*.partial/networks-0000.safetensors")), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "nano/run.json").exists()

    # A parent that runs in the background of a script ignores Ctrl-C, and its children would too.
    second = subprocess.Popen(command, **silent, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    _until(lambda: any(tmp_path.glob("nano/train-*.partial/*.checkpoint.safetensors")), second)
    second.send_signal(signal.SIGINT)
    _, told = second.communicate()
    assert second.returncode == 130
    assert told.rstrip().splitlines()[-1] == "interrupted: the same command goes on from here"

    assert inside("run", NANO, "--runs", tmp_path).returncode == 0
    files = [file for stage in ("zoo", "train", "generate") for file in nano.glob(f"{stage}-*/*.safetensors")]
    assert len(files) > 8
    for file in files:
        again = tmp_path / "nano" / file.relative_to(nano)
        assert again.read_bytes() == file.read_bytes(), file.name


# ---------------------------------------------------------------- using a run


def test_generate_score_predict(nano, inside, head, known, tmp_path):
    scored = inside("score", nano, head, "--json")
    result = json.loads(scored.stdout)
    assert result["classes"] == known[:3] and 0.2 < result["accuracy"] <= 1

    images = package.load(nano).bench.images
    chosen = [int(np.flatnonzero(images.labels == number)[0]) for number in range(3)]
    for number, row in enumerate(images.read(chosen)):
        Image.fromarray(row).save(tmp_path / f"{number}.png")
    predicted = inside("predict", nano, head, *sorted(tmp_path.glob("*.png")), "--json")
    rows = json.loads(predicted.stdout)["predictions"]
    assert sum(row["class"] == known[number] for number, row in enumerate(rows)) >= 2
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4) for row in rows)


def test_python_and_command_line_make_the_same_weights(nano, head, known):
    run = package.load(nano)
    network = run.generate(known[:3])
    assert "fingerprint" not in vars(run.bench.text), "90 MB are hashed for who asks for it, and nothing here does"
    written = load_file(head)
    assert set(written) == set(network.tensors)
    assert all(torch.equal(written[name], tensor) for name, tensor in network.tensors.items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 0}, "generate.steps: must be greater than or equal to 1, got 0"),
        ({"temperature": -1}, "generate.temperature: must be greater than or equal to 0, got -1"),
        ({"temperature": float("inf")}, "generate.temperature: expected a plain finite value, got inf"),
        ({"guidance": "x"}, "generate.guidance: expected float, got 'x'"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"count": 0}, "count: must be at least 1, got 0"),
        (
            {"guidance": 1e300},
            "with guidance 1e+300 weights are not finite numbers: stay nearer to the recipe's",
        ),
        ({"unlabelled": "a.png"}, "unlabelled pictures are a list of files: give ['a.png']"),
        ({"classes": "lamp, book"}, "classes are a list of names, not the string 'lamp, book': give ['lamp', 'book']"),
    ],
)
def test_python_refuses_what_the_command_line_refuses(nano, known, given, said):
    with pytest.raises(UserError) as caught:
        package.load(nano).generate_many(**{"classes": known, "count": 1, **given})
    assert str(caught.value) == said


def test_pictures_are_a_list_and_may_be_none(nano, known):
    run = package.load(nano)
    network = run.generate(known)
    assert run.predict(network, []) == []
    with pytest.raises(UserError, match=r"^pictures are a list of files: give \['a.png'\]$"):
        run.predict(network, "a.png")
    with pytest.raises(UserError, match=r"^pictures are a list of files, and ndarray is none$"):
        run.predict(network, [np.zeros((8, 8, 3))])
    for pictures in ("folder", ["a.png"]):
        with pytest.raises(UserError, match=rf"by class: give {{'{known[0]}': \['picture.png', ...\]}}$"):
            run.generate(known, pictures=pictures)


def test_a_name_that_says_another_format_is_told(nano, inside, head, known, tmp_path):
    made = inside("generate", nano, "--classes", ", ".join(known), "--out", tmp_path / "head.pt")
    assert f"note: {tmp_path}/head.pt holds safetensors, whatever its name says\n" in made.stderr
    exported = inside("export", nano, head, "--to", "torch", "--out", tmp_path / "head.bin")
    assert f"note: {tmp_path}/head.bin is what others call head.pt2\n" in exported.stderr


def test_an_export_does_not_write_over_the_weights_it_reads(nano, inside, head, tmp_path):
    own, link = tmp_path / "head.safetensors", tmp_path / "link.onnx"
    shutil.copy(head, own)
    link.symlink_to(own)
    for out in (own, link):
        done = inside("export", nano, own, "--to", "onnx", "--out", out)
        told = f"error: --out {out}: this is the file of the weights; name another for what is made of them\n"
        assert (done.returncode, done.stderr) == (2, told)
    assert own.read_bytes() == head.read_bytes()


def test_too_little_memory_ends_with_a_sentence(nano, inside, tmp_path):
    done = inside("run", "nano", "--set", "target.rank=100000000", "--runs", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.fullmatch(
        r"error: this takes [\d.]+ TiB of memory at once, more than there is; `wspace plan RECIPE` says what each stage takes",
        done.stderr.splitlines()[-1],
    )


def test_settings_of_drawing_are_said_to_count_for_nothing_where_nothing_is_drawn(placed, inside, tmp_path):
    classes = ", ".join(package.load(placed).zoo.classes[:3])
    files = [tmp_path / name for name in ("as-it-is.safetensors", "asked.safetensors")]
    plain = inside("generate", placed, "--classes", classes, "--out", files[0])
    asked = inside("generate", placed, "--classes", classes, "--out", files[1], "--steps", 3, "--temperature", 5)
    assert "of no account" not in plain.stderr
    assert (
        "note: 'steps' and 'temperature' are of no account: this run's generator 'predicted' draws nothing"
        in asked.stderr.splitlines()
    )
    first, second = map(load_file, files)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_network_forms_step_by_step_and_ends_as_the_generated_one(nano, known):
    run = package.load(nano)
    *before, last = run.forming(known[:3])
    network = run.generate(known[:3])
    assert len(before) == run.recipe.generate.steps - 1 and last.origin.endswith("after step 5 of 5")
    assert all(torch.equal(last.tensors[name], tensor) for name, tensor in network.tensors.items())
    assert not any(torch.equal(run.flat(early), run.flat(network)) for early in before)


def test_the_universal_network_is_the_reports_for_any_classes(nano, known):
    run = package.load(nano)
    network = run.universal(known[:3])
    assert network is not None and network.classes == tuple(known[:3])
    assert torch.equal(run.flat(network)[0], run.opponents.universal)
    run.recipe = replace(run.recipe, against=tuple(one for one in run.recipe.against if one.name != "universal"))
    assert run.universal(known[:3]) is None


def test_what_a_run_can_do_is_known_without_trying(nano):
    run = package.load(nano)
    assert not run.takes_pictures and {"onnx", "torch"} <= set(run.formats)


def test_an_unknown_class_makes_no_task_easier(nano, known):
    """Scored tasks have such classes alone or none, and a line through these said 94 % of a mixture."""
    run, names = package.load(nano), ["folder", "book"]
    of_known = run.expected_accuracy(["cloud", *names])
    for unknown in ("clowd", "zzqq"):
        assert run.expected_accuracy([unknown, *names]).mean < of_known.mean + 0.05
    assert run.expected_accuracy(["otter", "lamp", "crab"]).mean < of_known.mean - 0.1


def test_class_names_need_not_be_in_the_data_set(nano, inside, tmp_path):
    done = inside("generate", nano, "--classes", "otter, lamp, Übergröße", "--out", tmp_path / "odd.safetensors")
    assert done.returncode == 0, done.stderr
    refused = inside("score", nano, tmp_path / "odd.safetensors")
    assert refused.returncode == 2
    assert refused.stderr == "error: the data set has no images of 'otter', 'lamp', 'Übergröße' to score on.\n"


def test_classes_that_nothing_was_trained_on_are_told_with_the_nearest_that_was(nano, inside, tmp_path):
    run, out = package.load(nano), tmp_path / "head.safetensors"
    trained = [run.zoo.classes[number] for number in run.zoo.tasks.classes]
    apart = next(name for number, name in enumerate(run.zoo.classes) if number not in run.zoo.tasks.classes)
    done = inside("generate", nano, "--classes", f"{trained[0]}, {apart}, {trained[1]}s", "--out", out)
    standings = run.standings([apart, f"{trained[1]}s"])
    nearest = {standing.name: standing.nearest for standing in standings}
    told = [f"{s.name!r} ({s.kind}; nearest known: {s.nearest!r}, likeness {s.likeness:.2f}" for s in standings]
    told = [f"{told[0]})", f"{told[1]}; did you mean {trained[1]!r}?)"]
    assert done.returncode == 0 and done.stderr.splitlines()[:-1] == [
        f"note: the generator was not trained on {', '.join(told)}; "
        "scores of unseen-classes say what weights for such classes are worth"
    ]
    assert nearest[f"{trained[1]}s"] == trained[1] and nearest[apart] != apart
    done = inside("generate", nano, "--classes", f"{trained[0]}, {trained[1]}", "--out", tmp_path / "other.safetensors")
    (line,) = done.stderr.splitlines()
    assert line.startswith("expected accuracy ")


def test_several_draws_differ_and_repeat_with_their_seed(nano, inside, known, tmp_path):
    for name in ("a", "b"):
        inside(
            "generate",
            nano,
            "--classes",
            ",".join(known[:3]),
            "--count",
            2,
            "--seed",
            5,
            "--out",
            tmp_path / f"{name}.safetensors",
        )
    first, second = (load_file(tmp_path / f"a-{n}.safetensors")["w1"] for n in (1, 2))
    assert not torch.equal(first, second)
    assert (tmp_path / "a-1.safetensors").read_bytes() == (tmp_path / "b-1.safetensors").read_bytes()


def test_files_that_are_replaced_and_folders_that_are_made_are_said(nano, inside, known, tmp_path):
    made, out = [tmp_path / f"new/head-{number}.safetensors" for number in (1, 2)], tmp_path / "new/head.safetensors"
    command = ("generate", nano, "--classes", ",".join(known[:2]), "--count", 2, "--out", out)
    assert f"note: there is no folder {out.parent}, so it is made\n" in inside(*command).stderr
    assert f"note: {made[0]}, {made[1]} were there, and are replaced\n" in inside(*command).stderr
    made[0].unlink()
    again = inside(*command, "--json")
    assert f"note: {made[1]} was there, and is replaced\n" in again.stderr
    assert json.loads(again.stdout)["replaced"] == [str(made[1])]


def test_percentages_of_a_prediction_are_said_to_be_the_weights_own(nano, inside, head, tmp_path):
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "navy.png")
    done = inside("predict", nano, head, tmp_path / "navy.png")
    assert (
        done.stdout.endswith("%)\n") and done.stderr == "note: percentages are the weights' own, and not calibrated\n"
    )


# ---------------------------------------------------------------- bad input: one sentence, exit status 2


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", 'no classes: name two or more, as in --classes "book, camera, umbrella"'),
        (" , ", 'no classes: name two or more, as in --classes "book, camera, umbrella"'),
        ("otter", "one class ('otter') leaves nothing to tell apart: name two or more"),
        ("otter, lamp, otter", "the class 'otter' is named twice"),
        ("otter, , lamp", "one of the class names is empty"),
    ],
)
def test_class_lists_that_make_no_task(nano, inside, tmp_path, classes, message):
    assert refused(inside("generate", nano, "--classes", classes, "--out", tmp_path / "x.safetensors")) == message
    assert not (tmp_path / "x.safetensors").exists()


def test_a_truncated_head(nano, inside, head, tmp_path):
    file = tmp_path / "cut.safetensors"
    file.write_bytes(head.read_bytes()[:-100])
    assert refused(inside("score", nano, file)) == f"{file}: truncated, or not a safetensors file"


def test_a_head_with_nan(nano, inside, head, tmp_path):
    tensors = load_file(head)
    tensors["w2"][0, 0] = float("nan")
    file = tmp_path / "nan.safetensors"
    save_file(tensors, file, {"wspace": json.dumps({"classes": ["a", "b"]})})
    assert refused(inside("score", nano, file)) == f"{file}: w2 holds values that are not finite numbers"


def test_a_head_of_another_shape(nano, inside, head, tmp_path):
    tensors = load_file(head)
    tensors["w1"] = tensors["w1"][:, :2].contiguous()
    file = tmp_path / "thin.safetensors"
    save_file(tensors, file, {"wspace": json.dumps({"classes": ["a", "b"]})})
    assert refused(inside("score", nano, file)) == f"{file}: w1 has shape (1280, 2); this target needs (1280, 4)"


def test_a_folder_that_is_no_run(inside, tmp_path):
    message = f"{tmp_path}: not the folder of a finished run; `wspace run RECIPE` makes one and prints it last"
    assert refused(inside("report", tmp_path)) == message
    assert refused(inside("generate", tmp_path, "--classes", "a,b")) == message


def test_a_picture_that_cannot_be_read(nano, inside, head, tmp_path):
    file = tmp_path / "no.png"
    file.write_text("not a picture")
    assert (
        refused(inside("predict", nano, head, file))
        == f"{file}: cannot be read as a picture: cannot identify image file"
    )


def test_a_data_set_with_one_class(inside, tmp_path):
    (tmp_path / "pictures/cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures/cat/1.png")
    done = inside(
        "run", NANO, "--runs", tmp_path / "runs", "--set", f"dataset={{use: folder, path: {tmp_path / 'pictures'}}}"
    )
    assert done.returncode == 2
    assert "pictures: " in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_weights_that_must_be_downloaded_and_cannot(inside, tmp_path):
    done = inside("run", NANO, "--runs", tmp_path, "--set", "backbone={use: timm, model: resnet18}")
    assert done.returncode == 2
    assert "resnet18" in done.stderr.splitlines()[-1] and "pretrained: false" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_folder_of_pictures_works_as_icons_do(nano, inside, tmp_path):
    images = package.load(nano).bench.images
    for number in range(len(images)):
        folder = tmp_path / "pictures" / images.classes[images.labels[number]].replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.read([number])[0]).save(folder / f"{number}.png")
    (tmp_path / "pictures" / images.classes[0].replace(" ", "_") / "broken.png").write_text("no picture")
    dataset = f"dataset={{use: folder, path: {tmp_path / 'pictures'}, size: 64}}"
    smaller = (
        "tasks.seen=64", "tasks.evaluate=8", "zoo.steps=20", "opponents.steps=10", "opponents.universal_steps=20",
        "opponents.rates=[3e-3]", "evaluate.bootstrap=100",
    )  # fmt: skip
    settings = [word for setting in (dataset, *smaller) for word in ("--set", setting)]
    done = inside("run", NANO, "--runs", tmp_path / "runs", *settings)
    assert done.returncode == 0, done.stderr
    assert "cannot be read and is skipped" in done.stderr
    folder = tmp_path / "runs/nano"
    report = json.loads(inside("report", folder, "--json").stdout)
    assert accuracy(report, "generated") > accuracy(report, "mismatched")
    shutil.rmtree(tmp_path / "pictures" / images.classes[0].replace(" ", "_"))
    changed = inside("run", NANO, "--dry", "--runs", tmp_path / "runs", *settings)
    assert "will run" in changed.stdout.splitlines()[0] and "files it reads" in changed.stdout.splitlines()[0]


def test_every_table_of_a_run_can_be_read_without_colour(nano, inside):
    text = inside("report", nano).stdout
    assert "generated" in text and "oracle" in text and "\x1b" not in text


def test_weights_of_another_run_are_said_to_be(nano, inside, head, tmp_path):
    whose, of_another = tmp_path / "own.safetensors", tmp_path / "other.safetensors"
    run = package.load(nano)
    network = run.load_network(head)
    network.save(whose)
    replace(network, zoo="zoo-of-another").save(of_another)
    told = f"note: these weights are of another run (its zoo is zoo-of-another, and here it is {run.zoo.folder.name})"
    assert told in inside("score", nano, of_another).stderr.splitlines()
    assert "another run" not in inside("score", nano, whose).stderr


def test_a_run_is_loaded_with_one_file_plugins(nano, tmp_path):
    file = tmp_path / "otter_mixer.py"
    file.write_text(
        "from wspace import hookimpl\n\n@hookimpl\ndef wspace_register(register):\n"
        "    register('denoiser', 'otter-mixer', 'otter_mixer:OtterMixer')\n",
        encoding="utf-8",
    )
    assert "otter-mixer" in package.load(nano, plugins=[str(file)]).registry.names("denoiser")
    assert "otter-mixer" not in package.load(nano).registry.names("denoiser")
    with pytest.raises(UserError, match="nosuch.py: no such plugin file"):
        package.load(nano, plugins=["nosuch.py"])
