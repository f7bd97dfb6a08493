"""Detectron2's Faster R-CNN with conv4_x features of ResNet-50: a training step.

Small enough for a CPU and without downloads. For real: ``weights="IMAGENET1K_V1"`` and no width.
"""

import sys

try:
    from backbones.interop.detectron2 import configure
except ImportError as error:
    print(error)  # noqa: T201
    sys.exit()

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

cfg = get_cfg()
cfg.MODEL.DEVICE = "cpu"
cfg.MODEL.WEIGHTS = ""
# The line: any network of the catalogue, here narrow, and images as its weights expect them.
configure(cfg, "resnet50", weights="", width=16)
cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64  # of the region head's own res5, which reads c4
detector = build_model(cfg).train()

image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
boxes, classes = Boxes(torch.tensor([[8.0, 8.0, 56.0, 40.0]])), torch.tensor([1])
instances = Instances((96, 96), gt_boxes=boxes, gt_classes=classes)
with EventStorage():
    loss = sum(detector([{"image": image, "instances": instances}]).values())
loss.backward()
print(f"loss {loss.item():.3f}")  # noqa: T201
