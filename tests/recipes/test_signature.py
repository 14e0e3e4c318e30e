"""Constructors read from their source, as Python sees them or refused with a reason; nothing is imported."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from tests.support.tiny import Tiny, tiny_fixture  # noqa: F401
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import KINDS, Component
from wspace.recipes.signature import MISSING, SLOTS, UnreadableSignature, read_class, signature_of, source_file
from wspace.support import settings
from wspace.support.parameters import is_default

REGISTERED = load_plugins().registry.all()
HEAD = "from __future__ import annotations\n"


def test_there_is_a_component_of_every_kind() -> None:
    assert {component.kind for component in REGISTERED} >= set(KINDS) - {"discriminator"}  # which has no built-in


@pytest.mark.filterwarnings("default")  # of the packages that backbones import
@pytest.mark.parametrize("component", REGISTERED, ids=lambda c: f"{c.kind}-{c.name}")
def test_the_source_says_what_python_says_of_a_constructor(component: Component) -> None:
    read = signature_of(component)
    seen = inspect.signature(component.load()).parameters.values()
    assert [(p.name, p.given) for p in read.parameters] == [(p.name, p.kind is p.KEYWORD_ONLY) for p in seen]
    assert {p.name: p.default for p in read.settable.values() if not p.required} == {
        p.name: p.default.name if is_default(p.default) else p.default
        for p in seen
        if p.default is not p.empty and p.kind is not p.KEYWORD_ONLY
    }
    assert read.doc == inspect.getdoc(component.load()) and read.doc
    assert read.version == getattr(component.load(), "version", 1)


@pytest.mark.parametrize(
    "name", [n for n, c in vars(settings).items() if inspect.isclass(c) and c.__module__ == settings.__name__]
)
def test_the_source_says_what_python_says_of_settings(name: str) -> None:
    read = read_class(Path(settings.__file__), name)
    seen = inspect.signature(getattr(settings, name)).parameters.values()
    assert len(read.parameters) > 0
    assert [p.name for p in read.parameters] == [p.name for p in seen]
    assert [p.default for p in read.parameters] == [MISSING if p.default is p.empty else p.default for p in seen]


def test_the_source_says_what_python_says_of_the_tiny_components(tiny: Tiny) -> None:
    for component in tiny.registry.all():
        if component.name == "broken":
            continue
        seen = inspect.signature(component.load()).parameters.values()
        assert [(p.name, p.given) for p in signature_of(component).parameters] == [
            (p.name, p.kind is p.KEYWORD_ONLY) for p in seen
        ]


def write(folder: Path, body: str) -> Path:
    file = folder / "written.py"
    file.write_text(HEAD + body, encoding="utf-8")
    return file


def test_annotations_become_types_and_texts(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "class A:\n    '''Does a thing.\n\n    In detail.\n    '''\n    version: ClassVar[int] = 4\n"
        "    def __init__(self, inner: Denoiser, n: Annotated[int, Ge(1)] = 2,\n"
        "                 how: Literal['a', 'b'] = 'a',\n"
        "                 where: Path | None = None, low: float = -1e-3, *, spec: WeightSpec): ...\n",
    )
    read = read_class(file, "A")
    inner, n, how, where, low, spec = read.parameters
    assert inner.annotation is SLOTS["Denoiser"] and inner.annotation.kind == "denoiser" and inner.required
    assert n.annotation == Annotated[int, Ge(1)] and n.default == 2
    assert how.annotation == Literal["a", "b"] and how.default == "a"
    assert where.annotation == Path | None and where.default is None and not where.required
    assert low.default == -1e-3
    assert spec.given and read.given == ["spec"]
    assert list(read.settable) == ["inner", "n", "how", "where", "low"]
    assert (read.name, read.doc, read.version, read.line) == ("A", "Does a thing.\n\nIn detail.", 4, 2)


def test_a_dataclass_is_read_by_its_fields(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "@dataclass(frozen=True)\nclass A:\n    version: ClassVar[int] = 2\n"
        "    n: int\n    rate: float = 0.5\n\n"
        "    def method(self): ...\n",
    )
    read = read_class(file, "A")
    assert [(p.name, p.required) for p in read.parameters] == [
        ("n", True),
        ("rate", False),
    ] and read.version == 2


def test_a_class_without_a_constructor_has_no_parameters_and_version_1(tmp_path: Path) -> None:
    read = read_class(write(tmp_path, "class A:\n    pass\n"), "A")
    assert (read.parameters, read.version, read.doc) == ((), 1, "")


REFUSED = {
    "x": "parameter 'x' has no annotation",
    "*args: int": "a component's constructor takes no *args or **kwargs",
    "**more: int": "a component's constructor takes no *args or **kwargs",
    "x: int, /": "a component's constructor takes no positional-only parameters",
    "x: ndarray": "x: ndarray: ndarray is not among int, float, bool, str, list, tuple,",
    "x: dict[str, Foo]": "x: dict[str, Foo]: Foo, dict is not among int,",
    "x: 'int'": "x: 'int': write the annotation without quotes",
    "x: list['int']": "x: list['int']: write the annotation without quotes",
    "x: int.nothing": "x: int.nothing: not a type: type object 'int' has no attribute 'nothing'",
    "x: int | 3": "x: int | 3: not a type: unsupported operand",
    "x: int = ONE": "the default of 'x' is not a literal: ONE",
    "x: float = 1 / 3": "the default of 'x' is not a literal: 1 / 3",
    "x: list[int] = list()": "the default of 'x' is not a literal: list()",
    "*, learning_rate: float": "keyword-only parameter 'learning_rate' is not among what the run gives: device,",
    "*, rate: float = 0.5": "keyword-only parameter 'rate' is not among what the run gives: device,",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_constructor_outside_the_rules_is_refused_with_its_reason(tmp_path: Path, arguments: str) -> None:
    file = write(tmp_path, f"class A:\n    def __init__(self, {arguments}): ...\n")
    with pytest.raises(UnreadableSignature) as caught:
        read_class(file, "A")
    assert str(caught.value).startswith(f"{file}: {REFUSED[arguments]}")


def test_a_file_or_class_that_is_not_there_or_not_python_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "class A: ...\n")
    with pytest.raises(UnreadableSignature, match=r"no class 'B'$"):
        read_class(file, "B")
    with pytest.raises(UnreadableSignature, match=r"cannot be read: .*No such file"):
        read_class(tmp_path / "missing.py", "A")
    (tmp_path / "bad.py").write_text("class A(:\n")
    with pytest.raises(UnreadableSignature, match="cannot be read: invalid syntax"):
        read_class(tmp_path / "bad.py", "A")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableSignature, match="cannot be read: "):
        read_class(tmp_path / "binary.py", "A")


@pytest.mark.parametrize("version", ["'2'", "2.5", "True"])
def test_a_version_that_is_no_whole_number_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(UnreadableSignature, match=r"class 'A': version .* is not a whole number"):
        read_class(write(tmp_path, f"class A:\n    version = {version}\n"), "A")


def test_reading_a_constructor_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "explosive.py").write_text(
        "raise SystemExit('imported')\nclass A:\n    def __init__(self, n: int = 3): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    read = signature_of(Component("denoiser", "a", "explosive:A", "p"))
    assert read.settable["n"].default == 3 and read.file == tmp_path / "explosive.py"
    assert "explosive" not in sys.modules


@pytest.mark.parametrize("module", ["wspace_no_such_module", "wspace.no_such", "wspace_no.such", ""])
def test_a_module_that_is_not_there_is_refused(module: str) -> None:
    with pytest.raises(UnreadableSignature, match=f"^no module {module!r}"):
        source_file(module)


def test_a_package_that_cannot_be_imported_is_a_fault_of_the_component(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "crashing").mkdir()
    (tmp_path / "crashing/__init__.py").write_text("1 / 0\n")
    (tmp_path / "crashing/inner.py").write_text("class A: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnreadableSignature, match=r"no module 'crashing.inner': division by zero"):
        source_file("crashing.inner")
