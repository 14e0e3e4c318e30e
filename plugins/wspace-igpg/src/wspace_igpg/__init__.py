"""IGPG (Soro et al., 2025), "Instruction-Guided Autoregressive Neural Network Parameter Generation", for wspace."""

from __future__ import annotations

from wspace import Register, hookimpl

PLUGIN_API = 1


@hookimpl
def wspace_register(register: Register) -> None:
    register("dataset", "digits", "wspace_igpg.digits:Digits", example={"size": 16})
    register(
        "architecture", "nested", "wspace_igpg.nested_start:Nested", example={"of": {"use": "mlp", "hidden": [5, 6]}}
    )
    register(
        "tokenizer",
        "vq",
        "wspace_igpg.weight_codes:WeightCodes",
        example={"size": 4, "codebook": 16, "hidden": 8, "commitment": 2.0},
    )
    register("conditioner", "instruction", "wspace_igpg.instruction_set:InstructionSet", example={"width": 16})
    register(
        "conditioner",
        "instruction-list",
        "wspace_igpg.instruction_list:InstructionList",
        example={"width": 16, "places": 4},
    )
    register(
        "generator",
        "autoregressive",
        "wspace_igpg.code_transformer:CodeTransformer",
        example={"width": 16, "depth": 1, "heads": 2},
    )
