import pytest

from detection.data.labels import LabelMap


def test_names_alone_have_their_labels_as_ids():
    assert LabelMap.from_names(["cat", "dog"]) == LabelMap(("cat", "dog"), (1, 2))


def test_labels_start_at_1():
    assert LabelMap.from_names(["cat", "dog"]).label_of_name() == {"cat": 1, "dog": 2}


def test_ids_with_gaps_have_contiguous_labels():
    assert LabelMap(("cat", "dog", "cow"), (1, 7, 90)).label_of_id() == {1: 1, 7: 2, 90: 3}


@pytest.mark.parametrize("names", [[], ["cat"], ["b", "a", "c"]])
def test_the_order_given_stays(names):
    assert list(LabelMap.from_names(names).names) == names
