"""One training step of two images, beside torchvision's detector in float32."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from detection.structures import Target
from resdet.tools.benchmarks.detectors import (
    add_detector_arguments,
    check_gradients,
    make_pair,
    peer_inputs,
    random_batch,
)
from resdet.tools.benchmarks.protocol import alternate, conditions

SIZE = (640, 832)
GATE_SIZE = (192, 256)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's options."""
    add_detector_arguments(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the gate, then the clock.

    Raises:
        GateError: if losses' gradients differ.
    """
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    difference = check_gradients(options.model, options.backbone, GATE_SIZE)
    pair = make_pair(options.model, options.backbone)
    ours, peer = pair.ours.train().to(device), pair.peer.train().to(device)
    batch, targets = random_batch(2, SIZE)
    batch = batch._make(part.to(device) for part in batch)
    targets = [Target(*(part.to(device) for part in target)) for target in targets]
    inputs = peer_inputs(batch, targets)
    optimizers = {id(model): _optimizer(model) for model in (ours, peer)}
    half = options.precision == "bf16"

    def step(model: nn.Module, total: torch.Tensor) -> None:
        optimizers[id(model)].zero_grad()
        total.backward()
        optimizers[id(model)].step()

    def run_peer() -> None:
        step(peer, torch.stack(list(peer(*inputs).values())).sum())

    def run_ours() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            losses = pair.criterion(ours, batch, targets)
        step(ours, torch.stack(losses).sum())

    return {
        "subject": f"train {options.model} {options.backbone} {options.precision}",
        "peer": "torchvision, float32, images already converted and on the device",
        "size": SIZE,
        "batch": 2,
        "gradient_difference_float64": difference,
        **alternate(run_peer, run_ours, options.rounds),
        **conditions(device),
    }


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)
