"""RT-DETR on three features of ResNet-50: a training step.

Small enough for a CPU and without downloads. For real: ``BackboneConfig("resnet50", …)``, whose
features have 512, 1024 and 2048 channels (RT-DETR's ``encoder_in_channels``),
``load_backbone_weights(detector, "IMAGENET1K_V1")`` and, because RT-DETR's own image processor
does not normalise, ``image_processor(RTDetrImageProcessor, …)``.
"""

import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection

from backbones.interop.huggingface import BackboneConfig

SMALL = {"d_model": 32, "encoder_hidden_dim": 32, "encoder_ffn_dim": 32, "decoder_layers": 1}
LAYERS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 5}
CHANNELS = {"encoder_in_channels": [64, 128, 256], "decoder_in_channels": [32, 32, 32]}

# The line: any network of the catalogue, here narrow, and which of its features are read.
backbone = BackboneConfig("resnet50", {"width": 8}, out_features=["c3", "c4", "c5"])
config = RTDetrConfig(backbone_config=backbone, num_labels=3, **SMALL, **LAYERS, **CHANNELS)
detector = RTDetrForObjectDetection(config).train()

labels = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.3, 0.5, 0.4, 0.5]])}
optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-4)
loss = detector(pixel_values=torch.randn(2, 3, 64, 64), labels=[labels, labels]).loss
loss.backward()
optimizer.step()
print(f"loss {loss.item():.3f}")  # noqa: T201
