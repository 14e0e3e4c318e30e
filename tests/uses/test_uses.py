"""Studies of what generated weights are good for: training from them, refining with them, several at once."""

from __future__ import annotations

import json

import pytest
import torch

import wspace as package
from wspace.data.features import Pool
from wspace.learning.fitting import accuracies, losses, predict
from wspace.runs.report.section import Figure, Row, Section, Table, percent, sections
from wspace.support.seeding import stream
from wspace.uses.enhance import aligned, enhance
from wspace.uses.ensemble import best, drawn, vote
from wspace.uses.init import STANDARD, Trained, standard
from wspace.weights.files.network import Network


@pytest.fixture(scope="module")
def run(nano):
    return package.load(nano)


# ---------------------------------------------------------------- sections

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CELL = {"mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 7}


def section() -> Section:
    table = Table(
        "A <table>", {"accuracy": "percent", "gain": "points"}, [Row("one & all", {"accuracy": CELL}, own=True)]
    )
    return Section("init", "Title", ["It said so."], {"tasks": 7}, [table], [Figure("curves", "What is seen.", PIXEL)])


def finished(folder):
    (folder / "run.json").write_text('{"recipe": "nano.yaml", "stages": {"train": "train-1"}}')
    return folder


def test_a_section_is_read_back_as_it_was_saved(tmp_path):
    section().save(finished(tmp_path))
    assert sections(tmp_path) == [section()]


def test_a_section_of_another_generator_no_longer_counts(tmp_path):
    section().save(finished(tmp_path))
    (tmp_path / "run.json").write_text('{"recipe": "nano.yaml", "stages": {"train": "train-2"}}')
    assert sections(tmp_path) == []


def test_forms():
    assert percent(CELL) == "50.0 [40.0, 60.0]"
    assert percent(CELL, "points") == "+50.0 [40.0, 60.0]"
    assert percent(CELL, "number") == "0.5 [0.4, 0.6]"


# ---------------------------------------------------------------- init


@pytest.mark.parametrize("name", STANDARD)
def test_standard_starts_are_torchs_own_by_their_moments(run, name):
    torch_inits = {
        "Xavier uniform": torch.nn.init.xavier_uniform_,
        "Xavier normal": torch.nn.init.xavier_normal_,
        "Kaiming uniform": lambda t: torch.nn.init.kaiming_uniform_(t, nonlinearity="relu"),
        "Kaiming normal": lambda t: torch.nn.init.kaiming_normal_(t, nonlinearity="relu"),
        "uniform(-0.1, 0.1)": lambda t: torch.nn.init.uniform_(t, -0.1, 0.1),
        "normal(0, 0.01)": lambda t: torch.nn.init.normal_(t, 0, 0.01),
    }
    w1 = run.target.spec.unflatten(standard(name, run.target, 4, stream(0, "test")))["w1"]  # (4, F, r): inputs first
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = torch.stack([torch_inits[name](torch.empty(w1.shape[2], w1.shape[1])) for _ in range(4)])
    assert w1.std() == pytest.approx(float(reference.std()), rel=0.05)
    kurtosis = [float((t**4).mean() / (t**2).mean() ** 2) for t in (w1, reference)]
    assert kurtosis[0] == pytest.approx(kurtosis[1], rel=0.1)  # 1.8 of a uniform, 3 of a normal one


def test_few_images_are_of_their_class_and_no_more_than_asked():
    pool = Pool.of(torch.arange(12.0)[:, None], torch.tensor([0] * 7 + [1] * 2 + [2] * 3), 3)
    few = pool.few(4, stream(0, "test"))
    assert few.counts.tolist() == [4, 2, 3]
    for c in range(3):
        rows = few.table[c, : few.counts[c]]
        assert len(set(rows.tolist())) == few.counts[c] and (pool.labels[rows] == c).all()
        assert set(few.table[c].tolist()) <= set(rows.tolist())  # what fills a row up is of the class too
    assert few.rows_of((1, 2)).tolist() == [*few.table[1, :2].tolist(), *few.table[2, :3].tolist()]


def test_a_start_that_never_gets_there_is_counted_with_all_steps():
    curve = torch.tensor([[0.1, 0.1, 0.1], [0.5, 0.2, 0.1], [0.4, 0.6, 0.2]])
    trained = Trained((0, 10, 30), curve, torch.zeros(3), torch.zeros(3, 1))
    assert trained.reached(torch.tensor([0.5, 0.5, 0.5])).tolist() == [10, 30, 30]
    assert trained.reached(torch.tensor([0.1, 0.15, 0.05])).tolist() == [0, 10, 0]


def test_losses_are_those_of_the_scores(run):
    task = run.unseen(1)[0]
    weights = run.sample([task], stream(0, "test"))
    features, labels = run.bench.test.of_task(task)
    logits = run.target.logits(weights, features[None], run.bench.class_texts[list(task)][None])[0]
    reference = -(logits.log_softmax(1)[torch.arange(len(labels)), labels]).mean()
    assert losses(run.target, weights, [task], run.bench.test, run.bench.class_texts)[0] == pytest.approx(
        float(reference)
    )


def test_init_compares_every_start_and_becomes_a_section(nano, inside):
    done = inside("init", nano, "--tasks", "2", "--shots", "2", "--epochs", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (table,) = found["tables"]
    names = [row["name"] for row in table["rows"]]
    assert names == ["generated", *STANDARD, "base", "universal", "ridge"]
    assert all(row["cells"]["trained"]["n"] == 2 for row in table["rows"])
    page = (nano / "report.html").read_text(encoding="utf-8")
    assert "Training from generated weights" in page and 'id="init-curves"' in page
    assert json.loads(inside("report", nano, "--json").stdout)["uses"]["init"] == found


def test_init_for_a_users_classes_writes_the_trained_head(nano, run, inside, tmp_path):
    names, file = run.zoo.classes[:3], tmp_path / "head.safetensors"
    done = inside("init", nano, "--classes", ", ".join(names), "--shots", "1", "--epochs", "1", "--out", file)
    assert done.returncode == 0, done.stderr
    trained = Network.load(file, run.target.spec)
    assert trained.classes == tuple(names) and "trained from generated weights for 1 epoch" in trained.origin


# ---------------------------------------------------------------- enhance


def test_enhancing_from_pure_noise_is_generating(run):
    tasks = run.unseen(2)
    networks = torch.randn(2, run.target.spec.size, generator=stream(0, "test"))
    made = enhance(run, networks, run.prompts(tasks), 1.0, 0.0, 0)
    typical = run.sample(tasks, stream(0, "test"), temperature=0.0)
    assert (made - typical).norm() / typical.norm() < 0.05  # of the last level's signal little is left


def test_enhancing_at_hardly_any_noise_changes_hardly_anything(run):
    tasks = run.unseen(2)
    networks = run.sample(tasks, stream(0, "test"), temperature=1.0)
    made = enhance(run, networks, run.prompts(tasks), 0.001, 1.0, 0)
    same = aligned(run, networks, run.zoo.base)
    assert (made - same).norm() / same.norm() < 0.05


def test_aligned_networks_compute_the_same(run):
    task = run.unseen(1)[0]
    networks = run.sample([task], stream(0, "test"), temperature=1.0)
    before, _ = predict(run.target, networks, task, run.bench.test, run.bench.class_texts)
    after, _ = predict(run.target, aligned(run, networks, run.zoo.base), task, run.bench.test, run.bench.class_texts)
    assert (before == after).float().mean() > 0.99


def test_enhance_studies_and_writes_a_better_head(nano, run, inside, tmp_path):
    done = inside("enhance", nano, "--tasks", "2", "--json")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)["tables"][0]
    assert [row["name"] for row in first["rows"]] == ["half-trained", "enhanced", "generated", "average of both"]
    assert "lose on" in json.loads(done.stdout)["says"][0]
    file = tmp_path / "head.safetensors"
    run.generate(run.zoo.classes[:3]).save(file)
    done = inside("enhance", nano, file, "--level", "0.5")
    assert done.stdout.strip() == str(tmp_path / "head-enhanced.safetensors"), done.stderr
    assert "at level 0.5" in Network.load(tmp_path / "head-enhanced.safetensors", run.target.spec).origin


# ---------------------------------------------------------------- ensemble


def test_the_vote_is_the_class_that_most_name(run):
    task = run.unseen(1)[0]
    networks = drawn(run, [task], 3, 1.0, 0)  # (3, 1, P)
    predicted, labels = predict(run.target, networks[:, 0], task, run.bench.test, run.bench.class_texts)  # (3, m)
    clear, right = 0, 0
    for column, label in zip(predicted.T.tolist(), labels.tolist(), strict=True):
        named = max(set(column), key=column.count)
        if column.count(named) > 1:
            clear += 1
            right += named == label
    accuracy = float(vote(run, networks, [task])[0]) * len(labels)
    assert right <= round(accuracy) <= right + (len(labels) - clear)


def test_the_best_is_chosen_on_training_images(run):
    tasks = run.unseen(2)
    networks = drawn(run, tasks, 3, 1.0, 0)
    chosen = best(run, networks, tasks)
    found = torch.stack(
        [accuracies(run.target, own, tasks, run.bench.train, run.bench.class_texts) for own in networks]
    )
    assert torch.equal(chosen, torch.stack([networks[found[:, b].argmax(), b] for b in range(2)]))


def test_ensemble_sets_generated_beside_trained(nano, inside):
    done = inside("ensemble", nano, "--tasks", "2", "--count", "2", "--json")
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(done.stdout)["tables"]
    assert [row["name"] for row in table["rows"]][:4] == ["one", "best on training images", "averaged weights", "vote"]


# ---------------------------------------------------------------- bad input

BAD = [
    (["init", "--shots", "four"], "error: --shots: 'four' is neither a number of images nor 'all'"),
    (["init", "--shots", "0"], "error: --shots: '0' is neither a number of images nor 'all'"),
    (["init", "--out", "x.safetensors"], "error: --out: a study trains many heads; name the --classes of one"),
    (["init", "--classes", "lamp"], "error: one class ('lamp') leaves nothing to tell apart: name two or more"),
    (["enhance", "--level", "0.5"], "error: --out and --level: a study makes many heads at many levels; name the one to "
     "enhance"),
    (["enhance", "no.safetensors"], "error: no.safetensors: no such file"),
    (["ensemble", "--out", "x.safetensors"], "error: --out: a study makes heads for many tasks; name the --classes of one"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_sentence(nano, inside, arguments, message):
    command, *rest = arguments
    done = inside(command, nano, *rest)
    assert (done.returncode, done.stderr.strip()) == (2, message)


def test_classes_without_images_cannot_be_trained_for(nano, inside):
    done = inside("init", nano, "--classes", "otter, quasar")
    assert done.returncode == 2 and done.stderr.startswith(
        "error: the data set has no images of 'otter', 'quasar' to score on"
    )


def test_a_level_is_a_share(nano, run, inside, tmp_path):
    file = tmp_path / "head.safetensors"
    run.generate(run.zoo.classes[:3]).save(file)
    done = inside("enhance", nano, file, "--level", "1.5")
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "error: --level 1.5: a level of noise is above 0 and at most 1",
    )
