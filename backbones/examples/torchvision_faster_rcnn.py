"""Torchvision's Faster R-CNN, with conv5_x as its box head and on a feature pyramid.

Small enough for a CPU and without downloads. For real: no width, and before the model is made
``load_weights(network, "IMAGENET1K_V1")``.
"""

import torch
from torchvision.models.detection import FasterRCNN

from backbones import resnet18
from backbones.interop.torchvision import faster_rcnn, pyramid

images = [torch.rand(3, 96, 128), torch.rand(3, 96, 96)]
target = {"boxes": torch.tensor([[8.0, 8.0, 56.0, 40.0]]), "labels": torch.tensor([1])}

for cut in (True, False):
    network = resnet18(width=8)
    network.freeze(2)
    # The line: any network, and images normalised as its weights expect them.
    arguments = faster_rcnn(network, 21) if cut else {**pyramid(network), "num_classes": 21}
    detector = FasterRCNN(**arguments, min_size=96, max_size=128, rpn_post_nms_top_n_test=50)

    optimizer = torch.optim.SGD([x for x in detector.parameters() if x.requires_grad], lr=1e-3)
    loss = sum(detector(images, [target, target]).values())
    loss.backward()
    optimizer.step()
    found = detector.eval()(images)
    print(f"loss {loss.item():.3f}, {len(found[0]['boxes'])} boxes")  # noqa: T201
