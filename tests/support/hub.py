"""A model hub in this process: as much of the Hugging Face hub's protocol as its client needs, without Xet.

It can let connections drop in the middle of a file, refuse commits, and have its files tampered with.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_a_test"


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    commits: int = 0

    @property
    def commit(self) -> str:
        """Of the files as they are now."""
        named = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in self.files.items())
        return hashlib.sha1(repr(named).encode()).hexdigest()


@dataclass
class Hub:
    """What is on it, and what it was asked for."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)  # `user/name` or `datasets/user/name`
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by their sha256, committed or not
    drops: dict[str, int] = field(default_factory=dict)  # name of a file -> how often its connection drops half-way
    refused: int = 0  # so many commits are answered with an error
    requests: list[tuple[str, str]] = field(default_factory=list)  # method and path
    served: Counter[str] = field(default_factory=Counter)  # of each file, how many bytes

    def asked(self, method: str, part: str) -> list[str]:
        return [path for verb, path in self.requests if verb == method and part in path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    @property
    def trusted(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str) -> Repository | None:
        """None, once it is answered, where there is none for whoever asks."""
        there = self.hub.repositories.get(name)
        if there is None or (there.private and not self.trusted):
            self.answer(404, {}, X_Error_Code="RepoNotFound")
            return None
        return there

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        body = self.body()
        for method, pattern, name in ROUTES:
            if (match := re.fullmatch(pattern, path)) and self.command in method:
                getattr(self, name)(body, **match.groupdict())
                return
        self.answer(404, {"error": f"the stand-in knows no {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    # ---------------------------------------------------------------- sending

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        if not self.trusted:
            self.answer(401, {"error": "Invalid credentials"})
            return
        if asked["organization"] == "others":
            self.answer(403, {"error": "You may not write there"})
            return
        name = ("datasets/" if asked["type"] == "dataset" else "") + f"{asked['organization']}/{asked['name']}"
        new = name not in self.hub.repositories
        if new:
            self.hub.repositories[name] = Repository(
                private=asked.get("visibility") == "private" or bool(asked.get("private"))
            )
        self.answer(200 if new else 409, {"url": f"{self.hub.address}/{name}"})

    def validate(self, body: bytes) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, type: str, name: str) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith((".safetensors", ".onnx")) else "regular"

        files = [
            {"path": file["path"], "uploadMode": mode(file["path"]), "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        objects = []
        for asked in json.loads(body)["objects"]:
            there = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.stored:
                there["actions"] = {"upload": {"href": f"{self.hub.address}/large/{asked['oid']}"}}
            objects.append(there)
        self.answer(200, {"objects": objects, "transfer": "basic"})

    def upload(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self.answer(200, {})

    def commit(self, body: bytes, type: str, name: str) -> None:
        there = self.repository(_full(type, name))
        if there is None:
            return
        if self.hub.refused:
            self.hub.refused -= 1
            self.answer(503, {"error": "The hub is tired"})
            return
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                there.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                there.files[value["path"]] = self.hub.stored[value["oid"]]
        there.commits += 1
        url = f"{self.hub.address}/{_full(type, name)}/commit/{there.commit}"
        self.answer(200, {"commitUrl": url, "commitOid": there.commit})

    # ---------------------------------------------------------------- fetching

    def info(self, body: bytes, type: str, name: str, revision: str | None = None) -> None:
        there = self.repository(_full(type, name))
        if there is None:
            return
        if revision not in (None, "main", there.commit):
            self.answer(404, {}, X_Error_Code="RevisionNotFound")
            return
        siblings = [{"rfilename": path} for path in there.files]
        self.answer(200, {"id": name, "sha": there.commit, "private": there.private, "tags": [], "siblings": siblings})

    def tree(self, body: bytes, type: str, name: str, revision: str) -> None:
        there = self.repository(_full(type, name))
        if there is not None:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in there.files.items()
            ]
            self.answer(200, entries)

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        there = self.repository(name)
        if there is None:
            return
        if path not in there.files:
            self.answer(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=there.commit)
            return
        content, headers = there.files[path], {"X_Repo_Commit": there.commit}
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        status, start = (206, int(asked[1])) if asked else (200, 0)
        if asked:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET" and self.hub.drops.get(path):
            self.hub.drops[path] -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            half = (len(content) - start) // 2
            self.hub.served[path] += half
            self.wfile.write(content[start : start + half])
            self.wfile.flush()
            self.close_connection = True
            return
        if self.command == "GET":
            self.hub.served[path] += len(content) - start
        self.answer(status, content[start:], **headers)


def _full(type: str, name: str) -> str:
    return f"datasets/{name}" if type == "dataset" else name


OF_API = r"/api/(?P<type>model|dataset)s/(?P<name>[^/]+/[^/]+)"
ROUTES = [
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("POST", OF_API + "/preupload/main", "preupload"),
    ("POST", OF_API + "/commit/main", "commit"),
    ("POST", r"/(?P<name>.+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", "/large/(?P<oid>[0-9a-f]{64})", "upload"),
    ("GET", OF_API, "info"),
    ("GET", OF_API + "/revision/(?P<revision>[^/]+)", "info"),
    ("GET", OF_API + "/tree/(?P<revision>[^/]+)", "tree"),
    ("GET HEAD", r"/(?P<name>(datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


@contextlib.contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, with a token and a cache in `folder`, in place of the one that everybody has."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HandlerOfOne", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub-cache"))
    for name, value in {
        "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(name="hub")
def hub_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of this test's alone."""
    with serving(tmp_path, monkeypatch) as hub:
        yield hub
