"""The loss of networks on images of their tasks, for what makes the networks: by gradients that targets have written out."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wspace.interfaces import Target
from wspace.learning.fitting import TaskBatches
from wspace.support.slices import even
from wspace.support.threads import by_threads

TOGETHER = 8
"""Networks that a thread of a CPU takes at a time, whose images stay in its cache. Each such part draws its own dropout, so
that the numbers are the same with any number of threads."""

FINE = 256  # dropout is to one part in so many: of a byte each


def loss_on_images(
    target: Target, networks: Tensor, batches: TaskBatches, images: int, dropout: float, rng: torch.Generator
) -> Tensor:
    """Mean cross-entropy () of networks (B, P), each on so many `images` of its task; differentiable in the networks.

    A share `dropout` of the images' features is zero, to one part in 256, and the others are larger by as much. On a CPU each
    thread takes some networks, if the target lets several; elsewhere all are taken at once.
    """
    row, label = next(batches.draws(1, images, rng))  # (B, m) each
    parts = even(len(networks), _parts(target, networks))
    seeds = torch.randint(2**62, (len(parts),), generator=rng).tolist()
    given, gradient = networks.detach(), torch.empty_like(networks, requires_grad=False)

    def descended(part: slice, seed: int) -> Tensor:
        """Losses (b,) of some networks; their gradients are written down."""
        of_part = batches.part(part)
        features = of_part.features(row[part])  # (b, m, F)
        if dropout:
            features.mul_(kept(features, dropout, torch.Generator(features.device).manual_seed(seed)))
        losses, slope = of_part.descent(target, given[part], features, label[part])
        torch.div(slope, len(networks), out=gradient[part])
        return losses

    losses = by_threads(
        [partial(descended, *each) for each in zip(parts, seeds, strict=True)], at_once=target.concurrent
    )
    return _Known.apply(networks, torch.cat(losses).mean(), gradient)


def kept(like: Tensor, dropout: float, rng: torch.Generator) -> Tensor:
    """Factors in the shape of `like`: 0 of what is left out, and of the rest what makes up for it, so that the mean is 1."""
    drawn = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=like.device)
    drawn.random_(-(2**63), None, generator=rng)  # eight bytes at once
    threshold = min(FINE - 1, round(FINE * dropout))
    values = drawn.view(torch.uint8)[: like.numel()].view(like.shape)
    return torch.ge(values, threshold, out=torch.empty_like(like)).mul_(FINE / (FINE - threshold))


def _parts(target: Target, networks: Tensor) -> int:
    if networks.device.type != "cpu" or not target.concurrent:
        return 1
    return -(-len(networks) // TOGETHER)


class _Known(torch.autograd.Function):
    """A loss of networks, whose gradient is there already."""

    @staticmethod
    def forward(context: Any, networks: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:  # type: ignore[override]
        context.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(context: Any, by_loss: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (gradient,) = context.saved_tensors
        return gradient * by_loss, None, None
