"""What holds for components of every kind."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wspace.recipes.imports import behind_the_doors
from wspace.recipes.signature import UnreadableSignature, mentions_slot, signature_of
from wspace.support.errors import MissingPackage, MissingWeights, UserError, reason
from wspace.support.parameters import is_default
from wspace.support.seeding import seeded, stream
from wspace.testing.law import check
from wspace.testing.subject import Instance, Subject, twice
from wspace.testing.verdicts import Unbuilt, Unreadable

Module = TypeVar("Module", bound=nn.Module)
MODULES = ("tokenizer", "conditioner", "predictor", "denoiser", "discriminator", "generator")
"""Kinds that are torch modules."""


@check()
def check_signature_is_readable(subject: Subject) -> None:
    """The constructor can be read from source: what `wspace check`, `list` and `show` live on."""
    try:
        signature_of(subject.component)
    except UnreadableSignature as error:
        subject.fail(f"its constructor cannot be read: {error}")


@check()
def check_imports_through_the_doors(subject: Subject) -> None:
    """Its module takes from wspace what third parties may rely on, and nothing that may be gone in the next version."""
    try:
        private = behind_the_doors(subject.component.module)
    except UnreadableSignature as error:
        raise Unreadable(str(error)) from error
    subject.hold(
        not private,
        f"it imports {', '.join(private)}, which the next version may move: import from wspace, wspace.api or wspace.testing",
    )


@check()
def check_builds_from_its_example(subject: Subject) -> None:
    """The arguments it is registered with fit, and make an instance of the kind's interface."""
    try:
        _ = subject.instances
    except Unreadable:
        raise
    except Unbuilt as error:
        subject.fail(f"it cannot be built from its example: {error}")


@check()
def check_says_what_it_is(subject: Subject) -> None:
    """The class has a docstring whose first line stands alone: `wspace list` prints it."""
    doc = inspect.cleandoc(_loaded(subject).__doc__ or "")
    subject.hold(doc.partition("\n")[0].strip(), "it has no docstring, or one whose first line is empty")


@check()
def check_version_is_in_its_source(subject: Subject) -> None:
    """`version` is a whole number that can be read without importing: it is part of every cache key."""
    version, read = subject.instances[0].made.version, subject.bound.signature.version
    subject.hold(type(version) is int, f"its version should be a whole number, and is {version!r}")
    subject.hold(
        read == version,
        f"its version is {version}, and its source says {read}: write `version = {version}` in the class",
    )


@check()
def check_default_components_are_built(subject: Subject) -> None:
    """In plain Python it has its default components, too: `Default` in its signature, `built` in its body."""
    parameters = subject.bound.signature.settable.values()
    names = [p.name for p in parameters if isinstance(p.default, str) and mentions_slot(p.annotation)]
    if not names:
        return
    how = 'write `= Default("NAME")` in its signature, and `built(KIND, VALUE, ...)` in its body (wspace.api)'
    given = {name: value for name, value in subject.bound.arguments.items() if name not in names}
    try:
        made = replace(subject.bound, arguments=given).build(subject.instances[0].around.given)
    except (MissingPackage, MissingWeights):
        raise
    except Exception as error:
        subject.fail(f"without {', '.join(names)} it cannot be built in Python: {reason(error)}; {how}")
    left = [
        name for name, value in vars(made).items() if is_default(value) or (name in names and isinstance(value, str))
    ]
    subject.hold(
        not left, f"built in Python without {', '.join(names)}, it has no component as {', '.join(left)}: {how}"
    )


@check(*MODULES)
def check_same_seed_same_parameters(subject: Subject) -> None:
    """Built again from the same seed, all it starts from is the same."""
    for instance in subject.instances:
        first, second = subject.build(instance.around, seed=7), subject.build(instance.around, seed=7)
        for (name, one), two in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
            subject.equal(f"{name} of two built from the same seed", two, one)


def _loaded(subject: Subject) -> type:
    try:
        return subject.component.load()
    except MissingPackage:
        raise
    except UserError as error:
        raise Unbuilt(str(error)) from error


# ---------------------------------------------------------------- what checks of modules share


def stirred(module: Module, *but: nn.Parameter) -> Module:
    """As trained for a while: what starts at zero hides what is behind it."""
    rng = stream(0, "conformance", "stirred")
    with torch.no_grad():
        for parameter in module.parameters():
            if not any(parameter is other for other in but):
                noise = torch.randn(parameter.shape, generator=rng)
                parameter.add_(noise * (0.1 + 0.3 * parameter.square().mean().sqrt()))
    return module


def repeats(subject: Subject, what: str, make: Callable[[torch.Generator], Tensor]) -> None:
    """Fail unless the same seed gives the same bytes, whatever torch's global random numbers are."""
    first, second = twice(make)
    subject.equal(f"{what} from the same seed, a second time", second, first)


def reaches(subject: Subject, output: Tensor, named: dict[str, nn.Parameter]) -> None:
    """Fail unless the gradient of (the squares of) an output is finite, and not zero in any of these parameters."""
    if not named:
        return
    subject.hold(output.requires_grad, f"no gradient comes to {next(iter(named))}: its output is cut off from it")
    gradients = torch.autograd.grad(output.square().sum(), list(named.values()), allow_unused=True)
    for name, gradient in zip(named, gradients, strict=True):
        if not named[name].numel():
            continue
        subject.hold(gradient is not None and gradient.any(), f"no gradient comes to {name}")
        subject.hold(gradient is None or gradient.isfinite().all(), f"the gradient of {name} is not finite")


def kept_in_file(
    subject: Subject, instance: Instance, trained: nn.Module, answer: Callable[[nn.Module], Tensor]
) -> None:
    """Fail unless a fresh one that loads this one's state from safetensors answers the same."""
    fresh = subject.build(instance.around, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.safetensors"
        try:
            save_file({name: tensor.contiguous() for name, tensor in trained.state_dict().items()}, file)
            fresh.load_state_dict(load_file(file))
        except (RuntimeError, SafetensorError, ValueError) as error:
            subject.fail(f"its state does not go through a safetensors file: {reason(error)}")
    with torch.no_grad(), seeded(0):
        reloaded = answer(fresh)
    with torch.no_grad(), seeded(0):
        subject.equal("what it says after its state went through a file", reloaded, answer(trained))


def rows_alone(
    subject: Subject, what: str, together: Tensor, alone: Callable[[int], Tensor], within: float = 1e-4
) -> None:
    """Fail unless each row of a batch is what it is without the others."""
    for row in range(len(together)):
        subject.near(f"{what} {row} of a batch against the same by itself", alone(row)[0], together[row], within)
