"""A network as timm's code uses its models; ``backbones.interop.timm`` makes them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Feature
from backbones.normalization import conv_norm
from backbones.vgg import VGG


class TimmModel(nn.Module):
    """A classification network with the methods and attributes of timm's models.

    Args:
        network: a ``ResNet`` with a max-pool, or a ``VGG``; its layers are shared.

    Attributes:
        feature_info: timm's list of the maps: num_chs, reduction, module.
        num_classes: outputs of the classifier; 0 without one.
        num_features: channels of ``forward_features``.
        head_hidden_size: length of the vector that the classifier reads.
    """

    in_chans = 3

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network
        self.flip = network.preprocessing.order == "bgr"
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": feature.channels, "reduction": feature.stride, "module": feature.name}
            for feature in _maps(network)
        ]
        self.num_features = network.feature_info[-1].channels
        self.num_classes, self.head_hidden_size = network.get_parameter(
            f"{network.head}.weight"
        ).shape
        self.global_pool = "avg"

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32 -> (B, num_classes) float32, before the softmax."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32 -> the last map, (B, num_features, H_l, W_l) float32."""
        return self._walk(x, [])[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Classify, or stop before the classifier.

        Args:
            x: (B, num_features, H_l, W_l) float32, from ``forward_features``.
            pre_logits: whether to leave the classifier out.

        Returns:
            (B, num_classes) float32; (B, head_hidden_size) float32 without classifier; the
            map itself where ``reset_classifier`` removed the pooling.
        """
        if not self.global_pool:
            return x
        x = torch.flatten(self.network.get_submodule("avgpool")(x), 1)
        if isinstance(self.network, VGG):
            for layer in self.network.classifier[:-1]:
                x = layer(x)
        scores: Tensor = x if pre_logits else self.get_classifier()(x)
        return scores

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute feature maps; the signature is timm's.

        Args:
            x: (B, 3, H, W) float32.
            indices: which maps, in ``feature_info``; an int is the last so many, None all.
            norm: without effect, because these networks have no last norm.
            stop_early: whether the layers after the last map are left out.
            output_fmt: must be "NCHW".
            intermediates_only: whether the last layer's output is left out.

        Returns:
            The last layer's output, unless left out, and one (B, num_chs, H_l, W_l) float32 per
            index, shallowest first.

        Raises:
            ValueError: ``output_fmt`` is another.
        """
        del norm
        if output_fmt != "NCHW":
            raise ValueError(f"expected output_fmt NCHW, got {output_fmt}")
        names = [self.feature_info[i]["module"] for i in self._indices(indices)]
        last, maps = self._walk(x, names, stop_early)
        return maps if intermediates_only else (last, maps)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the layers that some maps do not need; the signature is timm's.

        Args:
            indices: which maps, as in ``forward_intermediates``.
            prune_norm: without effect.
            prune_head: whether the head goes, too; it always does when a stage goes.

        Returns:
            The indices, from the first map.
        """
        del prune_norm
        kept = self._indices(indices)
        last = self.feature_info[max(kept)]
        names = [name for name, _ in _layers(self.network)]
        unused = names[names.index(last["module"].removeprefix("network.")) + 1 :]
        if unused or prune_head:
            unused += [n for n, x in self.network.named_modules() if isinstance(x, nn.Linear)]
            self.num_features = self.head_hidden_size = last["num_chs"]
            self.num_classes = 0
        for name in unused:
            self.network.set_submodule(name, nn.Identity())
        return kept

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.network.get_submodule(self.network.head)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh last layer in place.

        Args:
            num_classes: its outputs; 0 for none, and ``head_hidden_size`` outputs.
            global_pool: "avg", the network's own; "" without a head, for the last map; as it is
                when None.

        Raises:
            ValueError: another pooling, or no pooling with a classifier.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool != "avg" and (pool or num_classes):
            raise ValueError(
                f"expected global_pool 'avg', or '' with num_classes=0, "
                f"got {pool!r} with num_classes={num_classes}"
            )
        layer: nn.Module = nn.Identity()
        if num_classes:
            like = next(self.parameters())
            layer = nn.Linear(
                self.head_hidden_size, num_classes, device=like.device, dtype=like.dtype
            )
        self.network.set_submodule(self.network.head, layer)
        self.num_classes, self.global_pool = num_classes, pool

    def _indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """From the first map, of an int (the last so many), of negative ones or of all."""
        count = len(self.feature_info)
        if indices is None or isinstance(indices, int):
            indices = range(-(count if indices is None else indices), 0)
        if not indices or not set(indices) <= set(range(-count, count)):
            raise ValueError(f"expected feature indices from 0 to {count - 1}, got {[*indices]}")
        return [index % count for index in indices]

    def _walk(
        self, x: Tensor, names: Sequence[str], stop_early: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The last output, and those of some layers."""
        x = x.flip(1) if self.flip else x
        maps: list[Tensor] = []
        steps = _layers(self.network)
        for name, layer in steps:
            if stop_early and len(maps) == len(set(names)):
                break
            if isinstance(layer, nn.Conv2d):
                name, after = next(steps)  # noqa: PLW2901
                x = conv_norm(x, layer, after)
            else:
                x = layer(x)
            if f"network.{name}" in names:
                maps.append(x)
        return x, maps


def _layers(network: Backbone) -> Iterator[tuple[str, nn.Module]]:
    """The layers before the head, in the order they run, every convolution with its next."""
    for name, layer in network.named_children():
        if name == "avgpool":
            return
        if isinstance(network, VGG):
            yield from ((f"{name}.{i}", x) for i, x in layer.named_children())
        else:
            yield name, layer


def _maps(network: Backbone) -> list[Feature]:
    """The maps that timm counts, by the layer that gives them."""
    features = network.feature_info
    first = next(x for _, x in _layers(network) if isinstance(x, nn.Conv2d))
    if isinstance(network, VGG):
        *_, (pool, _) = _layers(network)
        names = [*(stage[-1] for stage in network.stages), pool]
        features = (*features, Feature("", features[-1].channels, 2 * features[-1].stride))
    else:
        names = ["relu", *(f"layer{i + 1}" for i in range(len(features)))]
    features = (Feature("", first.out_channels, first.stride[0]), *features)
    return [
        feature._replace(name=f"network.{name}")
        for name, feature in zip(names, features, strict=True)
    ]
