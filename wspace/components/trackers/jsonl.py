"""Curves as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wspace.interfaces import Tracker
from wspace.support.files import write_bytes


class Jsonl(Tracker):
    """A file of lines while the training is under way, and the report's figures beside it.

    A line has `config`, `phase` or `table`; that of a phase has the numbers of one step. The `log.jsonl` of stage train, which
    every run has, comes when the training is done, and without learning rates.
    """

    def start(self, name: str, identity: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> None:
        self.folder = folder / identity
        self.folder.mkdir(exist_ok=True)
        self.file = (self.folder / "log.jsonl").open("a", encoding="utf-8")
        if not resumed:
            self._write({"config": config, "name": name})

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        self._write({"phase": phase, "step": step, **values})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        self._write({"table": name, "rows": [dict(zip(columns, row, strict=True)) for row in rows]})

    def figure(self, name: str, png: bytes, caption: str) -> None:
        write_bytes(self.folder / f"{name}.png", png)

    def flush(self) -> bool:
        self.file.flush()
        return True

    def finish(self, done: bool) -> None:
        self.file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
