"""What generating the weights of a large model would take, by its shapes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from wspace.data.encoders.timm import fresh
from wspace.data.prompts import prompts_of
from wspace.interfaces import TokenLayout
from wspace.interfaces.weights import plain_spec
from wspace.learning.parts import SHARD, first_of, where_of
from wspace.learning.system import System
from wspace.recipes.schema import BoundRecipe
from wspace.runs.checking import check
from wspace.runs.measured import FLOAT
from wspace.runs.rates import blank_context, resident, tried
from wspace.runs.workbench import Workbench
from wspace.support.progress import Progress
from wspace.support.seeding import stream

CALLED = 10
"""Bytes of a process that trains or calls one network at a time, for each byte of its weights: they, their gradient, two
moments and an average, and what they are put together from. By the peaks of runs of recipes/whole/resnet18.yaml."""

TRIED = (
    64,
    320,
)  # tokens whose drawing is timed; a whole network's are as many times as long as the later ones of these


def plan_of_model(recipe: BoundRecipe, model: str, bench: Workbench | None = None) -> dict[str, Any]:
    """A model of timm under a recipe's tokenizer and generator: tokens, memory and time. Of it there are only shapes.

    It has as many outputs as the recipe's networks, and is for pictures of timm's own size. Time is that of the last of a few
    hundred tokens, on this machine; where later tokens look further back, it is more. Raises UserError for a recipe that a run
    would refuse, before anything is timed, and for a model that timm has not.
    """
    bench = bench or Workbench(recipe, Progress())
    check(recipe, bench.target, bench.dims())
    outputs = recipe.target.arguments.get("outputs") or bench.text.dim
    with torch.device("meta"):
        network = fresh("plan --model", model, outputs)
    shapes = {n: tuple(t.shape) for n, t in network.state_dict().items() if t.is_floating_point() and t.numel()}
    spec = plain_spec(shapes)
    given: dict[str, Any] = {"spec": spec, "text_dim": bench.text.dim, "target": bench.target}
    tokenizer, conditioner = recipe.tokenizer.build(given), recipe.conditioner.build(given)
    layout: TokenLayout = tokenizer.layout
    in_parts = recipe.train.tokens is not None
    if in_parts:
        where_of(layout)
    prompts = prompts_of([(0, 1)], torch.eye(2, bench.text.dim), ["0", "1"])
    seconds, state, directions = {}, 0, 0
    for count in TRIED:
        part = (
            layout.part(torch.arange(count))
            if in_parts
            else replace(
                layout, mask=layout.mask[:count], places=None if layout.places is None else layout.places[:count]
            )
        )
        widths = {"condition_width": conditioner.width, "pooled_width": conditioner.pooled_width}
        system = System(spec, tokenizer, conditioner, recipe.generator.build(given | {"layout": part} | widths)).eval()
        system.tell(blank_context(bench.text.dim, bench.backbone.dim))
        with torch.no_grad():
            condition = system.condition(prompts)
            null = conditioner.null(condition)
            seconds[count] = tried(
                lambda g=system.generator, c=condition, n=null: g.sample(c, n, recipe.generate, stream(0, "plan"))
            ).seconds
        directions = system.generator.directions if in_parts else 0
        if directions:  # which no longer look at so many tokens in its file
            system.generator.at(first_of(layout), torch.zeros(1, layout.width))
        state = sum(t.numel() for t in system.state_dict().values())
    a_token = (seconds[TRIED[1]] - seconds[TRIED[0]]) / (TRIED[1] - TRIED[0])
    # through a tokenizer one tensor goes at a time; in parts, some tokens
    at_once = SHARD * layout.width if in_parts else max(entry.size for entry in spec.entries)
    return {
        "model": model,
        "outputs": outputs,
        "weights": spec.size,
        "tokens": layout.count,
        "token_width": layout.width,
        "parameters": state,
        "memory": resident()
        + layout.count * layout.width * (1 if in_parts else 8)
        + (4 + directions) * at_once * FLOAT,
        "one_network": CALLED * spec.size * FLOAT if in_parts else None,
        "seconds": a_token * layout.count,
        "tokens_per_second": 1 / a_token,
    }
