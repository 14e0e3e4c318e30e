"""Laws of engines: every piece is done and answered for, and what goes wrong in one is heard of."""

from __future__ import annotations

import json
import os.path

from wspace.interfaces import Engine
from wspace.testing.law import check
from wspace.testing.subject import Subject

PIECES = [f"folder {number}/piece {number % 3}" for number in range(20)]


@check("engine")
def check_does_every_piece(subject: Subject) -> None:
    """Each is answered for once, with what the function makes of it; then others are, and none where there are none."""
    engine = _opened(subject)
    try:
        for pieces in (PIECES, PIECES[:1], []):
            answers = list(engine.work(os.path.dirname, pieces))
            wanted = [(number, os.path.dirname(piece)) for number, piece in enumerate(pieces)]
            subject.hold(
                sorted(answers) == wanted,
                f"of {len(pieces)} pieces, each should be answered for once with what came of it, and answers are {answers}",
            )
    finally:
        engine.close()


@check("engine")
def check_raises_what_a_piece_raises(subject: Subject) -> None:
    engine = _opened(subject)
    try:
        answers = list(engine.work(json.loads, ["{"]))
    except ValueError:
        return
    finally:
        engine.close()
    subject.hold(False, f"an error in a piece should be raised here, and the answers are {answers}")


def _opened(subject: Subject) -> Engine:
    engine: Engine = subject.build(subject.instances[0].around)
    engine.open()
    return engine
