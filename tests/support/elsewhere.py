"""Folders that lie elsewhere: in fsspec's memory, and on a web server of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec


def into_memory(folder: Path, name: str) -> str:
    """A folder's files, copied; their address."""
    fsspec.filesystem("memory").put(f"{folder}/", f"/{name}", recursive=True)
    return f"memory://{name}"


class _Handler(SimpleHTTPRequestHandler):
    asked: list[str]  # the files that were asked for

    def do_GET(self) -> None:
        self.asked.append(self.path.rpartition("/")[2])
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def on_the_web(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a folder, and the files of it that were asked for."""
    asked = list[str]()
    handler = type("Handler", (_Handler,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
