"""What is said of classes: the template, sentences from a file, and the vectors that they become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wspace.components.datasets.icons import concepts_drawn_in
from wspace.components.wordings.descriptions import ICONS, Descriptions, read_descriptions
from wspace.components.wordings.template import Template
from wspace.interfaces import Wording
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.source import packaged_recipes, read_recipe
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.runs.workbench import Workbench
from wspace.support.errors import FileError, UserError

CLASSES, TEMPLATED = ["otter", "desk lamp"], ["a photo of otter", "a photo of desk lamp"]
DESCRIBED = """otter:
  - A river animal with thick fur.
  - It floats on its back.
"desk lamp": Shines on paper, and bends.
crab: [Walks sideways.]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "described.yaml"
    written.write_text(DESCRIBED, encoding="utf-8")
    return written


# ---------------------------------------------------------------- sentences


def test_the_template_says_one_sentence_of_each_class() -> None:
    assert Template().sentences(CLASSES, TEMPLATED) == [("a photo of otter",), ("a photo of desk lamp",)]


def test_descriptions_are_those_of_the_file_in_the_order_of_the_classes(file: Path) -> None:
    assert Descriptions(file).sentences(CLASSES[::-1], TEMPLATED[::-1]) == [
        ("Shines on paper, and bends.",),
        ("A river animal with thick fur.", "It floats on its back."),
    ]


@pytest.mark.parametrize(("name", "hint"), [("otters", ": did you mean otter?"), ("xyz", ";")])
def test_a_class_the_file_does_not_describe_is_an_error_that_names_the_nearest(
    file: Path, name: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        Descriptions(file).sentences(["otter", name], ["a photo of otter", f"a photo of {name}"])
    assert str(caught.value) == (
        f"{file}: does not describe {name!r}{hint} `texts.missing: template` would say it as the template does"
    )


def test_a_class_the_file_does_not_describe_is_said_by_the_template_where_that_is_asked_for(file: Path) -> None:
    wording = Descriptions(file, missing="template")
    assert wording.sentences(["otter", "sea"], ["a photo of otter", "a photo of sea"]) == [
        ("A river animal with thick fur.", "It floats on its back."),
        ("a photo of sea",),
    ]


NO_MAPPING, NO_SENTENCE = "expected a mapping of class names to sentences", "has no sentence, or one that is not text"
UNREADABLE = {
    "": NO_MAPPING,
    "- otter\n": NO_MAPPING,
    "otter\n": NO_MAPPING,
    "{}\n": NO_MAPPING,
    "7: Seven of them.\n": "the class name 7 is not a string: put it in quotes",
    "true: Yes.\n": "the class name True is not a string: put it in quotes",
    "otter: []\n": f"'otter' {NO_SENTENCE}",
    "otter:\n": f"'otter' {NO_SENTENCE}",
    "otter: 3\n": f"'otter' {NO_SENTENCE}",
    "otter: [A., 3]\n": f"'otter' {NO_SENTENCE}",
    "otter: ['  ']\n": f"'otter' {NO_SENTENCE}",
    "otter: {a: b}\n": f"'otter' {NO_SENTENCE}",
    "otter: 2026-13-45\n": "not YAML: a value does not fit its tag or form: month must be in 1..12",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_file_of_another_form_is_refused_word_for_word(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FileError) as caught:
        Descriptions(file).sentences(CLASSES, TEMPLATED)
    assert str(caught.value) == f"{file}: {UNREADABLE[text]}"


@pytest.mark.parametrize("content", [b"otter: [A.\n", b"otter: A.\notter: B.\n", b"otter: *x\n"])
def test_a_file_that_is_not_yaml_is_one_line(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_descriptions(file)
    assert str(caught.value).startswith(f"{file}: not YAML: ") and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(FileError) as caught:
            read_descriptions(path)
        assert str(caught.value) == f"{path}: cannot be read: {reason}"


def test_every_icon_concept_is_described_in_three_sentences_of_its_own() -> None:
    described = read_descriptions(ICONS)
    names = [concept.name for concept in concepts_drawn_in(7)]
    assert sorted(described) == sorted(names) and len(names) == 251
    said = [sentence for sentences in described.values() for sentence in sentences]
    assert {len(sentences) for sentences in described.values()} == {3}
    assert len(set(said)) == 3 * 251
    assert all(sentence == sentence.strip() and sentence.endswith(".") for sentence in said)
    assert Descriptions().sentences(names, names) == [described[name] for name in names]


# ---------------------------------------------------------------- vectors


class Letters:
    """Of each sentence its letters' counts, at unit length."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def encode(self, sentences: Sequence[str]) -> Tensor:
        self.said += sentences
        counts = [[float(s.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for s in sentences]
        return functional.normalize(torch.tensor(counts), dim=1)


class Several(Wording):
    def sentences(self, classes: Sequence[str], templated: Sequence[str]) -> list[tuple[str, ...]]:
        return [(sentence, *name) for name, sentence in zip(classes, templated, strict=True)]


def bench_of(wording: Wording, template: str = "a photo of {}", classes: Sequence[str] = CLASSES) -> Any:
    recipe = SimpleNamespace(
        device="cpu",
        text=SimpleNamespace(build=lambda given: Letters()),
        wording=SimpleNamespace(build=lambda given: wording),
        tasks=SimpleNamespace(template=template),
        dataset=SimpleNamespace(
            build=lambda given: SimpleNamespace(load=lambda cache: SimpleNamespace(classes=classes, warnings=()))
        ),
    )
    return Workbench(recipe, SimpleNamespace(say=print), Path("none"))  # type: ignore[arg-type]


def test_a_class_is_the_mean_of_its_sentences_at_unit_length() -> None:
    bench = bench_of(Several())
    rows = bench.prompt_texts
    for name, row in zip(CLASSES, rows, strict=True):
        vectors = Letters().encode([f"a photo of {name}", *name])
        mean = sum(vectors) / len(vectors)
        torch.testing.assert_close(row, mean / mean.norm())
    assert not torch.allclose(rows[0], Letters().encode(["a photo of otter"])[0], atol=0.1)
    assert bench.text.said == ["a photo of otter", *"otter", "a photo of desk lamp", *"desk lamp"]


def test_what_networks_are_scored_against_stays_the_template() -> None:
    plain, worded = bench_of(Template()), bench_of(Several())
    torch.testing.assert_close(plain.prompt_texts, plain.class_texts)
    assert torch.equal(worded.class_texts, plain.class_texts)
    assert torch.equal(worded.encode_classes(["crab"]), Letters().encode(["a photo of crab"]))


def test_another_wording_than_the_recipes_may_be_given() -> None:
    bench = bench_of(Several())
    torch.testing.assert_close(bench.encode_prompt_texts(CLASSES, Template()), bench.class_texts)


def test_braces_in_a_class_name_are_left_as_they_are() -> None:
    bench = bench_of(Template(), "{} or {}")
    bench.encode_classes(["a{}b", "{0}"])
    assert bench.text.said == ["a{}b or a{}b", "{0} or {0}"]


def test_a_template_without_a_place_for_the_class_is_an_error_of_the_user() -> None:
    for bench in (bench_of(Template(), "a photo"), bench_of(Several(), "a photo")):
        for encode in (bench.encode_classes, bench.encode_prompt_texts):
            with pytest.raises(UserError) as caught:
                encode(["crab"])
            assert str(caught.value) == "tasks.template: 'a photo' has no {} where the class name goes"


# ---------------------------------------------------------------- what a change redoes


def test_other_texts_redo_the_generator_and_neither_zoo_nor_opponents(file: Path) -> None:
    def of(*settings: str) -> dict[str, str]:
        return keys(bind(read_recipe(packaged_recipes()["core"], settings), load_plugins().registry), STAGES)

    described = f"wording={{use: descriptions, file: {file}}}"
    plain, first = of(), of(described)
    names = [stage.name for stage in STAGES]
    redone = ["train", "generate", "evaluate", "report"]
    assert [name for name in names if plain[name] != first[name]] == redone
    file.write_text(DESCRIBED + "sea: Salt water.\n", encoding="utf-8")
    assert [name for name in names if of(described)[name] != first[name]] == redone
    assert of("generate.sampler=ddpm")["train"] == plain["train"]
    assert of("generate.sampler=ddpm")["generate"] != plain["generate"]
