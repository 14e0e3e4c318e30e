"""Weight matching as its authors published it, to measure ours against: github.com/samuela/git-re-basin, in torch.

Ainsworth et al., 2022, "Git Re-Basin", algorithm 1 and appendix A.3: a permutation for each hidden axis, said by hand for each
architecture, and coordinate descent over these in random order. Line for line what `weight_matching.py` there does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from timm.models.resnet import ResNet
from torch import Tensor, nn

from wspace.support.errors import UserError

PLAIN = "bench matching --peer: permutations are written down for plain ResNets"

AxesToPerm = Mapping[str, tuple[str | None, ...]]
"""Of each parameter the permutation of each dimension; None: it stays."""


@dataclass(frozen=True)
class PermutationSpec:
    perm_to_axes: Mapping[str, list[tuple[str, int]]]
    axes_to_perm: AxesToPerm


def permutation_spec_from_axes_to_perm(axes_to_perm: AxesToPerm) -> PermutationSpec:
    perm_to_axes = dict[str, list[tuple[str, int]]]()
    for name, perms in axes_to_perm.items():
        for axis, perm in enumerate(perms):
            if perm is not None:
                perm_to_axes.setdefault(perm, []).append((name, axis))
    return PermutationSpec(perm_to_axes, axes_to_perm)


def mlp_permutation_spec(hidden_layers: int) -> PermutationSpec:
    """Of linear layers with one activation after each, in `nn.Sequential`: `0.weight`, `2.weight`, ..."""
    perms = [None, *(f"P_{n}" for n in range(hidden_layers)), None]
    axes = dict[str, tuple[str | None, ...]]()
    for layer in range(hidden_layers + 1):
        axes |= {f"{2 * layer}.weight": (perms[layer + 1], perms[layer]), f"{2 * layer}.bias": (perms[layer + 1],)}
    return permutation_spec_from_axes_to_perm(axes)


def resnet_permutation_spec(network: nn.Module) -> PermutationSpec:
    """Of timm's plain ResNets: a permutation for each stage's stream, and one for each convolution within a block.

    Raises UserError for a network with other layers.
    """
    if not isinstance(network, ResNet):
        raise UserError(f"{PLAIN}, and {type(network).__name__} is none")
    layers: dict[str, tuple[str | None, ...]] = {"conv1": ("stem", None), "bn1": ("stem",)}
    stream = "stem"
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(network.get_submodule(stage).children()):
            at, has = f"{stage}.{number}", dict(block.named_children())
            convolutions = [name for name in ("conv1", "conv2", "conv3") if name in has]
            out = stage if has.get("downsample") is not None else stream
            source = stream
            for place, name in enumerate(convolutions, 1):
                to = out if place == len(convolutions) else f"{at}.{name}"
                layers |= {f"{at}.{name}": (to, source), f"{at}.bn{place}": (to,)}
                source = to
            if out != stream:
                layers |= {f"{at}.downsample.0": (out, stream), f"{at}.downsample.1": (out,)}
            stream = out
    layers["fc"] = (None, stream)
    axes = dict[str, tuple[str | None, ...]]()
    for name, parameter in network.named_parameters():
        layer = name.rpartition(".")[0]
        if layer not in layers:
            raise UserError(f"{PLAIN}, which have no {layer!r}")
        perms = layers[layer][: parameter.ndim]
        axes[name] = (*perms, *[None] * (parameter.ndim - len(perms)))
    return permutation_spec_from_axes_to_perm(axes)


def get_permuted_param(
    ps: PermutationSpec,
    perm: Mapping[str, Tensor],
    name: str,
    params: Mapping[str, Tensor],
    except_axis: int | None = None,
) -> Tensor:
    w = params[name]
    for axis, p in enumerate(ps.axes_to_perm[name]):
        if axis == except_axis:  # the one that is being matched
            continue
        if p is not None:
            w = w.index_select(axis, perm[p])
    return w


def apply_permutation(
    ps: PermutationSpec, perm: Mapping[str, Tensor], params: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {name: get_permuted_param(ps, perm, name, params) for name in params}


def weight_matching(
    rng: np.random.Generator,
    ps: PermutationSpec,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    max_iter: int = 100,
) -> dict[str, Tensor]:
    """A permutation of `params_b` to make it like `params_a`."""
    perm_sizes = {p: params_a[axes[0][0]].shape[axes[0][1]] for p, axes in ps.perm_to_axes.items()}
    perm = {p: torch.arange(n) for p, n in perm_sizes.items()}
    perm_names = list(perm)
    for _ in range(max_iter):
        progress = False
        for p_ix in rng.permutation(len(perm_names)):
            p = perm_names[p_ix]
            n = perm_sizes[p]
            a = torch.zeros(n, n)
            for name, axis in ps.perm_to_axes[p]:
                w_a = params_a[name]
                w_b = get_permuted_param(ps, perm, name, params_b, except_axis=axis)
                w_a = w_a.movedim(axis, 0).reshape(n, -1)
                w_b = w_b.movedim(axis, 0).reshape(n, -1)
                a += w_a @ w_b.T
            _, ci = linear_sum_assignment(a.numpy(), maximize=True)
            new = torch.from_numpy(ci)
            old_l = torch.vdot(a.flatten(), torch.eye(n)[perm[p]].flatten())
            new_l = torch.vdot(a.flatten(), torch.eye(n)[new].flatten())
            progress = progress or bool(new_l > old_l + 1e-12)
            perm[p] = new
        if not progress:
            break
    return perm
