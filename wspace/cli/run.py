"""Recipes and their runs: run, check, plan, report, ls, cp."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wspace.cli.options import Json, PluginFiles, Recipe, RunFolder, Settings, registry_of

if TYPE_CHECKING:
    from wspace.recipes.schema import BoundRecipe


def bind_any(recipe: str, settings: list[str] | None, plugins: list[Path] | None, *, look: bool = False) -> Any:
    """What an argument RECIPE names, checked: a recipe, a study or a joint recipe. Raises FileError, RecipeError.

    look: for the data of a recipe, too, as `bind` does.
    """
    from wspace.recipes.bind import bind
    from wspace.recipes.source import change, find_recipe, read_recipe
    from wspace.runs.joint.file import bind_joint, is_joint
    from wspace.runs.study.file import bind_study, is_study

    registry = registry_of(plugins)
    source = read_recipe(find_recipe(recipe))
    if is_study(source):
        return bind_study(source, registry, settings or ())
    if is_joint(source):
        return bind_joint(source, registry, settings or ())
    change(source, settings or ())
    return bind(source, registry, look=look)


def bind_recipe(recipe: str, settings: list[str] | None, plugins: list[Path] | None) -> BoundRecipe:
    """As `bind_any`, where a study or a joint recipe will not do."""
    return _only_recipe(bind_any(recipe, settings, plugins))


def _only_recipe(bound: Any) -> BoundRecipe:
    """Raises UserError for a study, or a joint recipe."""
    from wspace.runs.joint.file import Joint
    from wspace.runs.study.file import Study
    from wspace.support.errors import UserError

    if isinstance(bound, Study | Joint):
        called = "a study" if isinstance(bound, Study) else "a joint recipe"
        raise UserError(
            f"{bound.source}: {called}, of which `run`, `check` and `report` know what to do; name its recipe"
        )
    return bound


def run(
    context: typer.Context,
    recipe: Recipe,
    settings: Settings = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    dry: Annotated[bool, typer.Option("--dry", help="Say what would run, and why.")] = False,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")] = None,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Run this stage and those after it again.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where independent parts of stages are worked off.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Of the engine's cluster; auto: the one of this machine.")] = None,
    plugin: PluginFiles = None,
) -> None:
    """Do what a recipe says, from its zoo to its report.

    Stages are zoo, opponents, train, generate, evaluate and report; those that are done already are not run again.
    """
    from wspace.recipes.schema import BoundRecipe
    from wspace.runs import pipeline
    from wspace.support import processes

    workshop = context.obj or pipeline.WORKSHOP
    if processes.launched().rank:  # started by torchrun or accelerate, to help the first process
        if not dry:
            from wspace.runs.joint.training import join
            from wspace.runs.launched import follow

            follow(join)
        return
    with nullcontext() if dry else processes.failing_together():
        bound = bind_any(recipe, [*(settings or ()), *_of_engine(engine, address, plugin)], plugin)
        if isinstance(bound, BoundRecipe):
            _run_one(bound, runs, dry, only, force, workshop, plugin)
        else:
            _run_several(bound, runs, dry, only, force, workshop)


def _training_of(bound: BoundRecipe) -> tuple[str, int, int]:
    """As `wspace.support.processes.leading` has it."""
    return bound.device, bound.train.batch, bound.train.accumulate


def _run_one(
    bound: BoundRecipe,
    runs: Path,
    dry: bool,
    only: str | None,
    force: list[str] | None,
    workshop: Any,
    plugin: list[Path] | None,
) -> None:
    from wspace.runs import pipeline
    from wspace.runs.store import Store
    from wspace.support import processes, progress
    from wspace.support.names import RUN

    if dry:
        plan = pipeline.steps(bound, Store(runs / bound.name), force or (), workshop=workshop)
        if pipeline.is_untrained(plan):
            _check_ahead({bound.source: bound})
        for step in plan if only is None else [pipeline.only_step(plan, only)]:
            _print_step(step)
        return
    with processes.leading(_training_of(bound)):
        folder, plan = pipeline.run(
            bound, runs, progress.for_terminal(), force=force or (), only=only, workshop=workshop
        )
    if all(step.action == "cached" for step in plan):
        print("nothing has changed: no stage had to run")
    if (folder / RUN).is_file() and only is None:
        from wspace.runs.finished import write_page

        write_page(folder)
        _print_report(folder, plugin or ())
    print(folder)


def _of_engine(engine: str | None, address: str | None, plugins: list[Path] | None) -> list[str]:
    """The two options as `--set` has them. Raises RecipeError for an engine there is not, once for all of a study."""
    from wspace.cli.options import engine_of
    from wspace.recipes.plugins import load_plugins
    from wspace.support.errors import UserError

    if engine is None:
        if address is not None:
            raise UserError("--address: of which engine? Name it with --engine; `wspace list engine` has all there are")
        return []
    block = {"use": engine} | ({} if address is None else {"address": address})
    engine_of(block, load_plugins(plugins or ()).registry)
    return [f"engine={json.dumps(block)}"]


def _run_several(bound: Any, runs: Path, dry: bool, only: str | None, force: list[str] | None, workshop: Any) -> None:
    """A study, or a joint recipe."""
    from wspace.runs import pipeline
    from wspace.runs.joint import running as joint
    from wspace.runs.study import running as study
    from wspace.runs.study.file import Study
    from wspace.support import processes, progress
    from wspace.support.errors import UserError

    module, called = (study, "a study") if isinstance(bound, Study) else (joint, "a joint recipe")
    if only is not None:
        raise UserError(f"--only: {called} runs all stages of its members")
    if dry:
        plans = module.plan(bound, runs, force or (), workshop=workshop)
        _check_ahead(
            {who: recipe for who, recipe in _several(bound).items() if pipeline.is_untrained(plans[recipe.name])}
        )
        for name, plan in plans.items():
            print(name)
            for step in plan:
                _print_step(step)
        return
    recipes = [m.recipe for m in bound.members] if isinstance(bound, Study) else [*bound.members, *bound.held_out]
    with processes.leading(*map(_training_of, recipes)):
        folder, plan = module.run(bound, runs, progress.for_terminal(), force or (), workshop=workshop)
    if all(step.action == "cached" for step in plan):
        print("nothing has changed: no stage had to run")
    _print_report(folder)
    print(folder)


def _several(bound: Any) -> dict[str, BoundRecipe]:
    """The recipes of what an argument RECIPE names, by what their problems are told of: a variant once, whatever its seeds."""
    from wspace.recipes.schema import BoundRecipe
    from wspace.runs.study.file import Study

    if isinstance(bound, BoundRecipe):
        return {bound.source: bound}
    if isinstance(bound, Study):
        first = [m for m in bound.members if m.seed == bound.seeds[0]]
        return {f"{bound.source}: variant {m.variant!r}": m.recipe for m in first}
    return {f"{bound.source}: member {m.name!r}": m for m in (*bound.members, *bound.held_out)}


def _check_ahead(recipes: Mapping[str, BoundRecipe]) -> None:
    """Raises UserError for what a run would refuse before it trains anything; what it would leave out is said."""
    from wspace.runs.ahead import check_ahead
    from wspace.support import progress

    notes = check_ahead(recipes)
    if notes:
        say = progress.for_terminal().say
        for note in notes:
            say(note)


def _print_step(step: Any) -> None:
    from wspace.support.terminal import beside

    state = {"cached": "cached", "link": "will link", "run": "will run"}[step.action]
    print(beside(f"{step.stage.name:9} {state:9} ", step.why))


def check(
    recipe: Recipe,
    settings: Settings = None,
    fill: Annotated[bool, typer.Option("--fill", help="Print the recipe with every default written out.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Every problem of a recipe at once, with file and line.

    For a name that is not known, it says the nearest that is. Where it takes torch to know whether a network can be made as
    the recipe has it, it is made.
    """
    from wspace.recipes.schema import BoundRecipe
    from wspace.support.errors import UserError
    from wspace.support.yaml import dump

    bound = bind_any(recipe, settings, plugin, look=not fill)
    if fill and not isinstance(bound, BoundRecipe):
        raise UserError(f"{bound.source}: has no one recipe to fill; --fill the recipe that it names")
    if fill:
        print(dump(bound.filled), end="")
        return
    _check_ahead(_several(bound))
    print(f"{bound.source}: no problems")


def plan(
    recipe: Recipe,
    settings: Settings = None,
    machine: Annotated[
        str, typer.Option(help="Where: this, '16x this', '8x h100', '8x h100, share=0.5'; rates that are published.")
    ] = "this",
    runs: Annotated[Path, typer.Option(help="Folder of run folders: what a run took is set beside.")] = Path("runs"),
    again: Annotated[bool, typer.Option("--again", help="Measure this machine again.")] = False,
    model: Annotated[
        str | None, typer.Option(help="A model of timm: what generating it would take, by its shapes alone.")
    ] = None,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Time, memory and disk of each stage, before anything runs.

    It also says how many tokens, parameters, networks and images there are.
    """
    if model is not None:
        _plan_of_model(bind_any(recipe, settings, plugin), model, as_json)
        return
    from wspace.runs import plan as planning
    from wspace.runs.ahead import left_out
    from wspace.runs.machines import machine_of
    from wspace.support import progress

    where, bound = machine_of(machine), bind_recipe(recipe, settings, plugin)
    say = progress.for_terminal().say
    for sentence in left_out(bound):
        say(f"note: {sentence}")
    made = planning.plan(bound, planning.measured(bound, progress.for_terminal(), again=again), where)
    planning.beside(made, planning.taken(bound, runs))
    if as_json:
        print(json.dumps(made))
        return
    _print_plan(made, str(where))


def _print_plan(made: dict[str, Any], where: str) -> None:
    from wspace.support.quantities import counted, in_bytes, in_words
    from wspace.support.terminal import beside

    def many(key: str, one: str) -> str:
        return counted(made[key], one, form=",")

    print(f"{many('weights', 'weight')} as {many('tokens', 'token')} of {many('token_width', 'value')}")
    print(
        f"{many('parameters', 'parameter')} to train; {many('networks', 'network')} in the zoo, {many('images', 'image')}"
    )
    print(f"on {where}")

    def cost(row: dict[str, Any]) -> str:
        return f"{in_words(row['seconds']):>13}, {in_bytes(row['memory']):>8} of memory"

    for stage in made["stages"]:
        line = f"{cost(stage)}, {in_bytes(stage['disk']):>8} of disk"
        if took := stage.get("measured"):
            memory = f", {took['peak_mib'] / 1024:.1f} GiB" if "peak_mib" in took else ""
            line += f"; it took {in_words(took['seconds'])}{memory}"
        print(beside(f"{stage['stage']:9} ", line))
    total = sum(stage["seconds"] for stage in made["stages"])
    print(beside("together  ", f"{in_words(total):>13}"))
    alone = [part for stage in made["stages"] for part in stage["parts"] if not part["shared_by"]]
    if made["machine"]["count"] > 1:
        kept = in_words(sum(part["seconds"] for part in alone))
        longest = sorted(alone, key=lambda part: -part["seconds"])[:3]
        print(
            f"of this {kept} are work that is not shared out: {', '.join(part['what'] for part in longest)} above all"
        )
    if made["largest_zoo"] is None:
        print("networks are taken one by one, in parts: memory does not grow with their number")
    else:
        print(
            f"memory of {in_bytes(made['machine']['ram'])} ends first in stage {made['breaks_first']}: "
            f"it holds the networks of a zoo of {made['largest_zoo']:,}"
        )
    print("opponents are planned at their longest: they stop when validation images say so")
    print("not in it: pictures and their features, which are made the first time, and the report")


def _plan_of_model(bound: Any, model: str, as_json: bool) -> None:
    from wspace.runs.joint.file import Joint
    from wspace.runs.model_plan import plan_of_model
    from wspace.support.quantities import counted, in_bytes, in_words

    made = plan_of_model(bound.members[0] if isinstance(bound, Joint) else _only_recipe(bound), model)
    if as_json:
        print(json.dumps(made))
        return
    width, outputs = (
        counted(made[key], one, form=",") for key, one in (("token_width", "value"), ("outputs", "output"))
    )
    print(f"{made['model']}: {made['weights']:,} weights, with {outputs}, as {made['tokens']:,} tokens of {width}")
    print(
        f"{in_bytes(made['memory'])} of memory; {made['tokens_per_second']:,.0f} tokens a second, "
        f"{in_words(made['seconds']) if made['seconds'] >= 1 else 'less than a second'} for a network"
    )
    if made["one_network"] is not None:
        print(
            f"drawn in parts: so much memory whatever the network; stages that train or call it take about "
            f"{in_bytes(made['one_network'])} more"
        )


def list_recipes() -> None:
    """The recipes that come with wspace."""
    from wspace.recipes.source import packaged_recipes
    from wspace.support.terminal import beside

    recipes = packaged_recipes()
    longest = max(map(len, recipes))
    for name, file in recipes.items():  # the first line of each is the command, and what it does
        _, _, does = file.read_text(encoding="utf-8").splitlines()[0].partition(".yaml")
        print(beside(f"{name:{longest}}  ", does.strip()))


def cp(name: str, dest: Path) -> None:
    """Copy a packaged recipe, to change it."""
    from wspace.recipes.source import find_recipe
    from wspace.support.errors import UserError
    from wspace.support.files import check_place, disk_errors, write_text

    source = find_recipe(name)
    check_place(dest)
    file = dest / source.name if dest.is_dir() else dest
    if file.exists():
        raise UserError(f"{file}: is there already")
    if not file.parent.is_dir():
        raise UserError(f"{file}: cannot be written: No such file or directory")
    with disk_errors(file):
        write_text(file, source.read_text(encoding="utf-8"))
    print(file)


def report(
    run: RunFolder,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a table of GitHub's Markdown.")] = False,
) -> None:
    """The table of a finished run or study, and where its page is."""
    from wspace.runs.finished import report_of
    from wspace.runs.study import comparing as study
    from wspace.support.names import PAGE

    if as_json:
        print(json.dumps(study.report_of(run) or report_of(run)))
        return
    _print_report(run, (), markdown)
    if not markdown and (run / PAGE).is_file():
        print(run / PAGE)


def _print_report(run: Path, plugins: Sequence[Path] = (), markdown: bool = False) -> None:
    from wspace.recipes.plugins import load_plugins
    from wspace.runs.finished import report_of
    from wspace.runs.report import table
    from wspace.runs.report.methods import methods_of
    from wspace.runs.study import comparing as study

    of_study = study.report_of(run)
    if of_study is not None:
        table.print_study(of_study, markdown)
    else:
        methods = methods_of(load_plugins(plugins).registry.all("opponent"))
        table.print_table(report_of(run), methods, markdown)
