"""A localizer's errors: with the ground-truth class given, and with a classifier's guesses.

Shape shorthand:
    B: images     C: classes asked for     K: classes there are
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backbones.base import Backbone
from backbones.classification.testing import TOP, predict
from detection.data.localization_views import ViewBatch
from detection.evaluation.localization import error, right_guesses
from detection.model.localization import Localizer
from detection.structures import Views


class LocalizationErrors(NamedTuple):
    """Localization errors as Tables 13 and 14 of the ResNet paper have them.

    Attributes:
        gt_class: %, with the ground-truth class given.
        top1: %, with the classifier's best class; None without a classifier.
        top5: %, with its best five classes; None without a classifier.
        images: how many were tested.
    """

    gt_class: float
    top1: float | None
    top5: float | None
    images: int


@torch.no_grad()
def localize_right(localizer: Localizer, batch: ViewBatch, labels: Tensor) -> NDArray[np.bool_]:
    """Localizes classes in a batch of images and says which boxes and classes are right.

    Args:
        localizer: in evaluation mode.
        batch: B images, on the localizer's device.
        labels: (B, C) int64, 1…K, the classes to localize.

    Returns:
        (B, C) bool.
    """
    boxes = localizer(batch.views, labels).boxes
    return right_guesses(
        labels.cpu().numpy(),
        boxes.cpu().numpy(),
        batch.labels.cpu().numpy(),
        [one.cpu().numpy() for one in batch.boxes],
    )


def guess_classes(classifier: Backbone, views: list[Views], *, mirrored: bool) -> Tensor:
    """Classifies images, the probabilities averaged over their views.

    Args:
        classifier: in evaluation mode.
        views: of the same B images.
        mirrored: whether their mirror images count too, as in the paper's dense testing.

    Returns:
        (B, 5) int64, the best classes, 1…K, best first; fewer where there are no five.
    """
    images = [view.images[:, None] for view in views]
    if mirrored:
        images = [torch.cat((one, one.flip(-1)), dim=1) for one in images]
    scores = predict(classifier, images)
    return scores.topk(min(TOP, scores.shape[1])).indices + 1


@torch.inference_mode()
def measure_localization(
    localizer: Localizer,
    batches: Iterable[ViewBatch],
    classifier: Backbone | None = None,
    *,
    mirrored: bool = False,
) -> LocalizationErrors:
    """Tests a localizer on all images of a loader; leaves both networks in evaluation mode.

    Args:
        localizer: its device is where the images go.
        batches: views, classes and boxes.
        classifier: what guesses the classes, on the same device; none are guessed if None.
        mirrored: whether the classifier sees mirror images too.

    Returns:
        The errors.

    Raises:
        ValueError: there are no images.
    """
    device = localizer.scale.device
    localizer.eval()
    rights: list[NDArray[np.bool_]] = []
    for batch in batches:
        moved = _to(batch, device)
        asked = [moved.labels[:, None]]
        if classifier is not None:
            asked.append(guess_classes(classifier.eval(), moved.views, mirrored=mirrored))
        rights.append(localize_right(localizer, moved, torch.cat(asked, dim=1)))
    right = np.concatenate(rights) if rights else np.zeros((0, 1), np.bool_)
    top1, top5 = None, None
    if classifier is not None:
        top1, top5 = (error(right[:, 1:], guesses) for guesses in (1, TOP))
    return LocalizationErrors(error(right, 1), top1, top5, len(right))


def _to(batch: ViewBatch, device: torch.device) -> ViewBatch:
    views = [Views(*(field.to(device) for field in view)) for view in batch.views]
    return ViewBatch(views, batch.labels.to(device), batch.boxes)
