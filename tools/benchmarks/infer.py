"""One image from bytes to detections, beside torchvision's detector in float32."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from resdet.tools.benchmarks.detectors import (
    SIZES,
    add_detector_arguments,
    check_detections,
    make_pair,
    peer_inputs,
    random_batch,
)
from resdet.tools.benchmarks.protocol import alternate, conditions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's options."""
    add_detector_arguments(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the gate, then the clock.

    Raises:
        GateError: if the two sides do not detect the same.
    """
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pair = make_pair(options.model, options.backbone)
    ours, peer = pair.ours.eval().to(device), pair.peer.eval().to(device)
    batch, _ = random_batch(1, SIZES[options.model])
    batch = batch._make(part.to(device) for part in batch)
    compared = check_detections(pair, batch)
    images, _ = peer_inputs(batch, [])
    half = options.precision == "bf16"

    @torch.inference_mode()
    def run_peer() -> None:
        peer(images)

    @torch.inference_mode()
    def run_ours() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            ours(batch)

    return {
        "subject": f"infer {options.model} {options.backbone} {options.precision}",
        "peer": "torchvision, float32, images already converted and on the device",
        "size": SIZES[options.model],
        "detections_compared": compared,
        **alternate(run_peer, run_ours, options.rounds),
        **conditions(device),
    }
