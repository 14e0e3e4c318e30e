"""An instruction: the task's classes, some of its images, and the architecture in words and layer by layer."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.api import PICTURE, Condition, Conditioner, Prompts, Told, UserError, WeightSpec, spread_of
from wspace_igpg.layer_tokens import DESCRIBED, described

CLASS, PICTURES, WORDS, LAYER = range(4)  # what a condition token is about
SAME = 0.999  # cosine of two texts above which they are of one class


class InstructionSet(Conditioner):
    """A token for each class of the task, one for its images, one for the architecture's text, one for each of its tensors.

    Images are those of classes that the zoo knows; of another class there is the text, and of all tasks the data set's images.
    They are a set (Zaheer et al., 2017): each through the same two layers, then their mean. Tensors are told by kind, shape
    and place in the network. The pooled vector is the mean class text, 1/k for k classes, and the architecture's text.
    """

    version: ClassVar[int] = 1
    asks: ClassVar[bool] = True
    called: ClassVar[str] = "conditioner 'instruction'"

    def __init__(self, width: Annotated[int, Ge(1)] = 128, *, spec: WeightSpec, text_dim: int):
        super().__init__()
        self.width, self.pooled_width = width, self._pooled_width(text_dim)
        self.of_text, self.of_words = nn.Linear(text_dim, width), nn.Linear(text_dim, width)
        self.of_picture = nn.Sequential(nn.Linear(PICTURE, width), nn.GELU(), nn.Linear(width, width))
        self.of_layer = nn.Sequential(nn.Linear(DESCRIBED, width), nn.GELU(), nn.Linear(width, width))
        self.about = nn.Parameter(torch.randn(4, width) * 0.02)
        self.layers: Tensor
        self.center: Tensor
        self.pooled_mean: Tensor
        self.pooled_std: Tensor
        self.register_buffer("layers", described(spec), persistent=False)  # (tensors, DESCRIBED)
        self.known: Tensor  # (n, T)
        self.pictures: Tensor  # (n, S, PICTURE)
        self.architecture: Tensor | None  # (T,)
        for name in ("known", "pictures", "architecture"):
            self.register_buffer(name, None, persistent=False)
        self.register_buffer("center", torch.zeros(text_dim))
        self.register_buffer("pooled_mean", torch.zeros(self.pooled_width))
        self.register_buffer("pooled_std", torch.ones(self.pooled_width))

    def fit(self, prompts: Prompts) -> None:
        self.center.copy_(prompts.texts[prompts.mask].mean(0))
        pooled = self._pool(prompts)
        self.pooled_mean.copy_(pooled.mean(0))
        self.pooled_std.copy_(spread_of(pooled))

    def told(self, what: Told) -> None:
        """Raises UserError if there is no image to look at."""
        if not what.pictures.numel():
            raise UserError(f"{self.called} looks at a few training images of each class, and the data set has none")
        device = self.center.device
        self.known, self.pictures = what.texts.to(device), what.pictures.to(device)
        self.architecture = what.architecture.to(device)

    def _shown(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Of each class the vector of its images (B, K, width), and whether there are any (B, K, 1)."""
        likeness = prompts.texts @ self.known.T  # (B, K, n); rows of unit length
        best, index = likeness.max(2)
        seen = (best > SAME) & prompts.mask
        each = self.of_picture(self.pictures).mean(1)  # (n, width)
        return torch.where(seen[..., None], each[index], 0), seen[..., None]

    def _words(self) -> Tensor:
        """The architecture's text (T,). Raises UserError if it was not told."""
        if self.architecture is None:
            raise UserError(f"{self.called} was told neither of a data set nor of an architecture")
        return self.architecture

    def _pooled_width(self, text_dim: int) -> int:
        return 2 * text_dim + 1

    def _pool(self, prompts: Prompts) -> Tensor:
        words = self._words().expand(len(prompts.mask), -1)
        return torch.cat([prompts.mean_text(), 1 / prompts.count(), words], dim=1)

    def _classes(self, tokens: Tensor) -> Tensor:
        """Tokens of a task's classes (B, K, width), as they are to be seen."""
        return tokens

    def forward(self, prompts: Prompts) -> Condition:
        about = self._words()
        shown, size = prompts.mask[..., None], len(self.center) ** 0.5
        centered = torch.where(shown, prompts.texts - self.center, 0) * size  # (B, K, T), values near one
        each, seen = self._shown(prompts)
        of_set = self.of_picture(self.pictures).mean((0, 1))  # (width,)
        pictures = each.sum(1) / seen.sum(1).clamp_min(1) + of_set  # (B, width)
        layers = self.of_layer(self.layers).expand(len(pictures), -1, -1)  # (B, tensors, width)
        words = self.of_words(about * size).expand_as(pictures)
        tokens = torch.cat(
            [
                torch.where(shown, self._classes(self.of_text(centered) + each + self.about[CLASS]), 0),
                (pictures + self.about[PICTURES])[:, None],
                (words + self.about[WORDS])[:, None],
                layers + self.about[LAYER],
            ],
            dim=1,
        )
        others = prompts.mask.new_ones(len(tokens), tokens.shape[1] - prompts.mask.shape[1])
        mask = torch.cat([prompts.mask, others], dim=1)
        pooled = (self._pool(prompts) - self.pooled_mean) / self.pooled_std
        return Condition(tokens, mask, pooled, classes=prompts.mask.shape[1])

    def null(self, like: Condition) -> Condition:
        """Nothing of the task: zero tokens, of which the first is kept so that attention has something to look at."""
        mask = torch.zeros_like(like.mask)
        mask[:, 0] = True
        return Condition(torch.zeros_like(like.tokens), mask, torch.zeros_like(like.pooled))
