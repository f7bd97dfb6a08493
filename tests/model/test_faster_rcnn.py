from dataclasses import dataclass

import pytest
import torch

from backbones import CAFFE_BGR, IMAGENET_RGB
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.criterion import Criterion, RoICriterion, RPNCriterion
from detection.model.matching import Sampler
from detection.model.roi_head import with_image_index
from detection.structures import Batch

ARCHITECTURES = ["c4", "context", "vgg16", "pyramid"]


def rows(batch: Batch, image: int) -> Batch:
    return Batch(*(part[image : image + 1] for part in batch))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_of_two_is_two_batches_of_one(architecture, make_detector, make_batch):
    detector = make_detector(architecture)
    batch = make_batch((96, 128), (96, 128))
    with torch.no_grad():
        both = detector(batch)
        for image in range(2):
            one = detector(rows(batch, image))
            assert (one.scores > 0).sum() > 10
            for ours, wanted in zip(both, one, strict=True):
                torch.testing.assert_close(ours[image], wanted[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_losses_of_two_images_are_the_mean_of_their_own(
    architecture, make_detector, make_batch, make_target
):
    detector = make_detector(architecture)
    batch = make_batch((96, 128), (96, 128))
    targets = [make_target([[10, 10, 60, 60]]), make_target([[40, 20, 90, 90], [0, 0, 30, 40]])]
    # Every anchor and every region has a role, and all of them train.
    everything = Criterion(
        rpn=RPNCriterion(negative=0.7, sampler=Sampler(10**6, 0.5), cross_boundary=True),
        roi=RoICriterion(background=(0.0, 0.5), sampler=Sampler(10**6, 0.5)),
        proposals=detector.proposals,
    )
    both = everything(detector, batch, targets)
    ones = [everything(detector, rows(batch, image), [targets[image]]) for image in range(2)]
    for name, weights in (
        ("rpn_objectness", (1, 1)),
        ("rpn_box", (1, 1)),
        ("roi_class", (26, 27)),  # 25 proposals and the image's objects
        ("roi_box", (26, 27)),
    ):
        total = sum(w * getattr(losses, name) for w, losses in zip(weights, ones, strict=True))
        wanted = total / sum(weights)
        torch.testing.assert_close(getattr(both, name), wanted, rtol=1e-9, atol=0)


@dataclass(frozen=True)
class EveryProposal(RoICriterion):
    """Trains, as background, what inference would look at."""

    def sample(self, proposals, targets):
        rois = with_image_index(proposals.boxes)
        return rois, rois.new_zeros(len(rois), dtype=torch.int64), rois[:, 1:]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_criterion_and_forward_walk_alike(architecture, make_detector, make_batch, make_target):
    detector = make_detector(architecture)
    batch = make_batch((96, 128), (80, 100))
    seen = []
    for part in (detector.rpn, detector.roi_head):
        part.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        detector(batch)
        criterion = Criterion(roi=EveryProposal(), proposals=detector.proposals)
        criterion(detector, batch, [make_target([[10, 10, 60, 60]]), make_target([])])
    forward, criterion = seen[:2], seen[2:]
    torch.testing.assert_close(forward, criterion, rtol=0, atol=0)
    assert len(forward) == len(criterion) == 2


def test_normalisation_by_hand(make_detector, make_batch):
    batch = make_batch((64, 64), (32, 48))
    batch.images[1] = 255  # padding that is not zero
    for preprocessing in (IMAGENET_RGB, CAFFE_BGR):
        spec = DetectorSpec("resnet18", rpn_width=8)
        detector = faster_rcnn(1, spec, preprocessing=preprocessing)
        normalized = detector.normalize(batch)
        pixels = batch.images.float() * preprocessing.scale
        if preprocessing is CAFFE_BGR:
            pixels = pixels[:, [2, 1, 0]]
        mean, std = (torch.tensor(part)[:, None, None] for part in preprocessing[2:])
        wanted = (pixels - mean) / std
        torch.testing.assert_close(normalized[0], wanted[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            normalized[1, :, :32, :48], wanted[1, :, :32, :48], rtol=1e-5, atol=1e-5
        )
        assert not normalized[1, :, 32:].any()
        assert not normalized[1, :, :, 48:].any()
        assert normalized.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_is_not_seen(architecture, make_detector, make_batch):
    detector = make_detector(architecture)
    batch = make_batch((128, 128), (70, 90))
    garbage = batch._replace(images=batch.images.clone())
    garbage.images[1, :, 70:] = 255
    garbage.images[1, :, :, 90:] = 128
    with torch.no_grad():
        found, wanted = detector(garbage), detector(batch)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))
    assert (found.boxes[1] <= torch.tensor([90, 70, 90, 70])).all()
    assert (found.boxes[1, :, 2:].amax(dim=0) == torch.tensor([90, 70])).all()


def test_detections_are_in_original_pixels(make_detector, make_batch):
    detector = make_detector("c4")
    batch = make_batch((96, 128), (96, 128))
    larger = batch._replace(original_sizes=torch.tensor([[192, 256], [48, 384]]))
    with torch.no_grad():
        found, wanted = detector(larger), detector(batch)
    assert wanted.boxes.any()
    torch.testing.assert_close(found.boxes[0], wanted.boxes[0] * 2)
    factors = torch.tensor([3, 0.5, 3, 0.5], dtype=torch.float64)
    torch.testing.assert_close(found.boxes[1], wanted.boxes[1] * factors)
    assert torch.equal(found.scores, wanted.scores)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("part", ["trunk", "rpn.deltas", "rpn.objectness", "roi_head.deltas"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_weights_end_in_no_detections(
    architecture, part, value, make_detector, make_batch, make_target
):
    detector = make_detector(architecture).float()
    first = next(iter(detector.get_submodule(part).parameters()))
    first.data[0] = value
    batch = make_batch((96, 128))
    with torch.no_grad():
        detections = detector(batch)
        targets = [make_target([[10, 10, 60, 60]])]
        targets = [target._replace(boxes=target.boxes.float()) for target in targets]
        losses = Criterion()(detector, batch, targets)
    assert all(part.isfinite().all() for part in detections)
    assert len(losses) == 4
    if part == "trunk":
        assert not detections.scores.any()
        assert not sum(losses).isfinite()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
@pytest.mark.parametrize("background", [(0.1, 0.5), (0.0, 0.5)])
@pytest.mark.parametrize("ignored", [[], [[10, 10, 60, 60]]])
def test_images_without_objects_train(
    architecture, batch_norm, background, ignored, make_detector, make_batch, make_target
):
    detector = make_detector(architecture, batch_norm=batch_norm).train()
    target = make_target(ignored, [True] * len(ignored))
    criterion = Criterion(
        rpn=RPNCriterion(cross_boundary=True), roi=RoICriterion(background=background)
    )
    losses = criterion(detector, make_batch((96, 128), (96, 128)), [target, target])
    assert all(loss.isfinite() for loss in losses)
    # VOC's background starts at an IoU of 0.1 with an object: without one, no region trains.
    assert [bool(loss > 0) for loss in losses] == [True, False, background[0] == 0, False]
    sum(losses).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_boxes_stay_float32_under_bfloat16(architecture, make_detector, make_batch, make_target):
    detector = make_detector(architecture).float()
    seen = []
    for part in (detector.trunk, detector.rpn, detector.roi_head):
        part.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    batch = make_batch((96, 128), (80, 100))
    target = make_target([[10, 10, 60, 60]])
    target = target._replace(boxes=target.boxes.float())
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            detections = detector(batch)
        losses = Criterion()(detector, batch, [target, target])
    levels, (objectness, deltas, anchors), roi_output = seen[:3]
    assert {level.dtype for level in levels} == {torch.bfloat16}
    for part in (*objectness, *deltas, *anchors, *roi_output, *losses, *detections[:2]):
        assert part.dtype == torch.float32
        assert part.isfinite().all()
    sum(losses).backward()
    gradients = [parameter.grad for parameter in detector.parameters()]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (detections.scores > 0).any()
