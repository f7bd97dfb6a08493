import contextlib
import io

import pytest
from pycocotools.cocoeval import COCOeval

from detection.evaluation.coco import CocoFigures, evaluate_coco
from detection.evaluation.tables import class_table, coco_table
from detection.evaluation.voc import evaluate_voc

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 150.0, 150.0)


def test_without_ground_truth_every_figure_is_not_available(truth, found):
    nothing = truth({}), found(), ["cat"]
    heading, *lines = coco_table(evaluate_coco(*nothing)).splitlines()
    assert heading.endswith("| 0 images")
    assert [line.split(" = ")[1] for line in lines] == ["n/a"] * 12
    table = class_table(evaluate_coco(*nothing), evaluate_voc(*nothing))
    assert table.splitlines()[-2:] == [
        "cat          0    n/a    n/a    n/a    n/a",
        "mean         0    n/a    n/a    n/a    n/a",
    ]


@pytest.mark.parametrize("limits", [(1, 10, 100), (2, 5, 300)])
def test_worded_as_pycocotools_prints(limits, random_case):
    annotations, predictions, names = random_case(2)
    figures = evaluate_coco(annotations, predictions, names, limits)
    table = coco_table(figures)

    # pycocotools' own summarize, over results that hold our figures one by one.
    printed = io.StringIO()
    evaluation = COCOeval(iouType="bbox")
    evaluation.params.maxDets = list(limits)
    evaluation.eval = {"precision": _filled(figures, "ap"), "recall": _filled(figures, "ar")}
    with contextlib.redirect_stdout(printed):
        evaluation.summarize()
    expected = printed.getvalue().splitlines()
    lines = table.splitlines()[1:]
    if limits[2] != 100:  # summarize's first figure looks for a limit of 100
        expected, lines = expected[1:], lines[1:]
    assert lines == expected


def _filled(figures: CocoFigures, kind: str):
    """An array of COCOeval's form whose slices have the figures' values."""
    import numpy as np

    all_, small, medium, large = range(4)
    if kind == "ap":
        values = np.full((10, 101, 1, 4, 3), figures.ap)
        values[0], values[5] = figures.ap50, figures.ap75
        rest = [t for t in range(10) if t not in (0, 5)]
        values[rest] = (10 * figures.ap - figures.ap50 - figures.ap75) / 8
        sizes = (figures.ap_small, figures.ap_medium, figures.ap_large)
    else:
        values = np.zeros((10, 1, 4, 3))
        values[..., all_, :] = figures.ar1, figures.ar10, figures.ar100
        sizes = (figures.ar_small, figures.ar_medium, figures.ar_large)
    for area, value in zip((small, medium, large), sizes, strict=True):
        values[..., area, :] = value
    return values


def test_per_class(truth, found):
    annotations = truth({1: [(A, 1), (B, 1)], 2: [(B, 2)]}, difficult=[2])
    case = annotations, found([(1, B, 0.9, 1), (1, A, 0.8, 3)]), ["cat", "dog", "aeroplane"]
    assert class_table(evaluate_coco(*case), evaluate_voc(*case)).splitlines() == [
        "COCO AP, boxes | IoU=0.50:0.95 | maxDets=1/10/100 per image and class"
        " | crowd regions ignored, difficult objects ignored one to one | 2 images",
        "VOC AP, 11 points (VOC07) and area (VOC10) | IoU>=0.50"
        " | all detections | difficult and crowd count neither way | 2 images",
        "class      objects     AP   AP50  VOC07  VOC10",
        "cat              2  0.505  0.505  0.545  0.500",
        "dog              0    n/a    n/a    n/a    n/a",
        "aeroplane        0    n/a    n/a    n/a    n/a",
        "mean             2  0.505  0.505  0.545  0.500",
    ]


def test_figures_of_different_data_are_refused(truth, found):
    coco = evaluate_coco(truth({1: []}), found(), ["cat"])
    for images, names in [({1: []}, ["dog"]), ({1: [], 2: []}, ["cat"])]:
        with pytest.raises(ValueError, match="different images or classes"):
            class_table(coco, evaluate_voc(truth(images), found(), names))
