"""One vector for a task: its class texts weighted by their likeness to the mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wspace.api import Condition, Conditioner, Prompts, spread_of


class PriorFusion(Conditioner):
    """v = sum of w_i e_i, w = softmax of cos(e_i, mean e): Tian et al. (2025), algorithm 1.

    It is the one condition token, and the pooled vector.

    Values are brought to unit variance over the training tasks, which the paper does not mention: fused vectors of
    different tasks are nearly parallel, and what tells them apart is small beside what they share.
    """

    def __init__(self, *, text_dim: int):
        super().__init__()
        self.width = self.pooled_width = text_dim
        self.center: Tensor
        self.spread: Tensor
        self.register_buffer("center", torch.zeros(text_dim))
        self.register_buffer("spread", torch.ones(text_dim))

    def fit(self, prompts: Prompts) -> None:
        fused = fuse(prompts)
        self.center.copy_(fused.mean(0))
        self.spread.copy_(spread_of(fused))

    def forward(self, prompts: Prompts) -> Condition:
        vector = (fuse(prompts) - self.center) / self.spread  # (B, T)
        return Condition(vector[:, None], torch.ones_like(prompts.mask[:, :1]), vector)

    def null(self, like: Condition) -> Condition:
        """The zero vector, which after scaling is the average task."""
        return Condition(torch.zeros_like(like.tokens), like.mask, torch.zeros_like(like.pooled))


def fuse(prompts: Prompts) -> Tensor:
    """Algorithm 1, step 3: (B, K, T) -> (B, T). Padded classes weigh nothing."""
    mean = prompts.mean_text()  # (1) global mean, (B, T)
    likeness = functional.cosine_similarity(prompts.texts, mean[:, None], dim=2)  # (2) (B, K)
    weights = likeness.masked_fill(~prompts.mask, -torch.inf).softmax(1)  # (3) (B, K)
    return torch.einsum("bk,bkt->bt", weights, prompts.texts)  # (4)
