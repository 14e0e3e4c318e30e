"""The command line. Bodies import what they need: `wspace --help` must not wait for torch."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wspace import cli_spec, cli_uses

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two torch processes on few cores would starve each other

app = typer.Typer(
    help="Neural-network weights from a description.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
bench = typer.Typer(
    help="Measure what the documentation claims of speed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(bench, name="bench")

app.add_typer(cli_uses.app)
app.add_typer(cli_spec.app)

Recipe = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged recipe.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the recipe.")
]
PluginFiles = Annotated[list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="A one-file plugin.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def main() -> None:
    """Run the command line; errors a user can mend are one message and an exit status, never a traceback."""
    from wspace.errors import WspaceError

    try:
        if app(standalone_mode=False) == 130:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()
    except WspaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except (BrokenPipeError, SystemExit) as error:  # the reader of our output went away, as `head` does
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # typer makes a SystemExit of a broken pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("click", "typer") or not hasattr(error, "exit_code"):
            raise
        print(f"error: {error.format_message()}", file=sys.stderr)  # type: ignore[attr-defined]
        sys.exit(2)


def _bind(recipe: str, settings: list[str] | None, plugins: list[Path] | None) -> Any:
    """A recipe."""
    from wspace.errors import UserError
    from wspace.joint import Joint
    from wspace.study import Study

    bound = _bind_any(recipe, settings, plugins)
    if isinstance(bound, Study | Joint):
        what = "a study" if isinstance(bound, Study) else "a joint recipe"
        raise UserError(f"{bound.file}: {what}, of which `run`, `check` and `report` know what to do; name its recipe")
    return bound


def _bind_any(recipe: str, settings: list[str] | None, plugins: list[Path] | None) -> Any:
    """A recipe, a study or a joint recipe."""
    from wspace.bind import bind
    from wspace.joint import bind_joint, is_joint
    from wspace.recipe import find_recipe, read_recipe
    from wspace.study import bind_study, is_study

    registry = _registry(plugins)
    file = find_recipe(recipe)
    source = read_recipe(file)
    if is_study(source):
        return bind_study(source, registry, settings or ())
    if is_joint(source):
        return bind_joint(source, registry, settings or ())
    return bind(read_recipe(file, settings or ()), registry)


def _registry(plugins: list[Path] | None) -> Any:
    """What is registered. Plugins that cannot be used are told, and stop nobody."""
    from wspace.plugins import load_plugins

    loaded = load_plugins(plugins or ())
    for fact in loaded.broken:
        print(f"warning: plugin {fact.name!r} cannot be used: {fact.error}", file=sys.stderr)
    return loaded.registry


@app.command()
def run(
    recipe: Recipe,
    settings: Settings = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    dry: Annotated[bool, typer.Option("--dry", help="Say what would run, and why.")] = False,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")] = None,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Run this stage and those after it again.")
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """Do what a recipe says: zoo, opponents, train, generate, evaluate, report."""
    from wspace import joint, pipeline, processes, progress, study
    from wspace.store import Store

    bound = _bind_any(recipe, settings, plugin)
    if isinstance(bound, study.Study | joint.Joint):
        _run_several(bound, runs, dry, only, force)
        return
    if processes.launched().rank:  # started by torchrun or accelerate, to help the first process
        if not dry:
            from wspace.stages.train import follow

            follow(bound)
        return
    if dry:
        plan = pipeline.steps(bound, Store(runs / bound.name), force or ())
        for step in plan if only is None else [pipeline.only_step(plan, only)]:
            _print_step(step)
        return
    with processes.leading(bound):
        folder, plan = pipeline.run(bound, runs, progress.for_terminal(), force=force or (), only=only)
    if all(step.action == "cached" for step in plan):
        print("nothing has changed: no stage had to run")
    if (folder / pipeline.RUN).is_file() and only is None:
        from wspace.run import write_page

        write_page(folder)
        _print_report(folder)
    print(folder)


def _run_several(bound: Any, runs: Path, dry: bool, only: str | None, force: list[str] | None) -> None:
    """A study, or a joint recipe."""
    from wspace import joint, processes, progress, study
    from wspace.errors import UserError

    kind, what = (study, "a study") if isinstance(bound, study.Study) else (joint, "a joint recipe")
    if processes.launched().count > 1:
        raise UserError(f"{what} runs in one process: start it without torchrun or accelerate")
    if only is not None:
        raise UserError(f"--only: {what} runs all stages of its members")
    if dry:
        for name, plan in kind.plan(bound, runs, force or ()).items():
            print(name)
            for step in plan:
                _print_step(step)
        return
    folder, plan = kind.run(bound, runs, progress.for_terminal(), force or ())
    if all(step.action == "cached" for step in plan):
        print("nothing has changed: no stage had to run")
    _print_report(folder)
    print(folder)


def _print_step(step: Any) -> None:
    state = {"cached": "cached", "link": "will link", "run": "will run"}[step.action]
    print(f"{step.stage.name:9} {state:9} {step.why}")


@app.command()
def check(
    recipe: Recipe,
    settings: Settings = None,
    fill: Annotated[bool, typer.Option("--fill", help="Print the recipe with every default written out.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Every problem of a recipe at once, with file, line and the nearest known name."""
    from wspace.bind import BoundRecipe
    from wspace.errors import UserError
    from wspace.recipe import dump

    bound = _bind_any(recipe, settings, plugin)
    if fill and not isinstance(bound, BoundRecipe):
        raise UserError(f"{bound.file}: has no one recipe to fill; --fill the recipe that it names")
    print(dump(bound.filled) if fill else f"{bound.file}: no problems", end="" if fill else "\n")


@app.command()
def plan(
    recipe: Recipe,
    settings: Settings = None,
    model: Annotated[
        str | None, typer.Option(help="A model of timm: what generating it would take, by its shapes alone.")
    ] = None,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Tokens, parameters, memory, disk and time of each stage, before anything runs."""
    if model is not None:
        _plan_of_model(_bind_any(recipe, settings, plugin), model, as_json)
        return
    bound = _bind(recipe, settings, plugin)
    from wspace.plan import plan as make_plan

    made = make_plan(bound)
    if as_json:
        print(json.dumps(made))
        return
    print(f"{made['weights']:,} weights as {made['tokens']} tokens of {made['token_width']} values")
    print(
        f"{made['parameters']:,} parameters to train; the backbone takes {made['images_per_second']:.0f} images a second"
    )
    for stage in made["stages"]:
        memory, disk = stage["memory"] / 2**30, stage["disk"] / 2**30
        print(
            f"{stage['stage']:9} {memory:5.1f} GiB of memory, {disk:5.2f} GiB of disk, {stage['seconds'] / 60:6.1f} min"
        )


def _plan_of_model(bound: Any, model: str, as_json: bool) -> None:
    from wspace.joint import Joint
    from wspace.plan import plan_of_model

    made = plan_of_model(bound.members[0] if isinstance(bound, Joint) else bound, model)
    if as_json:
        print(json.dumps(made))
        return
    print(f"{made['model']}: {made['weights']:,} weights as {made['tokens']:,} tokens of {made['token_width']} values")
    print(
        f"{made['memory'] / 2**30:.1f} GiB of memory; {made['tokens_per_second']:.0f} tokens a second, "
        f"{made['seconds'] / 60:.1f} min for a network"
    )


@app.command("list")
def list_components(
    kind: Annotated[str | None, typer.Argument(help="A kind; all of them if none.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="All about all of them: docs/components.md.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """The components there are."""
    from wspace.errors import UnknownComponent, UserError, did_you_mean
    from wspace.registry import KINDS
    from wspace.signature import UnreadableSignature, signature_of

    if kind is not None and kind not in KINDS:
        raise UnknownComponent(f"no kind {kind!r}.{did_you_mean(kind, list(KINDS))}")
    registry = _registry(plugin)
    if markdown:
        from wspace.catalogue import page

        if kind is not None:
            raise UserError("list --markdown: the page is about every kind; leave the kind out")
        print(page(registry), end="")
        return
    for component in registry.all(kind):
        try:
            summary = signature_of(component).doc.partition("\n")[0]
        except UnreadableSignature as error:
            summary = f"broken: {error}"
        print(f"{component.kind:12} {component.name:16} {component.plugin:8} {summary}")


@app.command()
def show(kind: str, name: str, plugin: PluginFiles = None) -> None:
    """A component: its parameters, their bounds and defaults, the papers it follows, where it is, and an example."""
    from wspace.catalogue import described
    from wspace.errors import UserError
    from wspace.signature import UnreadableSignature

    component = _registry(plugin).get(kind, name)
    try:
        print(described(component), end="")
    except UnreadableSignature as error:
        raise UserError(f"{kind} {name!r} is broken: {error}") from error


@app.command()
def plugins(plugin: PluginFiles = None) -> None:
    """The plugins that were found, and what became of them."""
    from wspace.plugins import load_plugins

    for fact in load_plugins(plugin or ()).facts:
        state = "not in WSPACE_PLUGINS" if fact.skipped else fact.error or f"{fact.components} components"
        print(f"{fact.name:12} {fact.source:20} {state}")


@app.command("ls")
def list_recipes() -> None:
    """The recipes that come with wspace."""
    from wspace.recipe import packaged_recipes

    for name, file in packaged_recipes().items():
        print(f"{name:20} {file.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}")


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens: my-plugin.")],
    dest: Annotated[Path, typer.Option(metavar="DIR", help="Where its folder goes.")] = Path("."),
) -> None:
    """Write a plugin to begin with: a package with a denoiser, a target and their tests."""
    from wspace.skeleton import new_plugin as write
    from wspace.skeleton import next_commands

    folder = write(name, dest)
    print(folder, "", *(f"  {command}" for command in next_commands(folder)), sep="\n")


@app.command()
def cp(name: str, dest: Path) -> None:
    """Copy a packaged recipe, to change it."""
    from wspace.errors import UserError
    from wspace.recipe import find_recipe

    source = find_recipe(name)
    file = dest / source.name if dest.is_dir() else dest
    if file.exists():
        raise UserError(f"{file}: is there already")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from error
    print(file)


@app.command()
def report(
    run: RunFolder,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a table of GitHub's Markdown.")] = False,
) -> None:
    """The table of a finished run, or of a study."""
    from wspace import study
    from wspace.run import report_of

    if as_json:
        print(json.dumps(study.report_of(run) or report_of(run)))
    else:
        _print_report(run, markdown)


@app.command()
def generate(
    run: RunFolder,
    classes: Annotated[str, typer.Option(help='Class names, separated by commas: "otter, lamp, crab".')],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, else head.safetensors; with --count, numbered; with --peft, a folder."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many to draw.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Strength of the condition; 1 is as trained.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Scale of the random draws; 0: the typical one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    peft: Annotated[bool, typer.Option("--peft", help="LoRA adapters, as folders that PEFT loads.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Weights for a list of class names, which need not be in any data set."""
    from wspace.network import check_classes
    from wspace.progress import for_terminal
    from wspace.run import Run

    names = check_classes(classes.split(","))
    opened = Run.open(run, plugin or (), for_terminal())
    networks = opened.generate_many(names, count, seed=seed, steps=steps, guidance=guidance, temperature=temperature)
    out = out or Path("adapter" if peft else "head.safetensors")
    for number, network in enumerate(networks, start=1):
        file = out if count == 1 else out.with_stem(f"{out.stem}-{number}")
        if peft:
            opened.save_adapter(network, file)
        else:
            network.save(file)
        print(file)


@app.command()
def score(run: RunFolder, head: Path, as_json: Json = False, plugin: PluginFiles = None) -> None:
    """Accuracy of weights on the test images of their classes."""
    from wspace.progress import for_terminal
    from wspace.run import Run

    opened = Run.open(run, plugin or (), for_terminal())
    result = opened.score(opened.load_network(head))
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{result['accuracy']:.1%} of {result['images']} images of {len(result['classes'])} classes named right")


@app.command()
def predict(run: RunFolder, head: Path, images: list[Path], as_json: Json = False, plugin: PluginFiles = None) -> None:
    """The class that weights see in pictures."""
    from wspace.progress import for_terminal
    from wspace.run import Run

    opened = Run.open(run, plugin or (), for_terminal())
    predictions = opened.predict(opened.load_network(head), images)
    if as_json:
        print(json.dumps({"predictions": [p.as_json() for p in predictions]}))
    else:
        for p in predictions:
            print(f"{p.picture}: {p.best} ({max(p.probabilities):.0%})")


@bench.command("zoo")
def bench_zoo(
    recipe: Annotated[str, typer.Option(help="Whose data and target.")] = "t2w",
    settings: Settings = None,
    heads: Annotated[int, typer.Option(min=1)] = 64,
    steps: Annotated[int, typer.Option(min=1)] = 60,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Networks trained together against a loop over networks."""
    bound = _bind(recipe, settings, plugin)
    from wspace.benchmarks import zoo
    from wspace.progress import for_terminal

    result = zoo(bound, for_terminal(), heads, steps)
    if as_json:
        print(json.dumps(result))
    else:
        print(
            f"{result['heads']} heads, {result['steps']} steps: {result['speedup']:.1f} x as fast as a loop over heads"
        )


@bench.command("samplers")
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
    from wspace.progress import for_terminal
    from wspace.run import Run

    opened = Run.open(run, plugin or (), for_terminal())
    from wspace.benchmarks import samplers

    result = samplers(opened, tasks, temperature or (0.0, 1.0))
    if as_json:
        print(json.dumps(result))
        return
    finest = f"{result['finest']['sampler']} {result['finest']['steps']}"
    print(
        f"{result['run']}: {result['tasks']} {result['split']}, {result['device']}, {result['threads']} threads; "
        f"accuracy (%) and its paired difference from {finest}, with {result['confidence']:.0%} intervals\n"
    )
    head = ("accuracy", "difference", "speed-up")
    print(f"temperature  sampler       steps  s/network  {head[0]:>19}  {head[1]:>19}  {head[2]}")
    for row in result["rows"]:
        print(
            f"{row['temperature']:<11g}  {row['sampler']:12}  {row['steps']:5}  {row['seconds_per_network']:9.4f}  "
            f"{_interval(row['accuracy'], '.1f'):>19}  {_interval(row['difference'], '+.1f'):>19}  {row['speedup']:6.1f} x"
        )


@bench.command("roundtrip")
def bench_roundtrip(
    run: RunFolder,
    model: Annotated[str, typer.Option(help="Of timm.")] = "resnet50",
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """A large network, of random weights, through a run's tokenizer and back: memory, time, and what is lost."""
    from wspace.benchmarks import roundtrip
    from wspace.progress import for_terminal
    from wspace.run import Run

    result = roundtrip(Run.open(run, plugin or (), for_terminal()), model)
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"{result['model']}, {result['parameters']:,} parameters, {result['tokens']:,} tokens of {result['token_width']} "
        f"values: {result['seconds']:.0f} s, {result['mib_peak']:.0f} MiB at most ({result['mib_before']:.0f} before); "
        f"{result['error']:.1%} of the weights' size is lost"
    )


@bench.command("matching")
def bench_matching(
    pairs: Annotated[int, typer.Option(min=1, help="Of networks, each from a seed of its own.")] = 3,
    width: Annotated[int, typer.Option(min=1)] = 256,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 600,
    model: Annotated[
        str | None, typer.Option(help="Of timm: time and memory of matching two of random weights, instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Barriers between independently trained networks, before and after matching."""
    from wspace.matching.benchmark import of_digits, of_model
    from wspace.progress import for_terminal

    result = of_digits(pairs, width, depth, steps, for_terminal()) if model is None else of_model(model)
    if as_json:
        print(json.dumps(result))
    elif model is not None:
        print(
            f"{model}, {result['parameters']:,} parameters, {result['axes']} axes: {result['seconds']:.0f} s, "
            f"{result['mib_peak']:.0f} MiB at most ({result['mib_before']:.0f} before)"
        )
    else:
        print(f"widths {'-'.join(map(str, result['widths']))}; barriers of the cross-entropy\n")
        print("seeds  images  before  weights matched  activations matched")
        for number, row in enumerate(result["rows"]):
            for part, barrier in row["barrier"].items():
                left = {how: "" if share is None else f" ({share:.1%})" for how, share in row["left"][part].items()}
                weights, activations = (f"{barrier[how]:.3f}{left[how]}" for how in ("weights", "activations"))
                print(
                    f"{2 * number}, {2 * number + 1:<3} {part:6}  {barrier['before']:6.3f}  {weights:>15}  {activations:>19}"
                )


def _interval(summary: dict[str, float], form: str) -> str:
    mean, low, high = (f"{100 * summary[name]:{form}}" for name in ("mean", "ci_low", "ci_high"))
    return f"{mean} [{low}, {high}]"


zoo_app = typer.Typer(help="Zoos as data: networks with what each was trained for.", no_args_is_help=True)
app.add_typer(zoo_app, name="zoo")
ZooFolder = Annotated[Path, typer.Argument(metavar="ZOO", help="The folder of a zoo.")]
OutFolder = Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")]
Licence = Annotated[str | None, typer.Option(help="As the hub writes it: cc-by-4.0, mit, ...")]


@zoo_app.command("import")
def import_zoo(
    source: Annotated[Path, typer.Argument(help="A folder of checkpoints (.safetensors), or of PEFT adapters.")],
    out: OutFolder,
    recipe: Annotated[str | None, typer.Option(help="Whose target these are weights of.")] = None,
    name: Annotated[str | None, typer.Option(help="What the zoo is called; else as its folder.")] = None,
    licence: Licence = None,
    settings: Settings = None,
    plugin: PluginFiles = None,
) -> None:
    """Networks that others trained, made into a zoo; docs/zoo-format.md says what must lie beside them."""
    target = None
    if recipe is not None:
        from wspace.progress import Progress
        from wspace.workbench import Workbench

        bound = _bind(recipe, settings, plugin)
        target = (bound.target.told(), Workbench(bound, Progress()).target.spec)
    from wspace.importers import import_zoo
    from wspace.zoo_card import summary

    print(summary(import_zoo(source, out, name=name, licence=licence or "unknown", target=target)))


@zoo_app.command("info")
def zoo_info(zoo: ZooFolder, as_json: Json = False) -> None:
    """What a zoo holds."""
    from wspace.zoo_card import facts, summary
    from wspace.zoo_format import StoredZoo

    opened = StoredZoo.open(zoo)
    print(json.dumps(facts(opened)) if as_json else summary(opened))


@zoo_app.command("verify")
def verify_zoo(zoo: ZooFolder, as_json: Json = False) -> None:
    """Whether every byte of a zoo is as it was written, and every weight a finite number."""
    from wspace.errors import FileError
    from wspace.zoo_format import MOST_PROBLEMS, StoredZoo

    opened = StoredZoo.open(zoo)
    problems = opened.problems()
    if as_json:
        print(json.dumps({"networks": len(opened.entries), "problems": problems}))
    if problems:
        more = len(problems) - MOST_PROBLEMS
        raise FileError("\n".join([*problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]))
    if not as_json:
        print(f"{len(opened.entries)} networks in {len(opened.header.shards)} files: all as they were written")


@zoo_app.command("export")
def export_zoo(run: RunFolder, out: OutFolder, licence: Licence = None) -> None:
    """The zoo of a finished run, as a folder of its own with a card."""
    from wspace.run import stages_of
    from wspace.zoo_card import export, summary

    print(summary(export(run / stages_of(run)["zoo"], out, licence)))


@zoo_app.command("take")
def take_network(
    zoo: ZooFolder,
    network: Annotated[str, typer.Argument(metavar="NAME", help="As the index has it.")],
    out: Annotated[Path, typer.Option(help="File to write; with --peft, folder to make.")],
    peft: Annotated[bool, typer.Option("--peft", help="LoRA adapters, as a folder that PEFT loads.")] = False,
) -> None:
    """One network out of a zoo."""
    from wspace.zoo_card import take

    take(zoo, network, out, peft)
    print(out)


def _print_report(run: Path, markdown: bool = False) -> None:
    from wspace import study, table
    from wspace.run import report_of

    of_study = study.report_of(run)
    if of_study is not None:
        table.print_study(of_study, markdown)
    else:
        table.print_table(report_of(run), markdown)
