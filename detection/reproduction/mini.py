"""The paper's argument at a size that everyone can run, on the embedded shapes.

Classifiers are pre-trained on single shapes, their batch-norm statistics are averaged over the
training images and frozen (appendix A), detectors are fine-tuned from them with one recipe, and the
ladder of appendix B stands on the deepest. Every network of every seed is pre-trained anew.

Differs from the paper: the data; on a CPU the networks too, named as the stand-ins they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detection.reproduction.paper import REFINE
from detection.reproduction.step import Step
from detection.reproduction.study import Gap, Metric, Row, Study, Training
from detection.reproduction.tables import TABLE_9, Published

_METRICS: tuple[Metric, ...] = ("ap50", "ap")


class Network(NamedTuple):
    """A network of the paper and what runs in its place.

    Attributes:
        method: the paper's name.
        key: short name.
        runs_as: what stands in for it; empty if it is the network itself.
        pretraining: options of ``resdet pretrain``: the backbone and, where it has its own, the
            learning rate.
        config: file with its detector.
    """

    method: str
    key: str
    runs_as: str
    pretraining: tuple[str, ...]
    config: str


class Preset(NamedTuple):
    """How large the study is.

    Attributes:
        name: of its runs.
        report: name of its report.
        networks: VGG-16's, ResNet-50's and ResNet-101's places.
        seeds: trainings of each network unless told.
        pretraining: options of every ``resdet pretrain``.
        training: options of every ``resdet train``.
        images: options of both ``resdet shapes``.
        scales: of multi-scale testing, the paper's in proportion; the training's is in the middle.
        natural: the side of a region that the networks were pre-trained at, pixels.
    """

    name: str
    report: str
    networks: tuple[Network, Network, Network]
    seeds: int
    pretraining: tuple[str, ...]
    training: tuple[str, ...]
    images: tuple[tuple[str, ...], tuple[str, ...]]
    scales: tuple[int, ...]
    natural: int


def _stand_in(method: str, key: str, backbone: str, title: str, width: int) -> Network:
    options: tuple[str, ...] = ("--model.backbone", backbone, "--model.options.width", str(width))
    if backbone.startswith("vgg"):
        options += ("--model.options.dropout", "0.0")  # as few updates as these leave no need of it
    return Network(method, key, f"{title}, width {width}", options, f"mini_{backbone}.yaml")


def _papers(method: str, key: str) -> Network:
    options: tuple[str, ...] = ("--model.backbone", key)
    if key.startswith("resnet"):
        options += ("--model.schedule.lr", "0.05", "--model.schedule.warmup_lr", "null")
    return Network(method, key, "", options, f"mini_gpu_{key}.yaml")


CPU = Preset(
    "mini",
    "mini",
    (
        _stand_in("VGG-16", "vgg16", "vgg11", "VGG-11", 16),
        _stand_in("ResNet-50", "resnet50", "resnet18", "ResNet-18", 16),
        _stand_in("ResNet-101", "resnet101", "resnet34", "ResNet-34", 16),
    ),
    seeds=3,
    pretraining=("--config", "mini_pretrain.yaml"),
    training=("--config", "mini.yaml"),
    images=(("--train", "1200", "--val", "60", "--test", "300"), ()),
    scales=(48, 96, 144, 192, 240),
    natural=64,
)
# Fewer updates of classifiers and detectors, in the same proportions.
QUICK = CPU._replace(
    name="mini-quick",
    report="mini-quick",
    seeds=1,
    pretraining=(
        *CPU.pretraining,
        *("--trainer.max_epochs", "10", "--model.schedule.milestones", "[2625, 3375]"),
    ),
    images=(("--train", "1000", "--val", "60", "--test", "300"), ()),
)
# Batches four times as large and twice the epochs, so that half the updates see twice the images.
# The VGG's rates were chosen on seed 100; the residual networks', by the training error of
# ResNet-50's first 600 updates, is above them, as in the papers (0.1, section 3.4; the VGG's 0.01).
GPU = CPU._replace(
    name="mini-gpu",
    report="mini-gpu",
    pretraining=(
        *CPU.pretraining,
        *("--data.batch_size", "64", "--data.workers", "2"),
        *("--trainer.max_epochs", "24", "--trainer.check_val_every_n_epoch", "3"),
        *("--model.schedule.warmup_lr", "0.01", "--model.schedule.milestones", "[1562, 2009]"),
    ),
    networks=(
        _papers("VGG-16", "vgg16"),
        _papers("ResNet-50", "resnet50"),
        _papers("ResNet-101", "resnet101"),
    ),
)


def preset_of(quick: bool, gpu: bool) -> Preset:
    """Returns the preset that two switches name.

    Raises:
        ValueError: both are set.
    """
    if quick and gpu:
        raise ValueError("--quick is of the CPU's preset: give it or --gpu")
    return QUICK if quick else GPU if gpu else CPU


def mini(preset: Preset, data: Path, seeds: Sequence[int]) -> Study:
    """Makes the study of a preset.

    Args:
        preset: how large.
        data: folder to draw both data sets into.
        seeds: of the trainings; the data are the same for all.
    """
    vgg, middle, deep = preset.networks
    scales = ("--scales", *map(str, preset.scales), "--natural-side", str(preset.natural))
    plain, context = _training(preset, data, deep), _training(preset, data, deep, context=True)
    ladder = (
        _row(preset, deep, "", plain, "ResNet-101"),
        _row(preset, deep, "-refine", plain, "ResNet-101, box refinement", REFINE),
        _row(preset, deep, "-context", context, "ResNet-101, box refinement, context", REFINE),
        _row(
            preset,
            deep,
            "-scales",
            context,
            "ResNet-101, box refinement, context, multi-scale testing",
            (*REFINE, *scales),
        ),
        _ensemble(preset, deep, context, (*REFINE, *scales), seeds),
    )
    rows = (
        _row(preset, vgg, "", _training(preset, data, vgg), "VGG-16"),
        _row(preset, middle, "", _training(preset, data, middle), "ResNet-50"),
        *ladder,
    )
    keys = [row.key for row in rows]
    gaps = [Gap(keys[0], keys[1]), Gap(keys[1], keys[2]), Gap(keys[0], keys[2])]
    gaps += [Gap(keys[i], keys[i + 1]) for i in (2, 3, 4)]
    if not rows[-1].unavailable:
        gaps.append(Gap(keys[5], keys[6], _ensemble_gain()))
    shared = tuple(
        Step(f"{preset.name}-draw-{name}", ("shapes", str(data / name), "--hard", *more, *options))
        for name, more, options in (
            ("detection", (), preset.images[0]),
            ("classification", ("--classification",), preset.images[1]),
        )
    )
    title = "The paper's argument in small, on shapes"
    return Study(
        preset.report,
        title,
        rows,
        tuple(gaps),
        data / "detection",
        "test",
        shared=shared,
        comparable=False,
    )


def _training(preset: Preset, data: Path, network: Network, context: bool = False) -> Training:
    """Context is one more switch on the same pre-trained network."""
    classifier = f"{preset.name}-{network.key}-pretrained"
    pretraining = (
        *("pretrain", *preset.pretraining, *network.pretraining),
        *("--data.root", str(data / "classification")),
    )
    switch = ("--model.detector.context", "true") if context else ()
    return Training(
        f"{preset.name}-{network.key}{'-context' if context else ''}",
        ("train", *preset.training, "--config", network.config, *switch),
        pretraining,
        classifier,
    )


def _row(
    preset: Preset,
    network: Network,
    suffix: str,
    training: Training,
    method: str,
    options: tuple[str, ...] = (),
) -> Row:
    published = tuple(one for one in TABLE_9 if (one.method, one.test) == (method, "COCO val"))
    return Row(
        f"{preset.name}-{network.key}{suffix}",
        method,
        published,
        _METRICS,
        (training,),
        options,
        runs_as=network.runs_as,
    )


def _ensemble(
    preset: Preset,
    network: Network,
    training: Training,
    options: tuple[str, ...],
    seeds: Sequence[int],
) -> Row:
    """The paper's is of three networks; here of one network's seeds."""
    row = _row(preset, network, "-ensemble", training, "ensemble of 3", options)
    if len(seeds) > 1:
        members = ", ".join(filter(None, (network.runs_as, f"{len(seeds)} seeds")))
        return row._replace(all_seeds=True, runs_as=members)
    return row._replace(trainings=(), unavailable="needs several seeds: --seeds 3")


def _ensemble_gain() -> tuple[float, ...]:
    """The paper's gain by ensemble, AP50 and AP on test-dev."""
    figures: dict[str, list[Published]] = {}
    for one in TABLE_9:
        if one.test == "COCO test-dev":
            figures.setdefault(one.method, []).append(one)
    *_, single, ensemble = figures.values()
    return tuple(round(b.value - a.value, 2) for a, b in zip(single, ensemble, strict=True))
