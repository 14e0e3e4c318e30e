"""A run reopens under the name it was made with, whatever dots are in it; in a study and in a joint recipe as well."""

from __future__ import annotations

from pathlib import Path

from tests.support.tiny import WORKSHOP, Tiny, stages_fixture, tiny_fixture  # noqa: F401
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.source import read_recipe
from wspace.runs import pipeline
from wspace.runs.joint.file import bind_joint
from wspace.runs.run import Run
from wspace.runs.study.file import bind_study
from wspace.support.progress import Progress


def test_a_name_with_a_dot_is_that_of_the_file_the_folder_and_the_opened_run(
    tiny: Tiny, stages, tmp_path: Path
) -> None:
    file = tmp_path / "tiny-v1.2.yaml"
    file.write_text(tiny.recipe)
    recipe = bind(read_recipe(file), load_plugins([tiny.plugin]).registry)
    assert (recipe.name, recipe.source) == ("tiny-v1.2", str(file))
    folder, _ = pipeline.run(recipe, tmp_path / "runs", Progress(), workshop=WORKSHOP)
    opened = Run.open(folder, [tiny.plugin])
    assert folder.name == "tiny-v1.2" == opened.recipe.name and opened.recipe.filled == recipe.filled


def test_members_of_a_study_and_of_a_joint_recipe_have_their_own_names(tmp_path: Path) -> None:
    study, joint = tmp_path / "study-v1.2.yaml", tmp_path / "joint-v1.2.yaml"
    study.write_text("study: nano\nseeds: [1]\nvariants:\n  more v1.2: {train.steps: 3}\n")
    joint.write_text("joint: igpg-member\nmembers:\n  a: {}\n")
    registry = load_plugins().registry
    studied, joined = bind_study(read_recipe(study), registry), bind_joint(read_recipe(joint), registry)
    assert (studied.name, studied.source, joined.name) == ("study-v1.2", str(study), "joint-v1.2")
    assert [member.recipe.name for member in studied.members] == ["more-v1-2-1"]
    assert [member.name for member in joined.members] == ["a"]
