"""Exact batch-norm statistics: averages over images, not moving averages over training steps."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

_Norm = nn.BatchNorm2d | nn.SyncBatchNorm


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every batch norm's statistics to true averages over images, in place.

    "After pre-training, we compute the BN statistics (means and variances) for each layer on the
    ImageNet training set" (ResNet appendix A), and then freeze: frozen batch norms are left alone
    here. During the pass each layer normalises by its own batch's statistics, as in training.
    Nothing else changes, be it parameters, momentum, gradients or a layer's mode (dropout's too);
    where this raises, the statistics stay as well.

    The variance is the pooled one, E[x²] − E[x]² over all that reaches the layer. A batch counts
    by what it holds, and the spread between batches is included: conv1's statistics do not depend
    on how the images are batched. (The average of the batches' variances, as by torch's
    ``momentum=None`` and Ioffe and Szegedy's algorithm 2, misses that spread.) It is the
    population's, without their n / (n − 1), because training divides by that one: after a single
    batch, eval mode repeats training mode exactly.

    Args:
        network: called with each batch; in one process.
        batches: (B, 3, H, W) float32 each, normalised by the network's preprocessing, on its
            device. Deeper layers see activations normalised by batch, which approach those of
            eval mode as B grows.

    Raises:
        ValueError: there are no batches or no batch norms with statistics, no batch reached a
            batch norm, or what reached it was not finite.
    """
    norms = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, _Norm) and layer.track_running_stats
    }
    if not norms:
        raise ValueError("expected batch norms with running statistics, not frozen; got none")
    count = 0
    with ExitStack() as stack:
        moments = [stack.enter_context(_observed(layer, name)) for name, layer in norms.items()]
        for images in batches:
            network(images)
            count += 1
    if not count:
        raise ValueError("expected at least one batch of images, got none")
    estimates = [moment.mean_and_variance() for moment in moments]
    for layer, (mean, variance) in zip(norms.values(), estimates, strict=True):
        layer.get_buffer("running_mean").copy_(mean)
        layer.get_buffer("running_var").copy_(variance)
        layer.get_buffer("num_batches_tracked").fill_(count)


class _Moments:
    """Sums per channel over all that reaches a layer."""

    def __init__(self, name: str, like: Tensor) -> None:
        self.name = name
        self.count = 0
        self.sums = torch.zeros_like(like, dtype=torch.float64)
        self.squares = torch.zeros_like(self.sums)

    def add(self, _layer: nn.Module, inputs: tuple[Tensor]) -> None:
        """Forward pre-hook; the input is (B, C, H, W) float."""
        x = inputs[0].double()
        self.count += x.numel() // x.shape[1]
        self.sums += x.sum((0, 2, 3))
        self.squares += x.square().sum((0, 2, 3))
        if not self.squares.isfinite().all():
            raise ValueError(f"expected finite activations, got NaN or infinity before {self.name}")

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """(C,) float64 each."""
        if not self.count:
            raise ValueError(f"expected batches to reach every batch norm, none did {self.name}")
        mean = self.sums / self.count
        return mean, (self.squares / self.count - mean.square()).clamp(min=0)


@contextmanager
def _observed(layer: _Norm, name: str) -> Iterator[_Moments]:
    """What reaches a batch norm, while it normalises by its batches and keeps its statistics."""
    moments = _Moments(name, layer.get_buffer("running_mean"))
    hook = layer.register_forward_pre_hook(moments.add)
    training, layer.training = layer.training, True
    layer.track_running_stats = False
    try:
        yield moments
    finally:
        hook.remove()
        layer.training, layer.track_running_stats = training, True
