"""What improves a trained detector in inference: each a switch, alone or with the others.

Shape shorthand:
    V: views of a batch      S: scales      N: proposals of an image
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

from torch import nn

from detection.model.ensemble import average, check_classes
from detection.model.faster_rcnn import FasterRCNN, in_original_pixels
from detection.model.fusion import fuse
from detection.model.pyramid import NATURAL_SIDE, Scale, maxout_features, propose, see
from detection.model.refinement import join, refine, vote
from detection.model.roi_head import RoIOutput, candidates, suppress, with_image_index
from detection.model.rpn import Proposals, union
from detection.model.views import mirrored, resized, unmirrored
from detection.structures import Batch, Detections


@dataclass(frozen=True)
class Improvements:
    """What is done beyond a plain detector, in plain values; the default is nothing.

    The first three are of the ResNet paper (appendix B), as is an ensemble, which needs no switch;
    ``flip`` and ``fuse`` are today's test-time augmentation.

    Attributes:
        refinement: pools each regressed box again, for a new score and box beside the first.
        voting: moves each kept box to the score-weighted mean of its class's boxes around it.
        scales: short sides, pixels, at which regions are seen, two each; the paper's are 200, 400,
            600, 800 and 1000.
        flip: detects in the mirrored image too.
        fuse: detects at each of the scales as if it were the only one, in place of maxout.
        voting_threshold: IoU from which on a box votes. Alternatives: any other. Sources: Gidaris
            and Komodakis, 2015 (0.5).
        natural_side: a region is seen at the scales that bring it closest to this square, pixels.
            Alternatives: any other side. Sources: open in ResNet appendix B ("two adjacent
            scales"); 224 is SPPnet's rule.
        fusion_threshold: IoU above which the views' detections are fused into one. Alternatives:
            any other. Sources: Solovyev, Wang and Gabruseva, 2021 (0.55).
    """

    refinement: bool = False
    voting: bool = False
    scales: tuple[int, ...] = ()
    flip: bool = False
    fuse: bool = False
    voting_threshold: float = 0.5
    natural_side: float = NATURAL_SIDE
    fusion_threshold: float = 0.55

    def __post_init__(self) -> None:
        if any(scale < 1 for scale in self.scales) or len({*self.scales}) < len(self.scales):
            raise ValueError(f"scales: expected different short sides, pixels, got {self.scales}")
        if self.fuse and not self.scales:
            raise ValueError("fuse: there are no scales whose detections could be fused")

    def to_plain(self) -> dict[str, Any]:
        """Returns the values as JSON has them."""
        return {**asdict(self), "scales": list(self.scales)}


class Sides(NamedTuple):
    """The short sides at which a detector sees the images of a view, pixels.

    Attributes:
        rpn: where regions are proposed.
        head: where they are classified.
    """

    rpn: int
    head: tuple[int, ...]


class ImprovedDetector(nn.Module):
    """One trained detector or an ensemble of several, with improvements; used as `FasterRCNN` is.

    Images should come at ``short_side``, which is the largest that is needed: the others are made
    from it on the device. Their long sides are bounded in proportion.
    """

    def __init__(
        self,
        members: Sequence[FasterRCNN],
        short_sides: Sequence[int],
        improvements: Improvements = Improvements(),
    ) -> None:
        """Joins detectors.

        Args:
            members: of the same classes; the first one's selection of detections holds.
            short_sides: of the images that each was trained on, pixels: regions are proposed
                there, and classified too without scales.
            improvements: what is done with them.

        Raises:
            ValueError: if the members' numbers of classes differ, there is none, or one has no
                short side.
        """
        super().__init__()
        check_classes(members)
        if len(short_sides) != len(members):
            raise ValueError(
                f"expected a short side for each of {len(members)} members, got {short_sides}"
            )
        self.members = nn.ModuleList(members)
        self.short_sides = tuple(short_sides)
        self.improvements = improvements

    @property
    def detectors(self) -> list[FasterRCNN]:
        """The members."""
        return [cast(FasterRCNN, member) for member in self.members]

    @property
    def short_side(self) -> int:
        """What the short side of the images should be, pixels."""
        return max(max(rpn, *head) for view in self.views for rpn, head in view)

    @property
    def views(self) -> list[list[Sides]]:
        """What each member sees in each view, mirrored ones apart."""
        scales = self.improvements.scales
        if self.improvements.fuse:
            return [[Sides(scale, (scale,))] * len(self.members) for scale in scales]
        return [[Sides(own, scales or (own,)) for own in self.short_sides]]

    def forward(self, batch: Batch) -> Detections:
        """Detects objects.

        Args:
            batch: images with their sizes.

        Returns:
            Detections in pixels of the original images.
        """
        found = [self._detect(batch, view) for view in self.views]
        if self.improvements.flip:
            mirror = mirrored(batch)
            found += [
                unmirrored(self._detect(mirror, view), batch.original_sizes) for view in self.views
            ]
        if len(found) == 1:
            return found[0]
        per_image = self.detectors[0].detections.per_image
        return fuse(found, per_image, self.improvements.fusion_threshold)

    def _detect(self, batch: Batch, view: Sequence[Sides]) -> Detections:
        """Detects in one view, or in its mirror image."""
        seen, proposed = [], []
        for detector, (rpn, head) in zip(self.detectors, view, strict=True):
            maps = {
                side: see(detector, resized(batch, side / self.short_side))
                for side in dict.fromkeys((rpn, *head))
            }
            proposed.append(propose(detector, maps[rpn], batch.sizes))
            seen.append([maps[side] for side in head])
        proposals = union(proposed)
        output = self._classify(seen, proposals, batch)
        if self.improvements.refinement:
            refined = refine(output, proposals, batch.sizes)
            outputs = output, self._classify(seen, refined, batch)
            output, proposals = join(outputs, (proposals, refined))
        selection = self.detectors[0].detections
        found = candidates(output, proposals, batch.sizes, selection)
        detections = suppress(found, batch.sizes, selection)
        if self.improvements.voting:
            detections = vote(detections, found, self.improvements.voting_threshold)
        return in_original_pixels(detections, batch)

    def _classify(
        self, seen: Sequence[Sequence[Scale]], proposals: Proposals, batch: Batch
    ) -> RoIOutput:
        """Averages what the members say of the regions, each of what it has seen."""
        rois, side = with_image_index(proposals.boxes), self.improvements.natural_side
        heads = [detector.roi_head for detector in self.detectors]
        return average(
            [
                head.predict(maxout_features(head, scales, rois, batch.sizes, side))
                for head, scales in zip(heads, seen, strict=True)
            ]
        )


# What finds objects in a batch, whatever it is made of.
Detector = FasterRCNN | ImprovedDetector
