import json
import math
from pathlib import Path

import pytest

from detection.reproduction.evaluated import Evaluated
from detection.reproduction.outcome import (
    Figure,
    GapOutcome,
    Outcome,
    RowOutcome,
    _classes,
    read_outcome,
)
from detection.reproduction.pages import html, markdown, measured_text, to_plain
from detection.reproduction.paper import TABLES
from detection.reproduction.study import Row, Study
from detection.reproduction.verdict import Measured, judge

STUDY = Study("own", "Own | table", (), (), Path("data"), "test")
ORIGIN = {"command": "resdet reproduce own", "seeds": [0]}


def outcome(row: Row, figure: Figure) -> Outcome:
    ours = Measured(-2.0, -3.0, -1.0, "3 and 4 runs, bootstrap over images", (-2.0,))
    gap = GapOutcome("A", "B", "ap", -1.0, ours, "same direction")
    return Outcome(STUDY, (RowOutcome(row, (figure,), ()),), (gap,), (), 7)


def test_markdown_shows_figure_interval_and_verdict() -> None:
    row = Row("a", "A|B", (), ("ap",), runs_as="small A")
    ours = Measured(20.04, 18.0, 22.0, "3 seeds, t interval", (20.0,))
    text = markdown(outcome(row, Figure("ap", 21.2, ours, "within")))
    assert "| Method | Run as | Metric | Paper | Ours, 95% interval | Verdict |" in text
    assert "| A/B | small A | AP | 21.2 | 20.0 [18.0, 22.0] | within |" in text
    assert "| B − A | AP | -1.0 | -2.0 [-3.0, -1.0] | same direction |" in text
    bases = "3 seeds, t interval; 3 and 4 runs, bootstrap over images"
    assert f"split test, 7 images; intervals: {bases}." in text


def test_too_few_images_are_explained_where_a_verdict_says_so() -> None:
    row = Row("a", "A", (), ("ap",))
    ours = Measured(43.7, 44.1, 51.4, "one run, bootstrap over images", (43.7,))
    found = outcome(row, Figure("ap", 48.4, ours, judge(48.4, ours)))
    reason = "Too few images: the interval does not hold our own figure"
    for text in (markdown(found), html(found, ORIGIN)):
        assert "too few images" in text
        assert text.count(reason) == 1  # the difference has a direction
    assert to_plain(found, ORIGIN)["rows"][0]["figures"][0]["verdict"] == "too few images"
    assert reason not in markdown(outcome(row, Figure("ap", 48.4, ours, "within")))


def test_columns_that_a_study_has_no_use_for_are_left_out() -> None:
    figure = Figure("ap", None, Measured(20.0, 18.0, 22.0, "one run", (20.0,)), "")
    text = markdown(outcome(Row("a", "A", (), ("ap",)), figure))
    assert "| Method | Metric | Ours, 95% interval |\n| --- | --- | --- |\n| A | AP | 20.0" in text


def test_json_has_no_nan_and_html_escapes() -> None:
    ours = Measured(20.0, math.nan, math.nan, "one run", (20.0,))
    found = outcome(Row("a", "<b>", (), ("ap",)), Figure("ap", None, ours, ""))
    text = json.dumps(to_plain(found, ORIGIN), allow_nan=False)
    figure = json.loads(text)["rows"][0]["figures"][0]
    assert (figure["ours"]["value"], figure["ours"]["low"]) == (20.0, None)
    page = html(found, ORIGIN)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "resdet reproduce own" in page


def test_a_figure_without_an_interval_or_a_run() -> None:
    assert measured_text(Measured(1.25, math.nan, math.nan, "", ()), "+") == "+1.2"
    assert measured_text(None) == "–"


def test_classes_have_all_the_papers_columns_and_ours_where_there_is_a_run(tmp_path: Path) -> None:
    study = TABLES["table10"](tmp_path, "joint")
    figures = [
        {"classes": [{"class": "cat", "VOC07": value}, {"class": "dog", "VOC07": None}]}
        for value in (0.5, 0.7)
    ]
    runs = {study.rows[1].key: [Evaluated("run", one, None, None) for one in figures]}
    classes = {one.name: one for one in _classes(study, runs)}
    assert classes["cat"].paper == (86.4, 89.8, 89.6)
    assert classes["cat"].ours == (None, pytest.approx(60.0), None)
    assert classes["dog"].ours == (None, None, None)
    text = markdown(Outcome(study, (), (), tuple(classes.values()), 7))
    improved = "ResNet-101, box refinement, context, multi-scale testing, pre-trained on COCO"
    head = f"| Class | VGG-16, paper | ResNet-101, paper | ours | {improved}, paper |"
    assert f"{head}\n" in text
    assert "| cat | 86.4 | 89.8 | 60.0 | 89.6 |\n" in text
    assert "| dog | 84.8 | 88.3 | – | 89.6 |\n" in text


def test_without_runs_every_figure_says_why(tmp_path: Path) -> None:
    found = read_outcome(TABLES["table7"](tmp_path, "joint"), {})
    verdicts = [one.verdict.partition(":")[0] for row in found.rows for one in row.figures]
    assert verdicts == ["data not here"] * 2 + ["needs a server"] * 2
    assert [gap.verdict for gap in found.gaps] == ["one side has no figure"]
    assert found.gaps[0].paper == pytest.approx(3.2)
    assert found.images is None
