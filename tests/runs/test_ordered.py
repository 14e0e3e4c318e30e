"""Networks whose outputs stand for a task's classes in its order: tasks, texts, opponents, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.support.synthetic import bench_of, recipe_of, run
from wspace.interfaces import Condition, Prompts
from wspace.learning.baselines import descriptions
from wspace.recipes.schema import Bound, BoundRecipe
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import build_system
from wspace.runs.checking import check_all
from wspace.runs.run import Run
from wspace.runs.study.comparing import headline_of
from wspace.runs.study.file import Member
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError
from wspace.support.files import read_json
from wspace.support.progress import Progress
from wspace.uses import fuse, interpolate
from wspace.weights.interpolation import mixed
from wspace.weights.scaling import spread_of
from wspace.weights.zoo.format import StoredZoo, seal

MLP = "{use: mlp, hidden: [8], activation: tanh}"
ORDERED = (
    f"target={{use: module, architecture: {MLP}, outputs: 4}}",
    "conditioner=text-list",
    "symmetry=sign-permutation",
    "tokenizer={use: neuron, axis: hidden1}",
    "zoo.base_lr=3e-2",
    "zoo.lr=3e-2",
    "zoo.steps=25",
    "task_loss.steps=40",
    "task_loss.lr=3e-2",
    "losses={}",
)
MADE = ("zoo", "opponents", "train", "generate", "evaluate")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all stages but the report, and what they said."""
    folder = tmp_path_factory.mktemp("ordered")
    recipe = recipe_of(folder, *ORDERED)
    said = run(recipe, bench_of(recipe), folder, *MADE)
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def scores_of(folder: Path, split: str = "unseen-tasks") -> dict[str, float]:
    rows = read_json(folder / "evaluate/scores.json")["scores"]
    return {row["method"]: row["mean"] for row in rows if row["split"] == split and row["metric"] == "accuracy"}


def test_an_order_is_a_task_and_unseen_ones_are_orders_that_nobody_trained(made: Path) -> None:
    tasks = Zoo(made / "zoo").tasks
    assert tasks.ordered and not set(tasks.unseen) & set(tasks.seen)
    assert any(task != tuple(sorted(task)) for task in tasks.seen)
    assert json.loads((made / "zoo/tasks.json").read_text())["ordered"] is True


def test_the_mean_network_is_at_chance_and_the_text_is_what_counts(made: Path) -> None:
    scores = scores_of(made)
    chance = sum(1 / len(task) for task in Zoo(made / "zoo").tasks.scored("unseen-tasks")) / 6
    assert abs(scores["zoo-mean"] - chance) < 0.2
    assert scores["generated"] > max(scores["zoo-mean"], scores["mismatched"], scores["random"]) + 0.2
    assert scores["ridge"] > scores["zoo-mean"] + 0.1  # it is told the order, too


def test_what_trains_one_network_for_all_orders_is_left_out_and_said(made: Path) -> None:
    said = [line for line in json.loads((made / "said.json").read_text()) if "left out" in line]
    assert said == [
        "note: the opponent 'universal' is left out: outputs stand for a task's classes in its order, and no one network "
        "serves two orders"
    ]
    assert "universal" not in scores_of(made) and "base" in scores_of(made)
    left_out = read_json(made / "evaluate/scores.json")["left_out"]
    assert [f"note: the opponent {name!r} is left out: {why}" for name, why in left_out.items()] == said


def test_a_study_sets_nothing_beside_what_was_left_out(made: Path) -> None:
    member = Member("v", 0, recipe_of(made, *ORDERED))
    assert headline_of(member, {}) == ["universal", "ridge", "oracle"]  # of a report from before 0.2
    assert headline_of(member, read_json(made / "evaluate/scores.json")) == ["ridge", "oracle"]


def test_a_network_in_a_file_names_its_classes_in_the_order_of_its_outputs(made: Path) -> None:
    zoo = Zoo(made / "zoo")
    for entry, task in zip(zoo.stored.entries, zoo.tasks.seen, strict=True):
        assert entry.classes == tuple(zoo.classes[number] for number in task)


def test_names_of_tasks_say_their_order(made: Path) -> None:
    prompts = Zoo(made / "zoo").prompts([(3, 1), (1, 3)], torch.eye(20))
    assert prompts.names == ("class 3, class 1", "class 1, class 3")


def opened(made: Path) -> Run:
    recipe = recipe_of(made, *ORDERED)
    stages = {name: made / name for name in MADE}
    return Run(made, recipe, stages, Progress(), bench=bench_of(recipe))


def test_another_order_of_the_same_names_is_another_network(made: Path) -> None:
    fine = opened(made)
    known = [fine.zoo.classes[number] for number in fine.zoo.tasks.classes[:3]]
    one, two = (fine.generate(names) for names in (known, known[::-1]))
    accuracy, other = (fine.score(network)["accuracy"] for network in (one, two))
    assert accuracy > 0.5 and other > 0.5
    mixed = fine.network(known[::-1], fine.flat(one)[0], "the outputs of another order")
    assert fine.score(mixed)["accuracy"] < min(accuracy, other) - 0.2
    assert fine.ridge([(1, 0, 2)]).shape == (1, fine.target.spec.size)


def test_a_written_network_gives_its_first_outputs_as_they_are(made: Path) -> None:
    fine = opened(made)
    weights, features = fine.zoo.weights[0], torch.randn(5, 6)
    head, texts = fine.target.frozen(weights, torch.zeros(3, 5)), torch.zeros(1, 3, 5)
    expected = fine.target.logits(weights[None], features[None], texts)[0]
    assert expected.shape == (5, 3)
    torch.testing.assert_close(head(features), expected)


def test_more_names_than_outputs_are_refused(made: Path) -> None:
    with pytest.raises(UserError, match=r"^5 classes, and this run's networks have 4 outputs, each for one of them$"):
        opened(made).generate([f"class {number}" for number in range(5)])


def test_heads_of_two_orders_are_not_fused(made: Path) -> None:
    with pytest.raises(UserError, match="stand for the classes of one task in its order"):
        fuse.study(opened(made))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "tasks.classes=[2, 5]",
            "target (module): it has 4 outputs, each for a class, and tasks have up to 5 classes; give it as many, or tasks "
            "fewer",
        ),
        (
            "conditioner=text-set",
            "conditioner (text-set): this conditioner says the same of every order of a task's classes, and the target's "
            "outputs stand for them in order; name one that keeps it, as text-list",
        ),
        (
            "conditioner={use: text-list, places: 3}",
            "conditioner 'text-list': it has 3 places, and the target outputs for 4",
        ),
    ],
)
def test_what_cannot_be_told_in_order_is_refused_before_anything_is_trained(
    tmp_path: Path, setting: str, message: str
) -> None:
    recipe = recipe_of(tmp_path, *ORDERED, setting)
    with pytest.raises(UserError) as caught:
        run(recipe, bench_of(recipe), tmp_path, "zoo")
    assert str(caught.value) == message and caught.value.exit_status == 2
    assert not list((tmp_path / "zoo").iterdir())


def test_of_several_recipes_the_one_that_is_refused_is_named_and_what_they_share_is_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = {
        "variant 'a'": recipe_of(tmp_path, *ORDERED),
        "variant 'b'": recipe_of(tmp_path, *ORDERED, "train.steps=7", "conditioner=text-set"),
    }
    built, targets, make = list[str](), list[str](), Bound.build

    def counted(bound: Bound[Any], given: Mapping[str, Any]) -> Any:
        targets.extend([bound.name] if bound.component.kind == "target" else [])
        return make(bound, given)

    monkeypatch.setattr(Bound, "build", counted)

    def workbench(recipe: BoundRecipe) -> Workbench:
        built.append(recipe.conditioner.name)
        return bench_of(recipe)

    with pytest.raises(
        UserError, match=r"^variant 'b': conditioner \(text-set\): this conditioner says the same of every"
    ):
        check_all(recipes, workbench)
    assert built == ["text-list"] and targets == ["module"]
    check_all({"variant 'a'": recipes["variant 'a'"]}, workbench)


def test_a_conditioner_of_places_is_refused_where_there_are_none(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "conditioner=text-list")
    with pytest.raises(UserError, match="this target's outputs stand for no classes in order"):
        run(recipe, bench_of(recipe), tmp_path, "zoo")


def taken(made: Path, tmp_path: Path, *settings: str) -> Zoo:
    recipe = recipe_of(tmp_path, *ORDERED, f"zoo.source={made / 'zoo'}", *settings)
    run(recipe, bench_of(recipe), tmp_path, "zoo")
    return Zoo(tmp_path / "zoo")


def test_a_zoo_from_a_folder_keeps_its_orders(made: Path, tmp_path: Path) -> None:
    given, again = Zoo(made / "zoo"), taken(made, tmp_path)
    assert again.tasks.ordered and set(again.tasks.seen) == set(given.tasks.seen)
    assert not set(again.tasks.unseen) & set(given.tasks.seen)


def test_a_zoo_of_which_a_network_names_a_class_twice_is_refused(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "zoo", tmp_path / "zoo-of-twice")
    there = StoredZoo.open(folder)
    first, *others = there.entries
    twice = replace(first, classes=(first.classes[0], *first.classes[:-1]))
    seal(folder, there.header, [twice, *others])
    recipe = recipe_of(tmp_path, *ORDERED, f"zoo.source={folder}")
    with pytest.raises(UserError, match=f"network 'task-00000' names the class '{first.classes[0]}' twice$"):
        run(recipe, bench_of(recipe), tmp_path, "zoo")


def test_what_a_weight_serves_is_seen_by_gradients_and_told_in_token_order(made: Path) -> None:
    recipe = recipe_of(made, *ORDERED, "generator.predictor=by-place")
    target = bench_of(recipe).target
    serves = target.spec.unflatten(target.serves())
    assert serves["out.weight"].tolist() == [[place] * 8 for place in range(4)]
    assert serves["out.bias"].tolist() == [0, 1, 2, 3]
    assert all((serves[name] == -1).all() for name in ("hidden1.weight", "hidden1.bias"))
    predictor = build_system(recipe, target, 5).generator.predictor
    assert predictor.rows.shape == (4, 9) and len(predictor.others) == target.spec.size - 4 * 9


def test_no_places_are_known_of_other_targets(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "generator.predictor=by-place")
    bench = bench_of(recipe)
    assert bench.target.serves() is None
    with pytest.raises(UserError, match="^predictor 'by-place': no weight is known to serve one class alone"):
        build_system(recipe, bench.target, 5)


def test_between_orders_pairs_may_share_classes_but_no_place(made: Path) -> None:
    fine = opened(made)
    section = interpolate.study(fine, pairs=4, steps=3)
    titles = [table.title.partition(":")[0] for table in section.tables]
    assert interpolate.EITHER in titles and titles[:2] == ["on the first task", "on the second task"]
    assert section.says[2].startswith("Worst point of a way, on the task that its network does better, %: ")
    groups = interpolate.disjoint([(0, 1), (1, 0), (0, 2), (2, 0)], 2, 9, ordered=True)
    assert groups == [((0, 1), (1, 0)), ((0, 2), (2, 0))]


def test_between_two_orders_of_the_same_classes_each_end_is_at_home_on_its_own(made: Path) -> None:
    fine = opened(made)
    names = [fine.zoo.classes[number] for number in fine.zoo.tasks.classes[:3]]
    ends = [tuple(fine.zoo.tasks.classes[:3]), (*fine.zoo.tasks.classes[1:3], fine.zoo.tasks.classes[0])]
    corners = interpolate.Corners(fine, [[task] for task in ends], 0)
    for way in interpolate.WAYS:
        scores = torch.stack([corners.score(corners.networks(way, corners.counts(way, at)))[:, 0] for at in (0.0, 1.0)])
        assert scores[0, 0] > scores[0, 1] + 0.3 and scores[1, 1] > scores[1, 0] + 0.3, way
    with pytest.raises(UserError, match="^there is no way from a task to itself: name other classes$"):
        interpolate.one(fine, [names, names], steps=3, seed=0)


def test_conditions_in_places_are_mixed_place_by_place() -> None:
    mask = torch.tensor([[True, True]])
    one, two = (
        Condition(torch.full((1, n, 2), value), mask[:, :n], torch.zeros(1, 1)) for n, value in ((2, 1.0), (1, 3.0))
    )
    halfway = mixed([one, two], torch.tensor([[0.5, 0.5]]), in_places=True)
    assert halfway.tokens.tolist() == [[[2.0, 2.0], [0.5, 0.5]]] and halfway.mask.tolist() == [[True, True]]
    end = mixed([one, two], torch.tensor([[0.0, 1.0]]), in_places=True)
    assert end.tokens[:, 0].tolist() == [[3.0, 3.0]] and end.mask.tolist() == [[True, False]]


def test_the_base_is_of_one_order_of_as_many_classes_as_there_are_outputs(made: Path) -> None:
    fine = opened(made)
    shared = fine.zoo.tasks.classes[:4]
    turned = (*shared[1:], shared[0])
    right, wrong = fine.bench.accuracies(fine.zoo.base.expand(2, -1), [shared, turned], fine.bench.val).tolist()
    assert right > wrong + 0.2


def test_the_pooled_vector_has_the_text_at_each_place(made: Path, tmp_path: Path) -> None:
    texts = functional.normalize(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    recipe, zoo = recipe_of(tmp_path, *ORDERED, "conditioner.axes=3"), Zoo(made / "zoo")
    conditioner = recipe.conditioner.build({"text_dim": 5, "target": bench_of(recipe).target})
    conditioner.fit(zoo.prompts(zoo.tasks.seen, texts))
    said = conditioner(zoo.prompts([(0, 1, 2), (2, 1, 0), (0, 1)], texts))
    assert said.pooled.shape == (3, 4 * 3 + 1) and said.tokens.shape == (3, 3, 5 + 4)
    first, turned, shorter = said.pooled[:, :-1].unflatten(1, (4, 3))
    raw = [
        row * conditioner.pooled_std[:-1].view(4, 3) + conditioner.pooled_mean[:-1].view(4, 3)
        for row in (first, turned)
    ]
    torch.testing.assert_close(raw[0][:3], raw[1][:3].flip(0))
    torch.testing.assert_close(first[:2], shorter[:2])


def test_descriptions_in_fewer_axes_are_worth_the_same_to_lines_and_cosines() -> None:
    rng = torch.Generator().manual_seed(0)

    def prompts(count: int) -> Prompts:
        mask = torch.ones(count, 3, dtype=torch.bool)
        return Prompts(functional.normalize(torch.randn(count, 3, 6, generator=rng), dim=2), mask)

    zoo, asked = prompts(9), prompts(4)
    described, others = descriptions(zoo, asked, places=3)
    assert described.shape == (9, 9) and others.shape == (4, 9)
    raw = [torch.cat([each.in_places(3), 1 / each.count()], dim=1) for each in (zoo, asked)]
    center, spread = raw[0].mean(0), spread_of(raw[0])
    whole, rest = ((each - center) / spread for each in raw)
    torch.testing.assert_close(described @ described.T, whole @ whole.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(others @ described.T, rest @ whole.T, rtol=1e-4, atol=1e-4)
