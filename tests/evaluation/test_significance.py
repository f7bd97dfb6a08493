import math
import re

import numpy as np
import pytest

from detection.evaluation.matches import match_detections, match_voc
from detection.evaluation.precision import average_precision
from detection.evaluation.significance import Interval, bootstrap

A = (0.0, 0.0, 10.0, 10.0)
FAR = (200.0, 200.0, 210.0, 210.0)


def halves(truth, found, images, hits):
    """An object in each image, found in the first few and not looked for elsewhere."""
    annotations = truth({i: [(A, 1)] for i in range(images)})
    return match_detections(annotations, found([(i, A, 0.5, 1) for i in range(hits)]), ["c"])


def test_nothing(truth, found):
    for annotations in (truth({}), truth({1: []})):
        matches = match_detections(annotations, found(), ["c"])
        result = bootstrap(matches, matches, resamples=10)
        assert all(math.isnan(value) for value in result.a.ap + result.difference.ap50)
        assert all(math.isnan(value) for value in result.a.per_class[0])
        assert result.images == len(annotations.image_ids)
    assert bootstrap(match_detections(truth({}), found(), []), resamples=2).a.per_class == ()


def test_certain_figures_have_no_width(truth, found):
    result = bootstrap(halves(truth, found, 20, 20), halves(truth, found, 20, 0), resamples=50)
    assert result.a.ap == result.a.ap50 == result.a.per_class[0] == pytest.approx((1, 1, 1))
    assert result.b.ap == (0, 0, 0)
    assert result.difference.ap == pytest.approx((-1, -1, -1))
    assert (result.resamples, result.confidence, result.images) == (50, 0.95, 20)


def test_interval_is_the_binomial_one(truth, found):
    """With hits only, AP is the share of images drawn that were hits: binomial, n = 400, p = .5."""
    matches = halves(truth, found, 400, 200)
    result = bootstrap(matches, resamples=2000, levels=None)
    sigma = math.sqrt(0.25 / 400)
    expected = (0.5, 0.5 - 1.96 * sigma, 0.5 + 1.96 * sigma)
    assert result.a.ap == pytest.approx(expected, abs=0.005)
    narrow = bootstrap(matches, resamples=2000, confidence=0.5, levels=None).a.ap
    assert narrow == pytest.approx((0.5, 0.5 - 0.674 * sigma, 0.5 + 0.674 * sigma), abs=0.005)


def test_difference_is_paired(truth, found):
    # b finds one image more than a, whatever is drawn: the interval is that of this image alone.
    a, b = halves(truth, found, 100, 50), halves(truth, found, 100, 51)
    result = bootstrap(a, b, resamples=500, levels=None)
    assert result.difference.ap == pytest.approx((0.01, 0, 0.03), abs=1e-9)
    assert result.a.ap.high - result.a.ap.low > 0.15
    alone = bootstrap(a, resamples=500, levels=None)
    assert alone.b is alone.difference is None
    assert alone.a == result.a
    same = bootstrap(a, a, resamples=20)
    assert same.difference.ap == (0, 0, 0)


def test_equals_resampling_by_hand(random_case):
    annotations, predictions, names = random_case(4, images=12)
    matches = match_detections(annotations, predictions, names)
    rng = np.random.default_rng(3)
    drawn = rng.multinomial(12, np.full(12, 1 / 12), 40)
    aps = average_precision(matches, drawn)
    result = bootstrap(matches, resamples=40, seed=3)
    filled = aps.copy()
    whole = average_precision(matches)
    for b, k in np.argwhere(np.isnan(aps[:, :, 0])):
        filled[b, k] = whole[k]
    ends = np.quantile(np.nanmean(filled, axis=(1, 2)), [0.025, 0.975])
    assert result.a.ap[1:] == pytest.approx(tuple(ends))
    assert result.a.ap.value == pytest.approx(np.nanmean(average_precision(matches)))
    ends = np.nanquantile(np.nanmean(filled[:, :, 0], axis=1), [0.025, 0.975])
    assert result.a.ap50[1:] == pytest.approx(tuple(ends))
    for k, interval in enumerate(result.a.per_class):
        of_class = aps[:, k].mean(axis=1)
        assert interval[1:] == pytest.approx(tuple(np.nanquantile(of_class, [0.025, 0.975])))


def test_a_class_that_a_resample_lacks_does_not_move_the_mean(truth, found):
    # Class 1 in 50 images, always found; class 2 in one of them, never found: AP .5, whatever is
    # drawn. Left out where its image was not drawn, class 2 would let the mean be 1.
    annotations = truth({i: [(A, 1), *([(FAR, 2)] if i == 0 else [])] for i in range(50)})
    detections = found([(i, A, 0.5, 1) for i in range(50)])
    result = bootstrap(match_detections(annotations, detections, ["c", "d", "e"]), resamples=200)
    assert result.a.ap == result.a.ap50 == pytest.approx((0.5, 0.5, 0.5))
    assert result.a.per_class[1] == (0, 0, 0)
    assert all(math.isnan(value) for value in result.a.per_class[2])


def test_batches_do_not_matter(random_case, monkeypatch):
    matches = match_detections(*random_case(4, images=12))
    expected = bootstrap(matches, resamples=23)
    monkeypatch.setattr("detection.evaluation.significance._BATCH", 150)
    assert bootstrap(matches, resamples=23) == expected


def test_voc_matches_have_no_mean_over_thresholds(random_case):
    result = bootstrap(match_voc(*random_case(2)), resamples=5, levels=None)
    assert result.a.ap == result.a.ap50
    strict = bootstrap(match_voc(*random_case(2), iou=0.7), resamples=5)
    assert all(math.isnan(value) for value in strict.a.ap50)


def test_runs_on_other_data_are_refused(truth, found):
    matches = halves(truth, found, 5, 3)
    for other, field in [
        (halves(truth, found, 6, 3), "image_ids"),
        (matches._replace(class_names=("d",)), "class_names"),
        (matches._replace(ious=matches.ious[:1]), "ious"),
        (matches._replace(objects=matches.objects + 1), "objects"),
    ]:
        with pytest.raises(ValueError, match=f"differ in {field}"):
            bootstrap(matches, other)


@pytest.mark.parametrize(("resamples", "confidence"), [(0, 0.95), (5, 0.0), (5, 1.0)])
def test_bad_numbers_are_refused(resamples, confidence, truth, found):
    with pytest.raises(ValueError, match=re.escape("a confidence in (0, 1)")):
        bootstrap(halves(truth, found, 2, 1), resamples=resamples, confidence=confidence)


def test_several_trainings_are_their_mean(truth, found):
    """An image is worth the share of trainings that hit it: 1, 1/2 or 0."""
    runs = [halves(truth, found, 400, 200), halves(truth, found, 400, 100)]
    result = bootstrap(runs, [runs[0]], resamples=2000, levels=None)
    sigma = math.sqrt(((100 + 100 / 4) / 400 - 0.375**2) / 400)
    expected = (0.375, 0.375 - 1.96 * sigma, 0.375 + 1.96 * sigma)
    assert result.a.ap == pytest.approx(expected, abs=0.005)
    assert result.difference.ap.value == pytest.approx(0.125)
    # the difference is half of what the second training missed: 100 of 400 images
    half = 0.5 * 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert result.difference.ap.low == pytest.approx(0.125 - half, abs=0.005)


def test_classes_of_few_images_lift_the_interval_above_the_figure(truth, found):
    """Each class's one image counts 1.58 times where it is drawn, its false positive's once."""
    classes = range(100)
    annotations = truth({i: [(A, i + 1)] for i in classes})
    wrong = [((i + 1) % 100, A, 0.9, i + 1) for i in classes]
    detections = found([*wrong, *((i, A, 0.8, i + 1) for i in classes)])
    matches = match_detections(annotations, detections, [str(i) for i in classes])
    resampled = bootstrap(matches, resamples=200).a.ap
    assert resampled.value == pytest.approx(0.5)
    assert resampled.low > 0.52
    assert not resampled.holds_value


def test_whether_an_interval_holds_its_figure():
    assert Interval(0.5, 0.5, 0.6).holds_value
    assert Interval(1 + 1e-15, 1, 1).holds_value
    assert Interval(0.5, math.nan, math.nan).holds_value
    assert not Interval(0.437, 0.441, 0.514).holds_value
    assert not Interval(0.02, -0.01, 0.01).holds_value
