"""Joint recipes: what may be in the file, one generator in every member's shape, and members as ordinary runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from tests.support.nano import check_above_random
from wspace.recipes.plugins import load_plugins
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import parse_recipe
from wspace.runs.finished import report_of, stages_of
from wspace.runs.joint import running
from wspace.runs.joint.file import Joint, bind_joint
from wspace.runs.joint.training import share
from wspace.runs.pipeline import STAGES
from wspace.runs.pipeline import stages_of as stages_of_recipe
from wspace.runs.run import Run
from wspace.support.errors import RecipeError, UserError
from wspace.support.progress import Progress

pytestmark = pytest.mark.plugins("igpg", "t2w")

NANO = Path(__file__).parents[2] / "recipes" / "igpg-nano.yaml"


def bound(text: str, settings: tuple[str, ...] = ()) -> Joint:
    return bind_joint(parse_recipe(text, "several.yaml"), load_plugins().registry, settings)


def problems(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        bound(text)
    return str(caught.value)


# ---------------------------------------------------------------- the file


def test_members_are_variants_of_one_recipe() -> None:
    found = bound(
        "joint: igpg-member\neach: {seed: 3}\nmembers:\n  a: {}\n  b: {dataset.ink: colours}\n"
        "held_out:\n  c: {target.architecture.of.hidden: [5]}\n",
        ("tasks.seen=20",),
    )
    assert [member.name for member in (*found.members, *found.held_out)] == ["a", "b", "c"]
    assert all(member.seed == 3 and member.tasks.seen == 20 for member in (*found.members, *found.held_out))
    assert found.members[1].filled["dataset"]["ink"] == "colours"


def test_every_problem_is_told_with_its_line() -> None:
    members = "  a: {}\n  B b: {}\n  c: {train.steps: 7}\n  d: {dataset.inkk: grey}\n"
    text = f"joint: igpg-member\nmembers:\n{members}held_out:\n  a: {{}}\n"
    told = problems(text)
    for line in (
        "several.yaml:4: members.B b: names a folder: small letters, digits and hyphens",
        "several.yaml:5: members.c: train differs from that of member 'a': a joint recipe has one generator, and one training",
        "several.yaml:6: members.d: dataset.inkk: dataset 'digits' takes no 'inkk'. Did you mean 'ink'?",
        "several.yaml:8: held_out.a: there is a member of this name already",
    ):
        assert line in told, told


def test_what_a_joint_training_does_not_know_is_told() -> None:
    told = problems("joint: igpg-member\neach: {symmetry: permutation, losses.product: 0.1}\nmembers:\n  a: {}\n")
    assert "symmetry: a joint training knows none; leave it out" in told
    assert "losses: a joint training knows none; leave it out" in told


def test_a_file_of_other_keys_is_told() -> None:
    assert "several.yaml:2: member: a joint recipe takes no 'member'. Did you mean 'members'?" in problems(
        "joint: igpg-member\nmember: {}\n"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("joint: igpg-member\nmembers:\n  a:\n", ":3: members.a: expected a mapping, got None"),
        ("joint: igpg-member\nmembers: {}\n", ":2: members: name at least one"),
        ("joint: 3\nmembers: {a: {}}\n", ":1: joint: expected str, got 3"),
        ("joint: igpg-member\n", "several.yaml: members: missing"),
    ],
)
def test_what_a_file_gets_wrong_is_told_as_of_a_study(text: str, told: str) -> None:
    assert told in problems(text)


def test_held_out_members_are_no_part_of_the_training_s_key() -> None:
    text = "joint: igpg-member\nmembers:\n  a: {}\n  b: {dataset.ink: colours}\n"
    alone, beside = bound(text), bound(text + "held_out:\n  c: {target.architecture.of.hidden: [5]}\n")
    assert alone.key == beside.key
    assert bound(text.replace("colours", "colours, zoo.steps: 7")).key != alone.key


def test_a_recipe_of_its_own_has_the_key_it_always_had() -> None:
    member: BoundRecipe = bound("joint: igpg-member\nmembers:\n  a: {}\n").members[0]
    assert member.joined is None and stages_of_recipe(member) == STAGES


# ---------------------------------------------------------------- one generator


class Shaped(nn.Module):
    """A component whose places are its own, and whose numbers are not."""

    def __init__(self, places: int, width: int = 3):
        super().__init__()
        self.inner = nn.Linear(2, width)
        self.scale = nn.Parameter(torch.rand(2))
        self.register_buffer("seen", torch.rand(1))
        self.register_buffer("places", torch.arange(places), persistent=False)


def test_all_but_places_is_shared() -> None:
    first, other = Shaped(4), Shaped(6)
    share(first, other, "b")
    assert other.inner is first.inner and other.scale is first.scale and other.seen is first.seen
    assert len(other.places) == 6 and len(first.places) == 4


def test_a_component_that_is_made_for_one_shape_is_told() -> None:
    with pytest.raises(UserError) as caught:
        share(Shaped(4), Shaped(4, width=5), "b", "generator.")
    assert str(caught.value) == (
        "member 'b': generator.inner.weight has shape (5, 2) there, and (3, 2) in the first member: a joint recipe needs a "
        "tokenizer, a conditioner and a generator that take any network"
    )


# ---------------------------------------------------------------- running


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Joint, Path]:
    """The packaged nano recipe, of two members that are trained on and one that is not."""
    text = NANO.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "digits-deep" not in line]
    smaller = ("opponents.steps=4", "opponents.universal_steps=8")
    recipe = bind_joint(parse_recipe("\n".join(lines), "several.yaml"), load_plugins().registry, smaller)
    runs = tmp_path_factory.mktemp("runs")
    return recipe, running.run(recipe, runs, Progress())[0]


@pytest.mark.slow
def test_members_are_ordinary_runs_with_one_generator(ran: tuple[Joint, Path]) -> None:
    recipe, folder = ran
    states = []
    for member in (*recipe.members, *recipe.held_out):
        report = report_of(folder / member.name)
        methods = {score["method"] for score in report["scores"]}
        assert {"generated", "zoo-mean", "retrieval", "ridge", "universal", "oracle", "random"} <= methods
        assert {"before", "after"} == set(report["training"]["reconstruction"])
        states.append(
            load_file(folder / member.name / stages_of(folder / member.name)["train"] / "generator.safetensors")
        )
    for name, tensor in states[0].items():
        assert all(torch.equal(state[name], tensor) for state in states[1:])


@pytest.mark.slow
def test_every_member_of_the_nano_recipe_draws_networks_far_above_random_ones(ran: tuple[Joint, Path]) -> None:
    recipe, folder = ran
    for member in (*recipe.members, *recipe.held_out):
        check_above_random(report_of(folder / member.name))


@pytest.mark.slow
def test_a_member_draws_networks_of_its_own_shape(ran: tuple[Joint, Path]) -> None:
    recipe, folder = ran
    sizes = set()
    for member in (*recipe.members, *recipe.held_out):
        run = Run.open(folder / member.name)
        network = run.generate(["one", "two", "three"])
        sizes.add(sum(tensor.numel() for tensor in network.tensors.values()))
        assert 0 <= run.score(network)["accuracy"] <= 1
    assert len(sizes) == 3


@pytest.mark.slow
def test_a_second_run_does_nothing_and_the_report_is_of_all_members(ran: tuple[Joint, Path]) -> None:
    recipe, folder = ran
    again, steps = running.run(recipe, folder.parent, Progress())
    assert again == folder and {step.action for step in steps} == {"cached"}
    report = json.loads((folder / "report.json").read_text())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(row["label"] in page for row in report["rows"])
    labels = {row["label"] for row in report["rows"]}
    assert {"digits-mlp: generated", "digits-wide (held out): generated", "digits-wide (held out): random"} <= labels
    actions = [step.action for step in running.plan(recipe, folder.parent, ["generate"])["digits-mlp"]]
    assert actions == ["cached", "cached", "cached", "run", "run", "run"]


@pytest.mark.slow
def test_layers_of_several_draws_in_one_network(ran: tuple[Joint, Path]) -> None:
    from wspace.uses.coherence import exchanged, study

    _, folder = ran
    run = Run.open(folder / "digits-mlp")
    spec = run.target.spec
    made = exchanged(spec, torch.zeros(2, spec.size), torch.ones(2, spec.size))
    tensors = spec.unflatten(made)
    assert {name: bool(tensor.all()) for name, tensor in tensors.items()} == {
        "hidden1.weight": False, "hidden1.bias": False, "out.weight": True, "out.bias": True,
    }  # fmt: skip
    section = study(run, run.unseen(3), draws=2, temperature=1.0, seed=0)
    assert next(row.name for row in section.tables[0].rows) == "as drawn" and len(section.says) == 4


# ---------------------------------------------------------------- large networks


@pytest.mark.slow
def test_a_large_network_goes_through_the_code_tensor_by_tensor(ran: tuple[Joint, Path]) -> None:
    from wspace.runs.model_plan import plan_of_model
    from wspace.uses.bench.roundtrip import roundtrip

    recipe, folder = ran
    found, planned = (
        roundtrip(Run.open(folder / "digits-mlp"), "test_resnet"),
        plan_of_model(recipe.members[0], "test_resnet"),
    )

    def sizes(classes: int) -> tuple[int, int]:
        """Weights and tokens."""
        state = timm.create_model("test_resnet", num_classes=classes).state_dict()
        tensors = [tensor for tensor in state.values() if tensor.is_floating_point()]
        rows = [(1, t.numel()) if t.ndim == 1 else (len(t), t[0].numel()) for t in tensors]
        return sum(t.numel() for t in tensors), sum(count * -(-length // 128) for count, length in rows)

    assert (found["parameters"], found["tokens"]) == sizes(1000)  # as timm has it
    assert (planned["weights"], planned["tokens"]) == sizes(planned["outputs"])  # as the recipe's networks would be
    assert planned["outputs"] < 1000
    assert 0 < found["error"] < 1.5 and found["mib_peak"] >= found["mib_before"] > 0
    assert planned["memory"] > 0 and planned["token_width"] == 2
