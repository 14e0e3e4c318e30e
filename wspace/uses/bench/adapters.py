"""Loading generated LoRA adapters and switching between them: by wspace, and by PEFT."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from wspace.components.targets.lora import Lora
from wspace.interfaces import Target
from wspace.runs.run import Run
