"""How long the console command takes to answer, in processes of its own."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

COMMANDS = {
    "resdet --help": ["-m", "resdet.tools", "--help"],
    "python -c 'import torch' (peer)": ["-c", "import torch"],
    "python -c 'import torchvision' (peer)": ["-c", "import torchvision"],
    "python -c 'import backbones'": ["-c", "import backbones"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's options."""
    parser.add_argument("--rounds", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Runs each command in turn, ``options.rounds`` times after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(options.rounds + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=os.environ
            )
            if turn:
                times[name].append(time.perf_counter() - start)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    return {"subject": "startup", "median_s": medians, "rounds": options.rounds}
