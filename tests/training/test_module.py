import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from detection.checkpoint import load_detector
from detection.data.labels import LabelMap
from detection.data.records import DataError
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.gather import PredictionBuffer
from detection.evaluation.voc import evaluate_voc
from detection.model.build import DetectorSpec
from detection.training.module import DetectorModule
from detection.training.schedule import Schedule
from detection.training.validation import ValidationModule

Make = Callable[..., pl.Trainer]


class Observe(Callback):
    """Notes the losses and the rates of the updates."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: object) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Steps(Callback):
    """Counts the batches of training and validation."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_start(self, *_: object) -> None:
        self.count += 1

    def on_validation_batch_start(self, *_: object) -> None:
        self.count += 1


def test_frozen_stages_need_weights():
    with pytest.raises(ValueError, match="frozen_stages=2 would keep random weights"):
        DetectorModule(["dog"], [1], DetectorSpec("resnet18", frozen_stages=2))


@pytest.mark.parametrize("part", ["names", "ids"])
def test_other_classes_are_refused_before_the_first_step(
    small: ModuleType, shapes: Path, make_trainer: Make, part: str
):
    data = small.small_data(shapes)
    module = small.small_module(data)
    module.labels = data.labels._replace(**{part: data.labels._asdict()[part][::-1]})
    steps = Steps()
    trainer = make_trainer(
        max_steps=1, limit_val_batches=1.0, num_sanity_val_steps=1, callbacks=[steps]
    )
    with pytest.raises(DataError, match=r"the model has classes .*arrow.* the data has .*arrow"):
        trainer.fit(module, data)
    assert steps.count == 0


def test_the_logged_rate_is_the_one_that_trains(
    small: ModuleType, shapes: Path, make_trainer: Make, caplog: pytest.LogCaptureFixture
):
    data = small.small_data(shapes)
    schedule = Schedule(0.008, milestones=(0.5,), gamma=0.1)
    observe = Observe()
    trainer = make_trainer(max_epochs=2, accumulate_grad_batches=2, callbacks=[observe])
    with caplog.at_level(logging.INFO, "detection"):
        trainer.fit(small.small_module(data, schedule=schedule), data)
    assert f"{len(data.labels.names)} classes: arrow, " in caplog.text
    assert "learning rate 0.002: 0.008 per 16 images, scaled to 4 images per update" in caplog.text
    # 8 images in batches of 2, two of which make an update: two updates in each of two epochs.
    assert observe.rates == pytest.approx([0.002, 0.002, 0.0002, 0.0002])


def test_training_lowers_the_loss_on_two_images(
    small: ModuleType, shapes: Path, make_trainer: Make
):
    data = small.small_data(shapes, train="two", val="two")
    observe = Observe()
    trainer = make_trainer(max_steps=20, max_epochs=-1, callbacks=[observe])
    schedule = Schedule(0.01, milestones=(), warmup_steps=5)
    trainer.fit(small.small_module(data, schedule=schedule), data)
    assert len(observe.losses) == 20
    assert np.mean(observe.losses[-5:]) < 0.6 * np.mean(observe.losses[:3])


def test_the_logged_loss_is_the_sum_of_the_criterions_four(
    small: ModuleType, shapes: Path, make_trainer: Make
):
    class Sums(Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            logged = dict(trainer.callback_metrics)
            total = logged.pop("train/loss")
            assert sorted(logged) == [
                "train/roi_box",
                "train/roi_class",
                "train/rpn_box",
                "train/rpn_objectness",
            ]
            assert all(value > 0 for value in logged.values())
            torch.testing.assert_close(sum(logged.values()), total)

    data = small.small_data(shapes)
    make_trainer(max_steps=2, callbacks=[Sums()]).fit(small.small_module(data), data)


class Poison(Callback):
    """Spoils a parameter before some step; notes the images of that step."""

    def __init__(self, name: str, step: int, value: float) -> None:
        self.name, self.step, self.value = name, step, value
        self.images: list[int] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            self.images = batch[0].image_ids.tolist()
            parameter = pl_module.get_parameter(f"detector.{self.name}")
            torch.nn.init.constant_(parameter, self.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("trunk.body.conv1.weight", float("nan")), ("rpn.deltas.bias", float("inf"))],
)
def test_a_loss_that_is_not_finite_ends_the_run(
    small: ModuleType, shapes: Path, make_trainer: Make, tmp_path: Path, name: str, value: float
):
    data = small.small_data(shapes)
    poison = Poison(name, 5, value)
    last = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    trainer = make_trainer(max_epochs=3, enable_checkpointing=True, callbacks=[poison, last])
    with pytest.raises(FloatingPointError) as error:
        trainer.fit(small.small_module(data), data)
    message = str(error.value)
    assert "at update 5" in message
    assert f"images {poison.images}" in message
    assert len(poison.images) == 2
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(bool(value.isfinite().all()) for value in saved["state_dict"].values())
    load_detector(tmp_path / "last.ckpt")


def by_hand(module: ValidationModule, data, names) -> dict[str, float]:
    """The figures, computed without a trainer."""
    buffer = PredictionBuffer()
    module.eval()
    with torch.inference_mode():
        for batch, _ in data.val_dataloader():
            buffer.add(module.detector(batch), batch.image_ids)
    coco = evaluate_coco(data.val_annotations, buffer.predictions(), names)
    voc = evaluate_voc(data.val_annotations, buffer.predictions(), names)
    return {
        "val/AP": coco.ap,
        "val/AP50": coco.ap50,
        "val/AP75": coco.ap75,
        "val/VOC07": voc.voc07,
        "val/VOC10": voc.voc10,
    }


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_logged_figures_are_those_of_the_evaluation(
    small: ModuleType, shapes: Path, make_trainer: Make, batch_size: int
):
    data = small.small_data(shapes, val_batch_size=batch_size)
    labels = data.labels
    module = ValidationModule(small.Oracle(data.val_annotations, len(labels.names)), labels)
    (logged,) = make_trainer(limit_val_batches=1.0).validate(module, data, verbose=False)
    assert logged == pytest.approx(by_hand(module, small.small_data(shapes), labels.names))
    assert 0.2 < logged["val/AP75"] < logged["val/AP50"] < 0.99
    assert len(set(logged.values())) == 5


def test_a_second_validation_forgets_the_first(small: ModuleType, shapes: Path, make_trainer: Make):
    data = small.small_data(shapes)
    module = small.small_module(data)
    trainer = make_trainer(limit_val_batches=1.0)
    first, second = (trainer.validate(module, data, verbose=False) for _ in range(2))
    assert first == second
    assert len(np.unique(module.evaluation.predictions.image_ids)) == 21


def test_predictions_that_cannot_be_scored_end_the_validation(
    small: ModuleType, shapes: Path, make_trainer: Make
):
    data = small.small_data(shapes)
    module = small.small_module(data)
    torch.nn.init.constant_(module.detector.roi_head.class_logits.bias, float("nan"))
    module.labels = LabelMap.from_names(("one",))  # the detector reports nine
    small_oracle = small.Oracle(data.val_annotations, 9)
    module.detector.forward = small_oracle.forward
    with pytest.raises(ValueError, match="label"):
        make_trainer(limit_val_batches=1.0).validate(module, data, verbose=False)


def test_a_run_without_an_object_to_validate_by_is_refused(
    small: ModuleType, shapes: Path, make_trainer: Make, tmp_path: Path
):
    root = shutil.copytree(shapes, tmp_path / "shapes")
    for name in (root / "ImageSets" / "Main" / "val.txt").read_text().split():
        file = root / "Annotations" / f"{name}.xml"
        file.write_text(re.sub("<object>.*</object>", "", file.read_text(), flags=re.DOTALL))
    data = small.small_data(root)
    with pytest.raises(DataError, match=r"shapes: no object to validate by: .*--data\.val"):
        make_trainer(max_steps=1, limit_val_batches=1.0).fit(small.small_module(data), data)
    make_trainer(max_steps=1).fit(small.small_module(data), data)


def test_validation_on_some_batches_is_warned_of(
    small: ModuleType, shapes: Path, make_trainer: Make, caplog: pytest.LogCaptureFixture
):
    data = small.small_data(shapes)
    module = small.small_module(data)
    make_trainer(limit_val_batches=1.0).validate(module, data, verbose=False)
    assert "count as missed" not in caplog.text
    make_trainer(limit_val_batches=1).validate(module, data, verbose=False)
    assert (
        "limit_val_batches 1: objects of the images that are left out count as missed"
        in caplog.text
    )


@pytest.mark.parametrize(("warmup", "warns"), [(2, False), (3, True), (0.5, True), (0.2, False)])
def test_a_long_warm_up_is_warned_of(
    small: ModuleType,
    shapes: Path,
    make_trainer: Make,
    caplog: pytest.LogCaptureFixture,
    warmup: float,
    warns: bool,
):
    data = small.small_data(shapes)
    module = small.small_module(data, schedule=Schedule(0.008, warmup_steps=warmup))
    make_trainer(max_epochs=2).fit(module, data)  # of 8 updates
    assert ("the warm-up takes" in caplog.text) == warns
