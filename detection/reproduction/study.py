"""What a reproduction consists of: rows of figures, trainings behind them, and their commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from detection.reproduction.devices import on_devices
from detection.reproduction.step import Step
from detection.reproduction.tables import Published, PublishedClasses

Metric = Literal["ap", "ap50", "voc07", "voc10"]


class Training(NamedTuple):
    """A detector to be trained, once for each seed.

    Attributes:
        name: of its folder, different from the others'.
        command: arguments of ``resdet`` without data, seed and folder.
        pretraining: arguments of ``resdet`` that make its backbone's weights, for each seed;
            empty where published weights serve. Trainings of one ``pretrained`` share them.
        pretrained: name of the folder of those weights.
        reads: files of the user's that it begins with; it is trained anew where they have changed.
    """

    name: str
    command: tuple[str, ...]
    pretraining: tuple[str, ...] = ()
    pretrained: str = ""
    reads: tuple[Path, ...] = ()


class Row(NamedTuple):
    """A method with its published figures, and how ours are measured.

    Attributes:
        key: short name, different from the other rows'.
        method: as the paper calls it.
        published: its figures on one test set; empty if the paper has none.
        metrics: which of our figures stands beside each, or is measured without one.
        trainings: the detectors; several are an ensemble.
        options: of ``resdet evaluate``.
        all_seeds: whether the ensemble is of all seeds' detectors, and so has one figure.
        runs_as: what stands in for the method's network; empty if it is the network itself.
        unavailable: why there can be no figure of ours here; empty if there can.
    """

    key: str
    method: str
    published: tuple[Published, ...]
    metrics: tuple[Metric, ...]
    trainings: tuple[Training, ...] = ()
    options: tuple[str, ...] = ()
    all_seeds: bool = False
    runs_as: str = ""
    unavailable: str = ""


class Gap(NamedTuple):
    """Two rows whose difference is a claim of the paper's.

    Attributes:
        a: key of the first row.
        b: key of the second; the difference is b - a.
        paper: the paper's difference in each metric, where it is not that of the rows' figures.
    """

    a: str
    b: str
    paper: tuple[float, ...] = ()


class Study(NamedTuple):
    """A table, or the mini study.

    Attributes:
        name: of its report's files.
        title: heading.
        rows: in the table's order.
        gaps: the claims.
        data: the data set's folder.
        split: what is tested on, as `resdet evaluate --split` takes it.
        test: the same, as the papers call it; empty if it is not theirs.
        needed: files and folders below ``data`` without which it cannot run.
        download: the command that would fetch them.
        shared: steps before everything else, such as drawing data.
        comparable: whether the test set is the papers', so that figures can be judged by theirs.
        per_class: the paper's figures by class, of each row; empty for no table of classes.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    data: Path
    split: str
    test: str = ""
    needed: tuple[str, ...] = ()
    download: str = ""
    shared: tuple[Step, ...] = ()
    comparable: bool = True
    per_class: tuple[PublishedClasses, ...] = ()


def missing(study: Study) -> str:
    """Says which data are not here, and how to get them; empty if all are."""
    absent = [name for name in study.needed if not (study.data / name).exists()]
    if not absent:
        return ""
    return f"data not here: {study.data / absent[0]} is missing; `{study.download}` fetches it"


def study_steps(study: Study, output: Path, seeds: Sequence[int], devices: int = 1) -> list[Step]:
    """Lists every command of a study, in an order that they can run in.

    Args:
        study: the study.
        output: folder of the runs, which studies share.
        seeds: one training of each network for each.
        devices: of each training of a detector.

    Raises:
        ValueError: there is no device.
    """
    steps = {step.name: step for step in study.shared}
    rows = [row for row in study.rows if not row.unavailable]
    for seed in seeds:
        for row in rows:
            for training in row.trainings:
                own = _train(study, training, output, seed, devices)
                steps |= {step.name: step for step in own}
    for seed in seeds:
        for row in rows:
            step = _evaluate(study, row, output, seeds if row.all_seeds else [seed])
            steps.setdefault(step.name, step)
    return list(steps.values())


def evaluation_folders(row: Row, output: Path, seeds: Sequence[int]) -> list[Path]:
    """Returns where the row's evaluations lie, one a seed, or one of all seeds' ensemble."""
    groups = [list(seeds)] if row.all_seeds else [[seed] for seed in seeds]
    return [output / "evaluations" / _evaluation_name(row, group) for group in groups]


def _train(study: Study, training: Training, output: Path, seed: int, devices: int) -> list[Step]:
    shared = tuple(step.name for step in study.shared)
    folder = output / training.name / f"seed-{seed}"
    last = folder / "last.ckpt"
    common = ("--seed_everything", str(seed), "--output", str(folder))
    trainer = on_devices(training.command, devices)
    name = f"{training.name}-seed-{seed}"
    if not training.pretraining:
        command = (*training.command, "--data.root", str(study.data), *trainer, *common)
        # The alternating steps have their own checkpoints before they have a whole detector.
        first = folder / "step1" if training.command[0] == "alternate" else folder
        return [Step(name, command, first / "last.ckpt", shared, last, training.reads)]
    pretrained = output / training.pretrained / f"seed-{seed}"
    weights = pretrained / "weights.safetensors"
    before = Step(
        f"{training.pretrained}-seed-{seed}",
        (*training.pretraining, "--seed_everything", str(seed), "--output", str(pretrained)),
        pretrained / "last.ckpt",
        shared,
        weights,
    )
    data = ("--data.root", str(study.data), "--model.weights", str(weights))
    command = (*training.command, *data, *trainer, *common)
    return [before, Step(name, command, last, (before.name,), last, training.reads)]


def _evaluate(study: Study, row: Row, output: Path, seeds: Sequence[int]) -> Step:
    # The last checkpoint: the best one was chosen by the very images that are tested on.
    trained = [(training.name, seed) for seed in seeds for training in row.trainings]
    checkpoints = [str(output / name / f"seed-{seed}" / "last.ckpt") for name, seed in trained]
    name = _evaluation_name(row, seeds)
    folder = output / "evaluations" / name
    command = (
        *("evaluate", "--checkpoint", *checkpoints, "--data", str(study.data)),
        *("--split", study.split, "--output", str(folder), *row.options),
    )
    after = tuple(f"{name}-seed-{seed}" for name, seed in trained)
    return Step(f"evaluate-{name}", command, None, after, folder / "figures.json")


def _evaluation_name(row: Row, seeds: Sequence[int]) -> str:
    return f"{row.key}-seed{'s' * (len(seeds) > 1)}-{'-'.join(map(str, seeds))}"
