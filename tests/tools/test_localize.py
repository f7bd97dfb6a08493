import csv
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from backbones import build, save_weights
from backbones.classification.module import ClassifierModule
from detection.data.localization import image_labels, read_localization
from detection.data.shape_variants import PLAIN
from detection.data.shapes import draw_shapes
from detection.evaluation.localization import error, right_guesses
from detection.training.localization import load_localizer
from resdet.tools.localize import main

pytestmark = pytest.mark.filterwarnings(
    "ignore:`ModelCheckpoint.monitor='val/gt_class_error'.` could not"
)

SIDE = 112
SPARSE = replace(
    PLAIN, sides=((24.0, 64.0),), side_odds=(1.0,), keep_odds=(1.0, 0.0, 0.0), crowd=0.0
)
Box = tuple[int, int, int, int]


def single_objects(split: str) -> Iterator[tuple[str, Image.Image, Box]]:
    """Windows of drawn images that hold one whole object, anywhere in them."""
    for index in count():
        drawn = draw_shapes(split, index, variant=SPARSE)
        rng = np.random.default_rng(index)
        for item in drawn.objects:
            x1, y1, x2, y2 = item.box
            width, height = drawn.image.size
            low = max(0, x2 - SIDE), max(0, y2 - SIDE)
            high = min(x1, width - SIDE), min(y1, height - SIDE)
            if item.truncated or low[0] > high[0] or low[1] > high[1]:
                continue
            left, top = (int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
            others = [other.box for other in drawn.objects if other is not item]
            if not any(
                box[0] < left + SIDE and box[2] > left and box[1] < top + SIDE and box[3] > top
                for box in others
            ):
                window = drawn.image.crop((left, top, left + SIDE, top + SIDE))
                yield item.name, window, (x1 - left, y1 - top, x2 - left, y2 - top)


def write_folder(root: Path, **splits: int) -> None:
    """Draws a folder in the plain layout, with as many images in each split."""
    for split, images in splits.items():
        for name in PLAIN.classes:
            (root / split / name).mkdir(parents=True)
        for i, (name, image, (x1, y1, x2, y2)) in enumerate(islice(single_objects(split), images)):
            path = root / split / name / f"{i:04d}.png"
            image.save(path)
            path.with_suffix(".xml").write_text(
                f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height></size>"
                f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
                f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"
            )


def options_for(folder: Path) -> Sequence[str]:
    """Options with which localize_imagenet.yaml trains a slim network from nothing."""
    return [
        "--config=localize_imagenet.yaml",
        f"--data.root={folder}",
        "--data.workers=0",
        "--data.batch_size=8",
        "--data.val_batch_size=8",
        "--data.augmentation={crop: 96, short_side: [100, 124], lighting: 0}",
        "--data.test_short_side=100",
        "--model.weights=null",
        "--model.localizer.backbone=resnet18",
        "--model.localizer.options={width: 8}",
        "--model.localizer.batch_norm=trained",
        "--model.localizer.anchor_sizes=[24, 40, 64]",
        "--model.localizer.rpn_width=32",
        "--model.schedule.lr_per_16_images=0.02",
        "--model.schedule.warmup_steps=0",
        "--scales=[96, 128]",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.log_every_n_steps=1",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_folder(root, train=24, val=11)
    return root


@pytest.fixture(scope="module")
def options(folder: Path) -> Sequence[str]:
    own = ["--trainer.max_epochs=-1", "--trainer.max_steps=6", "--model.schedule.milestones=[5]"]
    return [*options_for(folder), *own]


@pytest.fixture(scope="module")
def run(options: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs of three updates."""
    output = tmp_path_factory.mktemp("runs") / "small"
    assert main([*options, f"--output={output}"]) == 0
    return output


def test_what_a_run_leaves(run: Path):
    names = {path.name for path in run.iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "config.yaml", "localization.json", "log"}
    (log,) = run.glob("log/version_*/metrics.csv")
    rows = list(csv.DictReader(log.read_text().splitlines()))
    for name in ("train/loss", "train/class_loss", "train/box_loss"):
        assert len([row for row in rows if row[name]]) == 6
    errors = [float(row["val/gt_class_error"]) for row in rows if row["val/gt_class_error"]]
    # Each of the 11 images counts once.
    assert [round(one * 11 / 100, 6) % 1 for one in errors] == [0, 0]
    found = json.loads((run / "localization.json").read_text())
    assert found["errors"]["1-crop"]["gt_class"] == pytest.approx(errors[-1])
    assert found["command"].startswith("resdet localize --")
    digest = hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()
    assert (found["config_sha256"], found["seed"]) == (digest, 0)
    assert found["environment"]["torch"]


def test_checkpoints_need_no_other_file(run: Path):
    localizer, labels = load_localizer(run / "last.ckpt")
    assert set(labels.names) == set(PLAIN.classes)
    assert localizer.rpn.classes == 9
    assert not localizer.training


def test_testing_a_checkpoint(
    options: Sequence[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = run / "localization.json"
    trained = json.loads(file.read_text())
    torch.manual_seed(0)
    network = build("resnet18", width=8, num_classes=9)
    save_weights(network, weights := tmp_path / "weights.safetensors")
    own = [f"--output={tmp_path}", f"--test={run / 'last.ckpt'}", f"--classifier={weights}"]
    # Weights that the configuration names are not asked for.
    assert main([*options, *own, "--model.weights=IMAGENET1K_V1"]) == 0
    found = json.loads(file.read_text())
    assert found["classifier"] == str(weights)
    assert found["scales"] == [96, 128]
    lines = capsys.readouterr().out.splitlines()
    for testing in ("1-crop", "dense"):
        errors = found["errors"][testing]
        assert errors["images"] == 11
        # Training ended with the same test.
        assert errors["gt_class"] == pytest.approx(trained["errors"][testing]["gt_class"])
        assert trained["errors"][testing]["top5"] is None
        assert errors["gt_class"] <= errors["top5"] <= errors["top1"]
        (line,) = [line for line in lines if f"last.ckpt, {testing}: " in line]
        assert f"localization error {errors['gt_class']:.2f} % with the true class" in line
        assert f"top-5 {errors['top5']:.2f} % with guessed classes, 11 images" in line


def test_a_classifiers_checkpoint_guesses_the_classes(
    options: Sequence[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    module = ClassifierModule(sorted(PLAIN.classes), "resnet18", {"width": 8})
    checkpoint = {
        "pytorch-lightning_version": pl.__version__,
        "hyper_parameters": dict(module.hparams),
        "state_dict": module.state_dict(),
    }
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "classifier.ckpt")
    own = [f"--output={tmp_path}", f"--test={run / 'best.ckpt'}", "--testing=[1-crop]"]
    assert main([*options, *own, f"--classifier={tmp_path / 'classifier.ckpt'}"]) == 0
    found = json.loads((run / "localization.json").read_text())["errors"]
    assert list(found) == ["1-crop"]
    assert found["1-crop"]["top1"] >= found["1-crop"]["top5"] >= found["1-crop"]["gt_class"]
    checkpoint["hyper_parameters"]["class_names"][0] = "dodecagon"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    assert main([*options, *own, f"--classifier={tmp_path / 'other.ckpt'}"]) == 1
    assert "in one of them alone, or in another order: ['arrow', 'dode" in capsys.readouterr().err


def test_a_resumed_run_ends_in_the_same_weights(options: Sequence[str], run: Path, tmp_path: Path):
    # An epoch has three updates: this one stops within the second.
    output = f"--output={tmp_path}"
    assert main([*options, output, "--trainer.max_steps=4"]) == 0
    assert main([*options, output, "--resume"]) == 0
    whole = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    parts = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--model.localizer.rpn_width=16", "run/last.ckpt: is of a localizer with rpn_width "),
        (
            "--data.root={other}",
            "run/last.ckpt: is of other classes, or of another order of them: ['arrow', 'zebra']",
        ),
    ],
)
def test_another_localizer_does_not_go_on(
    options: Sequence[str],
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    reason: str,
):
    (root,) = [Path(one.split("=")[1]) for one in options if one.startswith("--data.root=")]
    shutil.copytree(root, tmp_path / "other")
    for split in (tmp_path / "other").iterdir():
        (split / "arrow").rename(split / "zebra")
    shutil.copytree(run, tmp_path / "run")
    own = [option.format(other=tmp_path / "other"), f"--output={tmp_path / 'run'}", "--resume"]
    assert main([*options, *own]) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "resdet localize:" in x]
    assert reason in line


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--resume", "--resume: no checkpoint"),
        ("--data.root=nowhere", "nowhere/train: no such folder; expected train/CLASS/"),
        ("--data.val=test", "test: no such folder"),
        ("--data.test_short_side=20", "test_short_side: expected at least 96, got 20"),
        ("--data.augmentation.short_side=[20, 30]", "expected 1 <= crop <= short_side"),
        ("--model.localizer.backbone=resnet19", "unknown backbone 'resnet19'"),
        ("--model.localizer.frozen_stages=2", "frozen_stages=2 would keep random weights"),
        ("--model.criterion.other_classes=9", "other_classes=9: there are 9 classes"),
        ("--model.schedule.lr_per_16_images=1e30", "lower the learning rate"),
        ("--test=nothing.ckpt", "nothing.ckpt: cannot be read: No such file"),
    ],
)
def test_errors_are_one_line(
    options: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    reason: str,
):
    assert main([*options, f"--output={tmp_path}", option]) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "resdet localize:" in x]
    assert reason in line


def test_a_classifier_of_other_classes_is_refused(
    options: Sequence[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    network = build("resnet18", width=8, num_classes=4)
    save_weights(network, weights := tmp_path / "weights.safetensors")
    own = [f"--output={tmp_path}", f"--test={run / 'last.ckpt'}", f"--classifier={weights}"]
    assert main([*options, *own]) == 1
    assert "weights.safetensors does not fit resnet18" in capsys.readouterr().err


def trivial_errors(folder: Path) -> list[float]:
    """The errors of the whole image, and of the mean box of the training images in the middle."""
    records, train = (read_localization(folder, split) for split in ("val", "train"))
    boxes = train.annotations.boxes
    half = (boxes[:, 2:] - boxes[:, :2]).mean(axis=0) / 2
    middle = np.concatenate((SIDE / 2 - half, SIDE / 2 + half))
    labels, truth = image_labels(records), list(records.annotations.boxes[:, None])
    return [
        error(right_guesses(labels[:, None], np.tile(box, (len(labels), 1, 1)), labels, truth), 1)
        for box in (np.array([0.0, 0, SIDE, SIDE]), middle)
    ]


@pytest.mark.slow
def test_objects_are_localized_far_better_than_by_a_box_in_the_middle(tmp_path: Path):
    write_folder(tmp_path / "data", train=900, val=200)
    own = [
        "--data.batch_size=32",
        "--model.localizer.options={width: 16}",
        "--model.localizer.rpn_width=128",
        "--trainer.max_epochs=15",
        "--trainer.check_val_every_n_epoch=5",
        "--trainer.gradient_clip_val=10",
        f"--output={tmp_path}",
    ]
    assert main([*options_for(tmp_path / "data"), *own]) == 0
    found = json.loads((tmp_path / "localization.json").read_text())["errors"]
    trivial = min(trivial_errors(tmp_path / "data"))
    assert trivial > 60
    assert found["1-crop"]["gt_class"] < trivial / 2
    assert found["dense"]["gt_class"] < trivial / 2
