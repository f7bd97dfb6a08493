"""Class names, the model's contiguous labels 1…K, and the data set's own category ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class LabelMap(NamedTuple):
    """Names and ids of the K classes; label ``k`` (1…K) is entry ``k - 1``.

    Attributes:
        names: K unique class names.
        ids: K unique category ids of the data set; 1…K where the data set has none (VOC).
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    @classmethod
    def from_names(cls, names: Sequence[str]) -> LabelMap:
        """Makes a map whose category ids are the labels themselves."""
        return cls(tuple(names), tuple(range(1, len(names) + 1)))

    def label_of_name(self) -> dict[str, int]:
        """Maps each class name to its label, 1…K."""
        return {name: label for label, name in enumerate(self.names, start=1)}

    def label_of_id(self) -> dict[int, int]:
        """Maps each category id of the data set to its label, 1…K."""
        return {category: label for label, category in enumerate(self.ids, start=1)}
