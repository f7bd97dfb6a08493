import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import backbones
from backbones import CAFFE_BGR, IMAGENET_RGB, load_weights
from backbones.convert import to_caffe, to_detectron, to_detectron2, to_timm
from backbones.convert.pickles import read_pickle
from backbones.weights import read_weights, save_weights
from resdet.tools.convert import main

SMALL = ["--network", "resnet18", "--classes", "3"]
UNREAD = ["x", "o.safetensors"]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch):
    """The tool's networks at an eighth of the width."""
    build = backbones.build
    monkeypatch.setattr(backbones, "build", lambda name, **options: build(name, width=8, **options))


def network(name="resnet18", **options):
    torch.manual_seed(0)
    return getattr(backbones, name)(width=8, num_classes=3, **options)


def same(path, expected):
    state = {k: v for k, v in expected.state_dict().items() if "num_batches" not in k}
    got = {k: v for k, v in load_file(path).items() if "num_batches" not in k}
    assert got.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(got[name], value, msg=name)


def test_timm_and_back(tmp_path, capsys):
    ours = network()
    save_file(to_timm(ours), tmp_path / "timm.safetensors")
    source, target = str(tmp_path / "timm.safetensors"), str(tmp_path / "ours.safetensors")
    assert main([source, target, *SMALL, "--from", "timm"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    same(target, ours)
    assert read_weights(target).preprocessing == IMAGENET_RGB
    again = str(tmp_path / "again.safetensors")
    assert main([target, again, *SMALL, "--to", "timm"]) == 0
    assert all(torch.equal(x, to_timm(ours)[name]) for name, x in load_file(again).items())


def test_huggingface_and_back(tmp_path):
    pytest.importorskip("transformers")
    ours = network()
    save_weights(ours, tmp_path / "ours.safetensors")
    folder, again = str(tmp_path / "folder"), str(tmp_path / "again.safetensors")
    assert main([str(tmp_path / "ours.safetensors"), folder, *SMALL, "--to", "huggingface"]) == 0
    assert json.loads((tmp_path / "folder/config.json").read_text())["layer_type"] == "basic"
    assert main([folder, again, *SMALL, "--from", "huggingface"]) == 0
    same(again, ours)


@pytest.mark.parametrize("kind", ["detectron", "detectron2"])
def test_detectron_and_back(kind, tmp_path):
    options = ["--network", "resnet50", "--stride-in-1x1", "--classes", "3"]
    ours = network("resnet50", stride_in_1x1=True, preprocessing=CAFFE_BGR)
    blobs = to_detectron(ours)
    if kind == "detectron2":
        blobs = {name: tensor.numpy() for name, tensor in to_detectron2(ours).items()}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(blobs, protocol=2))
    target, again = tmp_path / "ours.safetensors", tmp_path / "again.pkl"
    assert main([str(tmp_path / "R-50.pkl"), str(target), *options, "--from", kind]) == 0
    same(target, ours)
    assert read_weights(target).preprocessing == CAFFE_BGR
    assert read_weights(target).stride_in_1x1 is True
    assert main([str(target), str(again), *options, "--to", kind]) == 0
    data = again.read_bytes()
    assert b"numpy.core.multiarray" in data
    assert b"numpy._core" not in data  # which NumPy before 1.26 lacks
    content = read_pickle(again)
    content = content["model"] if kind == "detectron2" else content
    assert content.keys() == blobs.keys()
    for name, blob in blobs.items():
        np.testing.assert_allclose(content[name], blob, rtol=1e-6, err_msg=name)


def test_caffe_and_back(tmp_path):
    ours = network("caffe_resnet50")
    files = tmp_path / "deploy.prototxt", tmp_path / "blobs.npz"
    to_caffe(ours, *files)
    options = ["--network", "caffe_resnet50", "--classes", "3", "--prototxt"]
    target = tmp_path / "ours.safetensors"
    assert main([str(files[1]), str(target), *options, str(files[0]), "--from", "caffe"]) == 0
    same(target, ours)
    own = tmp_path / "own.prototxt", tmp_path / "own.npz"
    assert main([str(target), str(own[1]), *options, str(own[0]), "--to", "caffe"]) == 0
    assert own[0].read_text() == files[0].read_text()


def test_a_fresh_layer(tmp_path):
    state = {name: x for name, x in to_timm(network()).items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "timm.safetensors")
    arguments = [str(tmp_path / "timm.safetensors"), str(tmp_path / "o.safetensors"), *SMALL]
    assert main([*arguments, "--from", "timm"]) == 1
    assert main([*arguments, "--from", "timm", "--fresh", "fc"]) == 0
    load_weights(network(), tmp_path / "o.safetensors")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.safetensors", "o.safetensors", *SMALL, "--from", "timm"], "none.safetensors"),
        (["none.pkl", "o.safetensors", *SMALL, "--from", "detectron"], "none.pkl"),
        ([*UNREAD, "--network", "resnet51", "--from", "timm"], "unknown backbone 'resnet51'"),
        (
            [*UNREAD, "--network", "vgg16", "--stride-in-1x1", "--from", "timm"],
            "--stride-in-1x1 is not for vgg16",
        ),
        ([*UNREAD, *SMALL, "--stride-in-1x1", "--from", "timm"], "a basic block has no 1×1"),
        (["x", "o.pth", *SMALL, "--from", "timm"], "expected a name that ends in .safetensors"),
        (["x", "o.pth", *SMALL, "--to", "timm"], "expected a name that ends in .safetensors"),
        (["x", "o.pth", *SMALL, "--to", "detectron"], "o.pth: expected a name that ends in .pkl"),
        (["x", "o", *SMALL, "--to", "detectron2"], "o: expected a name that ends in .pkl"),
        (
            ["x", "o.npy", *SMALL, "--prototxt", "p", "--to", "caffe"],
            "o.npy: expected a name that ends in .npz",
        ),
        (["x", "no/o.safetensors", *SMALL, "--from", "timm"], "expected a folder at no"),
        (["x", "no/o.safetensors", *SMALL, "--to", "timm"], "expected a folder at no"),
        (["x", "no/o.pkl", *SMALL, "--to", "detectron"], "expected a folder at no"),
        (["x", "o.npz", *SMALL, "--prototxt", "no/p", "--to", "caffe"], "expected a folder at no"),
    ],
)
def test_bad_input_is_one_line(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("resdet convert: ")
    assert reason in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_other_stride_is_refused(tmp_path, capsys):
    blobs = to_detectron(network("resnet50", stride_in_1x1=True, preprocessing=CAFFE_BGR))
    source, target = tmp_path / "R-50.pkl", tmp_path / "ours.safetensors"
    source.write_bytes(pickle.dumps(blobs, protocol=2))
    options = ["--network", "resnet50", "--classes", "3", "--from", "detectron"]
    assert main([str(source), str(target), *options]) == 1
    assert "stride" in capsys.readouterr().err
    assert not target.exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    path = tmp_path / "ours.safetensors"
    save_weights(network(), path)
    before = path.read_bytes()
    assert main([str(path), str(path), *SMALL, "--to", "timm"]) == 1
    assert f"expected no file yet at {path}" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("options", [["--from", "caffe"], ["--from", "timm", "--prototxt", "p"]])
def test_a_prototxt_is_caffes(options, capsys):
    with pytest.raises(SystemExit):
        main(["a", "b", *SMALL, *options])
    assert "--prototxt goes with caffe" in capsys.readouterr().err
