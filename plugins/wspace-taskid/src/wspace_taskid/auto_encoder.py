"""A short code for whole networks, learned from the zoo's."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from einops import rearrange
from torch import Tensor, nn

from wspace.api import Tokenizer, TokenLayout, WeightSpec, fit_scale, spread_of


class Autoencoder(Tokenizer):
    """A variational autoencoder of networks (Kingma and Welling, 2014, "Auto-Encoding Variational Bayes").

    A code is `tokens` * `width` values, each of mean 0 and variance 1 over the zoo. Encoder and decoder see networks by
    their coordinates along the zoo's first `axes` principal axes, so that neither grows with the network; both start as the
    best linear code, those coordinates themselves, beside an MLP that starts at zero.
    kl: what a code's distance from pure noise counts, in the loss, beside the share of the zoo's variance that is lost.
    """

    version: ClassVar[int] = 1
    lossy: ClassVar[bool] = True

    def __init__(
        self,
        tokens: Annotated[int, Ge(1)] = 8,
        width: Annotated[int, Ge(1)] = 16,
        axes: Annotated[int, Ge(1)] = 256,
        hidden: Annotated[int, Ge(1)] = 256,
        kl: Annotated[float, Ge(0)] = 1e-4,
        *,
        spec: WeightSpec,
    ):
        super().__init__()
        self.kl = kl
        self.layout = TokenLayout(torch.ones(tokens, width, dtype=torch.bool))
        axes, values = min(axes, spec.size), tokens * width
        tensors = [torch.full((entry.size,), number) for number, entry in enumerate(spec.entries)]
        self.groups: Tensor
        self.shift: Tensor
        self.spread: Tensor
        self.basis: Tensor
        self.sizes: Tensor
        self.code_shift: Tensor
        self.code_spread: Tensor
        self.register_buffer("groups", torch.cat(tensors), persistent=False)  # (P,)
        self.register_buffer("shift", torch.zeros(spec.size))
        self.register_buffer("spread", torch.ones(spec.size))
        self.register_buffer("basis", torch.zeros(spec.size, axes))
        self.register_buffer("sizes", torch.zeros(axes))  # of the zoo along each axis
        self.register_buffer("code_shift", torch.zeros(values))
        self.register_buffer("code_spread", torch.ones(values))
        self.encode = nn.Linear(axes, values)
        self.encode_more = _mlp(axes, hidden, values)
        self.doubt = nn.Linear(axes, values)  # logarithm of the variance of a code
        self.decode = nn.Linear(values, axes)
        self.decode_more = _mlp(values, hidden, axes)
        for layer in (self.encode, self.decode, self.doubt):
            nn.init.zeros_(layer.bias)
        nn.init.eye_(self.encode.weight)
        nn.init.eye_(self.decode.weight)
        nn.init.zeros_(self.doubt.weight)
        nn.init.constant_(self.doubt.bias, -4.0)

    @torch.no_grad()
    def fit(self, weights: Tensor) -> None:
        shift, spread = fit_scale(weights, self.groups, "centered")
        self.shift.copy_(shift)
        self.spread.copy_(spread)
        centered = (weights - shift) / spread  # (n, P)
        values, vectors = torch.linalg.eigh((centered @ centered.T / len(weights)).double())  # ascending
        count = min(len(values), len(self.sizes))
        values, vectors = values.flip(0)[:count].clamp_min(0), vectors.flip(1)[:, :count]
        sizes = values.sqrt().to(weights.dtype)
        there = sizes > 1e-3 * sizes[0].clamp_min(1e-12)  # axes, and not rounding
        signs = torch.where(vectors.sum(0) < 0, -1.0, 1.0)  # either would do; the same one every time
        axes = centered.T @ (vectors * signs).to(weights.dtype)  # (P, count)
        self.basis.zero_()
        self.sizes.zero_()
        self.basis[:, :count] = torch.where(there, axes / axes.norm(dim=0).clamp_min(1e-12), 0)
        self.sizes[:count] = torch.where(there, sizes, 0)
        codes = self._code(self._coordinates(weights))
        self.code_shift.copy_(codes.mean(0))
        self.code_spread.copy_(spread_of(codes))

    def _coordinates(self, weights: Tensor) -> Tensor:
        """Along the axes, each in units of the zoo's size there: (B, P) -> (B, axes)."""
        along = ((weights - self.shift) / self.spread) @ self.basis
        return torch.where(self.sizes > 0, along / self.sizes.clamp_min(1e-12), 0)

    def _code(self, coordinates: Tensor) -> Tensor:
        return self.encode(coordinates) + self.encode_more(coordinates)  # (B, values)

    def _decoded(self, codes: Tensor) -> Tensor:
        """Coordinates (B, axes)."""
        return self.decode(codes) + self.decode_more(codes)

    def tokenize(self, weights: Tensor) -> Tensor:
        codes = (self._code(self._coordinates(weights)) - self.code_shift) / self.code_spread
        return rearrange(codes, "b (n d) -> b n d", d=self.layout.width)

    def detokenize(self, tokens: Tensor) -> Tensor:
        coordinates = self._decoded(rearrange(tokens, "b n d -> b (n d)") * self.code_spread + self.code_shift)
        return (coordinates * self.sizes) @ self.basis.T * self.spread + self.shift

    def loss(self, weights: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        coordinates = self._coordinates(weights)
        mean, doubt = self._code(coordinates), self.doubt(coordinates)
        noise = torch.randn(mean.shape, generator=rng, device=rng.device).to(mean.device)
        error = (self._decoded(mean + (doubt / 2).exp() * noise) - coordinates) * self.sizes
        lost = error.square().sum(1).mean() / self.sizes.square().sum().clamp_min(1e-12)
        divergence = 0.5 * (mean.square() + doubt.exp() - 1 - doubt).mean()  # from unit noise, a value of the code
        return {"lost": lost, "divergence": self.kl * divergence}


def _mlp(of: int, hidden: int, to: int) -> nn.Sequential:
    """That starts at zero."""
    last = nn.Linear(hidden, to)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(of, hidden), nn.GELU(), last)
