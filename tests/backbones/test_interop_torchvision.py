"""Torchvision's own models on our networks, and against torchvision's backbones."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation import DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.vgg import make_layers
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import backbones
from backbones.interop.torchvision import (
    dilate,
    faster_rcnn,
    features,
    normalisation,
    pyramid,
    segmentation,
)

COARSE = ["c3", "c4", "c5"]
SMALL = {"min_size": 96, "max_size": 96}
FEW = {
    **SMALL,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 4,
    "rpn_post_nms_top_n_train": 40,
    "rpn_post_nms_top_n_test": 40,
}


def above():
    return LastLevelP6P7(32, 32)


def ssd(network):
    boxes = DefaultBoxGenerator([[2], [2, 3], [2]])
    arguments = features(network, COARSE)
    return SSD(**arguments, anchor_generator=boxes, size=(96, 96), num_classes=3)


DETECTORS = {
    "FasterRCNN C4": lambda x: FasterRCNN(**faster_rcnn(x, 3), **FEW),
    "FasterRCNN": lambda x: FasterRCNN(**pyramid(x, channels=16), num_classes=3, **FEW),
    "FasterRCNN of a Cut": lambda x: FasterRCNN(
        **faster_rcnn(backbones.pyramid(x, 16, tail_channels=32), 3), **FEW
    ),
    "MaskRCNN": lambda x: MaskRCNN(**pyramid(x, channels=16), num_classes=3, **FEW),
    "RetinaNet": lambda x: RetinaNet(
        **pyramid(x, COARSE, channels=32, extra=above()), num_classes=3, **SMALL
    ),
    "FCOS": lambda x: FCOS(
        **pyramid(x, COARSE, channels=32, extra=above()), num_classes=3, **SMALL
    ),
    "SSD": ssd,
}


def batch():
    images = [torch.rand(3, 96, 96), torch.rand(3, 80, 96)]
    boxes = torch.tensor([[8.0, 8.0, 60.0, 70.0], [30.0, 20.0, 90.0, 60.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2])}
    return images, [{**target, "masks": torch.ones(2, *x.shape[1:]).byte()} for x in images]


def check_gradients(network):
    """None in the two frozen stages; finite and not zero in every layer of the next."""
    parameters = dict(network.named_parameters())
    for i, stage in enumerate(network.stages[:3]):
        for name in stage:
            for key in (key for key in parameters if key.startswith(f"{name}.")):
                grad = parameters[key].grad
                if i < 2:
                    assert grad is None, key
                else:
                    assert grad.isfinite().all(), key
                    assert grad.abs().sum() > 0, key
    reached = [x for key, x in parameters.items() if x.grad is not None]
    assert all(x.grad.isfinite().all() for x in reached)


@pytest.mark.parametrize(
    ("detector", "name"),
    [
        *((detector, name) for detector in DETECTORS for name in ("resnet18", "vgg16_bn")),
        ("FasterRCNN C4", "caffe_resnet50"),
        ("FasterRCNN C4", "plain18"),
        ("RetinaNet", "resnet50"),
    ],
)
def test_a_training_step_and_an_inference(detector, name):
    network = backbones.build(name, width=8)
    network.freeze(2)
    model = DETECTORS[detector](network)
    losses = model(*batch())
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    check_gradients(network)
    with torch.inference_mode():
        found = model.eval()(batch()[0])
    assert [one["boxes"].shape[1:] for one in found] == [(4,), (4,)]
    assert all(one["scores"].isfinite().all() for one in found)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_detections_are_those_on_torchvisions_backbone(name, randomise):
    trunk = resnet_fpn_backbone(backbone_name=name, weights=None, norm_layer=nn.BatchNorm2d)
    theirs = FasterRCNN(trunk, num_classes=3, **FEW)
    ours = FasterRCNN(**pyramid(backbones.build(name)), num_classes=3, **FEW).eval()
    ours.load_state_dict(randomise(theirs).state_dict())
    images, _ = batch()
    for got, expected in zip(ours(images), theirs(images), strict=True):
        assert len(expected["boxes"]) > 0
        for key, value in expected.items():
            assert torch.equal(got[key], value)


PLAN = (8, 8, "M", 16, 16, "M", *[32] * 3, "M", *[64] * 3, "M", *[64] * 3, "M")  # of VGG-16


def bodies(kind):
    """Torchvision's and ours of the same widths, the layers to return, and our names' prefix."""
    if kind == "vgg16":  # torchvision's getter sees direct children only
        layers = {str(i): str(level) for level, i in enumerate((8, 15, 22, 29))}
        return make_layers(PLAN), backbones.vgg16(width=8), layers, "body.features."
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    return torchvision.models.resnet18(), backbones.resnet18(), layers, "body."


@pytest.mark.parametrize("kind", ["resnet18", "vgg16"])
@pytest.mark.parametrize("extra", [None, LastLevelP6P7(16, 16)], ids=["pool", "p6p7"])
def test_pyramids_load_torchvisions(kind, extra, randomise):
    body, network, layers, prefix = bodies(kind)
    channels = [feature.channels for feature in network.feature_info]
    theirs = randomise(BackboneWithFPN(body, layers, channels, 16, extra))
    state = {key.replace("body.", prefix): x for key, x in theirs.state_dict().items()}
    ours = pyramid(network, channels=16, extra=extra)["backbone"].eval()
    ours.load_state_dict(state)
    images = torch.randn(1, 3, 70, 97)
    got, expected = ours(images), theirs(images)
    assert list(got) == list(expected)
    assert all(torch.equal(got[key], value) for key, value in expected.items())
    if extra is None:  # and the library's own pyramid
        trunk = backbones.pyramid(network, 16).trunk.eval()
        trunk.load_state_dict(state)
        assert all(map(torch.equal, trunk(images), expected.values()))


def test_levels_of_a_cut_are_named_as_torchvisions():
    network = backbones.resnet18(width=8)
    images = torch.zeros(1, 3, 64, 64)
    whole = faster_rcnn(backbones.pyramid(network, 16), 3)
    assert list(whole["backbone"](images)) == ["0", "1", "2", "3", "pool"]
    assert whole["box_roi_pool"].featmap_names == ["0", "1", "2", "3"]
    assert whole["box_roi_pool"].output_size == (7, 7)
    assert whole["rpn_anchor_generator"].sizes == ((32,), (64,), (128,), (256,), (512,))
    single = faster_rcnn(network, 3)
    assert list(single["backbone"](images)) == ["0"]
    assert single["box_roi_pool"].output_size == (14, 14)
    assert single["rpn_anchor_generator"].sizes == ((128, 256, 512),)
    assert faster_rcnn(backbones.cut(network, roi_size=7), 3)["box_roi_pool"].output_size == (7, 7)


@pytest.mark.parametrize("name", ["resnet18", "caffe_resnet50"])
def test_images_arrive_as_the_network_expects_them(name, randomise):
    network = randomise(backbones.build(name, width=8)).double()
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).double()
    bgr = network.preprocessing.order == "bgr"
    scale, shift = (x[:, None, None] for x in network.preprocessing.affine())
    expected = network((pixels.flip(1) if bgr else pixels) * scale + shift)
    arguments = features(network, COARSE)
    transform = GeneralizedRCNNTransform(64, 64, arguments["image_mean"], arguments["image_std"])
    images, _ = transform(list(pixels / 255))
    for got, key in zip(arguments["backbone"](images.tensors).values(), COARSE, strict=True):
        torch.testing.assert_close(got, expected[key], rtol=1e-4, atol=1e-4)


def test_statistics_by_hand():
    assert normalisation(backbones.CAFFE_BGR)["image_mean"] == pytest.approx(
        [122.7717 / 255, 115.9465 / 255, 102.9801 / 255]
    )
    assert normalisation(backbones.CAFFE_BGR)["image_std"] == pytest.approx([1 / 255] * 3)
    assert normalisation(backbones.IMAGENET_RGB)["image_mean"] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("auxiliary", [None, "c4"])
@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_deeplab(name, auxiliary):
    network = backbones.build(name, width=8)
    network.freeze(2)
    if name == "resnet50":
        dilate(network, 8)
    c4, c5 = network.feature_info[-2:]
    other = None if auxiliary is None else nn.Conv2d(c4.channels, 5, 1)
    model = DeepLabV3(segmentation(network, auxiliary), DeepLabHead(c5.channels, 5), other)
    scores = model(torch.rand(2, 3, 64, 96))
    assert list(scores) == (["out"] if auxiliary is None else ["out", "aux"])
    assert scores["out"].shape == (2, 5, 64, 96)
    sum(one.square().mean() for one in scores.values()).backward()
    check_gradients(network)


@pytest.mark.parametrize(
    ("stride", "replaced"), [(8, [False, True, True]), (16, [False] * 2 + [True])]
)
def test_dilation_is_torchvisions(stride, replaced, randomise):
    theirs = randomise(torchvision.models.resnet50(replace_stride_with_dilation=replaced))
    ours = backbones.resnet50().eval()
    ours.load_state_dict(theirs.state_dict())
    dilate(ours, stride)
    images = torch.randn(1, 3, 72, 97)
    layers = {f"layer{i}": f"c{i + 1}" for i in (1, 2, 3, 4)}
    expected = create_feature_extractor(theirs, layers)(images)
    for key, value in ours(images).items():
        assert torch.equal(value, expected[key])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"shortcut": "A"}),
        ("resnet18", {"shortcut": "C"}),
        ("resnet50", {}),
        ("caffe_resnet50", {}),
        ("plain34", {}),
        ("cifar_resnet20", {}),
    ],
)
def test_dilation_keeps_the_values(name, options, randomise):
    network = randomise(backbones.build(name, width=8, **options)).double()
    images = torch.randn(1, 3, 99, 75, dtype=torch.float64)
    before, infos = network(images), network.feature_info
    finest = infos[0].stride
    dilate(network, finest)
    for info, (key, value) in zip(infos, network(images).items(), strict=True):
        step = info.stride // finest
        assert value.shape[2:] == before["c2"].shape[2:]
        torch.testing.assert_close(value[:, :, ::step, ::step], before[key], rtol=1e-9, atol=1e-9)
    assert {info.stride for info in network.feature_info} == {finest}


def test_dilation_elsewhere_is_refused():
    network = backbones.resnet18(width=8)
    with pytest.raises(ValueError, match=r"got 2 among \[4, 8, 16, 32\]"):
        dilate(network, 2)
    dilate(network, 16)
    with pytest.raises(ValueError, match=r"got 8 among \[4, 8, 16, 16\]"):
        dilate(network, 8)
    with pytest.raises(TypeError, match="expected a ResNet to dilate, got VGG"):
        dilate(backbones.vgg16(width=8), 8)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", {"layer2": "c3", "layer4": "c5"}),
        ("caffe_resnet50", {"layer2": "c3", "layer4": "c5"}),
        ("vgg16_bn", {"features.22": "c3", "features.42": "c5"}),
    ],
)
def test_feature_extractor(name, layers, frozen, randomise):
    network = randomise(backbones.build(name, width=8))
    if frozen:
        network.freeze(2)
    extractor = create_feature_extractor(network, layers)
    images = torch.randn(2, 3, 64, 96)
    expected = network(images)
    for key, value in extractor(images).items():
        assert torch.equal(value, expected[key])
    if frozen:
        sum(x.square().mean() for x in extractor.train()(images).values()).backward()
        check_gradients(network)


def test_an_unknown_feature_is_refused():
    network = backbones.vgg16(width=8)
    for function in (features, pyramid):
        with pytest.raises(ValueError, match=r"expected features among .*got \['c6'\]"):
            function(network, ["c6"])
