import pytest

from detection.reproduction.tables import (
    TABLE_7,
    TABLE_8,
    TABLE_9,
    TABLE_10,
    TABLE_11,
    TABLE_12,
    TABLE_13,
    TABLE_14,
    VOC_CLASSES,
)

ROWS = [*TABLE_10, *TABLE_11]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.test} {row.method}" for row in ROWS])
def test_classes_average_to_the_printed_map(row):
    assert len(row.per_class) == len(VOC_CLASSES) == len(set(VOC_CLASSES)) == 20
    # both the mean and its 20 terms are rounded to one decimal
    assert sum(row.per_class) / 20 == pytest.approx(row.mean, abs=0.1)


@pytest.mark.parametrize("row", TABLE_7)
def test_table_7_is_the_mean_of_tables_10_and_11(row):
    means = {(r.method, r.training, r.test): r.mean for r in ROWS}
    assert row.value == means[row.method, row.training, row.test]


def test_table_9_starts_from_table_8():
    figures = {r[:5] for r in TABLE_9}
    assert {r[:5] for r in TABLE_8} <= figures
    assert len(figures) == len(TABLE_9) == 16


def test_gains_that_the_text_states():
    """Section 4.3: COCO's AP rises by 6.0 points; the ensemble reaches 59.0 and 37.4."""
    ap = {r.method: r.value for r in TABLE_8 if r.metric == "AP"}
    assert ap["ResNet-101"] - ap["VGG-16"] == pytest.approx(6.0)
    best = {r.metric: r.value for r in TABLE_9 if r.method == "ensemble of 3"}
    assert best == {"AP50": 59.0, "AP": 37.4}
    assert [r.value for r in TABLE_12] == [58.8, 62.1]


def test_localization_errors_that_the_text_states():
    """Appendix C: 33.1 falls to 13.3 and 11.7; 14.4 to 10.6; 25.3 to 9.0, by 64 % of itself."""
    by_metric = {
        metric: [r.value for r in TABLE_13 if r.metric == metric]
        for metric in ("GT-class error", "top-5 error")
    }
    assert by_metric == {"GT-class error": [33.1, 13.3, 11.7], "top-5 error": [14.4, 10.6, 8.9]}
    test = {r.method: r.value for r in TABLE_14 if r.test == "ImageNet LOC test"}
    ours, best_before = test.pop("ResNet, ensemble (ILSVRC'15)"), min(test.values())
    assert round(100 * (1 - ours / best_before)) == 64
    # The ensemble's error on val stands in both tables.
    assert TABLE_13[-1].value == next(r.value for r in TABLE_14 if r.method.startswith("ResNet"))
    assert len(TABLE_14) == 7


def test_every_figure_names_its_table():
    tables = (TABLE_7, TABLE_8, TABLE_9, TABLE_10, TABLE_11, TABLE_12, TABLE_13, TABLE_14)
    for number, table in enumerate(tables, 7):
        assert {row.source.rsplit(" ", 2)[1:] == ["Table", str(number)] for row in table} == {True}
