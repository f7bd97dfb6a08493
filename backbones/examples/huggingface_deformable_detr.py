"""Deformable DETR on three features of VGG-16: a training step.

Small enough for a CPU and without downloads. For real: ``BackboneConfig("vgg16")``,
``load_backbone_weights(detector, "IMAGENET1K_V1")`` and Deformable DETR's own sizes.
"""

import torch
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

from backbones.interop.huggingface import BackboneConfig

SMALL = {"encoder_layers": 1, "decoder_layers": 2, "d_model": 32, "num_queries": 5}
LAYERS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_labels": 3}

# The line: any network of the catalogue, here narrow, and which of its features are read.
backbone = BackboneConfig("vgg16", {"width": 8}, out_features=["c3", "c4", "c5"])
config = DeformableDetrConfig(backbone_config=backbone, **SMALL, **LAYERS)
detector = DeformableDetrForObjectDetection(config).train()

labels = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.3, 0.5, 0.4, 0.5]])}
optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-4)
loss = detector(pixel_values=torch.randn(1, 3, 64, 64), labels=[labels]).loss
loss.backward()
optimizer.step()
print(f"loss {loss.item():.3f}")  # noqa: T201
