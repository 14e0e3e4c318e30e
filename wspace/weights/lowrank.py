"""Low-rank products left · right: (..., out, r) times (..., r, in). Only the product counts, so its factors may be chosen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from wspace.interfaces.weights import Product, WeightEntry, WeightSpec


def lora_spec(layers: Mapping[str, tuple[int, int]], rank: int, scale: Mapping[str, float]) -> WeightSpec:
    """Of layers (out, in), each with factors A (rank, in) and B (out, rank): scale · B · A is added to its weight."""
    entries, products = [], []
    for layer, (out, width) in layers.items():
        entries.append(WeightEntry(f"{layer}.lora_A", (rank, width), (f"{layer}.rank", f"{layer}.in")))
        entries.append(WeightEntry(f"{layer}.lora_B", (out, rank), (f"{layer}.out", f"{layer}.rank")))
        products.append(Product(layer, f"{layer}.lora_B", f"{layer}.lora_A", scale[layer]))
    return WeightSpec(tuple(entries), tuple(f"{layer}.rank" for layer in layers), tuple(products))


def squared_distance(spec: WeightSpec, weights: Tensor, others: Tensor) -> Tensor:
    """Of the products of networks (B, P) and (B, P), scaled as they are added, all layers together: (B,).

    Without forming them: B A - B' A' is [B, -B'] times A on top of A', and |L R|² is the inner product of LᵀL and R Rᵀ.
    """
    ours, theirs, total = spec.unflatten(weights), spec.unflatten(others), weights.new_zeros(len(weights))
    for p in spec.products:
        left = torch.cat([ours[p.left], -theirs[p.left]], dim=2)  # (B, out, 2r)
        right = torch.cat([ours[p.right], theirs[p.right]], dim=1)  # (B, 2r, in)
        total = total + p.scale**2 * ((left.mT @ left) * (right @ right.mT)).sum((1, 2))
    return total


def padded(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same product at a higher rank, with columns and rows of zeros."""
    more = rank - left.shape[-1]
    return functional.pad(left, (0, more)), functional.pad(right, (0, 0, 0, more))


def trimmed(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product of one pair, without the directions that are zero on both sides; one of them is left."""
    used = (left != 0).any(0) | (right != 0).any(1)  # (r,)
    if not used.any():
        used[0] = True
    return left[:, used], right[used]


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The canonical pair of a product U S Vᵀ: U √S and √S Vᵀ, by its singular value decomposition, greatest values first.

    It is the same for all pairs of one product, as far as its singular values differ. The product itself is never formed: its
    singular values are those of R_left R_rightᵀ of the QR decompositions. The sign of each direction is such that the
    greatest entry of its column of U is positive.
    """
    rank = left.shape[-1]
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.mT)
    u, values, v = torch.linalg.svd(r_left @ r_right.mT, full_matrices=False)
    u, v = q_left @ u, v @ q_right.mT  # (..., out, k), (..., k, in)
    greatest = u.abs().argmax(-2, keepdim=True)  # (..., 1, k)
    sign = torch.where(u.gather(-2, greatest) < 0, -1.0, 1.0).to(u.dtype)
    root = values.sqrt()
    return padded(u * sign * root[..., None, :], v * sign.mT * root[..., None], rank)
