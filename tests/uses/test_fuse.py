"""Heads of two tasks as one: the study, a user's two heads, a third party's way to fuse, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import wspace as package
from wspace.learning.fitting import accuracies
from wspace.support.errors import UserError
from wspace.uses.fuse import BY_TEXT, compared, drawn_pairs, fusion, load_pair, trained
from wspace.weights.files.network import Network

FUSIONS = ["average", "git-rebasin", "slerp", "task-arithmetic", "ties"]
REFERENCES = ["base", "universal", "ridge", "trained jointly"]

PLUGIN = '''"""A way to fuse that keeps the first network's first layer."""

from torch import Tensor

import wspace
from wspace.api import Fusion
from wspace.interfaces.weights import WeightSpec


@wspace.hookimpl
def wspace_register(register):
    register("fusion", "graft", "graft:Graft")


class Graft(Fusion):
    """The first layer of the first network under the second layer of the other."""

    def __init__(self, share: float = 1.0, *, spec: WeightSpec):
        self.share, self.spec = share, spec

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        ours, theirs = self.spec.unflatten(first), self.spec.unflatten(second)
        return self.spec.flatten({n: ours[n] * self.share if n.endswith("1") else theirs[n] for n in ours})
'''


@pytest.fixture(scope="module")
def run(nano):
    return package.load(nano)


@pytest.fixture(scope="module")
def heads(run, tmp_path_factory):
    """Two heads for classes without one in common."""
    folder, names = tmp_path_factory.mktemp("heads"), known(run)
    for file, classes in (("a", names[:3]), ("b", names[3:7])):
        run.generate(classes).save(folder / f"{file}.safetensors")
    return folder / "a.safetensors", folder / "b.safetensors"


def known(run) -> list[str]:
    return [run.zoo.classes[c] for c in run.zoo.tasks.classes]


# ---------------------------------------------------------------- pairs, and heads for them


def test_pairs_have_no_class_in_common_and_are_not_of_the_zoo(run):
    first, second = drawn_pairs(run, 5, 0)
    zoo = {tuple(sorted(task)) for task in run.zoo.tasks.seen}
    for a, b in zip(first, second, strict=True):
        assert len(a) == len(b) == 8 and not set(a) & set(b) and set(a + b) <= set(run.zoo.tasks.classes)
        assert not {a, b, tuple(sorted(a + b))} & zoo and list(a) == sorted(a)
    assert len(set(zip(first, second, strict=True))) == 5
    assert drawn_pairs(run, 5, 0) == (first, second) != drawn_pairs(run, 5, 1)


def test_more_pairs_than_there_are_is_said(run, monkeypatch):
    found, _ = drawn_pairs(run, 2, 0)
    monkeypatch.setitem(run.zoo.__dict__, "tasks", replace(run.zoo.tasks, seen=(*run.zoo.tasks.seen, *found)))
    with pytest.raises(UserError) as error:
        drawn_pairs(run, 2, 0, tries=1)  # as many drawings as pairs: these two, now of the zoo
    assert str(error.value) == (
        "--pairs 2: 18 known classes make no more than 0 pairs of tasks of 8 classes that the zoo has not"
    )


def test_heads_from_the_base_are_trained_as_the_zoos_are(run):
    tasks = run.zoo.tasks.training[:4]
    ours, zoos = trained(run, tasks, "base", 0), run.zoo.weights[:4]
    learned, theirs = ours - run.zoo.base, zoos - run.zoo.base
    assert (torch.cosine_similarity(learned, theirs, dim=1) > 0.6).all()  # other images of the same classes
    assert learned.norm() == pytest.approx(float(theirs.norm()), rel=0.2)


def test_heads_from_scratch_begin_apart(run):
    tasks = run.unseen(1) * 2
    first, second = trained(run, tasks, "fresh", 0)
    assert torch.cosine_similarity(first, second, dim=0) < 0.5
    scores = accuracies(run.target, torch.stack([first, second]), tasks, run.bench.train, run.bench.class_texts)
    assert (scores > 1.5 / len(tasks[0])).all()


def test_text_methods_are_what_they_say(run):
    first, second = drawn_pairs(run, 2, 0)
    joint = [tuple(sorted(a + b)) for a, b in zip(first, second, strict=True)]
    rng = torch.Generator()  # at the recipe's temperature nothing is drawn
    typical = run.sample(joint, rng)
    assert torch.allclose(BY_TEXT["generated"](run, run.prompts, first, second, 0), typical, atol=1e-5)
    mean = (run.sample(first, rng) + run.sample(second, rng)) / 2
    assert torch.allclose(BY_TEXT["text-then-average"](run, run.prompts, first, second, 0), mean, atol=1e-5)


# ---------------------------------------------------------------- the study


@pytest.fixture(scope="module")
def studied(nano, inside):
    done = inside("fuse", nano, "--pairs", "2", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_study_has_table_3_for_heads_with_and_without_a_base_in_common(studied):
    base, scratch, behind = studied["tables"]
    heads = ["head A", "head B"]
    assert [row["name"] for row in base["rows"]] == [*heads, *FUSIONS, *BY_TEXT, *REFERENCES]
    without = [name for name in FUSIONS if name not in ("task-arithmetic", "ties")]  # these need what both began as
    assert [row["name"] for row in scratch["rows"]] == [*heads, *without, *BY_TEXT, *REFERENCES]
    assert list(base["columns"]) == list(scratch["columns"]) == ["A", "B", "A and B", "joint"]
    assert "on the 8 classes of A, on the 8 of B, and jointly on 16" in base["title"]
    assert len(behind["rows"]) == len(base["rows"]) - 1 and len(behind["columns"]) == 4


def test_columns_of_the_study_belong_together(studied):
    base, _, behind = studied["tables"]
    mean = {row["name"]: {where: cell["mean"] for where, cell in row["cells"].items()} for row in base["rows"]}
    for cells in mean.values():
        assert cells["A and B"] == pytest.approx((cells["A"] + cells["B"]) / 2)
    for row in behind["rows"]:
        for where in ("A and B", "joint"):
            expected = mean[row["name"]][where] - mean["git-rebasin"][where]
            assert row["cells"][f"from the base: {where}"]["mean"] == pytest.approx(expected, abs=1e-6)
    assert mean["head A"]["A"] > mean["head B"]["A"] and mean["head B"]["B"] > mean["head A"]["B"]


def test_the_study_says_what_wins_and_is_a_section_of_the_report(studied, nano, inside):
    says = studied["says"]
    assert says[0].startswith("Heads from the base: one generated from the joined texts is ")
    assert "(in T2W's table 3, +19.3)" in says[0] and "best on A and B: " in says[1] and len(says) == 6
    assert json.loads(inside("report", nano, "--json").stdout)["uses"]["fuse"] == studied


# ---------------------------------------------------------------- a user's heads


def test_two_heads_are_fused_in_every_way(nano, inside, heads):
    done = inside("fuse", nano, *heads, "--json")
    assert done.returncode == 0, done.stderr
    table, _ = json.loads(done.stdout)["tables"]
    assert [row["name"] for row in table["rows"]] == ["head A", "head B", *FUSIONS, *BY_TEXT, *REFERENCES]
    assert "on the 3 classes of A, on the 4 of B, and jointly on 7" in table["title"]
    done = inside("fuse", nano, *heads, "--method", "ties", "--json")
    names = [row["name"] for row in json.loads(done.stdout)["tables"][0]["rows"]]
    assert names == ["head A", "head B", "git-rebasin", "ties", *BY_TEXT, *REFERENCES]


@pytest.mark.parametrize("method", ["slerp", "{use: task-arithmetic, scale: 0.8}", "generated"])
def test_a_fused_head_is_one_for_the_classes_of_both(nano, run, inside, heads, tmp_path, method):
    file = tmp_path / "fused.safetensors"
    done = inside("fuse", nano, *heads, "--method", method, "--out", file)
    assert (done.returncode, done.stdout.strip()) == (0, str(file)), done.stderr
    fused = Network.load(file, run.target.spec)
    ours, theirs = (Network.load(head, run.target.spec) for head in heads)
    assert fused.classes == (*ours.classes, *theirs.classes) and fused.origin.endswith(f"fused by {method}")
    flat = [run.target.spec.flatten(network.tensors)[None] for network in (ours, theirs)]
    if method == "generated":
        expected = run.target.spec.flatten(run.generate(fused.classes).tensors)[None]
    elif method == "slerp":
        expected = fusion(run, method)[1].build({"spec": run.target.spec}).fuse(*flat)
    else:
        expected = run.zoo.base + 0.8 * ((flat[0] - run.zoo.base) + (flat[1] - run.zoo.base))
    assert torch.allclose(run.target.spec.flatten(fused.tensors)[None], expected, atol=1e-5)
    assert set(load_file(file)) == set(fused.tensors)


def test_a_third_partys_way_to_fuse_is_one_among_the_others(nano, run, inside, heads, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    plugin, file = tmp_path / "graft.py", tmp_path / "fused.safetensors"
    plugin.write_text(PLUGIN)
    done = inside("fuse", nano, *heads, "--plugin", plugin, "--json")
    assert "graft" in [row["name"] for row in json.loads(done.stdout)["tables"][0]["rows"]], done.stderr
    block = "{use: graft, share: 0.5}"
    assert inside("fuse", nano, *heads, "--method", block, "--out", file, "--plugin", plugin).returncode == 0
    ours, theirs, fused = (Network.load(head, run.target.spec).tensors for head in (*heads, file))
    assert torch.equal(fused["w1"], ours["w1"] / 2) and torch.equal(fused["w2"], theirs["w2"])


def test_heads_of_a_generator_that_goes_by_other_than_texts_are_fused_by_weights_alone(run, heads, monkeypatch):
    monkeypatch.setattr(type(run), "knows", lambda self, tasks: False)
    for method, fusions in ((None, FUSIONS), ("git-rebasin", ["git-rebasin"])):
        section = compared(run, *load_pair(run, *heads), method, 0)
        assert [row.name for row in section.tables[0].rows] == ["head A", "head B", *fusions, *REFERENCES]
        assert [text.partition(":")[0] for text in section.says] == [
            "Heads given, best on A and B", "Heads given, best on the joint task"
        ]  # fmt: skip


# ---------------------------------------------------------------- bad input


def bad(inside, *arguments) -> str:
    done = inside("fuse", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    return done.stderr.strip().removeprefix("error: ")


def test_what_does_not_go_together_is_said(nano, inside, heads, tmp_path):
    a, b = heads
    assert bad(inside, nano, a) == f"{a} alone: name two heads to fuse, or none for the study"
    assert bad(inside, nano, "--out", "x") == "--out: a study fuses many heads; name the two to fuse"
    assert bad(inside, nano, a, b, "--out", "x") == "--out: there are many ways to fuse two heads; name one by --method"
    assert bad(inside, nano, a, tmp_path / "c") == f"{tmp_path / 'c'}: no such file"


def test_the_same_head_twice_cannot_be_fused(nano, inside, heads, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(heads[0].read_bytes())
    for second in (heads[0], copy):
        assert bad(inside, nano, heads[0], second) == (
            f"{heads[0]} and {second} hold the same head: name two different ones"
        )


def test_heads_with_a_class_in_common_cannot_be_fused(nano, run, inside, heads, tmp_path):
    names, other = known(run), tmp_path / "other.safetensors"
    run.generate(names[2:5]).save(other)
    assert bad(inside, nano, heads[0], other) == (
        f"{heads[0]} and {other} both tell {names[2]!r} apart: fuse heads without a class in common"
    )


def test_a_head_of_another_run_or_shape_cannot_be_fused(nano, run, inside, heads, tmp_path):
    ours, other = run.load_network(heads[1]), tmp_path / "other.safetensors"
    replace(ours, zoo="zoo-0123456789ab").save(other)
    assert bad(inside, nano, heads[0], other) == (
        f"{other}: a head of another run (zoo-0123456789ab; this one has {run.zoo.folder.name})"
    )
    replace(ours, tensors=ours.tensors | {"w1": ours.tensors["w1"][:, :2].clone()}).save(other)
    features, rank = ours.tensors["w1"].shape
    assert bad(inside, nano, heads[0], other) == (
        f"{other}: w1 has shape ({features}, 2); this target needs ({features}, {rank})"
    )
    replace(ours, zoo="").save(other)  # from elsewhere: it may be anybody's
    assert inside("fuse", nano, heads[0], other, "--method", "average", "--out", tmp_path / "x").returncode == 0


def test_classes_without_images_are_fused_but_not_scored(nano, run, inside, heads, tmp_path):
    strange = tmp_path / "strange.safetensors"
    run.generate(["quasar", "pulsar"]).save(strange)
    assert bad(inside, nano, heads[0], strange).startswith(
        "the data set has no images of 'quasar', 'pulsar' to score on."
    )
    done = inside("fuse", nano, heads[0], strange, "--method", "average", "--out", tmp_path / "x.safetensors")
    assert done.returncode == 0, done.stderr


METHODS = [
    ("git-rebasn", "--method: no fusion named 'git-rebasn'. Did you mean 'git-rebasin'? Known: average, generated, "
     "git-rebasin, slerp, task-arithmetic, text-then-average, ties"),
    ("{use: tie}", "--method: no fusion named 'tie'. Did you mean 'ties'? Known: average, generated, git-rebasin, slerp, "
     "task-arithmetic, text-then-average, ties"),
    ("{use: ties, keep: 2}", "--method: keep: must be less than or equal to 1, got 2"),
    ("{use: ties, scal: 2}", "--method: scal: fusion 'ties' takes no 'scal'. Did you mean 'scale'? Known: keep, scale"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "message"), METHODS)
def test_a_method_there_is_not_is_said_with_the_nearest(nano, inside, heads, method, message):
    assert bad(inside, nano, *heads, "--method", method) == message
    assert bad(inside, nano, "--method", method) == message
