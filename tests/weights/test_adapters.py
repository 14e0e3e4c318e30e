"""Folders of adapters against PEFT's own outputs: what goes through a zoo computes the same, and all else is refused."""

from __future__ import annotations

import copy
import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wspace.components.importers.peft import Peft
from wspace.support.errors import FileError, UserError
from wspace.support.files import read_json, write_json
from wspace.weights.files.peft import KEPT_BASE, NEUTRAL, READ, AdapterFolder, NotUnderstood, is_adapter, write_adapter
from wspace.weights.lowrank import lora_spec
from wspace.weights.zoo.export import take
from wspace.weights.zoo.importing import import_zoo


@pytest.fixture(scope="module")
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages it imports
        return pytest.importorskip("peft", reason='peft is not installed: pip install "wspace[lora]"')


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.proj = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj(self.fc(x).tanh())


class Network(nn.Module):
    """Its layer `proj` is a dotted suffix of others; one module of that name is no layer that PEFT knows."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.blocks = nn.Linear(8, 12), nn.ModuleList(Block() for _ in range(3))
        self.last = nn.ModuleDict({"proj": nn.LayerNorm(12), "head": nn.Linear(12, 5)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        for block in self.blocks:
            x = block(x)
        return self.last["head"](self.last["proj"](x))


LAYERS = ["blocks.0.fc", "blocks.0.proj", "blocks.1.fc", "blocks.1.proj", "last.head"]


@pytest.fixture(scope="module")
def base() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def outputs(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network.eval()(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)))


def quietly(call: Any, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT about its own settings
        return call(*arguments, **options)


def fresh(peft: Any, base: nn.Module, **options: Any) -> Any:
    """A network with adapters as they are before training."""
    torch.manual_seed(2)
    config = quietly(peft.LoraConfig, **{"r": 4, "lora_alpha": 6, "target_modules": LAYERS} | options)
    return quietly(peft.get_peft_model, copy.deepcopy(base), config)


def trained(model: Any, seed: int = 3) -> Any:
    """Every factor changed, as if by training."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=rng)
    return model.eval()


def adapted(peft: Any, base: nn.Module, seed: int = 3, **options: Any) -> Any:
    return trained(fresh(peft, base, **options), seed)


def saved(model: Any, folder: Path, **options: Any) -> Path:
    quietly(model.save_pretrained, folder, **options)
    folder.with_name(f"{folder.name}.txt").write_text("cats and dogs")
    return folder


def loaded(peft: Any, base: nn.Module, folder: Path) -> Tensor:
    """Outputs of stock PEFT, which must find in the folder all that it looks for, and no more."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected) .*keys")
        return outputs(peft.PeftModel.from_pretrained(copy.deepcopy(base), folder))


def taken(source: Path, tmp_path: Path, name: str = "a") -> Path:
    import_zoo(source, tmp_path / "zoo", Peft())
    take(tmp_path / "zoo", name, tmp_path / "taken", peft=True)
    return tmp_path / "taken"


# ---------------------------------------------------------------- what computes the same

UNDERSTOOD: dict[str, dict[str, Any]] = {
    "false": {"init_lora_weights": False},
    **{name: {"init_lora_weights": name} for name in KEPT_BASE},
    "rank-stabilised": {"use_rslora": True},
    "dropout": {"lora_dropout": 0.3},
    "ranks": {"rank_pattern": {"proj": 2, "blocks.0.fc": 3}},
    "ranks and rslora": {"rank_pattern": {"proj": 2}, "use_rslora": True},
    "alphas": {"alpha_pattern": {r"^blocks\.0\..*": 9, "fc": 3}},
    "an anchored pattern": {"target_modules": r"proj|blocks\.0\..*", "alpha_pattern": {"^proj": 4}},
    "layers by an expression": {"target_modules": r"proj|blocks\.\d\.(fc|proj)"},
    "layers left out": {"target_modules": r".*\.(fc|proj|head)", "exclude_modules": ["blocks.2.fc", "last.proj"]},
    "some of a list": {"target_modules": ["fc"], "layers_to_transform": [0, 2], "layers_pattern": "blocks"},
}


@pytest.mark.parametrize("options", UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
def test_an_adapter_of_peft_computes_the_same_out_of_a_zoo(
    peft: Any, base: Network, options: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(peft, base, **options)
    folder = saved(model, tmp_path / "source/a")
    expected = outputs(model)
    torch.testing.assert_close(loaded(peft, base, folder), expected, rtol=0, atol=0)
    torch.testing.assert_close(loaded(peft, base, taken(folder.parent, tmp_path)), expected, rtol=1e-5, atol=1e-5)
    assert (outputs(base) - expected).abs().max() > 0.1, "the adapter does something"


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_peft_converts_to_plain_lora_computes_the_same(
    peft: Any, base: Network, init: str, tmp_path: Path
) -> None:
    """As its users are told to: it subtracts the start from the adapter in place of the network."""
    model = fresh(peft, base, init_lora_weights=init)
    model.peft_config["default"].init_lora_weights = True  # as it is for the folder of the start
    quietly(model.save_pretrained, tmp_path / "start")
    model.peft_config["default"].init_lora_weights = init
    folder = saved(trained(model), tmp_path / "source/a", path_initial_model_for_weight_conversion=tmp_path / "start")
    expected = outputs(model)
    torch.testing.assert_close(loaded(peft, base, folder), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded(peft, base, taken(folder.parent, tmp_path)), expected, rtol=1e-4, atol=1e-4)


def test_a_language_model_whose_layers_are_transposed_computes_the_same(peft: Any, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2)).eval()
    words = torch.arange(6)[None]
    model = adapted(peft, network, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    folder = taken(saved(model, tmp_path / "source/a").parent, tmp_path)
    again = quietly(peft.PeftModel.from_pretrained, copy.deepcopy(network), folder).eval()
    with torch.no_grad():
        expected = model(words).logits
        torch.testing.assert_close(again(words).logits, expected, rtol=1e-5, atol=1e-5)
        assert (network(words).logits - expected).abs().max() > 0.1


def test_an_adapter_under_another_name_computes_the_same(peft: Any, base: Network, tmp_path: Path) -> None:
    """PEFT writes it into a folder of that name, beside those of others."""
    model = adapted(peft, base)
    quietly(model.add_adapter, "second", peft.LoraConfig(r=2, target_modules=LAYERS, init_lora_weights=False))
    quietly(model.set_adapter, "second")
    quietly(model.save_pretrained, tmp_path / "source", selected_adapters=["second"])
    (tmp_path / "source/second.txt").write_text("owls")
    found = loaded(peft, base, taken(tmp_path / "source", tmp_path, "second"))
    torch.testing.assert_close(found, outputs(model), rtol=1e-5, atol=1e-5)


def test_adapters_of_a_revision_name_it_again(peft: Any, base: Network, tmp_path: Path) -> None:
    for name, revision in (("a", "v2"), ("b", "v2"), ("c", None)):
        folder = saved(adapted(peft, base, seed=ord(name)), tmp_path / "source" / name)
        config = read_json(folder / "adapter_config.json")
        write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": "hub/x", "revision": revision})
    assert said_by(lambda: import_zoo(tmp_path / "source", tmp_path / "zoo", Peft())) == (
        f"{tmp_path}/source/c: is for revision 'main' of its base model; {tmp_path}/source/a is for 'v2'"
    )
    (tmp_path / "source/c/adapter_config.json").unlink()
    (tmp_path / "source/c/adapter_model.safetensors").unlink()
    again = AdapterFolder.open(taken(tmp_path / "source", tmp_path))
    assert (again.base_model, again.revision) == ("hub/x", "v2")


def test_written_layers_are_the_layers_that_peft_adapts_and_no_others(peft: Any, base: Network, tmp_path: Path) -> None:
    """`proj` alone has this rank and scale, though the names of other layers end so."""
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in linear(base).items()}
    scale = {name: 2.0 if name == "proj" else 0.5 for name in shapes}
    spec = lora_spec(shapes, 4, scale)
    tensors = spec.unflatten(torch.randn(spec.size, generator=torch.Generator().manual_seed(0)))
    for name, tensor in tensors.items():
        if name.startswith("proj"):
            (tensor[3:] if name.endswith("A") else tensor[:, 3:]).zero_()
    write_adapter(tmp_path / "a", spec, tensors, base_model="", texts=("t",), classes=())
    config = read_json(tmp_path / "a/adapter_config.json")
    assert (config["rank_pattern"], config["r"]) == ({"^proj": 3}, 4)
    expected = copy.deepcopy(base)
    with torch.no_grad():
        for p in spec.products:
            expected.get_submodule(p.layer).weight += p.scale * tensors[p.left] @ tensors[p.right]
    torch.testing.assert_close(loaded(peft, base, tmp_path / "a"), outputs(expected), rtol=1e-4, atol=1e-4)
    scales = {name: layer.scale for name, layer in AdapterFolder.open(tmp_path / "a").layers.items()}
    assert scales == pytest.approx(scale)


def linear(network: nn.Module) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_adapters_of_16_bits_are_not_rounded_when_one_is_scaled(
    peft: Any, base: Network, dtype: torch.dtype, tmp_path: Path
) -> None:
    for name, alpha in (("a", 4), ("b", 6)):
        file = (
            saved(adapted(peft, base, lora_alpha=alpha, seed=alpha), tmp_path / "source" / name)
            / "adapter_model.safetensors"
        )
        save_file({key: tensor.to(dtype) for key, tensor in load_file(file).items()}, file)
    import_zoo(tmp_path / "source", tmp_path / "zoo", Peft())
    for name in ("a", "b"):
        take(tmp_path / "zoo", name, tmp_path / f"taken-{name}", peft=True)
        found, expected = (loaded(peft, base, tmp_path / where) for where in (f"taken-{name}", f"source/{name}"))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- what is refused


def said_by(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter of two layers as wspace writes it, without PEFT."""
    spec = lora_spec({"first": (7, 6), "deep.proj": (5, 9)}, 3, {"first": 2.0, "deep.proj": 2.0})
    tensors = spec.unflatten(torch.randn(spec.size, generator=torch.Generator().manual_seed(0)))
    write_adapter(tmp_path / "a", spec, tensors, base_model="", texts=("t",), classes=())
    return tmp_path / "a"


def configure(folder: Path, **changed: Any) -> None:
    file = folder / "adapter_config.json"
    write_json(file, read_json(file) | changed)


ACTIVE: dict[str, Any] = {
    "use_dora": True, "lora_bias": True, "use_qalora": True, "bias": "lora_only", "ensure_weight_tying": True,
    "modules_to_save": ["head"], "layer_replication": [[0, 2], [1, 3]], "alora_invocation_tokens": [1, 2],
    "trainable_token_indices": [3], "target_parameters": ["experts.w"], "megatron_config": {"x": 1},
    "use_bdlora": {"nblocks": 2}, "arrow_config": {"top_k": 3}, "monteclora_config": {"num_samples": 8},
    "kasa_config": {"beta": 1e-4}, "velora_config": {"num_groups": 64}, "a_key_of_tomorrow": True, "a_size_of_tomorrow": 16,
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ACTIVE.items(), ids=ACTIVE.keys())
def test_a_setting_that_is_not_understood_is_refused_by_name_unless_it_is_off(
    folder: Path, key: str, value: Any
) -> None:
    configure(folder, **{key: value})
    with pytest.raises(NotUnderstood, match=re.escape(f"adapter_config.json: {key} is ")):
        AdapterFolder.open(folder)
    for off in (None, "none" if key == "bias" else False):
        configure(folder, **{key: off})
        AdapterFolder.open(folder)


def test_every_setting_of_peft_is_understood_or_refused(peft: Any) -> None:
    settings = {field.name for field in dataclasses.fields(peft.LoraConfig)} - {"runtime_config"}  # it is not saved
    assert settings == (settings & (READ | NEUTRAL)) | (settings & set(ACTIVE)) | {"init_lora_weights"}


STARTS = ["pissa", "pissa_niter_4", "PiSSA", "olora", "OLoRA", "corda", "loftq", "lora_ga", "of tomorrow", 1]


@pytest.mark.parametrize("init", STARTS)
def test_an_adapter_of_a_network_that_it_changed_is_refused(folder: Path, init: Any) -> None:
    configure(folder, init_lora_weights=init)
    assert said_by(lambda: AdapterFolder.open(folder)) == (
        f"{folder}/adapter_config.json: init_lora_weights is {init!r}, and only plain LoRA can be read; PEFT's "
        "save_pretrained makes that of some others, by path_initial_model_for_weight_conversion"
    )


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_peft_computes_otherwise_with_a_start_that_is_refused(
    peft: Any, base: Network, init: str, tmp_path: Path
) -> None:
    saved(adapted(peft, base, init_lora_weights=init), tmp_path / "source/a")
    with pytest.raises(FileError, match=f"init_lora_weights is '{init}'"):
        import_zoo(tmp_path / "source", tmp_path / "zoo", Peft())


def test_two_adapters_in_one_file_are_refused(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    plain = load_file(file)
    default = {name.replace(".weight", ".default.weight"): tensor for name, tensor in plain.items()}
    save_file(default, file)
    assert len(AdapterFolder.open(folder).layers) == 2, "one, of whatever name, is read"
    other = {name.replace(".default", ".other"): tensor.clone() for name, tensor in default.items()}
    of_another_layer = {name: tensor for name, tensor in plain.items() if "first" in name} | {
        name: tensor for name, tensor in default.items() if "deep" in name
    }
    unprefixed = plain | {name.removeprefix("base_model.model."): tensor.clone() for name, tensor in plain.items()}
    for held in (default | other, of_another_layer, unprefixed):
        save_file(held, file)
        assert re.fullmatch(
            rf"{file}: holds \S+ and \S+, which are of two adapters: keep one of them",
            said_by(lambda: AdapterFolder.open(folder)),
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"r": 8}, "adapter_model.safetensors: layer 'deep.proj' has rank 3, and 8 by adapter_config.json"),
        (
            {"rank_pattern": {"^first": 2}},
            "adapter_model.safetensors: layer 'first' has rank 3, and 2 by adapter_config.json",
        ),
        (
            {"alpha_pattern": {"*first": 2}},
            "adapter_config.json: '*first' is no regular expression: nothing to repeat",
        ),
        (
            {"target_modules": ["first"]},
            "adapter_model.safetensors: holds layer 'deep.proj', and adapter_config.json does not target it, so PEFT would "
            "leave it out",
        ),
        (
            {"exclude_modules": ["proj"]},
            "adapter_model.safetensors: holds layer 'deep.proj', and adapter_config.json does not target it, so PEFT would "
            "leave it out",
        ),
        (
            {"target_modules": "("},
            "adapter_config.json: '(' is no regular expression: missing ), unterminated subpattern",
        ),
        ({"rank_pattern": [1]}, "adapter_config.json: rank_pattern: must be an object"),
        ({"lora_alpha": 0}, "adapter_config.json: lora_alpha: must be greater than 0"),
        ({"lora_alpha": float("inf")}, "adapter_config.json: lora_alpha: must be a finite number"),
        ({"lora_alpha": "8"}, "adapter_config.json: lora_alpha: must be a valid number"),
        ({"r": True}, "adapter_config.json: r: must be a valid integer"),
        ({"use_rslora": "no"}, "adapter_config.json: use_rslora: must be a valid boolean"),
    ],
)
def test_tensors_and_settings_that_disagree_are_refused(folder: Path, changed: dict[str, Any], message: str) -> None:
    configure(folder, **changed)
    assert said_by(lambda: AdapterFolder.open(folder)) == f"{folder}/{message}"


def test_factors_that_are_no_fractions_are_refused(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    key = "base_model.model.first.lora_A.weight"
    save_file(load_file(file) | {key: torch.ones(3, 6, dtype=torch.int64)}, file)
    assert said_by(lambda: AdapterFolder.open(folder)) == (
        f"{file}: {key} is of type I64, and not of F16, BF16, F32, F64"
    )


def test_what_is_in_a_layer_that_is_not_linear_is_refused(peft: Any, tmp_path: Path) -> None:
    """PEFT wraps attention as a whole; the layer in it takes its rank and scale from it, and not from its name."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x, x, x)[0]

    saved(adapted(peft, Attending(), target_modules=["attn"]), tmp_path / "source/a")
    assert "attn.base_layer.out_proj.lora_A.weight, which is no factor of a linear layer's LoRA" in said_by(
        lambda: import_zoo(tmp_path / "source", tmp_path / "zoo", Peft())
    )


@pytest.mark.parametrize(
    "names",
    [
        ("base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"),
        ("q.lora_A.default.weight", "q.lora_magnitude_vector.weight"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "lora_unet_double_blocks_0_img_attn_qkv.alpha"),
        ("unet.mid.attn.processor.to_k_lora.down.weight", "unet.mid.attn.processor.to_k_lora.up.weight"),
        ("unet.mid.to_k.lora.down.weight", "unet.mid.to_k.lora_linear_layer.up.weight"),
        ("lycoris_blocks_0.hada_w1_a", "lycoris_blocks_0.lokr_w2", "lycoris_blocks_0.dora_scale"),
        ("layers.0.attn.q_proj.lora_a.weight", "layers.0.attn.q_proj.lora_b.weight"),
        ("model.layers.0.q_proj.lora_a", "model.layers.0.q_proj.lora_b"),
    ],
    ids=["peft", "dora", "kohya", "old diffusers", "diffusers", "lycoris", "torchtune", "mlx"],
)
def test_tensors_of_adapters_are_told_from_those_of_networks(names: tuple[str, ...]) -> None:
    assert is_adapter(names)
    assert not is_adapter((*names, "base_model.model.q.base_layer.weight")), "a network and its adapter are a network"


def test_networks_are_no_adapters() -> None:
    for names in ((), ("w", "b"), ("first.lora_A", "first.lora_B"), ("flora.a.weight", "mixer.alpha"), ("x.alpha",)):
        assert not is_adapter(names)


# ---------------------------------------------------------------- cards


def hugging_face_card(filled: bool) -> str:
    """What the trainer of transformers writes, and with somebody's words in its place for them."""
    from transformers.modelcard import TrainingSummary

    card = TrainingSummary("mine", finetuned_from="hub/x", dataset=["cats"], eval_results={"Loss": 0.5}).to_model_card()
    where = "## Model description\n\nMore information needed"
    assert where in card
    return card.replace(where, "## Model description\n\nTells owls from eagles.") if filled else card


AXOLOTL = """---
library_name: peft
tags: [axolotl, generated_from_trainer]
---

<!-- This model card has been generated automatically according to the information the Trainer had access to. You
should probably proofread and complete it, then remove this comment. -->

[<img src="https://example.org/badge.png" alt="Built with Axolotl" width="200" height="32"/>](https://example.org)
<details><summary>See axolotl config</summary>

axolotl version: `0.16.1`
```yaml
base_model: hub/x
```

</details><br>

# outputs

This model is a fine-tuned version of [hub/x](https://huggingface.co/hub/x) on the cats dataset.
"""
TRL = """# Model Card for mine

This model is a fine-tuned version of [hub/x](https://huggingface.co/hub/x).
It has been trained using [TRL](https://github.com/huggingface/trl).

## Training procedure

This model was trained with SFT.

Cite TRL as:
"""
UNSLOTH = """# Uploaded finetuned model

- **Developed by:** somebody

This llama model was trained 2x faster with [Unsloth](https://github.com/unslothai/unsloth) and Huggingface's TRL library.
"""
AUTOTRAIN = """# Model Trained Using AutoTrain

This model was trained using AutoTrain. For more information, please visit [AutoTrain](https://hf.co/docs/autotrain).
"""
MERGEKIT = """# mine

This is a LoRA extracted from a language model. It was extracted using [mergekit](https://github.com/arcee-ai/mergekit).
"""
OLD_PEFT = """## Training procedure

The following `bitsandbytes` quantization config was used during training:
- load_in_8bit: False

### Framework versions

- PEFT 0.5.0
"""
CARDS = {
    "axolotl": AXOLOTL,
    "trl": TRL,
    "unsloth": UNSLOTH,
    "autotrain": AUTOTRAIN,
    "mergekit": MERGEKIT,
    "peft": OLD_PEFT,
}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_a_card_that_a_program_wrote_is_no_text_of_a_task(folder: Path, card: str, tmp_path: Path) -> None:
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert AdapterFolder.open(folder).texts == ()
    assert said_by(lambda: import_zoo(tmp_path, tmp_path / "zoo", Peft())) == (
        f"{folder}: nothing says what it was trained for; put a a.txt or .json beside it, or one CSV for all into the folder"
    )


def test_a_card_of_transformers_is_read_where_somebody_filled_it_in(folder: Path) -> None:
    for filled, texts in ((False, ()), (True, ("Tells owls from eagles.",))):
        (folder / "README.md").write_text(hugging_face_card(filled), encoding="utf-8")
        assert AdapterFolder.open(folder).texts == texts


def test_the_advice_names_a_file_that_is_read(tmp_path: Path, folder: Path) -> None:
    dotted = folder.rename(tmp_path / "v1.5")
    (dotted / "README.md").unlink()
    assert "put a v1.5.txt or .json beside it" in said_by(lambda: import_zoo(tmp_path, tmp_path / "zoo", Peft()))
    (tmp_path / "v1.5.txt").write_text("cats")
    assert import_zoo(tmp_path, tmp_path / "zoo", Peft()).entries[0].texts == ("cats",)
