"""What `wspace serve RUN` takes: `uv run python -m tests.support.measure_serve RUN` prints it in a minute or two.

Seconds until it listens, until the first answer after that, of an answer with 20 users at once, and memory over 1,000 calls.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.ports import kept_port
from tests.support.served import Client

USERS, CALLS, EVERY = 20, 1000, 100


def picture(file: Path) -> Path:
    """A PNG of noise."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    return file


def memory(process: int) -> float:
    """Resident, in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 1e6


def main(run: str, folder: Path, port: int) -> None:
    classes, file = ["book", "camera", "cloud"], picture(folder / "picture.png")
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from wspace.__main__ import run; run()", "serve", run, "--port", str(port)]

    def answered(number: int) -> float:
        """Seconds, of a user who comes and goes."""
        start = time.monotonic()
        with Client(address) as user:
            user.call("answer", classes=[*classes, f"thing {number}"], pictures=[user.upload(file)])
        return time.monotonic() - start

    began = time.monotonic()
    with subprocess.Popen([*command, "--rate", "1000000"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            server.stdout.readline()
            print(f"listens after {time.monotonic() - began:.1f} s; first answer {answered(0):.2f} s later", flush=True)
            with ThreadPoolExecutor(USERS) as users:
                seconds = list(users.map(answered, range(5 * USERS)))
            print(
                f"{USERS} users at once, {len(seconds)} answers, no error: {statistics.median(seconds):.2f} s the median, "
                f"{max(seconds):.2f} s the longest",
                flush=True,
            )
            print(f"memory after every {EVERY} of {CALLS} answers, MB:", end="", flush=True)
            with ThreadPoolExecutor(4) as users:
                for start in range(0, CALLS, EVERY):
                    list(users.map(answered, range(start, start + EVERY)))
                    print(f" {memory(server.pid):.0f}", end="", flush=True)
            print()
        finally:
            server.terminate()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, kept_port() as free:
        main(sys.argv[1], Path(scratch), free)
