"""What stands before Gradio: it refuses in a sentence, and lets all else through as it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from wspace_serve import drawing, gate
from wspace_serve.gate import Gate
from wspace_serve.page import split


def behind(calls_a_minute: int = 100) -> TestClient:
    """An application that gives back what it is sent, behind the gate."""

    async def echo(request: Request) -> Response:
        body = await request.body()
        if body == b'"fail"':
            raise KeyError("nowhere")
        return JSONResponse({"size": len(body)})

    application = Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])
    application.add_middleware(Gate, calls_a_minute=calls_a_minute)
    return TestClient(application)


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


def test_a_call_goes_through_as_it_came_and_the_page_asks_nothing_of_other_hosts() -> None:
    answer = behind().post("/", json={"path": "/tmp/picture.png"})
    assert answer.json() == {"size": len(answer.request.content)}
    assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]


def test_more_calls_than_the_rate_are_refused_until_a_minute_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now, client = [1000.0], behind(calls_a_minute=2)
    monkeypatch.setattr(gate.time, "monotonic", lambda: now[0])
    assert [client.post("/", json=1).status_code for _ in range(2)] == [200, 200]
    sentence = "more than 2 calls in a minute: wait a moment, and try again"
    assert refused(client.post("/", json=1)) == (429, sentence)
    assert client.get("/").status_code == 200  # a page may be read
    now[0] += 61
    assert client.post("/", json=1).status_code == 200


@pytest.mark.parametrize("given", [{"path": "http://a/b.png"}, [{"data": [{"path": "https://a/b.png", "meta": {}}]}]])
def test_an_address_in_place_of_a_file_is_refused(given: Any) -> None:
    sentence = "pictures are taken as uploaded files, not as addresses"
    assert refused(behind().post("/", json=given)) == (422, sentence)


def test_sizes_and_what_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(behind().post("/", content=b"x" * (2**20 + 1))) == (413, "too large: a call has at most 1 MB")
    assert refused(behind().post("/", content=b"[" * 100_000)) == (400, "the call is no JSON")
    monkeypatch.setattr(gate, "UPLOAD_BYTES", 2**21)
    many = {"files": ("large.png", b"x" * 2**22)}
    assert refused(behind().post("/", files=many)) == (413, "too large: a call has at most 2 MB")


def test_a_call_that_fails_inside_is_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    sentence = "the call failed: there may be no such endpoint, or it takes other arguments"
    assert refused(behind().post("/", json="fail")) == (400, sentence)
    assert capfd.readouterr().err == "/: KeyError: 'nowhere'\n"


def test_class_names_are_split_as_they_are_typed() -> None:
    assert split(" otter,  red \t panda,\n\ncrab,, ") == ["otter", "red panda", "crab"]


def test_what_users_wrote_is_text_on_the_page() -> None:
    script, picture = "<script>alert(1)</script>", {"data": "data:,", "alt": '"><b>', "caption": "<i>"}
    standing = {"name": script, "kind": "far", "nearest": "<u>", "likeness": 0.5}
    drawn = drawing.chips([standing], None, {script: 2}, "<p>") + drawing.hint(script)
    drawn += drawing.answers([{"pictures": [picture], "heads": {"<h1>": {script: 1.0}}}]) + drawing.header(script, 2)
    assert not any(markup in drawn for markup in ("<script", "<b>", "<i>", "<u>", "<h1>&", "<p>&", '"">'))
    assert drawn.count("&lt;script&gt;") >= 5 and "2 pictures" in drawn


def test_styles_and_templates_are_part_of_the_package() -> None:
    assert {"page.css", "paste.js", "chips.html"} <= {file.name for file in Path(drawing.STATIC).iterdir()}
