"""Plain values to a localizer (ResNet appendix C)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from backbones import Preprocessing, freeze_batch_norm, load_weights
from backbones.catalogue import build
from detection.model.anchors import AnchorGenerator, paper_anchors
from detection.model.localization import LocalizationRPN, Localizer


@dataclass(frozen=True)
class LocalizerSpec:
    """What a localizer is made of, in plain values; what the paper leaves open says so.

    Attributes:
        backbone: a name of `backbones.catalogue`; the paper's is ResNet-101.
        options: of the network, as its function takes them, all but ``num_classes``.
        feature: the map that the RPN slides over. Open: ``c4``, of stride 16, is that of
            appendix A; ``c5`` uses the whole network at stride 32.
        batch_norm: ``frozen`` is an affine map, folded into its convolution; ``trained`` is for
            training from scratch. Open: appendix A freezes it to save memory.
        frozen_stages: stages that do not train. Open: none are frozen.
        anchor_sizes: square roots of the anchors' areas, pixels. Open: those of COCO (section
            4.3 of Faster R-CNN) without 512, of which a 224 crop shows a fifth.
        anchor_ratios: height divided by width.
        rpn_width: channels of the RPN's 3x3 convolution.
        merge: IoU from which on boxes vote for the best one's place; None does without. Open.
    """

    backbone: str = "resnet101"
    options: dict[str, Any] | None = None
    feature: Literal["c4", "c5"] = "c4"
    batch_norm: Literal["frozen", "trained"] = "frozen"
    frozen_stages: int = 0
    anchor_sizes: tuple[int, ...] = (64, 128, 256)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_width: int = 512
    merge: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """Returns the values as JSON has them, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> LocalizerSpec:
        """Makes a spec from what `to_plain` returned, JSON's lists for its tuples included.

        Raises:
            TypeError: if a value is unknown.
        """
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **tuples})


def build_localizer(
    classes: int,
    spec: LocalizerSpec = LocalizerSpec(),
    *,
    weights: str | None = None,
    fresh: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
) -> Localizer:
    """Builds a localizer, its memory laid out channels last.

    Args:
        classes: K.
        spec: what it is made of.
        weights: classification weights of the backbone, as `backbones.load_weights` takes them;
            random if None.
        fresh: prefixes of layers that the weights may lack; the last classification layer they may
            always lack or have for other classes.
        preprocessing: what the weights expect of an image; what the loaded weights say, if None.

    Returns:
        The localizer, in training mode.

    Raises:
        ValueError: if a name is unknown, or values do not go together.
    """
    try:
        network = build(spec.backbone, **(spec.options or {}))
    except TypeError as error:  # an option that the network does not have
        raise ValueError(f"backbone {spec.backbone}: {error}") from error
    if weights is not None:
        load_weights(network, weights, fresh=(*fresh, network.head))
    if spec.batch_norm == "frozen":
        freeze_batch_norm(network)
    network.freeze(spec.frozen_stages)
    trunk = network.trunk([spec.feature])
    features = {feature.name: feature for feature in network.feature_info}
    _, channels, stride = features[spec.feature]
    cell = paper_anchors(spec.anchor_sizes, spec.anchor_ratios, stride)
    rpn = LocalizationRPN(channels, AnchorGenerator([cell], [stride]), classes, spec.rpn_width)
    localizer = Localizer(trunk, rpn, preprocessing or network.preprocessing, spec.merge)
    return localizer.to(memory_format=torch.channels_last)
