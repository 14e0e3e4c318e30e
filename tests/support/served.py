"""The endpoints of `wspace serve`, as a program calls them."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx


class Client(AbstractContextManager["Client"]):
    """Of a page at an address."""

    def __init__(self, address: str):
        self.http = httpx.Client(base_url=f"{address}/gradio_api", timeout=120, trust_env=False)

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def upload(self, file: Path) -> str:
        """The path of an uploaded picture."""
        return self.http.post("/upload", files={"files": (file.name, file.read_bytes())}).json()[0]

    def call(self, endpoint: str, **arguments: Any) -> Any:
        """What an endpoint answers. Raises RuntimeError for a sentence in its place."""
        asked = self.http.post(f"/call/v2/{endpoint}", json=arguments)
        if asked.is_error:
            raise RuntimeError(asked.json()["detail"])
        answer = self.http.get(f"/call/v2/{endpoint}/{asked.json()['event_id']}")
        *_, event, data = [line for line in answer.text.splitlines() if line]
        given = json.loads(data.removeprefix("data: "))
        if event != "event: complete":
            raise RuntimeError(given["error"])
        return given[0]
