"""Torchvision's ``create_feature_extractor`` on our networks: any layer's output, by its name.

Small enough for a CPU and without downloads. For real: no width, and before it
``load_weights(network, "IMAGENET1K_V1")``.
"""

import torch
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.transforms.functional import normalize

from backbones import resnet18
from backbones.interop.torchvision import normalisation

network = resnet18(width=8)
network.freeze(2)
# The line: any network.
extractor = create_feature_extractor(network, {"maxpool": "pool1", "layer3": "c4"})

names, _ = get_graph_node_names(network)
images = normalize(torch.rand(2, 3, 64, 96), *normalisation(network.preprocessing).values())
maps = extractor(images)
print(f"{len(names)} layers")  # noqa: T201
for name, x in maps.items():
    print(f"{name} {tuple(x.shape)}")  # noqa: T201
maps["c4"].square().mean().backward()
