"""Images from file to batch, beside torchvision's own data set and transforms."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torchvision.datasets import VOCDetection
from torchvision.transforms import v2

from detection.data.datamodule import DetectionData
from resdet.tools.benchmarks.protocol import alternate, conditions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's options."""
    parser.add_argument("--data", required=True, help="VOCdevkit, with VOC2012 in it")
    parser.add_argument("--images", type=int, default=64, help="images per round")
    parser.add_argument("--rounds", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Decodes, resizes by the 600/1000 rule and flips the same images on both sides.

    torchvision's side ends with float32 in [0, 1], which its detector takes; ours with uint8.
    """
    torch.set_num_threads(1)
    data = DetectionData(
        options.data,
        train="VOC2012/train",
        val="VOC2012/val",
        batch_size=1,
        workers=0,
        skip_empty=False,
    )
    loader = data.train_dataloader()
    draws = [draw for (draw,) in loader.batch_sampler][: options.images]
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(600, max_size=1000),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    folder = options.data.rstrip("/").removesuffix("VOCdevkit")
    files = VOCDetection(folder, "2012", "train", transform=transform)

    def run_peer() -> None:
        for draw in draws:
            files[draw.image]

    def run_ours() -> None:
        for draw in draws:
            loader.collate_fn([loader.dataset[draw]])

    return {
        "subject": "data, one thread",
        "peer": "torchvision VOCDetection and transforms v2",
        "images_per_round": len(draws),
        **alternate(run_peer, run_ours, options.rounds),
        **conditions(torch.device("cpu")),
    }
