import pytest
import torch
from torch import Tensor, nn

from backbones.preprocessing import IMAGENET_RGB
from detection.data.localization_views import ViewBatch
from detection.model.localization import Localizations
from detection.structures import Views
from detection.training.localization_testing import guess_classes, measure_localization

CLASSES = 7


class Oracle(nn.Module):
    """A localizer that finds classes 1 to 4; of the others its boxes are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.views: list[list[Views]] = []

    def forward(self, views: list[Views], labels: Tensor) -> Localizations:
        self.views.append(views)
        box = torch.tensor([10.0, 10, 20, 20])
        return Localizations((labels <= 4)[..., None] * box, torch.ones(labels.shape))


class Guesser(nn.Module):
    """A classifier that reads the order of its guesses from the image's first pixels."""

    preprocessing = IMAGENET_RGB

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def logits(self, images: Tensor) -> Tensor:
        scale, shift = IMAGENET_RGB.affine()
        pixels = (images - shift.view(3, 1, 1)) / scale.view(3, 1, 1)
        return pixels[:, 0, 0, :CLASSES]


def batch_of(*images: tuple[int, list[int]]) -> ViewBatch:
    """Images of a class, and the classes that are guessed, best first; the object is the same."""
    pixels = torch.zeros(len(images), 3, 8, 8, dtype=torch.uint8)
    for image, (_, guesses) in zip(pixels, images, strict=True):
        for rank, label in enumerate(guesses):
            image[0, 0, label - 1] = 200 - 10 * rank
    frames = torch.tensor([[0.0, 0, 8, 8]]).expand(len(images), 4)
    boxes = [torch.tensor([[10.0, 10, 20, 20]]).double()] * len(images)
    labels = torch.tensor([label for label, _ in images])
    return ViewBatch([Views(pixels, frames)], labels, boxes)


BATCHES = [
    batch_of((1, [1, 2, 3, 4, 5, 6, 7]), (2, [1, 2, 3, 4, 5, 6, 7])),
    batch_of((3, [7, 6, 5, 4, 3, 2, 1]), (4, [1, 2, 3, 5, 6, 4, 7]), (5, [5, 1, 2, 3, 4, 6, 7])),
]


def test_errors_by_hand():
    found = measure_localization(Oracle(), BATCHES, Guesser())
    # Wrong with the class given: the fifth image alone. With one guess the first is right; with
    # five the second and the third are too; the fourth's class is the sixth guess.
    assert found.gt_class == pytest.approx(20)
    assert found.top1 == pytest.approx(80)
    assert found.top5 == pytest.approx(40)
    assert found.images == 5


def test_errors_without_a_classifier():
    found = measure_localization(Oracle(), BATCHES)
    assert found == (pytest.approx(20), None, None, 5)


def test_no_images():
    with pytest.raises(ValueError, match="at least one image"):
        measure_localization(Oracle(), [])


def test_probabilities_are_averaged_over_views_and_their_mirror_images():
    pixels = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)
    # The first view's probabilities are 0.73 of class 1 and 0.27 of class 7, which mirrored is
    # class 2 with 1.0; the second view's are 1.0 of class 3.
    pixels[0, 0, 0, 0, [0, 6]] = torch.tensor([20, 19], dtype=torch.uint8)
    pixels[1, 0, 0, 0, 2] = 20
    views = [Views(one, torch.zeros(1, 4)) for one in pixels]
    for seen, mirrored, wanted in ((1, False, [1, 7]), (2, False, [3, 1]), (1, True, [2, 1])):
        found = guess_classes(Guesser(), views[:seen], mirrored=mirrored)
        assert found.shape == (1, 5)
        assert found[0, :2].tolist() == wanted


def test_few_classes():
    class Two(Guesser):
        def logits(self, images: Tensor) -> Tensor:
            return super().logits(images)[:, :2]

    assert guess_classes(Two(), BATCHES[0].views, mirrored=False).tolist() == [[1, 2], [1, 2]]
    assert measure_localization(Oracle(), BATCHES[:1], Two()).top5 == 0
