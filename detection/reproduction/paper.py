"""The ResNet paper's detection tables as studies: which command stands behind each figure.

Differs from the paper: training is approximate joint training unless ``schedule`` asks for the four
alternating steps, and weights are torchvision's.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from detection.reproduction import tables
from detection.reproduction.recipes import composed
from detection.reproduction.study import Gap, Metric, Row, Study, Training
from detection.reproduction.tables import Published, PublishedClasses

Schedule = Literal["joint", "alternating"]
_TOOLS: Mapping[Schedule, str] = {"joint": "train", "alternating": "alternate"}

REFINE = ("--refine", "--vote")
SCALES = ("--scales", "200", "400", "600", "800", "1000")
_CONTEXT = ("--model.detector.context", "true")
_NETWORKS = {"VGG-16": "vgg16", "ResNet-101": "resnet101"}
_SERVER = "needs a server: the test set's ground truth is not public; `resdet submit` packs results"


class _Recipe(NamedTuple):
    """A training set and its test set."""

    config: str
    alternating: str
    split: str
    test: str
    metrics: tuple[Metric, ...]
    needed: tuple[str, ...]
    download: str

    @property
    def name(self) -> str:
        return self.config.removesuffix(".yaml")


_VOC0712 = _Recipe(
    "voc0712.yaml",
    "alternating_voc.yaml",
    "VOC2007/test",
    "VOC 07 test",
    ("voc07",),
    ("VOC2007/ImageSets/Main/test.txt", "VOC2012/ImageSets/Main/trainval.txt"),
    "resdet download voc07 voc12",
)
_COCO2014 = _Recipe(
    "coco2014.yaml",
    "alternating_coco.yaml",
    "val2014",
    "COCO val",
    ("ap50", "ap"),
    ("annotations/instances_train2014.json", "annotations/instances_val2014.json"),
    "resdet download coco2014",
)


def _training(recipe: _Recipe, network: str, schedule: Schedule, context: bool) -> Training:
    name = f"{recipe.name}-{network}{'-context' if context else ''}"
    steps = ("--config", recipe.alternating) if schedule == "alternating" else ()
    command = (
        *(_TOOLS[schedule], "--config", recipe.config, *steps, "--config", f"{network}.yaml"),
        *(_CONTEXT if context else ()),
    )
    return Training(f"{name}-alternating" if steps else name, command)


def _fine_tuned(training: Training, start: Path) -> Training:
    """The RPN of a detector of COCO is for COCO's anchors, which it keeps."""
    coco = composed(("train", "--config", _COCO2014.config))["model"]["detector"]
    anchors = ("--model.detector.anchor_sizes", str(coco["anchor_sizes"]))
    command = (*training.command, *anchors, "--model.start", str(start.resolve()))
    return Training(f"{training.name}-coco", command, reads=(start.resolve(),))


def _row(
    recipe: _Recipe,
    method: str,
    schedule: Schedule,
    published: tuple[Published, ...],
    context: bool = False,
    options: tuple[str, ...] = (),
) -> Row:
    """A row that can be run: one network, perhaps with context, tested with some options."""
    network = _NETWORKS[method.partition(",")[0]]
    training = _training(recipe, network, schedule, context)
    extra = "".join(f"-{name}" for name in ("refine", "scales") if f"--{name}" in options)
    return Row(f"{training.name}{extra}", method, published, recipe.metrics, (training,), options)


def _hidden(published: tuple[Published, ...], metrics: tuple[Metric, ...], why: str) -> Row:
    first = published[0]
    key = f"{first.method} on {first.test}"
    return Row(key, first.method, published, metrics, unavailable=why)


def _by_method(figures: tuple[Published, ...], test: str) -> dict[str, tuple[Published, ...]]:
    methods = dict.fromkeys(figure.method for figure in figures if figure.test == test)
    return {
        method: tuple(one for one in figures if (one.method, one.test) == (method, test))
        for method in methods
    }


def table7(data: Path, schedule: Schedule = "joint") -> Study:
    """Table 7: VGG-16 against ResNet-101 on VOC 07 and 12 test."""
    rows = [
        _row(_VOC0712, method, schedule, figures)
        for method, figures in _by_method(tables.TABLE_7, _VOC0712.test).items()
    ]
    hidden = [
        _hidden(figures, ("voc10",), _SERVER)
        for figures in _by_method(tables.TABLE_7, "VOC 12 test").values()
    ]
    return _study("table7", "Table 7: PASCAL VOC, mAP", (*rows, *hidden), _VOC0712, data)


def table8(data: Path, schedule: Schedule = "joint") -> Study:
    """Table 8: VGG-16 against ResNet-101 on COCO val."""
    rows = [
        _row(_COCO2014, method, schedule, figures)
        for method, figures in _by_method(tables.TABLE_8, _COCO2014.test).items()
    ]
    return _study("table8", "Table 8: COCO val, AP50 and AP", tuple(rows), _COCO2014, data)


def table9(data: Path, schedule: Schedule = "joint") -> Study:
    """Table 9: the improvements of appendix B on COCO."""
    switches = ((False, ()), (False, ()), (False, REFINE), (True, REFINE), (True, REFINE + SCALES))
    rows = [
        _row(_COCO2014, method, schedule, figures, context, options)
        for (method, figures), (context, options) in zip(
            _by_method(tables.TABLE_9, _COCO2014.test).items(), switches, strict=True
        )
    ]
    hidden = [
        _hidden(figures, ("ap50", "ap"), _SERVER)
        for figures in _by_method(tables.TABLE_9, "COCO test-dev").values()
    ]
    return _study("table9", "Table 9: improvements on COCO", (*rows, *hidden), _COCO2014, data)


def table10(data: Path, schedule: Schedule = "joint", start: Path | None = None) -> Study:
    """Table 10: class by class on VOC 07 test.

    Args:
        data: the folder VOCdevkit.
        schedule: of the trainings.
        start: checkpoint of a ResNet-101 with context that was trained on COCO, for the last row.
    """
    vgg, resnet, improved = map(_mean, tables.TABLE_10)
    rows = [_row(_VOC0712, one.method, schedule, (one,)) for one in (vgg, resnet)]
    if start is None:
        why = "needs a detector of COCO: `--start`, from table9's row with context"
        rows.append(_hidden((improved,), ("voc07",), why))
    else:
        row = _row(_VOC0712, improved.method, "joint", (improved,), True, REFINE + SCALES)
        trainings = (_fine_tuned(row.trainings[0], start),)
        rows.append(row._replace(key=f"{row.key}-coco", trainings=trainings))
    study = _study("table10", "Table 10: VOC 07 test by class, AP", tuple(rows), _VOC0712, data)
    return study._replace(per_class=tables.TABLE_10)


def table11(data: Path, schedule: Schedule = "joint") -> Study:
    """Table 11: class by class on VOC 12 test."""
    del schedule
    rows = tuple(_hidden((_mean(one),), ("voc10",), _SERVER) for one in tables.TABLE_11)
    title, tested = "Table 11: VOC 12 test by class, AP", (data, "VOC2012/test", "VOC 12 test")
    return Study("table11", title, rows, (), *tested, per_class=tables.TABLE_11)


def table12(data: Path, schedule: Schedule = "joint") -> Study:
    """Table 12: ImageNet detection."""
    del schedule
    why = "data not here: ImageNet DET's test set is on its server, and there is no recipe for it"
    rows = tuple(_hidden((one,), ("voc10",), why) for one in tables.TABLE_12)
    title = "Table 12: ImageNet DET test, mAP"
    return Study("table12", title, rows, (), data, "test", "ImageNet DET test")


TABLES: Mapping[str, Callable[[Path, Schedule], Study]] = {
    function.__name__: function for function in (table7, table8, table9, table10, table11, table12)
}


def _mean(row: PublishedClasses) -> Published:
    return Published(row.method, row.training, row.test, "mAP", row.mean, row.source)


def _study(name: str, title: str, rows: tuple[Row, ...], recipe: _Recipe, data: Path) -> Study:
    """The claim is the gain of each row that can be run over the one above."""
    keys = [row.key for row in rows if not row.unavailable]
    gaps = tuple(Gap(a, b) for a, b in pairwise(keys))
    tested = (data, recipe.split, recipe.test)
    return Study(name, title, rows, gaps, *tested, recipe.needed, recipe.download)
