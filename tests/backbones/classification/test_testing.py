import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import normalize

from backbones import CAFFE_BGR, IMAGENET_RGB, build
from backbones.classification.testing import (
    Errors,
    count_errors,
    dense_scores,
    errors,
    measure_errors,
    normalise,
    predict,
)
from backbones.classification.views import views


def test_normalise_is_torchvisions():
    network = build("resnet18", width=8)
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = normalize(images / 255, list(IMAGENET_RGB.mean), list(IMAGENET_RGB.std))
    assert torch.allclose(normalise(network, images), expected, atol=1e-5)


def test_normalise_flips_the_channels_for_caffe():
    network = build("caffe_resnet50", width=8)
    images = torch.randint(0, 256, (1, 3, 5, 4), dtype=torch.uint8)
    blue = normalise(network, images)[:, 0]
    assert torch.allclose(blue, images[:, 2] - CAFFE_BGR.mean[0], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_images_take_the_networks_dtype(dtype):
    network = build("cifar_resnet20", width=8).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = normalise(network, images)
    assert expected.dtype == torch.float32
    assert torch.equal(normalise(network.to(dtype), images), expected.to(dtype))
    found = measure_errors(network, [([images[:, None]], torch.tensor([0, 1]))])
    assert found.images == 2


def test_errors_by_hand():
    scores = torch.tensor([[7.0, 6, 5, 4, 3, 2, 1]] * 4)
    counts = count_errors(scores, torch.tensor([0, 1, 4, 5]))
    assert counts.tolist() == [3, 1, 4]
    assert errors(counts) == Errors(75.0, 25.0, 4)
    # Of three classes one is always among the best five.
    assert count_errors(scores[:, :3], torch.tensor([0, 1, 2, 2])).tolist() == [3, 0, 4]
    with pytest.raises(ValueError, match="at least one image"):
        errors(torch.zeros(3))


def test_a_residual_networks_scores_are_averages_over_the_map():
    network = build("resnet18", width=8, num_classes=5).eval()
    images = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        positions = F.conv2d(network(images)["c5"], network.fc.weight[..., None, None])
        expected = positions.mean((2, 3)) + network.fc.bias
        assert torch.allclose(dense_scores(network, images), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(224, 224), (256, 320)])
def test_vgg_over_a_map_is_the_average_over_windows(size: tuple[int, int]):
    network = build("vgg16", width=4, num_classes=5).eval()
    torch.nn.init.normal_(network.classifier[0].weight, std=0.2)
    torch.nn.init.normal_(network.classifier[3].weight, std=0.2)
    torch.nn.init.normal_(network.classifier[6].weight, std=0.2)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        last = network.features(images)
        windows = last.unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5)
        scores = network.classifier(windows.flatten(3))
        dense = dense_scores(network, images)
        assert torch.allclose(dense, scores.mean((1, 2)), rtol=1e-4, atol=1e-5)
        if size == (224, 224):
            assert torch.allclose(dense, network.logits(images), rtol=1e-4, atol=1e-5)
        small = torch.randn(1, 3, 64, 64)
        assert torch.equal(dense_scores(network, small), network.logits(small))


def test_predictions_are_averaged_after_the_softmax():
    network = build("cifar_resnet20", width=8).eval()
    sizes = [
        torch.randint(0, 256, (2, v, 3, s, s), dtype=torch.uint8) for v, s in ((2, 32), (2, 40))
    ]
    with torch.no_grad():
        one_by_one = [
            [
                network.logits(normalise(network, size[i, j][None])).softmax(1)
                for size in sizes
                for j in range(2)
            ]
            for i in range(2)
        ]
        expected = torch.cat([torch.stack(one).mean(0) for one in one_by_one])
        assert torch.allclose(predict(network, sizes), expected, atol=1e-5)


def test_measured_errors_leave_the_mode_alone():
    network = build("cifar_resnet20", width=8).train()
    images = torch.randint(0, 256, (6, 1, 3, 32, 32), dtype=torch.uint8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        labels = network.eval().logits(normalise(network, images[:, 0])).argmax(1)
    network.train()
    labels[0] = (labels[0] + 1) % 10
    found = measure_errors(network, [([images[:4]], labels[:4]), ([images[4:]], labels[4:])])
    assert found.top1 == pytest.approx(100 / 6)
    assert found.images == 6
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_views():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    (center,) = views(image, "center", 32, None)
    assert np.array_equal(center[0], image[4:36, 14:46])
    (ten,) = views(image, "ten", 32, 36)
    assert ten.shape == (10, 32, 32, 3)
    small, large = views(image, "scales", 32, 36, (20, 40))
    assert small.shape == (2, 20, 30, 3)
    assert np.array_equal(large, np.stack([image, image[:, ::-1]]))
