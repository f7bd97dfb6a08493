from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones import build, freeze_batch_norm
from backbones.classification.responses import Response, draw_responses, layer_responses


class Hand(nn.Module):
    """Two 3×3 layers and a 1×1 between them, each doubling, and batch norms that scale by 3."""

    def __init__(self) -> None:
        super().__init__()
        for i, kernel in enumerate((3, 1, 3)):
            conv, norm = nn.Conv2d(1, 1, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(1)
            nn.init.dirac_(conv.weight)
            conv.weight.data *= 2
            nn.init.constant_(norm.weight, 3)
            norm.eps = 1e-12
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", norm)

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        x = self.norm0(self.conv0(x)).relu_()  # in place, after the response
        x = self.norm1(self.conv1(x))
        return OrderedDict(c2=self.norm2(self.conv2(x)))


def test_by_hand():
    # 0 … 3 in two batches: the deviation of all, not of the batches.
    batches = [torch.tensor([-1.0, 1]).view(2, 1, 1, 1), torch.tensor([3.0]).view(1, 1, 1, 1)]
    network = Hand().train()
    found = layer_responses(network, batches)
    first = torch.tensor([-6.0, 6, 18])
    third = 36 * first.relu()
    assert [response.name for response in found] == ["norm0", "norm2"]
    expected = [first.std(correction=0).item(), third.std(correction=0).item()]
    assert [response.std for response in found] == pytest.approx(expected)
    assert network.training
    assert not network.norm0._forward_hooks
    assert network.norm0.running_mean == 0


def test_every_3x3_layer_in_order_of_depth(randomise):
    network = randomise(build("cifar_resnet20", width=8))
    found = layer_responses(network, [torch.randn(2, 3, 32, 32)])
    blocks = [f"layer{i}.{j}.bn{k}" for i in (1, 2, 3) for j in (0, 1, 2) for k in (1, 2)]
    assert [response.name for response in found] == ["bn1", *blocks]
    bottlenecks = layer_responses(build("resnet50", width=8), [torch.randn(2, 3, 64, 64)])
    assert len(bottlenecks) == 16
    assert all(response.name.endswith("bn2") for response in bottlenecks)


def test_what_has_no_responses_is_refused():
    images = [torch.randn(1, 3, 32, 32)]
    for network, batches in (
        (freeze_batch_norm(build("cifar_resnet20", width=8)), images),
        (build("vgg16", width=4), images),
        (build("cifar_resnet20", width=8), []),
    ):
        with pytest.raises(ValueError, match="batch norms after 3×3"):
            layer_responses(network, batches)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_figure(tmp_path: Path, suffix: str):
    path = tmp_path / f"responses.{suffix}"
    networks = {"plain": [Response("a", 2.0), Response("b", 3.0)], "residual": [Response("a", 1.0)]}
    draw_responses(networks, path)
    assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
