"""Torchvision's Mask R-CNN on a feature pyramid over VGG-16: a training step and an inference.

Small enough for a CPU and without downloads. For real: no width and torchvision's own numbers of
regions, and before the model is made ``load_weights(network, "IMAGENET1K_V1")``.
"""

import torch
from torchvision.models.detection import MaskRCNN

from backbones import vgg16
from backbones.interop.torchvision import pyramid

FEW = {"rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 16, "box_detections_per_img": 4}

network = vgg16(width=8)
network.freeze(2)
# The line: any network, and images normalised as its weights expect them.
detector = MaskRCNN(**pyramid(network, channels=32), num_classes=21, **FEW, min_size=96)

image, masks = torch.rand(3, 96, 128), torch.zeros(1, 96, 128, dtype=torch.uint8)
masks[:, 8:40, 8:56] = 1
boxes, labels = torch.tensor([[8.0, 8.0, 56.0, 40.0]]), torch.tensor([1])
optimizer = torch.optim.SGD([x for x in detector.parameters() if x.requires_grad], lr=1e-3)
loss = sum(detector([image], [{"boxes": boxes, "labels": labels, "masks": masks}]).values())
loss.backward()
optimizer.step()
(found,) = detector.eval()([image])
print(f"loss {loss.item():.3f}, masks {tuple(found['masks'].shape)}")  # noqa: T201
