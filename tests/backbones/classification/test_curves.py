from pathlib import Path

import numpy as np
import pytest

from backbones.classification.curves import Curve, draw_curves, read_curve


def log(run: Path, version: int, text: str) -> None:
    folder = run / "log" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,train/top1,val/top1\n" + text)


def test_logs_of_a_resumed_run(tmp_path: Path):
    log(tmp_path, 0, "0,90.0,\n1,80.0,\n1,,85.0\n2,70.0,\n")
    log(tmp_path, 1, "2,60.0,\n3,50.0,\n3,,55.0\n")
    curve = read_curve(tmp_path, "net")
    assert curve.train.tolist() == [[0, 90], [1, 80], [2, 60], [3, 50]]
    assert curve.val.tolist() == [[1, 85], [3, 55]]


def test_no_logs(tmp_path: Path):
    with pytest.raises(ValueError, match="expected logs"):
        read_curve(tmp_path, "net")


def test_the_figure(tmp_path: Path):
    points = np.array([[0.0, 90], [100, 50]])
    empty = np.empty((0, 2))
    panels = {"plain": [Curve("20", points, points), Curve("20", points, empty)], "residual": []}
    draw_curves(panels, tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text()
    assert text.count("stroke-dasharray: ") >= 2
    draw_curves(panels, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
