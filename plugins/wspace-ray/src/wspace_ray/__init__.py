"""Runs of wspace on a Ray cluster."""

from wspace import Register, hookimpl

PLUGIN_API = 1


@hookimpl
def wspace_register(register: Register) -> None:
    register("engine", "ray", "wspace_ray._engine:Ray")
