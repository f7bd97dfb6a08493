"""A recipe on several devices: the images of an update, and of the run, stay what they are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from detection.reproduction.paper import Schedule


def on_devices(recipe: str, devices: int, schedule: Schedule = "joint") -> tuple[str, ...]:
    """Returns the options of `resdet train` that spread a recipe over devices.

    A recipe of 2 images an update gives 1 to each of two devices, and nothing else changes. With
    more devices than images each has one, the learning rate grows with their number (it is given
    per 16 images), and updates and milestones become fewer by as much.

    Args:
        recipe: name of a shipped configuration; none says nothing of batches.
        devices: how many.
        schedule: the alternating steps have their batches for each device; they stay.

    Raises:
        ValueError: there is no device.
    """
    if devices < 1:
        raise ValueError(f"devices: expected at least 1, got {devices}")
    if devices == 1:
        return ()
    spread: tuple[str, ...] = ("--trainer.devices", str(devices))
    if schedule == "alternating" or not recipe:
        return spread
    file = Path(str(files("resdet.configs")), recipe)
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    images: int = values["data"]["batch_size"]
    trainer: dict[str, int] = values["trainer"]
    each = max(1, images // devices)
    spread = (*spread, "--data.batch_size", str(each))
    if each * devices == images:
        return spread

    def scaled(updates: int) -> int:
        return round(updates * images / (each * devices))

    milestones = [scaled(one) for one in values["model"]["schedule"]["milestones"]]
    return (
        *(*spread, "--trainer.max_steps", str(scaled(trainer["max_steps"]))),
        *("--trainer.val_check_interval", str(scaled(trainer["val_check_interval"]))),
        *("--model.schedule.milestones", str(milestones)),
    )
