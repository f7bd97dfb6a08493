"""Every network, with and without frozen norms, through PyTorch's exporters: the same maps.

By default one network of each kind of block, shortcut, stem and norm runs; the others, which have
the same layers in other numbers, run with ``-m slow``.
"""

import copy
import io
from collections.abc import Mapping
from itertools import product

import pytest
import torch

import backbones
from backbones import freeze_batch_norm
from backbones.catalogue import IMAGENET

NETWORKS = (*IMAGENET, "cifar_resnet20", "cifar_plain20", "pyramid")
# Every map is larger than one cell: exporters treat a size of one as a constant.
TRACED = (2, 3, 72, 96)
# Older releases export a max-pool for the parity of the sizes it was traced with: 64 is added.
RECENT = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)
OTHER = (3, 3, 101, 75) if RECENT else (3, 3, 136, 160)
SINGLE = (1, 3, 96, 128) if RECENT else (1, 3, 200, 224)
ANY_SIZE = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)


def by_default(*cases):
    """Parametrise by name and by whether batch norms are frozen; slow but for some cases."""
    every = [
        pytest.param(*case, marks=() if case in cases else pytest.mark.slow)
        for case in product(NETWORKS, (False, True))
    ]
    return pytest.mark.parametrize(("name", "frozen"), every)


@pytest.fixture
def network(name, frozen, randomise):
    torch.compiler.reset()
    base = randomise(backbones.build("resnet18" if name == "pyramid" else name, width=8))
    if frozen:
        freeze_batch_norm(base)
    whole = backbones.pyramid(base, channels=8).trunk if name == "pyramid" else base
    return whole.eval().requires_grad_(False)


def maps(outputs):
    """The maps by name; a trunk's by position."""
    return dict(outputs if isinstance(outputs, Mapping) else enumerate(outputs))


def check(exported, network, limit=1e-5, sizes=(OTHER, SINGLE)):
    for size in sizes:
        images = torch.randn(size)
        got, expected = maps(exported(images)), maps(network(images))
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert got[key].shape == value.shape
            assert (got[key] - value).abs().max() <= limit * value.abs().max(), key


@by_default(*product(NETWORKS, (False, True)))
def test_fx(network):
    check(torch.fx.symbolic_trace(network), network, limit=0)


@by_default(
    ("resnet18", False),
    ("plain18", True),
    ("caffe_resnet50", True),
    ("vgg16", False),
    ("vgg16_bn", True),
    ("cifar_resnet20", False),
    ("pyramid", True),
)
@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:FutureWarning")
def test_torchscript(network):
    # strict=False, because the outputs are a dictionary or a list
    traced = torch.jit.trace(network, torch.randn(TRACED), strict=False, check_trace=False)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    check(torch.jit.load(file), network)


@by_default(
    ("resnet18", True),
    ("plain18", False),
    ("vgg16", False),
    ("vgg16_bn", True),
    ("cifar_resnet20", False),
    ("pyramid", False),
)
def test_export(network):
    program = torch.export.export(network, (torch.randn(TRACED),), dynamic_shapes=(ANY_SIZE,))
    check(program.module(), network)


# torch.onnx.export begins with torch.export.
@by_default(("caffe_resnet50", True), ("vgg16_bn", False), ("cifar_resnet20", True))
def test_onnx(network):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    images = torch.randn(TRACED)
    program = torch.onnx.export(
        network, (images,), dynamo=True, dynamic_shapes=(ANY_SIZE,), verbose=False
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (given,), names = session.get_inputs(), list(maps(network(images)))

    def run(images):
        outputs = session.run(None, {given.name: images.numpy()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    check(run, network)


@by_default(("caffe_resnet50", True), ("vgg16", False), ("cifar_resnet20", True))
def test_compile(network):
    # one graph without breaks; torch makes another one for single images
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=True)
    compiled(torch.randn(TRACED))
    with torch.compiler.set_stance("fail_on_recompile"):
        check(compiled, network, sizes=[OTHER])


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "caffe_resnet50", "vgg16_bn", "cifar_resnet20"])
def test_compile_to_machine_code(network):
    # Inductor makes a graph of its own for sizes where Caffe's pool has nothing to round up.
    compiled = torch.compile(network, fullgraph=True, dynamic=True)
    compiled(torch.randn(TRACED))
    check(compiled, network, sizes=[OTHER])


@pytest.mark.parametrize("form", ["export", "compile"])
def test_training_passes_through(form, randomise):
    torch.compiler.reset()
    network = randomise(backbones.resnet18(width=8)).double().train()
    network.freeze(2)
    other, images = copy.deepcopy(network), torch.randn(TRACED, dtype=torch.float64)
    if form == "export":
        other = run = torch.export.export(other, (images,)).module()
    else:
        run = torch.compile(other, backend="aot_eager", fullgraph=True)
    for forward in (network, run):
        sum(x.square().mean() for x in forward(images).values()).backward()
    grads = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    assert {key.split(".")[0] for key in grads} == {"layer2", "layer3", "layer4"}
    for key, expected in grads.items():
        got = other.get_parameter(key).grad
        assert expected.abs().max() > 0, key
        assert (got - expected).abs().max() <= 1e-12 * expected.abs().max(), key
    assert network.get_buffer("layer2.0.bn1.num_batches_tracked") == 1
    for key, expected in network.named_buffers():
        torch.testing.assert_close(other.get_buffer(key), expected, rtol=1e-12, atol=1e-12)
