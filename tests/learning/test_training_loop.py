"""The training loop stopped and gone on with, trained systems on disk, and networks on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.support.stand_ins import Adapter, Judge, Units
from wspace.components.conditioners.text_set import TextSet
from wspace.components.denoisers.mlp import MLP
from wspace.components.generators.diffusion import Diffusion
from wspace.components.predictors.linear import Linear
from wspace.components.tokenizers.neuron import Neuron
from wspace.data.prompts import prompts_of
from wspace.interfaces import Prompts
from wspace.learning.adversary import Adversary
from wspace.learning.loop import TrainingLoop, warmup_cosine
from wspace.learning.phases import GeneratorStep, TrainingPairs, TrainingSet, generator_parameters
from wspace.learning.system import System
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import load_system
from wspace.runs.store import write_manifest
from wspace.support.classes import check_classes
from wspace.support.errors import Diverged, FileError, UserError, WspaceError
from wspace.support.files import save_tensors
from wspace.support.seeding import stream
from wspace.support.settings import Adversary as AdversarySettings
from wspace.support.settings import Generate, Losses, TaskLoss, Train
from wspace.weights.files.network import Network

SPEC = Adapter(2, feature_dim=3, text_dim=4).spec
WEIGHTS = torch.randn(10, SPEC.size, generator=torch.Generator().manual_seed(0))
CLASS_TEXTS = functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=1)
PROMPTS = prompts_of(
    [(0, 1), (1, 2, 3), (3, 4), (0, 5), (2, 4, 5), (0, 3), (1, 4), (2, 5), (0, 2, 4), (1, 5)], CLASS_TEXTS
)
SETTINGS = Train(steps=6, batch=4, lr=1e-2, ema=0.9)
ADVERSARY = AdversarySettings(lr=0.1, turn=1, warmup=0.3)  # of six steps, the first two


def system_of(
    seed: int = 0, predictor: bool = True, width: int = 8, dropout: float = 0.0, fitted: bool = True
) -> System:
    torch.manual_seed(seed)
    tokenizer, conditioner = Neuron(spec=SPEC), TextSet(text_dim=4)
    given = {"layout": tokenizer.layout, "pooled_width": conditioner.pooled_width}
    denoiser = MLP(width, 1, **given)
    if dropout:
        denoiser.layers[0].append(nn.Dropout(dropout))  # type: ignore[operator]
    generator = Diffusion(denoiser, Linear(**given) if predictor else None, layout=tokenizer.layout)  # type: ignore[arg-type]
    system = System(SPEC, tokenizer, conditioner, generator)
    if fitted:
        system.fit(WEIGHTS[:8], PROMPTS[:8], (WEIGHTS[8:], PROMPTS[8:]))
    return system


def loop_of(
    folder: Path,
    settings: Train | TaskLoss = SETTINGS,
    seed: int = 0,
    dropout: float = 0.0,
    adversarial: bool = False,
) -> TrainingLoop:
    """All parameters but those of a task loss, as in the last phase of training."""
    system = system_of(seed, dropout=dropout).eval()  # as the phase before leaves it
    adversary = Adversary(Judge(6, layout=system.tokenizer.layout), ADVERSARY, 6) if adversarial else None
    checkpoint = folder / "train.checkpoint.safetensors"
    return TrainingLoop(system, settings, checkpoint, generator_parameters(system), adversary=adversary)


def steps(loop: TrainingLoop, until: int) -> None:
    losses = Losses(symmetry=0.1, adversarial=0.1 if loop.adversary is not None else 0)
    assert isinstance(loop.module, System)
    pairs = TrainingPairs(loop.module, WEIGHTS[:8], PROMPTS[:8])
    step = GeneratorStep(
        TrainingSet((pairs,)),
        SETTINGS,
        losses,
        torch.device("cpu"),
        symmetry=Units(spec=SPEC),
        adversary=loop.adversary,
    )
    while loop.step < until:
        rng = stream(0, "train", loop.step)
        with torch.random.fork_rng([]):
            torch.manual_seed(rng.initial_seed())
            loop.advance(step(loop.step, rng))


def drawn(system: System, prompts: Prompts = PROMPTS) -> Tensor:
    return system.eval().sample(prompts, Generate(steps=3, guidance=2.0, temperature=1.0), stream(0, "draw"))


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_loop_stopped_and_resumed_leaves_the_bytes_of_one_that_was_not(
    tmp_path: Path, stop: int, dropout: float, adversarial: bool
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    uninterrupted = loop_of(whole, dropout=dropout, adversarial=adversarial)
    for until in (stop, 6):
        steps(uninterrupted, until)
        with uninterrupted.under_ema():
            drawn(uninterrupted.module)
        uninterrupted.keep_if_best(0.1 * until)

    stopped = loop_of(parts, dropout=dropout, adversarial=adversarial)
    steps(stopped, stop)
    stopped.keep_if_best(0.1 * stop)
    stopped.save()
    best = {name: value.clone() for name, value in stopped.best_parameters.items()}
    resumed = loop_of(parts, seed=1, dropout=dropout, adversarial=adversarial)  # its own start must not matter
    resumed.resume()
    assert resumed.step == stop and resumed.best_accuracy == 0.1 * stop
    assert all(torch.equal(value, best[name]) for name, value in resumed.best_parameters.items())
    steps(resumed, 6)
    resumed.keep_if_best(0.1 * 6)

    for loop in (uninterrupted, resumed):
        loop.save()
    assert resumed.checkpoint.read_bytes() == uninterrupted.checkpoint.read_bytes()
    assert any(name.startswith("adversary.optimizer.") for name in load_file(resumed.checkpoint)) == adversarial
    assert resumed.finish() == uninterrupted.finish()
    assert [entry["step"] for entry in resumed.log] == [1, 2, 3, 4, 5, 6]
    learnt = [entry["step"] for entry in resumed.log if "discriminator" in entry]
    assert learnt == ([1, 2, 3, 5] if adversarial else [])
    assert [entry["step"] for entry in resumed.log if "adversarial" in entry["terms"]] == (
        [4, 6] if adversarial else []
    )
    for loop, folder in ((uninterrupted, whole), (resumed, parts)):
        assert not loop.module.training
        save_tensors(folder / "generator.safetensors", loop.module.state_dict())
    assert (parts / "generator.safetensors").read_bytes() == (whole / "generator.safetensors").read_bytes()
    assert not any("discriminator" in name for name in resumed.module.state_dict())


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.999])
def test_a_checkpoint_with_one_bit_flipped_is_told_and_training_begins_again(tmp_path: Path, share: float) -> None:
    loop = loop_of(tmp_path)
    steps(loop, 2)
    loop.save()
    content = bytearray(loop.checkpoint.read_bytes())
    content[int(share * len(content))] ^= 4
    loop.checkpoint.write_bytes(content)
    fresh = loop_of(tmp_path)
    assert not fresh.resume() and fresh.step == 0 and not fresh.log


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_checkpoint_is_ignored(tmp_path: Path, share: float) -> None:
    loop = loop_of(tmp_path)
    steps(loop, 2)
    loop.save()
    whole = loop.checkpoint.read_bytes()
    loop.checkpoint.write_bytes(whole[: int(share * len(whole))])
    fresh, untouched = loop_of(tmp_path), system_of().state_dict()
    assert not fresh.resume()
    assert fresh.step == 0 and not fresh.log
    assert all(torch.equal(value, untouched[name]) for name, value in fresh.module.state_dict().items())
    fresh.save()  # and replaced
    assert load_file(fresh.checkpoint)


def test_the_average_is_the_exponential_one_with_a_short_start(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, Train(steps=20, lr=1e-2, ema=0.4))
    expected = {name: p.detach().double().clone() for name, p in loop.parameters.items()}
    decays = []
    for n in range(1, 13):
        steps(loop, n)
        decays.append(min(0.4, n / (n + 10)))
        for name, p in loop.parameters.items():
            expected[name] = decays[-1] * expected[name] + (1 - decays[-1]) * p.detach().double()
    assert 0.4 in decays and min(decays) < 0.1  # both sides of the minimum
    for name, value in expected.items():
        torch.testing.assert_close(loop.ema_parameters[name].double(), value, rtol=1e-5, atol=1e-6)
    own = {name: p.detach().clone() for name, p in loop.parameters.items()}
    with loop.under_ema():
        assert not loop.module.training
        assert all(torch.equal(p, loop.ema_parameters[name]) for name, p in loop.parameters.items())
    assert loop.module.training and all(torch.equal(p, own[name]) for name, p in loop.parameters.items())


def test_the_best_average_is_the_one_kept(tmp_path: Path) -> None:
    loop, kept = loop_of(tmp_path), {}
    for until, accuracy in ((1, 0.2), (2, 0.7), (3, float("nan")), (4, 0.5)):
        steps(loop, until)
        loop.keep_if_best(accuracy)
        kept[until] = {name: value.clone() for name, value in loop.ema_parameters.items()}
    log = loop.finish()
    assert loop.best_accuracy == 0.7 and log[1]["validation_accuracy"] == 0.7
    assert all(torch.equal(p, kept[2][name]) for name, p in loop.parameters.items())
    assert not torch.equal(kept[2]["generator.denoiser.leave.weight"], kept[4]["generator.denoiser.leave.weight"])


def test_without_an_average_the_parameters_are_looked_at_and_kept_and_nothing_is_saved_twice(tmp_path: Path) -> None:
    settings = Train(steps=6, batch=4, lr=1e-2, ema=0)
    loop, kept = loop_of(tmp_path, settings), {}
    for until, accuracy in ((2, 0.7), (4, 0.5)):
        steps(loop, until)
        kept[until] = {name: p.detach().clone() for name, p in loop.parameters.items()}
        with loop.under_ema():
            assert not loop.module.training
            assert all(torch.equal(p, kept[until][name]) for name, p in loop.parameters.items())
        loop.keep_if_best(accuracy)
    loop.save()
    assert {name.partition(".")[0] for name in load_file(loop.checkpoint)} == {"parameters", "best", "optimizer"}
    resumed = loop_of(tmp_path, settings, seed=1)
    assert resumed.resume()
    for each in (loop, resumed):
        steps(each, 5)
        each.finish()
        assert all(torch.equal(p, kept[2][name]) for name, p in each.parameters.items())


def test_a_loop_moves_its_own_parameters_alone(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    before = {name: p.detach().clone() for name, p in loop.module.named_parameters()}
    steps(loop, 3)
    for name, p in loop.module.named_parameters():
        assert torch.equal(p, before[name]) == (name not in loop.parameters), name
    assert set(before) - set(loop.parameters) == {"generator.predictor.weight", "generator.predictor.bias"}


def test_the_rate_warms_up_and_then_falls_to_zero() -> None:
    rates = [warmup_cosine(step, 40, 0.1) for step in range(40)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True) and 0 < rates[-1] < 0.01


def test_the_optimiser_follows_the_rate_also_after_a_checkpoint(tmp_path: Path) -> None:
    settings = Train(steps=6, batch=4, lr=1e-2, warmup=0.5)
    whole, stopped = loop_of(tmp_path, settings), loop_of(tmp_path, settings)
    used = []
    for until in range(1, 7):
        used.append(whole.optimizer.param_groups[0]["lr"])
        steps(whole, until)
    assert used == [1e-2 * warmup_cosine(step, 6, 0.5) for step in range(6)]
    steps(stopped, 4)
    stopped.save()
    resumed = loop_of(tmp_path, settings)
    resumed.resume()
    assert resumed.optimizer.param_groups[0]["lr"] == used[4]


def test_a_checkpoint_of_an_older_version_is_gone_on_from(tmp_path: Path) -> None:
    """It called the EMA `averaged`, its log was flat, and there were no hashes."""
    loop = loop_of(tmp_path)
    steps(loop, 3)
    loop.keep_if_best(0.5)
    loop.save()
    with safe_open(loop.checkpoint, "pt") as opened:
        state = json.loads(opened.metadata()["state"])
    del state["sha256"]
    state["log"] = [entry | entry.pop("terms") for entry in state["log"]]
    old = {name.replace("ema.", "averaged.", 1): tensor for name, tensor in load_file(loop.checkpoint).items()}
    assert any(name.startswith("averaged.") for name in old)
    save_file(old, loop.checkpoint, {"state": json.dumps(state)})
    resumed = loop_of(tmp_path, seed=1)
    resumed.resume()
    for each in (loop, resumed):
        steps(each, 6)
    assert all(torch.equal(p, resumed.ema_parameters[name]) for name, p in loop.ema_parameters.items())
    assert [entry["step"] for entry in resumed.log] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("settings", "section"), [(SETTINGS, "train"), (TaskLoss(steps=6), "task_loss")])
def test_a_loss_that_is_not_a_number_stops_the_training(
    tmp_path: Path, settings: Train | TaskLoss, section: str
) -> None:
    loop = loop_of(tmp_path, settings)
    steps(loop, 1)
    before = {name: p.detach().clone() for name, p in loop.parameters.items()}
    pairs = loop.module.pairs(WEIGHTS[:4] * float("nan"), PROMPTS[:4])
    with pytest.raises(Diverged) as caught:
        loop.advance([(loop.module.generator.loss(pairs, stream(0))["denoising"], {})])
    assert str(caught.value) == f"the loss is nan at step 1; lower {section}.lr, or {section}.clip"
    assert all(torch.equal(p, before[name]) for name, p in loop.parameters.items())


def test_a_gradient_that_is_not_a_number_is_told_with_its_parameter_and_nothing_moves(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    steps(loop, 2)
    name, parameter = list(loop.parameters.items())[-1]
    before = parameter.detach().clone()
    with pytest.raises(Diverged) as caught:
        loop.advance([((parameter.sum() - parameter.sum().detach()).sqrt(), {})])  # 0, of infinite slope
    assert (
        str(caught.value) == f"the gradient of {name} is not a finite number at step 2; lower train.lr, or train.clip"
    )
    assert torch.equal(parameter, before) and loop.step == 2


@pytest.mark.parametrize("bad", ["parameter", "term"])
def test_a_loss_that_is_not_a_number_is_told_with_what_made_it_so(tmp_path: Path, bad: str) -> None:
    loop, nan = loop_of(tmp_path), torch.tensor(float("nan"), requires_grad=True)
    name, parameter = next(iter(loop.parameters.items()))
    if bad == "parameter":
        nn.init.constant_(parameter, float("inf"))
    with pytest.raises(Diverged) as caught:
        loop.advance([(nan * 1, {"terms": {"denoising": torch.ones(()), "symmetry": nan.detach()}})])
    what = f"parameter {name} is not a finite number" if bad == "parameter" else "the loss (symmetry) is nan"
    assert str(caught.value) == f"{what} at step 0; lower train.lr, or train.clip"


# ---------------------------------------------------------------- a trained system


@pytest.mark.parametrize("predictor", [True, False])
def test_a_system_saved_and_loaded_draws_the_same_bytes(tmp_path: Path, predictor: bool) -> None:
    system, fresh = system_of(0, predictor), system_of(5, predictor, fitted=False)
    file = tmp_path / "generator.safetensors"
    nn.init.normal_(system.generator.denoiser.leave.weight)  # type: ignore[union-attr, arg-type]
    save_tensors(file, system.state_dict())
    assert not torch.equal(drawn(fresh), drawn(system))
    assert torch.equal(drawn(load_system(fresh, file)), drawn(system))
    assert not fresh.training


def test_a_file_that_is_not_the_systems_is_an_error_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "generator.safetensors"
    with pytest.raises(FileError, match=f"{file}: not the trained generator of this recipe"):
        load_system(system_of(), file)
    save_tensors(file, system_of(width=6).state_dict())
    with pytest.raises(FileError, match="not the trained generator of this recipe"):
        load_system(system_of(), file)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(FileError, match="not the trained generator of this recipe"):
        load_system(system_of(width=6), file)


def test_weights_that_are_not_finite_are_never_given_out() -> None:
    system = system_of()
    nn.init.constant_(system.generator.denoiser.leave.bias, float("inf"))  # type: ignore[union-attr, arg-type]
    with pytest.raises(Diverged) as caught:
        drawn(system)
    assert str(caught.value) == (
        "the generator made weights that are not finite numbers; train it longer or at a lower rate"
    )


# ---------------------------------------------------------------- one network


def network() -> Network:
    return Network(("otter", "café lamp"), {n: t[0] for n, t in SPEC.unflatten(WEIGHTS).items()}, "runs/nano")


def message(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        Network.load(file, SPEC)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value)[len(f"{file}: ") :]


def test_a_network_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "new" / "head.safetensors"
    network().save(file)
    loaded = Network.load(file, SPEC)
    assert (loaded.classes, loaded.origin) == (("otter", "café lamp"), "runs/nano")
    assert torch.equal(SPEC.flatten(loaded.tensors), WEIGHTS[0])
    assert [f.name for f in file.parent.iterdir()] == ["head.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_is_loaded_in_single(tmp_path: Path, dtype: torch.dtype) -> None:
    head = network()
    Network(head.classes, {n: t.to(dtype) for n, t in head.tensors.items()}).save(tmp_path / "head")
    loaded = Network.load(tmp_path / "head", SPEC)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.tensors.values())
    torch.testing.assert_close(SPEC.flatten(loaded.tensors), WEIGHTS[0], rtol=0.01, atol=0.01)


def test_each_fault_of_a_network_file_has_its_message(tmp_path: Path) -> None:
    file, head = tmp_path / "head.safetensors", network()
    assert message(file) == "no such file"
    assert message(tmp_path) == "is a folder, not a file"
    head.save(file)
    whole = file.read_bytes()
    for content in (b"", b"not tensors", whole[:20], whole[:-3], whole[: len(whole) // 2]):
        file.write_bytes(content)
        assert message(file) == "truncated, or not a safetensors file"
    Network(head.classes, head.tensors | {"w1": torch.zeros(2, 3)}).save(file)
    assert message(file) == "w1 has shape (2, 3); this target needs (3, 2)"
    Network(head.classes, {"w1": torch.zeros(3, 2)}).save(file)
    assert message(file) == "holds tensors w1; this target has w1, b1, w2, b2"
    Network(head.classes, head.tensors | {"b2": torch.tensor([0, 0, float("nan"), 0])}).save(file)
    assert message(file) == "b2 holds values that are not finite numbers"
    Network(head.classes, head.tensors | {"b2": torch.full((4,), 1e300, dtype=torch.float64)}).save(file)
    assert message(file) == "b2 holds values that are not finite numbers"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        *({"wspace": f'{{"classes": {c}}}'} for c in ("{", "10", '"ab"', "null", "[1, 2]")),
        {"wspace": "3"},
    ],
)
def test_a_file_without_a_list_of_classes_says_so(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file(network().tensors, tmp_path / "head", metadata)
    assert message(tmp_path / "head") == "does not say its classes; `wspace generate` writes files that do"


def test_class_names_are_trimmed_and_must_be_two_different_ones() -> None:
    assert check_classes([" otter ", "table   lamp"]) == ("otter", "table lamp")
    for classes, said in {
        (): "no classes: name two or more",
        ("", " "): "no classes: name two or more",
        ("otter", ""): "one of the class names is empty",
        ("otter", "lamp", " otter"): "the class 'otter' is named twice",
        ("otter",): "one class ('otter') leaves nothing to tell apart: name two or more",
    }.items():
        with pytest.raises(UserError) as caught:
            check_classes(classes)
        assert str(caught.value) == said


def test_a_zoo_made_with_other_images_or_encoders_is_refused(tmp_path: Path) -> None:
    made = {"images": "a", "backbone": "b", "text": "c"}
    (tmp_path / "world.json").write_text(json.dumps({"fingerprints": made}))
    zoo = Zoo(tmp_path)
    zoo.check({"images": ("x", "a"), "backbone": ("b",), "text": ("c",)})
    with pytest.raises(WspaceError) as caught:
        zoo.check({"images": ("x",), "backbone": ("b",), "text": ("y", "z")})
    assert str(caught.value) == (
        f"{tmp_path}: made with other images and text than those here now (has a package that carries them been "
        "upgraded?): run the recipe again with --force zoo"
    )


def test_a_zoo_made_with_other_pictures_of_a_folder_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text(json.dumps({"fingerprints": {"images": "a", "text": "c"}}))
    write_manifest(tmp_path, {"slots": {"dataset.use": "folder", "dataset.path": "/my/pictures"}})
    zoo = Zoo(tmp_path)
    with pytest.raises(WspaceError) as caught:
        zoo.check({"images": ("x",), "text": ("c",)})
    assert str(caught.value) == (
        f"{tmp_path}: made with other pictures than /my/pictures has now: put back those that were there, or run the recipe "
        "again, which makes the zoo anew"
    )
    with pytest.raises(WspaceError, match=r"made with other images and text than .* \(has a package"):
        zoo.check({"images": ("x",), "text": ("y",)})
