"""Where the workbench keeps what many runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.homeless import leave_home
from tests.support.tiny import Tiny, tiny_fixture  # noqa: F401
from wspace.support.errors import RecipeError, UserError
from wspace.support.files import cache_folder


@pytest.mark.parametrize(
    ("asked", "shared", "folder"),
    [
        (None, None, "/h/.cache/wspace"),
        ("/c", "/x", "/c"),
        ("~/c", None, "/h/c"),
        ("", "/x", "/x/wspace"),
        ("", "", "/h/.cache/wspace"),
        (None, "~/x", "/h/x/wspace"),
        (None, "not/absolute", "/h/.cache/wspace"),
        ("not/absolute", None, "not/absolute"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, shared: str | None, folder: str
) -> None:
    monkeypatch.setenv("HOME", "/h")
    for name, value in {"WSPACE_CACHE": asked, "XDG_CACHE_HOME": shared}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


@pytest.mark.parametrize("home", [None, ""])
def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    leave_home(monkeypatch, home)
    monkeypatch.delenv("WSPACE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError) as caught:
        cache_folder()
    sentence = "there is no home folder to keep a cache in: name a folder in WSPACE_CACHE, or set HOME"
    assert str(caught.value) == sentence
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/wspace")


def test_a_recipe_that_asks_for_a_home_there_is_not_says_where(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    leave_home(monkeypatch)
    recipe = tiny.recipe.replace("dataset: grid", "dataset: {use: files, path: a, more: [b, ~/c]}")
    with pytest.raises(RecipeError) as caught:
        tiny.bind(recipe)
    sentence = "~/c: there is no home folder for ~; write the path out, or set HOME"
    assert str(caught.value) == f"tiny.yaml:1: dataset.more: {sentence}"
