"""Our networks in timm: after ``register()``, ``timm.create_model("resdet_resnet50")`` and so on.

``features_only=True`` gives the maps under timm's indices: 0 is conv1 (ResNet, stride 2) or
conv1_2 (VGG, stride 1), 1 … 4 are c2 … c5, and VGG has its last pool as 5. Images are RGB in
0 … 1, normalised by the mean and std of ``pretrained_cfg``; networks that read BGR flip the
channels themselves.
"""

import sys
from collections.abc import Callable
from typing import Any

import torchvision.models
from torch import nn

from backbones.catalogue import IMAGENET, build
from backbones.interop.timm_model import TimmModel
from backbones.interop.torchvision import normalisation
from backbones.preprocessing import Preprocessing
from backbones.weights import load_weights

PREFIX = "resdet_"
default_cfgs: dict[str, Any] = {}
"""What timm reads of a model while it is registered."""


def register() -> None:
    """Let ``timm.create_model`` know our networks for ImageNet, as resdet_resnet50 and so on.

    They take the network's options, ``num_classes``, ``features_only`` and ``out_indices``.
    ``pretrained=True`` loads torchvision's weights, or with a tag such as
    "resdet_resnet50.IMAGENET1K_V2" those, or ``pretrained_cfg_overlay={"file": …}``; see
    ``load_weights``.

    Raises:
        ImportError: timm is not installed.
    """
    try:
        from timm.models import generate_default_cfgs, is_model, register_model  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("backbones.interop.timm needs: pip install 'resdet[interop]'") from error
    for name in IMAGENET:
        title = PREFIX + name
        if not is_model(title):
            default_cfgs.update(generate_default_cfgs(_configurations(name)))
            setattr(sys.modules[__name__], title, register_model(_entry(name)))


def _entry(name: str) -> Callable[..., nn.Module]:
    def create(**options: Any) -> nn.Module:
        return _create(name, **options)

    create.__name__ = create.__qualname__ = PREFIX + name
    return create


def _create(
    name: str,
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    from timm.models import build_model_with_cfg, resolve_pretrained_cfg  # noqa: PLC0415

    title, overlay = PREFIX + name, pretrained_cfg_overlay or {}
    config = resolve_pretrained_cfg(title, pretrained_cfg, overlay)
    options = {key: value for key, value in options.items() if value is not None}
    timms = ("features_only", "out_indices", "feature_cls")
    wanted = {key: options.pop(key) for key in timms if key in options}
    if (channels := options.pop("in_chans", config.input_size[0])) != 3:
        raise ValueError(f"{title} reads images of 3 channels, got in_chans={channels}")
    num_classes = options.pop("num_classes", config.num_classes)
    global_pool = options.pop("global_pool", "avg")
    known = config.num_classes if pretrained or num_classes == 0 else num_classes
    network = build(name, num_classes=known, **options)
    if pretrained:
        head = network.head.split(".")[0]
        load_weights(
            network, _source(title, config, overlay), [head] if wanted.get("features_only") else []
        )
    model = TimmModel(network)
    if (num_classes, global_pool) != (known, "avg"):
        model.reset_classifier(num_classes, global_pool)
    built: nn.Module = build_model_with_cfg(
        lambda **_: model,
        title,
        pretrained=False,
        pretrained_cfg=config.to_dict() | _statistics(network.preprocessing),
        feature_cfg={"feature_cls": "getter"},
        **wanted,
    )
    return built


def _source(title: str, config: Any, overlay: dict[str, Any]) -> str:
    """What ``load_weights`` is to load."""
    source = overlay.get("file") or overlay.get("url") or config.tag
    if source is None or overlay.keys() & {"state_dict", "hf_hub_id"}:
        raise ValueError(
            f"{title}: expected pretrained=False, a tag of torchvision's weights if it has any, or "
            'pretrained_cfg_overlay={"file": …} or {"url": …}; '
            f"got tag {config.tag!r} and overlay {sorted(overlay)}"
        )
    return str(source)


def _configurations(name: str) -> dict[str, dict[str, Any]]:
    """How timm describes a network, once for each of torchvision's weights."""
    network, title = build(name, width=1), PREFIX + name
    common = {
        "input_size": (3, 224, 224),
        "interpolation": "bilinear",
        "classifier": f"network.{network.head}",
        **_statistics(network.preprocessing),
    }
    if network.architecture is None:
        return {title: common}
    found = {}
    for entry in torchvision.models.get_model_weights(network.architecture):
        look = entry.transforms()
        found[f"{title}.{entry.name}"] = common | {
            "url": entry.url,
            "mean": tuple(look.mean),
            "std": tuple(look.std),
            "crop_pct": look.crop_size[0] / look.resize_size[0],
        }
    return found


def _statistics(preprocessing: Preprocessing) -> dict[str, tuple[float, ...]]:
    statistics = normalisation(preprocessing)
    return {
        "mean": tuple(statistics["image_mean"]),
        "std": tuple(statistics["image_std"]),
    }
