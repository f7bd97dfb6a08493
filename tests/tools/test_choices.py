from pathlib import Path

import pytest

from detection.reproduction.documents import find_blocks
from resdet.tools import choices
from resdet.tools.choices import main

README = Path(choices.__file__).resolve().parent.parent / "detection/reproduction/README.md"
# PAPER's list of what is open, by argument.
OPEN = {
    "model.detector.roi_size",
    "model.detector.tail_stride",
    "model.detector.frozen_stages",
    "model.detector.roi_pooling",
    "model.detector.rpn_width",
    "model.detector.detections.nms_threshold",
    "model.criterion.rpn.cross_boundary",
    "model.criterion.rpn.sigma",
    "model.criterion.roi.sigma",
    "model.schedule.lr_per_16_images",
    "model.schedule.weight_decay",
    "model.schedule.bias_lr_factor",
    "improvements.natural_side",
}


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(options) == 0
    return capsys.readouterr().out


def tables(text: str) -> list[list[list[str]]]:
    """The cells of Markdown tables, headings first and their rule left out."""
    found = []
    for block in text.split("\n\n"):
        rows = [line.strip("| ").split(" | ") for line in block.strip().splitlines()]
        assert set(rows[1][0]) == {"-", "|"}
        found.append([rows[0], *rows[2:]])
    return found


@pytest.mark.parametrize(
    ("block", "options"), [("choices", ()), ("recipes", ("--recipes",)), ("drift", ("--drift",))]
)
def test_the_document_holds_what_is_printed(
    block: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    (text,) = (it.text for it in find_blocks(README.read_text("utf-8")) if it.name == block)
    assert text == printed(capsys, *options, "--markdown"), "resdet claims --write"


def test_all_that_is_open_is_listed_in_full(capsys: pytest.CaptureFixture[str]):
    arguments, differences = tables(printed(capsys, "--markdown"))
    assert all(len(row) == 5 and all(row) for row in arguments)
    listed = {row[0].strip("`"): row for row in arguments[1:]}
    assert listed.keys() >= OPEN
    assert listed["model.criterion.rpn.sigma"][1] == "`3.0`"
    assert listed["improvements.natural_side"][1] == "`224.0`"
    assert any(row[0] == "`detection.boxes`" and "x2 - x1 + 1" in row[1] for row in differences)


def test_recipes(capsys: pytest.CaptureFixture[str]):
    ((heads, *rows),) = tables(printed(capsys, "--recipes", "--markdown"))
    assert heads == ["Recipe", "Claim", "Expected", "Measured"]
    found = {row[0].strip("`"): row for row in rows}
    assert found.keys() >= {"voc07.yaml", "voc0712.yaml", "voc0712pp.yaml", "coco2014.yaml"}
    assert found["voc0712.yaml"][1:] == [
        "ResNet tables 7 and 10, VOC 2007+2012 trainval -> VOC 2007 test, joint training",
        "76.4 mAP (VOC07 metric) with ResNet-101, 73.2 with VGG-16 (four-step training)",
        "not measured",
    ]


def test_drift(capsys: pytest.CaptureFixture[str]):
    ((_, *rows),) = tables(printed(capsys, "--drift", "--markdown"))
    assert len(rows) == 17
    assert rows[3][:3] == [
        "`04_nms`",
        "detections are suppressed from IoU 0.5 on, not 0.3",
        "`model.detector.detections.nms_threshold: 0.5`",
    ]
    assert rows[7][2].count("`") == 4


def test_as_text(capsys: pytest.CaptureFixture[str]):
    lines = printed(capsys).splitlines()
    place = lines.index("model.detector.detections.nms_threshold")
    assert lines[place + 1] == "  default: 0.3"
    assert lines[place + 3] == "  alternatives: 0.5"
    assert not any("`" in line for line in lines)
