"""Our networks as backbones of Hugging Face's detectors, by ``AutoBackbone``.

    config = DetrConfig(backbone_config=BackboneConfig("resnet50"))
    detector = DetrForObjectDetection(config)
    preprocessing = load_backbone_weights(detector, "IMAGENET1K_V1")
    processor = image_processor(DetrImageProcessor, preprocessing)

The same goes for Conditional and Deformable DETR, RT-DETR, Mask2Former and every other model with
a ``backbone_config``. Importing this module tells transformers of the two classes; import it
before ``from_pretrained`` of a detector that was saved with such a backbone.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from backbones import catalogue
from backbones.base import Backbone
from backbones.normalization import freeze_batch_norm
from backbones.preprocessing import Preprocessing
from backbones.weights import Weights, load_weights

try:
    from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
    from transformers.backbone_utils import (
        BackboneConfigMixin,
        BackboneMixin,
        filter_output_hidden_states,
    )
    from transformers.modeling_outputs import BackboneOutput
    from transformers.utils.generic import can_return_tuple
except ImportError as error:
    raise ImportError(
        "backbones.interop.huggingface needs: pip install 'resdet[interop]'"
    ) from error


class BackboneConfig(BackboneConfigMixin, PreTrainedConfig):  # type: ignore[misc]
    """Plain values from which a network is built, as in a detector's config.json.

    Args:
        network: a name of ``backbones.catalogue``.
        options: the network's own options, plain values such as ``{"stride_in_1x1": True}``.
        frozen_stages: how many stages from the image on are constants (``Backbone.freeze``). The
            papers and DETR freeze conv1 and conv2_x: 2.
        frozen_batch_norm: whether all batch norms are constants and folded into convolutions, as
            in the papers. DETR, Deformable DETR and, by default, RT-DETR freeze those that are
            left.
        out_features: which maps to return, names of the network's ``feature_info`` in its order,
            "c2" … "c5"; the last by default. DETR reads the last, Mask2Former all four.
        out_indices: the same as positions in ``feature_info``.
        more: what every ``PreTrainedConfig`` takes.

    Raises:
        ValueError: the network, a stage or a feature is unknown.
        TypeError: the network has no such option.
    """

    # DETR freezes every layer of a backbone whose type contains "resnet".
    model_type = "resdet_backbone"

    def __init__(
        self,
        network: str = "resnet50",
        options: dict[str, Any] | None = None,
        frozen_stages: int = 2,
        frozen_batch_norm: bool = True,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
        **more: Any,
    ) -> None:
        self.network = network
        self.options = dict(options or {})
        self.frozen_stages = frozen_stages
        self.frozen_batch_norm = frozen_batch_norm
        with torch.device("meta"):
            self.stage_names = [feature.name for feature in self.build().feature_info]
        super().__init__(**{**more, "stage_names": self.stage_names})
        self.set_output_features_output_indices(out_features, out_indices)

    def build(self) -> Backbone:
        """Build the network, its stages and batch norms frozen as the values say."""
        network = catalogue.build(self.network, **self.options)
        network.freeze(self.frozen_stages)
        if self.frozen_batch_norm:
            freeze_batch_norm(network)
        return network


class HuggingFaceBackbone(BackboneMixin, PreTrainedModel):  # type: ignore[misc]
    """A network's layers up to the deepest of ``config.out_features``.

    Args:
        config: what to build; the deepest out feature stays the deepest.
    """

    config_class = BackboneConfig
    config: BackboneConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    has_attentions = False
    # Frozen batch norms have no counter; saved from the one kind, loaded into the other.
    _keys_to_ignore_on_load_unexpected = (r"trunk\..*num_batches_tracked$",)
    _keys_to_ignore_on_load_missing = (r"trunk\..*num_batches_tracked$",)

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        network = config.build()
        self.num_features = [feature.channels for feature in network.feature_info]
        self.trunk = _trunk(config, network)
        self._constants = [
            name for name, value in self.trunk.named_parameters() if not value.requires_grad
        ]
        # from_pretrained builds on the meta device and then puts what it finds in place.
        self._loading = next(self.trunk.parameters()).is_meta
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    @filter_output_hidden_states  # type: ignore[untyped-decorator]
    def forward(self, pixel_values: Tensor, **_: Any) -> BackboneOutput:
        """Compute the feature maps.

        Args:
            pixel_values: (B, 3, H, W) float32, normalised by the network's ``preprocessing``.

        Returns:
            feature_maps: one (B, channels, H / stride, W / stride) float32 per out feature.
            hidden_states: where asked for, the same of every feature down to the deepest.
        """
        maps = dict(zip(self.stage_names, self.trunk(pixel_values), strict=False))
        return BackboneOutput(
            feature_maps=tuple(maps[name] for name in self.out_features),
            hidden_states=tuple(maps.values()),
        )

    def train(self, mode: bool = True) -> Self:
        """Set the mode; ``from_pretrained``, which ends with it, forgot what is frozen."""
        super().train(mode)
        if self._loading and not next(self.trunk.parameters()).is_meta:
            self._loading = False
            for name in self._constants:
                self.trunk.get_parameter(name).requires_grad_(False)
        return self

    @torch.no_grad()
    def _init_weights(self, _: nn.Module) -> None:
        """Give what a checkpoint lacks the network's own initialisation; overwrite nothing."""
        if not self._loading:
            return
        lacking = {
            name: tensor
            for name, tensor in self.trunk.state_dict(keep_vars=True).items()
            if not getattr(tensor, "_is_hf_initialized", False)
        }
        if lacking:
            fresh = _trunk(self.config, self.config.build()).state_dict()
            for name, tensor in lacking.items():
                tensor.copy_(fresh[name])
                tensor._is_hf_initialized = True


AutoConfig.register(BackboneConfig.model_type, BackboneConfig, exist_ok=True)
AutoBackbone.register(BackboneConfig, HuggingFaceBackbone, exist_ok=True)


def load_backbone_weights(model: nn.Module, source: str | Path | Weights) -> Preprocessing:
    """Load classification weights into a model's backbone, all of them or none.

    Args:
        model: a ``HuggingFaceBackbone`` or a detector with one.
        source: as for ``backbones.load_weights``; the classifier's weights are left out.

    Returns:
        What the weights expect of an image, for ``image_processor``.

    Raises:
        ValueError: the model has no such backbone or several, or the weights do not fit.
        OSError: the file or the address cannot be opened.
    """
    found = [module for module in model.modules() if isinstance(module, HuggingFaceBackbone)]
    if len(found) != 1:
        raise ValueError(f"expected a model with one HuggingFaceBackbone, got {len(found)}")
    (backbone,) = found
    network = backbone.config.build()
    load_weights(network, source, fresh=[network.head.split(".")[0]])
    values = _trunk(backbone.config, network).state_dict()
    # By name: some detectors have put batch norms of their own in the place of the network's.
    backbone.trunk.load_state_dict({name: values[name] for name in backbone.trunk.state_dict()})
    return network.preprocessing


def image_processor(kind: type[Any], preprocessing: Preprocessing, **options: Any) -> Any:
    """Make a detector's image processor normalise as the backbone's weights expect.

    Args:
        kind: the detector's image processor class, such as ``DetrImageProcessor``.
        preprocessing: what the weights expect.
        options: the processor's other options, such as ``size``.

    Returns:
        The processor.

    Raises:
        ValueError: the weights expect BGR.
    """
    if preprocessing.order != "rgb":
        raise ValueError(
            "expected weights that read RGB: transformers' image processors for detection give "
            f"RGB and cannot flip channels, got {preprocessing}"
        )
    return kind(
        do_rescale=True,
        rescale_factor=preprocessing.scale,
        do_normalize=True,
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
        **options,
    )


def _trunk(config: BackboneConfig, network: Backbone) -> nn.Module:
    """The layers up to the deepest out feature; all features on the way are returned."""
    return network.trunk(
        config.stage_names[: config.stage_names.index(config.out_features[-1]) + 1]
    )
