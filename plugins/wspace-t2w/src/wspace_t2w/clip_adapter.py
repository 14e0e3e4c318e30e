"""CLIP adapter: a two-layer head on frozen image features, scored by cosine against the class texts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from wspace.api import Target, UserError, WeightEntry, WeightSpec, affine, cosine_scores, uniform_by_fan_in

ACTIVATIONS = {"gelu": functional.gelu, "tanh": torch.tanh, "none": nn.Identity()}

DERIVATIVES = {
    "gelu": lambda of_units, before, units: torch.ops.aten.gelu_backward(of_units, before),
    "tanh": lambda of_units, before, units: of_units * (1 - units.square()),
    "none": lambda of_units, before, units: of_units,
}
"""Gradients at what an activation was given, of those at what it gave."""
SHORT = 1e-6
"""As short an output is at least taken to be, as in `cosine_scores`."""

SLOPE = {"gelu": 0.1, "tanh": 0.002, "none": 1.0}
"""By how much features' projections are made smaller, so that the activation is linear for all of them."""
STEEP = 8.0
"""Where GELU is the identity to one part in a million, a few units to both sides."""


class ClipAdapter(Target):
    """T2W's head (Tian et al., 2025, eq. 15 and listing 1): logits = temperature * cos(act(x W1 + b1) W2 + b2, texts).

    The paper's equation and listing differ: eq. 15 and section 4.1 have no activation, no bias and a plain dot product
    (`activation: none`, `bias: false`); listing 1 has GELU, biases and unit vectors, as here by default. Hidden width is
    16 in the text and 8 in the listing; we take 16. Neither names a temperature: with unit vectors and none, logits
    differ by at most 2 and no head trains, so CLIP's habit of a large fixed one stands here.

    What leaves the function as it is depends on the activation: hidden units may be permuted with any, may change sign
    with `tanh` (not the paper's), and with `none` every change of their basis is allowed (symmetry `gl`).
    """

    version: ClassVar[int] = 2  # 2: `descent` is written out, and rounds otherwise
    concurrent: ClassVar[bool] = True
    outputs: ClassVar[int] = 1  # as listing 1 multiplies, inputs first

    def __init__(
        self,
        rank: Annotated[int, Ge(1)] = 16,
        activation: Literal["gelu", "tanh", "none"] = "gelu",
        bias: bool = True,
        temperature: Annotated[float, Gt(0)] = 50.0,
        *,
        feature_dim: int,
        text_dim: int,
    ):
        self.activation, self.temperature, self.linear_rank = activation, temperature, rank
        entries = [
            WeightEntry("w1", (feature_dim, rank), ("feature", "hidden")),
            WeightEntry("b1", (rank,), ("hidden",)),
            WeightEntry("w2", (rank, text_dim), ("hidden", "text")),
            WeightEntry("b2", (text_dim,), ("text",)),
        ]
        self.spec = WeightSpec(tuple(e for e in entries if bias or not e.name.startswith("b")), free=("hidden",))

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """torch.nn.Linear's own initialisation: uniform in +-1/sqrt(fan in)."""
        drawn = {}
        for entry in self.spec.entries:
            fan_in = self.spec.axis_size("feature" if entry.name.endswith("1") else "hidden")
            drawn[entry.name] = uniform_by_fan_in(count, entry.shape, fan_in, rng)
        return self.spec.flatten(drawn)  # (count, P)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        w = self.spec.unflatten(weights)
        hidden = ACTIVATIONS[self.activation](affine(features, w["w1"], w.get("b1")))  # (B, M, r)
        projected = affine(hidden, w["w2"], w.get("b2"))  # (B, M, T)
        return cosine_scores(projected, texts, self.temperature)  # (B, M, K)

    @torch.no_grad()
    def descent(
        self, weights: Tensor, features: Tensor, texts: Tensor, hidden: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Without the outputs, which are as wide as a text and of every image.

        With h the hidden units and a one, and A the rows of W2 and b2, an output is h A. Its scores are h (A textsᵀ) and its
        squared length h (A Aᵀ) hᵀ, of which both brackets are of few rows and the same for all images.
        """
        w, gradient = self.spec.unflatten(weights), torch.empty_like(weights)
        up, up_gradient = (self._up(flat) for flat in (weights, gradient))  # A: (B, r+1, T), or (B, r, T) without b2
        before = affine(features, w["w1"], w.get("b1"))  # (B, M, r)
        units = ACTIVATIONS[self.activation](before)
        h = functional.pad(units, (0, 1), value=1.0) if "b2" in w else units  # (B, M, r+1)
        by_text, by_itself = up @ texts.mT, up @ up.mT  # (B, r+1, K), (B, r+1, r+1)
        squared = ((h @ by_itself) * h).sum(2, keepdim=True)  # (B, M, 1)
        scale = self.temperature * squared.clamp_min(SHORT**2).rsqrt()
        scores = (h @ by_text) * scale  # (B, M, K)
        chances = scores.masked_fill(hidden, -torch.inf).log_softmax(2)
        label = labels[..., None]
        losses = -chances.gather(2, label).mean((1, 2))  # (B,)

        count = features.shape[1]
        of_scores = chances.exp_().scatter_add_(2, label, chances.new_full((), -1.0).expand_as(label)).div_(count)
        of_products = of_scores * scale  # (B, M, K)
        shrink = (of_scores * scores).sum(2, keepdim=True) / -squared  # (B, M, 1)
        shrunk = h * shrink.where(squared > SHORT**2, 0.0)  # a shorter output is divided by a constant
        torch.bmm(h.mT @ of_products, texts, out=up_gradient)
        torch.baddbmm(up_gradient, h.mT @ shrunk, up, out=up_gradient)
        of_units = torch.baddbmm(of_products @ by_text.mT, shrunk, by_itself)[..., : units.shape[2]]
        of_before = DERIVATIVES[self.activation](of_units.contiguous(), before, units)
        torch.bmm(features.mT, of_before, out=self.spec.unflatten(gradient)["w1"])
        if "b1" in w:
            torch.sum(of_before, 1, out=gradient[:, self.spec.slices["b1"]])
        return losses, gradient

    def _up(self, flat: Tensor) -> Tensor:
        """W2, and b2 as a row after it: (B, P) -> (B, r+1, T), the same memory."""
        return flat[:, self.spec.slices["w2"].start :].unflatten(1, (-1, self.spec.axis_size("text")))

    def from_linear(self, scorers: Tensor, bias: Tensor, texts: Tensor, mask: Tensor) -> Tensor:
        """The hidden units are the scores' `rank` principal directions, kept where the activation is all but linear.

        The output is T⁺(s(x) + level), where T⁺ is the pseudo-inverse of the task's texts: its products with the texts are
        the scores and one large constant. Scores are computed by cosine, so that constant sets the length of the output:
        at `temperature`, the logits are the scores themselves, and not only in the same order.

        Raises UserError for GELU without biases, which is not linear anywhere.
        """
        if self.activation == "gelu" and "b1" not in self.spec.slices:
            raise UserError("clip-adapter: with activation gelu and no bias it is linear nowhere; set bias to true")
        rank = self.spec.axis_size("hidden")
        inverse = torch.linalg.pinv((texts * mask[..., None]).double(), rtol=1e-4)  # (B, T, K)
        centre = _mean(scorers, mask)  # (B, 1, F), the same for all classes
        scorers = ((scorers - centre) * mask[..., None]).double()  # (B, K, F)
        _, among_classes = torch.linalg.eigh(scorers @ scorers.mT)  # (B, K, K), the largest last
        principal = among_classes[..., -rank:]  # (B, K, r')
        down = scorers.mT @ principal  # (B, F, r'), orthogonal columns
        size = down.norm(dim=1, keepdim=True).clamp_min(1e-9)  # (B, 1, r')
        down, up = down / size, (inverse @ (principal * size)).mT  # (B, r', T)
        down, up = (_widened(down, rank, 2), _widened(up, rank, 1))
        slope = SLOPE[self.activation]
        start = STEEP if self.activation == "gelu" else 0.0
        w = {"w1": slope * down, "w2": up / slope}
        if "b1" in self.spec.slices:
            level = self.temperature / (inverse * mask[:, None]).sum(2).norm(dim=1)  # (B,)
            constant = (inverse @ ((bias + level[:, None]) * mask)[..., None].double())[..., 0]  # (B, T)
            w["b1"] = torch.full((len(texts), rank), start, dtype=torch.double)
            w["b2"] = constant - start * w["w2"].sum(1)
        return self.spec.flatten({name: tensor.to(texts.dtype) for name, tensor in w.items()})

    def plain(self, weights: Tensor) -> nn.Module:
        return Head(self, weights)

    def frozen(self, weights: Tensor, texts: Tensor) -> nn.Module:
        """Of `logits`, what loses less to rounding."""
        return super().frozen(weights, texts) if self.activation == "tanh" else FrozenHead(self, weights, texts)


def _mean(scorers: Tensor, mask: Tensor) -> Tensor:
    """(B, K, F), (B, K) -> (B, 1, F)."""
    return (scorers * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]


def _widened(tensor: Tensor, size: int, dim: int) -> Tensor:
    """Zeros after what is there, along one of three dimensions."""
    after = size - tensor.shape[dim]
    return functional.pad(tensor, (0, after) if dim == 2 else (0, 0, 0, after))


class Head(nn.Module):
    """A single adapter, as one writes a single adapter."""

    def __init__(self, target: ClipAdapter, weights: Tensor):
        super().__init__()
        w, bias = target.spec.unflatten(weights), "b1" in target.spec.slices
        self.down, self.up = (nn.Linear(*w[name].shape, bias=bias) for name in ("w1", "w2"))
        self.activation, self.temperature = ACTIVATIONS[target.activation], target.temperature
        state = {"down.weight": w["w1"].mT, "up.weight": w["w2"].mT}
        self.load_state_dict(state | ({"down.bias": w["b1"], "up.bias": w["b2"]} if bias else {}))

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        projected = functional.normalize(self.up(self.activation(self.down(features))), dim=1)  # (M, T)
        return self.temperature * projected @ texts.T  # (M, K)


class FrozenHead(nn.Module):
    """A single adapter for good, with the texts of its classes: features (M, F) -> scores (M, K).

    A head out of `from_linear` has its units where GELU is all but the identity, and there float32 has few digits for what a
    picture adds to a bias of 8. So the picture's part goes past the activation: act(x + b1) = x + b1 - rest, where rest
    is 0 as far as act is the identity, and the part of all pictures, b1 W2 + b2, is summed once, in float64.
    """

    def __init__(self, target: ClipAdapter, weights: Tensor, texts: Tensor):
        super().__init__()
        w = target.spec.unflatten(weights.double())
        rank, width = w["w2"].shape
        level, bias = w.get("b1", weights.new_zeros(rank).double()), w.get("b2", weights.new_zeros(width).double())
        self.w1, self.b1, self.w2, self.constant, self.texts = (
            nn.Buffer(tensor.to(weights.dtype)) for tensor in (w["w1"], level, w["w2"], level @ w["w2"] + bias, texts)
        )
        self.activation, self.temperature = target.activation, target.temperature

    def forward(self, features: Tensor) -> Tensor:
        through = features @ self.w1  # (M, r)
        outputs = through @ self.w2 + self.constant  # (M, T)
        if self.activation == "gelu":
            x = through + self.b1
            outputs = outputs - (x / 2 * (1 - torch.erf(x * 0.5**0.5))) @ self.w2
        return cosine_scores(outputs[None], self.texts[None], self.temperature)[0]
