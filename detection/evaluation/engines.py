"""COCO's matching and accumulation, by hotcoco (Rust) or by pycocotools itself.

Both engines give the same arrays, bit for bit; a property test holds them to it, and pycocotools
is right should they ever differ. Images go by the rank of their id, so any 64-bit id serves.

Shape shorthand:
    T: 10 IoU thresholds        R: 101 recall thresholds        K: classes, without background
    A: 4 area ranges (all, small, medium, large)                M: 3 limits of detections
"""

import contextlib
import io
from typing import Any, Literal, NamedTuple

import hotcoco
import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import image_ids_of_boxes
from detection.evaluation.overlaps import xywh
from detection.structures import Annotations, Predictions

Engine = Literal["hotcoco", "pycocotools"]
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0, 1, 101)


class CocoArrays(NamedTuple):
    """What COCOeval accumulates; -1 in a setting without ground truth.

    Attributes:
        precision: (T, R, K, A, M) float64, interpolated precision at each recall threshold.
        recall: (T, K, A, M) float64, the highest recall.
        scores: (T, R, K, A, M) float64, score of the detection that reaches the recall threshold;
            0 where none does.
        iou_thresholds: (T,) float64.
        recall_thresholds: (R,) float64.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]
    iou_thresholds: NDArray[np.float64]
    recall_thresholds: NDArray[np.float64]


def accumulate(
    annotations: Annotations,
    predictions: Predictions,
    classes: int,
    max_detections: tuple[int, int, int],
    engine: Engine,
) -> CocoArrays:
    """Matches detections to ground truth and accumulates precision and recall.

    Args:
        annotations: checked ground truth; crowd regions are COCO's, difficult objects are ignored
            one to one.
        predictions: checked detections, in canonical order.
        classes: K, the number of classes.
        max_detections: M rising limits of the detections per image and class.
        engine: which library counts.

    Raises:
        ValueError: ``engine`` is neither.
    """
    engines = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}
    if engine not in engines:
        raise ValueError(f"engine: expected one of {', '.join(engines)}, got {engine!r}")
    ids = np.sort(annotations.image_ids)
    case = _Case(
        images=[{"id": image} for image in range(len(ids))],
        categories=[{"id": label, "name": str(label)} for label in range(1, classes + 1)],
        objects={
            "image_id": np.searchsorted(ids, image_ids_of_boxes(annotations)),
            "category_id": annotations.labels,
            "bbox": xywh(annotations.boxes, annotations.extents),
            "area": annotations.areas,
            "iscrowd": annotations.crowd,
            "difficult": annotations.difficult,
        },
        detections={
            "image_id": np.searchsorted(ids, predictions.image_ids),
            "category_id": predictions.labels,
            "bbox": xywh(predictions.boxes, predictions.extents),
            "score": predictions.scores,
        },
        limits=list(max_detections),
    )
    values = engines[engine](case)
    precision, recall, scores = (values[name] for name in ("precision", "recall", "scores"))
    return CocoArrays(precision, recall, scores, IOU_THRESHOLDS, RECALL_THRESHOLDS)


class _Case(NamedTuple):
    """COCO's tables: images and categories as dictionaries, the long ones as columns."""

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    objects: dict[str, NDArray[Any]]
    detections: dict[str, NDArray[Any]]
    limits: list[int]


def _hotcoco(case: _Case) -> dict[str, Any]:
    """Runs hotcoco on columns.

    It knows no difficult flag. An object whose area lies outside every area range ("all" ends at
    0 and 1e10) is ignored in each of them, one to one, which is the same rule.
    """
    objects, detections = case.objects, case.detections
    truth = hotcoco.COCO.from_arrays(
        case.images,
        case.categories,
        objects["image_id"],
        objects["category_id"],
        objects["bbox"],
        area=np.where(objects["difficult"], -1.0, objects["area"]),
        iscrowd=objects["iscrowd"],
    )
    columns = ("image_id", "bbox", "score", "category_id")
    found = truth.load_res(np.column_stack([detections[name] for name in columns]))
    evaluation = hotcoco.COCOeval(truth, found, "bbox")
    evaluation.params.max_dets = case.limits
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval or {}


def _pycocotools(case: _Case) -> dict[str, Any]:
    """Runs pycocotools on a dictionary per object and detection, numbered from 1."""
    from pycocotools.coco import COCO  # noqa: PLC0415
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415

    class BoxEvaluation(COCOeval):  # type: ignore[misc]
        def _prepare(self) -> None:
            super()._prepare()  # overwrites every ``ignore`` by ``iscrowd``
            for annotation in self.cocoGt.anns.values():
                annotation["ignore"] = annotation["iscrowd"] or annotation["difficult"]

    def index(columns: dict[str, NDArray[Any]]) -> Any:
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        entries = [
            {"id": i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(rows, 1)
        ]
        coco = COCO()
        coco.dataset = {
            "images": case.images,
            "categories": case.categories,
            "annotations": entries,
        }
        coco.createIndex()
        return coco

    width, height = case.detections["bbox"][:, 2:].T
    with contextlib.redirect_stdout(io.StringIO()):
        found = index({**case.detections, "area": width * height})
        evaluation = BoxEvaluation(index(case.objects), found, "bbox")
        evaluation.params.maxDets = case.limits
        evaluation.evaluate()
        evaluation.accumulate()
    values: dict[str, Any] = evaluation.eval
    return values
