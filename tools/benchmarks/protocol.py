"""How two sides are timed: in alternation, in one process, and what is said beside the ratio."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Side = Callable[[], Any]


def alternate(peer: Side, ours: Side, rounds: int) -> dict[str, Any]:
    """Times two sides in turn.

    Args:
        peer: runs the peer once.
        ours: runs ours once.
        rounds: how often each runs, after one run of each that does not count.

    Returns:
        Medians of wall and CPU seconds of each side, and the median, least and greatest ratio of
        the pairs, peer's wall seconds divided by ours.
    """
    peer()
    ours()
    times: dict[str, list[tuple[float, float]]] = {"peer": [], "ours": []}
    for turn in range(rounds):
        order = [("peer", peer), ("ours", ours)]
        for name, side in order if turn % 2 == 0 else reversed(order):
            times[name].append(_time(side))
    ratios = [theirs[0] / own[0] for theirs, own in zip(times["peer"], times["ours"], strict=True)]
    return {
        **{
            f"{name}_{kind}_s": round(statistics.median(value[index] for value in values), 4)
            for name, values in times.items()
            for index, kind in enumerate(("wall", "cpu"))
        },
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "rounds": rounds,
    }


def _time(side: Side) -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    side()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def exact_float32() -> Iterator[None]:
    """Keeps a GPU's convolutions from TF32, which is PyTorch's default there."""
    previous = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = previous


def conditions(device: torch.device) -> dict[str, Any]:
    """Returns what speed depends on besides machine and packages, and the peak memory.

    The convolution peak is measured on the spot.
    """
    return {
        "threads": torch.get_num_threads(),
        "allocator": {
            name: value for name, value in os.environ.items() if name.startswith("MALLOC_")
        },
        "conv_peak_gflops": round(_conv_peak(device)),
        "peak_memory_mb": peak_memory_mb(device),
    }


def peak_memory_mb(device: torch.device) -> int:
    """Returns the most memory that the process has held so far, of both sides together."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


@torch.inference_mode()
def _conv_peak(device: torch.device) -> float:
    """Returns billions of float32 operations per second of a 3x3 convolution, 256 to 256."""
    layer = torch.nn.Conv2d(256, 256, 3, padding=1).to(device, memory_format=torch.channels_last)
    image = torch.rand(1, 256, 112, 112, device=device).to(memory_format=torch.channels_last)
    operations = 2 * 256 * 256 * 9 * 112 * 112
    return max(operations / _time(lambda: layer(image))[0] for _ in range(10)) / 1e9
