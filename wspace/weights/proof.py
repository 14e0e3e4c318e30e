"""Whether a symmetry is one: f(g·w) = f(w), tried on random weights and inputs; and what breaks it, if it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NoReturn

import torch
from torch import Tensor

from wspace.interfaces import Part, Symmetry, Target
from wspace.interfaces.axes import names_in
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.support.progress import Bar, Progress

TOLERANCE = 1e-4  # relative, float32: an order above rounding, orders below a wrong axis
ELEMENTS, IMAGES, CLASSES = 16, 8, 5  # so many elements that not all are the identity, even of an axis of two units
DRAWS = 64  # of random networks, at most, until every axis has mattered in so many elements
WRONG_TENSORS = 2  # at most, that are named together

ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-9}  # relative: a smaller change of the outputs is none
FAITHFUL = 1e-6  # relative: if float32 is as near to float64 as this, it is precise enough to say what is wrong
NEGLIGIBLE = 1e-6  # of the largest output: what is smaller is compared with this instead of with itself
MATTERS = 10  # times as much as rounding an axis must matter to be proven


@dataclass
class Trial:
    """One or more random networks, and what they compute of random inputs."""

    weights: Tensor  # (B, P), float32
    compute: Callable[
        [Tensor], Sequence[Tensor]
    ]  # (B, P) -> what these networks compute, in the precision of the weights
    elements: int = 1  # of the group, that each is moved by


@torch.no_grad()
def symmetry_error(symmetry: Symmetry, target: Target, dims: tuple[int, int], rng: torch.Generator) -> float:
    """max |f(g·w) - f(w)| / max |f(w)|, over random elements, weights and inputs; `dims` are F and T."""
    return trial_error(symmetry, _trial(target, dims, rng), rng)


@torch.no_grad()
def trial_error(symmetry: Symmetry, trial: Trial, rng: torch.Generator) -> float:
    """The greatest relative change of what these networks compute, in float32."""
    return _error(symmetry, trial, trial.weights, trial.compute(trial.weights), rng)


def prove(symmetry: Symmetry, target: Target, name: str, dims: tuple[int, int], rng: torch.Generator) -> None:
    """Raise UserError unless the symmetry leaves the function of random networks of this target as it is.

    The message names the axis that breaks it and its tensors, where the symmetry has parts to try one by one; and if the
    target calls that axis free and is wrong about one or two tensors alone, those. An axis on which nothing depends is
    proven by nothing, and is refused too.
    """
    trials = (_trial(target, dims, rng) for _ in range(DRAWS))
    prove_by(symmetry, target.spec, trials, rng, name, "this target's networks compute", "the target's spec")


def prove_by(
    symmetry: Symmetry,
    spec: WeightSpec,
    trials: Iterable[Trial],
    rng: torch.Generator,
    name: str,
    computed: str,
    spec_name: str,
    progress: Progress | None = None,
    elements: int = ELEMENTS,
) -> float:
    """The same for any function of weights of this spec; the greatest change that moving them made, relative.

    As many `trials` are taken as it needs until every axis has mattered for so many elements.
    """
    judge = _Judge(symmetry, spec, rng, name, computed, spec_name, progress or Progress(), elements)
    return judge.verdict(trials)


class _Judge:
    def __init__(
        self,
        symmetry: Symmetry,
        spec: WeightSpec,
        rng: torch.Generator,
        name: str,
        computed: str,
        spec_name: str,
        progress: Progress,
        elements: int,
    ):
        self.symmetry, self.spec, self.rng, self.progress = symmetry, spec, rng, progress
        self.name, self.computed, self.spec_name, self.elements = name, computed, spec_name, elements
        self.dtype = torch.float32  # float64 as soon as float32 does not tell rounding from a wrong axis

    def verdict(self, trials: Iterable[Trial]) -> float:
        """Raises UserError."""
        mattered = {part.axis: 0 for part in self.symmetry.parts()}  # in so many elements
        greatest, tried, trial = 0.0, 0, None
        with self.progress.bar("proof", self.elements) as bar:
            for candidate in trials:
                before, slopes = _outputs_and_slopes(candidate, self.dtype, self.rng)
                if not any(leaf.isfinite().any() for leaf in before):
                    continue
                trial = candidate
                greatest = max(greatest, self._checked(trial, before, bar))
                count = len(trial.weights) * trial.elements
                for axis in self._mattering(trial, slopes, mattered):
                    mattered[axis] += count
                tried += count
                bar.advance(min(tried, bar.total) - bar.done)
                if tried >= self.elements and (
                    slopes is None or min(mattered.values(), default=tried) >= self.elements
                ):
                    break
                if slopes is not None and tried >= self.elements and not all(mattered.values()):
                    self._look_closer(trial)
        if trial is None:
            raise UserError(
                f"symmetry {self.name!r}: what {self.computed} is no finite number, with any random weights"
            )
        unproven = [axis for axis, elements in mattered.items() if not elements]
        if unproven:
            with self.progress.bar("idle axes", len(unproven)) as bar:
                for axis in unproven:
                    self._must_matter(axis, trial)
                    bar.advance()
        return greatest

    # ------------------------------------------------------------ one trial

    @torch.no_grad()
    def _checked(self, trial: Trial, before: Sequence[Tensor], bar: Bar) -> float:
        """The greatest relative change, which is rounding. Raises UserError if it is not."""
        error = _error(self.symmetry, trial, trial.weights.to(self.dtype), before, self.rng, bar)
        if error < ROUNDING[self.dtype]:
            return error
        if _apart(trial.compute(trial.weights.to(self.dtype)), before) > TOLERANCE:
            raise UserError(
                f"symmetry {self.name!r}: what {self.computed} differs from call to call with the same weights and "
                "inputs, so nothing can be proven of it: leave out what draws random numbers or keeps a state"
            )
        weights = trial.weights.double()
        if self.dtype == torch.float64:
            self._refuse(trial, weights, before, error, ROUNDING[self.dtype])
        try:
            exact = trial.compute(weights)
        except (RuntimeError, TypeError) as failure:  # a module that insists on float32
            if error < TOLERANCE:
                return error
            note = f"; it cannot be tried in float64 ({str(failure).splitlines()[0]}), which would tell rounding apart"
            self._refuse(trial, trial.weights, before, error, TOLERANCE, note)
        rounding = _apart(before, exact)
        error = _error(self.symmetry, trial, weights, exact, self.rng)
        if error < ROUNDING[torch.float64]:
            self.dtype = torch.float64
            return error
        if rounding < FAITHFUL and error > MATTERS * TOLERANCE:
            self._refuse(trial, trial.weights, before, error, TOLERANCE)
        self._refuse(trial, weights, exact, error, ROUNDING[torch.float64])

    def _look_closer(self, trial: Trial) -> None:
        """In float64, if the networks can be computed in it: an axis may matter by less than float32 tells."""
        if self.dtype == torch.float64:
            return
        try:
            trial.compute(trial.weights.double())
        except (RuntimeError, TypeError):
            return
        self.dtype = torch.float64

    def _mattering(self, trial: Trial, slopes: Tensor | None, axes: Iterable[str]) -> Iterator[str]:
        """Axes with a tensor whose values, wobbled by as much as they are large, change the outputs, to first order."""
        if slopes is None:
            return
        by_tensor = self.spec.unflatten(slopes * trial.weights)
        reached = {name for name, part in by_tensor.items() if part.norm() > MATTERS * ROUNDING[self.dtype]}
        for axis in axes:
            if any(axis in entry.names and entry.name in reached for entry in self.spec.entries):
                yield axis

    @torch.no_grad()
    def _must_matter(self, axis: str, trial: Trial) -> None:
        """Raise UserError unless the outputs change if the axis is moved in one of its tensors alone."""
        weights = trial.weights.to(self.dtype)
        before = trial.compute(weights)
        entries = [entry for entry in self.spec.entries if axis in entry.names]
        for part in (part for part in self.symmetry.parts() if part.axis == axis):
            group = part.on(spec=self.spec)
            moved = _moved(group, weights, self.rng)
            for entry in entries:
                here, alone = self.spec.slices[entry.name], weights.clone()
                alone[:, here] = moved[:, here]
                if _apart(trial.compute(alone), before) > MATTERS * ROUNDING[self.dtype]:
                    return
        of = ", ".join(entry.name for entry in entries)
        raise UserError(
            f"symmetry {self.name!r}: nothing is proven of axis {axis!r} (of {of}): what {self.computed} does not depend "
            "on it, with any random weights and inputs that were tried"
        )

    # ------------------------------------------------------------ what is wrong

    def _refuse(
        self,
        trial: Trial,
        weights: Tensor,
        before: Sequence[Tensor],
        error: float,
        tolerance: float,
        note: str = "",
    ) -> NoReturn:
        """Raise UserError."""

        def error_of(group: Symmetry) -> float:
            same = torch.Generator().manual_seed(seed)  # errors of several specs are those of the same elements
            return _error(group, trial, weights, before, same)

        seed = int(torch.randint(2**62, (), generator=self.rng))
        parts = self.symmetry.parts()
        with self.progress.bar("which axis", len(parts)) as bar:
            for part in parts:
                error_of_part = error_of(part.on(spec=self.spec))
                bar.advance()
                if error_of_part < tolerance:
                    continue
                of = ", ".join(entry.name for entry in self.spec.entries if part.axis in entry.names)
                if part.axis in self.spec.free:
                    hint = self._misdeclared(part, error_of, error_of_part, tolerance)
                else:
                    hint = f"; free axes: {', '.join(self.spec.free) or 'none'}"
                self._raise(f"{part.doing} axis {part.axis!r} (of {of})", error_of_part, hint + note)
        self._raise("it", error, note)

    def _raise(self, what: str, error: float, end: str) -> NoReturn:
        if error == torch.inf:
            raise UserError(
                f"symmetry {self.name!r}: {what} changes which of the numbers that {self.computed} are finite{end}"
            )
        if error > 1 / NEGLIGIBLE:
            raise UserError(f"symmetry {self.name!r}: {what} changes what {self.computed}, from next to nothing{end}")
        raise UserError(
            f"symmetry {self.name!r}: {what} changes what {self.computed}, by {100 * error:.3g}% of the largest score{end}"
        )

    def _misdeclared(self, part: Part, error_of: Callable[[Symmetry], float], error: float, tolerance: float) -> str:
        """The tensors without whose axes as declared the symmetry would hold, in words; nothing, if that takes many.

        The first is the one that leaves the least to be explained by the others.
        """
        spec, wrong = self.spec, dict[str, str]()
        for _ in range(WRONG_TENSORS):
            corrections = list(_corrections(part, spec))
            best: _Correction | None = None
            with self.progress.bar("which tensor", len(corrections)) as bar:
                for correction in corrections:
                    left = error_of(correction.group)
                    bar.advance()
                    if left < error:
                        best, error = correction, left
                    if left < tolerance:
                        break
            if best is None:
                return ""
            spec, wrong[best.tensor] = best.spec, best.words
            if error < tolerance:
                tensors = (f"tensor {e.name!r}: {wrong[e.name]}" for e in spec.entries if e.name in wrong)
                return f"; {self.spec_name} is wrong about " + ", and about ".join(tensors)
        return ""


@dataclass(frozen=True)
class _Correction:
    """A spec that says something else of one tensor."""

    spec: WeightSpec
    group: Symmetry  # the part in question, on that spec
    tensor: str
    words: str


def _corrections(part: Part, spec: WeightSpec) -> Iterator[_Correction]:
    """Every way to say of one tensor that other dimensions have the part's axis, as other tensors have it."""
    lengths = {
        text: n for e in spec.entries for text, n in zip(e.axes, e.shape, strict=True) if part.axis in names_in(text)
    }
    lengths[part.axis] = spec.axis_size(part.axis)
    for entry in spec.entries:
        declared = tuple(dim for dim, text in enumerate(entry.axes) if part.axis in names_in(text))
        for text, length in lengths.items():
            for dims in _dimensions(entry, declared, length):
                kept = set(dims) <= set(declared)
                if dims == declared or (kept and text != part.axis):  # nothing of this text: said once is enough
                    continue
                axes = list(entry.axes)
                for dim in {*dims, *declared}:
                    if not (dim in dims and dim in declared):
                        axes[dim] = text if dim in dims else str(entry.shape[dim])
                changed = replace(entry, axes=tuple(axes))
                other = replace(spec, entries=tuple(changed if e is entry else e for e in spec.entries))
                if sum(part.axis in names_in(text) for each in other.entries for text in each.axes) < 2:
                    continue  # what moves nothing, or nothing that matters, is no correction
                try:
                    group = part.on(spec=other)
                    for each in other.entries:
                        other.layout(each)
                except UserError:  # no such group on such a spec, or no such spec
                    continue
                yield _Correction(other, group, entry.name, _corrected(text, part.axis, declared, dims))


def _dimensions(entry: WeightEntry, declared: tuple[int, ...], length: int) -> Iterator[tuple[int, ...]]:
    """Every set of dimensions that could be an axis of this length, or are said to have it."""
    fitting = [dim for dim, size in enumerate(entry.shape) if size == length or dim in declared]
    for count in range(len(fitting) + 1):
        yield from combinations(fitting, count)


def _corrected(text: str, axis: str, declared: tuple[int, ...], dims: tuple[int, ...]) -> str:
    old, new = (f"dimension{'s' * (len(chosen) > 1)} {' and '.join(map(str, chosen))}" for chosen in (declared, dims))
    if not dims:
        return f"its {old} is not axis {axis!r}"
    what = f"axis {axis!r}" if text == axis else repr(text)
    return f"{what} is its {new}" + (f", not {old}" if declared else "")


# ---------------------------------------------------------------- numbers


def _trial(target: Target, dims: tuple[int, int], rng: torch.Generator) -> Trial:
    """As many networks as elements, each moved by one."""
    features = torch.randn(ELEMENTS, IMAGES, dims[0], generator=rng)
    texts = torch.randn(ELEMENTS, CLASSES, dims[1], generator=rng)
    # about as large as fresh ones, none of them zero: a bias that starts at 0 would prove anything
    fresh = target.init(ELEMENTS, rng)
    weights = fresh + fresh.square().mean().sqrt().clamp_min(0.01) * torch.randn(fresh.shape, generator=rng)
    return Trial(weights, lambda w: [target.logits(w, features.to(w.dtype), texts.to(w.dtype))])


def _error(
    symmetry: Symmetry,
    trial: Trial,
    weights: Tensor,
    before: Sequence[Tensor],
    rng: torch.Generator,
    bar: Bar | None = None,
) -> float:
    """The greatest relative change of what these networks compute, over random elements; inf if one is no number."""
    errors = []
    for _ in range(trial.elements):
        errors.append(_apart(trial.compute(_moved(symmetry, weights, rng)), before))
        if bar is not None and bar.done < bar.total:
            bar.advance()
    return max(errors)


def _moved(symmetry: Symmetry, weights: Tensor, rng: torch.Generator) -> Tensor:
    """By random elements that are not all the identity, if there are such: half of those of two units are."""
    moved = weights
    for _ in range(ELEMENTS):
        moved = symmetry.act(symmetry.sample(len(weights), rng), weights)
        if not torch.equal(moved, weights):
            break
    return moved


def _apart(after: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """Of outputs (B, ...): the greatest difference, relative to the largest value of that output in that network.

    inf if others are finite numbers than before. What is next to nothing beside other outputs is taken for rounding.
    """
    largest = max(float(leaf[leaf.isfinite()].abs().max()) if leaf.isfinite().any() else 0.0 for leaf in before)
    worst = 0.0
    for ours, theirs in zip(after, before, strict=True):
        finite = theirs.isfinite()
        if ours.shape != theirs.shape or not torch.equal(ours.isfinite(), finite):
            return torch.inf
        ours, theirs = (x.where(finite, 0.0).flatten(1).double() for x in (ours, theirs))
        if not ours.numel():
            continue
        scale = theirs.abs().amax(1).clamp_min(NEGLIGIBLE * largest).clamp_min(torch.finfo(torch.float32).tiny)
        worst = max(worst, float(((ours - theirs).abs().amax(1) / scale).max()))
    return worst


def _outputs_and_slopes(trial: Trial, dtype: torch.dtype, rng: torch.Generator) -> tuple[list[Tensor], Tensor | None]:
    """What the networks compute, and its slope along a random direction of all outputs, relative to their size: (B, P).

    None if torch has no gradient of it.
    """
    weights = trial.weights.to(dtype, copy=True).requires_grad_()
    try:
        outputs = trial.compute(weights)
        total = weights.sum() * 0
        for leaf in outputs:
            if leaf.requires_grad:
                values = leaf.where(leaf.isfinite(), 0.0).flatten(1)
                direction = torch.randn(values.shape, generator=rng).to(values)
                sizes = values.detach().norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
                total = total + ((direction * values).sum(1) / sizes).sum()
        (slopes,) = torch.autograd.grad(total, weights)
    except RuntimeError:
        with torch.no_grad():
            return list(trial.compute(trial.weights.to(dtype))), None
    return [leaf.detach() for leaf in outputs], slopes.nan_to_num(0, 0, 0)
