"""The command line as a process of its own: `wspace`, and `python -m wspace` for launchers that start modules."""

from __future__ import annotations

import atexit
import os
import sys
import threading

from wspace.cli import main


def run() -> None:
    """Run the command line and end the process, as a rule at once.

    Python ends by taking its modules apart, one by one: a quarter of a second once torch is there, after which the system
    frees all of it anyway. What was left to be done at the end (`atexit`) is done first.
    """
    status = 0
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        status = end.code or 0
    if _somebody_is_left():
        sys.exit(status)
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        sys.exit(status)  # Python tells of it
    os._exit(status)


def _somebody_is_left() -> bool:
    """Whether somebody works still, as a tracker that sends, or looks on, as a profiler: they have the last word."""
    watched = sys.gettrace() or sys.getprofile() or sys.flags.inspect
    return threading.active_count() > 1 or bool(watched)


if __name__ == "__main__":
    run()
