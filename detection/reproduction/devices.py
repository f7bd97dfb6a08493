"""A recipe on several devices: the images of an update, and of the run, stay what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detection.reproduction.recipes import composed

# The images of a process, and what is given in updates of them, by tool.
_LENGTHS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "train": {
        "data.batch_size": (
            "trainer.max_steps",
            "trainer.val_check_interval",
            "model.schedule.milestones",
            "model.schedule.warmup_steps",
        )
    },
    "alternate": {
        "rpn.batch_size": ("rpn.updates", "rpn.milestones"),
        # Of the four steps the last one validates, which is the head's.
        "head.batch_size": ("head.updates", "head.milestones", "trainer.val_check_interval"),
    },
}


def on_devices(command: Sequence[str], devices: int) -> tuple[str, ...]:
    """Returns the options that spread a training over devices.

    A recipe of 2 images an update gives 1 to each of two devices, and nothing else changes. With
    more devices than images each has one, the learning rate grows with their number (it is given
    per 16 images), and updates and milestones become fewer by as much. What is given in epochs, or
    in fractions of a run, stays.

    Args:
        command: of ``resdet train``, or of ``resdet alternate``, whose RPN and head have a batch
            size each. Its recipe is for one device unless it sets ``trainer.devices``.
        devices: how many.

    Raises:
        ValueError: there is no device.
    """
    if devices < 1:
        raise ValueError(f"devices: expected at least 1, got {devices}")
    values = composed(command)
    changed: dict[str, Any] = {"trainer.devices": devices}
    for batch_size, lengths in _LENGTHS[command[0]].items():
        images = _value(values, batch_size) * (_value(values, "trainer.devices") or 1)
        each = max(1, images // devices)
        scaled = {name: _scaled(_value(values, name), images, each * devices) for name in lengths}
        scaled[batch_size] = each
        changed |= {name: one for name, one in scaled.items() if one != _value(values, name)}
    return tuple(text for name, one in changed.items() for text in (f"--{name}", str(one)))


def _value(values: Any, name: str) -> Any:
    """The value of a dotted name; None if there is none."""
    for part in name.split("."):
        values = values.get(part) if values else None
    return values


def _scaled(length: Any, images: int, now: int) -> Any:
    """A number of updates, or a list of them, of ``images`` as one of ``now``."""
    if isinstance(length, list):
        return [_scaled(one, images, now) for one in length]
    return round(length * images / now) if length and length > 1 else length
