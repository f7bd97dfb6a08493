"""The loss of the per-class RPN, as a walk along the localizer's parts (ResNet appendix C).

Shape shorthand:
    B: images     C: classes that train, of each image     K: classes there are

For its own class an image trains as in an RPN: 8 anchors, positive and negative ones 1:1, logistic
loss and smooth L1. That the other 999 channels stay out of it, the paper does not say; but it
samples so that negatives do not dominate, and a class's score is only ever compared with the
same class's at other anchors. ``other_classes`` is the alternative: classes drawn at random train
too, and for them the image is one without objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detection.model.criterion import RPNCriterion
from detection.model.localization import Localizer
from detection.model.matching import Sampler
from detection.model.rpn import RPNOutput
from detection.structures import Target

_EIGHT = Sampler(count=8, positive_fraction=0.5)


@dataclass(frozen=True)
class LocalizationCriterion:
    """Which anchors and classes train, and their loss.

    Attributes:
        rpn: the loss of one class. Anchors that leave the view train too, else none as large as
            the crop would.
        other_classes: how many classes beside its own learn from each image that nothing in it is
            theirs; at most K - 1.

    Raises:
        ValueError: ``other_classes`` is negative.
    """

    rpn: RPNCriterion = field(
        default_factory=lambda: RPNCriterion(sampler=_EIGHT, cross_boundary=True)
    )
    other_classes: int = 0

    def __post_init__(self) -> None:
        if self.other_classes < 0:
            raise ValueError(f"other_classes: expected at least 0, got {self.other_classes}")

    def __call__(
        self, localizer: Localizer, images: Tensor, labels: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """Computes the class and box losses.

        Args:
            localizer: what to train.
            images: (B, 3, H, W) uint8, RGB.
            labels: (B,) int64, 1…K, the images' classes.
            targets: B targets, the boxes of the images' classes, pixels of ``images``; there may
                be none.

        Returns:
            Two () float32: mean over the sampled anchors, and sum over the positive ones divided
            by the number sampled.

        Raises:
            ValueError: there are not as many other classes.
        """
        asked = self._classes(labels, localizer.rpn.classes)
        output = localizer.score_anchors(images, asked)
        # A class that is not in the image is an image without objects.
        rpn_output = RPNOutput(
            [output.class_logits.flatten(0, 1)], [output.deltas.flatten(0, 1)], [output.anchors]
        )
        nothing = [Target(*(field[:0] for field in target)) for target in targets]
        per_class = [
            one
            for target, empty in zip(targets, nothing, strict=True)
            for one in (target, *[empty] * self.other_classes)
        ]
        sizes = labels.new_tensor([images.shape[2:]]).expand(len(per_class), 2)
        return self.rpn(rpn_output, sizes, per_class)

    def _classes(self, labels: Tensor, classes: int) -> Tensor:
        """The classes that train: (B, C) int64, the image's own first."""
        if self.other_classes >= classes:
            raise ValueError(f"other_classes={self.other_classes}: there are {classes} classes")
        steps = torch.rand(len(labels), classes - 1, device=labels.device).argsort(dim=1) + 1
        others = (labels[:, None] - 1 + steps[:, : self.other_classes]) % classes + 1
        return torch.cat((labels[:, None], others), dim=1)
