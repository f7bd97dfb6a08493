"""Torchvision's SSD on three features of VGG-16: a training step and an inference.

Small enough for a CPU and without downloads. For real: no width, images of 300×300, and before
the model is made ``load_weights(network, "IMAGENET1K_V1")``.
"""

import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from backbones import vgg16_bn
from backbones.interop.torchvision import features

network = vgg16_bn(width=8)
network.freeze(2)
boxes = DefaultBoxGenerator([[2], [2, 3], [2, 3]])
# The line: any network, and images normalised as its weights expect them.
maps = features(network, ["c3", "c4", "c5"])
detector = SSD(**maps, anchor_generator=boxes, size=(96, 96), num_classes=21)

image = torch.rand(3, 96, 128)
target = {"boxes": torch.tensor([[8.0, 8.0, 56.0, 40.0]]), "labels": torch.tensor([1])}
optimizer = torch.optim.SGD([x for x in detector.parameters() if x.requires_grad], lr=1e-3)
loss = sum(detector([image], [target]).values())
loss.backward()
optimizer.step()
(found,) = detector.eval()([image])
print(f"loss {loss.item():.3f}, {len(found['boxes'])} boxes")  # noqa: T201
