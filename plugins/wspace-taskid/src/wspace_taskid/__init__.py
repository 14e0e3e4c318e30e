"""Task-identity diffusion (arXiv 2506.17807): what it adds to wspace's built-in components."""

from __future__ import annotations

from wspace import Register, hookimpl

PLUGIN_API = 1


@hookimpl
def wspace_register(register: Register) -> None:
    register("conditioner", "task-id", "wspace_taskid.task_id:TaskId", example={"room": 16})
    register(
        "tokenizer",
        "autoencoder",
        "wspace_taskid.auto_encoder:Autoencoder",
        example={"tokens": 2, "width": 3, "hidden": 16},
    )
