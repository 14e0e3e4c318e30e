"""The card of a generator: what a finished run is to somebody who has nothing but its files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from wspace.data.splits import AS_READ
from wspace.recipes.plugins import BUILTIN
from wspace.recipes.schema import SLOTS
from wspace.runs.finished import report_of
from wspace.runs.run import Run
from wspace.support.cards import escaped, rendered
from wspace.support.methods import ORACLE, OURS
from wspace.uses.hub.remote import Place

PLAIN = re.compile(r"\w[\w -]*")
"""A class name that needs no quoting in an example."""

SHOWN = 20  # classes that the card names


def of_run(run: Run, place: Place, licence: str | None, *, whole: bool) -> str:
    """A page with front matter. `whole`: whether all that the run's stages left goes along."""
    recipe, tasks = run.recipe, run.zoo.tasks
    known = run.names_of(tasks.classes)
    sizes = sorted({len(task) for task in tasks.seen})
    example = [name for name in known if PLAIN.fullmatch(name)][:3]
    front = {
        "license": licence or "unknown",
        "library_name": "wspace",
        "tags": ["neural-network-weights", "weight-generation", "wspace"],
    }
    return rendered(
        TEMPLATE,
        front,
        name=escaped(recipe.name),
        target=_written(recipe.target.told()),
        weights=run.target.spec.size,
        generator=_written({"use": recipe.generator.name}),
        parameters=sum(parameter.numel() for parameter in run.system.parameters()),
        text=_written(recipe.text.told()),
        wording=recipe.wording.name,
        sentence=escaped(run.bench.templated(known[:1])[0]),
        backbone=_written(recipe.backbone.told()),
        dataset=_written(recipe.dataset.told()),
        known=[escaped(name) for name in known],
        shown=SHOWN,
        trained=len(tasks.seen),
        ways=f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}",
        accuracies=_accuracies(report_of(run.folder)["scores"]),
        licence=licence,
        backbone_licence=run.bench.backbone.licence,
        plugins=sorted({bound.component.plugin for bound in recipe.components(SLOTS)} - {BUILTIN}),
        whole=whole,
        place=place,
        classes=json.dumps(example, ensure_ascii=False),
        names=shlex.quote(", ".join(example)),
    )


def _written(block: Mapping[str, Any]) -> str:
    """A component in code: its name, and those of its arguments that are names and numbers."""
    plain = {key: value["use"] if isinstance(value, Mapping) else value for key, value in block.items() if key != "use"}
    arguments = [f"{key} {value}" for key, value in plain.items() if isinstance(value, str | int | float)]
    text = f"{block['use']} ({', '.join(arguments)})" if arguments else str(block["use"])
    return f"`{text}`" if "`" not in text and "|" not in text else escaped(text)


def _accuracies(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Split, accuracy of generated networks, and of such as were trained on pictures; none where none was scored."""
    cells = {(row["split"], row["method"]): row for row in scores if row["metric"] == "accuracy"}
    splits = dict.fromkeys(split for split, method in cells if method == OURS)
    ordered = sorted(splits, key=lambda split: AS_READ.index(split) if split in AS_READ else len(AS_READ))
    return [(split, _percent(cells.get((split, OURS))), _percent(cells.get((split, ORACLE)))) for split in ordered]


def _percent(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    return f"{100 * cell['mean']:.1f} [{100 * cell['ci_low']:.1f}, {100 * cell['ci_high']:.1f}]"


TEMPLATE = """\
# {{ name }}: classifiers from the names of their classes

A generator of weights: given the names of classes, it writes those of a network that tells them apart in pictures. Nothing is
trained for it. Made by [wspace](https://pypi.org/project/wspace/).

| | |
|---|---|
| writes | {{ target }}, {{ "{:,}".format(weights) }} weights |
| generator | {{ generator }}, {{ "{:,}".format(parameters) }} parameters |
| from what text | names of classes, by wording `{{ wording }}` as in “{{ sentence }}”, read by {{ text }} |
| sees pictures by | {{ backbone }}, frozen |
| trained on | {{ trained }} networks for tasks of {{ ways }} of {{ known | length }} classes of data set {{ dataset }} |
| classes | {{ known[:shown] | join(", ") }}{{ ", ..." if known | length > shown }} |
| licence | {{ licence or "none was named: ask whoever made it" }} |
| licence of the backbone | {{ backbone_licence }} |
| licences of text encoder and data set | wspace does not know them: ask their publishers |

## Expected accuracy

{% if accuracies %}
Accuracy in % on test pictures of the data set, with intervals over tasks. Those of `seen` tasks the generator was trained for,
`unseen-tasks` are other sets of the classes above, and `unseen-classes` have classes that nothing was trained on.

| tasks | generated | trained on pictures |
|---|---|---|
{% for split, ours, oracle in accuracies %}
| {{ split }} | {{ ours }} | {{ oracle }} |
{% endfor %}
{% else %}
The run's report scores no accuracy.
{% endif %}

`wspace generate` says what to expect of the classes that are asked for. `report.html` has every method that the generator was
compared with.

## How to load it

```sh
{% if plugins %}
# uses components of the plugins {{ plugins | join(", ") }}: install those first (`wspace plugins` lists what is there)
{% endif %}
wspace pull {{ place }} --out generator
wspace generate generator --classes {{ names }}
```

```python
import wspace

run = wspace.load("{{ place.address }}")
network = run.generate({{ classes }})
```

Every file's sha256 is in `wspace-hub.json`, and is checked before anything is used. Files are safetensors, JSON, YAML and
pages for people; loading them runs nothing.

{% if not whole %}
The zoo's networks, the opponents that were trained on pictures and the weights that the report is about are not here:
`wspace generate`, `score`, `predict`, `export` and `report` do without; studies, as `wspace enhance`, need them.
{% endif %}
"""
