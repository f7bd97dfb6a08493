"""What the figures of a report are of: environment, times, and hashes of every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detection.reproduction.evaluated import read_figures
from detection.reproduction.outcome import Outcome
from detection.reproduction.step import Step, seconds_of


def origin_of(outcome: Outcome, steps: Sequence[Step], output: Path) -> dict[str, Any]:
    """Returns plain values that a report keeps.

    Args:
        outcome: with the folders of its runs.
        steps: the study's, which have ended.
        output: folder of their markers.

    Raises:
        OSError: a run cannot be read.
        ValueError: a run has no figures.
    """
    figures = {
        row.row.key: [read_figures(folder) for folder in row.runs]
        for row in outcome.rows
        if row.runs
    }
    flat = [one for own in figures.values() for one in own]
    hashes = {
        name: {key: [one.get(name) for one in own] for key, own in figures.items()}
        for name in ("config_sha256", "predictions_sha256")
    }
    return {
        "environment": flat[0].get("environment") if flat else None,
        **hashes,
        "seconds": {step.name: seconds_of(step.name, output) for step in steps},
    }
