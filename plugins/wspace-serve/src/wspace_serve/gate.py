"""What stands before Gradio: limits on size and rate, no address in place of a file, and headers that keep the page here."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wspace_serve.limits import CALL_BYTES, UPLOAD_BYTES

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'self'"
)
"""For browsers: nothing is asked of any other host."""


class Gate:
    """Middleware that refuses what no answer should come of, in a sentence, before Gradio reads it."""

    def __init__(self, app: ASGIApp, calls_a_minute: int):
        self.app, self.calls_a_minute = app, calls_a_minute
        self._calls: deque[float] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        try:
            if scope["method"] == "POST":
                receive = await self._admitted(scope, receive)
            await self.app(scope, receive, guarded)
        except Refused as refusal:
            await JSONResponse({"detail": refusal.sentence}, refusal.status)(scope, receive, guarded)
        except Exception as error:  # Gradio's, of a call that names no endpoint or has other arguments
            lacking = str(error).startswith("No value provided for required argument")
            if not lacking:  # which is the caller's fault, and told there
                print(f"{scope['path']}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if started:  # as of an event that ended or never began: what has been answered ends here
                with suppress(RuntimeError):  # shorter than its header said: the server closes the connection
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            sentence = "the call failed: there may be no such endpoint, or it takes other arguments"
            if lacking:
                sentence = f"the call failed: {error}"
            await JSONResponse({"detail": sentence}, 400)(scope, receive, guarded)

    async def _admitted(self, scope: Scope, receive: Receive) -> Receive:
        """What to read the call from. Raises Refused."""
        self._count()
        kind = Headers(scope=scope).get("content-type", "")
        if kind.startswith("multipart/"):
            return _at_most(UPLOAD_BYTES, receive)
        if kind.startswith("application/x-www-form-urlencoded"):  # what curl says where nobody says otherwise
            raise Refused(415, "send the call as JSON: with the header Content-Type: application/json")
        body, limited = b"", _at_most(CALL_BYTES, receive)
        while True:
            message = await limited()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        try:
            given = json.loads(body) if body else None
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the call is no JSON") from error
        if any("://" in path for path in _paths(given)):
            raise Refused(422, "pictures are taken as uploaded files, not as addresses")
        whole = iter([{"type": "http.request", "body": body}])

        async def again() -> Message:
            return next(whole, None) or await receive()

        return again

    def _count(self) -> None:
        now = time.monotonic()
        while self._calls and self._calls[0] < now - 60:
            self._calls.popleft()
        if len(self._calls) >= self.calls_a_minute:
            calls = "one call" if self.calls_a_minute == 1 else f"{self.calls_a_minute} calls"
            raise Refused(429, f"more than {calls} in a minute: wait a moment, and try again")
        self._calls.append(now)


class Refused(Exception):
    """An answer in a sentence, also where Gradio is reading already."""

    def __init__(self, status: int, sentence: str):
        self.status, self.sentence = status, sentence


def _at_most(size: int, receive: Receive) -> Receive:
    """As `receive`, which raises Refused when so many bytes were read."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > size:
            raise Refused(413, f"too large: a call has at most {size // 2**20} MB")
        return message

    return limited


def _paths(given: Any) -> Iterator[str]:
    """Every string called `path` in some JSON: Gradio would fetch one that is an address."""
    open_ = [given]
    while open_:
        value = open_.pop()
        if isinstance(value, dict):
            open_ += value.values()
            if isinstance(value.get("path"), str):
                yield value["path"]
        elif isinstance(value, list):
            open_ += value
