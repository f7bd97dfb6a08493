import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbones import build, save_weights
from backbones.normalization import FrozenBatchNorm2d
from detection.model.localization_build import LocalizerSpec, build_localizer

SLIM = LocalizerSpec("resnet18", options={"width": 8}, anchor_sizes=(32, 64), rpn_width=16)


@pytest.mark.parametrize(("feature", "side", "channels"), [("c4", 4, 32), ("c5", 2, 64)])
def test_the_map_that_the_rpn_slides_over(feature: str, side: int, channels: int):
    localizer = build_localizer(7, replace(SLIM, feature=feature)).eval()
    assert localizer.rpn.conv.in_channels == channels
    assert localizer.rpn.classes == 7
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    output = localizer.score_anchors(images, torch.tensor([[1], [7]]))
    assert output.class_logits.shape == (2, 1, side * side * 6)
    # The first anchor's centre is that of the first cell.
    assert output.anchors[0].view(2, 2).mean(0).tolist() == [64 / side / 2] * 2


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_weights_of_a_classifier_of_other_classes(tmp_path: Path, name: str):
    network = build(name, width=8, num_classes=3)
    save_weights(network, tmp_path / "weights.safetensors")
    spec = replace(SLIM, backbone=name, frozen_stages=1)
    localizer = build_localizer(7, spec, weights=str(tmp_path / "weights.safetensors"))
    ours = {tuple(one.shape): one for one in localizer.trunk.parameters()}
    first = next(network.parameters())
    assert torch.equal(ours[tuple(first.shape)], first)
    frozen = [one.requires_grad for one in localizer.trunk.parameters()]
    assert (frozen[0], frozen[-1]) == (False, True)


@pytest.mark.parametrize(("batch_norm", "frozen"), [("frozen", True), ("trained", False)])
def test_batch_norm(batch_norm: str, frozen: bool):
    localizer = build_localizer(7, replace(SLIM, batch_norm=batch_norm))
    kinds = {type(layer) for layer in localizer.modules()}
    assert (FrozenBatchNorm2d in kinds) == frozen
    assert (torch.nn.BatchNorm2d in kinds) != frozen


def test_plain_values_make_the_spec_again():
    spec = replace(SLIM, merge=0.5, feature="c5")
    assert LocalizerSpec.from_plain(json.loads(json.dumps(spec.to_plain()))) == spec


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19'"),
        ({"options": {"widht": 8}}, "backbone resnet18: .*widht"),
        ({"frozen_stages": 9}, "stages to freeze, got 9"),
        ({"feature": "c6"}, "c6"),
    ],
)
def test_values_that_do_not_go_together(values: dict[str, object], reason: str):
    with pytest.raises(ValueError, match=reason):
        build_localizer(7, replace(SLIM, **values))
