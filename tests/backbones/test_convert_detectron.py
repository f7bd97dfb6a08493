"""Detectron's and Detectron2's names, written out here, and the arithmetic of their batch norms."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import backbones
from backbones import CAFFE_BGR, IMAGENET_RGB, FrozenBatchNorm2d, load_weights
from backbones.convert import from_detectron, from_detectron2, to_detectron, to_detectron2

DEPTHS = {"R-50": (3, 4, 6, 3), "R-101": (3, 4, 23, 3)}
COUNTS = {"R-50": 161, "R-101": 314}  # 53 or 104 convolutions with two tensors of a norm each, fc


def detectron_shapes(name, width=64, classes=1000):
    """The blobs of R-50.pkl and R-101.pkl, but for conv1_b."""
    shapes = {"conv1_w": (width, 3, 7, 7)}
    shapes |= {"res_conv1_bn_s": (width,), "res_conv1_bn_b": (width,)}
    before = width
    for i, depth in enumerate(DEPTHS[name]):
        narrow, wide = width << i, width * 4 << i
        for block in range(depth):
            convs = {
                "branch2a": (narrow, before, 1, 1),
                "branch2b": (narrow, narrow, 3, 3),
                "branch2c": (wide, narrow, 1, 1),
            }
            if block == 0:
                convs["branch1"] = (wide, before, 1, 1)
            for conv, shape in convs.items():
                blob = f"res{i + 2}_{block}_{conv}"
                shapes[f"{blob}_w"] = shape
                shapes |= {f"{blob}_bn_s": shape[:1], f"{blob}_bn_b": shape[:1]}
            before = wide
    return shapes | {"fc1000_w": (classes, before), "fc1000_b": (classes,)}


def random_blobs(name="R-50", bias=False):
    rng = np.random.default_rng(0)
    shapes = detectron_shapes(name, width=8, classes=5)
    if bias:
        shapes["conv1_b"] = (8,)
    return {
        blob: (rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)
        for blob, shape in shapes.items()
    }


def detectron_network(**options):
    """Detectron's network: the padded pool1, no bias."""
    return backbones.resnet50(
        width=8, num_classes=5, stride_in_1x1=True, preprocessing=CAFFE_BGR, **options
    )


def affine_stage(blobs, images, bias=None):
    """conv1 … conv2_x as Detectron computes them, with AffineChannel after each convolution."""
    t = {name: torch.from_numpy(blob) for name, blob in blobs.items()}

    def affine(x, name):
        return x * t[f"{name}_s"][:, None, None] + t[f"{name}_b"][:, None, None]

    x = F.conv2d(images, t["conv1_w"], bias, stride=2, padding=3)
    x = F.max_pool2d(F.relu(affine(x, "res_conv1_bn")), 3, 2, 1)
    for block in range(3):
        y = x
        for conv in "abc":
            name = f"res2_{block}_branch2{conv}"
            y = affine(F.conv2d(y, t[f"{name}_w"], padding=int(conv == "b")), f"{name}_bn")
            y = y if conv == "c" else F.relu(y)
        if block == 0:
            x = affine(F.conv2d(x, t["res2_0_branch1_w"]), "res2_0_branch1_bn")
        x = F.relu(x + y)
    return x


def close(got, expected):
    return (got - expected).abs().max() <= 1e-5 * expected.abs().max() > 0


@pytest.mark.parametrize(("name", "build"), [("R-50", "resnet50"), ("R-101", "resnet101")])
def test_every_name_and_shape(name, build):
    network = getattr(backbones, build)(stride_in_1x1=True, preprocessing=CAFFE_BGR)
    shapes = detectron_shapes(name)
    assert len(shapes) == COUNTS[name]
    blobs = to_detectron(network)
    assert {blob: array.shape for blob, array in blobs.items()} == shapes
    assert {array.dtype for array in blobs.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_computes_detectrons_affine_maps(frozen):
    blobs, network = random_blobs(), detectron_network()
    assert load_weights(network, from_detectron(blobs, network)) == ()
    if frozen:
        network.freeze(5)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert close(network.eval()(images)["c2"], affine_stage(blobs, images))


def test_scale_and_bias_are_kept_to_the_bit():
    blobs, network = random_blobs(), detectron_network()
    load_weights(network, from_detectron(blobs, network))
    x, (scale, bias) = (
        torch.randn(1, 8, 4, 4),
        (torch.from_numpy(blobs[f"res_conv1_bn_{leaf}"])[:, None, None] for leaf in "sb"),
    )
    network.freeze(1)
    assert isinstance(network.bn1, FrozenBatchNorm2d)
    assert torch.equal(network.bn1(x), x * scale + bias)
    back = to_detectron(network)
    assert back.keys() == blobs.keys()
    for name, array in back.items():
        np.testing.assert_array_equal(array, blobs[name], err_msg=name)


def test_statistics_go_into_scale_and_bias(randomise):
    network, other = randomise(detectron_network()), detectron_network()
    load_weights(other, from_detectron(to_detectron(network), other))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert close(other.eval().logits(images), network.logits(images))


def test_conv1_b_is_folded_or_kept():
    blobs, images = random_blobs(bias=True), torch.randn(2, 3, 64, 64)
    bias = torch.from_numpy(blobs["conv1_b"])
    without = detectron_network()
    load_weights(without, from_detectron(blobs, without))
    caffe = backbones.caffe_resnet50(width=8, num_classes=5)
    load_weights(caffe, from_detectron(blobs, caffe))
    assert torch.equal(caffe.conv1.bias, bias)
    assert (caffe.bn1.running_mean == 0).all()
    with torch.no_grad():
        assert close(without.eval()(images)["c2"], affine_stage(blobs, images, bias))
        stem, folded = (n.eval().bn1(n.conv1(images)) for n in (caffe, without))
        assert close(folded, stem)
    # Detectron reads no conv1_b, so it is folded on the way out.
    assert "conv1_b" not in to_detectron(caffe)
    load_weights(without, from_detectron(to_detectron(caffe), without))
    with torch.no_grad():
        assert close(without.eval().bn1(without.conv1(images)), stem)


def test_no_conv1_b_is_a_bias_of_zero():
    network = backbones.caffe_resnet50(width=8, num_classes=5)
    weights = from_detectron(random_blobs(), network)
    assert (weights.state["conv1.bias"] == 0).all()
    assert load_weights(network, weights) == ()


@pytest.mark.parametrize("form", ["flat", "blobs", "model"])
def test_a_pickle_in_each_form(form, tmp_path):
    blobs = random_blobs()
    blobs |= {"conv_rpn_w": np.ones(3), "res2_0_branch2a_w_momentum": np.ones(3), "lr": 0.01}
    content = {"blobs": {"blobs": blobs, "cfg": "x: 1"}, "model": {"model": blobs}}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content.get(form, blobs), protocol=2))
    network = detectron_network()
    weights = from_detectron(path, network)
    assert weights.preprocessing == CAFFE_BGR
    assert weights.stride_in_1x1 is True
    assert load_weights(network, weights) == ()
    np.testing.assert_array_equal(network.conv1.weight.detach().numpy(), blobs["conv1_w"])
    assert network.preprocessing == CAFFE_BGR


def test_every_misfit_is_named_as_detectron_names_it():
    blobs = random_blobs()
    del blobs["res2_0_branch2a_w"]
    blobs["res3_1_branch2b_bn_s"] = np.zeros(3, np.float32)
    blobs["res9_w"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="Detectron's") as error:
        from_detectron(blobs, detectron_network())
    assert str(error.value).splitlines() == [
        "Detectron's weights do not fit resnet50:",
        "  missing: res2_0_branch2a_w, expected (8, 8, 1, 1)",
        "  shape: res3_1_branch2b_bn_s, expected (16,), got (3,)",
        "  unexpected: res9_w, got (1,)",
    ]


def test_only_floats():
    blobs = random_blobs() | {"conv1_w": np.zeros((8, 3, 7, 7), np.int64)}
    with pytest.raises(ValueError, match="conv1_w: expected an array of floats, got int64"):
        from_detectron(blobs, detectron_network())


def test_an_older_classifiers_name():
    blobs = random_blobs()
    blobs["pred_w"], blobs["pred_b"] = blobs.pop("fc1000_w"), blobs.pop("fc1000_b")
    assert "fc.weight" in from_detectron(blobs, detectron_network()).state


@pytest.mark.parametrize("give", [to_detectron, to_detectron2])
@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (backbones.resnet50(width=8, stride_in_1x1=True), "expected images as .*bgr.*got .*rgb"),
        (
            backbones.resnet50(width=8, preprocessing=CAFFE_BGR),
            "stride in the first 1×1 convolution, got the 3×3",
        ),
        (backbones.vgg16(width=4, preprocessing=CAFFE_BGR), "expected a ResNet.*got vgg16"),
        (backbones.plain18(width=8, preprocessing=CAFFE_BGR), "shortcuts B"),
    ],
)
def test_networks_detectron_would_run_differently_are_refused(network, reason, give):
    with pytest.raises(ValueError, match=reason):
        give(network)


@pytest.mark.parametrize("take", [from_detectron, from_detectron2])
def test_the_other_stride_is_refused_on_the_way_in(take):
    source = to_detectron(detectron_network())
    if take is from_detectron2:
        source = to_detectron2(detectron_network())
    network = backbones.resnet50(width=8, num_classes=5)
    with pytest.raises(ValueError, match="stride"):
        load_weights(network, take(source, network))


def detectron2_names(depths, prefix=""):
    """The keys of Detectron2's own ResNet."""
    leaves = ("weight", "bias", "running_mean", "running_var")
    names = {"stem.conv1.weight", *(f"stem.conv1.norm.{leaf}" for leaf in leaves)}
    for i, depth in enumerate(depths):
        for block in range(depth):
            for conv in ("conv1", "conv2", "conv3", *(["shortcut"] if block == 0 else [])):
                name = f"res{i + 2}.{block}.{conv}"
                names |= {f"{name}.weight", *(f"{name}.norm.{leaf}" for leaf in leaves)}
    return {prefix + name for name in names} | {"linear.weight", "linear.bias"}


def test_detectron2s_names_and_the_way_back(randomise):
    network, other = randomise(detectron_network()), detectron_network()
    state = to_detectron2(network)
    assert state.keys() == detectron2_names(DEPTHS["R-50"])
    assert load_weights(other, from_detectron2(state, other)) == ()
    assert all(
        torch.equal(value, network.state_dict()[name])
        for name, value in other.state_dict().items()
        if "num_batches" not in name
    )


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
@pytest.mark.parametrize("pyramid", [False, True])
def test_a_detector_of_detectron2(suffix, pyramid, randomise, tmp_path):
    network = randomise(detectron_network())
    state = {}
    for name, tensor in to_detectron2(network).items():
        if name.startswith("res5.") and not pyramid:
            state[f"roi_heads.{name}"] = tensor
        elif not name.startswith("linear."):
            state[f"backbone.{'bottom_up.' if pyramid else ''}{name}"] = tensor
    extra = ("proposal_generator.rpn_head.conv.weight", "backbone.fpn_lateral2.weight")
    state |= dict.fromkeys((*extra, "roi_heads.box_predictor.bbox_pred.bias"), torch.ones(3))
    path = tmp_path / f"model_final{suffix}"
    if suffix == ".pth":
        torch.save({"model": state, "iteration": 3}, path)
    else:
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2"}))
    other = detectron_network()
    weights = from_detectron2(path, other)
    assert (weights.preprocessing, weights.stride_in_1x1) == (CAFFE_BGR, True)
    assert load_weights(other, weights, fresh=["fc"]) == ("fc.weight", "fc.bias")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other.eval()(images)["c5"], network(images)["c5"])


def test_affine_norms_of_detectron2_without_statistics():
    network = detectron_network()
    blobs = random_blobs()
    load_weights(network, from_detectron(blobs, network))
    state = {k: v for k, v in to_detectron2(network).items() if "running" not in k}
    other = detectron_network()
    load_weights(other, from_detectron2(state, other))
    assert torch.equal(other.bn1.running_var, network.bn1.running_var)
    state["res2.0.conv1.norm.running_var"] = torch.ones(8)
    with pytest.raises(ValueError, match=r"missing: stem\.conv1\.norm\.running_mean"):
        from_detectron2(state, other)


def test_torchvisions_weights_for_detectron2(tmp_path):
    """As Detectron2's convert-torchvision-to-d2.py writes them: RGB, the stride in the 3×3."""
    network = backbones.resnet50(width=8, num_classes=5)
    state = {}
    for name, tensor in network.state_dict().items():
        key = name if "layer" in name else f"stem.{name}"
        for i in (1, 2, 3, 4):
            key = key.replace(f"layer{i}", f"res{i + 1}").replace(f"bn{i}", f"conv{i}.norm")
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        state[key] = tensor.numpy()
    path = tmp_path / "R-50.pkl"
    content = {"model": state, "__author__": "torchvision", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))
    other = backbones.resnet50(width=8, num_classes=5, preprocessing=CAFFE_BGR)
    weights = from_detectron2(path, other)
    assert weights.stride_in_1x1 is False
    assert load_weights(other, weights) == ()
    assert other.preprocessing == IMAGENET_RGB
    assert torch.equal(other.fc.weight, network.fc.weight)


def test_a_broken_pth_is_named(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"model\.pth: not readable as weights"):
        from_detectron2(path, detectron_network())
    torch.save([torch.ones(1)], path)
    with pytest.raises(ValueError, match=r"model\.pth: expected a dict, got list"):
        from_detectron2(path, detectron_network())
