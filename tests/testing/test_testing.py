"""The conformance checks: each fails for a component that breaks its law, with one sentence, and no other check does."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import lawful
from wspace.recipes import plugins
from wspace.recipes.registry import KINDS, Component, Registry
from wspace.support.errors import MissingPackage
from wspace.testing import CHECKS, Case, Unlawful, cases, cases_of
from wspace.testing.subject import scratch
from wspace.testing.verdicts import Unbuilt

SOURCE = inspect.getsource(lawful)
Made = Callable[..., Registry]


class Broken(NamedTuple):
    """A change to tests/lawful.py, and what is to be said of it."""

    said: str
    changes: tuple[tuple[str, str], ...]


def broken(said: str, *changes: str) -> Broken:
    return Broken(said, tuple(zip(changes[::2], changes[1::2], strict=True)))


def unsaved(layer: str, answer: str, said: str) -> Broken:
    """A random number that is no parameter and no buffer."""
    return broken(
        f"what it says after its state went through a file: off by {said}",
        f"        {layer}\n",
        f"        {layer}\n        self.shift = 5 * torch.randn(())\n",
        answer,
        f"{answer} + self.shift",
    )


BROKEN = {
    # ------------------------------------------------------------ of every kind
    "metric/signature_is_readable": broken(
        "its constructor cannot be read: {file}: parameter 'which' has no annotation",
        "higher_is_better = False\n\n    def __init__(self) -> None: ...",
        "higher_is_better = False\n\n    def __init__(self, which=None) -> None: ...",
    ),
    "fusion/imports_through_the_doors": broken(
        "it imports wspace.learning.loop.Log, which the next version may move: import from wspace, wspace.api or "
        "wspace.testing",
        "from torch.nn import functional\n",
        "from torch.nn import functional\n\nfrom wspace.learning.loop import Log  # noqa: F401\n",
    ),
    "dataset/builds_from_its_example": broken(
        "it cannot be built from its example: path: expected str, got 3", '{"path": "pictures"}', '{"path": 3}'
    ),
    "denoiser/builds_from_its_example": broken(
        "it cannot be built from its example: ZeroDivisionError: division by zero ({file.name}, line ",
        "        self.enter = nn.Linear(layout.mask.numel() + 1, width)",
        "        self.enter = 1 / 0",
    ),
    "architecture/default_components_are_built": broken(
        'built in Python without of, it has no component as of: write `= Default("NAME")` in its signature, and '
        "`built(KIND, VALUE, ...)` in its body (wspace.api)",
        "def __init__(self, width: Annotated[int, Ge(1)] = 8):\n        self.width = width",
        "def __init__(self, width: Annotated[int, Ge(1)] = 8, of: Metric | None = 'lawful'):\n"
        "        self.width, self.of = width, of",
    ),
    "tokenizer/builds_from_its_example": broken(
        "it cannot be built from its example: with one hidden layer: tokenizer 'lawful': it needs one free axis called "
        "'hidden'; with two hidden layers: ",
        'if spec.free != ("hidden",):',
        'if spec.free != ("other",):',
    ),
    "wording/builds_from_its_example": broken(
        "it cannot be built from its example: Plain is no Wording of wspace.interfaces",
        "class Plain(Wording):",
        "class Plain:",
    ),
    "text/says_what_it_is": broken(
        "it has no docstring, or one whose first line is empty",
        '"""How often each letter is used."""',
        '"""\n\n    """',
    ),
    "backbone/version_is_in_its_source": broken(
        "its version is 2, and its source says 1: write `version = 2` in the class",
        "version: ClassVar[int] = 2",
        "version: ClassVar[int] = 1 + 1",
    ),
    "conditioner/same_seed_same_parameters": broken(
        "nothing of two built from the same seed: off by ",
        "nn.Parameter(torch.randn(7))",
        "nn.Parameter(torch.tensor(np.random.default_rng().normal(size=7)).float())",
    ),
    # ------------------------------------------------------------ data sets
    "dataset/loads_from_its_example": broken(
        "its example: it cannot be loaded: {folder}/pictures: no pictures", 'glob("*/*.png")', 'glob("*/*.bmp")'
    ),
    "dataset/labels_and_splits_are_in_range": broken(
        "its labels should be one int64 for each image", "dtype=np.int64", "dtype=np.int32"
    ),
    "dataset/every_class_has_training_and_test_images": broken(
        "class 'bar' should have test images, and has none", "if number < 6 else", "if number < 8 else"
    ),
    "dataset/pixels_are_square_bytes": broken(
        "two of its images should be uint8 of shape (2, S, S, 3), and are uint8 of (2, 13, 12, 3)",
        ".resize((self.size, self.size))",
        ".resize((self.size, self.size + 1))",
    ),
    "dataset/images_are_read_in_the_order_asked_for": broken(
        "image 23 read among others is another than by itself", "for index in indices", "for index in sorted(indices)"
    ),
    "dataset/loads_the_same_twice": broken(
        "its images have another fingerprint when loaded again", '"{len(files)} pictures"', '"{id(self)} pictures"'
    ),
    "dataset/opens_a_picture_as_its_own": broken(
        "opens a picture as its own: it raised FileNotFoundError: ",
        "except (OSError, UnidentifiedImageError) as error:",
        "except UnidentifiedImageError as error:",
    ),
    # ------------------------------------------------------------ encoders and wordings
    "backbone/vectors_are_plain_float32": broken(
        "what it says of a batch should be of torch.float32, and is of torch.float64",
        "return features.cpu()",
        "return features.double().cpu()",
    ),
    "backbone/encodes_the_same_twice": broken(
        "the same batch, encoded from the same seed, a second time: off by ",
        "return features.cpu()",
        "return features.cpu() + 1e-5 * torch.rand(features.shape)",
    ),
    "backbone/batches_do_not_matter": broken(
        "a batch encoded in two halves: off by ", "return features.cpu()", "return (features - features.mean(0)).cpu()"
    ),
    "backbone/tells_inputs_apart": broken(
        "different inputs should have different vectors, and have the same",
        "return features.cpu()",
        "return torch.ones_like(features).cpu()",
    ),
    "backbone/fingerprint_is_that_of_another_built_alike": broken(
        "built again it has another fingerprint, so that no feature would ever be found again",
        'self.fingerprint = "averages"',
        'self.fingerprint = f"{id(self)}"',
    ),
    "text/vectors_have_unit_length": broken(
        "the lengths of its vectors against 1: off by ", "return functional.normalize(vectors, dim=1)", "return vectors"
    ),
    "text/no_sentence_is_no_vector": broken(
        "what it says of no sentence should have shape (0, 26), and has (0, 1)",
        "        return functional.normalize(vectors, dim=1)",
        "        return functional.normalize(vectors, dim=1) if sentences else torch.empty(0, 1)",
    ),
    "wording/every_class_has_sentences": broken(
        "of 'camera' it should say a tuple of one sentence or more, and says ()",
        'return [(f"{self.article} {name}", sentence) for name, sentence in pairs]',
        "return [() for _ in pairs]",
    ),
    "wording/a_class_is_described_alike_in_any_company": broken(
        "of a class among others it says something else than of it alone",
        '(f"{self.article} {name}", sentence)',
        '(f"{self.article} {name}", sentence, f"one of {len(classes)}")',
    ),
    # ------------------------------------------------------------ targets
    "architecture/says_what_it_sees": broken(
        "sees should be 'features' or 'pictures', and is 'sounds'",
        '    """A hidden layer, its axes told by hand."""\n',
        '    """A hidden layer, its axes told by hand."""\n\n    sees = "sounds"\n',
    ),
    "architecture/as_many_outputs_as_asked": broken(
        "what its module gives should have shape (3, 7), and has (3, 6)",
        "last = nn.Linear(self.width, outputs)",
        "last = nn.Linear(self.width, 6)",
    ),
    "architecture/same_seed_same_module": broken(
        "modules of different seeds should differ, and are the same",
        "        last = nn.Linear(self.width, outputs)\n",
        "        torch.manual_seed(0)\n        last = nn.Linear(self.width, outputs)\n",
    ),
    "architecture/images_do_not_see_each_other": broken(
        "what it gives for image 0 of a batch against the same by itself: off by ",
        "nn.Tanh(), last)",
        "nn.Softmax(0), last)",
    ),
    "architecture/every_parameter_matters": broken(
        "no gradient comes to 2.extra",
        "        last = nn.Linear(self.width, outputs)\n",
        "        last = nn.Linear(self.width, outputs)\n        last.extra = nn.Parameter(torch.ones(2))\n",
        'return first | {"2.weight"',
        'return first | {"2.extra": ("2",), "2.weight"',
    ),
    "architecture/axes_are_free": broken(
        "its axes: permuting axis 'unit' (of 0.weight, 2.weight) changes what this target's networks compute, by ",
        'first = {"0.weight": ("unit", str(module[0].in_features)), "0.bias": ("unit",)}',
        'first = {"0.weight": ("unit", str(module[0].in_features)), "0.bias": (str(self.width),)}',
    ),
    "target/only_statistics_are_calibrated": broken(
        "tensor 'a' after statistics are taken: off by 1 of the largest value, and should be the very same",
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
        "    def calibrated(self, weights: Tensor, features: Tensor) -> Tensor:\n        return 2 * weights\n\n"
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
    ),
    "target/training_descends_the_cross_entropy": broken(
        "its gradient while training, against that of its scores,: off by ",
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
        "    def descent(self, weights, *given):\n        losses, gradient = super().descent(weights, *given)\n"
        "        return losses, gradient.abs()\n\n"
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
    ),
    "target/files_hold_its_tensors": broken(
        "a file should hold a, left, right, and holds ",
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
        "    def exported(self, weights: Tensor) -> dict[str, Tensor]:\n        return {}\n\n"
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
    ),
    "target/spec_is_sound": broken(
        "its spec calls axis 'hiden' free, and no tensor has it", 'free=("hidden",),\n', 'free=("hiden",),\n'
    ),
    "target/fresh_networks_differ": broken(
        "two fresh networks should differ, and are the same",
        "torch.randn(count, *e.shape, generator=rng)",
        "torch.randn(1, *e.shape, generator=rng).expand(count, *e.shape)",
    ),
    "target/fresh_networks_follow_the_seed": broken(
        "its fresh weights from the same seed, a second time: off by ",
        "torch.randn(count, *e.shape, generator=rng)",
        "torch.randn(count, *e.shape)",
    ),
    "target/scores_are_one_for_each_class": broken(
        "its scores should be of torch.float32, and is of torch.float64", "return scores\n", "return scores.double()\n"
    ),
    "target/scores_are_the_same_twice": broken(
        "its scores from the same seed, a second time: off by ",
        "return scores\n",
        "return scores + 1e-5 * torch.rand(1)\n",
    ),
    "target/networks_do_not_see_each_other": broken(
        "the scores of network 0 of a batch against the same by itself: off by 1 of the largest value, where 1e-04",
        "return scores\n",
        "return scores - scores.mean(0)\n",
    ),
    "target/images_do_not_see_each_other": broken(
        "the scores of an image by itself against the same among others: off by ",
        "return scores\n",
        "return scores - scores.mean(1, keepdim=True)\n",
    ),
    "target/a_plain_module_is_the_same_network": broken(
        "the scores of its plain module: off by ",
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
        "    def plain(self, weights: Tensor) -> nn.Module:\n        return super().plain(2 * weights)\n\n"
        "    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:\n",
    ),
    "target/every_tensor_matters": broken(
        "tensor 'idle' should matter, and no score depends on it",
        'WeightEntry("right", (2, text_dim), ("rank", "text")),',
        'WeightEntry("right", (2, text_dim), ("rank", "text")), WeightEntry("idle", (3,), ("idle",)),',
    ),
    "target/gradients_are_those_of_finite_differences": broken(
        "the gradient of tensor 'left' gives a slope of 0 where finite differences give ",
        'hidden @ w["left"] @',
        'hidden @ w["left"].detach() @',
    ),
    "target/free_axes_are_free": broken(
        "its axis 'text' is not free: permuting axis 'text' (of right) changes what this target's "
        "networks compute, by ",
        'free=("hidden",),\n',
        'free=("hidden", "text"),\n',
    ),
    "target/products_are_all_that_counts": broken(
        "only the product of 'left' and 'right' should count, and changing their basis changes the scores by ",
        'hidden @ w["left"] @',
        '(hidden @ w["left"]).tanh() @',
    ),
    # ------------------------------------------------------------ symmetries
    "symmetry/elements_are_rows_of_one_tensor": broken(
        "5 elements and 5 identities should have one shape (5, E), and have (5, 1) and (5, 2)",
        "torch.zeros(count, 1, dtype",
        "torch.zeros(count, 2, dtype",
    ),
    "symmetry/elements_follow_the_seed": broken(
        "its elements from the same seed, a second time: off by ",
        "torch.randint(self.size, (count, 1), generator=rng)",
        "torch.randint(self.size, (count, 1))",
    ),
    "symmetry/it_is_not_the_trivial_group": broken(
        "its elements should move weights, and none of five does",
        "torch.randint(self.size, (count, 1)",
        "torch.randint(1, (count, 1)",
    ),
    "symmetry/identity_moves_nothing": broken(
        "weights moved by the identity: off by ", "torch.zeros(count, 1, dtype", "torch.ones(count, 1, dtype"
    ),
    "symmetry/inverse_moves_back": broken(
        "weights moved, and moved back by the inverse: off by ",
        "return (self.size - elements) % self.size",
        "return elements",
    ),
    "symmetry/composition_is_one_after_the_other": broken(
        "compose(g, h)·w against g·(h·w): off by ", "(left + right)", "(left - right)"
    ),
    "symmetry/acts_linearly": broken(
        "g·(2 v - 3 w) against 2 g·v - 3 g·w: off by ",
        "self._turned(row, int(places))",
        "self._turned(row, int(places * row.sum().sign()))",
    ),
    "symmetry/networks_are_moved_by_themselves": broken(
        "moved network 0 of a batch against the same by itself: off by ",
        "return torch.stack(rows)",
        "return torch.stack(rows) * (1 if len(rows) > 1 else 2)",
    ),
    "symmetry/aligns_what_it_moved": broken(
        "aligned to the network they were moved from (one reference), networks are ", "left.argmin()", "left.argmax()"
    ),
    "symmetry/leaves_functions_as_they_are": broken(
        "f(g·w) = f(w) should hold for one or more of the targets there are, and does for none of 1: nearest is target "
        "'lawful', whose scores change by ",
        "if axis == self.axis:",
        "if axis == self.axis and dim == 0:",
    ),
    "symmetry/parts_are_groups_on_its_axes": broken(
        "its part on axis 'text' should leave tensor 'w1' alone, and moves it by ",
        'Part("turning", self.axis, type(self))',
        'Part("turning", "text", type(self))',
    ),
    # ------------------------------------------------------------ tokenizers
    "tokenizer/mask_has_a_place_for_every_weight": broken(
        "its mask should have 62 places for 62 weights, and has 63",
        "torch.arange(self.count) < spec.size",
        "torch.arange(self.count) <= spec.size",
    ),
    "tokenizer/tokens_are_shaped_as_laid_out": broken(
        "its tokens should be of torch.float32, and is of torch.float64",
        "return self.arrange(weights / self.scale)",
        "return self.arrange(weights / self.scale).double()",
    ),
    "tokenizer/round_trip_is_exact": broken(  # of networks beyond the zoo's range
        "weights made tokens and weights again: off by ",
        'self.register_buffer("scale", torch.ones(()))',
        'self.register_buffer("scale", torch.ones(()))\n        self.register_buffer("most", torch.ones(spec.size))',
        "self.scale.copy_(weights.std()",
        "self.most.copy_(weights.max(0).values)\n        self.scale.copy_(weights.std()",
        "return self.arrange(weights / self.scale)",
        "return self.arrange(torch.minimum(weights, self.most) / self.scale)",
    ),
    "tokenizer/round_trip_is_exact_where_a_zoo_does_not_vary": broken(
        "tokens of a zoo of networks all alike should be finite, and are not",
        "weights.std().clamp_min(1e-6)",
        "weights.std(0).mean()",
    ),
    "tokenizer/a_code_is_learnt_from_networks": broken(
        "one that is not lossy has nothing to learn: no parameters",
        'self.register_buffer("scale", torch.ones(()))',
        'self.register_buffer("scale", torch.ones(()))\n        self.idle = nn.Parameter(torch.ones(2))',
    ),
    "tokenizer/collect_undoes_arrange": broken(
        "values arranged and collected: off by ",
        "return ordered[:, self.order.argsort()]",
        "return ordered[:, self.order.argsort()] * 1.000001",
    ),
    "tokenizer/stretches_are_weights_side_by_side": broken(
        "tokens, against the weights of their stretches: off by ",
        "self.layout = TokenLayout(mask.view(-1, rows.shape[1]), units, groups=groups)",
        "mask = mask.view(-1, rows.shape[1])\n"
        "        lengths = mask.sum(1)\n"
        "        where = torch.stack([lengths.cumsum(0) - lengths, lengths], dim=1)\n"
        "        self.layout = TokenLayout(mask, units, groups=groups, stretches=where)",
    ),
    "tokenizer/padding_is_zero": broken(
        "padding among its tokens should be zero, and is up to 1",
        "self.count - len(self.order)))",
        "self.count - len(self.order)), value=1.0)",
    ),
    "tokenizer/filled_padding_is_ignored": broken(
        "weights of tokens whose padding is 9: off by ",
        "return ordered[:, self.order.argsort()]",
        "return ordered[:, self.order.argsort()] + tokens.flatten(1)[:, len(self.order) :].sum(1, keepdim=True)",
    ),
    "tokenizer/units_permuted_are_tokens_permuted": broken(
        "its first 3 tokens should move as the units of a free axis do, and do not",
        "rows.shape[1]), units, groups",
        "rows.shape[1]), units - 1, groups",
    ),
    "tokenizer/units_of_each_axis_permuted_move_as_laid_out": broken(
        "its layout should have 4 tokens of units of 'hidden', and has 3",
        'UnitTokens("hidden", units, (Span(rows.shape[1]),))',
        'UnitTokens("hidden", units - 1, (Span(rows.shape[1]),))',
    ),
    "tokenizer/gradients_reach_tokens": broken(
        "no gradient comes from weights to tokens: a task loss could not train anything",
        "return self.collect(tokens) * self.scale",
        "return self.collect(tokens.detach()) * self.scale",
    ),
    "tokenizer/networks_do_not_see_each_other": broken(
        "the tokens of network 0 of a batch against the same by itself: off by ",
        "return self.arrange(weights / self.scale)",
        "return self.arrange(weights / self.scale).flip(0)",
        "return self.collect(tokens) * self.scale",
        "return self.collect(tokens).flip(0) * self.scale",
    ),
    "tokenizer/scales_are_kept_in_its_state": broken(
        "what it says after its state went through a file: off by ",
        'self.register_buffer("scale", torch.ones(()))',
        'self.register_buffer("scale", torch.ones(()), persistent=False)',
    ),
    # ------------------------------------------------------------ conditioners
    "conditioner/conditions_are_shaped_as_promised": broken(
        "its condition tokens should have shape (4, 4, 8), and has (4, 4, 7)",
        "self.width, self.pooled_width = 7, text_dim",
        "self.width, self.pooled_width = 8, text_dim",
    ),
    "conditioner/its_recipe_knows_whether_it_takes_pictures": broken(
        "its class should say `takes_pictures` itself, as a literal, and in its source it is False, where it is True",
        "self.width, self.pooled_width = 7, text_dim\n        self.map",
        "self.width, self.pooled_width, self.takes_pictures = 7, text_dim, True\n        self.map",
    ),
    "conditioner/its_recipe_knows_whether_it_keeps_order": broken(
        "its class should say `keeps_order` itself, as a literal, and in its source it is False, where it is True",
        "self.width, self.pooled_width = 7, text_dim\n        self.map",
        "self.width, self.pooled_width, self.keeps_order = 7, text_dim, True\n        self.map",
    ),
    "conditioner/every_task_has_a_token_to_look_at": broken(
        "the condition of null should have a visible token: attention needs one",
        "expand_as(like.mask) == 0",
        "expand_as(like.mask) < 0",
    ),
    "conditioner/padded_classes_are_ignored": broken(
        "the pooled vectors with three more padded classes: off by ",
        "prompts.texts.sum(1) / prompts.mask.sum(1, keepdim=True)",
        "prompts.texts.mean(1)",
    ),
    "conditioner/tasks_do_not_see_each_other": broken(
        "the condition of task 0 of a batch against the same by itself: off by ",
        "pooled = self._mean(prompts) - self.center",
        "pooled = self._mean(prompts) - self._mean(prompts).mean(0)",
    ),
    "conditioner/tells_tasks_apart": broken(
        "different tasks should have different conditions, and have the same",
        "return Condition(tokens, prompts.mask, pooled)",
        "return Condition(1 + (tokens - tokens.detach())[:, :1], prompts.mask[:, :1], 0 * pooled)",
    ),
    "conditioner/null_says_nothing_of_the_task": broken(
        "the pooled of null for other tasks: off by ", "torch.zeros_like(like.pooled)", "0.5 * like.pooled"
    ),
    "conditioner/one_training_task_is_enough": broken(
        "conditions should be finite when it was fitted to a single task, and are not",
        "self._mean(prompts).mean(0))",
        "self._mean(prompts).sum(0) / (len(prompts.texts) - 1))",
    ),
    "conditioner/pooled_vectors_hang_on_no_parameter": broken(
        "pooled vectors after its parameters changed: off by ",
        "pooled = self._mean(prompts) - self.center",
        "pooled = self._mean(prompts) - self.center + self.nothing.sum()",
    ),
    "conditioner/gradients_reach_every_parameter": broken(
        "no gradient comes to map.weight",
        "tokens = self.map(prompts.texts)",
        "tokens = self.map(prompts.texts).detach()",
    ),
    "conditioner/says_the_same_twice": broken(
        "what it says of tasks, fitted again from the same seed, a second time: off by ",
        "pooled = self._mean(prompts) - self.center",
        "pooled = self._mean(prompts) - self.center + 1e-6 * torch.rand(())",
    ),
    "conditioner/statistics_are_kept_in_its_state": broken(
        "what it says after its state went through a file: off by ",
        'self.register_buffer("center", torch.zeros(text_dim))',
        'self.register_buffer("center", torch.zeros(text_dim), persistent=False)',
    ),
    "conditioner/what_it_drew_from_what_it_was_told_is_enough": broken(
        "Learned gives what it draws from `told`, and cannot recall it",
        "    def fit(self, prompts: Prompts) -> None:\n        self.center.copy_",
        '    def drawn_from_told(self):\n        return {"center": self.center}\n\n'
        "    def fit(self, prompts: Prompts) -> None:\n        self.center.copy_",
    ),
    # ------------------------------------------------------------ predictors
    "predictor/networks_are_shaped_as_tokens": broken(
        "its networks should be of torch.float32, and is of torch.float64",
        "return self.of_zoo(condition) + self.offset",
        "return (self.of_zoo(condition) + self.offset).double()",
    ),
    "predictor/training_starts_at_the_zoo": broken(
        "forward, fresh from fit, against of_zoo: off by 0.1 of the largest value, where 1e-03 would be rounding",
        "return self.of_zoo(condition) + self.offset",
        "return 1.1 * self.of_zoo(condition) + self.offset",
    ),
    "predictor/of_zoo_stays": broken(
        "of_zoo after its parameters changed: off by ",
        "return self.mean.expand(len(condition.pooled), -1, -1)\n\n    def forward",
        "return (self.mean + self.offset.detach()).expand(len(condition.pooled), -1, -1)\n\n    def forward",
    ),
    "predictor/knows_more_than_nothing": broken(
        "of_zoo leaves 100% of a zoo that follows from its tasks",
        "self.mean.copy_(tokens.mean(0))",
        "self.mean.copy_(0 * tokens.mean(0))",
    ),
    "predictor/spread_is_what_of_zoo_leaves": broken(
        "its spread should be the size of what of_zoo leaves (", "/ self.share).sqrt())", "/ self.share).sqrt() * 9)"
    ),
    "predictor/padding_stays_zero": broken(
        "of_zoo should be zero where tokens are padding, and is up to 0.5",
        "self.mean.copy_(tokens.mean(0))",
        "self.mean.copy_(tokens.mean(0) + 0.5)",
    ),
    "predictor/fits_the_same_twice": broken(
        "of_zoo, fitted again from the same seed, a second time: off by ",
        "self.mean.copy_(tokens.mean(0))",
        "self.mean.copy_(tokens.mean(0) + 1e-5 * torch.rand(()))",
    ),
    "predictor/hidden_condition_tokens_do_not_matter": broken(
        "its networks with other padding: off by ",
        "return self.of_zoo(condition) + self.offset",
        "return self.of_zoo(condition) + self.offset * (1 + condition.tokens.sum((1, 2))[:, None, None])",
    ),
    "predictor/predicted_tasks_do_not_see_each_other": broken(
        "the network of task 0 of a batch against the same by itself: off by ",
        "return self.of_zoo(condition) + self.offset",
        "return self.of_zoo(condition) + self.offset * (1 + condition.pooled.mean())",
    ),
    "predictor/gradients_reach_every_weight_of_it": broken(
        "no gradient comes to offset: its output is cut off from it",
        "return self.of_zoo(condition) + self.offset",
        "return self.of_zoo(condition) + self.offset.detach()",
    ),
    "predictor/what_it_fitted_is_kept_in_its_state": broken(
        "what it says after its state went through a file: off by ",
        'self.register_buffer("mean", torch.zeros(layout.mask.shape))',
        'self.register_buffer("mean", torch.zeros(layout.mask.shape), persistent=False)',
    ),
    "predictor/networks_in_parts_are_as_whole": broken(
        "of_zoo for tokens without the others: off by ",
        "self.offset = nn.Parameter(torch.zeros(layout.mask.shape))",
        "self.offset, self.directions = nn.Parameter(torch.zeros(layout.mask.shape)), 1",
        "    def of_zoo(self, condition: Condition) -> Tensor:",
        "    def fit_parts(self, products, condition, held_out, look=None):\n"
        "        return torch.ones(1, len(condition.pooled))\n\n"
        "    def at(self, layout, along):\n"
        "        self.mean, self.offset = 0.5 + 0 * along[0], nn.Parameter(0 * along[0])\n\n"
        "    def of_zoo(self, condition: Condition) -> Tensor:",
    ),
    # ------------------------------------------------------------ denoisers
    "denoiser/output_is_shaped_as_the_tokens": broken(
        "what it returns should be of torch.float32, and is of torch.float64", ".view_as(x)", ".view_as(x).double()"
    ),
    "denoiser/denoises_the_same_twice": broken(
        "what it returns from the same seed, a second time: off by ",
        ".view_as(x)",
        ".view_as(x) + 1e-6 * torch.rand(1)",
    ),
    "denoiser/denoised_networks_do_not_see_each_other": broken(
        "what it returns for network 0 of a batch against the same by itself: off by ",
        "return self.leave(hidden).view_as(x)",
        "return self.leave(hidden - hidden.mean(0)).view_as(x)",
    ),
    "denoiser/padded_condition_tokens_are_ignored": broken(
        "what it returns with other padding in the condition: off by ", " * condition.mask[..., None])", ")"
    ),
    "denoiser/sees_tokens_level_and_condition": broken(
        "what it returns should hang on the level, and does not",
        "level[:, None]], dim=1)",
        "0 * level[:, None]], dim=1)",
    ),
    "denoiser/leaves_its_inputs_alone": broken(
        "the tokens it was given, after it ran: off by 1 of the largest value, and should be the very same",
        "known = torch.cat([x.flatten(1)",
        "known = torch.cat([x.mul_(2).flatten(1)",
    ),
    "denoiser/tokens_in_parts_are_as_together": broken(
        "what it returns for tokens without the others: off by ",
        "    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:\n"
        "        known = torch.cat([x.flatten(1), level[:, None]], dim=1)",
        "    def at(self, layout: TokenLayout) -> None: ...\n\n"
        "    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:\n"
        "        known = torch.cat([level[:, None], x.flatten(1)], dim=1)\n"
        "        known = functional.pad(known, (0, self.enter.in_features - known.shape[1]))",
        "return self.leave(hidden).view_as(x)",
        "return self.leave(hidden)[:, : x[0].numel()].view_as(x)",
    ),
    "denoiser/gradients_reach_all_of_it": broken(
        "no gradient comes to idle.weight",
        "self.leave = nn.Linear(width, layout.mask.numel())",
        "self.leave = nn.Linear(width, layout.mask.numel())\n        self.idle = nn.Linear(2, 2)",
    ),
    "denoiser/its_state_goes_through_a_file": unsaved(
        "self.leave = nn.Linear(width, layout.mask.numel())", "return self.leave(hidden).view_as(x)", ""
    ),
    # ------------------------------------------------------------ discriminators
    "discriminator/one_logit_for_each_network": broken(
        "its logits should have shape (4,), and has (4, 1)",
        "return self.leave(hidden)[:, 0]",
        "return self.leave(hidden)",
    ),
    "discriminator/judges_the_same_twice": broken(
        "its logits from the same seed, a second time: off by ",
        "return self.leave(hidden)[:, 0]",
        "return self.leave(hidden)[:, 0] + 1e-6 * torch.rand(1)",
    ),
    "discriminator/judged_networks_do_not_see_each_other": broken(
        "the logit of network 0 of a batch against the same by itself: off by ",
        "return self.leave(hidden)[:, 0]",
        "return self.leave(hidden - hidden.mean(0))[:, 0]",
    ),
    "discriminator/gradients_reach_it_and_its_tokens": broken(
        "no gradient comes to its tokens", "self.enter(tokens.flatten(1))", "self.enter(tokens.detach().flatten(1))"
    ),
    "discriminator/its_state_is_kept_in_a_file": unsaved(
        "self.leave = nn.Linear(width, 1)", "return self.leave(hidden)[:, 0]", ""
    ),
    # ------------------------------------------------------------ generators
    "generator/loss_is_named_finite_numbers": broken(
        "its loss 'own' should be of torch.float32, and is of torch.float64",
        "(found - pairs.tokens).square().mean()",
        "(found - pairs.tokens).square().mean().double()",
    ),
    "generator/loss_terms_have_names_of_their_own": broken(
        "its loss 'adversarial' has a name that the training keeps for its own", '{"own": ', '{"adversarial": '
    ),
    "generator/loss_follows_the_seed": broken(
        "its loss from the same seed, a second time: off by ",
        "noise = torch.randn(pairs.tokens.shape, generator=rng)",
        "noise = torch.randn(pairs.tokens.shape)",
    ),
    "generator/loss_of_a_batch_is_that_of_its_shares": broken(
        "the mean of its loss over shares of a batch: off by ",
        "(found - pairs.tokens).square().mean()",
        "(found - pairs.tokens).square().sum()",
    ),
    "generator/loss_falls_in_a_few_steps": broken(
        "40 steps of Adam should lower its loss on 16 networks, and take ",
        "(found - pairs.tokens).square().mean()",
        "(2 * found.detach() - found - pairs.tokens).square().mean()",
    ),
    "generator/loss_reaches_all_that_no_task_loss_trains": broken(
        "no gradient comes to idle",
        "self.mean = nn.Parameter(torch.zeros(layout.mask.shape))",
        "self.mean = nn.Parameter(torch.zeros(layout.mask.shape))\n        self.idle = nn.Parameter(torch.ones(2))",
    ),
    "generator/loss_leaves_task_parameters_alone": broken(
        "its loss should leave its task parameters alone, and has a gradient in some",
        "(self.mean.detach() + found)",
        "(self.mean + found)",
    ),
    "generator/a_task_loss_reaches_its_task_parameters": broken(
        "no gradient comes to task parameter 0: its output is cut off from it",
        "return self.mean.expand(len(condition.pooled), -1, -1)\n\n    def predicted",
        "return self.mean.detach().expand(len(condition.pooled), -1, -1)\n\n    def predicted",
    ),
    "generator/what_it_predicts_is_shaped_as_tokens": broken(
        "what it predicts should have shape (",
        "return self.typical(condition)",
        "return self.typical(condition)[0]",
    ),
    "generator/symmetry_loss_is_zero_where_nothing_moves": broken(
        "its symmetry loss should be zero for the identity, and is ",
        "self._clean(pairs.moves.act(noise), 1.0,",
        "self._clean(pairs.moves.act(noise), 0.5,",
    ),
    "generator/estimates_are_networks_with_gradients": broken(
        "no gradient comes from its estimates to its parameters",
        "return self._clean(drawn, noise, pairs.condition)",
        "return self._clean(drawn, noise, pairs.condition).detach()",
    ),
    "generator/networks_of_every_sampler_are_shaped_as_tokens": broken(
        "its networks (sampler None) should be of torch.float32, and is of torch.float64",
        "        return x\n",
        "        return x.double()\n",
    ),
    "generator/an_unknown_sampler_is_told": broken(
        "a sampler that it has not should be a UserError, and it drew all the same",
        "if how.sampler not in (None, *self.samplers):",
        'if how.sampler == "":',
    ),
    "generator/networks_follow_the_seed": broken(
        "its networks from the same seed, a second time: off by ",
        "torch.randn(shape, generator=rng)",
        "torch.randn(shape)",
    ),
    "generator/temperature_zero_draws_nothing": broken(
        "its networks of temperature 0 from another seed (sampler None): off by ",
        "how.temperature * torch.randn(shape",
        "(0.1 + how.temperature) * torch.randn(shape",
    ),
    "generator/tasks_do_not_see_each_other_in_a_draw": broken(
        "the network drawn for task 0 of a batch against the same by itself: off by ",
        "x = self._clean(x, 1.0, condition)",
        "x = self._clean(x - 0.5 * x.mean(0), 1.0, condition)",
    ),
    "generator/drawn_padding_is_zero": broken(
        "its networks should be zero where tokens are padding, and are up to ",
        "return (self.mean.detach() + found) * self.mask",
        "return self.mean.detach() + found",
    ),
    "generator/who_watches_sees_every_step_and_the_end": broken(
        "steps should be counted from 1, and are [0, 1, 2, 3]", "watch(step + 1, x)", "watch(step, x)"
    ),
    "generator/what_it_learnt_is_kept_in_its_state": broken(
        "what it says after its state went through a file: off by ",
        "self.mean.copy_(closed.tokens.mean(0))",
        "self.mean.copy_(closed.tokens.mean(0))\n        self.shift = closed.tokens.mean()",
        "return (self.mean.detach() + found)",
        'return (self.mean.detach() + found + getattr(self, "shift", 0))',
    ),
    # ------------------------------------------------------------ fusions
    "fusion/fused_networks_are_shaped_as_weights": broken(
        "what it makes of three pairs should have shape (3, 62), and has (3, 61)",
        "return middle.lerp(self.base, 0.1)",
        "return middle.lerp(self.base, 0.1)[:, 1:]",
    ),
    "fusion/networks_that_are_fused_stay_as_they_are": broken(
        "the first of the networks it was given, afterwards: off by ",
        "middle = first / 2 + second / 2",
        "middle = first.clamp_(-1, 1) / 2 + second / 2",
    ),
    "fusion/fuses_the_same_twice": broken(
        "what it makes of two networks from the same seed, a second time: off by ",
        "middle = first / 2 + second / 2",
        "middle = first / 2 + second / 2 + 1e-5 * torch.rand(())",
    ),
    "fusion/pairs_do_not_see_each_other": broken(
        "what it makes of pair 0 of a batch against the same by itself: off by ",
        "middle = first / 2 + second / 2",
        "middle = first / 2 + second.mean(0) / 2",
    ),
    "fusion/both_networks_matter": broken(
        "what it makes should hang on the second network, and does not",
        "middle = first / 2 + second / 2",
        "middle = first / 2 + first / 2",
    ),
    # ------------------------------------------------------------ opponents
    "opponent/its_report_knows_what_it_is": broken(
        "`what` should be words, and is ' '",
        'what = "between the mean of the training weights and the nearest of them"',
        'what = " "',
    ),
    "opponent/what_it_chooses_are_numbers": broken(
        "`choose` should give finite numbers by name, for the report, and gave {'share': nan}",
        'return {"share": self.share}',
        'return {"share": float("nan")}',
    ),
    "opponent/networks_are_shaped_as_weights": broken(
        "its networks for 3 tasks should have shape (3, 62), and has (1, 62)",
        "return evidence.weights.mean(0).lerp(nearest, self.share)",
        "return evidence.weights.mean(0).lerp(nearest, self.share)[:1]",
    ),
    "opponent/gives_the_same_twice": broken(
        "its networks from the same evidence, a second time: off by ",
        "return evidence.weights.mean(0).lerp(nearest, self.share)",
        "return evidence.weights.mean(0).lerp(nearest, self.share) + 1e-5 * torch.rand(())",
    ),
    "opponent/goes_by_no_network_of_the_zoo_if_it_says_so": broken(
        "without the zoo's networks it should do as well, and raised ",
        "    place = 35\n",
        "    place = 35\n    from_zoo = False\n",
    ),
    "opponent/evidence_stays_as_it_is": broken(
        "the zoo's weights, afterwards: off by ",
        "nearest = evidence.weights[likeness.argmax(1)]",
        "nearest = evidence.weights.clamp_(-1, 1)[likeness.argmax(1)]",
    ),
    # ------------------------------------------------------------ metrics
    "metric/one_value_for_each_task": broken(
        "what it measures should be of torch.float32, and is of torch.float64", ").float().mean()", ").double().mean()"
    ),
    "metric/measures_the_same_twice": broken(
        "the same outcome measured a second time: off by ",
        ").float().mean()",
        ").float().mean() + 1e-7 * torch.rand(())",
    ),
    "metric/tasks_do_not_see_each_other": broken(
        "what it measures of task 0 by itself: off by 0.67 of the largest value",
        ").float().mean()",
        ").float().mean() * len(outcome.labels)",
    ),
    "metric/it_has_a_name_and_a_direction": broken(
        "its name should be that of a report's column, and is ''", 'name = "errors"', 'name = ""'
    ),
    "metric/oracles_are_better_than_noise": broken(
        "lower is better, it says, and gives 1 to the oracle's networks and 0 to noise",
        "(predicted != true)",
        "(predicted == true)",
    ),
    # ------------------------------------------------------------ importers
    "importer/says_what_it_takes": broken(
        "takes should say what such a folder holds, and is ''", 'takes = "files of numbers (.numbers)"', 'takes = ""'
    ),
    "importer/recognises_its_example_and_no_strangers": broken(
        "it recognises a folder of a picture and a README",
        'return any(folder.glob("*.numbers"))',
        "return any(folder.iterdir())",
    ),
    "importer/networks_are_named_and_described": broken(
        "of network 'cat', neither texts nor classes are known", "Description(texts=(file.stem,))", "Description()"
    ),
    "importer/networks_are_alike_and_read_the_same_twice": broken(
        "its spec is of other tensors: ", '(WeightEntry("w", (2,)', '(WeightEntry("v", (2,)'
    ),
    # ------------------------------------------------------------ exporters
    "exporter/says_what_it_writes": broken(
        "suffix should be that of its files, or empty where it makes a folder, and is 'pt2'", '".pt2"', '"pt2"'
    ),
    "exporter/answers_as_the_classifier": broken(
        "in float32 its probabilities are off by ", ").detach().numpy()", ").detach().flip(1).numpy()"
    ),
    "exporter/makes_one_file_or_folder": broken(
        "it should make made.pt2 alone, and makes notes.txt beside it",
        'with out.open("wb") as file:',
        'out.with_name("notes.txt").touch()\n        with out.open("wb") as file:',
    ),
    # ------------------------------------------------------------ trackers
    "tracker/takes_what_a_run_gives": broken(
        "flush should say whether all is kept, True or False, and says None",
        "return self.file.flush() is None",
        "return self.file.flush()",
    ),
    "tracker/goes_on_after_an_interruption": broken(
        "goes on after an interruption: it raised FileExistsError: ", '.txt").open("a")', '.txt").open("x")'
    ),
    "tracker/draws_no_random_numbers": broken(
        "torch's random state after a run was tracked: off by ",
        'print(f"{phase} {step}: {values}"',
        'print(f"{phase} {step}: {values} {torch.rand(())}"',
    ),
    # ------------------------------------------------------------ engines
    "engine/does_every_piece": broken(
        "of 20 pieces, each should be answered for once with what came of it, and answers are [(0, ",
        "reversed(range(len(pieces)))",
        "[*range(len(pieces)), *range(len(pieces) > 1)]",
    ),
    "engine/raises_what_a_piece_raises": broken(
        "an error in a piece should be raised here, and the answers are [(0, '')]",
        "yield number, do(pieces[number])",
        'yield number, do(pieces[number]) if "/" in pieces[number] else ""',
    ),
}
"""Kind/law -> what breaks it. Every law is here once or more: a test says so."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """tests/lawful.py with changes, as a module of its own, and a registry of its components."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"lawful_{tmp_path.name}"

    def call(changes: tuple[tuple[str, str], ...] = ()) -> Registry:
        source = SOURCE
        for old, new in changes:
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        examples = importlib.import_module(name).EXAMPLES
        registry = Registry()
        registry.add(
            *(Component(kind, "lawful", f"{name}:{made}", "lawful", given) for kind, (made, given) in examples.items())
        )
        return registry

    yield call
    sys.modules.pop(name, None)


def failing(registry: Registry, kind: str) -> dict[str, str]:
    """Law -> what is said of it, where it does not hold."""
    said = {}
    for case in cases_of(registry.get(kind, "lawful"), registry):
        try:
            case.run()
        except AssertionError as error:
            said[case.name.partition("-")[2]] = str(error)
        except Unbuilt:
            continue
    return said


@pytest.mark.parametrize("kind", KINDS)
def test_a_correct_component_passes_every_check(made: Made, kind: str) -> None:
    registry = made()
    found = cases_of(registry.get(kind, "lawful"), registry)
    assert len(found) == len(CHECKS[kind]) >= 6
    for case in found:
        case.run()


@pytest.mark.slow
@pytest.mark.parametrize("law", BROKEN)
def test_a_check_fails_for_what_breaks_it_and_no_other_does(made: Made, tmp_path: Path, law: str) -> None:
    kind, _, name = law.partition("/")
    said = failing(made(BROKEN[law].changes), kind)
    assert list(said) == [name], said
    (file,) = tmp_path.glob("*.py")
    expected = f"{kind} 'lawful': {BROKEN[law].said.replace('{file}', str(file))}"
    expected = expected.replace("{file.name}", file.name).replace("{folder}", str(scratch()))
    assert said[name].startswith(expected) and "\n" not in said[name]


def test_a_symmetry_term_is_for_batches_that_ask_for_it(made: Made) -> None:
    unasked = (
        (
            "(found - pairs.tokens).square().mean()}",
            '(found - pairs.tokens).square().mean(), "symmetry": 0 * found.mean()}',
        ),
    )
    assert failing(made(unasked), "generator")["loss_terms_have_names_of_their_own"] == (
        "generator 'lawful': its loss has the term 'symmetry' for a batch without moves, which asks for none"
    )


def test_a_code_learns_by_terms_with_names_of_their_own(made: Made) -> None:
    lossy = (
        (
            "class Rows(Tokenizer):",
            "class Rows(Tokenizer):\n    lossy = True\n    def loss(self, weights, rng):\n"
            '        return {"gradient": weights.mean()}\n',
        ),
    )
    assert failing(made(lossy), "tokenizer")["a_code_is_learnt_from_networks"] == (
        "tokenizer 'lawful': its loss 'gradient' has a name that the training keeps for its own"
    )


def test_every_check_has_something_that_breaks_it() -> None:
    shown = {
        check for law in BROKEN for check in CHECKS[law.split("/")[0]] if check.__name__.endswith(law.split("/")[1])
    }
    assert {check.__name__ for checks in CHECKS.values() for check in checks if check not in shown} == set()
    assert len(shown) > 90


def test_a_component_that_cannot_be_built_is_told_once(made: Made) -> None:
    """Its other checks do not apply, and say so: none of them passes."""
    registry = made(BROKEN["denoiser/builds_from_its_example"].changes)
    outcomes = [outcome(case) for case in cases_of(registry.get("denoiser", "lawful"), registry)]
    assert outcomes.count("failed") == 1 and outcomes.count("passed") == 4  # what is read from source
    assert outcomes.count("does not apply") == len(outcomes) - 5 > 7


def outcome(case: Case) -> str:
    try:
        case.run()
    except AssertionError:
        return "failed"
    except Unbuilt:
        return "does not apply"
    return "passed"


# ---------------------------------------------------------------- plugins

METRICS = """import wspace
from wspace.api import Metric, Outcome
{imports}

@wspace.hookimpl
def wspace_register(register):
    for name, target in {targets}.items():
        register("metric", name, target)


class Wrong(Metric):
    \"\"\"Share of a task's images that are named wrong.\"\"\"

    name = "wrong"
    higher_is_better = {higher}

    def measure(self, outcome: Outcome):
        import torch

        pairs = zip(outcome.predictions, outcome.labels, strict=True)
        return torch.stack([(predicted != true).float().mean() for predicted, true in pairs])
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend that these modules, name -> source, are the plugins that are installed."""
    monkeypatch.delenv("WSPACE_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def call(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        entries = [EntryPoint(name.removeprefix("plug_"), name, "wspace") for name in sources]
        monkeypatch.setattr(plugins, "entry_points", lambda group: entries)

    yield call
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


def metrics(module: str, **changes: str) -> str:
    given = {"imports": "", "targets": f"{{'wrong': '{module}:Wrong'}}", "higher": "False"} | changes
    return METRICS.format(**given)


def test_all_components_of_a_plugin_are_checked_and_no_others(install: Callable[..., None]) -> None:
    install(plug_mine=metrics("plug_mine"))
    names = [case.name for case in cases("mine")]
    assert names[0] == "plugin/mine-registration_is_light"
    assert names[1:] == [f"metric/wrong-{check.__name__.removeprefix('check_')}" for check in CHECKS["metric"]]
    every = [case.name for case in cases()]
    assert set(names) < set(every) and "plugin/wspace-registration_is_light" in every
    assert {name.partition("/")[0] for name in every} == {"plugin", *KINDS} - {"discriminator"}  # no built-in one
    for case in cases("mine")[1:]:
        case.run()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_package_at_all", "plugin 'bad' cannot be used: ModuleNotFoundError: No module named 'no_such"),
        ("x = 1", "plugin 'bad' cannot be used: PluginValidationError: plugin 'bad' registers nothing"),
    ],
)
def test_a_plugin_that_is_broken_or_offers_nothing_fails(install: Callable[..., None], source: str, said: str) -> None:
    install(plug_bad=source)
    (case,) = cases("bad")
    with pytest.raises(Unlawful) as caught:
        case.run()
    assert str(caught.value).startswith(said)
    assert "plugin/bad" in [case.name for case in cases()]


def test_a_plugin_that_is_not_there_fails_with_those_that_are(install: Callable[..., None]) -> None:
    install(plug_mine=metrics("plug_mine"))
    (case,) = cases("mien")
    with pytest.raises(Unlawful) as caught:
        case.run()
    assert str(caught.value) == "no plugin 'mien' is in use here. Did you mean 'mine'? Known: mine, wspace"


def test_what_needs_a_package_that_is_not_here_is_no_failure(install: Callable[..., None], tmp_path: Path) -> None:
    install(plug_mine=metrics("plug_mine", targets="{'wrong': 'plug_lacking:Wrong'}"))
    (tmp_path / "plug_lacking.py").write_text(metrics("plug_lacking", imports="import no_such_package_at_all"))
    with pytest.raises(MissingPackage) as caught:
        next(case for case in cases("mine") if case.name == "metric/wrong-builds_from_its_example").run()
    assert str(caught.value) == (
        "metric 'wrong' of plugin 'mine' needs the package 'no_such_package_at_all', which is not installed"
    )


@pytest.mark.slow
def test_pytest_says_a_sentence_for_each_broken_law_and_what_it_skipped(tmp_path: Path) -> None:
    """A line in a plugin's tests, and `--pyargs`: of all components there are, those that are quick."""
    targets = "{'good': 'mine:Wrong', 'bad': 'worse:Wrong', 'lacking': 'lacking:Wrong'}"
    (tmp_path / "mine.py").write_text(metrics("mine", targets=targets))
    (tmp_path / "worse.py").write_text(metrics("worse", higher="True"))
    (tmp_path / "lacking.py").write_text(metrics("lacking", imports="import no_such_package_at_all"))
    (tmp_path / "test_mine.py").write_text(
        "from wspace.testing import conformance\n\ntest_conformance = conformance('mine.py')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--pyargs",
        "wspace.testing",
        "test_mine.py",
    ]
    done = subprocess.run(
        [*command, "-k", "metric or wspace-registration"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    laws = len(CHECKS["metric"])
    read = 3  # laws that hold or not by the source alone
    built_in = 2 * laws + 1  # two metrics, and the plugin
    mine = laws + (laws - 1) + read  # a good one, one that breaks a law, one that cannot be built here
    assert f"1 failed, {built_in + mine} passed, {laws - read} skipped" in done.stdout, done.stdout + done.stderr
    assert "metric 'bad': higher is better, it says, and gives 0 to the oracle's networks and 1 to noise" in done.stdout
    assert "def test_conformance" not in done.stdout and "During handling" not in done.stdout
    assert "metric 'lacking' of plugin 'mine' needs the package 'no_such_package_at_all', which is not" in done.stdout
