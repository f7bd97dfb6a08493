"""torchvision's Faster R-CNN with the same weights as one of ours.

The twin has torchvision's own trunk, with its frozen batch norm, RPN and RoI heads; only the
anchors' shapes are ours, where torchvision has none of the paper's.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import backbones
from detection.model.build import DetectorSpec
from detection.model.criterion import Criterion
from detection.model.faster_rcnn import FasterRCNN

PREFIXES = {
    "trunk.": "backbone.",
    "rpn.conv.": "rpn.head.conv.0.0.",
    "rpn.objectness.": "rpn.head.cls_logits.",
    "rpn.deltas.": "rpn.head.bbox_pred.",
    "roi_head.tail.": "roi_heads.box_head.",
    "roi_head.class_logits.": "roi_heads.box_predictor.cls_score.",
    "roi_head.deltas.": "roi_heads.box_predictor.bbox_pred.",
}


def twin(detector: FasterRCNN, spec: DetectorSpec, criterion: Criterion) -> TorchvisionFasterRCNN:
    """Assembles torchvision's detector with the weights and constants of ours.

    It takes images already resized, as ours does.

    Args:
        detector: ours, with RoIAlign.
        spec: what it is made of; a ResNet.
        criterion: the constants of training. torchvision has one sigma, 3, for both losses, and
            trains anchors that leave the image.

    Returns:
        The twin, in training mode.
    """
    network = getattr(torchvision.models, spec.backbone)(weights=None)
    backbone, head = _pyramid(network) if spec.pyramid else _cut(network)
    levels = [str(index) for index in range(len(detector.roi_head.pool.strides))]
    pool = MultiScaleRoIAlign(levels, detector.roi_head.pool.size, 2)
    anchors = AnchorGenerator(((0,),) * len(detector.rpn.anchors.strides))
    anchors.cell_anchors = [
        getattr(detector.rpn.anchors, f"cell_anchors{level}").clone()
        for level in range(len(detector.rpn.anchors.strides))
    ]
    anchors.num_anchors_per_location = lambda: (
        [detector.rpn.anchors.per_position] * len(anchors.cell_anchors)
    )
    channels = detector.rpn.conv.in_channels
    rpn_head = RPNHead(channels, detector.rpn.anchors.per_position)
    width = detector.rpn.conv.out_channels
    rpn_head.conv[0][0] = nn.Conv2d(channels, width, 3, padding=1)
    rpn_head.cls_logits = nn.Conv2d(width, detector.rpn.anchors.per_position, 1)
    rpn_head.bbox_pred = nn.Conv2d(width, 4 * detector.rpn.anchors.per_position, 1)
    head_width = detector.roi_head.deltas.in_features
    predictor = FastRCNNPredictor(head_width, detector.roi_head.classes + 1)
    model = TorchvisionFasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=rpn_head,
        box_roi_pool=pool,
        box_head=head,
        box_predictor=predictor,
        **_constants(spec, criterion),
    )
    model.transform.resize = lambda image, target: (image, target)
    model.rpn.min_size = spec.proposals.min_side
    _freeze_norms(detector, model)
    model.load_state_dict(theirs(detector.state_dict()))
    return model


def theirs_name(name: str) -> str:
    """Returns torchvision's name of a parameter or layer of ours."""
    prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
    return PREFIXES[prefix] + name.removeprefix(prefix)


def theirs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the entries of our detector's state dict to torchvision's; background box is 0."""
    renamed = {}
    for name, value in state.items():
        box = name.startswith("roi_head.deltas.")
        mapped = torch.cat((torch.zeros_like(value[:4]), value)) if box else value
        renamed[theirs_name(name)] = mapped
    return renamed


def _freeze_norms(detector: FasterRCNN, model: nn.Module) -> None:
    for name, layer in detector.named_modules():
        if isinstance(layer, backbones.FrozenBatchNorm2d):
            model.set_submodule(theirs_name(name), FrozenBatchNorm2d(len(layer.weight), layer.eps))


def _constants(spec: DetectorSpec, criterion: Criterion) -> dict[str, float]:
    sampling = criterion.rpn.sampler, criterion.roi.sampler
    return {
        "rpn_pre_nms_top_n_train": criterion.proposals.before_nms,
        "rpn_pre_nms_top_n_test": spec.proposals.before_nms,
        "rpn_post_nms_top_n_train": criterion.proposals.after_nms,
        "rpn_post_nms_top_n_test": spec.proposals.after_nms,
        "rpn_nms_thresh": spec.proposals.nms_threshold,
        "rpn_fg_iou_thresh": criterion.rpn.positive,
        "rpn_bg_iou_thresh": criterion.rpn.negative,
        "rpn_batch_size_per_image": sampling[0].count,
        "rpn_positive_fraction": sampling[0].positive_fraction,
        "box_score_thresh": spec.detections.score_threshold,
        "box_nms_thresh": spec.detections.nms_threshold,
        "box_detections_per_img": spec.detections.per_image,
        "box_fg_iou_thresh": criterion.roi.foreground,
        "box_bg_iou_thresh": criterion.roi.foreground,
        "box_batch_size_per_image": sampling[1].count,
        "box_positive_fraction": sampling[1].positive_fraction,
    }


def _cut(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    trunk = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names))
    trunk.out_channels = network.fc.in_features // 2
    tail = nn.Sequential(
        OrderedDict(layer4=network.layer4, avgpool=network.avgpool, flatten=nn.Flatten())
    )
    return trunk, tail


def _pyramid(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    layers = {f"layer{index}": str(index - 1) for index in range(1, 5)}
    widths = [network.fc.in_features // 2**power for power in (3, 2, 1, 0)]
    trunk = BackboneWithFPN(network, layers, widths, 256, LastLevelMaxPool())
    return trunk, TwoMLPHead(256 * 7**2, 1024)
