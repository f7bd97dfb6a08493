"""Our networks by ``timm.create_model``: feature maps for a detector, and a classifier.

Small enough for a CPU and without downloads. For real: no width, and ``pretrained=True``.
"""

import timm
import torch

from backbones.interop.timm import register

# The line: from here on, timm knows every network for ImageNet under the name resdet_….
register()
model = timm.create_model("resdet_resnet50", features_only=True, out_indices=(1, 2, 3), width=8)
model.model.network.freeze(2)

data = timm.data.resolve_model_data_config(model)  # mean and std, for timm.data.create_transform
maps = model(torch.randn(2, *data["input_size"])[:, :, :64, :96])
sum(x.square().mean() for x in maps).backward()
for stride, x in zip(model.feature_info.reduction(), maps, strict=True):
    print(f"stride {stride}: {tuple(x.shape)}")  # noqa: T201

classifier = timm.create_model("resdet_vgg16_bn", num_classes=10, width=8).eval()
print(f"scores {tuple(classifier(torch.randn(1, 3, 64, 64)).shape)}")  # noqa: T201
