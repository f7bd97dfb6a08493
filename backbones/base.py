"""What every classification network offers to the parts built on it."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from torch import Tensor, nn

from backbones.normalization import freeze_batch_norm
from backbones.preprocessing import Preprocessing


class Feature(NamedTuple):
    """One of a network's feature maps.

    Attributes:
        name: "c2" … "c5".
        channels: number of channels.
        stride: pixels of the image per cell of the map.
    """

    name: str
    channels: int
    stride: int


class Backbone(nn.Module, ABC):
    """A classification network with named feature maps.

    Attributes:
        feature_info: the maps that ``forward`` returns, in its order.
        stages: the names of the layers with parameters, by stage, from the image on: stage 1 is
            conv1 (ResNet) or conv1_1–conv1_2 (VGG), stage 2 is conv2_x, and so on.
        head: the name of the last classification layer.
        preprocessing: what the images must look like.
        architecture: torchvision's name of the network, None where it has none.
    """

    feature_info: tuple[Feature, ...]
    stages: tuple[tuple[str, ...], ...]
    head: str

    def __init__(self, preprocessing: Preprocessing, architecture: str | None) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.architecture = architecture

    @abstractmethod
    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the feature maps.

        Args:
            images: (B, 3, H, W) float32, normalised by ``preprocessing``.

        Returns:
            One (B, channels, H / stride, W / stride) float32 per entry of ``feature_info``.
        """

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: (B, 3, H, W) float32, normalised by ``preprocessing``.

        Returns:
            (B, num_classes) float32, before the softmax.
        """

    @abstractmethod
    def trunk(self, names: Sequence[str]) -> nn.Module:
        """The layers up to the deepest of some features, shared and under the same names.

        Args:
            names: which features, by name.

        Returns:
            A module: (B, 3, H, W) float32 images -> list of those features, in that order.

        Raises:
            ValueError: a name is not in ``feature_info``.
        """

    def freeze(self, stages: int) -> None:
        """Make the first stages constants: no gradients, batch norms frozen, in place.

        Freeze before cutting. The papers freeze conv1 and conv2_x: 2 stages, for both ResNet and
        VGG (Faster R-CNN section 3.3; Fast R-CNN section 4.5).

        Args:
            stages: how many, 0 … ``len(self.stages)``.

        Raises:
            ValueError: ``stages`` is out of range.
        """
        if not 0 <= stages <= len(self.stages):
            raise ValueError(f"expected 0 … {len(self.stages)} stages to freeze, got {stages}")
        for name in chain.from_iterable(self.stages[:stages]):
            layer = freeze_batch_norm(self.get_submodule(name))
            self.set_submodule(name, layer.requires_grad_(False))

    def _indices(self, names: Sequence[str]) -> list[int]:
        """Positions of features in ``feature_info``."""
        known = [feature.name for feature in self.feature_info]
        if not names or not set(names) <= set(known):
            raise ValueError(f"expected features among {known}, got {list(names)}")
        return [known.index(name) for name in names]
