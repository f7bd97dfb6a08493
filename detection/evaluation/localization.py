"""Localization errors of ImageNet's task (ResNet appendix C, Tables 13 and 14).

Shape shorthand:
    I: images     C: guesses of an image, best first     G: objects of an image

A guess is a class and a box. It is right if the class is the image's, and the box overlaps one of
the objects by an IoU of at least 0.5.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.overlaps import Boxes, overlapping_pairs

IOU = 0.5


def right_guesses(
    labels: NDArray[np.int64],
    boxes: NDArray[np.floating],
    true_labels: NDArray[np.int64],
    true_boxes: Sequence[NDArray[np.floating]],
) -> NDArray[np.bool_]:
    """Says which guesses are right.

    Args:
        labels: (I, C) int64, 1…K.
        boxes: (I, C, 4) float, xyxy, pixels of the original images.
        true_labels: (I,) int64, 1…K, the images' classes.
        true_boxes: I arrays (G, 4) float, xyxy, same pixels, the objects of the images' classes.

    Returns:
        (I, C) bool.
    """
    images, guesses = labels.shape
    truth = Boxes(
        np.repeat(np.arange(images), [len(one) for one in true_boxes]),
        np.concatenate([np.zeros((0, 4)), *true_boxes]),
    )
    found = Boxes(np.repeat(np.arange(images), guesses), boxes.reshape(-1, 4))
    crowd = np.zeros(len(truth.keys), np.bool_)
    overlap = np.zeros(images * guesses, np.bool_)
    overlap[overlapping_pairs(found, truth, crowd, IOU).detection] = True
    right: NDArray[np.bool_] = overlap.reshape(images, guesses) & (labels == true_labels[:, None])
    return right


def error(right: NDArray[np.bool_], guesses: int) -> float:
    """Computes the share of images without a right guess, in percent.

    Args:
        right: (I, C) bool, as ``right_guesses`` returns it.
        guesses: how many of each image count, from the first on.

    Raises:
        ValueError: there are no images.
    """
    if not len(right):
        raise ValueError("expected at least one image to test, got none")
    return 100 * float(1 - right[:, :guesses].any(axis=1).mean())
