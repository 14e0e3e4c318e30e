"""T2W (Tian et al., 2025), "Text2Weight": its target, group, condition, denoisers and discriminator."""

from __future__ import annotations

from wspace import Register, hookimpl

PLUGIN_API = 1


@hookimpl
def wspace_register(register: Register) -> None:
    register("target", "clip-adapter", "wspace_t2w.clip_adapter:ClipAdapter", example={"rank": 4})
    register("symmetry", "permutation", "wspace_t2w.permutation:Permutation")
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
    register("discriminator", "mlp", "wspace_t2w.mlp_discriminator:MLP", example={"width": 16})
