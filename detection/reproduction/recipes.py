"""The values of a command: its shipped configurations and its options, the last one wins."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml


def composed(command: Sequence[str]) -> dict[str, Any]:
    """Returns the values of a command, nested as in its configurations.

    Args:
        command: a tool, then pairs of an option and its value.
    """
    values: dict[str, Any] = {}
    for option, value in zip(command[1::2], command[2::2], strict=True):
        if option == "--config":
            file = Path(str(files("resdet.configs")), value)
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        else:
            found = yaml.safe_load(value)
            for name in reversed(option.removeprefix("--").split(".")):
                found = {name: found}
        _merge(values, found)
    return values


def _merge(values: dict[str, Any], others: dict[str, Any]) -> None:
    for name, other in others.items():
        if isinstance(other, dict) and isinstance(values.get(name), dict):
            _merge(values[name], other)
        else:
            values[name] = other
