import json
from pathlib import Path

import numpy as np
import pytest

from detection.data.folder import read_folder
from detection.evaluation.checks import select
from detection.evaluation.results import write_results
from detection.structures import Predictions
from resdet.tools import compare, evaluate


def score(data: Path, output: Path, kept: slice = slice(None), shift: float = 0.0) -> Path:
    """Scores the ground truth itself, or some of it, or moved."""
    records = read_folder(data, "val")
    truth = records.annotations
    n = len(truth.boxes)
    image_ids = np.repeat(truth.image_ids, np.diff(truth.offsets))
    boxes = truth.boxes + shift * np.array([1, 0, 1, 0])
    whole = Predictions(image_ids, boxes, np.linspace(0.9, 0.5, n), truth.labels)
    output.mkdir()
    file = output / "found.json"
    write_results(file, select(whole, np.arange(n)[kept]), records.labels.ids)
    own = ["--predictions", str(file), "--data", str(data), "--output", str(output)]
    assert evaluate.main(own) == 0
    return output


def test_two_recipes(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = score(shapes, tmp_path / "good")
    moved = [score(shapes, tmp_path / f"moved{i}", shift=2.0 + i) for i in range(3)]
    capsys.readouterr()
    group = ",".join(map(str, moved))
    own = ["--resamples", "50", "--output", str(tmp_path / "c.json")]
    assert compare.main([str(good), group, *own]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    figures = [json.loads((run / "figures.json").read_text()) for run in (good, *moved)]
    first, *others = (one["coco"]["ap"] for one in figures)
    assert len(set(others)) == 3
    ap = found["figures"]["AP"]
    assert ap["a"][0] == pytest.approx(100 * first, abs=1e-3)
    assert ap["b"][0] == pytest.approx(100 * np.mean(others), abs=1e-3)
    name = found["classes"][0]["class"]
    rows = [row for run in figures for row in run["classes"] if row["class"] == name]
    expected = 100 * np.mean([row["AP"] for row in rows[1:]])
    assert found["classes"][0]["b"][0] == pytest.approx(expected, abs=1e-3)
    assert ap["difference"][0] == pytest.approx(ap["b"][0] - ap["a"][0], abs=1e-3)
    assert ap["difference"][0] < 0
    assert [spread["runs"] for spread in found["seeds"]] == [1, 3]
    assert found["seeds_needed"] >= 2
    assert (found["images"], found["split"]) == (5, "val")
    assert "table 10" not in found["classes"][0]
    text = capsys.readouterr().out
    assert "B over 3 seeds: " in text
    assert "each side's mean over its runs; 95% intervals, paired bootstrap over images" in text
    assert "to show a difference of 1: " in text
    assert all(row["class"] in text for row in found["classes"])


@pytest.mark.parametrize("metric", ["voc07", "voc10"])
def test_vocs_metrics(
    shapes: Path, tmp_path: Path, metric: str, capsys: pytest.CaptureFixture[str]
):
    runs = [score(shapes, tmp_path / "a"), score(shapes, tmp_path / "b", slice(0, None, 2))]
    own = ["--metric", metric, "--resamples", "5", "--output", str(tmp_path / "c.json")]
    assert compare.main([*map(str, runs), *own]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    for side, run in zip("ab", runs, strict=True):
        expected = json.loads((run / "figures.json").read_text())["voc"][metric]
        assert found["figures"][metric.upper()][side][0] == pytest.approx(100 * expected, abs=1e-3)
    assert "seeds" not in capsys.readouterr().out


def test_the_papers_figures_stand_beside_vocs_classes():
    from detection.evaluation.significance import Bootstrap, Interval, Intervals
    from detection.reproduction.tables import VOC_CLASSES

    half = Interval(0.5, 0.4, 0.6)
    one = Intervals(half, half, (half,) * 20)
    names = sorted(VOC_CLASSES, reverse=True)
    rows = compare._classes(Bootstrap(one, one, one, 1, 0.95, 1), names)
    (row,) = (row for row in rows if row["class"] == "sheep")
    # Tables 10 and 11, column sheep: VGG-16 and ResNet-101.
    assert row["table 10"] == [73.6, 78.6]
    assert row["table 11"] == [72.6, 77.3]
    (row,) = compare._classes(Bootstrap(one, one, one, 1, 0.95, 1), ["sheep"])
    assert "table 10" not in row  # other classes, another data set


def test_a_note_where_an_interval_does_not_hold_its_figure():
    def text(low: float | None) -> str:
        row = {side: [43.7, low, 51.4] for side in ("a", "b")} | {"difference": [0.0, -1.0, 1.0]}
        found = {
            "confidence": 0.95,
            "runs": [["x"], ["y"]],
            **{"metric": "coco", "images": 50, "split": "val", "resamples": 1000},
            "figures": {"AP": row},
            "classes": [{"class": "cat", **row}],
            **{"seeds": [], "seeds_needed": None},
        }
        return "\n".join(compare._text(found))

    assert (
        "too few images: 4 of 6 intervals do not hold their own figure: resampled images repeat"
        in text(44.1)
    )
    assert "repeat" not in text(43.7)
    assert "repeat" not in text(None)  # a class without objects


def test_errors_are_one_line(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = score(shapes, tmp_path / "a")
    capsys.readouterr()
    assert compare.main([str(run), str(tmp_path / "none")]) == 1
    (tmp_path / "a" / "predictions.json").write_text("[]")
    assert compare.main([str(run), str(run)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [line.startswith("resdet compare: ") for line in lines] == [True, True]
    assert "none: no figures.json" in lines[0]
    assert "not the file that figures.json was made of" in lines[1]
