"""Laws of architectures: the modules they build."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wspace.components.targets.module import Module
from wspace.interfaces import Architecture
from wspace.support.errors import UserError
from wspace.support.seeding import seeded
from wspace.testing.every import reaches, rows_alone
from wspace.testing.law import check
from wspace.testing.subject import FEATURES, TEXTS, Subject, normal, rng_of
from wspace.testing.verdicts import Unbuilt, Unlawful
from wspace.weights.permutations import AxisPermutations
from wspace.weights.proof import prove

IMAGES = 3
INPUTS = {"features": (FEATURES,), "pictures": (3, 16, 16)}


@check("architecture")
def check_says_what_it_sees(subject: Subject) -> None:
    sees = _architecture(subject).sees
    subject.hold(sees in INPUTS, f"sees should be 'features' or 'pictures', and is {sees!r}")


@check("architecture")
def check_as_many_outputs_as_asked(subject: Subject) -> None:
    for outputs in (TEXTS, TEXTS + 1):
        module = _built(subject, outputs=outputs)
        subject.hold(
            isinstance(module, nn.Module), f"it should build a torch module, and builds a {type(module).__name__}"
        )
        with torch.no_grad():
            subject.shaped("what its module gives", module(_images(subject)), (IMAGES, outputs))


@check("architecture")
def check_same_seed_same_module(subject: Subject) -> None:
    """And another seed another one: a zoo of equal starts is none."""
    first, second, other = (_built(subject, seed=seed).state_dict() for seed in (1, 1, 2))
    for name, tensor in first.items():
        subject.equal(f"{name} of two built from the same seed", second[name], tensor)
    subject.hold(
        any(not torch.equal(other[name], tensor) for name, tensor in first.items()),
        "modules of different seeds should differ, and are the same",
    )


@check("architecture")
def check_images_do_not_see_each_other(subject: Subject) -> None:
    """In evaluation mode."""
    module, images = _trained(subject), _images(subject)
    with torch.no_grad():
        rows_alone(subject, "what it gives for image", module(images), lambda row: module(images[row : row + 1]))


@check("architecture")
def check_every_parameter_matters(subject: Subject) -> None:
    module = _trained(subject)
    reaches(subject, module(_images(subject)), dict(module.named_parameters()))


@check("architecture")
def check_axes_are_free(subject: Subject) -> None:
    """Permuting an axis, said by hand or found by tracing, leaves what random networks compute as it is."""
    architecture = _architecture(subject)
    for law in (check_as_many_outputs_as_asked, check_images_do_not_see_each_other):
        try:
            law(subject)
        except Unlawful as error:
            raise Unbuilt(str(error)) from error
    try:
        target = Module(architecture, feature_dim=FEATURES, text_dim=TEXTS)
        for axis in target.spec.free:
            symmetry = AxisPermutations(target.spec, (axis,))
            prove(symmetry, target, "permutation", (FEATURES, TEXTS), rng_of("free", axis))
    except UserError as error:
        why = str(error).removeprefix("symmetry 'permutation': ")
        subject.fail(f"its axes: {why}")


def _architecture(subject: Subject) -> Architecture:
    return subject.instances[0].made


def _inputs(subject: Subject) -> tuple[int, ...]:
    """Raises Unbuilt if it does not say what it sees."""
    sees = _architecture(subject).sees
    if sees not in INPUTS:
        raise Unbuilt(f"sees is {sees!r}")
    return INPUTS[sees]


def _built(subject: Subject, seed: int = 0, outputs: int = TEXTS) -> nn.Module:
    with seeded(seed):
        return _architecture(subject).build(_inputs(subject), outputs)


def _trained(subject: Subject) -> nn.Module:
    """In evaluation mode, and no parameter zero."""
    module = _built(subject).eval()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.add_(0.1 * normal(*parameter.shape, seed=number))
    return module


def _images(subject: Subject) -> Tensor:
    return normal(IMAGES, *_inputs(subject))
