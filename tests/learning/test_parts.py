"""A generator that takes networks in parts: what it knows of all weights, and the same network however it is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wspace.components.architectures.timm import TimmModel
from wspace.components.conditioners.text_set import TextSet
from wspace.components.denoisers.by_token import ByToken
from wspace.components.denoisers.mlp import MLP
from wspace.components.generators.diffusion import Diffusion
from wspace.components.generators.flow import Flow
from wspace.components.generators.predicted import Predicted
from wspace.components.predictors.directions import Directions
from wspace.components.predictors.linear import Linear
from wspace.components.targets.module import Module
from wspace.components.tokenizers.chunk import Chunk
from wspace.interfaces import Prompts
from wspace.interfaces.weights import WeightSpec, plain_spec
from wspace.learning import parts
from wspace.learning.parts import PartStep, PartSystem, first_of, seeds_of
from wspace.support.errors import UserError
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Generate, Train
from wspace.testing.every import stirred
from wspace.testing.subject import TEXTS
from wspace.testing.toys import prompts_of
from wspace.weights.stretches import Stretches

SPEC = plain_spec({"a.weight": (11, 7), "a.bias": (11,), "b.weight": (3, 11), "b.still": (2,)})
HOW = Generate(steps=3)


def system_of(spec: WeightSpec, texts: int = TEXTS, generator: str = "flow") -> PartSystem:
    with seeded(0):
        tokenizer, conditioner = Chunk(8, "none", spec=spec), TextSet(text_dim=texts)
        first = first_of(tokenizer.layout)
        if generator == "predicted":
            predictor = Directions(4, layout=first, pooled_width=conditioner.pooled_width)
            made = Predicted(predictor, layout=first, pooled_width=conditioner.pooled_width)
            return PartSystem(spec, tokenizer, conditioner, made).eval()
        if generator == "around":
            predictor = Directions(4, layout=first, pooled_width=conditioner.pooled_width)
            denoiser = ByToken(16, 2, layout=first, pooled_width=conditioner.pooled_width)
            return PartSystem(spec, tokenizer, conditioner, Flow(denoiser, predictor, layout=first)).eval()
        denoiser = ByToken(16, 2, layout=first, pooled_width=conditioner.pooled_width)
        made = Flow if generator == "flow" else Diffusion
        return PartSystem(spec, tokenizer, conditioner, made(denoiser, None, layout=first)).eval()


def stored(folder: Path, weights: Tensor) -> Stretches:
    file = folder / "zoo.safetensors"
    save_file({"weights": weights}, file)
    return Stretches.of_rows(file)


def zoo(count: int = 6, spec: WeightSpec = SPEC) -> Tensor:
    weights = 1 + torch.linspace(0.1, 2, spec.size) * torch.randn(count, spec.size, generator=stream(0, "zoo"))
    for name, where in spec.slices.items():
        if name == "b.still":
            weights[:, where] = 3.0
    return weights


def fitted(folder: Path, generator: str = "flow") -> tuple[PartSystem, Prompts]:
    system, prompts = system_of(SPEC, generator=generator), prompts_of(6)
    networks = stored(folder, zoo())
    if system.generator.directions:  # no image to look at: strengths are chosen by squared error
        held_out, directions = (networks[4:], prompts[4:]), folder / "directions.safetensors"
        system.fit_parts(networks[:4], prompts[:4], folder / "mean.safetensors", held_out, directions)
    else:
        system.fit_parts(networks, prompts, folder / "mean.safetensors")
    stirred(system.generator, *system.generator.task_parameters())
    return system, prompts


def test_statistics_are_those_of_the_whole_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "TOGETHER", 100)  # so that there are several blocks
    system, _ = fitted(tmp_path)
    mean = zoo().mean(0)
    torch.testing.assert_close(SPEC.flatten(load_file(tmp_path / "mean.safetensors")), mean)
    tensors = SPEC.unflatten(zoo() - mean).values()
    spread = torch.stack([tensor.square().mean().sqrt() for tensor in tensors])
    assert spread[3] == 0 and system.spread[3] == 1  # what does not vary is not divided by nothing
    torch.testing.assert_close(system.spread[:3], spread[:3])
    torch.testing.assert_close(
        system.size, torch.stack([tensor.square().mean().sqrt() for tensor in SPEC.unflatten(mean).values()])
    )


@pytest.mark.parametrize("generator", ["flow", "predicted", "around"])
def test_a_network_is_the_same_bytes_in_memory_in_a_file_and_among_others(tmp_path: Path, generator: str) -> None:
    system, prompts = fitted(tmp_path, generator)
    together = system.sample(prompts, replace(HOW, temperature=1.0), stream(1))
    assert together.isfinite().all() and (together[0] - together[1]).abs().max() > 1e-3
    file = tmp_path / "drawn.safetensors"
    networks = Stretches.create_rows(file, 6, SPEC.size)
    seeds = seeds_of(6, stream(1))
    for number in (4, 0):
        system.draw_into(networks, number, prompts[number : number + 1], replace(HOW, temperature=1.0), seeds[number])
        assert torch.equal(load_file(file)["weights"][number], together[number])


@pytest.mark.parametrize("generator", ["flow", "diffusion", "predicted", "around"])
def test_shards_of_any_size_are_the_bytes_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: str
) -> None:
    system, prompts = fitted(tmp_path, generator)
    layout = system.layout
    mean, spread = system._at(torch.arange(layout.count))
    with torch.no_grad():  # the generator itself, looking at all tokens at once
        condition = system.condition(prompts[:1])
        null = system.conditioner.null(condition)
        tokens = mean + spread * system.generator.sample(condition, null, HOW, stream(1))
    whole = system.tokenizer.detokenize(tokens)[0]
    assert (whole - SPEC.flatten(load_file(tmp_path / "mean.safetensors"))).abs().max() > 1e-3
    for size in (1, 3, 4, layout.count):
        monkeypatch.setattr(parts, "SHARD", size)
        torch.testing.assert_close(system.drawn(prompts[:1], HOW, 1), whole, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(parts, "SHARD", layout.count)
    assert torch.equal(system.drawn(prompts[:1], HOW, 1), whole)


@pytest.mark.parametrize("generator", ["flow", "predicted"])
def test_it_is_as_large_for_a_network_a_thousand_times_as_large(generator: str) -> None:
    large = plain_spec({"a.weight": (300, 400), "a.bias": (300,), "b": (3,), "c": (2,)})
    small, large = (system_of(spec, generator=generator) for spec in (SPEC, large))
    sizes = [{name: tensor.shape for name, tensor in system.state_dict().items()} for system in (small, large)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("generator", ["flow", "predicted", "around"])
def test_its_state_and_the_mean_are_all_there_is_of_it(tmp_path: Path, generator: str) -> None:
    """And the directions of the zoo, where it has such."""
    system, prompts = fitted(tmp_path, generator)
    drawn = system.drawn(prompts[:1], HOW, 1)
    file = tmp_path / "generator.safetensors"
    save_file(system.state_dict(), file)
    again = system_of(SPEC, generator=generator)
    again.load_state_dict(load_file(file))
    again.mean = Stretches.of_file(tmp_path / "mean.safetensors", SPEC)
    if again.generator.directions:
        again.along = Stretches.of_rows(tmp_path / "directions.safetensors")
    assert torch.equal(again.drawn(prompts[:1], HOW, 1), drawn)


def test_in_parts_a_predictor_says_what_it_says_of_whole_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "TOGETHER", 100)
    system, prompts = fitted(tmp_path, "predicted")
    spread = torch.cat([s.expand(entry.size) for s, entry in zip(system.spread, SPEC.entries, strict=True)])
    weights, layout = zoo(), system.layout
    mean = weights[:4].mean(0)
    scaled = system.tokenizer.arrange((weights - mean) / spread)
    whole = Directions(4, layout=layout, pooled_width=system.conditioner.pooled_width)
    whole.fit(scaled[:4], system.condition(prompts[:4]), (scaled[4:], system.condition(prompts[4:])))
    with torch.no_grad():
        expected = mean + spread * system.tokenizer.collect(whole(system.condition(prompts)))
    drawn = system.sample(prompts, HOW, stream(0))
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-3)
    assert len(system.along or ()) == 3  # four networks about their mean span no more


def test_a_predictor_is_told_how_accurate_sums_of_networks_are(tmp_path: Path) -> None:
    system, prompts, weights = system_of(SPEC, generator="predicted"), prompts_of(6), zoo()
    networks, looked = stored(tmp_path, weights), list[tuple[Tensor, int]]()

    def accuracy(made: Tensor, number: int) -> float:
        looked.append((made, number))
        return 0.0

    held_out, directions = (networks[4:], prompts[4:]), tmp_path / "directions.safetensors"
    system.fit_parts(networks[:4], prompts[:4], tmp_path / "mean.safetensors", held_out, directions, accuracy)
    asked = (4, 5, 0, 0, 1, 1, 2, 2, 3, 3)  # those trained on without their own network, and with it
    assert [number for _, number in looked] == [n for n in asked for _ in range(len(looked) // 10)]
    without = (True, True, *4 * (True, False))
    for place, (made, number) in enumerate(looked):  # sums of the others, by shares that are one together
        others = [n for n in range(4) if n != number or not without[place * 10 // len(looked)]]
        away = (weights[others[1:]] - weights[others[0]]).T
        solved = torch.linalg.lstsq(away, (made - weights[others[0]])[:, None]).solution
        torch.testing.assert_close(away @ solved, (made - weights[others[0]])[:, None], rtol=1e-3, atol=1e-3)
    with torch.no_grad():  # nothing told them apart: the smallest penalty, and each task has its network
        drawn = system.sample(prompts[:4], HOW, stream(0))
    torch.testing.assert_close(drawn, weights[:4], rtol=1e-2, atol=1e-2)


def test_a_step_sees_some_tokens_and_its_loss_falls(tmp_path: Path) -> None:
    system, networks = system_of(SPEC), stored(tmp_path, zoo())
    prompts = prompts_of(6)
    system.fit_parts(networks, prompts, tmp_path / "mean.safetensors")
    seen = []
    loss = type(system.generator).loss
    step = PartStep(system, networks, prompts, Train(batch=4, tokens=5), torch.device("cpu"))

    def watched(self: Flow, pairs, rng: torch.Generator) -> dict[str, Tensor]:
        seen.append(pairs.tokens.shape)
        return loss(self, pairs, rng)

    optimizer, values = torch.optim.Adam(system.generator.parameters(), 3e-3), list[float]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Flow, "loss", watched)
        for number in range(150):
            optimizer.zero_grad()
            ((value, _),) = step(number, stream(0, "step", number))
            value.backward()
            optimizer.step()
            values.append(float(value.detach()))
    assert set(seen) == {(4, 5, 8)}
    assert sum(values[-30:]) < 0.9 * sum(values[:30])


def test_a_step_is_the_same_twice(tmp_path: Path) -> None:
    system, prompts = fitted(tmp_path)
    step = PartStep(system, stored(tmp_path, zoo()), prompts, Train(batch=4, tokens=5), torch.device("cpu"))
    values = [float(step(3, stream(0, "step"))[0][0].detach()) for _ in range(2)]
    assert values[0] == values[1]


def test_what_takes_whole_networks_is_refused_in_one_sentence(tmp_path: Path) -> None:
    layout, given = Chunk(8, "none", spec=SPEC).layout, {"pooled_width": TEXTS + 1}
    first, conditioner = first_of(layout), TextSet(text_dim=TEXTS)

    def built(tokenizer: Chunk, generator: Flow) -> PartSystem:
        return PartSystem(SPEC, tokenizer, conditioner, generator)

    with pytest.raises(UserError, match="train.tokens: this denoiser looks at all tokens of a network at once"):
        built(Chunk(8, "none", spec=SPEC), Flow(MLP(layout=first, **given), None, layout=first))
    with pytest.raises(UserError, match="train.tokens: this predictor is as large as a network: take 'directions', or"):
        built(Chunk(8, "none", spec=SPEC), Flow(ByToken(layout=first, **given), layout=first, **given))
    with pytest.raises(UserError, match="train.tokens: this predictor is as large as a network"):
        Linear(layout=first, **given).fit_parts(torch.eye(2), *2 * [conditioner(prompts_of(1))])
    with pytest.raises(UserError, match=r"train.tokens: this tokenizer's tokens are not the weights as they are"):
        built(Chunk(8, spec=SPEC), Flow(ByToken(layout=first, **given), None, layout=first))
    with pytest.raises(UserError, match="denoiser 'by-token': this tokenizer does not say where tokens stand"):
        ByToken(layout=Chunk(8, spec=SPEC).layout, **given)
    system, prompts = fitted(tmp_path)
    with pytest.raises(UserError, match="train.tokens: networks that are drawn in parts"):
        system.sample(prompts, HOW, stream(0), lambda *_: None)


def test_a_drawn_network_loads_into_plain_timm_and_answers_the_same(tmp_path: Path) -> None:
    target = Module(TimmModel("test_resnet"), feature_dim=3 * 32 * 32, text_dim=TEXTS)
    spec, system = target.spec, system_of(target.spec)
    rng = stream(0, "networks")
    weights = target.init(3, rng) + 0.02 * torch.randn(3, spec.size, generator=rng)
    system.fit_parts(stored(tmp_path, weights), prompts_of(3), tmp_path / "mean.safetensors")
    stirred(system.generator)
    drawn = system.drawn(prompts_of(1), HOW, 1)
    images = torch.randn(64, 3 * 32 * 32, generator=rng)
    ready = target.calibrated(drawn[None], images[None])[0]
    changed = {name for name, at in spec.slices.items() if not torch.equal(ready[at], drawn[at])}
    assert changed == set(target.statistics) and len(changed) > 10

    plain = timm.create_model("test_resnet", num_classes=TEXTS)
    fresh = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    plain.load_state_dict(target.exported(ready), strict=True)
    pictures = images.unflatten(1, (3, 32, 32))
    texts = torch.eye(TEXTS)[None]
    with torch.no_grad():
        outputs = torch.nn.functional.normalize(plain.eval()(pictures), dim=1) * target.temperature
        torch.testing.assert_close(target.logits(ready[None], images[None], texts)[0], outputs, rtol=1e-3, atol=1e-3)
        for layer in plain.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None
        plain.train()(pictures)
    for name in target.statistics:
        torch.testing.assert_close(plain.state_dict()[name], ready[spec.slices[name]], rtol=1e-3, atol=1e-4)
    counters = [name for name in fresh if name.endswith("num_batches_tracked")]
    assert counters and all(not target.exported(ready)[name].is_floating_point() for name in counters)
