"""Our networks as MMDetection backbones.

    custom_imports = dict(imports=["backbones.interop.mmdetection"])
    model = dict(backbone=dict(type="ResdetBackbone", network="resnet50", frozen_stages=1, …), …)

Importing this module puts ``ResdetBackbone`` in ``mmdet.registry.MODELS``.
"""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones import catalogue
from backbones.preprocessing import Preprocessing
from backbones.weights import load_weights

try:
    from mmdet.registry import MODELS
    from mmengine.model import BaseModule
except ImportError as error:
    raise ImportError(
        "backbones.interop.mmdetection needs MMDetection: "
        "https://mmdetection.readthedocs.io/en/latest/get_started.html"
    ) from error


class ResdetBackbone(BaseModule):  # type: ignore[misc]
    """A network's layers up to the deepest of some stages, with the switches of mmdet's ResNet.

    Args:
        network: a name of ``backbones.catalogue``.
        out_indices: which stages' maps to return, in this order; 0 is c2.
        frozen_stages: the last stage that is frozen: 0 is conv1 alone, 1 conv1 and conv2_x, −1
            none. Frozen stages have no gradients and constant batch norms.
        norm_eval: whether the batch norms that are left keep their statistics in training; their
            weights and biases learn.
        weights: classification weights, as for ``backbones.load_weights``.
        init_cfg: mmengine's; ``dict(type="Pretrained", checkpoint=…)`` reads files with
            torchvision's names.
        options: the network's own options.

    Attributes:
        preprocessing: what the weights expect of an image.

    Raises:
        ValueError: the network or a stage is unknown, or the weights do not fit.
        TypeError: the network has no such option.
        OSError: the weights cannot be opened.
    """

    def __init__(
        self,
        network: str = "resnet50",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = True,
        weights: str | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(init_cfg)
        built = catalogue.build(network, **options)
        if weights is not None:
            load_weights(built, weights, fresh=[built.head.split(".")[0]])
        count = len(built.feature_info)
        if not out_indices or not set(out_indices) <= set(range(count)):
            raise ValueError(f"expected out_indices among 0 … {count - 1}, got {out_indices}")
        if not -1 <= frozen_stages < len(built.stages):
            raise ValueError(
                f"expected frozen_stages among -1 … {len(built.stages) - 1}, got {frozen_stages}"
            )
        built.freeze(frozen_stages + 1)
        self.norm_eval = norm_eval
        self.preprocessing = built.preprocessing
        self.trunk = built.trunk([built.feature_info[i].name for i in out_indices])
        self.register_load_state_dict_pre_hook(_accept_plain_names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 -> one (B, channels, H / stride, W / stride) float32 a stage."""
        return tuple(self.trunk(images))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but, with ``norm_eval``, the batch norms."""
        super().train(mode)
        if mode and self.norm_eval:
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self


MODELS.register_module(module=ResdetBackbone)


def data_preprocessor(preprocessing: Preprocessing, **options: Any) -> dict[str, Any]:
    """What a detector's ``data_preprocessor`` must be for some weights.

    Args:
        preprocessing: what the weights expect.
        options: its other values, such as ``pad_size_divisor``.

    Returns:
        The configuration of a ``DetDataPreprocessor`` for images in BGR, as MMDetection reads
        them.
    """
    order, scale, mean, std = preprocessing
    return {
        "type": "DetDataPreprocessor",
        "mean": [value / scale for value in mean],
        "std": [value / scale for value in std],
        "bgr_to_rgb": order == "rgb",
        **options,
    }


def _accept_plain_names(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Checkpoints of classifiers call the trunk's layers by their own names."""
    own = dict(module.get_submodule("trunk").named_children())
    for name in [name for name in state_dict if name.startswith(prefix)]:
        plain = name.removeprefix(prefix)
        if plain.split(".")[0] in own:
            state_dict[f"{prefix}trunk.{plain}"] = state_dict.pop(name)
