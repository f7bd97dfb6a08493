import pytest

from detection.evaluation.coco import evaluate_coco
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
def test_worded_as_pycocotools_prints(limits, random_case, pycocotools):
    annotations, predictions, names = random_case(2)
    _, expected = pycocotools(annotations, predictions, len(names), limits)
    heading, *lines = coco_table(
        evaluate_coco(annotations, predictions, names, limits)
    ).splitlines()
    assert f"maxDets={limits[0]}/{limits[1]}/{limits[2]}" in heading
    if limits[2] != 100:  # summarize looks for a limit of 100 in its first figure
        expected, lines = expected[1:], lines[1:]
    assert lines == [line.replace("-1.000", "n/a") for line in expected]
    assert sum("n/a" not in line for line in lines) >= 8


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
