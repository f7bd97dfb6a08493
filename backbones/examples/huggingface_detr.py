"""DETR on ResNet-18: a training step, then the saved detector read back.

Small enough for a CPU and without downloads. For real: ``BackboneConfig("resnet50")``,
``load_backbone_weights(detector, "IMAGENET1K_V1")`` and DETR's own sizes.
"""

from tempfile import TemporaryDirectory

import torch
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

from backbones import resnet18
from backbones.interop.huggingface import BackboneConfig, image_processor, load_backbone_weights
from backbones.weights import Weights

SMALL = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 32, "num_queries": 5}
LAYERS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_labels": 3}

# The line: any network of the catalogue, here narrow; conv1 and conv2_x are frozen.
backbone = BackboneConfig("resnet18", {"width": 8})
detector = DetrForObjectDetection(DetrConfig(backbone_config=backbone, **SMALL, **LAYERS))

pretrained = resnet18(width=8)
weights = Weights(pretrained.state_dict(), pretrained.preprocessing)
preprocessing = load_backbone_weights(detector, weights)
processor = image_processor(
    DetrImageProcessor, preprocessing, size={"shortest_edge": 64, "longest_edge": 96}
)

image = torch.zeros(3, 80, 100, dtype=torch.uint8)
image[0, 20:60, 10:50] = 255  # a red square
objects = {
    "image_id": 0,
    "annotations": [{"bbox": [10, 20, 40, 40], "category_id": 1, "area": 1600, "iscrowd": 0}],
}
batch = processor(images=[image], annotations=[objects], return_tensors="pt")
optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-4)
loss = detector.train()(**batch).loss
loss.backward()
optimizer.step()

with TemporaryDirectory() as folder, torch.no_grad():
    detector.save_pretrained(folder)
    again = DetrForObjectDetection.from_pretrained(folder)
    expected = detector.eval()(batch["pixel_values"]).pred_boxes
    difference = (again(batch["pixel_values"]).pred_boxes - expected).abs().max()
print(f"loss {loss.item():.3f}, difference after saving and loading {difference:.1f}")  # noqa: T201
