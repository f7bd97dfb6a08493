"""A detector's parts, against counts by hand and the networks they were cut from."""

import pytest
import torch

from backbones.catalogue import build
from backbones.complexity import Cost, add, network_cost
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.complexity import detector_cost, improved_cost
from detection.model.improved import ImprovedDetector, Improvements

SIZE = (600, 1000)


def detector(backbone: str, classes: int = 20, **spec: object):
    """On the meta device, with no constants in place of parameters."""
    values = {"batch_norm": "trained", "frozen_stages": 0, **spec}
    with torch.device("meta"):
        return faster_rcnn(classes, DetectorSpec(backbone, **values))


def stages(backbone: str, size: tuple[int, int]):
    with torch.device("meta"):
        return list(network_cost(build(backbone), size).stages.values())


def test_vgg16_by_hand():
    got = detector_cost(detector("vgg16"), SIZE)
    # Pools round down: conv5_3 has 37×62 cells.
    convolutions = 9 * (
        600 * 1000 * (3 * 64 + 64 * 64)
        + 300 * 500 * (64 * 128 + 128 * 128)
        + 150 * 250 * (128 * 256 + 2 * 256 * 256)
        + 75 * 125 * (256 * 512 + 2 * 512 * 512)
        + 37 * 62 * (3 * 512 * 512)
    )
    assert got.trunk == Cost(14_714_688, convolutions)
    rpn = 9 * 512 * 512 + 512 * 9 * (1 + 4)
    assert got.rpn == Cost(rpn + 512 + 45, 37 * 62 * rpn)
    # 20 classes and the background, and a box for each of the 20.
    region = 25088 * 4096 + 4096 * 4096 + 4096 * (21 + 80)
    assert got.roi == Cost(region + 4096 + 4096 + 101, region)


@pytest.mark.parametrize("name", ["resnet50", "caffe_resnet101", "plain34", "vgg19"])
def test_the_trunk_costs_what_its_stages_do(name):
    count = 5 if name.startswith("vgg") else 4
    got = detector_cost(detector(name), SIZE)
    assert got.trunk == add(stages(name, SIZE)[:count])


def test_a_region_runs_conv5_as_an_image_of_224_does():
    # 14×14 cells into conv5_x, 7×7 out of it, in both; then 21 scores and 20 boxes.
    got = detector_cost(detector("resnet101"), SIZE)
    siblings = Cost(101 * (2048 + 1), 101 * 2048)
    assert got.roi == add((stages("resnet101", (224, 224))[4], siblings))
    # 38×63 cells: stride-2 layers round up.
    rpn = 9 * 1024 * 512 + 512 * 45
    assert got.rpn == Cost(rpn + 512 + 45, 38 * 63 * rpn)


def test_the_pyramid_by_hand():
    got = detector_cost(detector("resnet50", pyramid=True), (64, 96))
    cells, channels = (16 * 24, 8 * 12, 4 * 6, 2 * 3), (256, 512, 1024, 2048)
    laterals = [256 * count for count in channels]
    weights = [lateral + 9 * 256 * 256 for lateral in laterals]
    fpn = Cost(
        sum(weights) + 8 * 256, sum(x * count for x, count in zip(weights, cells, strict=True))
    )
    assert got.trunk == add((*stages("resnet50", (64, 96))[:5], fpn))
    # One RPN, on P6 as well: 1×2 cells; three anchors a position.
    rpn = 9 * 256 * 256 + 256 * 15
    assert got.rpn == Cost(rpn + 256 + 15, (sum(cells) + 1 * 2) * rpn)
    region = 256 * 49 * 1024 + 1024 * 1024 + 1024 * 101
    assert got.roi == Cost(region + 2 * 1024 + 101, region)


@pytest.mark.parametrize("pyramid", [False, True])
def test_the_total_is_linear_in_the_regions(pyramid):
    model = detector("resnet18", pyramid=pyramid, width=8)
    got = detector_cost(model, (128, 192))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    once = got.trunk.multiply_adds + got.rpn.multiply_adds
    assert got.total(0) == Cost(parameters, once)
    assert got.total() == got.total(300) == Cost(parameters, once + 300 * got.roi.multiply_adds)


@pytest.mark.parametrize("backbone", ["resnet101", "vgg16"])
def test_context_by_hand(backbone):
    plain, context = (detector_cost(detector(backbone, context=on), SIZE) for on in (False, True))
    # The image passes the tail as one more region; 21 scores and 20 boxes have twice the inputs.
    channels = 4096 if backbone == "vgg16" else 2048
    assert plain.siblings == Cost(101 * (channels + 1), 101 * channels)
    assert context.siblings == Cost(101 * (2 * channels + 1), 101 * 2 * channels)
    assert context.tail == plain.tail
    extra = 300 * 101 * channels + plain.tail.multiply_adds
    total = plain.total()
    assert context.total() == Cost(total.parameters + 101 * channels, total.multiply_adds + extra)


def test_improvements_by_hand():
    model = detector("resnet18", width=8, context=True)
    small, base, large = (detector_cost(model, (side, side)) for side in (64, 96, 128))
    parameters = base.total().parameters

    def multiply_adds(*short_sides: int, **switches: object) -> int:
        improved = ImprovedDetector(
            [model] * len(short_sides), short_sides, Improvements(**switches)
        )
        side = improved.short_side
        got = improved_cost(improved, (side, side))
        assert got.parameters == parameters
        return got.multiply_adds

    trunk, rpn, tail, siblings = (part.multiply_adds for part in base[:4])
    plain = base.total().multiply_adds
    assert multiply_adds(96) == plain
    assert multiply_adds(96, voting=True) == plain
    assert multiply_adds(96, flip=True) == 2 * plain
    assert multiply_adds(96, refinement=True) == plain + 301 * tail + 300 * siblings
    trunks = small.trunk.multiply_adds + large.trunk.multiply_adds
    # Two scales see each region, and all three see the whole image.
    scales = trunk + trunks + rpn + 603 * tail + 300 * siblings
    assert multiply_adds(96, scales=(64, 96, 128)) == scales
    fused = small.total().multiply_adds + large.total().multiply_adds
    assert multiply_adds(96, scales=(64, 128), fuse=True) == fused
    # Each sees its own 300 proposals and the other's.
    ensemble = 2 * (trunk + rpn + 601 * tail + 600 * siblings)
    assert multiply_adds(96, 96) == ensemble


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16_bn"])
def test_frozen_norms_cost_no_multiply_adds(backbone):
    trained = detector_cost(detector(backbone, width=8), (64, 64))
    frozen = detector_cost(detector(backbone, width=8, batch_norm="frozen"), (64, 64))
    assert frozen.trunk.parameters < trained.trunk.parameters
    for one, other in zip(frozen[:4], trained[:4], strict=True):
        assert one.multiply_adds == other.multiply_adds > 0


def test_the_detector_is_left_as_it_is(make_detector):
    model = make_detector("c4").train()
    before = {name: (id(x), x.clone()) for name, x in model.state_dict(keep_vars=True).items()}
    detector_cost(model, (64, 64))
    assert all(module.training for module in model.modules())
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0], name
        assert torch.equal(tensor, before[name][1]), name


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"VGGTrunk does not run on \[\(1, 3, 8, 8\)\]"):
        detector_cost(detector("vgg16", width=8), (8, 8))
    with pytest.raises(ValueError, match=r"at least 1 × 1, got \(0, 600\)"):
        detector_cost(detector("vgg16", width=8), (0, 600))
