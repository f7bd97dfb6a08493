"""The drift ladder: from the 2015 recipe to today's, one change a rung."""

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detection.data.datamodule import DetectionData
from detection.model.criterion import RoICriterion
from detection.model.roi_head import RoIOutput
from detection.training.module import DetectorModule
from resdet.tools._detector_cli import DetectorCLI
from resdet.tools._run import IDLE_WARNINGS, shipped_configs
from resdet.tools._run_cli import open_cli

FOLDER = Path(shipped_configs(["--config", "shapes.yaml"])[1]).parent
RUNGS = sorted((FOLDER / "drift").glob("*.yaml"))
BASE = ["voc0712.yaml", "resnet50.yaml"]
# One thing that takes several values; every other rung is one value.
SEVERAL = {
    "08_small_proposals": {
        "model.detector.proposals.min_side",
        "model.criterion.proposals.min_side",
    },
    "09_l1_loss": {"model.criterion.rpn.sigma", "model.criterion.roi.sigma"},
    "14_schedule": {"model.schedule.milestones", "trainer.max_steps"},
    "15_image_size": {"data.short_side", "data.long_side"},
    "17_pyramid": {
        "model.detector.pyramid",
        "model.detector.proposals.before_nms",
        "model.criterion.proposals.before_nms",
        "model.criterion.proposals.after_nms",
    },
}


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Maps each option's name to its value."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else name)
    return found


class Parsed(DetectorCLI):
    """Reads the configurations and builds nothing."""

    def instantiate_classes(self) -> None:
        """Stops before the objects."""


def arguments(height: int, shapes: Path, output: Path) -> list[str]:
    """What `resdet train` is given for the base and the first rungs."""
    names = [f"--config={name}" for name in [*BASE, *map(str, RUNGS[:height])]]
    own = [f"--data.root={shapes}", "--data.train=train", "--data.val=val", f"--output={output}"]
    own += ["--trainer.accelerator=cpu", "--trainer.devices=1", "--model.weights=null"]
    return shipped_configs([*names, *own, "--model.detector.frozen_stages=0"])


def opened(kind: type[DetectorCLI], words: list[str]) -> DetectorCLI:
    with torch.device("meta"), warnings.catch_warnings():
        for message in IDLE_WARNINGS:
            warnings.filterwarnings("ignore", message)
        return open_cli(kind, DetectorModule, DetectionData, "resdet train", words)


def values_of(config: Any) -> dict[str, Any]:
    values = flat(config.as_dict())
    del values["config"]
    return values


def test_the_rungs_are_numbered():
    assert [rung.name[:3] for rung in RUNGS] == [f"{place:02d}_" for place in range(1, 18)]


def test_each_rung_changes_one_thing(shapes: Path, tmp_path: Path):
    parser = opened(Parsed, arguments(0, shapes, tmp_path)).parser
    heights = range(len(RUNGS) + 1)
    ladder = [values_of(parser.parse_args(arguments(it, shapes, tmp_path))) for it in heights]
    assert len(ladder[0]) > 80
    for rung, old, new in zip(RUNGS, ladder, ladder[1:], strict=False):
        assert old.keys() == new.keys()
        changed = {name for name in new if new[name] != old[name]}
        assert changed == flat(yaml.safe_load(rung.read_text())).keys(), rung.name
        assert changed == SEVERAL.get(rung.stem, changed), rung.name
        assert len(changed) == len(SEVERAL.get(rung.stem, "1")), rung.name


def test_no_value_changes_twice():
    names = [name for rung in RUNGS for name in flat(yaml.safe_load(rung.read_text()))]
    assert len(names) == len(set(names))


def test_the_ladder_ends_at_detectron2s_recipe(shapes: Path, tmp_path: Path):
    """Detectron2, configs/PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml and its defaults."""
    top = opened(DetectorCLI, arguments(len(RUNGS), shapes, tmp_path))
    spec, criterion, schedule = top.model.spec, top.model.criterion, top.model.schedule
    assert (spec.backbone, spec.pyramid, spec.frozen_stages) == ("resnet50", True, 0)
    assert (spec.proposals.before_nms, spec.proposals.after_nms) == (1000, 1000)
    assert (criterion.proposals.before_nms, criterion.proposals.after_nms) == (2000, 1000)
    assert (spec.detections.score_threshold, spec.detections.nms_threshold) == (0.05, 0.5)
    assert spec.anchor_sizes == (32, 64, 128, 256, 512)
    assert criterion.roi.sampler == type(criterion.roi.sampler)(512, 0.25)
    assert criterion.rpn.sampler == type(criterion.rpn.sampler)(256, 0.5)
    assert 1 / criterion.rpn.sigma == 1 / criterion.roi.sigma == 0
    assert (schedule.lr_per_16_images, schedule.weight_decay) == (0.02, 0.0001)
    assert (schedule.bias_lr_factor, schedule.warmup_steps, schedule.gamma) == (1.0, 1000, 0.1)
    images = top.datamodule.batch_size
    assert top.trainer.max_steps * images == 18000 * 16
    assert [step * images for step in schedule.milestones] == [12000 * 16, 16000 * 16]
    assert (top.datamodule.short_side, top.datamodule.long_side) == (800, 1333)
    jitter = values_of(top.config)["data.augmentation.scale_jitter"]
    assert [800 * factor for factor in jitter] == [480, 800]
    assert len(top.model.detector.rpn.anchors.strides) == 5


def test_an_infinite_sigma_is_l1():
    deltas = torch.tensor([[[0.001, 0.2, -3.0, 0.0]]])
    rois = torch.tensor([[0.0, 0.0, 0.0, 10.0, 10.0]])
    output = RoIOutput(torch.zeros(1, 2), deltas)
    _, loss = RoICriterion(sigma=float("inf"))(output, rois, torch.tensor([1]), rois[:, 1:])
    assert loss.item() == pytest.approx(0.001 + 0.2 + 3)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.stem)
def test_a_rung_opens_with_what_it_is(rung: Path):
    place = RUNGS.index(rung) + 1
    first, second, third, fourth = rung.read_text().splitlines()[:4]
    assert first.startswith(f"# Rung {place} of {len(RUNGS)}: ")
    assert second.startswith("# Source:  ")
    assert fourth.startswith("# Measured: ")
    command = third.removeprefix("# Command: ")
    numbers = [f"{number:02d}" for number in range(1, place + 1)]
    # As the shell would expand it.
    expanded = re.sub(
        r"(--config=drift/)\{01\.\.(\d\d)\}",
        lambda found: " ".join(found[1] + number for number in numbers[: int(found[2])]),
        command,
    )
    words = shipped_configs(shlex.split(expanded)[2:])
    files = [Path(word.removeprefix("--config=")) for word in words if word != "--config"]
    assert files == [FOLDER / name for name in BASE] + RUNGS[:place]


def test_a_number_that_no_rung_has():
    with pytest.raises(FileNotFoundError, match=r"no configuration 'drift/99'.*drift/01_roi_align"):
        shipped_configs(["--config=drift/99"])


def test_numbers_do_not_stand_for_other_names():
    with pytest.raises(FileNotFoundError, match="no configuration 'resnet50'"):
        shipped_configs(["--config", "resnet50"])
