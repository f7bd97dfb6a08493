"""Torchvision's DeepLabV3 on a dilated ResNet-50: a training step and an inference.

Small enough for a CPU and without downloads. For real: no width, and before the model is made
``load_weights(network, "IMAGENET1K_V2")``.
"""

import torch
from torch import nn
from torchvision.models.segmentation import DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.transforms.functional import normalize

from backbones import resnet50
from backbones.interop.torchvision import dilate, normalisation, segmentation

network = resnet50(width=8)
network.freeze(2)
dilate(network, stride=8)
# The line: any network.
model = DeepLabV3(segmentation(network), DeepLabHead(network.feature_info[-1].channels, 21))

# DeepLabV3 leaves normalising to its caller.
images = normalize(torch.rand(2, 3, 64, 96), *normalisation(network.preprocessing).values())
classes = torch.randint(0, 21, (2, 64, 96))
optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=1e-3)
loss = nn.CrossEntropyLoss()(model(images)["out"], classes)
loss.backward()
optimizer.step()
scores = model.eval()(images)["out"]
print(f"loss {loss.item():.3f}, scores {tuple(scores.shape)}")  # noqa: T201
