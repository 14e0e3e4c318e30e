"""Runs, zoos and weights that go to a hub and come from it: whole, checked, and with nothing executed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import RepoCard, constants, file_download

import wspace
from tests.conftest import Wspace
from tests.support.hub import Hub, Repository, hub_fixture, serving  # noqa: F401
from wspace.runs.run import Run
from wspace.support.cards import CARD
from wspace.support.errors import FileError, UserError
from wspace.support.names import HUB_CONFIG, HUB_MODEL, HUB_WEIGHTS
from wspace.support.progress import Progress
from wspace.uses.hub import remote
from wspace.uses.hub.packing import Asked, chosen_of, packed, paths_in
from wspace.uses.hub.parcel import PARCEL, SAFE, is_safe
from wspace.uses.hub.remote import Place
from wspace.weights.files.network import Network
from wspace.weights.zoo.format import StoredZoo

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")  # the client's, of its own transport

CLASSES = "book, camera, cloud"


@dataclass(frozen=True)
class Pushed:
    said: list[str]  # on standard error
    files: dict[str, bytes]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits a second before it tries again."""
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def unpack(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def head(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("heads") / "head.safetensors"
    Run.open(nano).generate(CLASSES.split(",")).save(file)
    return file


@pytest.fixture(scope="module")
def pushed(nano: Path, inside: Wspace, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    """The nano run, pushed, and what is on the hub then."""
    with pytest.MonkeyPatch.context() as monkeypatch, serving(tmp_path_factory.mktemp("pushed"), monkeypatch) as hub:
        done = inside("push", nano, "me/nano", "--licence", "mit")
        assert (done.returncode, done.stdout) == (0, f"{hub.address}/me/nano\n"), done.stderr
        return Pushed(done.stderr.splitlines(), hub.repositories["me/nano"].files)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Weights that are pushed in no time: twenty kilobytes."""
    file = tmp_path_factory.mktemp("small") / "small.safetensors"
    Network(("a", "b"), {"weight": torch.arange(5_000.0)}).save(file)
    with packed(file, Place("me/small"), Asked(), Progress()) as ready:
        return contents(ready.folder)


@pytest.fixture
def there(hub: Hub, sent: dict[str, bytes]) -> Repository:
    """`me/small`, on the hub."""
    hub.repositories["me/small"] = Repository(dict(sent))
    return hub.repositories["me/small"]


def one_sentence(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """What a command says that fails, below what it said before."""
    said = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert said.startswith("error: ") and "Traceback" not in done.stderr
    return said.removeprefix("error: ")


# ---------------------------------------------------------------- runs


def test_a_run_that_was_pushed_generates_elsewhere_what_it_generates_here(
    hub: Hub, pushed: Pushed, nano: Path, head: Path, inside: Wspace, tmp_path: Path
) -> None:
    hub.repositories["me/nano"] = Repository(pushed.files)
    out = tmp_path / "elsewhere"
    done = inside("pull", "me/nano", "--out", out)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert contents(out) == pushed.files
    again = tmp_path / "head.safetensors"
    assert inside("generate", out, "--classes", CLASSES, "--out", again).returncode == 0
    assert again.read_bytes() == head.read_bytes()
    here, elsewhere = (json.loads(inside("report", run, "--json").stdout) for run in (nano, out))
    assert elsewhere | {"run": ""} == here | {"run": ""}
    assert wspace.load(out).load_network(again).classes == wspace.load(head).classes


def test_a_push_says_what_goes_and_what_does_not(pushed: Pushed) -> None:
    summary, *parts = (line for line in pushed.said if not line.startswith(("Upload", " " * 20)))
    assert summary.startswith("generator nano: ") and summary.endswith(" MB")
    assert any("MB  train-" in part and part.endswith("/ (6 files)") for part in parts)
    assert any(part.startswith("left out, and not needed to generate: zoo (3.7 MB), opponents (") for part in parts)
    assert parts[-1] == "wspace pull me/nano fetches it"


def test_the_card_of_a_run_says_what_it_is_and_what_it_is_worth(pushed: Pushed) -> None:
    card = RepoCard(pushed.files[CARD].decode())
    assert (card.data.license, card.data.library_name) == ("mit", "wspace")
    for part in (
        "# nano: classifiers from the names of their classes", "`clip-adapter (rank 4, ", "in “a photo of ",
        "| trained on | 128 networks for tasks of 3 to 6 of 18 classes of data set `icons (", "\n| unseen-classes | ",
        "| licence of the backbone | ", "plugins t2w: install those first", "wspace pull me/nano --out generator",
        'wspace.load("hf://me/nano")', "as `wspace enhance`, need them",
    ):  # fmt: skip
        assert part in card.text
    assert not any(line.endswith(" ") for line in card.text.splitlines())


def test_what_a_run_goes_without_is_named_when_it_is_asked_for(pushed: Pushed, inside: Wspace, tmp_path: Path) -> None:
    out = unpack(pushed.files, tmp_path / "nano")
    run = wspace.load(out)
    with pytest.raises(
        FileError, match=r"came here without the zoo's networks; `wspace push --whole` takes them along"
    ):
        _ = run.zoo.base
    with pytest.raises(FileError, match=r"opponents-\w+: the run came here without it; `wspace push --whole` takes it"):
        _ = run.opponents
    assert one_sentence(inside("push", out, "me/again", "--dry", "--whole")) == (
        f"--whole: {out} came here without zoo and opponents and generate, and has less to send"
    )
    assert "came here without the zoo's networks" in one_sentence(
        inside("zoo", "export", out, "--out", tmp_path / "zoo")
    )
    plan = inside("run", "nano", "--runs", tmp_path, "--dry").stdout.splitlines()
    assert [line.split()[:2] for line in plan] == [
        ["zoo", "will"], ["opponents", "will"], ["train", "cached"], ["generate", "will"], ["evaluate", "cached"],
        ["report", "cached"],
    ]  # fmt: skip


def test_a_whole_run_is_all_that_its_stages_left(nano: Path) -> None:
    chosen = chosen_of(nano, whole=True)
    left = [name for name in contents(nano) if not name.startswith(".lock")]
    assert (sorted(chosen.names), chosen.left_out, chosen.absent) == (sorted(left), [], [])


def test_files_that_the_recipe_names_are_told(nano: Path, tmp_path: Path) -> None:
    assert paths_in(Run.open(nano).recipe) == []
    words, recipe = tmp_path / "words.yaml", (nano / "recipe.yaml").read_text()
    shutil.copy(nano / "run.json", tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipe.replace("{use: template}", f"{{use: descriptions, file: {words}}}"))
    assert paths_in(Run.open(tmp_path).recipe) == [f"texts.file {words}"]


def test_stages_of_a_run_are_folders_of_it(nano: Path, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "run.json"):
        shutil.copy(nano / name, tmp_path)
    about = json.loads((nano / "run.json").read_text())
    about["stages"]["train"] = "../nano/train"
    (tmp_path / "run.json").write_text(json.dumps(about))
    with pytest.raises(FileError, match=r"'../nano/train', of stage 'train', is not the name of a folder here"):
        wspace.load(tmp_path)


# ---------------------------------------------------------------- sending and fetching


def test_what_was_sent_before_an_interruption_is_not_sent_again(hub: Hub, head: Path, inside: Wspace) -> None:
    hub.refused = 1
    said = one_sentence(inside("push", head, "me/head"), status=1)
    assert said.startswith("me/head: the hub broke off (") and said.endswith("the same command goes on from here")
    large = hub.asked("PUT", "/large/")
    assert len(large) == 1 and hub.repositories["me/head"].files == {}
    assert inside("push", head, "me/head").returncode == 0
    assert hub.asked("PUT", "/large/") == large and PARCEL in hub.repositories["me/head"].files


def test_a_connection_that_drops_in_the_middle_of_a_file_goes_on_from_there(
    hub: Hub, there: Repository, sent: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1)  # of which the client writes what it has, 10 MB otherwise
    hub.drops[HUB_WEIGHTS] = 2
    remote.pull(Place("me/small"), tmp_path / "small", Progress())
    assert contents(tmp_path / "small") == sent
    assert len(hub.asked("GET", HUB_WEIGHTS)) == 3 and hub.served[HUB_WEIGHTS] == len(sent[HUB_WEIGHTS])


def test_an_interrupted_pull_leaves_nothing_in_its_place_and_goes_on(
    hub: Hub, there: Repository, sent: dict[str, bytes], inside: Wspace, tmp_path: Path
) -> None:
    hub.drops[CARD] = 1000
    done = inside("pull", "me/small", "--out", tmp_path / "small")
    assert one_sentence(done, status=1).startswith("me/small: the hub broke off (")
    assert not (tmp_path / "small").exists() and hub.asked("GET", HUB_WEIGHTS)
    hub.drops.clear()
    hub.requests.clear()
    assert inside("pull", "me/small", "--out", tmp_path / "small").returncode == 0
    assert contents(tmp_path / "small") == sent
    assert (len(hub.asked("GET", CARD)), hub.asked("GET", HUB_WEIGHTS)) == (1, [])
    assert list(tmp_path.glob(".small*")) == []


def test_a_file_that_was_tampered_with_leaves_nothing(
    there: Repository, sent: dict[str, bytes], inside: Wspace, tmp_path: Path
) -> None:
    there.files[HUB_WEIGHTS] = sent[HUB_WEIGHTS][:-1] + b"\x01"
    assert one_sentence(inside("pull", "me/small", "--out", tmp_path / "small")) == (
        f"me/small: {HUB_WEIGHTS} is not what was sent: its sha256 is not the one in {PARCEL}; nothing of it is used"
    )
    assert list(tmp_path.glob("*small*")) == []
    del there.files[HUB_WEIGHTS]
    assert one_sentence(inside("pull", "me/small", "--out", tmp_path / "small")) == (
        f"me/small: {HUB_WEIGHTS} is missing, and {PARCEL} lists it; nothing of it is used"
    )


def test_pickles_and_code_are_not_fetched(hub: Hub, there: Repository, sent: dict[str, bytes], tmp_path: Path) -> None:
    strangers = ("model.pt", "pytorch_model.bin", "evil.pkl", "modeling.py", "uses/more.safetensors")
    there.files |= dict.fromkeys(strangers, b"anything")
    remote.pull(Place("me/small"), tmp_path / "small", Progress())
    assert contents(tmp_path / "small") == sent
    assert not any(hub.asked(method, name) for method in ("HEAD", "GET") for name in strangers)


@pytest.mark.parametrize(
    "name", ["evil.pkl", "../up.json", "/etc/a.json", "a/../b.json", ".hidden/a.json", "a\\b.json", "a//b.json"]
)
def test_only_files_of_safe_kinds_below_the_repository_are_taken(name: str) -> None:
    assert not is_safe(name)


UNSAFE = {"format": 1, "wspace": "1", "kind": "zoo", "name": "x", "files": {"evil.pkl": {"bytes": 8, "sha256": "0"}}}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([], "does not say its format: `wspace push` did not write it"),
        ({"format": 2}, "is in format 2, and this wspace reads format 1"),
        (UNSAFE | {"kind": "virus"}, "kind: must be 'generator', 'zoo' or 'weights'"),
        (UNSAFE, f"lists 'evil.pkl', which is not fetched: it may be {', '.join(SAFE)}, in a folder below its own"),
    ],
)
def test_a_list_that_cannot_be_followed(there: Repository, tmp_path: Path, listed: object, said: str) -> None:
    there.files |= {PARCEL: json.dumps(listed).encode(), "evil.pkl": b"anything"}
    with pytest.raises(FileError) as caught:
        remote.pull(Place("me/small"), tmp_path / "small", Progress())
    assert str(caught.value).replace(":", "") == f"me/small {PARCEL} {said}".replace(":", "")
    assert list(tmp_path.glob("*small*")) == []


# ---------------------------------------------------------------- loading


def test_what_is_loaded_from_the_hub_is_downloaded_once(
    hub: Hub, there: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = wspace.load("hf://me/small")
    assert isinstance(loaded, Network) and loaded.classes == ("a", "b")
    hub.requests.clear()
    assert wspace.load("hf://me/small@main").classes == ("a", "b")
    assert hub.asked("GET", "/resolve/") == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert wspace.load("hf://me/small").classes == ("a", "b")
    with pytest.raises(UserError) as caught:
        wspace.load("hf://me/other")
    assert str(caught.value) == "me/other: is not in the cache, and HF_HUB_OFFLINE is set: unset it to download it"


def test_a_file_that_changed_in_the_cache_is_told_and_downloaded_anew(there: Repository) -> None:
    folder = remote.cached(Place("me/small"), Progress())
    (folder / CARD).resolve().write_text("another")
    with pytest.raises(FileError) as caught:
        wspace.load("hf://me/small")
    assert str(caught.value) == (
        f"me/small: {CARD} is not what was sent: its sha256 is not the one in {PARCEL}; nothing of it is used"
    )
    assert wspace.load("hf://me/small").classes == ("a", "b")


def test_sending_and_fetching_need_no_torch() -> None:
    script = "import sys, wspace.cli.hub, wspace.uses.hub.remote; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# ---------------------------------------------------------------- zoos and weights


def test_a_zoo_comes_back_as_it_was(hub: Hub, nano: Path, inside: Wspace, tmp_path: Path) -> None:
    zoo = nano / json.loads((nano / "run.json").read_text())["stages"]["zoo"]
    done = inside("push", zoo, "me/heads", "--licence", "cc-by-4.0")
    assert (done.returncode, done.stdout) == (0, f"{hub.address}/datasets/me/heads\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "wspace pull datasets/me/heads fetches it"
    done = inside("pull", "datasets/me/heads", "--out", tmp_path / "heads", "--json")
    assert json.loads(done.stdout)["kind"] == "zoo"
    assert inside("zoo", "verify", tmp_path / "heads").stdout == "128 networks in 2 files: all as they were written\n"
    loaded, here = wspace.load("hf://datasets/me/heads"), wspace.load(zoo)
    assert isinstance(loaded, StoredZoo) and loaded.header.licence == "cc-by-4.0"
    assert torch.equal(loaded.weights(), here.weights())
    assert RepoCard.load(tmp_path / "heads" / CARD).data.license == "cc-by-4.0"
    assert one_sentence(inside("pull", "me/heads", "--out", tmp_path / "more")) == (
        "me/heads: no such repository, or a private one, which your token does not open; a zoo is datasets/me/heads"
    )


def test_weights_go_with_what_their_run_says_of_them(hub: Hub, nano: Path, head: Path, inside: Wspace) -> None:
    done = inside("push", head, "me/head", "--run", nano, "--licence", "mit", "--private", "--json")
    there = hub.repositories["me/head"]
    assert json.loads(done.stdout) == {
        "repository": "me/head", "address": f"{hub.address}/me/head", "kind": "weights",
        "bytes": sum(len(content) for name, content in there.files.items() if name != PARCEL),
        "files": [CARD, HUB_WEIGHTS],
    }  # fmt: skip
    assert there.private and there.files[HUB_WEIGHTS] == head.read_bytes()
    card = RepoCard(there.files[CARD].decode())
    assert (card.data.license, card.data.library_name) == ("mit", "wspace")
    assert "“a photo of book”" in card.text and " % of such tasks are between " in card.text
    assert 'network = wspace.load("hf://me/head")' in card.text
    loaded, here = wspace.load("hf://me/head"), Run.open(nano).load_network(head)
    assert loaded.classes == here.classes == ("book", "camera", "cloud")
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in here.tensors.items())


def test_weights_alone_say_that_their_run_would_say_more(head: Path) -> None:
    with packed(head, Place("me/head"), Asked(), Progress()) as ready:
        assert ready.notes == ["note: the card does not say what accuracy to expect; --run RUN names the run that does"]
        assert "| expected accuracy | the run that generated it does not say |" in (ready.folder / CARD).read_text()


def test_an_exported_folder_goes_as_it_is(hub: Hub, sent: dict[str, bytes], inside: Wspace, tmp_path: Path) -> None:
    of_export = {HUB_WEIGHTS: sent[HUB_WEIGHTS], HUB_CONFIG: b"{}", HUB_MODEL: b"onnx", CARD: sent[CARD]}
    folder = unpack({**of_export, "notes.txt": b"mine"}, tmp_path / "head-hub")
    assert inside("push", folder, "me/head").returncode == 0
    files = hub.repositories["me/head"].files
    assert {name: content for name, content in files.items() if name != PARCEL} == of_export
    assert wspace.load("hf://me/head").classes == wspace.load(folder).classes == ("a", "b")
    assert one_sentence(inside("push", folder, "me/head", "--licence", "mit")) == (
        f"--licence: {folder / CARD} says it already; name the licence to `wspace export`"
    )


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    "name", ["nano", "", "a/b/c", "me/na no", "me/", "me/nano@", "models/me/nano", "me/a--b", "me/-nano", "https://x/y"]
)
def test_a_name_that_is_none(inside: Wspace, name: str) -> None:
    expected = f"{name!r} is no name of a repository: write user/name, or datasets/user/name for a zoo"
    assert one_sentence(inside("pull", name)) == one_sentence(inside("push", "x", name)) == expected


def test_names_of_repositories() -> None:
    assert Place.read("hf://datasets/me/heads@v1") == Place("me/heads", "dataset", "v1")
    assert str(Place.read("hf://datasets/me/heads@v1")) == "datasets/me/heads@v1"
    assert Place.read("me/nano").address == "hf://me/nano"


def without_token(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


def offline(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def refused(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")


@pytest.mark.parametrize(
    ("without", "command", "said"),
    [
        (without_token, "push {nano} me/nano", "me/nano: there is no token to write with; make one on {address}/settings/"
         "tokens, and run `hf auth login` or set HF_TOKEN"),
        (without_token, "pull me/secret", "me/secret: no such repository, or a private one, which would take a token (`hf auth "
         "login`, or HF_TOKEN); a zoo is datasets/me/secret"),
        (refused, "push {head} me/new", "me/new: the hub refuses the token: Invalid credentials"),
        (offline, "push {nano} me/nano", "me/nano: HF_HUB_OFFLINE is set: unset it to reach the hub"),
        (offline, "pull me/nano", "me/nano: HF_HUB_OFFLINE is set: unset it to reach the hub"),
        (unreachable, "pull me/nano", "me/nano: http://127.0.0.1:9 does not answer: there is no network, or HF_ENDPOINT names "
         "another place"),
        (None, "pull me/none", "me/none: no such repository, or a private one, which your token does not open; a zoo is "
         "datasets/me/none"),
        (None, "pull datasets/me/none", "datasets/me/none: no such repository, or a private one, which your token does not "
         "open"),
        (None, "pull me/small@v2", "me/small@v2: the repository has no revision 'v2'"),
        (None, "pull me/others", f"me/others: has no {PARCEL}: `wspace push` did not send it"),
        (None, "push {head} others/head", "others/head: the hub refuses the token: You may not write there"),
        (None, "push {head} me/head@main", "me/head@main: what is sent goes to the newest revision; leave out @main"),
    ],
)  # fmt: skip
def test_a_hub_that_does_not_let_us(
    there: Repository, hub: Hub, nano: Path, head: Path, inside: Wspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    without: Callable[..., None] | None, command: str, said: str,
) -> None:  # fmt: skip
    hub.repositories["me/others"] = Repository({"model.safetensors": b"x"})
    hub.repositories["me/secret"] = Repository(private=True)
    monkeypatch.chdir(tmp_path)
    if without is not None:
        without(hub, monkeypatch, tmp_path)
    done = inside(*(word.format(nano=nano, head=head) for word in command.split()))
    assert one_sentence(done) == said.format(address=hub.address)
    assert [path.name for path in tmp_path.iterdir() if path.name != "hub-cache"] == []


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("unfinished", "", "{source}: this run is not finished; the same `wspace run` goes on with it"),
        ("empty", "", "{source}: is none of what can be pushed: the folder of a finished run, a zoo, a file of `wspace "
         "generate`, or a folder of `wspace export --to huggingface`"),
        ("nothing", "", "{source}: no such file or folder"),
        ("text.txt", "", "{source}: truncated, or not a safetensors file"),
        ("nano", "--run x", "--run: says which run generated weights; {source} is a run"),
        ("head.safetensors", "--whole", "--whole: is for runs, of which less may go; {source} is generated weights"),
    ],
)  # fmt: skip
def test_what_cannot_be_pushed(
    nano: Path, head: Path, inside: Wspace, tmp_path: Path, source: str, options: str, said: str
) -> None:
    for name in ("unfinished", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "unfinished/.lock").touch()
    (tmp_path / "text.txt").write_text("text")
    place = {"nano": nano, "head.safetensors": head}.get(source, tmp_path / source)
    assert one_sentence(inside("push", place, "me/it", "--dry", *options.split())) == said.format(source=place)


def test_what_is_no_zoo_is_no_data_set(nano: Path, inside: Wspace) -> None:
    assert one_sentence(inside("push", nano, "datasets/me/nano", "--dry")) == (
        f"datasets/me/nano: is a data set, as zoos are, and {nano} is a run: leave out datasets/"
    )


def test_a_folder_that_is_not_empty_is_left_alone(hub: Hub, inside: Wspace, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert one_sentence(inside("pull", "me/nano", "--out", tmp_path)) == f"{tmp_path}: is there already"
    assert hub.requests == []
