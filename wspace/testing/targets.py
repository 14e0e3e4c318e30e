"""Laws of targets: what their networks compute, and what their weights are said to be."""

from __future__ import annotations

import torch
from torch import Tensor

from wspace.interfaces import Target
from wspace.support.errors import UserError
from wspace.testing.every import repeats, rows_alone
from wspace.testing.law import check
from wspace.testing.subject import FEATURES, TEXTS, Subject, apart, normal, rng_of
from wspace.testing.verdicts import Unbuilt, Unlawful
from wspace.weights.permutations import AxisPermutations
from wspace.weights.proof import TOLERANCE, prove

NETWORKS, IMAGES, CLASSES = 3, 4, 5
STEP = 1e-3  # of finite differences, as large beside the weights
SLOPE = 0.02  # share of a slope that float32 differences over such a step may miss
ROUNDING = 1e-4  # of float32, in sums that are put together otherwise
NOISE = 1e-6  # of float32, relative to all scores together


@check("target")
def check_spec_is_sound(subject: Subject) -> None:
    """Tensors have names and axes, free axes are there, and axes of one name agree."""
    spec = _target(subject).spec
    names = [entry.name for entry in spec.entries]
    subject.hold(names, "its spec should have tensors, and has none")
    subject.hold(len(set(names)) == len(names), "its spec should give each tensor a name of its own")
    for entry in spec.entries:
        subject.hold(
            len(entry.axes) == len(entry.shape),
            f"tensor {entry.name!r} has {len(entry.shape)} dimensions and {len(entry.axes)} axes",
        )
        try:
            spec.layout(entry)
        except UserError as error:
            subject.fail(f"its spec: {error}")
    axes = {axis for entry in spec.entries for axis in entry.names}
    for axis in spec.free:
        subject.hold(axis in axes, f"its spec calls axis {axis!r} free, and no tensor has it")
    for factors in spec.products:
        for name in (factors.left, factors.right):
            subject.hold(name in names, f"its spec has a product of {name!r}, and no such tensor")


@check("target")
def check_fresh_networks_differ(subject: Subject) -> None:
    target = _target(subject)
    fresh = target.init(NETWORKS, rng_of("init"))
    subject.shaped("its fresh weights", fresh, (NETWORKS, target.spec.size))
    subject.hold((fresh[0] != fresh[1]).any(), "two fresh networks should differ, and are the same")


@check("target")
def check_fresh_networks_follow_the_seed(subject: Subject) -> None:
    repeats(subject, "its fresh weights", lambda rng: _target(subject).init(NETWORKS, rng))


@check("target")
def check_scores_are_one_for_each_class(subject: Subject) -> None:
    subject.shaped("its scores", _scores(subject), (NETWORKS, IMAGES, CLASSES))


@check("target")
def check_scores_are_the_same_twice(subject: Subject) -> None:
    repeats(subject, "its scores", lambda rng: _scores(subject))


@check("target")
def check_networks_do_not_see_each_other(subject: Subject) -> None:
    target, (weights, features, texts) = _target(subject), _inputs(subject)

    def alone(row: int) -> Tensor:
        rows = slice(row, row + 1)
        return target.logits(weights[rows], features[rows], texts[rows])

    rows_alone(subject, "the scores of network", _scores(subject), alone)


@check("target")
def check_images_do_not_see_each_other(subject: Subject) -> None:
    target, (weights, features, texts) = _target(subject), _inputs(subject)
    one = target.logits(weights, features[:, :1], texts)
    subject.near("the scores of an image by itself against the same among others", one, _scores(subject)[:, :1], 1e-4)


@check("target")
def check_a_plain_module_is_the_same_network(subject: Subject) -> None:
    """One network as a torch module scores as it does among others, and has parameters to train."""
    target, (weights, features, texts) = _target(subject), _inputs(subject)
    module = target.plain(weights[0])
    subject.hold(list(module.parameters()), "its plain module should have parameters to train, and has none")
    with torch.no_grad():
        scores = module.eval()(features[0], texts[0])
        alone = target.logits(weights[:1], features[:1], texts[:1])[0]
    subject.near("the scores of its plain module", scores, alone, 1e-4)


@check("target")
def check_every_tensor_matters(subject: Subject) -> None:
    target, (weights, features, texts) = _target(subject), _inputs(subject)
    before = _scores(subject)
    for name, where in target.spec.slices.items():
        moved = weights.clone()
        moved[:, where] += weights.abs().mean() * normal(*moved[:, where].shape, seed=3)
        off = apart(target.logits(moved, features, texts), before)
        subject.hold(off > 1e-6, f"tensor {name!r} should matter, and no score depends on it")


@check("target")
def check_gradients_are_those_of_finite_differences(subject: Subject) -> None:
    """Tensor by tensor, along a direction between the gradient and a random one."""
    target, (weights, features, texts) = _target(subject), _inputs(subject)
    by = normal(NETWORKS, IMAGES, CLASSES, seed=4).double()

    def total(moved: Tensor) -> Tensor:
        return (target.logits(moved, features, texts).double() * by).sum()

    leaf = weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf, allow_unused=True)
    subject.hold(gradient is not None, "no gradient comes to its weights: its scores are cut off from them")
    subject.hold(gradient.isfinite().all(), "its gradient should be finite numbers, and is not")
    floor = NOISE * float((_scores(subject).double() * by).abs().sum())
    for name, where in target.spec.slices.items():
        of_tensor = gradient[:, where]
        towards = of_tensor / of_tensor.norm().clamp_min(1e-30) + 0.5 * _unit(normal(*of_tensor.shape, seed=5))
        move = torch.zeros_like(weights)
        move[:, where] = _unit(towards) * STEP * weights.square().mean().sqrt() * of_tensor.numel() ** 0.5
        with torch.no_grad():
            by_differences = float(total(weights + move) - total(weights - move)) / 2
        by_autograd = float((gradient * move).double().sum())
        subject.hold(
            abs(by_autograd - by_differences) <= SLOPE * max(abs(by_autograd), abs(by_differences)) + floor,
            f"the gradient of tensor {name!r} gives a slope of {by_autograd:.4g} where finite differences give "
            f"{by_differences:.4g}",
        )


@check("target")
def check_free_axes_are_free(subject: Subject) -> None:
    """Permuting an axis that the spec calls free leaves what random networks compute as it is."""
    target = _sound(subject)
    for axis in target.spec.free:
        try:
            prove(
                AxisPermutations(target.spec, (axis,)), target, "permutation", (FEATURES, TEXTS), rng_of("free", axis)
            )
        except UserError as error:
            why = str(error).removeprefix("symmetry 'permutation': ")
            subject.fail(f"its axis {axis!r} is not free: {why}")


@check("target")
def check_products_are_all_that_counts(subject: Subject) -> None:
    """Left and right factors may change their common basis: B M and M⁻¹ A are the same product."""
    target, (weights, features, texts) = _sound(subject), _inputs(subject)
    before = _scores(subject)
    for factors in target.spec.products:
        tensors = target.spec.unflatten(weights)
        rank = tensors[factors.left].shape[-1]
        basis = torch.eye(rank) + 0.3 * _unit(normal(NETWORKS, rank, rank, seed=6))
        tensors[factors.left] = tensors[factors.left] @ basis
        tensors[factors.right] = torch.linalg.solve(basis, tensors[factors.right])
        off = apart(target.logits(target.spec.flatten(tensors), features, texts), before)
        subject.hold(
            off < TOLERANCE,
            f"only the product of {factors.left!r} and {factors.right!r} should count, and changing their basis changes "
            f"the scores by {off:.2g} of the largest",
        )


@check("target")
def check_only_statistics_are_calibrated(subject: Subject) -> None:
    """What is taken from images is what the target calls statistics, and nothing else; training reads none of it."""
    target, (weights, features, texts) = _target(subject), _inputs(subject)
    unknown = set(target.statistics) - set(target.spec.slices)
    subject.hold(not unknown, f"it calls {', '.join(sorted(unknown))} statistics, and its spec has no such tensor")
    with torch.no_grad():
        calibrated = target.calibrated(weights, features)
        subject.shaped("its weights with statistics of images", calibrated, tuple(weights.shape))
        for name, where in target.spec.slices.items():
            if name not in target.statistics:
                subject.equal(f"tensor {name!r} after statistics are taken", calibrated[:, where], weights[:, where])
        before, after = (target.training_logits(w, features, texts) for w in (weights, calibrated))
    subject.near("its scores while training, which should read no statistics,", after, before, 1e-4)


@check("target")
def check_training_descends_the_cross_entropy(subject: Subject) -> None:
    """What a target that writes `descent` out gives is what differentiating its scores gives."""
    target, (weights, features, texts) = _target(subject), _inputs(subject)
    hidden = torch.zeros(NETWORKS, 1, CLASSES, dtype=torch.bool)
    hidden[0, 0, -1] = True
    given = features, texts, hidden, torch.arange(IMAGES).expand(NETWORKS, -1) % (CLASSES - 1)
    losses, gradient = target.descent(weights, *given)
    expected_losses, expected = Target.descent(target, weights, *given)
    subject.near("its losses while training, against those of its scores,", losses, expected_losses, ROUNDING)
    subject.near("its gradient while training, against that of its scores,", gradient, expected, ROUNDING)


@check("target")
def check_files_hold_its_tensors(subject: Subject) -> None:
    target = _target(subject)
    weights = target.init(1, rng_of("init"))[0]
    tensors = target.exported(weights)
    wanted = {*target.spec.slices, *target.spec.aside}
    subject.hold(
        set(tensors) == wanted,
        f"a file should hold {', '.join(sorted(wanted))}, and holds {', '.join(sorted(tensors))}",
    )
    subject.equal("weights that have been in a file", target.spec.flatten(tensors).float(), weights)


def _target(subject: Subject) -> Target:
    return subject.instances[0].made


def _sound(subject: Subject) -> Target:
    """Raises Unbuilt if its spec is not, which says so itself."""
    try:
        check_spec_is_sound(subject)
    except Unlawful as error:
        raise Unbuilt(str(error)) from error
    return _target(subject)


def _unit(tensor: Tensor) -> Tensor:
    return tensor / tensor.norm()


def _inputs(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Weights about as large as fresh ones, none of them zero; features; texts of unit length."""
    fresh = subject.once("fresh", lambda: _target(subject).init(NETWORKS, rng_of("init")))
    size = fresh.square().mean().sqrt().clamp_min(0.01)
    weights = fresh + size * normal(*fresh.shape, seed=1)
    texts = torch.nn.functional.normalize(normal(NETWORKS, CLASSES, TEXTS, seed=2), dim=2)
    return weights, normal(NETWORKS, IMAGES, FEATURES, seed=3), texts


def _scores(subject: Subject) -> Tensor:
    with torch.no_grad():
        return _target(subject).logits(*_inputs(subject))
