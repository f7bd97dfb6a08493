"""Where a checkpoint comes from: its file, its run's configuration and its seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def provenance(checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Reads what figures say of the checkpoints and of the config.yaml that lies beside each.

    Args:
        checkpoints: one, or the members of an ensemble.

    Returns:
        ``checkpoint``, ``config_sha256`` and ``seed``, of an ensemble a list of each; None where
        there is no config.yaml.

    Raises:
        ValueError: a config.yaml is not YAML.
    """
    configs = [_config(path.parent / "config.yaml") for path in checkpoints]
    return {
        "checkpoint": one_or_all([str(path.resolve()) for path in checkpoints]),
        "config_sha256": one_or_all([digest for digest, _ in configs]),
        "seed": one_or_all([seed for _, seed in configs]),
    }


def one_or_all(values: list[T]) -> T | list[T]:
    """Returns the one value of a list, or the list of several."""
    return values[0] if len(values) == 1 else values


def _config(file: Path) -> tuple[str | None, int | None]:
    """Returns the sha256 of a run's configuration and its seed; None where there is none."""
    import yaml  # here, so that `resdet --help` stays quick

    if not file.is_file():
        return None, None
    content = file.read_bytes()
    try:
        values = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    seed = values.get("seed_everything") if isinstance(values, dict) else None
    return hashlib.sha256(content).hexdigest(), seed if type(seed) is int else None
