"""Intervals over images, for rows of which there are few runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from detection.evaluation.matches import Matches, match_detections, match_voc
from detection.evaluation.precision import COCO_LEVELS, VOC07_LEVELS
from detection.evaluation.significance import Bootstrap, Interval, Intervals, bootstrap
from detection.reproduction.evaluated import Evaluated
from detection.reproduction.study import Gap, Metric
from detection.reproduction.verdict import ENOUGH

_LEVELS = {"ap": COCO_LEVELS, "ap50": COCO_LEVELS, "voc07": VOC07_LEVELS, "voc10": None}


class ImageIntervals:
    """Bootstrap intervals of the runs' means; each run's matches are found once."""

    def __init__(self, runs: Mapping[str, Sequence[Evaluated]], resamples: int) -> None:
        """Sets the runs of each row, by its key, and how often to resample; 0 for never."""
        self._runs = runs
        self._resamples = resamples
        self._matches = cache(self._match)

    def one(self, key: str, metric: Metric) -> Interval | None:
        """Returns that of a row's figure; None where several runs make it needless."""
        if len(self._runs[key]) >= ENOUGH or not self._resamples:
            return None
        return _of(self._bootstrap(metric, key).a, metric)

    def gap(self, gap: Gap, metric: Metric) -> Interval | None:
        """Returns that of a paired difference; None where several pairs make it needless."""
        a, b = (len(self._runs[key]) for key in (gap.a, gap.b))
        if a == b >= ENOUGH or not self._resamples:
            return None
        found = self._bootstrap(metric, gap.a, gap.b).difference
        return None if found is None else _of(found, metric)

    def _bootstrap(self, metric: Metric, a: str, b: str | None = None) -> Bootstrap:
        voc, levels = metric.startswith("voc"), _LEVELS[metric]
        other = None if b is None else self._matches(b, voc)
        return bootstrap(self._matches(a, voc), other, self._resamples, levels=levels)

    def _match(self, key: str, voc: bool) -> list[Matches]:
        match = match_voc if voc else match_detections
        return [
            match(run.records.annotations, run.predictions, run.records.labels.names)
            for run in self._runs[key]
        ]


def _of(intervals: Intervals, metric: Metric) -> Interval:
    return intervals.ap50 if metric == "ap50" else intervals.ap
