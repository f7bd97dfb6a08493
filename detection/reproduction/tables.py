"""The figures of the ResNet paper's Tables 7 to 14 (arXiv 1512.03385), as data.

Training and test sets are named as in the papers: VOC 07+12 is trainval of both years, 07++12 adds
the test set of 2007; COCO's are those of 2014. All figures are in percent, as printed.
"""

from typing import NamedTuple

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""VOC's names, in the order of Tables 10 and 11."""

_RESNET = "He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, Table"
_IMPROVED = "ResNet-101, box refinement, context, multi-scale testing, pre-trained on COCO"  # "+++"


class Published(NamedTuple):
    """A published figure.

    Attributes:
        method: the network, and what was added.
        training: the training set.
        test: the test set.
        metric: ``mAP`` of VOC or ImageNet DET, ``AP50`` or ``AP`` of COCO; of ImageNet LOC the
            localization error with the ground-truth class given, ``GT-class error``, or with the
            classifier's five classes, ``top-5 error``.
        value: percent.
        source: paper and table.
    """

    method: str
    training: str
    test: str
    metric: str
    value: float
    source: str


class PublishedClasses(NamedTuple):
    """A published row of figures per class.

    Attributes:
        method: the network, and what was added.
        training: the training set.
        test: the test set.
        mean: mAP as printed, percent.
        per_class: AP as printed, percent, of `VOC_CLASSES`.
        source: paper and table.
    """

    method: str
    training: str
    test: str
    mean: float
    per_class: tuple[float, ...]
    source: str


def _published(
    table: int, training: str, test: str, rows: dict[str, dict[str, float]]
) -> tuple[Published, ...]:
    return tuple(
        Published(method, training, test, metric, value, f"{_RESNET} {table}")
        for method, figures in rows.items()
        for metric, value in figures.items()
    )


TABLE_7 = (
    *_published(7, "07+12", "VOC 07 test", {"VGG-16": {"mAP": 73.2}, "ResNet-101": {"mAP": 76.4}}),
    *_published(7, "07++12", "VOC 12 test", {"VGG-16": {"mAP": 70.4}, "ResNet-101": {"mAP": 73.8}}),
)
TABLE_8 = _published(
    8,
    "COCO train",
    "COCO val",
    {"VGG-16": {"AP50": 41.5, "AP": 21.2}, "ResNet-101": {"AP50": 48.4, "AP": 27.2}},
)
"""The baseline Faster R-CNN on COCO."""

TABLE_9 = (
    *_published(
        9,
        "COCO train",
        "COCO val",
        {
            "VGG-16": {"AP50": 41.5, "AP": 21.2},
            "ResNet-101": {"AP50": 48.4, "AP": 27.2},
            "ResNet-101, box refinement": {"AP50": 49.9, "AP": 29.9},
            "ResNet-101, box refinement, context": {"AP50": 51.1, "AP": 30.0},
            "ResNet-101, box refinement, context, multi-scale testing": {"AP50": 53.8, "AP": 32.5},
        },
    ),
    *_published(
        9,
        "COCO trainval",
        "COCO test-dev",
        {
            "ResNet-101, box refinement, context": {"AP50": 53.3, "AP": 32.2},
            "ResNet-101, box refinement, context, multi-scale testing": {"AP50": 55.7, "AP": 34.9},
            "ensemble of 3": {"AP50": 59.0, "AP": 37.4},
        },
    ),
)
"""Object detection improvements on COCO; each row adds to the one above."""


def _per_class(
    table: int, method: str, training: str, test: str, mean: float, figures: str
) -> PublishedClasses:
    values = tuple(map(float, figures.split()))
    return PublishedClasses(method, training, test, mean, values, f"{_RESNET} {table}")


TABLE_10 = (
    _per_class(
        10,
        "VGG-16",
        "07+12",
        "VOC 07 test",
        73.2,
        "76.5 79.0 70.9 65.5 52.1 83.1 84.7 86.4 52.0 81.9 "
        "65.7 84.8 84.6 77.5 76.7 38.8 73.6 73.9 83.0 72.6",
    ),
    _per_class(
        10,
        "ResNet-101",
        "07+12",
        "VOC 07 test",
        76.4,
        "79.8 80.7 76.2 68.3 55.9 85.1 85.3 89.8 56.7 87.8 "
        "69.4 88.3 88.9 80.9 78.4 41.7 78.6 79.8 85.3 72.0",
    ),
    _per_class(
        10,
        _IMPROVED,
        "COCO+07+12",
        "VOC 07 test",
        85.6,
        "90.0 89.6 87.8 80.8 76.1 89.9 89.9 89.6 75.5 90.0 "
        "80.7 89.6 90.3 89.1 88.7 65.4 88.1 85.6 89.0 86.8",
    ),
)
"""AP per class on VOC 07 test."""

TABLE_11 = (
    _per_class(
        11,
        "VGG-16",
        "07++12",
        "VOC 12 test",
        70.4,
        "84.9 79.8 74.3 53.9 49.8 77.5 75.9 88.5 45.6 77.1 "
        "55.3 86.9 81.7 80.9 79.6 40.1 72.6 60.9 81.2 61.5",
    ),
    _per_class(
        11,
        "ResNet-101",
        "07++12",
        "VOC 12 test",
        73.8,
        "86.5 81.6 77.2 58.0 51.0 78.6 76.6 93.2 48.6 80.4 "
        "59.0 92.1 85.3 84.8 80.7 48.1 77.3 66.5 84.7 65.6",
    ),
    _per_class(
        11,
        _IMPROVED,
        "COCO+07++12",
        "VOC 12 test",
        83.8,
        "92.1 88.4 84.8 75.9 71.4 86.3 87.8 94.2 66.8 89.4 "
        "69.2 93.9 91.9 90.9 89.6 67.9 88.2 76.8 90.3 80.0",
    ),
)
"""AP per class on VOC 12 test."""

TABLE_12 = _published(
    12,
    "ImageNet DET",
    "ImageNet DET test",
    {"ResNet-101, single model": {"mAP": 58.8}, "ResNet-101, ensemble": {"mAP": 62.1}},
)

TABLE_13 = _published(
    13,
    "ImageNet LOC",
    "ImageNet LOC val",
    {
        "VGG's, VGG-16, 1-crop": {"GT-class error": 33.1},
        "RPN, ResNet-101, 1-crop": {"GT-class error": 13.3},
        "RPN, ResNet-101, dense": {"GT-class error": 11.7, "top-5 error": 14.4},
        "RPN + R-CNN, ResNet-101, dense": {"top-5 error": 10.6},
        "RPN + R-CNN, ensemble, dense": {"top-5 error": 8.9},
    },
)
"""Localization on ImageNet; 1-crop is the 224x224 centre crop, dense is fully convolutional at
several scales. The classes of the top-5 errors are ResNet-101's (its classification error is 4.6),
and an ensemble's in the last row."""

_OURS = "ResNet, ensemble (ILSVRC'15)"
TABLE_14 = (
    *_published(
        14,
        "ImageNet LOC",
        "ImageNet LOC val",
        {
            "OverFeat (ILSVRC'13)": {"top-5 error": 30.0},
            "VGG (ILSVRC'14)": {"top-5 error": 26.9},
            _OURS: {"top-5 error": 8.9},
        },
    ),
    *_published(
        14,
        "ImageNet LOC",
        "ImageNet LOC test",
        {
            "OverFeat (ILSVRC'13)": {"top-5 error": 29.9},
            "GoogLeNet (ILSVRC'14)": {"top-5 error": 26.7},
            "VGG (ILSVRC'14)": {"top-5 error": 25.3},
            _OURS: {"top-5 error": 9.0},
        },
    ),
)
"""Localization on ImageNet beside the challenge's earlier entries."""
