"""`wspace serve`: the page in a browser, its endpoints as programs call them, and what is refused."""

from __future__ import annotations

import base64
import gc
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from wspace_serve.answers import Answers
from wspace_serve.command import check_gradio, launched

from tests.conftest import Wspace, cache, common, inside, made_once, nano, placed, run_once  # noqa: F401 (fixtures)
from tests.support.ports import kept_port
from tests.support.served import Client
from wspace.api import Run, UserError

# ruff: noqa: F811 (a fixture that is asked for is no redefinition)
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Gradio leaves sockets open
CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")
SCRIPT = "<img src=/nowhere onerror=\"document.title='taken over'\">"


@pytest.fixture(scope="module")
def answers(placed: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(Run.open(placed), tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="module")
def address(answers: Answers) -> Iterator[str]:
    """Of a page that listens in this process."""
    check_gradio()
    with kept_port() as port:
        page = launched(answers, port, rate=100_000)
        yield f"http://127.0.0.1:{port}"
        page.close(verbose=False)
    gc.collect()  # while its warnings are none of another test's


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def pictures(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A picture of each of the example's classes."""
    images, folder = answers.run.bench.images, tmp_path_factory.mktemp("pictures")
    files = []
    for number, name in enumerate(answers.example):
        row = int(np.flatnonzero(images.labels == images.classes.index(name))[0])
        files.append(folder / f"{number}.png")
        Image.fromarray(images.read([row])[0]).save(files[-1])
    return files


def sentence(refused: pytest.ExceptionInfo[RuntimeError]) -> str:
    return str(refused.value)


# ---------------------------------------------------------------- endpoints


def test_classes_are_described_as_the_run_has_them(client: Client, answers: Answers) -> None:
    described = client.call("describe", classes=[answers.example[0], "otter"])
    assert [(one["name"], one["kind"]) for one in described["classes"]] == [
        (answers.example[0], "known"),
        ("otter", "far"),
    ]
    expected = answers.run.expected_accuracy([answers.example[0], "otter"])
    assert expected is not None and described["expected_accuracy"] == vars(expected)


def test_an_answer_is_what_the_run_predicts_beside_the_universal_head(
    client: Client, answers: Answers, pictures: list[Path]
) -> None:
    named = client.call("answer", classes=answers.example, pictures=[client.upload(file) for file in pictures])
    universal = answers.run.universal(answers.example)
    assert universal is not None
    for head, network in (("generated", answers.run.generate(answers.example)), ("universal", universal)):
        predicted = answers.run.predict(network, pictures)
        assert [one[head]["class"] for one in named] == [one.best for one in predicted]
        assert list(named[0][head]["probabilities"].values()) == pytest.approx(predicted[0].probabilities, abs=1e-6)
    assert [one["picture"] for one in named] == ["0.png", "1.png", "2.png", "3.png"][: len(pictures)]


def test_pictures_of_a_class_change_its_head(client: Client, answers: Answers, pictures: list[Path]) -> None:
    path = client.upload(pictures[0])
    asked = {"classes": ["otter", answers.example[1]], "pictures": [path]}
    by_words, shown = client.call("answer", **asked), client.call("answer", **asked, examples={"otter": [path]})
    assert shown[0]["generated"]["probabilities"]["otter"] > by_words[0]["generated"]["probabilities"]["otter"]
    with pytest.raises(RuntimeError, match="there are pictures of 'crab', which is none of the classes asked for"):
        client.call("answer", **asked, examples={"crab": [path]})


def test_where_a_head_looks_is_a_square_of_numbers(client: Client, answers: Answers, pictures: list[Path]) -> None:
    pytest.importorskip("pytorch_grad_cam")
    (one,) = client.call("look", classes=answers.example, pictures=[client.upload(pictures[0])])
    seen = np.array(one["map"])
    assert seen.ndim == 2 and seen.shape[0] == seen.shape[1] and seen.min() >= 0 and seen.max() <= 1


def test_a_head_forms_in_steps_with_their_accuracy(client: Client, answers: Answers) -> None:
    steps = client.call("forming", classes=answers.example)
    assert [step["number"] for step in steps] == list(range(1, len(steps) + 1))
    assert all(0 <= step["accuracy"] <= 1 and step["probabilities"] is None for step in steps)
    assert client.call("forming", classes=["otter", "crab"])[0]["accuracy"] is None


def test_a_head_and_its_classifier_are_files_to_download(
    client: Client, address: str, answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.call("export", classes=answers.example, format="safetensors")
    file = tmp_path / "head.safetensors"
    file.write_bytes(client.http.get(address + made["url"]).content)
    assert answers.run.load_network(file).classes == tuple(answers.example) and made["bytes"] == file.stat().st_size

    def export(network: object, to: str, out: Path, **_: object) -> SimpleNamespace:  # the real ones take seconds
        out.mkdir()
        (out / "card.md").write_text(to)
        return SimpleNamespace(as_json=lambda: {"same": 3, "out": str(out)})

    monkeypatch.setattr(answers.run, "export", export)
    made = client.call("export", classes=answers.example, format="huggingface")
    assert made["url"].endswith("head-huggingface.zip") and made["same"] == 3
    assert client.http.get(address + made["url"]).content.startswith(b"PK")


@pytest.mark.slow
def test_twenty_users_at_once_are_all_answered(address: str, answers: Answers, pictures: list[Path]) -> None:
    def ask(number: int) -> str:
        with Client(address) as user:
            classes = [*answers.example[:2], f"thing {number}"]
            return user.call("answer", classes=classes, pictures=[user.upload(pictures[0])])[0]["generated"]["class"]

    with ThreadPoolExecutor(20) as users:
        assert len(list(users.map(ask, range(20)))) == 20


# ---------------------------------------------------------------- what is refused


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too many classes": (
        {"classes": [f"class {number}" for number in range(500)]},
        "500 class names are too many for this page: at most 100 are taken",
    ),
    "a long name": (
        {"classes": ["x" * 101, "y"]},
        "the class name 'xxxxxxxxxxxxxxxxxxxx'... has 101 letters, and at most 100 are taken",
    ),
    "no class": ({"classes": []}, "no classes: name two or more"),
    "one class": ({"classes": ["book"]}, "one class ('book') leaves nothing to tell apart: name two or more"),
    "a class twice": ({"classes": ["book", "book"]}, "the class 'book' is named twice"),
    "no list": ({"classes": "book"}, 'classes are a list of names, as in ["book", "camera"]'),
    "no names": ({"classes": [1, None]}, 'classes are a list of names, as in ["book", "camera"]'),
    "markup": (
        {"classes": [SCRIPT]},
        "one class ('&lt;img src=/nowhere onerror=\"document.title=\\'taken over\\'\"&gt;') leaves nothing to tell apart: "
        "name two or more",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_class_names_are_one_sentence(case: str, client: Client) -> None:
    arguments, message = REFUSED[case]
    with pytest.raises(RuntimeError) as refused:
        client.call("describe", **arguments)
    assert sentence(refused) == message


def test_bad_pictures_are_one_sentence_and_the_server_goes_on(
    client: Client, answers: Answers, tmp_path: Path, pictures: list[Path]
) -> None:
    outside, broken = tmp_path / "outside.png", tmp_path / "broken.png"
    shutil.copy(pictures[0], outside)
    broken.write_bytes(pictures[0].read_bytes()[:200])
    path = client.upload(pictures[0])
    for given, said in (
        ([], "no picture: add one or more to be named"),
        ([path] * 17, "17 pictures are too many at once: at most 16 are taken"),
        ([str(outside)], "outside.png: not a picture that was uploaded here: upload it first, and give the path answered"),
        ([f"{answers.uploads}/../etc/passwd"], "passwd: not a picture that was uploaded here: "
            "upload it first, and give the path answered"),
        ([f"{answers.uploads}/none.png"], "none.png: cannot be read as a picture: there is no such file"),
        ([client.upload(broken)], "broken.png: cannot be read as a picture: "),
        ([7], "pictures are a list of the paths that their upload answered"),
        ([{"path": "http://example.com/x.png"}], "pictures are taken as uploaded files, not as addresses"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError) as refused:
            client.call("answer", classes=answers.example, pictures=given)
        assert sentence(refused).startswith(said)
        assert sentence(refused) == said or said.endswith(": ")
    assert client.call("answer", classes=answers.example, pictures=[path])


def test_what_an_export_cannot_be_is_said_in_the_words_of_the_call(client: Client, answers: Answers) -> None:
    for given, said in (
        ({"format": "onx"}, f"no format 'onx': there are {', '.join(answers.formats)}"),
        ({"format": "torch", "precision": "int4"}, "precision int4: exporter 'torch' writes float32 alone."),
        ({"format": "torch", "examples": [7]}, 'examples are pictures of classes, written {"book": [PATH, ...]}'),
    ):
        with pytest.raises(RuntimeError) as refused:
            client.call("export", classes=answers.example, **given)
        assert sentence(refused) == said


def test_the_server_says_nothing_of_what_it_refuses(client: Client, capfd: Any) -> None:
    for name in ("book", "star"):  # the second is answered when all is done that the first brings about
        with pytest.raises(RuntimeError, match="leaves nothing to tell apart"):
            client.call("describe", classes=[name])
    assert "".join(capfd.readouterr()) == ""


def test_an_answer_without_pictures_is_refused_in_a_sentence_alone(client: Client, capfd: Any) -> None:
    answer = client.http.post("/call/v2/answer", json={"classes": ["book", "camera"]})
    sentence = "the call failed: No value provided for required argument: pictures"
    assert (answer.status_code, answer.json()) == (400, {"detail": sentence})
    assert "".join(capfd.readouterr()) == ""


def test_a_picture_of_fifty_megabytes_is_refused_in_a_sentence(client: Client) -> None:
    answer = client.http.post("/upload", files={"files": ("large.png", b"\0" * 50_000_000)})
    assert answer.status_code == 413 and "exceeded maximum allowed size" in answer.text


def test_calls_that_are_none_are_refused_and_the_server_goes_on(client: Client, address: str) -> None:
    other = "there may be no such endpoint, or it takes other arguments"
    for endpoint, arguments, why in (
        ("nowhere", {}, other),
        ("describe", {}, "No value provided for required argument: classes"),
        ("describe", {"classes": [], "more": 1}, other),
    ):
        with pytest.raises(RuntimeError, match=f"the call failed: {why}"):
            client.call(endpoint, **arguments)
    form = client.http.post("/call/v2/describe", data={"classes": "book"})
    assert (form.status_code, form.json()) == (
        415, {"detail": "send the call as JSON: with the header Content-Type: application/json"},
    )  # fmt: skip
    wrong = client.http.post("/call/v2/describe", content=b"nonsense")
    assert (wrong.status_code, wrong.json()) == (400, {"detail": "the call is no JSON"})
    large = client.http.post("/call/v2/describe", json={"classes": ["x" * 2**20]})
    assert (large.status_code, large.json()) == (413, {"detail": "too large: a call has at most 1 MB"})
    other = httpx.get(address, headers={"Host": "example.com"}, trust_env=False)
    assert (other.status_code, other.text) == (400, "Invalid host header")
    assert client.call("describe", classes=["book", "camera"])


def test_what_goes_wrong_inside_is_told_on_the_terminal_alone(
    client: Client, answers: Answers, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(answers, "describe", broken)
    with pytest.raises(RuntimeError) as refused:
        client.call("describe", classes=["book", "camera"])
    assert sentence(refused) == "the server failed at this, and goes on; its terminal says why"
    assert "ZeroDivisionError: a fault" in capfd.readouterr().err


def test_a_run_that_goes_by_words_alone_says_so(nano: Path, answers: Answers, pictures: list[Path]) -> None:
    by_words = Answers.__new__(Answers)
    by_words.__dict__ = {**vars(answers), "run": Run.open(nano), "_heads": {}}
    uploaded = answers.uploads / "given.png"
    shutil.copy(pictures[0], uploaded)
    with pytest.raises(UserError, match="'prior-fusion' goes by words alone and takes no pictures"):
        by_words.head(answers.example, {answers.example[0]: [str(uploaded)]})


def test_files_to_download_are_removed_in_time(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = answers.export(answers.example, "safetensors")
    assert file.is_file()
    os.utime(file.parent, (0, 0))
    answers.export(answers.example, "safetensors")
    assert not file.exists()


def test_so_many_heads_are_kept_and_no_more(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answers.head(answers.example)
    assert answers.head(answers.example) is first
    monkeypatch.setattr("wspace_serve.answers.HEADS", 2)
    for number in range(3):
        answers.head(["book", f"thing {number}"])
    assert len(answers._heads) == 2 and answers.head(answers.example) is not first


# ---------------------------------------------------------------- the command


def test_a_port_in_use_is_one_sentence(inside: Wspace, placed: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = inside("serve", placed, "--port", port)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: port {port} of 127.0.0.1 cannot be had (Address already in use): name another with --port\n"
    )


def test_without_gradio_it_is_said_what_to_install(
    inside: Wspace,
    placed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = inside("serve", placed)
    assert done.returncode == 2
    assert done.stderr == "error: wspace serve needs the package 'gradio', which is not installed: pip install gradio\n"


def test_the_command_is_offered_and_nothing_heavy_is_imported_for_it() -> None:
    script = (
        "import sys; from wspace.recipes.plugins import load_plugins; "
        "print(load_plugins().commands['serve'].summary()); sys.exit(bool({'torch', 'gradio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("A page on a run, and a JSON API")


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """An open page; at the end, that nothing went wrong in it and that it asked nothing of another host."""
    page, wrong = browser.new_page(viewport={"width": 360, "height": 800}), list[str]()
    page.set_default_timeout(60_000)  # milliseconds: as machines are that do much else
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda asked: wrong.append(asked.url) if not asked.url.startswith((address, "data:", "blob:")) else None,
    )
    page.goto(address)
    names(page).wait_for()
    yield page
    page.close()
    assert wrong == []


@in_browser
def test_type_drop_answer_download(page: Any, answers: Answers, pictures: list[Path], tmp_path: Path) -> None:
    names(page).fill(f"{answers.example[0]}, {answers.example[1]}, otter, {SCRIPT}")
    page.locator(".ws-far", has_text=SCRIPT).wait_for()
    assert (
        page.locator(".ws-chip.ws-known").count() == 2
        and "accuracy to expect" in page.locator(".ws-expected").inner_text()
    )
    drop(page, "#pictures [aria-dropeffect]", pictures[0])
    page.locator("#pictures img").first.wait_for()
    page.get_by_label("Show where the head looks").check()
    page.get_by_role("button", name="Name the pictures").click()
    page.locator(".ws-card").wait_for()
    assert page.locator(".ws-best").first.inner_text() in answers.example
    assert page.locator(".ws-card h4").all_inner_texts() == ["Generated head", "Universal head"]
    assert page.locator(".ws-card figure").count() == 2  # the picture, and where the head looks
    page.get_by_role("button", name="Watch the head form").click()
    page.get_by_role("button", name="Sample it step by step").click()
    page.locator(".ws-steps li").first.wait_for()
    page.get_by_role("button", name="Download").click()
    page.get_by_role("button", name="Make the file").click()
    with page.expect_download() as download:
        page.locator("a[download]").click()
    download.value.save_as(tmp_path / "head.safetensors")
    with safe_open(tmp_path / "head.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["wspace"])["classes"][3] == SCRIPT
    assert page.title() == "wspace nano" and page.evaluate("document.documentElement.scrollWidth") == 360


@in_browser
@pytest.mark.slow
def test_by_keyboard_alone_with_pasted_pictures_and_another_description(
    page: Any, answers: Answers, pictures: list[Path]
) -> None:
    tab_to(page, "textarea")
    page.keyboard.press("Control+A")
    page.keyboard.type(", ".join(answers.example[:2]))
    paste(page, pictures[0])
    page.locator("#pictures img").first.wait_for()
    tab_to(page, "button:has-text('Compare with another description')")
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name=re.compile("^Other class names")).wait_for()
    tab_to(page, "textarea")
    page.keyboard.type("otter, crab")
    page.keyboard.press("Enter")
    page.locator(".ws-card h4", has_text="Other description, generated head").wait_for()
    assert page.locator(".ws-card h4").count() == 4


@in_browser
@pytest.mark.slow
def test_pictures_are_added_for_a_class(page: Any, answers: Answers, pictures: list[Path]) -> None:
    page.get_by_role("button", name="Pictures of a class").click()
    page.get_by_label("Class", exact=True).click()
    page.get_by_role("option", name=answers.example[0]).click()
    drop(page, "#examples [aria-dropeffect]", pictures[0])
    page.locator(".ws-chip", has_text="known, 1 picture").wait_for()


@in_browser
@pytest.mark.slow
def test_what_is_refused_is_read_on_the_page(page: Any) -> None:
    names(page).fill(", ".join(map(str, range(500))))
    page.locator(".ws-hint", has_text="500 class names are too many for this page: at most 100 are taken").wait_for()


def names(page: Any) -> Any:
    """Where class names are typed."""
    return page.get_by_role("textbox", name=re.compile("^Class names"))


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(
            "selector => document.activeElement.matches(selector)", selector.partition(":has-text")[0]
        ) and (
            ":has-text" not in selector or selector.split("'")[1] in page.evaluate("document.activeElement.innerText")
        ):
            return
    raise AssertionError(f"the keyboard does not get to {selector}")


TRANSFER = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: "image/png"}));
  return transfer;
}"""


def given(page: Any, file: Path) -> Any:
    """A picture as a browser hands it over."""
    return page.evaluate_handle(TRANSFER, [file.name, base64.b64encode(file.read_bytes()).decode()])


def drop(page: Any, selector: str, file: Path) -> None:
    page.locator(selector).first.dispatch_event("drop", {"dataTransfer": given(page, file)})


def paste(page: Any, file: Path) -> None:
    page.evaluate(
        "transfer => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true}))",
        given(page, file),
    )
