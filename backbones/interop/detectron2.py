"""Our networks as Detectron2 backbones.

From a configuration, before it is merged with files and built:

    configure(cfg, "resnet50", weights="IMAGENET1K_V1")

or in Python, as ``model.backbone`` of a lazy configuration or ``bottom_up`` of its ``FPN``:

    DetectronBackbone(network, ["res3", "res4", "res5"])

Importing this module puts ``build_resdet_backbone`` in ``BACKBONE_REGISTRY``.
"""

from collections.abc import Iterable
from math import isclose
from typing import Any

import torch
from torch import Tensor

from backbones import base, catalogue
from backbones.normalization import freeze_batch_norm
from backbones.preprocessing import Preprocessing
from backbones.resnet import ResNet
from backbones.weights import expected_preprocessing, load_weights

try:
    from detectron2.config import CfgNode
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, Backbone
except ImportError as error:
    raise ImportError(
        "backbones.interop.detectron2 needs Detectron2: "
        "https://detectron2.readthedocs.io/tutorials/install.html"
    ) from error


class DetectronBackbone(Backbone):  # type: ignore[misc]
    """A network's layers up to the deepest of some features.

    Images may have any size, so ``size_divisibility`` and ``padding_constraints`` stay
    Detectron2's own "none".

    Args:
        network: whose layers, shared; freeze and load weights before.
        out_features: which maps to return, by Detectron2's names: "res2" … "res5" for ResNets,
            "c2" … "c5" for others. All by default.

    Raises:
        ValueError: the network has no such feature.
    """

    def __init__(self, network: base.Backbone, out_features: Iterable[str] | None = None) -> None:
        super().__init__()
        stem = "res" if isinstance(network, ResNet) else "c"
        known = {f"{stem}{feature.name[1:]}": feature for feature in network.feature_info}
        names = list(known if out_features is None else out_features)
        if not names or not set(names) <= known.keys():
            raise ValueError(f"expected features among {list(known)}, got {names}")
        self._shapes = {
            name: ShapeSpec(channels=known[name].channels, stride=known[name].stride)
            for name in names
        }
        self.trunk = network.trunk([known[name].name for name in names])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float32 -> one (B, channels, H / stride, W / stride) float32 a feature."""
        return dict(zip(self._shapes, self.trunk(images), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature."""
        return dict(self._shapes)


def configure(cfg: CfgNode, network: str, weights: str = "", **options: Any) -> None:
    """Make a configuration use one of our networks, with images as it expects them.

    Sets ``MODEL.BACKBONE.NAME``, ``MODEL.RESDET``, ``INPUT.FORMAT``, ``MODEL.PIXEL_MEAN`` and
    ``MODEL.PIXEL_STD``. As for Detectron2's own, ``MODEL.RESNETS.OUT_FEATURES`` says which
    features are returned, ``MODEL.BACKBONE.FREEZE_AT`` how many stages are frozen, and
    ``MODEL.RESNETS.NORM`` whether batch norms are ("FrozenBN") or not ("BN").

    Args:
        cfg: changed in place.
        network: a name of ``backbones.catalogue``.
        weights: classification weights, as for ``backbones.load_weights``; none by default.
        options: the network's own options, plain values.

    Raises:
        ValueError: the network or the weights are unknown.
        TypeError: the network has no such option.
        OSError: the weights cannot be opened.
    """
    with torch.device("meta"):
        built = catalogue.build(network, **options)
    preprocessing = expected_preprocessing(built, weights) if weights else built.preprocessing
    cfg.MODEL.BACKBONE.NAME = build_resdet_backbone.__name__
    cfg.MODEL.RESDET = CfgNode(
        {"NETWORK": network, "WEIGHTS": weights, "OPTIONS": CfgNode(options, new_allowed=True)}
    )
    cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = _pixels(preprocessing)


def build_resdet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> DetectronBackbone:
    """Build what ``configure`` wrote down.

    Args:
        cfg: the configuration.
        input_shape: of the images; 3 channels.

    Returns:
        The backbone, in training mode.

    Raises:
        ValueError: ``configure`` was not called, a value does not fit, or the weights expect
            other images than the configuration gives.
        OSError: the weights cannot be opened.
    """
    if "RESDET" not in cfg.MODEL:
        raise ValueError(
            "expected cfg.MODEL.RESDET; backbones.interop.detectron2.configure sets it"
        )
    if input_shape.channels != 3:
        raise ValueError(f"expected images of 3 channels, got {input_shape.channels}")
    norm = cfg.MODEL.RESNETS.NORM
    if norm not in ("FrozenBN", "BN"):
        raise ValueError(f"expected MODEL.RESNETS.NORM FrozenBN or BN, got {norm!r}")
    ours = cfg.MODEL.RESDET
    network = catalogue.build(ours.NETWORK, **ours.OPTIONS)
    if ours.WEIGHTS:
        load_weights(network, ours.WEIGHTS, fresh=[network.head.split(".")[0]])
    _check_pixels(cfg, network.preprocessing)
    network.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
    if norm == "FrozenBN":
        freeze_batch_norm(network)
    return DetectronBackbone(network, cfg.MODEL.RESNETS.OUT_FEATURES)


BACKBONE_REGISTRY.register(build_resdet_backbone)


def _pixels(preprocessing: Preprocessing) -> tuple[str, list[float], list[float]]:
    """INPUT.FORMAT, and mean and deviation of values from 0 to 255."""
    order, scale, mean, std = preprocessing
    return order.upper(), [value / scale for value in mean], [value / scale for value in std]


def _check_pixels(cfg: CfgNode, preprocessing: Preprocessing) -> None:
    expected = _pixels(preprocessing)
    got = cfg.INPUT.FORMAT, list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)
    numbers = zip(expected[1] + expected[2], got[1] + got[2], strict=True)
    if got[0] != expected[0] or not all(isclose(a, b, rel_tol=1e-3) for a, b in numbers):
        raise ValueError(
            "the weights expect other images: expected INPUT.FORMAT, MODEL.PIXEL_MEAN and "
            f"MODEL.PIXEL_STD {expected}, got {got}"
        )
