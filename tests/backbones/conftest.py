"""Weights that make every parameter and statistic count."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Give batch norms statistics and parameters other than 0 and 1, in place; eval mode."""

    def apply(module: nn.Module) -> nn.Module:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean, std=0.2)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.2)
        return module.eval()

    return apply


@pytest.fixture
def untrained_classifier() -> Callable[[nn.Module], nn.Module]:
    """Fill a VGG's classifier with NaN, as in IMAGENET1K_FEATURES, in place; eval mode."""

    def apply(module: nn.Module) -> nn.Module:
        for parameter in module.get_submodule("classifier").parameters():
            nn.init.constant_(parameter, torch.nan)
        return module.eval()

    return apply
