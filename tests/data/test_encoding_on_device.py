"""Pictures encoded on a device that is not the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.support.pretended import DEVICE, pretended
from wspace.data.encoders.frozen import ImageEncoder, freeze


def encoder(device: torch.device) -> ImageEncoder:
    torch.manual_seed(0)
    network = freeze(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), device)
    return ImageEncoder(network, (0.5,) * 3, (0.25,) * 3, None, 2, "float32", device)


def test_features_come_from_the_device_once_for_all_batches_of_a_call() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    waited = []
    with pretended():
        encode = encoder(DEVICE)
    for count in (2, 6):
        with pretended() as counts:
            features = encode(pixels[:count])
        waited.append(counts.waited)
    assert waited == [1, 1]
    torch.testing.assert_close(features, encoder(torch.device("cpu"))(pixels))
