import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.evaluation.report import Image, Run, galleries, render_report
from detection.evaluation.report_analysis import STEPS, Analysis, analyse, compare
from detection.evaluation.report_charts import line_path, log_axis
from detection.evaluation.report_curves import curve_charts, recall_charts
from detection.evaluation.report_pictures import mistake_pictures, worst_pictures
from detection.evaluation.report_tables import (
    class_columns,
    class_rows,
    confusion_rows,
    error_rows,
    flatten,
    greatest_confusions,
    interval_text,
    percent,
)
from detection.evaluation.significance import Interval

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "<script>alert('x')</script>"
NAMES = ["cat", HOSTILE, "zebra"]
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
A, B, C = (10.0, 10.0, 60.0, 60.0), (100.0, 100.0, 200.0, 200.0), (300.0, 20.0, 320.0, 40.0)


def make_case(truth: Callable[..., Any], found: Callable[..., Any]) -> tuple[Any, Any]:
    """Image 7 is right, image 3 takes a hostile object for a cat and misses another, 5 is empty."""
    annotations = truth({7: [(A, 1)], 3: [(A, 2), (B, 2)], 5: []})
    rows = [(7, A, 0.9, 1), (3, A, 0.8, 1), (5, C, 0.3, 1), (3, B, 0.2, 2), (7, A, 0.1, 1)]
    return annotations, found(rows)


@pytest.fixture
def analysis(truth: Callable[..., Any], found: Callable[..., Any]) -> Analysis:
    return analyse(*make_case(truth, found), NAMES)


def page(*analyses: Analysis, resamples: int = 50, facts: dict[str, Any] | None = None) -> str:
    runs = [
        Run(f"run {i} {HOSTILE}", "/data", "val", analysis, facts or {})
        for i, analysis in enumerate(analyses)
    ]
    chosen = [galleries(analysis, 8) for analysis in analyses]
    ids = analyses[0].annotations.image_ids.tolist()
    images = {image: Image(f"{image}{HOSTILE}.jpg", PIXEL) for image in ids}
    return render_report(runs, chosen, images, compare(analyses, resamples) if resamples else ())


def test_progress_is_told(truth, found):
    calls: list[None] = []
    analyse(*make_case(truth, found), NAMES, lambda: calls.append(None))
    assert len(calls) == STEPS


def test_the_score_threshold_has_the_highest_f1(analysis):
    # by falling score: hit, wrong, nothing, hit, duplicate; F1 2/4, 2/5, 2/6, 4/7, 4/8
    assert analysis.score == pytest.approx(0.2)


def test_class_rows_by_hand(analysis):
    titles = [title for title, _ in class_columns()]
    rows = {name: dict(zip(titles, numbers, strict=True)) for name, numbers in class_rows(analysis)}
    cat, hostile, zebra = (rows[name] for name in NAMES)
    assert (cat["objects"], hostile["objects"], zebra["objects"]) == (1, 2, 0)
    for title in ("AP", "AP50", "AP75", "medium", "AR100", "VOC07", "VOC10", "F1"):
        assert cat[title] == pytest.approx(1.0), title
    assert cat["at score"] == pytest.approx(0.9)
    # one of two objects found: 51 of the 101 recall levels, 6 of the 11
    assert hostile["AP50"] == pytest.approx(51 / 101)
    assert hostile["VOC07"] == pytest.approx(6 / 11)
    assert hostile["VOC10"] == hostile["AR100"] == pytest.approx(0.5)
    assert (hostile["large"], hostile["medium"]) == pytest.approx((1.0, 0.0))
    assert hostile["F1"] == pytest.approx(2 / 3)
    assert all(math.isnan(zebra[title]) for title in titles[1:])


def test_errors_by_hand(analysis):
    numbers = {row.name: row.number for row in error_rows(analysis)}
    assert numbers == {
        "wrong class": 1,
        "badly placed": 0,
        "wrong class and badly placed": 0,
        "duplicate": 1,
        "nothing there": 1,
        "missed": 0,
        "all false positives": None,
        "all objects not found": None,
    }


def test_confusion_has_background_last(analysis):
    rows = confusion_rows(analysis)
    assert [row.name for row in rows] == [*NAMES, "background"]
    assert [row.cells for row in rows] == [(1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0)]
    assert [row.total for row in rows] == [1, 2, 0, 1]
    assert greatest_confusions(analysis) == [(HOSTILE, "cat", 1)]


def test_pictures_show_what_went_wrong(analysis):
    worst = worst_pictures(analysis, 9)
    # image 5: nothing right; image 3: one hit, one false, one missed; image 7 is right at 0.2
    assert [picture.image_id for picture in worst] == [5, 3]
    assert worst[1].text == "1 found, 1 missed, 1 false"
    assert [(frame.kind, frame.text) for frame in worst[1].frames] == [
        ("missed", HOSTILE),
        ("hit", f"{HOSTILE} 0.20"),
        ("mistake", "cat 0.80"),
    ]
    assert worst[1].frames[0].box == A
    mistakes = mistake_pictures(analysis, 2)
    assert [(picture.image_id, picture.title) for picture in mistakes] == [
        (3, "cat 0.80"),
        (5, "cat 0.30"),
    ]
    assert mistakes[0].text == f"wrong class; the object is a {HOSTILE}"
    assert [frame.kind for frame in mistakes[0].frames] == ["truth", "mistake"]
    assert [frame.kind for frame in mistakes[1].frames] == ["mistake"]


def test_curves_have_a_line_per_class_with_objects_and_the_mean(analysis):
    precision, f1 = curve_charts(analysis)
    for chart in (precision, f1):
        assert [(line.label, line.style) for line in chart.lines] == [
            (label, f"{kind} iou{iou}")
            for iou in (50, 75)
            for label, kind in ((1, "class"), (2, "class"), (0, "mean"))
        ]
    assert f"average is {percent(analysis.coco.ap50)} at IoU .50" in precision.text
    hostile = precision.lines[1].path
    assert hostile.startswith("M0 0L1 0L")
    assert "L50 0L51 100L" in hostile
    # F1 of the cat: nothing above 0.9, a hit, and from 0.8 down a false positive too
    assert "L79 33.3L80 33.3L81 0L" in f1.lines[0].path
    assert "L89 0L90 100L" in f1.lines[0].path


def test_recall_counts_detections_per_image(analysis):
    by_number, by_iou = recall_charts(analysis)
    # the best detection of images 7 and 3 finds one object each; two of image 3 find both
    assert analysis.limits[:2] == (1, 2)
    np.testing.assert_allclose(analysis.proposals[0], [2 / 3, *[1.0] * (len(analysis.limits) - 1)])
    assert by_number.x.ticks[0] == (0.0, "1")
    assert [line.name for line in by_iou.lines] == ["best 1", "best 10"]


def test_paths_are_interrupted_at_nan():
    x = np.array([0, 0.25, 0.5, 1])
    assert line_path(x, np.array([0, 1, math.nan, 0.5])) == "M0 100L25 0M100 50"
    assert line_path(x[:0], x[:0]) == ""
    assert log_axis("n", 50).ticks[0] == (0, "1")
    assert [text for _, text in log_axis("n", 1000).ticks] == ["1", "10", "100", "1,000"]
    assert [text for _, text in log_axis("n", 50).ticks] == ["1", "10", "50"]


def test_words():
    assert percent(0.3824) == "38.2"
    assert percent(math.nan) == percent(None) == "n/a"
    assert interval_text(Interval(0, -0.012, 0.05), "+") == "-1.2 to +5.0"
    assert interval_text(Interval(0, math.nan, math.nan)) == "n/a"
    assert interval_text(Interval(0.437, 0.441, 0.514)) == "44.1 to 51.4, too few images"
    values = {"a": {"b": 1234567, "c": None}, "d": [True, 0.5]}
    assert flatten(values) == [("a.b", "1,234,567"), ("a.c", "–"), ("d", "True"), ("d", "0.5")]


def test_the_page_is_self_contained_and_escaped(analysis):
    text = page(analysis, analysis, facts={"Configuration": {HOSTILE: HOSTILE}})
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False).replace("'", "&#39;") in text
    assert text.count("<script>") == 1
    assert "Content-Security-Policy" in text
    assert not re.search(r"https?://|url\(|@import|\bsrc=\"(?!data:)|href=\"(?!#|data:)", text)


def test_every_figure_has_its_definition(analysis):
    text = page(analysis)
    for section in re.findall(r"<section.*?</section>", text, re.DOTALL)[:-1]:
        assert "Split val, 3 images." in section
    assert text.count("maxDets 100") >= 9
    for score in analysis.scores:
        assert f'<th scope="row">{html.escape(score.name)}</th>' in text
    for word in ("IoU .50:.05:.95", "11 points", "difficult", "crowd", "101 recall levels"):
        assert word in text


@pytest.mark.parametrize("rows", [[], [(7, A, 12.5, 1), (3, B, -3.0, 2)]])
@pytest.mark.parametrize("images", [{7: [], 3: []}, {7: [(A, 1)], 3: [(B, 2)]}])
def test_no_objects_no_detections_and_scores_of_any_range(rows, images, truth, found):
    analysis = analyse(truth(images), found(rows), NAMES)
    text = page(analysis, analysis)
    assert "nan" not in re.sub(r'data-value="nan"', "", text)
    assert ("some scores are outside [0, 1]" in text) == bool(rows)
    assert ("there are no detections" in text) == (not rows)


def test_intervals_can_be_left_out(analysis):
    with_intervals, without = page(analysis, analysis), page(analysis, analysis, resamples=0)
    assert "bootstrap" in with_intervals
    assert "bootstrap" not in without


def test_a_difference_beside_its_own_interval_is_neither_better_nor_worse(
    truth, found, analysis, monkeypatch
):
    annotations, _ = make_case(truth, found)
    better = analyse(annotations, found([(7, A, 0.9, 1), (3, A, 0.8, 2), (3, B, 0.8, 2)]), NAMES)
    assert 'class="better"' in page(analysis, better)
    monkeypatch.setattr(Interval, "holds_value", property(lambda _: False))
    text = page(analysis, better)
    assert 'class="better"' not in text
    assert 'class="unsure"' in text


def test_other_ground_truth_cannot_be_compared(analysis, truth, found):
    other = analyse(truth({7: [(A, 1)], 3: [], 5: []}), found(), NAMES)
    with pytest.raises(ValueError, match="differ in objects"):
        compare([analysis, other])


# In a browser

HARNESS = """
<pre id="results"></pre><script>
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const run = document.querySelector(".run");
const visible = (rows) => rows.filter((row) => row.getClientRects().length).map((row) => row.cells[0].textContent);
const rows = () => all(".classes tbody tr", run);
const results = {};
addEventListener("load", () => { try {
  BODY
  document.querySelector("#results").textContent = JSON.stringify(results);
  console.log("harness done");
} catch (error) { document.querySelector("#results").textContent = JSON.stringify(String(error)); } });
</script></body>
"""  # noqa: E501

SINGLE = """
  results.initial = visible(rows());
  const heading = (n) => all(".classes thead button", run)[n];
  heading(2).click();
  results.byAp = visible(rows());
  results.sorted = heading(2).parentNode.getAttribute("aria-sort");
  heading(2).click();
  results.byApRising = visible(rows());
  heading(0).click();
  results.byName = visible(rows());
  const filter = run.querySelector(".filter");
  filter.value = "Z"; filter.dispatchEvent(new Event("input"));
  results.filtered = visible(rows());
  results.shown = run.querySelector(".shown").textContent;
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  const choose = run.querySelector(".choose");
  choose.value = "1"; choose.dispatchEvent(new Event("change"));
  results.chosen = all(".curves .line.chosen[data-label]", run).map((line) => line.dataset.label);
  const lines = () => all(".curves .plot .line", run).filter((line) => getComputedStyle(line).display !== "none");
  results.lines = [lines().length];
  all(".curves .switch button", run)[1].click();
  results.lines.push(lines().filter((line) => line.classList.contains("iou75")).length);
  const cell = run.querySelector(".matrix td.wrong");
  cell.click();
  results.cell = run.querySelector("output.cell").textContent;
  results.images = all(".gallery img").map((image) => image.complete && image.naturalWidth > 0 && image.alt !== "");
  results.frames = all(".gallery rect").every((frame) => frame.getBoundingClientRect().width > 0);
  run.querySelector(".picture .zoom").click();
  const viewer = document.querySelector(".viewer");
  results.open = viewer.open;
  const first = viewer.querySelector(".turn p").textContent;
  results.enlarged = viewer.querySelector("img").getBoundingClientRect().width > 100;
  viewer.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
  results.turned = viewer.querySelector(".turn p").textContent !== first;
  results.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
"""  # noqa: E501

COMPARISON = """
  const shown = () => all(".run").map((element) => element.getClientRects().length > 0);
  results.runs = [shown()];
  all(".runs button")[1].click();
  results.runs.push(shown());
  results.pressed = all(".runs button").map((button) => button.getAttribute("aria-pressed"));
  results.figures = visible(all("#figures tbody tr")).slice(0, 3);
  results.difference = document.querySelector("#figures tbody tr").cells[3].querySelector("b").className;
"""  # noqa: E501


def browse(text: str, body: str, folder: Path, width: int) -> Any:
    """Runs a script in the page; no other message may stand on the console."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    file = folder / "page.html"
    file.write_text(text.replace("</body>", HARNESS.replace("BODY", body)), encoding="utf-8")
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"]
    flags += ["disable-background-networking", "disable-component-update", "disable-sync"]
    flags += ["disable-dev-shm-usage", "dump-dom", f"user-data-dir={folder / 'profile'}"]
    flags += ["enable-logging=stderr", "v=0", f"window-size={width},900", "timeout=30000"]
    finished = subprocess.run(
        [CHROMIUM, *(f"--{flag}" for flag in flags), file.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    console = [line for line in finished.stderr.splitlines() if "CONSOLE" in line]
    assert len(console) == 1, console
    assert '"harness done"' in console[0]
    found = re.search(r'<pre id="results">(.*?)</pre>', finished.stdout, re.DOTALL)
    assert found
    return json.loads(html.unescape(found[1]))


def test_in_a_browser(analysis, tmp_path):
    results = browse(page(analysis), SINGLE, tmp_path, 500)
    assert results == {
        "initial": NAMES,
        "byAp": ["cat", HOSTILE, "zebra"],
        "sorted": "descending",
        "byApRising": [HOSTILE, "cat", "zebra"],
        "byName": sorted(NAMES),
        "filtered": ["zebra"],
        "shown": "1 of 3 classes",
        "chosen": ["1", "1", "1", "1"],
        "lines": [6, 6],
        "cell": f"{HOSTILE} → cat: 1 of 2",
        "images": [True] * 5,
        "frames": True,
        "open": True,
        "enlarged": True,
        "turned": True,
        "overflow": 0,
    }


def test_a_comparison_in_a_browser(truth, found, analysis, tmp_path):
    annotations, _ = make_case(truth, found)
    better = analyse(annotations, found([(7, A, 0.9, 1), (3, A, 0.8, 2), (3, B, 0.8, 2)]), NAMES)
    assert browse(page(analysis, better), COMPARISON, tmp_path, 1280) == {
        "runs": [[True, False], [False, True]],
        "pressed": ["false", "true"],
        "figures": ["AP", "AP50", "AP75"],
        "difference": "better",
    }
