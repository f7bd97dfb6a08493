"""What an image must look like for the weights that read it."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Triple = tuple[float, float, float]


class Preprocessing(NamedTuple):
    """From a uint8 value x to what the network was trained on: ``(x * scale - mean) / std``.

    Attributes:
        order: the channel order the network expects.
        scale: what a uint8 value is multiplied by, 1/255 or 1.
        mean: one mean per channel, in ``order``, in units of scaled values.
        std: one standard deviation per channel, in ``order``, in units of scaled values.
    """

    order: Literal["rgb", "bgr"]
    scale: float
    mean: Triple
    std: Triple

    def affine(self) -> tuple[Tensor, Tensor]:
        """The same map as one multiplication and one addition, ``x * scale + shift``.

        It applies after RGB channels were flipped to ``order``.

        Returns:
            scale: (3,) float32, one factor per channel, in ``order``.
            shift: (3,) float32, one summand per channel, in ``order``.
        """
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        return (self.scale / std).float(), (-mean / std).float()


IMAGENET_RGB = Preprocessing("rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's and timm's ImageNet weights."""

CAFFE_BGR = Preprocessing("bgr", 1.0, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
"""The papers' Caffe weights and Detectron's."""

CIFAR_RGB = Preprocessing("rgb", 1 / 255, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""CIFAR-10's own statistics. Differs from the paper: it subtracts a mean per pixel."""
