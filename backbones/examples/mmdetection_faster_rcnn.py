"""MMDetection's Faster R-CNN with a feature pyramid on ResNet-18: its losses, and gradients.

Small enough for a CPU and without downloads. For real: ``weights="IMAGENET1K_V1"`` and no width;
in a configuration file, ``custom_imports = dict(imports=["backbones.interop.mmdetection"])``.
"""

import sys

try:
    from backbones.interop.mmdetection import data_preprocessor
except ImportError as error:
    print(error)  # noqa: T201
    sys.exit()

from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs, get_detector_cfg
from mmdet.utils import register_all_modules

from backbones import IMAGENET_RGB

register_all_modules()
config = get_detector_cfg("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py")
# The line: any network of the catalogue, here narrow, and images as its weights expect them.
config.backbone = {"type": "ResdetBackbone", "network": "resnet18", "width": 8, "frozen_stages": 1}
config.data_preprocessor = data_preprocessor(IMAGENET_RGB, pad_size_divisor=32)
config.neck.in_channels = [8, 16, 32, 64]
detector = MODELS.build(config).train()
detector.init_weights()

batch = detector.data_preprocessor(demo_mm_inputs(2, [[3, 128, 128], [3, 96, 128]]), True)
losses = detector.forward(**batch, mode="loss")
loss, _ = detector.parse_losses(losses)
loss.backward()
print(f"loss {loss.item():.3f}")  # noqa: T201
