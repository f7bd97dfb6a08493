"""How strongly the layers of a network respond (ResNet section 4.2, Fig. 7).

"The responses are the outputs of each 3×3 layer, after BN and before other nonlinearity
(ReLU/addition)." Residual functions are closer to zero than plain ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from backbones.base import Backbone


class Response(NamedTuple):
    """Of a layer.

    Attributes:
        name: of the batch norm after the convolution.
        std: standard deviation of its outputs, over all images, channels and cells.
    """

    name: str
    std: float


class _Responses:
    """Sums over the outputs of batch norms that follow a 3×3 convolution, in order of depth."""

    def __init__(self) -> None:
        self.after_3x3 = False
        self.moments: dict[str, Tensor] = {}

    def convolved(self, layer: nn.Module, *_: object) -> None:
        """Forward hook of a convolution."""
        self.after_3x3 = isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)

    def normalised(self, name: str, output: Tensor) -> None:
        """Forward hook of a batch norm; the ReLU after it may work in place."""
        if self.after_3x3:
            x = output.double()
            moments = torch.stack([torch.ones_like(x).sum(), x.sum(), x.square().sum()])
            self.moments[name] = self.moments.get(name, 0) + moments.cpu()
        self.after_3x3 = False


@torch.no_grad()
def layer_responses(network: Backbone, batches: Iterable[Tensor]) -> list[Response]:
    """Measure the responses in evaluation mode; the network's mode is as before at the end.

    Args:
        network: with batch norms that are not frozen, for those have no outputs of their own.
        batches: (B, 3, H, W) float32 each, normalised by the network's preprocessing, on its
            device.

    Returns:
        Of each 3×3 layer, from the image on.

    Raises:
        ValueError: there are no batches, or no batch norm follows a 3×3 convolution.
    """
    found, training = _Responses(), network.training
    with ExitStack() as stack:
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d):
                hook = layer.register_forward_hook(found.convolved)
            elif isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
                hook = layer.register_forward_hook(
                    lambda _layer, _inputs, output, name=name: found.normalised(name, output)
                )
            else:
                continue
            stack.callback(hook.remove)
        stack.callback(network.train, training)
        network.eval()
        for images in batches:
            network(images)
    if not found.moments:
        raise ValueError("expected batches of images, and batch norms after 3×3 convolutions")
    return [Response(name, _std(moments)) for name, moments in found.moments.items()]


def draw_responses(networks: Mapping[str, Sequence[Response]], path: Path) -> None:
    """Draw standard deviations as in Fig. 7: by depth, and sorted; plain networks dashed.

    Args:
        networks: name of each network, and its responses.
        path: an .svg or .png file, written.

    Raises:
        ValueError: the format is unknown.
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_depth, by_size = figure.subplots(1, 2, sharey=True)
    for name, responses in networks.items():
        deviations = [response.std for response in responses]
        style = "--" if "plain" in name else "-"
        by_depth.plot(range(1, len(deviations) + 1), deviations, style, label=name)
        by_size.plot(range(1, len(deviations) + 1), sorted(deviations, reverse=True), style)
    by_depth.set(xlabel="layer, from the image on", ylabel="standard deviation of the response")
    by_size.set(xlabel="layer, sorted by its response")
    by_depth.legend()
    for ax in (by_depth, by_size):
        ax.grid(alpha=0.3)
    figure.savefig(path)


def _std(moments: Tensor) -> float:
    count, total, squares = moments.tolist()
    return float(max(squares / count - (total / count) ** 2, 0.0) ** 0.5)
