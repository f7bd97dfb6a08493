import json

import pytest
import torch

from backbones import CAFFE_BGR, FrozenBatchNorm2d, save_weights
from backbones import build as build_network
from backbones.catalogue import IMAGENET
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.pooling import RoIAlign, RoIPool
from detection.model.roi_head import DetectionSelection
from detection.model.rpn import ProposalSelection


def build(classes: int = 3, **spec: object):
    """On the meta device: shapes without memory."""
    with torch.device("meta"):
        return faster_rcnn(classes, DetectorSpec(**spec))


@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("name", IMAGENET)
def test_every_network_builds(name, pyramid):
    detector = build(backbone=name, pyramid=pyramid)
    assert detector.training
    first = 2 if name.startswith("vgg") else 4
    strides = tuple(first << level for level in range(5)) if pyramid else (16,)
    assert detector.rpn.anchors.strides == strides
    assert detector.rpn.anchors.per_position == (3 if pyramid else 9)
    assert detector.roi_head.classes == 3
    assert type(detector.roi_head.pool) is (RoIAlign if pyramid else RoIPool)


def test_the_papers_vgg_has_its_layers():
    # VGG-16 without its last layer, the RPN with 9 x (1 + 4) outputs, 21 classes and 20 boxes.
    detector = build(20, backbone="vgg16")
    trunk = 14_714_688
    tail = 25088 * 4096 + 4096 + 4096 * 4096 + 4096
    rpn = 512 * 512 * 9 + 512 + 45 * (512 + 1)
    head = (21 + 80) * (4096 + 1)
    count = sum(value.numel() for value in detector.parameters())
    assert count == trunk + tail + rpn + head


def test_the_pyramid_has_torchvisions_number_of_parameters():
    # FasterRCNN_ResNet50_FPN_Weights, whose 91 classes include a box for the background.
    detector = build(90, backbone="resnet50", pyramid=True, frozen_stages=0)
    count = sum(value.numel() for value in detector.parameters())
    assert count == 41_755_286 - 4 * (1024 + 1)


@pytest.mark.parametrize("name", ["caffe_resnet50", "plain34"])
def test_an_option_that_a_network_lacks_is_refused(name):
    with pytest.raises(ValueError, match="stride_in_1x1"):
        build(backbone=name, stride_in_1x1=True)


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet20'.*resnet18.*vgg16"):
        build(backbone="resnet20")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"pyramid": True, "roi_pooling": "pool"}, "a pyramid needs 'align'"),
        ({"backbone": "vgg16", "stride_in_1x1": True}, "stride_in_1x1 is for bottlenecks"),
        ({"backbone": "resnet18", "stride_in_1x1": True}, "stride_in_1x1 is for bottlenecks"),
        ({"backbone": "vgg16", "roi_size": 14}, "roi_size 7"),
        ({"backbone": "vgg16", "tail_stride": 1}, "no tail_stride"),
        ({"pyramid": True, "anchor_sizes": (32, 64)}, "one set of anchors a level"),
        ({"frozen_stages": 6}, "stages to freeze"),
    ],
)
def test_what_does_not_go_together_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build(**spec)


@pytest.mark.parametrize(
    "spec",
    [
        DetectorSpec(),
        DetectorSpec(
            "resnet50",
            pyramid=True,
            roi_size=5,
            anchor_sizes=(16, 32, 64, 128, 256),
            anchor_ratios=(0.3, 3.0),
            proposals=ProposalSelection(before_nms=7, after_nms=5, min_side=2.0),
            detections=DetectionSelection(score_threshold=0.2, per_image=3),
        ),
    ],
)
def test_a_spec_survives_json(spec):
    read = DetectorSpec.from_plain(json.loads(json.dumps(spec.to_plain())))
    assert read == spec
    assert hash(read) == hash(spec)


def test_an_unknown_value_is_refused():
    with pytest.raises(TypeError, match="depth"):
        DetectorSpec.from_plain(DetectorSpec().to_plain() | {"depth": 101})


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_batch_norms_and_frozen_stages(batch_norm):
    detector = build(backbone="resnet18", batch_norm=batch_norm, frozen_stages=2)
    layers = dict(detector.named_modules())
    frozen = {name for name, layer in layers.items() if isinstance(layer, FrozenBatchNorm2d)}
    assert {"trunk.bn1", "trunk.layer1.0.bn1"} <= frozen
    for name in ("trunk.layer2.0.bn1", "roi_head.tail.layer4.0.bn1"):
        assert (name in frozen) == (batch_norm == "frozen")
    trained = {name for name, value in detector.named_parameters() if value.requires_grad}
    assert "trunk.layer2.0.conv1.weight" in trained
    assert not any(name.startswith(("trunk.conv1", "trunk.layer1")) for name in trained)


def test_what_is_left_open_is_the_networks_own():
    assert build(backbone="resnet18").roi_head.pool.size == 14
    assert build(backbone="resnet18", tail_stride=1).roi_head.pool.size == 7
    assert build(backbone="vgg16").roi_head.pool.size == 7
    assert build(backbone="resnet18").rpn.conv.out_channels == 512
    assert build(backbone="resnet18", pyramid=True).rpn.conv.out_channels == 256
    assert build(backbone="resnet18", roi_pooling="align").roi_head.pool.strides == (16,)
    assert build(backbone="resnet18", pyramid=True).roi_head.pool.strides == (4, 8, 16, 32)


def test_widths():
    slim = build(backbone="resnet18", width=8)
    assert slim.roi_head.class_logits.in_features == 64
    slim = build(backbone="resnet18", pyramid=True, pyramid_channels=16, pyramid_tail_channels=24)
    assert slim.rpn.conv.in_channels == slim.rpn.conv.out_channels == 16
    assert slim.roi_head.class_logits.in_features == 24


def test_preprocessing_can_be_said():
    with torch.device("meta"):
        spec = DetectorSpec("resnet18")
        assert faster_rcnn(1, spec, preprocessing=CAFFE_BGR).preprocessing is CAFFE_BGR


def test_weights_are_laid_out_channels_last():
    detector = faster_rcnn(1, DetectorSpec("resnet18", rpn_width=8))
    assert detector.rpn.conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "first"), [("resnet18", "conv1"), ("vgg11", "features.0")])
def test_weights_for_other_classes_fit(tmp_path, name, first):
    network = build_network(name, width=8, num_classes=5)
    save_weights(network, tmp_path / "weights.safetensors")
    spec = DetectorSpec(backbone=name, width=8)
    detector = faster_rcnn(3, spec, weights=str(tmp_path / "weights.safetensors"))
    ours = detector.trunk.get_parameter(f"{first}.weight")
    assert torch.equal(ours, network.get_parameter(f"{first}.weight"))
