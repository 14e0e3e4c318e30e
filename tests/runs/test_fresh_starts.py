"""Zoos whose networks share no base (`zoo.start: fresh`): what is made, what is left out, and what stands in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.synthetic import bench_of, recipe_of, run
from wspace.runs.artifacts import Zoo
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.support.errors import UserError
from wspace.support.files import read_json
from wspace.support.seeding import stream

FRESH = "zoo.start=fresh"
MADE = ("zoo", "opponents", "train", "generate", "evaluate")


def zoo_of(folder: Path, *settings: str) -> Zoo:
    folder.mkdir(exist_ok=True)
    recipe = recipe_of(folder, *settings)
    run(recipe, bench_of(recipe), folder, "zoo")
    return Zoo(folder / "zoo")


def test_each_network_begins_at_weights_of_its_own_whatever_their_number_at_once(tmp_path: Path) -> None:
    still = ("zoo.lr=1e-12", "zoo.copies=2")
    twenty, seven = (zoo_of(tmp_path / str(n), FRESH, *still, f"zoo.together={n}") for n in (20, 7))
    assert len(twenty.weights) == len(seven.weights) == 80
    torch.testing.assert_close(twenty.weights, seven.weights)
    target, seed = bench_of(recipe_of(tmp_path)).target, recipe_of(tmp_path).seed
    torch.testing.assert_close(twenty.weights[33:34], target.init(1, stream(seed, "fresh", 33)))
    assert torch.cdist(twenty.weights, twenty.weights).fill_diagonal_(1).min() > 0.1


def test_copies_of_a_task_grow_apart_from_other_starts_and_other_images(tmp_path: Path) -> None:
    zoo = zoo_of(tmp_path, FRESH, "zoo.copies=2")
    training = zoo.tasks.training
    first, second = [row for row, task in enumerate(training) if task == training[0]]
    assert (zoo.weights[first] - zoo.weights[second]).norm() > 0.1 * zoo.weights[first].norm()


def test_such_a_zoo_has_no_base_and_says_so_when_asked_for_it(tmp_path: Path) -> None:
    zoo = zoo_of(tmp_path, FRESH)
    assert not (tmp_path / "zoo/base.safetensors").exists() and zoo.stored.problems() == []
    assert zoo.stored.header.parents == () and {entry.parent for entry in zoo.stored.entries} == {None}
    assert not zoo.shares_base and torch.equal(zoo.reference, zoo.weights[0])
    with pytest.raises(UserError, match=r"began at weights of its own \(zoo.start: fresh\), and there is no base"):
        _ = zoo.base


def test_a_zoo_left_half_done_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = zoo_of(tmp_path, FRESH).stored.header.sha256
    for name in ("zoo.json", "index.jsonl", "networks-0001.safetensors"):
        (tmp_path / "zoo" / name).unlink()
    assert zoo_of(tmp_path, FRESH).stored.header.sha256 == whole


def test_a_run_without_a_base_leaves_out_what_goes_by_it_and_says_so(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, FRESH, "train.align=true", "train.augment=0.5")
    said = run(recipe, bench_of(recipe), tmp_path, *MADE)
    left_out = [line for line in said if "left out" in line]
    assert left_out == [
        "note: the opponent 'base' is left out: each of the zoo's networks began at weights of its own, and there is no base"
    ]
    methods = {row["method"] for row in read_json(tmp_path / "evaluate/scores.json")["scores"]}
    assert methods == {
        "generated", "oracle", "universal", "zoo-mean", "retrieval", "ridge", "noise", "random", "mismatched",
    }  # fmt: skip


def test_the_setting_is_in_no_key_at_its_default(tmp_path: Path) -> None:
    plain, base, fresh = (keys(recipe_of(tmp_path, *how), STAGES) for how in ((), ("zoo.start=base",), (FRESH,)))
    assert plain == base and plain["zoo"] != fresh["zoo"]


def test_a_zoo_from_a_folder_begins_as_it_began(tmp_path: Path) -> None:
    shared, apart = zoo_of(tmp_path / "shared"), zoo_of(tmp_path / "apart", FRESH)
    taken = zoo_of(tmp_path / "taken", FRESH, f"zoo.source={apart.folder}")
    assert not taken.shares_base and torch.equal(taken.weights, apart.weights[: len(taken.weights)])
    with pytest.raises(
        UserError, match=r"zoo.start: .*its networks began at a base, which is there; leave zoo.start out"
    ):
        zoo_of(tmp_path / "refused", FRESH, f"zoo.source={shared.folder}")
