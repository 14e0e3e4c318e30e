"""Classes at their places in feature space: by their images, by their words, or by both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional

from wspace.components.conditioners.text_set import TextSet
from wspace.interfaces import Prompts, Target, Told
from wspace.learning.prototypes import FeatureSpace, Spread, WordsToPoints


class ClassPrototypes(TextSet):
    """Says what `text-set` does; and starts from the network of linear discriminant analysis, every class at its place.

    Words place a class, by kernel ridge from the texts of the run's classes to their mean whitened features (`width` of the
    Gaussian kernel, `penalty`). So a class that the run knows is near the mean of its own images, and not at it: of few
    drawings that mean is worth less. Pictures that a prompt brings move the class towards their mean: far in directions where
    words place the known classes badly, little where they place them well. `words` is by how much they are trusted more than
    that says. Places are then brought to one length: words that say little would leave a class near the centre, to which every
    image is near. Unlabelled pictures that a prompt brings say where that centre is, for such as they.
    """

    version: ClassVar[int] = 2
    asks: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True
    looks_at: ClassVar[Literal["pictures", "features"]] = "features"

    def __init__(
        self,
        width: Annotated[float, Gt(0)] = 0.5,
        penalty: Annotated[float, Gt(0)] = 1.0,
        words: Annotated[float, Gt(0)] = 2.0,
        *,
        text_dim: int,
        target: Target,
    ):
        super().__init__(text_dim=text_dim)
        self.kernel_width, self.penalty, self.words, self.target = width, penalty, words, target
        self.space: FeatureSpace | None = None

    def told(self, what: Told) -> None:
        assert what.means is not None and what.within is not None, "it looks at features"
        self.space = FeatureSpace.around(what.means, what.within)
        self.of_words = WordsToPoints.fit(what.texts, self.space.points, self.kernel_width, self.penalty)

    def drawn_from_told(self) -> dict[str, Tensor]:
        """The fit from words to places, and what it leaves open: of thousands of classes they take seconds.

        What LAPACK gives lies in memory column by column, as the rounding of what follows does, and a file row by row.
        """
        assert self.space is not None, "told comes first"
        words = self.of_words
        return {
            "centre": self.space.centre,
            "whiten transposed": self.space.whiten.mT,
            "texts": words.texts,
            "shared": words.shared,
            "coefficients transposed": words.coefficients.mT,
            "length": torch.tensor(words.length, dtype=torch.float64),
            "axes transposed": words.left_open.axes.mT,
            "variances": words.left_open.variances,
        }

    def recall(self, drawn: Mapping[str, Tensor]) -> None:
        centre, whiten = drawn["centre"], drawn["whiten transposed"].mT
        self.space = FeatureSpace(centre, whiten, points=centre.new_empty(0, len(centre)))  # words have been fitted
        texts, shared, coefficients = drawn["texts"], drawn["shared"], drawn["coefficients transposed"].mT
        length, left_open = float(drawn["length"]), Spread(drawn["axes transposed"].mT, drawn["variances"])
        self.of_words = WordsToPoints(texts, shared, coefficients, self.kernel_width, self.penalty, length, left_open)

    def places(self, prompts: Prompts) -> Tensor:
        """Of each class of B tasks, whitened: (B, K, F)."""
        assert self.space is not None, "told comes first"
        places = self.of_words(prompts.texts)
        if prompts.pictures is not None and prompts.shots is not None:
            pictures = prompts.pictures
            if prompts.centre is not None:
                pictures = pictures - (prompts.centre - self.space.centre)[:, None]
            places = self.of_words.left_open.posterior(places, self.space(pictures), prompts.shots, self.words)
        return self.of_words.length * functional.normalize(places, dim=2)

    @torch.no_grad()
    def starting_networks(self, prompts: Prompts) -> Tensor:
        """On the CPU, where its small decompositions are fastest. Raises UserError for a target without `from_linear`."""
        assert self.space is not None, "told comes first"
        device, prompts = prompts.texts.device, prompts.to(torch.device("cpu"))
        scorers, bias = self.space.linear(self.places(prompts), prompts.mask, self.target.linear_rank)
        if prompts.centre is not None:
            bias = bias + (scorers @ (self.space.centre - prompts.centre)[..., None])[..., 0]
        return self.target.from_linear(scorers, bias, prompts.texts, prompts.mask).to(device)
