"""Torchvision's FCOS on P3 … P7 over the Caffe ResNet-50, which reads BGR: a training step.

Small enough for a CPU and without downloads. For real: no width, 256 channels, and before the
model is made ``load_weights(network, from_caffe(…, network))`` of ``backbones.convert``.
"""

import torch
from torchvision.models.detection import FCOS
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from backbones import caffe_resnet50
from backbones.interop.torchvision import pyramid

network = caffe_resnet50(width=8)
network.freeze(2)
# The line: any network, and images normalised as its weights expect them.
levels = pyramid(network, ["c3", "c4", "c5"], channels=64, extra=LastLevelP6P7(64, 64))
detector = FCOS(**levels, num_classes=21, min_size=96, max_size=128)

image = torch.rand(3, 96, 128)
target = {"boxes": torch.tensor([[8.0, 8.0, 56.0, 40.0]]), "labels": torch.tensor([1])}
optimizer = torch.optim.SGD([x for x in detector.parameters() if x.requires_grad], lr=1e-3)
loss = sum(detector([image], [target]).values())
loss.backward()
optimizer.step()
(found,) = detector.eval()([image])
print(f"loss {loss.item():.3f}, {len(found['boxes'])} boxes")  # noqa: T201
