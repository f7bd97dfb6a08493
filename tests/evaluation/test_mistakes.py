import pytest

from detection.evaluation.errors import ErrorType, classify_errors
from detection.evaluation.matches import match_detections
from detection.evaluation.mistakes import ImageErrors, Mistake, confident_mistakes, worst_images

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)
FAR = (200.0, 200.0, 210.0, 210.0)


def test_nothing(truth, found):
    for annotations in (truth({}), truth({1: []})):
        matches = match_detections(annotations, found(), ["c"])
        errors = classify_errors(annotations, matches)
        assert confident_mistakes(annotations, matches, errors) == []
        assert worst_images(matches) == []


def test_confident_mistakes(truth, found):
    annotations = truth({7: [(B, 1), (A, 2)], 9: [(B, 1)]}, crowd=[2])
    rows = [(7, A, 0.75, 1), (7, A, 0.9375, 2), (7, FAR, 0.875, 2), (7, A, 0.5, 2), (9, B, 1.0, 1)]
    predictions = found(rows)
    matches = match_detections(annotations, predictions, ["c", "d"])
    errors = classify_errors(annotations, matches)
    mistakes = confident_mistakes(annotations, matches, errors)
    assert mistakes == [
        Mistake(7, FAR, 2, 0.875, ErrorType.BACKGROUND, None, None, None),
        Mistake(7, A, 1, 0.75, ErrorType.CLASSIFICATION, 1, A, 2),
        Mistake(7, A, 2, 0.5, ErrorType.DUPLICATE, 1, A, 2),
    ]
    assert confident_mistakes(annotations, matches, errors, limit=1) == mistakes[:1]
    assert type(mistakes[0].image_id) is type(mistakes[0].label) is int
    assert type(mistakes[0].box[0]) is type(mistakes[0].score) is float


def test_worst_images(truth, found):
    annotations = truth({5: [(A, 1), (B, 1)], 3: [(A, 2)], 8: [(A, 1)], 6: [], 4: [(B, 2)]})
    rows = [(5, A, 0.9, 1), (5, FAR, 0.75, 2), (8, A, 0.9, 1), (6, A, 0.5, 1), (6, B, 0.25, 1)]
    rows += [(3, FAR, 0.4, 2)]
    matches = match_detections(annotations, found(rows), ["c", "d"])
    images = worst_images(matches)
    assert images == [
        ImageErrors(3, 0.0, 0, 0, 1, 1.0),
        ImageErrors(4, 0.0, 0, 0, 1, 1.0),
        ImageErrors(6, 0.0, 0, 1, 0, 0.5),
        ImageErrors(5, 0.5, 1, 1, 1, 1.75),
    ]
    assert worst_images(matches, limit=2) == images[:2]
    everything = worst_images(matches, score=0.0)
    assert everything[0] == ImageErrors(3, 0.0, 0, 1, 1, pytest.approx(1.4))


def test_ignored_detections_are_no_errors(truth, found):
    annotations = truth({5: [(A, 1), (B, 1)]}, crowd=[0], difficult=[1])
    matches = match_detections(annotations, found([(5, A, 0.9, 1), (5, B, 0.8, 1)]), ["c"])
    assert worst_images(matches) == []
