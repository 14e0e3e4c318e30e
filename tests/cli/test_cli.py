"""The command line: what is printed where, exit statuses, and no torch where none is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from PIL import Image

from tests.support.tiny import WORKSHOP, Tiny, stages_fixture, tiny_fixture  # noqa: F401
from wspace import __version__
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.schema import ONLOOKERS
from wspace.recipes.signature import read_class
from wspace.recipes.source import Source, packaged_recipes, parse_recipe, read_recipe
from wspace.runs.joint.file import is_joint
from wspace.runs.pipeline import STAGES
from wspace.runs.study.file import is_study
from wspace.support.errors import Diverged, WspaceError

HEAVY = ("torch", "timm", "open_clip", "diffusers", "torchvision", "matplotlib")
COMMANDS = {
    "run": "run core --dry --runs {tmp}", "check": "check core", "fill": "check core --fill", "list": "list",
    "kind": "list denoiser", "show": "show generator diffusion", "plugins": "plugins", "ls": "ls",
    "cp": "cp core {tmp}/copy.yaml",
    "version": "--version", "help": "--help", "run-help": "run --help",
}  # fmt: skip
WRONG = {
    "unknown": "check nosuch", "value": "check core --set train.steps=x", "no-classes": "generate nowhere --classes ,",
    "one-class": "plot nowhere cam --classes book", "no-pictures": "generate nowhere --classes a,b --pictures nowhere",
    "no-run": "generate nowhere --classes a,b", "no-head": "predict nowhere head.safetensors picture.png",
    "no-weights": "export nowhere head.safetensors --to onnx", "no-report": "report nowhere", "no-study": "init nowhere",
    "no-adapters": "bench adapters nowhere", "no-samplers": "bench samplers nowhere", "no-trip": "bench roundtrip nowhere",
    "no-scale": "bench scaling --recipe nosuch", "no-engine": "bench engine --recipe core --engine nosuch",
    "no-zoo": "bench zoo --recipe nosuch", "no-step": "bench step --recipe nosuch", "no-device": "bench gpu --recipe nosuch",
    "alone": "bench training",
}  # fmt: skip
"""What ends with an error, which is told at once, and not after a second's import."""


@dataclass
class Done:
    status: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(request: pytest.FixtureRequest, inside: Callable[..., subprocess.CompletedProcess[str]]) -> Call:
    """The command line in this process; with tiny stages, for a test that asks for them."""
    workshop = WORKSHOP if "stages" in request.fixturenames else None

    def command(*arguments: object) -> Done:
        done = inside(*arguments, workshop=workshop)
        return Done(done.returncode, done.stdout, done.stderr)

    return command


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny.recipe)
    return file


# ---------------------------------------------------------------- light


def test_commands_that_look_do_not_load_torch(tmp_path: Path) -> None:
    """All in one process: torch, once loaded, would be seen at every later command."""
    every = COMMANDS | WRONG
    lines = [command.format(tmp=tmp_path).split() for command in every.values()]
    script = (
        "import json, sys\nfrom wspace.cli import main\nfor line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['wspace', *line]\n"
        "    try: main(); status = 0\n"
        "    except SystemExit as end: status = end.code or 0\n"
        f"    print(json.dumps([line, status, [m for m in {HEAVY} if m in sys.modules]]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, json.dumps(lines)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]
    expected = [[line, 2 if name in WRONG else 0, []] for name, line in zip(every, lines, strict=True)]
    assert told == expected


NOT_FOR_WEIGHTS = (
    "timm", "torchvision", "open_clip", "transformers", "matplotlib", "qtawesome", "iconipy",
    "wspace.components.datasets.icons", "wspace.components.backbones.timm", "torch._dynamo",
)  # fmt: skip
NOT_FOR_PLACES = (
    *NOT_FOR_WEIGHTS, "diffusers", "scipy", "sympy", "wspace.data.labelled", "wspace.runs.stages",
    "wspace.runs.report.page", "wspace.weights.files.peft",
)  # fmt: skip
NOT_FOR_A_PICTURE = (
    "diffusers", "open_clip", "transformers", "matplotlib", "wspace.components.generators.diffusion",
    "wspace.components.tokenizers.neuron",
)  # fmt: skip


def test_a_finished_run_loads_what_an_answer_needs_and_nothing_else(nano: Path, placed: Path, tmp_path: Path) -> None:
    """What is imported is what the first answer waits for: weights need no pictures, and a picture needs no generator.

    Nor does an answer wait for a search of garbage in what torch makes at its import.
    """
    script = (
        "import gc, json, sys\nfrom wspace.cli import main\nfor line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['wspace', *line]\n    main()\n"
        "    print(json.dumps([gc.isenabled(), gc.get_freeze_count(), *sys.modules]), file=sys.stderr)\n"
    )

    def imported(*lines: tuple[object, ...]) -> Iterator[set[str]]:
        """What one process has imported after each of these commands."""
        command = [sys.executable, "-c", script, json.dumps([[str(word) for word in line] for line in lines])]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        for line in (line for line in done.stderr.splitlines() if line.startswith("[")):
            collects, frozen, *modules = json.loads(line)
            assert collects and ("torch" not in modules or frozen > 100_000)
            yield set(modules)

    head, picture = tmp_path / "head.safetensors", tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "navy").save(picture)
    asked = ("--classes", "book, camera", "--out", head)
    by_report, by_places, by_weights = imported(
        ("report", nano), ("generate", placed, *asked), ("generate", nano, *asked)
    )
    assert not by_report.intersection(HEAVY) and not by_places.intersection(NOT_FOR_PLACES)
    assert not by_weights.intersection(NOT_FOR_WEIGHTS)
    (by_picture,) = imported(("predict", nano, head, picture))
    assert not by_picture.intersection(NOT_FOR_A_PICTURE)


SCHEDULER = "from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler"


@pytest.mark.slow
def test_diffusers_does_without_what_it_does_not_use_here_and_others_have_it() -> None:
    """The compiler not at all; statistics and the list of packages when they are asked for.

    Others are whoever imports the compiler later, and diffusers where it has been imported already.
    """
    script = f"""
import importlib.metadata, sys, torch
from wspace.cli.deferred import deferred
before, list_all = len(sys.meta_path), importlib.metadata.packages_distributions
with deferred():
    {SCHEDULER}
from diffusers.utils import import_utils
from diffusers.utils.torch_utils import maybe_allow_in_graph
assert not {{"torch._dynamo", "scipy.stats"}} & {{*sys.modules}} and len(sys.meta_path) == before
assert maybe_allow_in_graph(int) is int
assert importlib.metadata.packages_distributions is list_all
assert "_listed" not in vars(import_utils._package_map) and dict(import_utils._package_map) == list_all()
assert import_utils._is_distribution_installed("yaml")[0] and not import_utils._is_distribution_installed("nosuch")[0]
DPMSolverMultistepScheduler(1000, use_beta_sigmas=True).set_timesteps(4)
import scipy.stats
assert scipy.stats.beta.ppf(0.5, 1, 1) == 0.5
DPMSolverMultistepScheduler(1000).set_timesteps(timesteps=[999, 499])
import torch._dynamo
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2

for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
    del sys.modules[name]
with deferred():
    {SCHEDULER}
from diffusers.utils.torch_utils import maybe_allow_in_graph as marked
assert marked is torch._dynamo.allow_in_graph is not maybe_allow_in_graph
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- exit statuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nosuch", "No such command 'nosuch'."),
        ("run", "Missing argument 'recipe'."),
        ("check core --nosuch", "No such option: --nosuch"),
        (
            "run core --address auto",
            "--address: of which engine? Name it with --engine; `wspace list engine` has all there are",
        ),
        ("check core --set", "Option '--set' requires an argument."),
        ("check core extra", "Got unexpected extra argument(s) (extra)"),
        (
            "check nosuch",
            "nosuch: no such file, and no packaged recipe of that name: did you mean nano? `wspace ls` has all there are\n",
        ),
        ("check core --set steps", "--set steps: expected PATH=VALUE, as in --set train.steps=500"),
        ("check core --set train.stpes=3", "train.stpes: 'train' takes no 'stpes'. Did you mean 'steps'?"),
        (
            "check core --set task_loss=null",
            "--set task_loss: expected a mapping, got None; leave it out for its defaults, and to do without it set "
            "task_loss.steps to 0\n",
        ),
        ("check core --plugin missing.py", "missing.py: no such plugin file"),
        (
            "run core --dry --force nosuch",
            "no stage 'nosuch': the stages are zoo, opponents, train, generate, evaluate, report",
        ),
        (
            "run core --dry --only nosuch",
            "no stage 'nosuch': the stages are zoo, opponents, train, generate, evaluate, report",
        ),
        ("run core --dry --only train", "--only train: it needs zoo, not done yet for this recipe"),
        ("list nosuch", "no kind 'nosuch'. Known: architecture, backbone, conditioner,"),
        ("show denoiser mlpp", "no denoiser named 'mlpp'. Did you mean 'mlp'?"),
        ("show denoisr mlp", "no kind 'denoisr'. Did you mean 'denoiser'?"),
        ("cp qqq .", "error: qqq: no such file, and no packaged recipe of that name; `wspace ls` has all there are\n"),
        (
            "cp core no/such/folder/x.yaml",
            "no/such/folder/x.yaml: cannot be written: No such file or directory",
        ),
        ("report .", ".: not the folder of a finished run"),
    ],
)
def test_wrong_input_ends_with_2_and_one_message(
    call: Call, tmp_path: Path, monkeypatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments.split())
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ") and message in done.err and done.err.count("\n") == 1
    assert "Traceback" not in done.err and os.listdir(tmp_path) == [], "nothing left half-written"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run core --engine lokal", "--engine: no engine named 'lokal'. Did you mean 'local'? Known: "),
        ("run compare --engine lokal", "--engine: no engine named 'lokal'. Did you mean 'local'? Known: "),
        (
            "bench engine --recipe core --engine lokal",
            "--engine: no engine named 'lokal'. Did you mean 'local'? Known: ",
        ),
        ("run core --engine local --address x", "--address: engine 'local' takes no 'address'. Known: workers"),
    ],
)
def test_an_engine_that_there_is_not_is_told_by_its_option(call: Call, arguments: str, message: str) -> None:
    """Once, where a study has many recipes. Which engines there are depends on the plugins that are installed."""
    done = call(*arguments.split())
    assert (done.status, done.out) == (2, "") and done.err.count("\n") == 1
    assert done.err.startswith(f"error: {message}") and (
        "Known: workers" not in message or done.err == f"error: {message}\n"
    )


def test_without_a_command_it_says_what_there_is(call: Call) -> None:
    done = call()
    assert done.status == 2 and "Commands:" in done.out + done.err and "check" in done.out + done.err


def test_the_version_is_printed(call: Call) -> None:
    assert call("--version") == Done(0, f"{__version__}\n", "")


def test_help_names_every_command_of_the_contract(call: Call) -> None:
    done = call("--help")
    assert (done.status, done.err) == (0, "")
    commands = {line.split()[0] for line in done.out.partition("Commands:")[2].splitlines() if line.strip()}
    assert {
        "run",
        "check",
        "plan",
        "list",
        "show",
        "plugins",
        "ls",
        "cp",
        "report",
        "generate",
        "score",
        "predict",
    } <= commands


class Scheduler(Exception):
    """Raised, it ends this process as a scheduler does."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)


class Hidden(Exception):
    """Raised, it is what an interrupted library made of the interruption."""

    def __init__(self) -> None:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)


class Dropped(Exception):
    """Raised, it is in place of an interruption where nothing can be raised."""

    class Ended:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    def __init__(self) -> None:
        self.Ended()
        time.sleep(60)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Diverged("the loss is nan"), 1, "error: the loss is nan\n"),
        (WspaceError("x"), 1, "error: x\n"),
        (KeyboardInterrupt(), 130, "interrupted: the same command goes on from here\n"),
        (Scheduler, 143, "terminated: the same command goes on from here\n"),
        (Hidden, 130, "interrupted: the same command goes on from here\n"),
        (Dropped, 130, "interrupted: the same command goes on from here\n"),
    ],
)
def test_a_failing_run_ends_with_its_status(
    call: Call, recipe, tiny, stages, error, status: int, said: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    stages.fails["train"] = error
    done = call("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    assert done.status == status and done.err.endswith(said) and "Traceback" not in done.err and done.out == ""
    stages.fails.clear()
    done = call("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    assert done.status == 0 and [name for name, *_ in stages.calls[3:]] == [
        "train",
        "generate",
        "evaluate",
        "report",
    ]


def test_of_a_run_that_stopped_it_is_said_where_and_how_it_goes_on(
    call: Call, recipe, tiny, stages, tmp_path: Path
) -> None:
    stages.fails["train"] = Diverged("the loss is nan")
    call("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    (folder,) = (tmp_path / "runs").iterdir()
    said = "it stopped in stage 'train', and the same `wspace run` goes on from there"
    for command in (["report", folder], ["generate", folder, "--classes", "a, b"]):
        assert call(*command) == Done(2, "", f"error: {folder}: this run is not finished: {said}\n")
    (partial,) = folder.glob("train-*.partial")
    shutil.rmtree(partial)
    said = "the same `wspace run` goes on with it"
    assert call("report", folder) == Done(2, "", f"error: {folder}: this run is not finished: {said}\n")


@pytest.mark.parametrize(
    ("error", "status", "word"), [(KeyboardInterrupt, 130, "interrupted"), (Scheduler, 143, "terminated")]
)
def test_a_command_that_would_begin_anew_says_only_that_it_was_interrupted(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: type, status: int, word: str
) -> None:
    def end(*_: object) -> None:
        raise error

    for command in (["generate", "a-run", "--classes", "a, b"], ["report", "a-run"]):
        monkeypatch.setattr("wspace.runs.finished.stages_of", end)
        assert call(*command) == Done(status, "", f"{word}\n")


def test_a_fault_of_ours_keeps_its_traceback(call: Call, recipe, tiny, stages, tmp_path: Path) -> None:
    stages.fails["train"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        call("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_who_leaves_early_is_no_error(buffered: bool) -> None:
    script = "from wspace.cli import main; import sys; sys.argv = ['wspace', 'list']; main()"
    with subprocess.Popen(
        [sys.executable, *([] if buffered else ["-u"]), "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(timeout=300), err) == (0, b"")


SCRIPT = f"{sys.executable} -c 'from wspace.__main__ import run; run()'"


def shell(line: str, folder: Path, **environment: str) -> Done:
    """A line of a shell's, in a process of its own, `wspace` in it being ours."""
    done = subprocess.run(
        ["bash", "-c", line.replace("wspace", SCRIPT)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["ls", "--version", "show generator diffusion"])
def test_a_full_standard_output_is_one_sentence(tmp_path: Path, command: str, unbuffered: str) -> None:
    done = shell(f"wspace {command} > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert done == Done(1, "", "error: standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize("command", ["ls", "--help", "run core"])
def test_a_closed_standard_output_is_told_before_anything_is_done(tmp_path: Path, command: str) -> None:
    done = shell(f"wspace {command} >&-", tmp_path)
    assert done == Done(1, "", "error: standard output is closed; send it to a file, or to /dev/null\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_without_a_standard_error_the_status_tells(tmp_path: Path, stderr: str) -> None:
    assert shell(f"wspace check nosuch {stderr}", tmp_path) == Done(2, "", "")
    done = shell(f"wspace check core {stderr}", tmp_path)
    assert done.status == 0 and done.out.endswith("no problems\n")


def test_a_name_that_the_terminal_cannot_show_is_shown_escaped(tmp_path: Path) -> None:
    done = shell("wspace cp core résumé.yaml", tmp_path, PYTHONIOENCODING="ascii")
    assert done == Done(0, "r\\xe9sum\\xe9.yaml\n", "") and (tmp_path / "résumé.yaml").is_file()


def test_a_file_that_the_system_refuses_is_one_sentence(call: Call) -> None:
    name = "a" * 300
    assert call("report", name) == Done(1, "", f"error: {name}/study.json: File name too long\n")


@pytest.mark.parametrize("command", ["cp core {}", "run core --runs {}", "new-plugin mine --dest {}"])
@pytest.mark.parametrize("place", ["file/x", "/proc/x", "new/" + "a" * 300, "a" * 300])
def test_a_place_where_nothing_can_be_is_told_before_the_work(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    done = call(*command.format(place).split())
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error: {place}") and ": cannot be written: " in done.err and done.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "command",
    [
        "generate . --classes a,b --out {}",
        "generate . --classes a,b --count 2 --out {}",
        "generate . --classes a,b --peft --out {}",
        "init . --classes a,b --out {}",
        "ensemble . --classes a,b --out {}",
        "enhance . a --out {}",
        "fuse . a b --method ties --out {}",
        "zoo import . --out {}",
        "zoo take . x --out {}",
        "zoo take . x --peft --out {}",
        "spec resnet18 --out {}",
    ],
)
@pytest.mark.parametrize("place", ["file/x", "/proc/x", "a" * 300, "~/x", "."])
def test_a_result_that_can_go_nowhere_is_told_before_the_run_is_opened(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    done = call(*command.format(place).split())
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ") and place in done.err
    assert done.err.count("\n") == 1 and os.listdir(tmp_path) == ["file"]


def test_a_zoo_that_finds_no_room_blames_where_it_goes(nano: Path, tmp_path: Path) -> None:
    done = shell(f"ulimit -f 4; wspace zoo export {nano} --out mine", tmp_path)
    sentence = "mine: cannot be written: File too large; the same command goes on from here"
    assert done == Done(1, "", f"error: {sentence}\n") and os.listdir(tmp_path) == []


# ---------------------------------------------------------------- recipes


def test_check_says_that_there_are_no_problems(call: Call, recipe, tiny) -> None:
    assert call("check", recipe, "--plugin", tiny.plugin) == Done(0, f"{recipe}: no problems\n", "")


def test_check_says_where_the_data_are_not(call: Call, tmp_path: Path) -> None:
    file, there = tmp_path / "mine.yaml", tmp_path / "pictures"
    text = packaged_recipes()["core"].read_text(encoding="utf-8").splitlines()
    line = next(number for number, line in enumerate(text) if line.startswith("dataset:"))
    text[line] = f"dataset: {{use: folder, path: {there}}}"
    file.write_text("\n".join(text), encoding="utf-8")
    said = f"dataset.path: {there}: no such file or folder"
    assert call("check", file) == Done(2, "", f"error: {file}:{line + 1}: {said}\n")
    assert call("check", "core", "--set", f"dataset={{use: folder, path: {there}}}").err == f"error: --set {said}\n"
    assert call("check", file, "--fill").status == 0
    there.mkdir()
    assert call("check", file) == Done(0, f"{file}: no problems\n", "")


def test_check_tells_all_problems_at_once(call: Call, recipe, tiny) -> None:
    recipe.write_text(tiny.recipe.replace("rank", "rnk").replace("width: 8", "width: x"))
    done = call("check", recipe, "--plugin", tiny.plugin)
    assert done.status == 2 and done.err.splitlines() == [
        f"error: {recipe}:4: target.rnk: target 'linear' takes no 'rnk'. Did you mean 'rank'? Known: bias, rank",
        f"{recipe}:13: generator.denoiser.width: expected int, got 'x'",
    ]


def is_several(source: Source) -> bool:
    return is_study(source) or is_joint(source)


CORE = ("core", "lora")  # recipes that need no plugin


@pytest.mark.parametrize(
    "name",
    [
        name if name in CORE else pytest.param(name, marks=pytest.mark.plugins("igpg", "t2w", "taskid"))
        for name, file in sorted(packaged_recipes().items())
        if not is_several(read_recipe(file))
    ],
)
def test_a_filled_recipe_is_a_recipe_that_says_the_same(call: Call, name: str) -> None:
    done = call("check", name, "--fill")
    assert (done.status, done.err) == (0, "")
    again = bind(parse_recipe(done.out, "filled.yaml"), load_plugins().registry)
    assert repr(again.filled) == repr(parse_recipe(done.out, "filled.yaml").values)
    assert set(again.filled) == {
        "seed",
        "device",
        *ONLOOKERS,
        *(slot for stage in STAGES for slot in stage.reads),
    }


def test_a_broken_plugin_is_a_warning(
    call: Call, recipe, tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "wspace.recipes.plugins.entry_points", lambda group: [EntryPoint("sick", "no_such_module_here", "wspace")]
    )
    told = "plugin 'sick' cannot be used: ModuleNotFoundError: No module named 'no_such_module_here'"
    done = call("check", recipe, "--plugin", tiny.plugin)
    assert (done.status, done.err) == (0, f"warning: {told}\n")
    done = call("plugins")
    assert done.status == 0 and "sick         no_such_module_here  ModuleNotFoundError: No module named" in done.out
    monkeypatch.setenv("WSPACE_PLUGINS", "")
    assert "not in WSPACE_PLUGINS" in call("plugins").out


def test_ls_and_cp_give_the_packaged_recipes(call: Call, tmp_path: Path) -> None:
    listed = call("ls").out.splitlines()
    assert [line.split()[0] for line in listed] == list(packaged_recipes())
    assert len({line.index(line.split(maxsplit=1)[1]) for line in listed}) == 1, "what they do stands in one column"
    assert next(line for line in listed if line.startswith("nano ")).endswith(
        "  the whole path in under a minute on 2 cores; too small to be good"
    )
    assert call("cp", "nano", tmp_path) == Done(0, f"{tmp_path}/nano.yaml\n", "")
    assert (tmp_path / "nano.yaml").read_bytes() == packaged_recipes()["nano"].read_bytes()


@pytest.mark.parametrize("folder", [True, False])
def test_cp_refuses_to_overwrite(call: Call, tmp_path: Path, folder: bool) -> None:
    mine = tmp_path / "nano.yaml"
    mine.write_text("mine")
    done = call("cp", "nano", tmp_path if folder else mine)
    assert (done.status, done.out, done.err) == (2, "", f"error: {mine}: is there already\n")
    assert mine.read_text() == "mine"


# ---------------------------------------------------------------- components


def test_list_shows_each_component_with_its_first_line(call: Call, tiny) -> None:
    out = call("list", "dataset", "--plugin", tiny.plugin).out
    assert "dataset      grid             tiny_plugin Points on a grid.\n" in out
    kinds = [line.split()[0] for line in call("list").out.splitlines()]
    assert len(kinds) > 10 and set(call("list", "metric").out.split("\n")[0].split()[:1]) == {"metric"}


def test_list_and_show_tell_a_broken_component_apart(call: Call, tiny) -> None:
    reason = f"{tiny.file}: parameter 'anything' has no annotation"
    assert f"broken: {reason}\n" in call("list", "metric", "--plugin", tiny.plugin).out
    done = call("show", "metric", "broken", "--plugin", tiny.plugin)
    assert (done.status, done.err) == (2, f"error: metric 'broken' is broken: {reason}\n")
    tiny.file.write_text("class Count(:\n")
    read_class.cache_clear()
    assert "broken: " in call("list", "metric", "--plugin", tiny.plugin).out
    assert call("show", "metric", "count", "--plugin", tiny.plugin).status == 2


def test_show_tells_parameters_defaults_and_what_the_run_gives(call: Call, tiny) -> None:
    lines = call("show", "denoiser", "net", "--plugin", tiny.plugin).out.splitlines()
    assert lines[0] == "denoiser net   (Net, plugin tiny_plugin, version 1)"
    assert "  width: int (required)" in lines and "  cap: float, above 0; or null = null" in lines
    assert "  layout: given by the run: shape and mask of the token sequence (TokenLayout)" in lines


# ---------------------------------------------------------------- run


def test_dry_says_what_would_run_and_why_and_runs_nothing(call: Call, recipe, tiny, stages, tmp_path: Path) -> None:
    common = ("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    done = call(*common, "--dry")
    assert done.out.splitlines() == [f"{stage.name:9} will run  not done yet" for stage in STAGES]
    assert stages.calls == [] and not (tmp_path / "runs").exists()
    assert call(*common).status == 0
    lines = call(*common, "--dry", "--set", "generator.denoiser.depth=8").out.splitlines()
    assert lines[0].startswith("zoo       cached    made 20") and lines[1].startswith("opponents cached    made 20")
    assert lines[2:4] == [
        "train     will run  generator.denoiser.depth 2 -> 8",
        "generate  will run  follows train",
    ]
    assert call(*common, "--dry", "--only", "train", "--force", "train").out == "train     will run  forced\n"


def test_a_run_ends_with_its_folder_and_a_second_one_says_that_nothing_changed(
    call: Call, recipe, tiny, stages, tmp_path: Path
) -> None:
    common = ("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    first = call(*common)
    assert first.status == 0 and first.out.splitlines()[-1] == str(tmp_path / "runs/tiny") and len(stages.calls) == 6
    assert "nothing has changed" not in first.out
    second = call(*common)
    assert second.out.splitlines()[0] == "nothing has changed: no stage had to run"
    assert second.out.splitlines()[-1] == str(tmp_path / "runs/tiny") and len(stages.calls) == 6


def test_report_as_json_is_one_object_and_nothing_else(call: Call, recipe, tiny, stages, tmp_path: Path) -> None:
    call("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    done = call("report", tmp_path / "runs/tiny", "--json")
    assert json.loads(done.out) == {
        "recipe": "tiny",
        "run": str(tmp_path / "runs/tiny"),
        "seed": 42,
        "scores": [],
        "uses": {},
    }
    assert (done.status, done.err) == (0, "")


def test_report_ends_with_where_the_page_is(call: Call, recipe, tiny, stages, tmp_path: Path) -> None:
    call("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    folder = tmp_path / "runs/tiny"
    assert call("report", folder).out.splitlines()[-1] == f"{folder}/report.html"
    assert "report.html" not in call("report", folder, "--markdown").out
    (folder / "report.html").unlink()
    assert "report.html" not in call("report", folder).out


def test_a_report_that_was_taken_away_is_told_by_name(call: Call, recipe, tiny, stages, tmp_path: Path) -> None:
    call("run", recipe, "--runs", tmp_path / "runs", "--plugin", tiny.plugin)
    (file,) = (tmp_path / "runs/tiny").glob("report-*/report.json")
    file.unlink()
    done = call("report", tmp_path / "runs/tiny")
    said = "it has gone; `wspace run` with the same recipe makes it again"
    assert (done.status, done.err) == (2, f"error: {file}: {said}\n")
