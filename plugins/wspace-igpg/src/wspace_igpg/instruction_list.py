"""An instruction whose classes have places: for targets whose outputs stand for a task's classes in its order."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from wspace.api import Prompts, Target, UserError, WeightSpec
from wspace_igpg.instruction_set import InstructionSet

PLACED = 0.3  # size of a place's vector at the beginning, near that of a class's


class InstructionList(InstructionSet):
    """An `instruction` that says at which place each class is: to its token comes a vector of the place.

    The pooled vector has the text at each place, one after the other, in the place of their mean.

    places: as many as the target has outputs, if not given; all members of a joint recipe need as many.
    """

    version: ClassVar[int] = 1
    asks: ClassVar[bool] = True
    keeps_order: ClassVar[bool] = True
    called: ClassVar[str] = "conditioner 'instruction-list'"

    def __init__(
        self,
        width: Annotated[int, Ge(1)] = 128,
        places: Annotated[int, Ge(1)] | None = None,
        *,
        spec: WeightSpec,
        text_dim: int,
        target: Target,
    ):
        self.places = places or target.places
        if not self.places:
            raise UserError(
                f"{self.called}: this target's outputs stand for no classes in order, so there are no places "
                "to tell: name instruction"
            )
        if self.places < target.places:
            raise UserError(f"{self.called}: it has {self.places} places, and the target outputs for {target.places}")
        super().__init__(width, spec=spec, text_dim=text_dim)
        self.of_place = nn.Parameter(torch.randn(self.places, width) * PLACED)

    def _pooled_width(self, text_dim: int) -> int:
        return (self.places + 1) * text_dim + 1

    def _pool(self, prompts: Prompts) -> Tensor:
        words = self._words().expand(len(prompts.mask), -1)
        return torch.cat([prompts.in_places(self.places), 1 / prompts.count(), words], dim=1)

    def _classes(self, tokens: Tensor) -> Tensor:
        most = tokens.shape[1]  # padding included, which has no places
        return tokens + functional.pad(self.of_place, (0, 0, 0, max(0, most - self.places)))[:most]
