"""Training curves as figures: errors over updates (ResNet Figs. 4 and 6)."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Points = NDArray[np.float64]

_BINS = 150  # points of a curve of single batches, each the mean over its neighbours


class Curve(NamedTuple):
    """A network's errors in training.

    Attributes:
        label: its name.
        train: (N, 2) float64, update and training error of its batch, %.
        val: (M, 2) float64, update and validation error, %.
    """

    label: str
    train: Points
    val: Points


def log_files(run: Path) -> list[Path]:
    """Return the CSV logs of a run of ``resdet pretrain``, oldest first; few updates leave none."""
    return sorted(run.glob("log/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime)


def read_curve(run: Path, label: str) -> Curve:
    """Read the curve of a run of ``resdet pretrain`` from its CSV logs.

    A resumed run has several; where they overlap, the last one counts.

    Args:
        run: the folder of the run.
        label: name of the curve.

    Returns:
        The curve, top-1 errors; what was not logged is empty.

    Raises:
        ValueError: there are no logs.
    """
    files = log_files(run)
    if not files:
        raise ValueError(f"{run}: expected logs, log/version_*/metrics.csv, got none")
    found: dict[str, dict[int, float]] = {"train/top1": {}, "val/top1": {}}
    for file in files:
        for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
            for name, points in found.items():
                if row.get(name):
                    points[int(row["step"])] = float(row[name])
    train, val = (np.array(sorted(points.items())).reshape(-1, 2) for points in found.values())
    return Curve(label, train, val)


def draw_curves(panels: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw curves, training errors dashed and validation errors bold, as in Fig. 6.

    Args:
        panels: title of each panel, and its curves; those of one label (several seeds) have one
            colour.
        path: an .svg or .png file, written.

    Raises:
        ValueError: the format is unknown.
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(5 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        labels = list(dict.fromkeys(curve.label for curve in curves))
        for i, curve in enumerate(curves):
            colour = f"C{labels.index(curve.label)}"
            first = all(curve.label != other.label for other in curves[:i])
            label = curve.label if first else None
            ax.plot(*_smooth(curve.train).T, "--", color=colour, linewidth=0.8, alpha=0.7)
            ax.plot(*curve.val.T, color=colour, linewidth=2, label=label)
        ax.set(title=title, xlabel="updates", ylim=(0, 100))
        if labels:
            ax.legend(title="dashed: training; bold: held out")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("top-1 error (%)")
    figure.savefig(path)


def _smooth(points: Points) -> Points:
    """Means over runs of neighbours, for errors of single batches are mostly noise."""
    parts = np.array_split(points, min(_BINS, len(points))) if len(points) else []
    return np.array([part.mean(0) for part in parts]).reshape(-1, 2)
