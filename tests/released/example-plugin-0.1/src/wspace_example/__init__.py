"""What this plugin adds to wspace. Named as strings, so that registering imports no torch."""

from wspace import hookimpl


@hookimpl
def wspace_register(register):
    register("denoiser", "example-mixer", "wspace_example.mixer:Mixer", example={"width": 16})
    register("target", "example-gated", "wspace_example.gated:Gated", example={"rank": 4})
