"""What a zoo is, in figures and as a data card: README.md with the front matter of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from wspace.support.quantities import counted
from wspace.support.yaml import dump
from wspace.weights.zoo.format import INDEX, StoredZoo

README = "README.md"
SHOWN = 6  # tensors
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def facts(zoo: StoredZoo) -> dict[str, Any]:
    """All of `wspace zoo info`."""
    header, entries = zoo.header, zoo.entries
    counts, classes, metrics = list[int](), set[str](), dict[str, list[float]]()
    for entry in entries:
        counts.append(len(entry.classes))
        classes.update(entry.classes)
        for name, value in entry.metrics.items():
            metrics.setdefault(name, []).append(value)
    return {
        "name": header.name,
        "networks": len(entries),
        "weights": zoo.spec.size,
        "bytes": _bytes(zoo),
        "shards": len(header.shards),
        "tensors": {t.name: [*t.shape] for t in header.tensors},
        "target": header.target,
        "products": len(header.products),
        "parents": [parent.name for parent in header.parents],
        "classes": len(classes),
        "classes_of_a_network": [min(counts), max(counts)] if counts else [0, 0],
        "texts_of_the_first": [*entries[0].texts] if entries else [],
        "metrics": {
            name: {"mean": sum(values) / len(values), "min": min(values), "max": max(values), "known": len(values)}
            for name, values in metrics.items()
        },
        "licence": header.licence,
        "source": header.source,
        "wspace": header.wspace,
        "sha256": header.sha256,
    }


def _bytes(zoo: StoredZoo) -> int:
    """Of its shards; where these lie elsewhere, of the tensors in them, since nothing is fetched for that."""
    if zoo.fetched is not None:
        return len(zoo.entries) * zoo.header.network_bytes
    files = [zoo.file(shard) for shard in zoo.header.shards]
    return sum(file.stat().st_size for file in files if file.is_file())


def summary(zoo: StoredZoo) -> str:
    """`facts` in lines for people."""
    info = facts(zoo)
    fewest, most = info["classes_of_a_network"]
    about = f"{_range(fewest, most)} of {info['classes']} classes each" if most else "no classes"
    lines = [
        f"{info['name']}: {counted(info['networks'], 'network')} of {counted(info['weights'], 'weight', form=',')}, "
        f"{info['bytes'] / 2**20:.1f} MiB",
        f"target   {_written(info['target']) or 'not known'}",
        f"tensors  {_listed([f'{name} {_shape(shape)}' for name, shape in info['tensors'].items()])}",
        f"tasks    {about}; the first: {'; '.join(info['texts_of_the_first'])}",
        *(f"metric   {name}: {_spread(values)}" for name, values in info["metrics"].items()),
        f"parents  {', '.join(info['parents']) or 'none'}",
        f"licence  {info['licence']}",
        f"source   {info['source']}, written by wspace {info['wspace']}",
    ]
    return "\n".join(lines)


def _listed(words: list[str]) -> str:
    """The first few, and how many there are."""
    more = [f"... ({len(words)} in all)"] if len(words) > SHOWN else []
    return ", ".join(words[:SHOWN] + more)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _written(target: dict[str, Any] | None) -> str:
    if target is None:
        return ""
    arguments = ", ".join(f"{key} {value}" for key, value in target.items() if key != "use")
    return f"{target['use']} ({arguments})" if arguments else str(target["use"])


def _spread(values: dict[str, Any]) -> str:
    known = counted(values["known"], "network")
    return f"{values['mean']:.3g} on average, {values['min']:.3g} to {values['max']:.3g} ({known})"


def card(zoo: StoredZoo) -> str:
    info, header = facts(zoo), zoo.header
    size = next((name for most, name in SIZES.items() if info["networks"] < most), "n>1M")
    front = {
        "pretty_name": info["name"],
        "license": header.licence,
        "tags": ["neural-network-weights", "weight-generation", "wspace"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": INDEX}],
    }
    weights = counted(info["weights"], "weight", form=",")
    rows = {
        "networks": f"{info['networks']:,}, of {weights} each ({info['bytes'] / 2**20:.1f} MiB)",
        "target": f"`{_written(info['target'])}`" if info["target"] else "not known",
        "tensors": _listed([f"`{name}` {_shape(shape)}" for name, shape in info["tensors"].items()]),
        "tasks": _tasks(info),
        **{name: _spread(values) for name, values in info["metrics"].items()},
        "started from": ", ".join(f"`{parent.file}`" for parent in header.parents) or "not known",
        "source": f"{header.source}, written by wspace {header.wspace}",
        "licence": header.licence if header.licence != "unknown" else "none was named: ask whoever made it",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    made_with = dump(header.made_with) if header.made_with else "nothing more is known\n"
    return CARD.format(
        front=dump(front), networks=info["networks"], name=info["name"], table=table, made_with=made_with
    )


def _tasks(info: dict[str, Any]) -> str:
    fewest, most = info["classes_of_a_network"]
    if not most:
        return "described in words"
    return f"{_range(fewest, most)} of {info['classes']} classes each"


CARD = """---
{front}---

# {name}

{networks} trained networks of one kind, and for each of them what it was trained for: pairs of texts and weights.

|  |  |
|---|---|
{table}

What the networks need beside their weights, as far as it is known:

```yaml
{made_with}```

## Files

`zoo.json` says what all networks share, `index.jsonl` has a line for each of them (texts, classes, metrics, seed, and
where its weights are), and the safetensors files hold of every tensor a stack: row i belongs to the i-th network of the
file. Every network has its sha256; `wspace zoo verify .` checks them all.

## Loading

With wspace, one network or all of them:

```python
from pathlib import Path

from wspace.api import StoredZoo

zoo = StoredZoo.open(Path("."))
print(zoo.entries[0].texts, zoo.read(0).keys())
weights = zoo.weights()  # (networks, weights)
```

Without it, reading nothing but the one:

```python
import json

from safetensors import safe_open

with open("index.jsonl", encoding="utf-8") as index:
    first = json.loads(next(index))
with safe_open(first["shard"], "pt") as shard:
    tensors = {{name: shard.get_slice(name)[first["row"]] for name in shard.keys()}}
print(first["texts"], tensors.keys())
```

In a recipe, in place of networks trained here: `zoo: {{source: PATH}}`.
"""
