"""What two networks learned since they parted, added to where they parted."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from wspace.interfaces import Fusion


class TaskArithmetic(Fusion):
    """base + scale · ((first - base) + (second - base)) (Ilharco et al., 2023, section 4.2).

    They choose the scale on held-out images; without any, 0.4 is advised (Yadav et al., 2023, section 5).
    """

    def __init__(self, scale: Annotated[float, Gt(0)] = 0.4, *, base: Tensor):
        self.scale, self.base = scale, base

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        return self.base + self.scale * ((first - self.base) + (second - self.base))
