"""Speed, measured side by side: wspace bench."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wspace.cli.options import Json, PluginFiles, RunFolder, Settings, engine_of, open_run, registry_of
from wspace.cli.run import bind_recipe
from wspace.support.quantities import counted

app = typer.Typer(
    help="Measure what the documentation claims of speed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


Busy = Annotated[
    bool, typer.Option("--busy", help="Processor time in place of time on the clock; say OMP_NUM_THREADS=1, too.")
]


def _threads(result: dict[str, Any]) -> str:
    return counted(result["threads"], "thread")


def _clock(busy: bool) -> Callable[[], float]:
    return time.process_time if busy else time.perf_counter


@app.command("zoo")
def bench_zoo(
    recipe: Annotated[str, typer.Option(help="Whose data and target.")] = "t2w",
    settings: Settings = None,
    heads: Annotated[int, typer.Option(min=1)] = 64,
    steps: Annotated[int, typer.Option(min=1)] = 60,
    busy: Busy = False,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Networks trained together against a loop over networks.

    And against what the machine allows.
    """
    bound = bind_recipe(recipe, settings, plugin)
    from wspace.runs.workbench import Workbench
    from wspace.support.progress import for_terminal
    from wspace.uses.bench.zoo import zoo

    result = zoo(Workbench(bound, for_terminal()), heads, steps, _clock(busy))
    if as_json:
        print(json.dumps(result))
    else:
        print(
            f"{counted(result['heads'], 'head')}, {counted(result['steps'], 'step')}, {_threads(result)}: "
            f"{result['head_steps_per_second']:,.0f} head-steps a second, {result['speedup']:.1f} x as fast as a loop over "
            f"heads, {result['speedup_fused']:.1f} x if its Adam is fused"
        )
        print(
            f"{result['speedup_through_backbone']:.0f} x as fast as heads trained through the backbone, features of all images "
            f"counted (scaled from {counted(result['batches_through_backbone'], 'batch', 'batches')} and these steps to the "
            "recipe's zoo)"
        )
        print(f"{result['share_of_roof']:.0%} of what this machine's products and memory allow")


@app.command("roof")
def bench_roof(busy: Busy = False, as_json: Json = False) -> None:
    """What this machine multiplies and moves at most.

    It takes a few seconds.
    """
    from wspace.uses.bench.roof import roof

    result = roof(clock=_clock(busy))
    if as_json:
        print(json.dumps(result))
        return
    print("GFLOP/s: float32  bfloat16")
    for row in result["flops_per_second"]:
        print(f"{row['float32'] / 1e9:16.1f}  {row['bfloat16'] / 1e9:8.1f}  {row['what']}")
    print(f"memory: {result['bytes_per_second'] / 1e9:.1f} GB/s; {_threads(result)}")


@app.command("step")
def bench_step(
    recipe: Annotated[str, typer.Option(help="Whose generator, losses and batch.")] = "paper/t2w-cifar100",
    settings: Settings = None,
    features: Annotated[int, typer.Option(min=1, help="Width of an image's features.")] = 512,
    texts: Annotated[int, typer.Option(min=1, help="Width of a text's vector.")] = 512,
    phase: Annotated[
        Literal["train", "task"], typer.Option(help="The generator's own loss, or the task loss.")
    ] = "train",
    steps: Annotated[int, typer.Option(min=1, help="Of each kind, after one that is not timed.")] = 3,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """A step of training against the same step written plainly.

    Of a recipe's generator, on random numbers.
    """
    bound = bind_recipe(recipe, settings, plugin)
    from wspace.support.progress import for_terminal
    from wspace.uses.bench.step import step

    result = step(bound, {"feature_dim": features, "text_dim": texts}, steps, for_terminal(), phase)
    if as_json:
        print(json.dumps(result))
        return
    print(f"{result['recipe']}, {result['phase']}: {result['batch']}, {result['device']}, {_threads(result)}\n")
    print("        parameters  precision  s/step  processor s/step")
    for who in ("plain", "ours"):
        print(
            f"{who:6}  {result['parameters'][who]:10,}  {result['precision'][who]:9}  {result['seconds'][who]:6.3f}  "
            f"{result['processor_seconds'][who]:16.3f}"
        )
    clock, processor = result["speedup"]["seconds"], result["speedup"]["processor_seconds"]
    print(f"\n{clock:.2f} x as fast by the clock, {processor:.2f} x by processor time")


@app.command("engine")
def bench_engine(
    recipe: Annotated[str, typer.Option(help="Whose zoo.")] = "t2w",
    settings: Settings = None,
    engine: Annotated[str, typer.Option(metavar="NAME")] = "local",
    workers: Annotated[int, typer.Option(min=2, help="Beside one alone, each of one thread.")] = 2,
    networks: Annotated[int, typer.Option(min=1, help="In a shard.")] = 128,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """A zoo by one worker of an engine, and by several."""
    bound = bind_recipe(recipe, settings, plugin)
    from wspace.support.progress import for_terminal

    registry = registry_of(plugin)

    def of(count: int) -> Any:
        return engine_of({"use": engine, "workers": count}, registry)

    of(workers)  # what is wrong with it is told before torch is imported
    from wspace.uses.bench.engine import engines

    result = engines(bound, of, workers, networks, for_terminal())
    if as_json:
        print(json.dumps(result))
        return
    for row in result["rows"]:
        print(
            f"{counted(row['workers'], 'worker')}: {row['networks_per_second']:.1f} networks/s; "
            f"a piece of work costs {1000 * row['seconds_per_empty_piece']:.1f} ms, {row['overhead']:.2%} of a shard's time"
        )
    print(f"{result['engine']}: {result['speedup']:.2f} x as fast with {workers} workers as with one")


@app.command("gpu")
def bench_gpu(
    recipe: Annotated[str, typer.Option(help="Whose sizes.")] = "paper/t2w-cifar100",
    settings: Settings = None,
    heads: Annotated[int, typer.Option(min=1, help="Of the zoo whose hours are told.")] = 36_000,
    together: Annotated[
        list[int] | None, typer.Option(min=1, help="Heads trained at once, again for more; 64 and 1024 if none.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed, of the zoo's and of the generator's training.")] = 200,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of its steps, with which every stage is run.")] = 0.01,
    classes: Annotated[int, typer.Option(min=2, help="Of the random data set.")] = 100,
    images: Annotated[int, typer.Option(min=1, help="Of each class, for training.")] = 450,
    feature_dim: Annotated[int, typer.Option(min=1, help="Of the backbone that is left out.")] = 512,
    text_dim: Annotated[int, typer.Option(min=1, help="Of the text encoder that is left out.")] = 512,
    side: Annotated[int, typer.Option(min=1, help="Of the matrices whose product says what the device can do.")] = 8192,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """A recipe's device at the recipe's sizes, on random features.

    It needs no images and no encoders.
    """
    bound = bind_recipe(recipe, settings, plugin)
    from wspace.support.progress import for_terminal
    from wspace.uses.bench.gpu import Without, gpu

    bench = Without(bound, for_terminal(), classes, images, feature_dim, text_dim)
    result = gpu(bench, heads=heads, together=together or (64, 1024), steps=steps, share=share, side=side)
    if as_json:
        print(json.dumps(result))
        return
    print(f"{result['recipe']} on {result['device']}: networks of {result['weights']} weights")
    print(f"a product in bfloat16: {result['tflops_of_a_product']:.1f} TFLOP/s")
    for row in result["zoo"]:
        print(
            f"zoo, {row['together']} together: {row['heads_per_second']:.1f} heads/s; "
            f"{counted(heads, 'head')} in {row['hours']:.2f} h"
        )
    if (train := result["train"]) is not None:
        waits = "" if train["waits_per_step"] is None else f", {train['waits_per_step']:g} waits for the device"
        print(
            f"generator: {1000 * train['seconds_per_step']:.1f} ms a step, {train['networks_per_second']:.0f} networks/s, "
            f"{train['share_of_a_product']:.1%} of the product's rate{waits}; all steps in {train['hours']:.2f} h"
        )
    print(f"stages with {share:g} of the steps (s):", ", ".join(f"{k} {v:.1f}" for k, v in result["stages"].items()))


@app.command("training")
def bench_training(
    recipe: Annotated[str, typer.Option(help="Whose generator.")] = "t2w",
    settings: Settings = None,
    steps: Annotated[int, typer.Option(min=1, help="At a time, five times by one process and five by all.")] = 10,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """A generator's training by one process, and by several.

    The several are those of a launcher: start it by torchrun.
    """
    from wspace.support.errors import UserError
    from wspace.support.processes import connected, launched

    if launched().count == 1:
        start = "torchrun --standalone --nproc_per_node 2 --no-python wspace bench training"
        raise UserError(f"bench training: there is one process; start several: {start}")
    bound = bind_recipe(recipe, settings, plugin)
    from wspace.uses.bench.training import training

    with connected(bound.device) as processes:
        result = training(bound, processes, steps)
    if launched().rank:
        return
    if as_json:
        print(json.dumps(result))
        return
    for who, seconds, spent in zip(
        ("one process", f"{result['processes']} processes"), result["seconds"], result["processor_seconds"], strict=True
    ):
        print(f"{who}: {1000 * seconds:.1f} ms a step, {1000 * spent:.1f} ms of processor time each")
    print(
        f"batches of {result['batch']}: {result['speedup']:.2f} x as fast, {result['speedup_by_processor_time']:.2f} x by "
        "processor time"
    )


@app.command("store")
def bench_store(
    networks: Annotated[
        list[int] | None, typer.Option(min=1, help="Of a zoo, again for more; 2000 and 200000 if none.")
    ] = None,
    together: Annotated[int, typer.Option(min=1, help="Networks in a shard.")] = 1000,
    as_json: Json = False,
) -> None:
    """Zoos of few networks and of many, on disk.

    Time and memory of opening, verifying and sampling.
    """
    from wspace.support.progress import for_terminal
    from wspace.uses.bench.store import store

    result = store(networks or (2_000, 200_000), together, for_terminal())
    if as_json:
        print(json.dumps(result))
        return
    print(f"networks of {result['weights']} weights, {together} in a shard; batches of {result['batch']} random ones\n")
    print("networks  made (s)  opened (s)  verified (s)  batch (ms)  MiB before  verified  sampled")
    for row in result["rows"]:
        print(
            f"{row['networks']:8}  {row['seconds_making']:8.1f}  {row['seconds_opening']:10.2f}  "
            f"{row['seconds_verifying']:12.2f}  {1000 * row['seconds_of_a_batch']:10.1f}  {row['mib_before']:10.0f}  "
            f"{row['mib_verified']:8.0f}  {row['mib_sampled']:7.0f}"
        )
    print(f"memory of the greatest over the least, opened and verified: {result['memory']:.3f}")


@app.command("scaling")
def bench_scaling(
    recipe: Annotated[
        str, typer.Option(help="Made larger, setting by setting; nano begins with 128 concepts and 64 tasks.")
    ] = "nano",
    settings: Settings = None,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """How time and memory grow with a recipe's sizes.

    Sizes are tasks, classes, tokens, width and batches.
    """
    enough = ["dataset.concepts=128", "tasks.seen=64"] if recipe == "nano" else []  # for tasks of 32 classes

    def of(setting: str) -> Any:
        return bind_recipe(recipe, [*enough, *(settings or ()), setting], plugin)

    bind_recipe(recipe, [*enough, *(settings or ())], plugin)  # what is wrong with it is told before torch is imported
    from wspace.support.progress import for_terminal
    from wspace.uses.bench.scaling import scaling

    result = scaling(of, for_terminal())
    if as_json:
        print(json.dumps(result))
        return
    print(f"slopes of log-log lines, 1 is linear; {result['confidence']:.0%} intervals; {_threads(result)}\n")
    print("by       what is done       sizes           ms                        time               memory")
    for row in result["rows"]:
        slopes = (
            f"{its['slope']:.2f} [{its['low']:.2f}, {its['high']:.2f}]"
            for its in (row["time_slope"], row["memory_slope"])
        )
        sizes, seconds = row["sizes"], row["seconds"]
        print(
            f"{row['axis']:8} {row['work']:18} {f'{sizes[0]} to {sizes[-1]}':15} "
            f"{f'{1000 * seconds[0]:.1f} to {1000 * seconds[-1]:.1f}':18} {'   '.join(f'{text:>17}' for text in slopes)}"
        )
    print(f"\nworse than linear: {', '.join(result['worse']) or 'nothing'}")


@app.command("samplers")
def bench_samplers(
    run: RunFolder,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Unseen tasks; all that the report is about if none.")
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(min=0, help="Scale of the random draws, again for more; 0 and 1 if none.")
    ] = None,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """A run's generator with few sampling steps and many."""
    opened = open_run(run, plugin)
    from wspace.uses.bench.samplers import samplers

    result = samplers(opened, tasks, temperature or (0.0, 1.0))
    if as_json:
        print(json.dumps(result))
        return
    finest = f"{result['finest']['sampler']} {result['finest']['steps']}"
    print(
        f"{result['run']}: {result['tasks']} {result['split']}, {result['device']}, {_threads(result)}; "
        f"accuracy (%) and its paired difference from {finest}, with {result['confidence']:.0%} intervals\n"
    )
    head = ("accuracy", "difference", "speed-up")
    print(f"temperature  sampler       steps  s/network  {head[0]:>19}  {head[1]:>19}  {head[2]}")
    for row in result["rows"]:
        print(
            f"{row['temperature']:<11g}  {row['sampler']:12}  {row['steps']:5}  {row['seconds_per_network']:9.4f}  "
            f"{_interval(row['accuracy'], '.1f'):>19}  {_interval(row['difference'], '+.1f'):>19}  {row['speedup']:6.1f} x"
        )


@app.command("roundtrip")
def bench_roundtrip(
    run: RunFolder,
    model: Annotated[str, typer.Option(help="Of timm.")] = "resnet50",
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """A large network through a run's tokenizer and back.

    Of random weights: memory, time, and what is lost.
    """
    opened = open_run(run, plugin)
    from wspace.uses.bench.roundtrip import roundtrip

    result = roundtrip(opened, model)
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"{result['model']}, {result['parameters']:,} parameters, {result['tokens']:,} tokens of {result['token_width']} "
        f"values: {result['seconds']:.0f} s, {result['mib_peak']:.0f} MiB at most ({result['mib_before']:.0f} before); "
        f"{result['error']:.1%} of the weights' size is lost"
    )


@app.command("matching")
def bench_matching(
    pairs: Annotated[int, typer.Option(min=1, help="Of networks, each from a seed of its own.")] = 3,
    width: Annotated[int, typer.Option(min=1)] = 256,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 600,
    model: Annotated[
        str | None, typer.Option(help="Of timm: time and memory of matching two of random weights, instead.")
    ] = None,
    peer: Annotated[
        bool, typer.Option("--peer", help="Beside Git Re-Basin's weight matching, written plainly.")
    ] = False,
    turns: Annotated[int, typer.Option(min=1, help="Of each way, one after the other; medians are printed.")] = 1,
    as_json: Json = False,
) -> None:
    """Barriers between networks, before and after matching.

    The networks are trained independently of each other.
    """
    from wspace.support.progress import for_terminal
    from wspace.uses.bench.matching import of_digits, of_model

    if model is None:
        result = of_digits(pairs, width, depth, steps, for_terminal(), peer, turns)
    else:
        result = of_model(model, peer, turns)
    if as_json:
        print(json.dumps(result))
    elif model is not None:
        print(
            f"{model}, {result['parameters']:,} parameters, {counted(result['axes'], 'axis', 'axes')}: "
            f"{result['seconds']['weights']:.0f} s, {result['mib_peak']:.0f} MiB at most ({result['mib_before']:.0f} before)"
        )
        for how, seconds in result["seconds"].items() if peer else ():
            of = f"{seconds:.1f} s, {result['processor_seconds'][how]:.1f} s of the processor"
            print(f"{how}: {of}, cosine {result['cosine'][how]:.4f} ({result['cosine']['before']:.4f} before)")
    else:
        print(f"widths {'-'.join(map(str, result['widths']))}; barriers of the cross-entropy\n")
        ways = [*result["rows"][0]["seconds"]]
        print("seeds  images  before  " + "  ".join(f"{how + ' matched':>19}" for how in ways))
        for number, row in enumerate(result["rows"]):
            for part, barrier in row["barrier"].items():
                left = {how: "" if share is None else f" ({share:.1%})" for how, share in row["left"][part].items()}
                matched = "  ".join(f"{f'{barrier[how]:.3f}{left[how]}':>19}" for how in ways)
                print(f"{2 * number}, {2 * number + 1:<3} {part:6}  {barrier['before']:6.3f}  {matched}")
        if peer:
            print("\nseeds  " + "  ".join(f"{how:>26}" for how in ways) + "   (seconds, and of the processor)")
            for number, row in enumerate(result["rows"]):
                both = (f"{row['seconds'][how]:.3f} ({row['processor_seconds'][how]:.3f})" for how in ways)
                print(f"{2 * number}, {2 * number + 1:<3} " + "  ".join(f"{text:>26}" for text in both))


@app.command("adapters")
def bench_adapters(
    run: RunFolder,
    count: Annotated[int, typer.Option("--adapters", min=1, help="At most: one for each unseen task.")] = 64,
    images: Annotated[int, typer.Option(min=1, help="Each adapter is applied to.")] = 32,
    turns: Annotated[int, typer.Option(min=1, help="Of each way, one after the other; medians are printed.")] = 5,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Generated LoRA adapters, loaded and switched, beside PEFT."""
    _check_adapters(run, plugin)
    opened = open_run(run, plugin)
    from wspace.uses.bench.adapters import adapters

    result = adapters(opened, count, images, turns)
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"{counted(result['adapters'], 'adapter')} of {result['parameters']:,} values, {counted(result['images'], 'image')}; "
        "adapters a second\n"
    )
    print("              wspace      peft")
    for what, seconds in result["seconds"].items():
        ours, peers = (result["adapters"] / seconds[who] for who in ("wspace", "peft"))
        print(f"{what:10}  {ours:8.0f}  {peers:8.0f}")
    print(f"greatest difference between their scores, over the greatest score: {result['difference']:.1e}")


def _check_adapters(run: Path, plugins: list[Path] | None) -> None:
    """Before torch is imported. Raises NotARun, UserError for a run of another target than `lora`, and MissingPackage."""
    from importlib.util import find_spec

    from wspace.recipes.plugins import load_plugins
    from wspace.runs.finished import recipe_of
    from wspace.support.errors import MissingPackage, UserError

    if recipe_of(run, load_plugins(plugins or ()).registry).target.name != "lora":
        raise UserError(f"bench adapters: {run} has no LoRA adapters: name a run of a recipe with target lora")
    if find_spec("peft") is None:
        raise MissingPackage('bench adapters needs PEFT: pip install "wspace[lora]"')


def _interval(summary: dict[str, float], form: str) -> str:
    mean, low, high = (f"{100 * summary[name]:{form}}" for name in ("mean", "ci_low", "ci_high"))
    return f"{mean} [{low}, {high}]"
