"""The authors' Caffe models: their prototxts' structure and Caffe's arithmetic."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import backbones
from backbones import CAFFE_BGR, load_weights
from backbones.convert import caffe as caffe_module
from backbones.convert import from_caffe, to_caffe
from backbones.convert.prototxt import parse


def counted(blocks):
    return ["a", *(f"b{i}" for i in range(1, blocks))]


RELEASED = {
    "caffe_resnet50": ["abc", "abcd", "abcdef", "abc"],
    "caffe_resnet101": ["abc", counted(4), counted(23), "abc"],
    "caffe_resnet152": ["abc", counted(8), counted(36), "abc"],
}
HEADER = (
    'name: "ResNet"\ninput: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 224\ninput_dim: 224\n'
)


def layer(name, kind, bottoms, top, parameters=""):
    reads = "".join(f'\tbottom: "{bottom}"\n' for bottom in bottoms)
    return f'layer {{\n{reads}\ttop: "{top}"\n\tname: "{name}"\n\ttype: "{kind}"\n{parameters}}}\n'


def conv_norm(name, bottom, outputs, kernel, pad, stride, bias=False, suffix=""):
    """A convolution, which may write a blob of its own as ResNet-50's do, its norm and scale."""
    term = "" if bias else "\t\tbias_term: false\n"
    norm = name.replace("res", "") if name.startswith("res") else f"_{name}"
    return "".join(
        [
            layer(
                name,
                "Convolution",
                [bottom],
                name + suffix,
                f"\tconvolution_param {{\n\t\tnum_output: {outputs}\n\t\tkernel_size: {kernel}\n"
                f"\t\tpad: {pad}\n\t\tstride: {stride}\n{term}\t}}\n",
            ),
            layer(
                f"bn{norm}",
                "BatchNorm",
                [name + suffix],
                name,
                "\tbatch_norm_param {\n\t\tuse_global_stats: true\n\t}\n",
            ),
            layer(
                f"scale{norm}",
                "Scale",
                [name],
                name,
                "\tscale_param {\n\t\tbias_term: true\n\t}\n",
            ),
        ]
    )


def deploy(name="caffe_resnet50", width=8, stride_in_1x1=True):
    """A deploy prototxt as the authors released it, but narrower."""
    bias = name == "caffe_resnet50"
    own = "_conv" if bias else ""
    text = HEADER + conv_norm("conv1", "data", width, 7, 3, 2, bias, own)
    text += layer("conv1_relu", "ReLU", ["conv1"], "conv1")
    pool = "\tpooling_param {\n\t\tkernel_size: 3\n\t\tstride: 2\n\t\tpool: MAX\n\t}\n"
    text += layer("pool1", "Pooling", ["conv1"], "pool1", pool)
    x = "pool1"
    for i, letters in enumerate(RELEASED[name]):
        for j, letter in enumerate(letters):
            block, narrow = f"res{i + 2}{letter}", width << i
            stride = 2 if i and not j else 1
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)
            shortcut = x
            if not j:
                shortcut = f"{block}_branch1"
                text += conv_norm(shortcut, x, narrow * 4, 1, 0, stride)
            a, b, c = (f"{block}_branch2{one}" for one in "abc")
            text += conv_norm(a, x, narrow, 1, 0, first)
            text += layer(f"{a}_relu", "ReLU", [a], a)
            text += conv_norm(b, a, narrow, 3, 1, second, suffix=own)
            text += layer(f"{b}_relu", "ReLU", [b], b)
            text += conv_norm(c, b, narrow * 4, 1, 0, 1)
            text += layer(block, "Eltwise", [shortcut, c], block)
            text += layer(f"{block}_relu", "ReLU", [block], block)
            x = block
    average = "\tpooling_param {\n\t\tkernel_size: 7\n\t\tstride: 1\n\t\tpool: AVE\n\t}\n"
    text += layer("pool5", "Pooling", [x], "pool5", average)
    output = "\tinner_product_param {\n\t\tnum_output: 5\n\t}\n"
    text += layer("fc1000", "InnerProduct", ["pool5"], "fc1000", output)
    return text + layer("prob", "Softmax", ["fc1000"], "prob")


def blobs_of(text):
    """Random blobs of the right shapes, with factors that count."""
    rng, arrays, channels = np.random.default_rng(0), {}, {"data": 3}
    for one in parse(text)["layer"]:
        (name,), (kind,), (top,) = one["name"], one["type"], one["top"]
        width = channels[one["bottom"][0]]
        if kind in ("Convolution", "InnerProduct"):
            (options,) = one[
                "convolution_param" if kind == "Convolution" else "inner_product_param"
            ]
            (outputs,) = options["num_output"]
            side = options.get("kernel_size", [1])[0]
            shape = (outputs, width, side, side) if kind == "Convolution" else (outputs, width)
            arrays[f"{name}/0"] = rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5
            if options.get("bias_term", [True])[0]:
                arrays[f"{name}/1"] = rng.normal(size=outputs)
            width = outputs
        elif kind == "BatchNorm":
            factor = rng.uniform(0.5, 1000)
            arrays[f"{name}/0"] = rng.normal(size=width) * factor
            arrays[f"{name}/1"] = rng.uniform(0.5, 2, size=width) * factor
            arrays[f"{name}/2"] = np.array([factor])
        elif kind == "Scale":
            arrays[f"{name}/0"] = rng.uniform(0.5, 1.5, size=width)
            arrays[f"{name}/1"] = rng.normal(size=width)
        channels[top] = width
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.fixture
def write(tmp_path):
    """Write a prototxt and an npz."""

    def apply(text, blobs=None):
        np.savez(tmp_path / "blobs.npz", **(blobs_of(text) if blobs is None else blobs))
        (tmp_path / "deploy.prototxt").write_text(text)
        return tmp_path / "deploy.prototxt", tmp_path / "blobs.npz"

    return apply


def network(name="caffe_resnet50", **options):
    return getattr(backbones, name)(width=8, num_classes=5, **options)


def close(got, expected):
    return (got - expected).abs().max() <= 1e-5 * expected.abs().max() > 0


def caffe_stage(blobs, images):
    """conv1 … res2c by Caffe's layers, one after the other."""
    t = {name: torch.from_numpy(blob) for name, blob in blobs.items()}

    def normalise(x, suffix):
        bn, scale = f"bn{suffix}", f"scale{suffix}"
        factor = 1 / t[f"{bn}/2"]
        mean, var = (t[f"{bn}/{i}"] * factor for i in (0, 1))
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return x * t[f"{scale}/0"][:, None, None] + t[f"{scale}/1"][:, None, None]

    x = F.conv2d(images, t["conv1/0"], t["conv1/1"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(normalise(x, "_conv1")), 3, 2, ceil_mode=True)
    for block in "abc":
        y = x
        for conv in "abc":
            y = F.conv2d(y, t[f"res2{block}_branch2{conv}/0"], padding=int(conv == "b"))
            y = normalise(y, f"2{block}_branch2{conv}")
            y = y if conv == "c" else F.relu(y)
        if block == "a":
            x = normalise(F.conv2d(x, t["res2a_branch1/0"]), "2a_branch1")
        x = F.relu(x + y)
    return x


def test_the_network_computes_caffes_arithmetic(write):
    text = deploy()
    blobs, ours = blobs_of(text), network()
    weights = from_caffe(*write(text, blobs), ours)
    assert (weights.preprocessing, weights.stride_in_1x1) == (CAFFE_BGR, True)
    assert load_weights(ours, weights) == ()
    images = torch.randn(2, 3, 66, 64)
    with torch.no_grad():
        assert close(ours.eval()(images)["c2"], caffe_stage(blobs, images))


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_structures(name, write, tmp_path):
    text = deploy(name)
    ours = network(name)
    assert load_weights(ours, from_caffe(*write(text), ours)) == ()
    to_caffe(ours, tmp_path / "own.prototxt", tmp_path / "own.npz")
    own = parse((tmp_path / "own.prototxt").read_text())
    names = [(one["name"], one["type"]) for one in parse(text)["layer"]]
    assert [(one["name"], one["type"]) for one in own["layer"]] == names
    with np.load(tmp_path / "own.npz") as arrays:
        assert {key: arrays[key].shape for key in arrays.files} == {
            key: blob.shape for key, blob in blobs_of(text).items()
        }
    convolutions, blocks = {
        "caffe_resnet50": (53, 16),
        "caffe_resnet101": (104, 33),
        "caffe_resnet152": (155, 50),
    }[name]
    assert Counter(kind for _, (kind,) in names) == {
        "Convolution": convolutions,
        "BatchNorm": convolutions,
        "Scale": convolutions,
        "ReLU": 1 + 3 * blocks,
        "Eltwise": blocks,
        "Pooling": 2,
        "InnerProduct": 1,
        "Softmax": 1,
    }


@pytest.mark.parametrize(
    "build",
    [
        network,
        lambda: network("caffe_resnet101"),
        lambda: network("resnet18", preprocessing=CAFFE_BGR),
        lambda: network("resnet50", preprocessing=CAFFE_BGR),
        lambda: network("vgg16", preprocessing=CAFFE_BGR),
        lambda: network("vgg19_bn", preprocessing=CAFFE_BGR),
    ],
)
def test_there_and_back_to_the_bit(build, randomise, tmp_path):
    ours, other = randomise(build()), build()
    ours.freeze(2)
    files = tmp_path / "own.prototxt", tmp_path / "own.npz"
    to_caffe(ours, *files)
    assert load_weights(other, from_caffe(*files, other)) == ()
    expected = ours.state_dict()
    for name, value in other.state_dict().items():
        assert "num_batches" in name or torch.equal(value, expected[name]), name


def test_vggs_names(tmp_path):
    to_caffe(network("vgg16", preprocessing=CAFFE_BGR), tmp_path / "p", tmp_path / "n")
    names = [one["name"][0] for one in parse((tmp_path / "p").read_text())["layer"]]
    convs = [f"conv{i}_{j}" for i, n in enumerate((2, 2, 3, 3, 3), 1) for j in range(1, n + 1)]
    assert [name for name in names if re.fullmatch(r"(conv|fc|pool)\w*(?<!relu)", name)] == [
        *convs[:2],
        "pool1",
        *convs[2:4],
        "pool2",
        *convs[4:7],
        "pool3",
        *convs[7:10],
        "pool4",
        *convs[10:],
        "pool5",
        "fc6",
        "fc7",
        "fc8",
    ]


def test_vggs_arithmetic(write):
    """conv1_1 … pool1 by hand; py-faster-rcnn's prototxts have an Input layer and name ReLUs."""
    ours = network("vgg16", preprocessing=CAFFE_BGR)
    prototxt, npz = write("", {})
    to_caffe(ours, prototxt, npz)
    text = prototxt.read_text()
    text = re.sub(
        r"input: .*\n(input_dim: .*\n)*", 'layer { name: "i" type: "Input" top: "data" }\n', text
    )
    text = re.sub(r'name: "conv(\d_\d)_relu"', r'name: "relu\1"', text)
    prototxt.write_text(text)
    load_weights(ours, from_caffe(prototxt, npz, ours))
    with np.load(npz) as arrays:
        t = {name: torch.from_numpy(arrays[name]) for name in arrays.files if "conv1" in name}
    images = torch.randn(1, 3, 32, 32)
    x = F.relu(F.conv2d(images, t["conv1_1/0"], t["conv1_1/1"], padding=1))
    x = F.max_pool2d(F.relu(F.conv2d(x, t["conv1_2/0"], t["conv1_2/1"], padding=1)), 2)
    with torch.no_grad():
        assert close(ours.features[:5](images), x)


def test_conv1s_bias_folds_away(write):
    """A network whose conv1 has no bias takes the authors' ResNet-50."""
    stem = backbones.Stem(pool="ceil")
    ours = backbones.ResNet(
        backbones.Bottleneck, (3, 4, 6, 3), num_classes=5, width=8, stem=stem, stride_in_1x1=True
    )
    text = deploy()
    blobs = blobs_of(text)
    load_weights(ours, from_caffe(*write(text, blobs), ours))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert close(ours.eval()(images)["c2"], caffe_stage(blobs, images))


def edit(text, name, old, new):
    """Change one layer's text."""
    start = text.index(f'name: "{name}"')
    start, end = text.rindex("layer {", 0, start), text.find("layer {", start)
    assert old in text[start:end]
    return text[:start] + text[start:end].replace(old, new) + text[end:]


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("conv1", "kernel_size: 7", "kernel_size: 5", "conv1: expected kernel_size 7, got 5"),
        ("res3a_branch2a", "stride: 2", "stride: 1", "res3a_branch2a: expected stride 2, got 1"),
        ("pool1", "stride: 2", "stride: 2 pad: 1", "pool1: expected pad 0, got 1"),
        (
            "pool1",
            "stride: 2",
            "stride: 2 round_mode: FLOOR",
            "pool1: expected round_mode CEIL, got FLOOR",
        ),
        (
            "bn2a_branch1",
            "use_global_stats: true",
            "eps: 0.001",
            "bn2a_branch1: expected eps 1e-05, got 0.001",
        ),
        (
            "scale2a_branch1",
            "bias_term: true",
            "bias_term: false",
            "scale2a_branch1: expected bias_term True, got False",
        ),
        ("res2a", "Eltwise", "Concat", "layer 'res2a': expected a type among"),
        (
            "res2a",
            'type: "Eltwise"',
            'type: "Eltwise" eltwise_param { operation: PROD }',
            "res2a: expected operation SUM, got PROD",
        ),
        (
            "res2a",
            'type: "Eltwise"',
            'type: "Eltwise" eltwise_param { coeff: 2 }',
            r"layer 'res2a': expected options among operation, got \['coeff'\]",
        ),
        (
            "res2a",
            'bottom: "res2a_branch1"',
            'bottom: "pool1"',
            r"res2a: expected inputs .*res2a_branch1.*, got .*'pool1'",
        ),
        (
            "res2b_branch2a",
            'bottom: "res2a"',
            'bottom: "res9"',
            "layer 'res2b_branch2a': its bottom 'res9' is nowhere written",
        ),
        ("res2a_relu", "ReLU", "Dropout", "missing: ReLU 'res2a_relu' after res2a"),
        (
            "res5c_relu",
            "}",
            '} layer { name: "s" type: "Softmax" bottom: "res5c" top: "res5c" }',
            "pool5: expected inputs",
        ),
        ("res5c_relu", "layer {", "layers {", r"expected only .* got \['layers'\]"),
        ("conv1", 'name: "conv1"', 'name: "stem"', "unexpected: Convolution 'stem' after data"),
        ("pool1", 'name: "pool1"', 'name: "pool1" phase: 1', r"layer 'pool1': .*\['phase'\]"),
        ("conv1", "stride: 2", "stride: 2 stride: 2", "layer 'conv1': expected one stride, got 2"),
        (
            "conv1",
            "kernel_size: 7",
            "kernel_h: 7 kernel_w: 7",
            r"layer 'conv1': expected options .*\['kernel_h', 'kernel_w'\]",
        ),
        ("bn_conv1", 'bottom: "conv1_conv"', "", "layer 'bn_conv1': expected 1 bottoms"),
    ],
)
def test_another_structure_is_refused_with_the_layers_name(name, old, new, problem, write):
    text = deploy()
    files = write(edit(text, name, old, new), {})
    with pytest.raises(ValueError, match=problem) as error:
        from_caffe(*files, network())
    assert str(files[0]) in str(error.value)


def test_the_stride_in_the_3x3_is_seen(write):
    text = deploy(stride_in_1x1=False)
    files = write(text)
    with pytest.raises(ValueError, match=r"deploy\.prototxt is not ResNet") as error:
        from_caffe(*files, network())
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        f"res{stage}a_branch2{conv}: expected stride {expected}, got {3 - expected}"
        for stage in (3, 4, 5)
        for conv, expected in (("a", 2), ("b", 1))
    ]


def test_a_scale_on_another_branch_is_seen(write):
    """The norm is paired by what it reads, not by its name."""
    text = deploy()
    swapped = edit(text, "scale2a_branch2a", '"res2a_branch2a"', '"res2a_branch1"')
    with pytest.raises(ValueError, match="missing: Scale 'scale2a_branch2a'"):
        from_caffe(*write(swapped), network())


def test_every_blob_that_does_not_fit_is_named(write):
    text = deploy()
    blobs = blobs_of(text)
    del blobs["bn2a_branch1/2"]
    blobs["res3a_branch1/0"] = np.zeros((4, 4, 1, 1), np.float32)
    blobs["res3a_branch1/1"] = np.zeros(64, np.float32)
    files = write(text, blobs)
    with pytest.raises(ValueError, match="does not fit") as error:
        from_caffe(*files, network())
    assert str(error.value).splitlines() == [
        f"{files[1]} does not fit ResNet:",
        "  missing: bn2a_branch1/2, expected (1,)",
        "  shape: res3a_branch1/0, expected (64, 32, 1, 1), got (4, 4, 1, 1)",
        "  unexpected: res3a_branch1/1, got (64,)",
    ]


def test_a_factor_of_zero_is_refused(write):
    text = deploy()
    blobs = blobs_of(text)
    blobs["bn_conv1/2"][:] = 0
    with pytest.raises(ValueError, match=r"expected bn_conv1/2 above 0, got 0\.0"):
        from_caffe(*write(text, blobs), network())


def test_another_number_of_classes_is_for_load_weights_to_refuse(write):
    ours = backbones.caffe_resnet50(width=8, num_classes=7)
    weights = from_caffe(*write(deploy()), ours)
    with pytest.raises(ValueError, match=r"fc\.weight, expected"):
        load_weights(ours, weights)
    assert load_weights(ours, weights, fresh=["fc"]) == ("fc.weight", "fc.bias")


def test_a_network_that_reads_other_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected images as .*bgr.*, got .*rgb"):
        to_caffe(network("resnet18"), tmp_path / "p", tmp_path / "n")
    assert list(tmp_path.iterdir()) == []


def test_broken_arrays_are_named(write, monkeypatch):
    prototxt, npz = write(deploy())
    whole = npz.read_bytes()
    npz.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"blobs\.npz: not readable as npz"):
        from_caffe(prototxt, npz, network())
    np.savez(npz, **{"conv1/0": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"blobs\.npz: not readable as npz.*allow_pickle"):
        from_caffe(prototxt, npz, network())
    np.savez(npz, **{"conv1/0": np.zeros(3, int)})
    with pytest.raises(ValueError, match=r"conv1/0 to be an array of floats, got int64"):
        from_caffe(prototxt, npz, network())
    monkeypatch.setattr(caffe_module, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="expected at most 10 bytes"):
        from_caffe(prototxt, npz, network())
