"""Mask2Former on all features of ResNet-18, whose batch norms learn: a training step.

Small enough for a CPU and without downloads. For real: ``BackboneConfig("resnet50", …)``,
``load_backbone_weights(model, "IMAGENET1K_V1")`` and Mask2Former's own sizes.
"""

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from backbones.interop.huggingface import BackboneConfig

WIDTHS = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32}
SMALL = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 5}

# The line: any network of the catalogue, here narrow; conv1 is frozen, no batch norm is.
backbone = BackboneConfig(
    "resnet18",
    {"width": 8},
    frozen_stages=1,
    frozen_batch_norm=False,
    out_features=["c2", "c3", "c4", "c5"],
)
config = Mask2FormerConfig(
    backbone_config=backbone, num_labels=3, train_num_points=64, **WIDTHS, **SMALL
)
model = Mask2FormerForUniversalSegmentation(config).train()

images, masks = torch.randn(2, 3, 64, 64), torch.zeros(1, 64, 64)
masks[:, 16:48, 8:40] = 1
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
labels = torch.tensor([1])
outputs = model(images, mask_labels=[masks, masks], class_labels=[labels, labels])
outputs.loss.backward()
optimizer.step()
print(f"loss {outputs.loss.item():.3f}")  # noqa: T201
