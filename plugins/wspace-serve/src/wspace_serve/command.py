"""`wspace serve`: a run as a page on this machine. Gradio is imported when it is called."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wspace.api import PluginFiles, Run, RunFolder, UserError
from wspace_serve import limits
from wspace_serve.answers import Answers

if TYPE_CHECKING:
    import gradio as gr

HOST = "127.0.0.1"
AGE = 600  # seconds that an uploaded picture stays
SESSIONS = 100  # that are remembered, and each call of a program is one


def serve(
    run: RunFolder,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens, on 127.0.0.1.")] = 7860,
    rate: Annotated[int, typer.Option(min=1, help="Calls a minute, of all users together; more are refused.")] = 1200,
    plugin: PluginFiles = None,
) -> None:
    """A page on a run, and a JSON API.

    Name classes, drop pictures, see what the generated head makes of them.
    """
    check_port(port)
    opened = Run.open(run, plugin or ())
    check_gradio()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was uploaded is removed
    with tempfile.TemporaryDirectory(prefix="wspace-serve-") as uploads, contextlib.suppress(KeyboardInterrupt):
        page = launched(Answers(opened, Path(uploads)), port, rate)
        try:
            print(f"http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def check_gradio() -> None:
    """Raises UserError unless Gradio is installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"  # it keeps a record of each call
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"wspace serve needs the package {error.name!r}, which is not installed: pip install gradio"
        ) from error


def check_port(port: int) -> None:
    """Raises UserError for a port that nothing can listen on."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST} cannot be had ({error.strerror}): name another with --port"
            ) from error


def launched(answers: Answers, port: int, rate: int) -> gr.Blocks:
    """The page, listening; its `close` ends it."""
    os.environ["GRADIO_TEMP_DIR"] = str(answers.uploads)
    # After so many events: never. After each that fails, it would make a table of all, which nobody here can see.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(sys.maxsize)
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from wspace_serve.drawing import STATIC
    from wspace_serve.gate import Gate
    from wspace_serve.page import THEME, build

    page = build(answers)
    page.delete_cache = (60, AGE)
    page.queue(max_size=limits.WAITING, api_open=False, default_concurrency_limit=1)
    page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        inline=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        num_workers=0,
        state_session_capacity=SESSIONS,
        footer_links=[],
        max_file_size=limits.PICTURE_BYTES,
        theme=THEME,
        css_paths=STATIC / "page.css",
        head=f"<script>{(STATIC / 'paste.js').read_text(encoding='utf-8')}</script>",
        app_kwargs={
            "middleware": [
                # No page of another host may ask this one, under whatever name it calls it.
                Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
                Middleware(Gate, calls_a_minute=rate),
            ]
        },
    )
    return page
