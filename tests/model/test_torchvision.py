"""torchvision's Faster R-CNN, assembled on the same trunk and tail, weight by weight.

Everything runs in float64, so that differences are differences of definition: in float32,
rounding changes the order of nearly equal scores.
"""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection as peers
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, roi_pool

from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.criterion import Criterion, RoICriterion, RPNCriterion
from detection.model.faster_rcnn import FasterRCNN
from detection.model.matching import NEGATIVE, POSITIVE, Sample, Sampler
from detection.model.roi_head import DetectionSelection
from detection.model.rpn import ProposalSelection
from detection.structures import Batch
from resdet.tools.benchmarks.peer import PREFIXES, theirs_name

TRAINED_ANCHORS, TRAINED_REGIONS = (512, 0.5), (32, 0.25)


def peer_value(name: str, value: Tensor) -> Tensor:
    """A parameter of ours as torchvision has it: with box deltas for the background, unused."""
    if name.startswith("roi_head.deltas."):
        return torch.cat((torch.zeros_like(value[:4]), value))
    return value


def evenly(rows: Tensor, count: int) -> Tensor:
    """Count rows from first to last: a sampler without chance."""
    if len(rows) <= count:
        return rows
    return rows[torch.arange(count) * len(rows) // count]


class EvenSampler(Sampler):
    def __call__(self, roles: Tensor) -> Sample:
        count = int(self.count * self.positive_fraction)
        positives = evenly((roles == POSITIVE).nonzero().squeeze(1), count)
        negatives = (roles == NEGATIVE).nonzero().squeeze(1)
        return Sample(positives, evenly(negatives, self.count - len(positives)))


def peer_sampler(count: int, positive_fraction: float):
    """The same in torchvision's terms: lists of labels to lists of masks."""

    def sample(labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        masks: tuple[list[Tensor], list[Tensor]] = ([], [])
        for image_labels in labels:
            positives = evenly((image_labels >= 1).nonzero(), int(count * positive_fraction))
            negatives = evenly((image_labels == 0).nonzero(), count - len(positives))
            for mask, rows in zip(masks, (positives, negatives), strict=True):
                mask.append(torch.zeros(len(image_labels), dtype=torch.bool))
                mask[-1][rows] = True
        return masks

    return sample


class PeerRPN(RegionProposalNetwork):
    def assign_targets_to_anchors(self, anchors, targets):
        # Its labels are float32, and with them its loss, whatever the logits are.
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        return [image_labels.double() for image_labels in labels], boxes


class PeerBackbone(nn.Sequential):
    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(i), level) for i, level in enumerate(super().forward(images)))


class PeerRoIPool(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, levels: dict[str, Tensor], boxes: list[Tensor], _sizes: object) -> Tensor:
        return roi_pool(levels["0"], boxes, self.size, 1 / 16)


def peer_of(detector: FasterRCNN) -> GeneralizedRCNN:
    """Torchvision's detector with the same weights and constants."""
    single = len(detector.rpn.anchors.strides) == 1
    sizes = ((32, 64, 128),) if single else ((32,), (64,), (128,), (256,), (512,))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    if single:
        anchors.cell_anchors = [detector.rpn.anchors.cell_anchors0]
        pool = PeerRoIPool(detector.roi_head.pool.size)
    else:
        pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    head = RPNHead(detector.rpn.conv.in_channels, detector.rpn.anchors.per_position)
    rule = detector.proposals
    before = {"training": rule.before_nms, "testing": rule.before_nms}
    after = {"training": rule.after_nms, "testing": rule.after_nms}
    rpn = PeerRPN(anchors, head, 0.7, 0.3, 0, 0, before, after, rule.nms_threshold)
    rpn.min_size = rule.min_side
    rpn.fg_bg_sampler = peer_sampler(*TRAINED_ANCHORS)
    tail = copy.deepcopy(detector.roi_head.tail)
    predictor = FastRCNNPredictor(
        detector.roi_head.deltas.in_features, detector.roi_head.classes + 1
    )
    roi_heads = RoIHeads(pool, tail, predictor, 0.5, 0.5, 0, 0, None, 0.05, 0.5, 100)
    roi_heads.fg_bg_sampler = peer_sampler(*TRAINED_REGIONS)
    backbone = PeerBackbone(copy.deepcopy(detector.trunk))
    transform = GeneralizedRCNNTransform(0, 0, [], [])
    peer = GeneralizedRCNN(backbone, rpn, roi_heads, transform).double().eval()
    own = {
        theirs_name(name).replace("backbone.", "backbone.0."): peer_value(name, value)
        for name, value in detector.state_dict().items()
    }
    peer.load_state_dict(own)
    return peer


@pytest.fixture(params=["c4", "vgg16", "pyramid"])
def pair(request, make_detector) -> tuple[FasterRCNN, GeneralizedRCNN]:
    detector = make_detector(request.param)
    return detector, peer_of(detector)


def images_of(detector: FasterRCNN, batch: Batch) -> ImageList:
    return ImageList(detector.normalize(batch), [tuple(size) for size in batch.sizes.tolist()])


def test_proposals_and_detections(pair, make_batch):
    detector, peer = pair
    batch = make_batch((128, 192), (100, 150))
    batch = batch._replace(original_sizes=torch.tensor([[256, 96], [333, 77]]))
    images = images_of(detector, batch)
    with torch.no_grad():
        levels = peer.backbone(images.tensors)
        proposals, _ = peer.rpn(images, levels)
        wanted, _ = peer.roi_heads(levels, proposals, images.image_sizes)
        originals = [tuple(size) for size in batch.original_sizes.tolist()]
        wanted = peer.transform.postprocess(wanted, images.image_sizes, originals)
        output = detector.rpn(detector.trunk(images.tensors))
        ours = detector.rpn.propose(output, batch.sizes, detector.proposals)
        found = detector(batch)
    for image in range(2):
        own = ours.boxes[image][ours.valid[image]]
        torch.testing.assert_close(own, proposals[image], rtol=1e-9, atol=1e-9)
        count = len(wanted[image]["scores"])
        assert 10 < count <= 100
        # Regions that pool the same cells would tie, and a tie may go either way.
        assert len(wanted[image]["scores"].unique()) == count
        assert len(wanted[image]["labels"].unique()) > 1
        assert not found.scores[image, count:].any()
        for name in ("boxes", "scores", "labels"):
            own = getattr(found, name)[image, :count]
            torch.testing.assert_close(own, wanted[image][name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("objects", [(3, 2), (3, 0), (0, 0)])
def test_losses_and_gradients(pair, make_batch, make_target, objects):
    detector, peer = pair
    batch = make_batch((128, 192), (100, 150))
    boxes = [[10, 12, 70, 60], [64, 16, 139.5, 81.25], [20, 50, 52, 99]]
    targets = [make_target(boxes[:count]) for count in objects]
    criterion = Criterion(
        rpn=RPNCriterion(sampler=EvenSampler(*TRAINED_ANCHORS), cross_boundary=True),
        roi=RoICriterion(background=(0.0, 0.5), sampler=EvenSampler(*TRAINED_REGIONS), sigma=3.0),
        proposals=detector.proposals,
    )
    losses = criterion(detector, batch, targets)
    sum(losses).backward()

    peer.rpn.training = peer.roi_heads.training = True
    images = images_of(detector, batch)
    peer_targets = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
    levels = peer.backbone(images.tensors)
    proposals, rpn_losses = peer.rpn(images, levels, peer_targets)
    _, roi_losses = peer.roi_heads(levels, proposals, images.image_sizes, peer_targets)
    wanted = (
        rpn_losses["loss_objectness"],
        rpn_losses["loss_rpn_box_reg"],
        roi_losses["loss_classifier"],
        roi_losses["loss_box_reg"],
    )
    torch.testing.assert_close(tuple(losses), wanted, rtol=1e-9, atol=1e-12)
    assert [bool(loss > 0) for loss in losses] == [True, any(objects), True, any(objects)]

    sum(wanted).backward()
    peer_gradients = {name: value.grad for name, value in peer.named_parameters()}
    for name, parameter in detector.named_parameters():
        theirs = peer_gradients[theirs_name(name).replace("backbone.", "backbone.0.")]
        scale = theirs.abs().max().item()
        assert scale > 0 or (".deltas." in name and not any(objects))
        torch.testing.assert_close(
            peer_value(name, parameter.grad), theirs, rtol=1e-9, atol=1e-9 * scale, msg=name
        )


def test_a_published_detector_loads_and_detects_alike(make_batch):
    peer = peers.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=21, min_size=256, max_size=320
    )
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.3, 0.7)
            nn.init.normal_(layer.bias, std=0.1)
    for layer, std in ((peer.roi_heads.box_predictor.cls_score, 2.0), (peer.rpn.head.conv, 1.0)):
        for weight in layer.parameters():
            nn.init.normal_(weight, std=std / weight[0].numel() ** 0.5)
    spec = DetectorSpec(
        "resnet50",
        pyramid=True,
        proposals=ProposalSelection(before_nms=1000, after_nms=1000, min_side=1e-3),
        detections=DetectionSelection(nms_threshold=0.5),
    )
    detector = faster_rcnn(20, spec)
    state = {}
    for name, value in peer.state_dict().items():
        prefix = next(ours for ours, theirs in PREFIXES.items() if name.startswith(theirs))
        own = prefix + name.removeprefix(PREFIXES[prefix])
        state[own] = value[4:] if prefix == "roi_head.deltas." else value
    detector.load_state_dict(state)

    batch = make_batch((256, 320))
    with torch.no_grad():
        (wanted,) = peer.double().eval()([batch.images[0].double() / 255])
        found = detector.double().eval()(batch)
    count = len(wanted["scores"])
    assert count > 20
    assert not found.scores[0, count:].any()
    for name in ("boxes", "scores", "labels"):
        own = getattr(found, name)[0, :count]
        torch.testing.assert_close(own, wanted[name], rtol=1e-5, atol=1e-4)
