"""A part of a detector trains alone: its losses are the joint criterion's, the rest stays."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from detection.data.proposals import pack_proposals
from detection.model.build import DetectorSpec
from detection.model.criterion import Criterion, RPNCriterion
from detection.model.matching import Sampler
from detection.structures import Batch, Target
from detection.training.module import DetectorModule
from detection.training.parts import ORIGIN, HeadModule, PartModule, RPNModule, _in_slots
from detection.training.proposing import Proposer
from detection.training.schedule import Schedule

Make = Callable[..., pl.Trainer]
SCHEDULE = Schedule(0.08)


def part(kind: type[PartModule], model: DetectorModule, *, train_trunk: bool = True) -> PartModule:
    return kind(deepcopy(model.detector), model, SCHEDULE, train_trunk=train_trunk, origin="abc")


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parts of the detector in which a parameter or a statistic is another one now."""
    assert before.keys() == after.keys()
    names = (name for name in before if not torch.equal(before[name], after[name]))
    return {name.split(".")[1] for name in names}


def state(module: PartModule) -> dict[str, Tensor]:
    return deepcopy(module.state_dict())


def test_slots():
    one, two = torch.rand(3, 4), torch.rand(1, 4)
    proposals = _in_slots([one, torch.zeros(0, 4), two])
    assert proposals.valid.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert torch.equal(proposals.boxes[0], one)
    assert torch.equal(proposals.boxes[2, :1], two)
    assert _in_slots([torch.zeros(0, 4)] * 2).boxes.shape == (2, 0, 4)


def batch_of(small: ModuleType, shapes: Path) -> tuple[Batch, list[Target]]:
    return next(iter(small.small_data(shapes).train_dataloader()))


def test_the_losses_are_those_of_the_joint_criterion(
    small: ModuleType, shapes: Path, monkeypatch: pytest.MonkeyPatch
):
    data = small.small_data(shapes)
    # So many anchors that none is drawn by chance: only the rois are.
    rpn = RPNCriterion(sampler=Sampler(100_000, 0.5), cross_boundary=True)
    criterion: Criterion = replace(small.CRITERION, rpn=rpn)
    model = small.small_module(data, criterion=criterion)
    model.detector.eval()  # batch norms alike, whichever module runs
    images, targets = batch_of(small, shapes)
    detector = model.detector
    output = detector.rpn(detector.trunk(detector.normalize(images)))
    boxes, valid = detector.rpn.propose(output, images.sizes, criterion.proposals)
    torch.manual_seed(1)
    wanted = criterion(detector, images, targets)
    found: dict[str, Tensor] = {}
    monkeypatch.setattr(PartModule, "total", lambda self, losses, _: found.update(losses))
    proposals = [own[kept] for own, kept in zip(boxes, valid, strict=True)]
    for module in (part(RPNModule, model), part(HeadModule, model)):
        module.detector.eval()
        torch.manual_seed(1)
        more = (proposals,) if isinstance(module, HeadModule) else ()
        module.training_step((images, targets, *more), 0)
    assert found.keys() == set(wanted._fields)
    for name, value in wanted._asdict().items():
        torch.testing.assert_close(found[name], value)


def gradients(module: PartModule) -> set[str]:
    names = (name for name, value in module.named_parameters() if value.grad is not None)
    return {name.split(".")[1] for name in names}


@pytest.mark.parametrize("train_trunk", [True, False])
def test_gradients_reach_only_what_trains(
    small: ModuleType, shapes: Path, monkeypatch: pytest.MonkeyPatch, train_trunk: bool
):
    model = small.small_module(small.small_data(shapes))
    images, targets = batch_of(small, shapes)
    monkeypatch.setattr(PartModule, "total", lambda self, losses, _: sum(losses.values()))
    trunk = {"trunk"} if train_trunk else set()
    rpn = part(RPNModule, model, train_trunk=train_trunk)
    rpn.training_step((images, targets), 0).backward()
    assert gradients(rpn) == {"rpn"} | trunk
    head = part(HeadModule, model, train_trunk=train_trunk)
    none = [torch.zeros(0, 4)] * len(targets)  # the objects themselves train
    head.training_step((images, targets, none), 0).backward()
    assert gradients(head) == {"roi_head"} | trunk


@pytest.mark.parametrize("kind", [RPNModule, HeadModule])
@pytest.mark.parametrize("train_trunk", [True, False])
def test_what_is_fixed_stays_bit_identical_with_its_statistics(
    small: ModuleType,
    shapes: Path,
    make_trainer: Make,
    tmp_path: Path,
    kind: type[PartModule],
    train_trunk: bool,
):
    data = small.small_data(shapes)
    model = small.small_module(data)
    if kind is HeadModule:
        truth = data.train_records.annotations
        proposer = Proposer(deepcopy(model.detector), model.criterion.proposals, truth)
        make_trainer().predict(proposer, datamodule=data, return_predictions=False)
        data.proposals = pack_proposals(truth.image_ids, proposer.found)
    module = part(kind, model, train_trunk=train_trunk)
    before, trainer = state(module), make_trainer(max_steps=3, max_epochs=-1)
    trainer.fit(module, data)
    trunk = {"trunk"} if train_trunk else set()
    assert changed(before, state(module)) == {"rpn" if kind is RPNModule else "roi_head"} | trunk
    # The trunk's norms are trained ones, so their statistics would move in training mode.
    assert module.detector.trunk.body.bn1.training == train_trunk
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)[ORIGIN] == "abc"


class Losses(Callback):
    """Notes the names of the logged losses."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.names |= {name for name in trainer.callback_metrics if name.startswith("train/")}


def test_validation_in_between_leaves_the_fixed_trunk_alone(
    small: ModuleType, shapes: Path, make_trainer: Make
):
    data, losses = small.small_data(shapes), Losses()
    module = part(RPNModule, small.small_module(data), train_trunk=False)
    before = state(module)
    trainer = make_trainer(
        max_steps=4,
        max_epochs=-1,
        val_check_interval=2,
        limit_val_batches=2,
        num_sanity_val_steps=1,
        callbacks=[losses],
    )
    trainer.fit(module, data)
    assert changed(before, state(module)) == {"rpn"}
    assert losses.names == {"train/loss", "train/rpn_objectness", "train/rpn_box"}


def test_a_resnets_trunk_ends_with_conv4_and_its_tail_is_the_heads(small: ModuleType, shapes: Path):
    spec = DetectorSpec("resnet18", width=8, frozen_stages=0, rpn_width=8, anchor_sizes=(16,))
    model = small.small_module(small.small_data(shapes), detector=spec)
    head = part(HeadModule, model, train_trunk=False)
    trains = {name for name, value in head.named_parameters() if value.requires_grad}
    assert {name.split(".")[1] for name in trains} == {"roi_head"}
    assert {name.split(".")[3] for name in trains if ".tail." in name} == {"layer4"}
    fixed = {name for name, value in head.named_parameters() if not value.requires_grad}
    stages = {name.split(".")[2] for name in fixed if name.startswith("detector.trunk.")}
    assert stages == {"conv1", "layer1", "layer2", "layer3"}


def test_frozen_stages_stay_frozen_where_the_trunk_trains(small: ModuleType, shapes: Path):
    spec = DetectorSpec("resnet18", width=8, frozen_stages=0, rpn_width=8, anchor_sizes=(16,))
    model = small.small_module(small.small_data(shapes), detector=spec)
    model.detector.trunk.layer1.requires_grad_(False)
    module = part(RPNModule, model)
    trains = {
        name.split(".")[2] for name, value in module.named_parameters() if value.requires_grad
    }
    assert {"conv1", "layer2", "layer3"} <= trains
    assert "layer1" not in trains
