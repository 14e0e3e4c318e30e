"""T2W (Tian et al., 2025), "Text2Weight": what it adds to wspace's built-in components."""

from __future__ import annotations

from wspace import Register, hookimpl

PLUGIN_API = 1


@hookimpl
def wspace_register(register: Register) -> None:
    register("conditioner", "prior-fusion", "wspace_t2w.prior_fusion:PriorFusion")
    register(
        "denoiser",
        "prior-attention",
        "wspace_t2w.prior_attention:PriorAttention",
        example={"width": 16, "depth": 1, "heads": 2},
    )
    register(
        "denoiser",
        "unit-attention",
        "wspace_t2w.unit_attention:UnitAttention",
        example={"width": 16, "depth": 1, "heads": 2},
    )
