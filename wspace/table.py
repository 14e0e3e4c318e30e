"""The report as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ORDER = (
    "oracle", "generated", "ridge", "retrieval", "zoo-mean", "base", "universal", "noise", "mismatched", "random",
)  # fmt: skip
"""Methods as a reader wants them: the bound, ours, then opponents from strong to weak by their nature."""


def print_table(report: Mapping[str, Any]) -> None:
    """Accuracy (%) with intervals, and weight errors; `generated` stands out."""
    from rich.console import Console
    from rich.table import Table

    scores = {(s["method"], s["split"], s["metric"]): s for s in report["scores"]}
    splits = list(dict.fromkeys(split for _, split, _ in scores))
    metrics = list(dict.fromkeys(metric for _, _, metric in scores))
    found = list(dict.fromkeys(method for method, _, _ in scores))
    table = Table(title=f"{report['recipe']}, seed {report['seed']}", title_justify="left")
    table.add_column("method")
    for split in splits:
        for metric in metrics:
            table.add_column(f"{split}\n{metric}{' %' if metric == 'accuracy' else ''}", justify="right")
    for method in sorted(found, key=lambda m: ORDER.index(m) if m in ORDER else len(ORDER)):
        cells = [_cell(scores.get((method, split, metric))) for split in splits for metric in metrics]
        table.add_row(method, *cells, style="bold" if method == "generated" else None)
    Console(width=None if Console().is_terminal else 110).print(table)


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    if score["metric"] == "accuracy":
        return f"{100 * score['mean']:.1f}  [{100 * score['ci_low']:.1f}, {100 * score['ci_high']:.1f}]".replace(
            "[", "\\["
        )
    return f"{score['mean']:.3g}"
