"""Every shipped configuration, and every recipe with every model, parses and builds."""

import re
import shlex
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.checkpoint import CLASS_LAYERS, KEY, Description
from detection.data.labels import LabelMap
from detection.model.build import faster_rcnn
from detection.model.faster_rcnn import FasterRCNN
from detection.reproduction.devices import on_devices
from detection.reproduction.mini import CPU, GPU, QUICK, Preset
from detection.reproduction.paper import table9, table10
from resdet.tools import alternate, localize, pretrain
from resdet.tools._run import IDLE_WARNINGS, shipped_configs
from resdet.tools.train import _cli

FOLDER = Path(shipped_configs(["--config", "shapes.yaml"])[1]).parent
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
CLASSIFIERS = [name for name in FILES if "pretrain" in name]
LOCALIZERS = [name for name in FILES if name.startswith("localize_")]
ADDITIONS = [name for name in FILES if name.startswith("alternating_")]  # to a recipe
DETECTORS = [name for name in FILES if name not in CLASSIFIERS + LOCALIZERS + ADDITIONS]
MODELS = [name for name in FILES if (FOLDER / name).read_text().startswith("# Model:")]
WHOLE = ["shapes.yaml", "voc_sample.yaml"]  # recipe and model in one
RECIPES = [name for name in DETECTORS if name not in MODELS + WHOLE]
COMPOSITIONS = [
    *([name] for name in WHOLE),
    *(
        [recipe, model]
        for recipe in RECIPES
        for model in MODELS
        if model in DETECTORS and model.startswith("mini_") == (recipe == "mini.yaml")
    ),
]


def test_there_are_recipes_and_models():
    papers = {"voc07.yaml", "voc0712.yaml", "voc0712pp.yaml", "coco2014.yaml"}
    assert set(RECIPES) >= {*papers, "coco.yaml", "folder.yaml"}
    assert set(MODELS) >= {"resnet50.yaml", "resnet50_fpn.yaml", "resnet101.yaml", "vgg16.yaml"}


def build(
    files: list[str], shapes: Path, output: Path, *options: str, cli: Callable[..., Any] = _cli
) -> Any:
    """Does what `resdet train` does before the first step; the weights take no memory."""
    names = [argument for file in files for argument in ("--config", file)]
    own = [f"--data.root={shapes}", "--data.train=train", "--data.val=val", f"--output={output}"]
    own += ["--trainer.accelerator=cpu", "--trainer.devices=1"]
    with torch.device("meta"), warnings.catch_warnings():
        for message in IDLE_WARNINGS:
            warnings.filterwarnings("ignore", message)
        return cli(shipped_configs([*names, *own, *options]))


@pytest.mark.parametrize("files", COMPOSITIONS, ids=" ".join)
def test_it_builds(files: list[str], shapes: Path, tmp_path: Path):
    no_weights = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    cli = build(files, shapes, tmp_path, *no_weights)
    assert type(cli.model.detector) is FasterRCNN
    assert cli.model.detector.roi_head.classes == 9
    text = "".join((FOLDER / name).read_text() for name in files)
    # What the files say is what is built.
    spec, schedule = cli.model.spec, cli.model.schedule
    assert f"backbone: {spec.backbone}\n" in text
    assert f"lr_per_16_images: {schedule.lr_per_16_images}\n" in text
    assert spec.pyramid == ("pyramid: true" in text)
    assert cli.model.criterion.rpn.cross_boundary == ("cross_boundary: true" in text)
    assert cli.datamodule.short_side == int(re.findall(r"short_side: (\d+)", text)[-1])
    assert cli.trainer.max_steps == int(([-1, *re.findall(r"max_steps: (\d+)", text)])[-1])


def test_the_small_studys_detectors_differ_in_the_backbone_alone(shapes: Path, tmp_path: Path):
    plain = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    found = {}
    for model in (name for name in MODELS if name.startswith("mini_")):
        cli = build(["mini.yaml", model], shapes, tmp_path, *plain)
        rest = cli.model.spec.to_plain()
        found[rest.pop("backbone"), rest.pop("width")] = (
            rest,
            cli.model.criterion,
            cli.model.schedule,
        )
    stand_ins = {(name, 16) for name in ("vgg11", "resnet18", "resnet34")}
    assert set(found) == stand_ins | {(name, 64) for name in ("vgg16", "resnet50", "resnet101")}
    assert all(values == found["vgg11", 16] for values in found.values())


@pytest.mark.parametrize(
    ("preset", "place", "backbone", "first", "rate"),
    [
        (CPU, 2, "resnet34", 0.005, 0.02),
        (QUICK, 2, "resnet34", 0.005, 0.02),
        (GPU, 0, "vgg16", 0.01, 0.02),
        (GPU, 2, "resnet101", 0.05, 0.05),
    ],
)
def test_the_small_studys_classifier_builds(
    preset: Preset, place: int, backbone: str, first: float, rate: float, tmp_path: Path
):
    options = [*preset.pretraining, *preset.networks[place].pretraining]
    cli = build_classifier(tmp_path / "data", tmp_path, options=options)
    assert cli.model.hparams["backbone"] == backbone
    assert cli.datamodule.augmentation.crop == 64
    assert cli.model.rate.at(0) == first
    for _ in range(20):
        cli.model.rate.trained(0.0)
    updates = 6000 // cli.datamodule.batch_size * cli.trainer.max_epochs
    rates = [cli.model.rate.at(round(share * updates)) for share in (0.69, 0.71, 0.91)]
    assert rates == pytest.approx([rate, rate / 10, rate / 100])


def test_the_last_configuration_wins(shapes: Path, tmp_path: Path):
    options = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    files = ["resnet50.yaml", "voc07.yaml", "coco.yaml"]
    assert build(files, shapes, tmp_path, *options).model.spec.anchor_sizes == (64, 128, 256, 512)
    cli = build([*files, "voc07.yaml"], shapes, tmp_path, *options)
    assert cli.model.spec.anchor_sizes == (128, 256, 512)
    assert cli.trainer.max_steps == 70000
    options.append("--trainer.max_steps=7")
    assert build(files, shapes, tmp_path, *options).trainer.max_steps == 7


def test_frozen_stages_are_refused_without_the_models_weights(shapes: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="frozen_stages=2 would keep random weights"):
        build(["voc07.yaml", "resnet50.yaml"], shapes, tmp_path, "--model.weights=null")


@pytest.mark.parametrize("model", ["vgg16", "resnet101"])
@pytest.mark.parametrize(
    ("recipe", "addition", "devices", "updates", "drop"),
    [
        ("voc07", "alternating_voc", 1, (80_000, 40_000), (60_000, 30_000)),
        ("voc0712", "alternating_voc", 1, (80_000, 40_000), (60_000, 30_000)),
        ("coco", "alternating_coco", 8, (320_000, 320_000), (240_000, 240_000)),
        ("coco2014", "alternating_coco", 8, (320_000, 320_000), (240_000, 240_000)),
    ],
)
def test_the_papers_alternating_steps_build(
    recipe: str,
    addition: str,
    model: str,
    devices: int,
    updates: tuple[int, int],
    drop: tuple[int, int],
    shapes: Path,
    tmp_path: Path,
):
    files = [f"{recipe}.yaml", f"{addition}.yaml", f"{model}.yaml"]
    options = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    cli = build(files, shapes, tmp_path, *options, cli=alternate._cli)
    steps = cli.config_init.rpn, cli.config_init.head
    assert tuple(step.updates for step in steps) == updates
    assert [step.milestones for step in steps] == [(drop[0],), (drop[1],)]
    images = [step.batch_size * devices for step in steps]
    assert images == [devices, 2 * devices]  # appendix A: 8 images for the RPN, 16 for the head
    rates = [step.lr_per_16_images * n / 16 for step, n in zip(steps, images, strict=True)]
    assert rates == pytest.approx([0.001, 0.001])
    assert cli.model.criterion.proposals.after_nms == 2000
    assert cli.model.spec.proposals.after_nms == 300
    assert cli.model.spec.backbone == model


def test_the_alternating_steps_on_other_devices_keep_the_images(shapes: Path, tmp_path: Path):
    """What `resdet reproduce` adds is understood, and the rate follows the images of an update."""
    files = ["voc07.yaml", "alternating_voc.yaml", "vgg16.yaml"]
    command = ["alternate", *(word for name in files for word in ("--config", name))]
    options = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    spread = on_devices(command, 4)[2:]  # but for the devices: this test has one process
    cli = build(files, shapes, tmp_path, *options, *spread, cli=alternate._cli)
    steps = cli.config_init.rpn, cli.config_init.head
    assert [step.updates * step.batch_size * 4 for step in steps] == [80_000, 80_000]
    assert [step.milestones for step in steps] == [(15_000,), (15_000,)]
    rates = [step.lr_per_16_images * step.batch_size * 4 / 16 for step in steps]
    assert rates == pytest.approx([0.004, 0.002])  # 0.001 for 1 image, and for 2


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_a_detector_of_coco_is_fine_tuned_with_the_layers_it_has(shapes: Path, tmp_path: Path):
    """A small network, but the anchors and the context that the commands ask for."""
    small = ["--model.detector.backbone=resnet18", "--model.detector.width=8"]
    small += [f"--data.root={shapes}", "--data.train=train", "--data.val=val"]
    small += [f"--output={tmp_path}", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    (training,) = table9(Path("coco")).rows[3].trainings
    untrained = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    spec = _cli(shipped_configs([*training.command[1:], *small, *untrained])).model.spec
    labels = LabelMap.from_names([f"class {k}" for k in range(80)])
    detector = faster_rcnn(80, spec)
    facts = Description(spec, detector.preprocessing, labels, 600, 1000).to_plain()
    weights = {f"detector.{name}": value for name, value in detector.state_dict().items()}
    start = tmp_path / "coco.ckpt"
    torch.save({KEY: facts, "state_dict": weights}, start)

    (training,) = table10(Path("VOCdevkit"), start=start).rows[-1].trainings
    command = shipped_configs([*training.command[1:], *small])
    tuned = _cli(command).model.detector
    assert (tuned.rpn.objectness.out_channels, tuned.roi_head.classes) == (4 * 3, 9)
    found = tuned.state_dict()
    kept = [name for name in found if not name.startswith(CLASS_LAYERS)]
    assert all(torch.equal(found[name], detector.state_dict()[name]) for name in kept)
    with pytest.raises(ValueError, match=r"coco\.ckpt: a detector of other layers: rpn"):
        _cli([*command, "--model.detector.anchor_sizes=[128,256,512]"])


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Maps each option's name to its value."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else name)
    return found


@pytest.mark.parametrize(
    ("recipe", "models"),
    [
        ("voc07.yaml", ["vgg16", "resnet50", "resnet101"]),
        ("voc0712.yaml", ["vgg16", "resnet101"]),  # tables 7 and 10
        ("voc0712pp.yaml", ["vgg16", "resnet101"]),  # tables 7 and 11
        ("coco2014.yaml", ["vgg16", "resnet101"]),  # tables 8 and 9
        ("coco.yaml", ["vgg16", "resnet50", "resnet101"]),
    ],
)
def test_the_networks_of_a_table_differ_in_the_backbone_alone(
    recipe: str, models: list[str], shapes: Path, tmp_path: Path
):
    options = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    built = [build([recipe, f"{name}.yaml"], shapes, tmp_path, *options) for name in models]
    parsed = [flat(cli.config.as_dict()) for cli in built]
    for values, name in zip(parsed, models, strict=True):
        assert values.pop("model.detector.backbone") == name
        assert [str(file).rpartition("/")[2] for file in values.pop("config")] == [
            recipe,
            f"{name}.yaml",
        ]
    assert len(parsed[0]) > 80
    assert all(values == parsed[0] for values in parsed)
    # Its weights are another choice of the model's file, and are chosen alike too.
    texts = [(FOLDER / f"{name}.yaml").read_text() for name in models]
    assert {re.findall("weights: (.*)", text)[0] for text in texts} == {"IMAGENET1K_V1"}
    for cli in built:
        assert cli.model.criterion == built[0].model.criterion
        assert cli.model.schedule == built[0].model.schedule


def test_schedules_follow_the_number_of_images(shapes: Path, tmp_path: Path):
    options = ["--model.weights=null", "--model.detector.frozen_stages=0"]
    short, long = (
        build([f"{recipe}.yaml", "resnet50.yaml"], shapes, tmp_path, *options)
        for recipe in ("voc0712", "voc0712pp")
    )
    ratio = (5011 + 4952 + 11540) / (5011 + 11540)
    assert long.trainer.max_steps == round(short.trainer.max_steps * ratio, -3)
    (drop,), (later,) = (cli.model.schedule.milestones for cli in (short, long))
    assert (drop, later) == (80000, round(80000 * ratio, -3))


def build_classifier(folder: Path, output: Path, *files: str, options: tuple[str, ...] = ()) -> Any:
    """Does what `resdet pretrain` does before the first step; the weights take no memory."""
    (folder / "train" / "cat").mkdir(parents=True)
    (folder / "train" / "cat" / "0.png").touch()
    names = [argument for file in files for argument in ("--config", file)]
    own = [f"--data.root={folder}", f"--output={output}", "--trainer.accelerator=cpu"]
    with torch.device("meta"), warnings.catch_warnings():
        for message in IDLE_WARNINGS:
            warnings.filterwarnings("ignore", message)
        return pretrain._cli(shipped_configs([*names, *options, *own]))


def test_the_papers_classifier_for_imagenet_builds(tmp_path: Path):
    cli = build_classifier(tmp_path / "data", tmp_path, "pretrain_imagenet.yaml")
    assert cli.model.hparams["backbone"] == "resnet50"
    assert cli.model.class_names == ("cat",)
    schedule, data = cli.model.rate.schedule, cli.datamodule
    assert (schedule.lr, schedule.momentum, schedule.weight_decay) == (0.1, 0.9, 0.0001)
    assert schedule.patience is not None
    assert (data.batch_size, data.augmentation.crop) == (256, 224)
    assert data.augmentation.short_side == (256, 480)
    assert cli.trainer.max_steps == 600_000
    assert cli.config.scales == [224, 256, 384, 480, 640]


@pytest.mark.parametrize("deep", [False, True])
def test_the_papers_classifiers_for_cifar_build(tmp_path: Path, deep: bool):
    files = ["pretrain_cifar10.yaml", "pretrain_cifar10_110.yaml"][: 1 + deep]
    cli = build_classifier(tmp_path / "data", tmp_path, *files)
    rate, data = cli.model.rate, cli.datamodule
    assert rate.at(0) == (0.01 if deep else 0.1)
    rate.warming = False
    steps = (0, 32_000, 48_000)
    assert [rate.at(step) for step in steps] == pytest.approx([0.1, 0.01, 0.001])
    assert rate.schedule.patience is None
    assert cli.trainer.max_steps == 64_000
    assert (data.batch_size, data.augmentation.pad, data.augmentation.crop) == (128, 4, 32)
    assert data.augmentation.short_side is None
    blocks = {True: 18, False: 3}[deep]
    assert len(cli.model.network.get_submodule("layer3")) == blocks


def test_the_papers_localizer_builds(tmp_path: Path):
    for split in ("train", "val"):
        for folder in ("Data", "Annotations"):
            (tmp_path / "data" / folder / "CLS-LOC" / split / "n01440764").mkdir(parents=True)
    own = [f"--data.root={tmp_path / 'data'}", f"--output={tmp_path}", "--model.weights=null"]
    with torch.device("meta"), warnings.catch_warnings():
        for message in IDLE_WARNINGS:
            warnings.filterwarnings("ignore", message)
        files = ["--config", "localize_imagenet.yaml", "--trainer.accelerator=cpu"]
        cli = localize._cli(shipped_configs([*files, *own]))
    spec, criterion, data = cli.model.spec, cli.model.criterion, cli.datamodule
    assert (spec.backbone, spec.feature, spec.anchor_sizes) == ("resnet101", "c4", (64, 128, 256))
    assert (criterion.rpn.sampler.count, criterion.rpn.sampler.positive_fraction) == (8, 0.5)
    assert (criterion.rpn.positive, criterion.rpn.negative) == (0.7, 0.3)
    assert (data.batch_size, data.augmentation.crop) == (256, 224)
    assert cli.model.schedule.lr_per_16_images * 256 / 16 == 0.01
    assert cli.model.class_names == ("n01440764",)
    assert cli.model.localizer.rpn.deltas.out_channels == 9 * 4


def comment(name: str) -> str:
    lines = (FOLDER / name).read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


@pytest.mark.parametrize("name", [name for name in FILES if name not in MODELS])
def test_a_recipe_opens_with_its_claim(name: str):
    first, second, third, *_ = comment(name).splitlines()
    assert first.startswith("# Claim: ")
    assert second.startswith("# Command:   resdet ")
    assert third.startswith("# Hardware and time")
    assert "expected" in comment(name).lower()
    assert "measured" in comment(name).lower()
    (command,) = re.findall(r"resdet (?:(?:pre)?train|localize|alternate) .*", second)
    check_command(command, name)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_opens_with_what_it_is(name: str):
    lines = comment(name).splitlines()
    openings = ["# Model: ", "# Weights: ", "# Compose with a recipe: "]
    assert [line.startswith(text) for line, text in zip(lines, openings, strict=True)] == [True] * 3
    check_command(lines[2].removeprefix(openings[2]), name)


def check_command(command: str, name: str) -> None:
    words = shlex.split(command)
    kinds = {"pretrain": CLASSIFIERS, "localize": LOCALIZERS, "alternate": ADDITIONS}
    tool = next((tool for tool, names in kinds.items() if name in names), "train")
    assert words[1] == tool
    configs = [after for before, after in pairwise(words) if before == "--config"]
    assert name in configs
    assert set(configs) <= set(FILES)
