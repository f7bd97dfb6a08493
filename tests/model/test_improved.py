import json
from itertools import product

import pytest
import torch
from torch import nn

from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.faster_rcnn import FasterRCNN
from detection.model.improved import ImprovedDetector, Improvements, Sides
from detection.structures import Batch, Detections

ARCHITECTURES = ["c4", "context", "vgg16", "pyramid"]
SIDE = 96


def run(detector: nn.Module, batch: Batch) -> Detections:
    with torch.no_grad():
        return detector(batch)


def assert_same(found: Detections, wanted: Detections) -> None:
    assert torch.equal(found.labels, wanted.labels)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.boxes, wanted.boxes, rtol=1e-6, atol=1e-4)


@pytest.fixture
def batch(make_batch) -> Batch:
    """Two images of different sizes, stored larger than they are seen."""
    small = make_batch((96, 128), (80, 96))
    return small._replace(original_sizes=torch.tensor([[192, 256], [80, 96]]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_is_the_detector_bit_by_bit(architecture, make_detector, batch):
    detector = make_detector(architecture).float()
    wanted = run(detector, batch)
    assert (wanted.scores > 0).sum() > 20
    for switches in ({}, {"scales": (SIDE,)}, {"scales": (SIDE,), "fuse": True}):
        improved = ImprovedDetector([detector], [SIDE], Improvements(**switches))
        assert improved.short_side == SIDE
        found = run(improved, batch)
        assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_ensemble_of_a_detector_with_itself_is_the_detector(architecture, make_detector, batch):
    detector = make_detector(architecture)
    improved = ImprovedDetector([detector] * 3, [SIDE] * 3)
    assert_same(run(improved, batch), run(detector, batch))


SWITCHES = [
    {"refinement": refinement, "voting": voting, "flip": flip, **scales}
    for refinement, voting, flip, scales in product(
        (False, True),
        (False, True),
        (False, True),
        ({}, {"scales": (64, 96)}, {"scales": (64, 96), "fuse": True}),
    )
]


def named(switches: dict[str, object]) -> str:
    return "-".join(name for name, value in switches.items() if value) or "nothing"


@pytest.fixture
def members(make_detector) -> list[FasterRCNN]:
    """Different in everything but their classes."""
    caffe = make_detector("context")
    caffe.preprocessing = caffe.preprocessing._replace(order="bgr")
    return [caffe, make_detector("pyramid")]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("switches", SWITCHES, ids=named)
def test_every_combination_runs(switches, count, members, batch):
    improved = ImprovedDetector(members[:count], (96, 80)[:count], Improvements(**switches))
    boxes, scores, labels = run(improved.eval(), batch)
    assert boxes.shape == (2, 100, 4)
    assert scores.shape == labels.shape == (2, 100)
    assert boxes.isfinite().all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores.diff(dim=1) <= 0).all()
    assert torch.equal(labels > 0, scores > 0)
    assert (scores > 0).sum(dim=1).min() > 5
    limits = batch.original_sizes.flip(1).repeat(1, 2)[:, None]
    assert (boxes >= -1e-3).all()
    assert (boxes <= limits + 1e-3).all()
    filled = scores > 0
    assert (boxes[filled][:, 2:] > boxes[filled][:, :2]).all()
    assert not boxes[~filled].any()


@pytest.mark.parametrize(
    "switches",
    [
        {"refinement": True},
        {"voting": True},
        {"flip": True},
        {"scales": (64, 96)},
        {"scales": (64, 96), "fuse": True},
    ],
    ids=named,
)
def test_every_switch_changes_what_is_found(switches, members, batch):
    improved = ImprovedDetector(members[:1], [SIDE], Improvements(**switches))
    found, plain = run(improved, batch), run(members[0], batch)
    assert not torch.allclose(found.boxes, plain.boxes)


@pytest.mark.parametrize("voting", [False, True])
@pytest.mark.parametrize("architecture", ["c4", "pyramid"])
def test_refinement_of_boxes_that_do_not_move_only_repeats(
    architecture, voting, make_detector, batch
):
    detector = make_detector(architecture)
    nn.init.zeros_(detector.roi_head.deltas.weight)
    nn.init.zeros_(detector.roi_head.deltas.bias)
    found, wanted = (
        run(ImprovedDetector([detector], [SIDE], Improvements(refinement=on, voting=voting)), batch)
        for on in (False, True)
    )
    assert_same(found, wanted)


def test_refinement_looks_at_the_boxes_again(make_detector, batch):
    detector = make_detector("c4")
    calls = []
    features = detector.roi_head.features

    def spy(levels, rois, sizes):
        calls.append(rois)
        return features(levels, rois, sizes)

    detector.roi_head.features = spy
    run(ImprovedDetector([detector], [SIDE], Improvements(refinement=True)), batch)
    first, second = calls
    assert len(first) == len(second) == 2 * 25
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.allclose(first, second)


def test_a_symmetric_image_has_symmetric_detections(make_detector, make_batch):
    detector, batch = make_detector("pyramid"), make_batch((96, 128))
    batch.images[:, :, :, 64:] = batch.images[:, :, :, :64].flip(3)
    improved = ImprovedDetector([detector], [SIDE], Improvements(flip=True))
    boxes, scores, labels = (part[0] for part in run(improved, batch))
    count = int((scores > 0).sum())
    assert count > 10
    mirror = torch.stack((128 - boxes[:, 2], boxes[:, 1], 128 - boxes[:, 0], boxes[:, 3]), dim=1)
    for row in range(count):
        distance = (mirror[row] - boxes[:count]).abs().amax(dim=1)
        same = (distance < 1e-6) & (labels[:count] == labels[row])
        assert ((scores[:count] - scores[row]).abs()[same] < 1e-9).any()


def test_a_batch_of_two_is_two_batches_of_one(members, make_batch):
    switches = Improvements(refinement=True, voting=True, scales=(64, 96), flip=True)
    improved = ImprovedDetector(members, (96, 80), switches)
    batch = make_batch((96, 128), (96, 128))
    both = run(improved, batch)
    for image in range(2):
        one = run(improved, Batch(*(part[image : image + 1] for part in batch)))
        assert_same(one, Detections(*(part[image : image + 1] for part in both)))


def test_padding_is_not_seen(members, batch):
    garbage = batch._replace(images=batch.images.clone())
    garbage.images[1, :, 80:] = 255
    garbage.images[1, :, :, 96:] = 128
    switches = Improvements(refinement=True, voting=True, scales=(64, 96), flip=True)
    improved = ImprovedDetector(members, (96, 80), switches)
    found, wanted = run(improved, garbage), run(improved, batch)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def test_half_precision_keeps_boxes_in_float32(members, batch):
    switches = Improvements(refinement=True, voting=True, scales=(64, 96), flip=True)
    improved = ImprovedDetector(members, (96, 80), switches).float()
    with torch.autocast("cpu", torch.bfloat16):
        boxes, scores, _ = run(improved, batch)
    assert boxes.dtype == scores.dtype == torch.float32
    assert boxes.isfinite().all()
    # Not rounded to 8 bits anywhere.
    filled = boxes[scores > 0]
    assert not torch.equal(filled, filled.bfloat16().float())


def test_broken_weights_end_in_no_detections(members, batch):
    switches = Improvements(refinement=True, voting=True, scales=(64, 96), flip=True)
    next(iter(members[0].trunk.parameters())).data[0] = torch.nan
    detections = run(ImprovedDetector(members[:1], [SIDE], switches), batch)
    assert not any(part.any() for part in detections)


def test_the_sides_that_are_seen():
    with torch.device("meta"):
        detector = faster_rcnn(1, DetectorSpec("resnet18", rpn_width=8))
    plain = ImprovedDetector([detector] * 2, [600, 800])
    assert plain.views == [[Sides(600, (600,)), Sides(800, (800,))]]
    assert plain.short_side == 800
    scales = (200, 400, 600, 1000)
    maxout = ImprovedDetector([detector] * 2, [600, 800], Improvements(scales=scales))
    assert maxout.views == [[Sides(600, scales), Sides(800, scales)]]
    assert maxout.short_side == 1000
    assert ImprovedDetector([detector], [600], Improvements(scales=(200,))).short_side == 600
    fused = ImprovedDetector([detector], [600], Improvements(scales=(400, 500), fuse=True))
    assert fused.views == [[Sides(400, (400,))], [Sides(500, (500,))]]
    assert fused.short_side == 500


def test_plain_values():
    assert json.loads(json.dumps(Improvements().to_plain())) == {
        "refinement": False,
        "voting": False,
        "scales": [],
        "flip": False,
        "fuse": False,
        "voting_threshold": 0.5,
        "natural_side": 224.0,
        "fusion_threshold": 0.55,
    }


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"scales": (600, 600)}, r"different short sides, pixels, got \(600, 600\)"),
        ({"scales": (0, 600)}, r"got \(0, 600\)"),
        ({"fuse": True}, "there are no scales"),
    ],
)
def test_what_makes_no_sense_is_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        Improvements(**switches)


def test_members_must_agree():
    with torch.device("meta"):
        members = [faster_rcnn(count, DetectorSpec("resnet18", rpn_width=8)) for count in (3, 4)]
    with pytest.raises(ValueError, match="same classes"):
        ImprovedDetector(members, [600, 600])
    with pytest.raises(ValueError, match=r"a short side for each of 1 members, got "):
        ImprovedDetector(members[:1], [600, 800])
