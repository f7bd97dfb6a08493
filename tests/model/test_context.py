from dataclasses import replace

import pytest
import torch
from torch import nn

from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.context import ContextRoIHead, whole_images
from detection.model.criterion import Criterion, RoICriterion, RPNCriterion
from detection.model.matching import Sampler
from detection.model.rpn import ProposalSelection
from detection.structures import Target


def test_whole_images_are_regions_of_their_own_sizes():
    sizes = torch.tensor([[60, 100], [80, 50]])
    wanted = torch.tensor([[0.0, 0, 0, 100, 60], [1, 0, 0, 50, 80]])
    assert torch.equal(whole_images(sizes), wanted)
    assert whole_images(sizes, torch.float64).dtype == torch.float64


class Largest(nn.Module):
    """A pool of one bin: the largest of a region's cells, 10 pixels each."""

    def forward(self, levels, rois):
        bins = [
            levels[0][int(image), :, y1 // 10 : y2 // 10, x1 // 10 : x2 // 10].amax(dim=(1, 2))
            for image, x1, y1, x2, y2 in rois.long().tolist()
        ]
        return torch.stack(bins)[:, :, None, None]


class Doubled(nn.Module):
    """A tail with one weight: the mean of the map, times it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, maps):
        return self.weight * maps.mean(dim=(2, 3))


# A map of 2 x 3 cells of 10 pixels. The last column is padding: the image is 20 x 20.
LEVEL = torch.tensor([[[[1.0, 5.0, 90.0], [3.0, 2.0, 90.0]]]])
ROIS = torch.tensor([[0.0, 0, 0, 10, 20], [0, 10, 0, 20, 10]])  # a column, and a cell
SIZES = torch.tensor([[20, 20]])


def test_features_and_gradients_by_hand():
    level = LEVEL.clone().requires_grad_()
    head = ContextRoIHead(Largest(), Doubled(), 1, classes=1)
    features = head.features([level], ROIS, SIZES)
    # The largest of the column is 3, the cell is 5, the largest of the image is 5; all doubled.
    assert torch.equal(features, torch.tensor([[6.0, 10.0], [10.0, 10.0]]))
    assert head.class_logits.in_features == head.deltas.in_features == 2

    nn.init.zeros_(head.deltas.weight)
    head.class_logits.weight.data = torch.tensor([[0.0, 0.0], [0.5, 0.25]])
    logits, _ = head([level], ROIS, SIZES)
    assert torch.equal(logits[:, 1], torch.tensor([5.5, 7.5]))
    logits[:, 1].sum().backward()
    # The weight: 0.5 x (3 + 5) by the regions and 0.25 x (5 + 5) by the image.
    assert head.tail.weight.grad.item() == 0.5 * 8 + 0.25 * 10
    # Cells: 2 x 0.5 where a region took its maximum; 2 x 0.25 x 2 regions where the image did.
    assert level.grad.tolist() == [[[[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]]]
    wanted = torch.tensor([[16.0, 20.0]])
    assert torch.equal(head.class_logits.weight.grad[1:], wanted)


def test_each_region_sees_its_own_image():
    levels = torch.cat((LEVEL, LEVEL + 10))
    head = ContextRoIHead(Largest(), Doubled(), 1, classes=1)
    rois = torch.tensor([[1.0, 0, 0, 10, 10], [0, 0, 0, 10, 10]])
    features = head.features([levels], rois, SIZES.repeat(2, 1))
    assert torch.equal(features, torch.tensor([[22.0, 30.0], [2.0, 10.0]]))
    # An image without regions has no features, one with none at all neither.
    assert head.features([levels], rois[:0], SIZES.repeat(2, 1)).shape == (0, 2)


def test_names_of_weights_are_the_same_with_context():
    with torch.device("meta"):
        spec = DetectorSpec("resnet18", rpn_width=8)
        plain = faster_rcnn(3, spec).state_dict()
        context = faster_rcnn(3, DetectorSpec("resnet18", rpn_width=8, context=True)).state_dict()
    assert list(plain) == list(context)
    wider = {name for name in plain if plain[name].shape != context[name].shape}
    assert wider == {"roi_head.class_logits.weight", "roi_head.deltas.weight"}
    assert context["roi_head.class_logits.weight"].shape == (4, 2 * 512)


@pytest.mark.parametrize("architecture", ["c4", "pyramid"])
@pytest.mark.parametrize("half", ["region", "image"])
def test_gradients_reach_tail_and_trunk_by_both_ways(
    architecture, half, make_detector, make_batch, make_target
):
    detector = make_detector(architecture, context=True).train()
    head = detector.roi_head
    middle = head.deltas.in_features // 2
    unused = slice(middle, None) if half == "region" else slice(middle)
    with torch.no_grad():
        for layer in (head.class_logits, head.deltas):
            layer.weight[:, unused] = 0.0
    batch, target = make_batch((96, 128)), make_target([[10, 10, 60, 60]])
    losses = Criterion()(detector, batch, [target])
    (losses.roi_class + losses.roi_box).backward()
    for name, parameter in detector.named_parameters():
        # Of a pyramid, the regions see the levels that fit them.
        if name.startswith("roi_head.tail" if architecture == "pyramid" else ("trunk", "roi_head")):
            assert parameter.grad.abs().max() > 0, name


def test_a_detector_with_context_trains(make_batch):
    spec = DetectorSpec(
        "resnet18", width=8, batch_norm="trained", frozen_stages=0, rpn_width=16, context=True
    )
    detector = faster_rcnn(2, replace(spec, anchor_sizes=(32, 64)))
    batch = make_batch((96, 128), (96, 128))
    batch.images[0, :, 10:60, 10:60] = 255
    batch.images[1, :, 40:90, 60:120] = 0
    ignore = torch.tensor([False])
    targets = [
        Target(torch.tensor([[10.0, 10, 60, 60]]), torch.tensor([1]), ignore),
        Target(torch.tensor([[60.0, 40, 120, 90]]), torch.tensor([2]), ignore),
    ]
    criterion = Criterion(
        rpn=RPNCriterion(cross_boundary=True),
        roi=RoICriterion(background=(0.0, 0.5), sampler=Sampler(16, 0.25)),
        proposals=ProposalSelection(before_nms=100, after_nms=20),
    )
    optimizer = torch.optim.Adam(detector.parameters(), lr=3e-3)
    history = []
    for _ in range(20):
        optimizer.zero_grad()
        losses = criterion(detector, batch, targets)
        sum(losses).backward()
        optimizer.step()
        history.append(torch.stack(losses).detach())
    first, last = (sum(part) / 3 for part in (history[:3], history[-3:]))
    assert last.sum() < 0.4 * first.sum()
    assert last[2] < 0.5 * first[2]  # the regions' classes
