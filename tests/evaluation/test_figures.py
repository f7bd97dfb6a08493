import csv
import json
import math
from pathlib import Path

from detection.evaluation.coco import CocoClassFigures, CocoFigures
from detection.evaluation.definitions import official
from detection.evaluation.figures import COLUMNS, STAMP, write_figures
from detection.evaluation.voc import VocClassFigures, VocFigures

NAN = math.nan
COCO = CocoFigures(
    *[i / 16 for i in range(11)],
    NAN,
    (CocoClassFigures("a, b", 3, 0.25, 0.5), CocoClassFigures("é", 0, NAN, NAN)),
    7,
    (1, 10, 100),
)
VOC = VocFigures(
    0.5, 0.75, (VocClassFigures("a, b", 3, 0.5, 0.75), VocClassFigures("é", 0, NAN, NAN)), 7, 0.5
)


def test_json_has_null_where_there_are_no_objects(tmp_path: Path):
    write_figures(tmp_path, COCO, VOC, official(COCO, VOC), {"split": "val"})
    text = (tmp_path / "figures.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=lambda name: 1 / 0)
    assert content["split"] == "val"
    assert content["images"] == 7
    assert content["coco"]["ap50"] == 1 / 16
    assert content["coco"]["ar_large"] is None
    assert content["classes"][1] == {
        "class": "é",
        "objects": 0,
        "AP": None,
        "AP50": None,
        "VOC07": None,
        "VOC10": None,
    }
    assert content["definitions"][3]["metric"] == "11 points"
    assert content["definitions"][0]["iou"] == ">= 0.50:0.95"


def test_csv_has_a_row_per_class_in_full_precision(tmp_path: Path):
    write_figures(tmp_path, COCO._replace(ap=1 / 3), VOC, (), {"split": "val"})
    with (tmp_path / "figures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == [*COLUMNS, *STAMP]
    for row in rows[1:]:
        split, coco, voc = row[len(COLUMNS) :]
        assert split == "val"
        assert "maxDets=1/10/100" in coco
        assert "7 images" in coco
        assert "IoU>=0.50" in voc
        del row[len(COLUMNS) :]
    assert rows[1] == ["a, b", "3", "0.25", "0.5", "0.5", "0.75"]
    assert rows[2] == ["é", "0", "", "", "", ""]
    assert rows[3] == ["mean", "3", repr(1 / 3), "0.0625", "0.5", "0.75"]
