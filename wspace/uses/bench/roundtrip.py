"""A large network through a tokenizer and back: memory, time, and what is lost."""

from __future__ import annotations

import time
from typing import Any

from wspace.data.encoders.timm import fresh
from wspace.interfaces.weights import plain_spec
from wspace.runs.run import Run
from wspace.support.memory import peak_mib
from wspace.support.seeding import seeded


def roundtrip(run: Run, model: str) -> dict[str, Any]:
    """A model of timm, of random weights, through a run's trained tokenizer and back, tensor by tensor.

    `mib_peak` is the most memory that this process has had, `mib_before` that before the first tensor was taken, with the
    model in it. `error` is the root mean square of what was lost, over that of the weights. Raises UserError for a tokenizer
    that cannot take one tensor at a time.
    """
    with seeded(0):
        network = fresh("bench roundtrip", model, 1000)
    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    spec = plain_spec({name: tuple(tensor.shape) for name, tensor in state.items()})
    tokenizer = run.recipe.tokenizer.build({"spec": spec, "text_dim": run.zoo.dims["text_dim"]})
    tokenizer.load_state_dict(run.system.tokenizer.state_dict())
    tokenizer.eval()
    before, started = peak_mib(), time.perf_counter()
    tokens, lost, size = 0, 0.0, 0.0
    for name, tensor in state.items():
        made, back = tokenizer.through(name, tensor.reshape(1, -1))
        tokens += made.shape[1]
        lost += float((back - tensor.reshape(1, -1)).square().sum())
        size += float(tensor.square().sum())
    return {
        "benchmark": "roundtrip",
        "model": model,
        "parameters": spec.size,
        "tokens": tokens,
        "token_width": tokenizer.layout.width,
        "error": (lost / size) ** 0.5,
        "seconds": time.perf_counter() - started,
        "mib_before": before,
        "mib_peak": peak_mib(),
    }
