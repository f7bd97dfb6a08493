"""Classification of images from several views, and the errors that the papers report."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.vgg import VGG

TOP = 5
FC6_SIDE = 7
"""Side of the map that VGG's fc6 sees, cells."""


class Errors(NamedTuple):
    """The share of images whose class is not among the best guesses.

    Attributes:
        top1: %, one guess.
        top5: %, five guesses; 0 where there are no more classes.
        images: how many were tested.
    """

    top1: float
    top5: float
    images: int


def normalise(network: Backbone, images: Tensor) -> Tensor:
    """Turn bytes into what a network expects.

    Args:
        network: whose ``preprocessing``.
        images: (B, 3, H, W) uint8, RGB.

    Returns:
        (B, 3, H, W), of the network's dtype, channels last in memory.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    if network.preprocessing.order == "bgr":
        images = images.flip(1)
    scale, shift = (one.to(images.device).view(3, 1, 1) for one in network.preprocessing.affine())
    return (images * scale + shift).to(next(network.parameters()).dtype)


def count_errors(scores: Tensor, labels: Tensor) -> Tensor:
    """Count wrong guesses.

    Args:
        scores: (B, K) float.
        labels: (B,) int64.

    Returns:
        (3,) int64: images whose class is not the best guess, not among the best five, and images.
    """
    guesses = scores.topk(min(TOP, scores.shape[1])).indices
    hits = guesses == labels[:, None]
    counts = [(~hits[:, 0]).sum(), (~hits.any(1)).sum(), torch.tensor(len(labels))]
    return torch.stack([count.to(labels.device) for count in counts])


def dense_scores(network: Backbone, images: Tensor) -> Tensor:
    """Classify images of any size, the classifier applied at each position and averaged.

    In a ResNet this is the ordinary forward pass: the average over the map and the linear ``fc``
    commute, so pooling first gives the average of the scores at all positions. In a VGG fc6 is a
    7×7 convolution over the map, fc7 and fc8 are 1×1 convolutions, and their scores are averaged
    (Simonyan and Zisserman, section 3.2); images below 224 pixels pass as ``logits`` has them.

    Args:
        network: any; in evaluation mode.
        images: (B, 3, H, W) float32, normalised.

    Returns:
        (B, num_classes) float32, before the softmax.
    """
    if not isinstance(network, VGG):
        return network.logits(images)
    x: Tensor = network.features(images)
    if min(x.shape[2:]) < FC6_SIDE:
        return network.logits(images)
    for layer in network.classifier:
        if isinstance(layer, nn.Linear):
            kernel = 1 if layer.in_features == x.shape[1] else FC6_SIDE
            weight = layer.weight.view(-1, x.shape[1], kernel, kernel)
            x = F.conv2d(x, weight, layer.bias)
        else:
            x = layer(x)
    return x.mean((2, 3))


def predict(network: Backbone, views: Sequence[Tensor]) -> Tensor:
    """Average the class probabilities over all views.

    Args:
        network: any; in evaluation mode.
        views: one (B, V, 3, H, W) uint8, RGB, for each size.

    Returns:
        (B, num_classes) float32.
    """
    sizes = []
    for view in views:
        scores = dense_scores(network, normalise(network, view.flatten(0, 1)))
        sizes.append(scores.float().softmax(1).view(*view.shape[:2], -1).mean(1))
    return torch.stack(sizes).mean(0)


@torch.inference_mode()
def measure_errors(network: Backbone, batches: Iterable[tuple[Sequence[Tensor], Tensor]]) -> Errors:
    """Classify all images of a loader; the network's mode is as before at the end.

    Args:
        network: any; its device is where the images go.
        batches: views as ``predict`` takes them, and labels (B,) int64.

    Returns:
        The errors.

    Raises:
        ValueError: there are no images.
    """
    device, training = next(network.parameters()).device, network.training
    total = torch.zeros(3, dtype=torch.int64)
    network.eval()
    try:
        for views, labels in batches:
            scores = predict(network, [view.to(device) for view in views])
            total += count_errors(scores, labels.to(device)).cpu()
    finally:
        network.train(training)
    return errors(total)


def errors(counts: Tensor) -> Errors:
    """Turn counts, as ``count_errors`` gives them, into percentages.

    Raises:
        ValueError: there are no images.
    """
    top1, top5, images = counts.tolist()
    if not images:
        raise ValueError("expected at least one image to test, got none")
    return Errors(100 * top1 / images, 100 * top5 / images, int(images))
