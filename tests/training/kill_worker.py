"""Kills writers in the middle: python kill_worker.py FOLDER ROUNDS; prints leftovers, versions."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from detection.training.checkpointing import AtomicCheckpointIO


def write_for_ever(path: Path, first: int) -> None:
    version = first
    while True:
        version += 1
        weights = torch.full((1_000_000,), version)
        AtomicCheckpointIO().save_checkpoint({"version": version, "weights": weights}, path)


def main(folder: Path, rounds: int) -> None:
    path = folder / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"version": 0, "weights": torch.zeros(1)}, path)
    version = 0
    for _ in range(rounds):
        writer = os.fork()
        if not writer:
            write_for_ever(path, version)
        time.sleep(random.uniform(0.02, 0.1))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        found = torch.load(path, weights_only=True)
        if not (found["weights"] == found["version"]).all() or found["version"] < version:
            sys.exit(f"version {found['version']} after {version} is not whole")
        version = found["version"]
    sys.stdout.write(f"{sum(file != path for file in folder.iterdir())} {version}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
