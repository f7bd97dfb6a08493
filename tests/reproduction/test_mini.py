from pathlib import Path

import pytest

from detection.reproduction.mini import CPU, GPU, QUICK, mini, preset_of
from detection.reproduction.study import study_steps

DATA, OUT = Path("data"), Path("out")


def test_the_ladder_stands_on_the_deepest_network() -> None:
    study = mini(CPU, DATA, [0, 1, 2])
    assert [row.key.removeprefix("mini-") for row in study.rows] == [
        "vgg16",
        "resnet50",
        "resnet101",
        "resnet101-refine",
        "resnet101-context",
        "resnet101-scales",
        "resnet101-ensemble",
    ]
    published = [tuple(one.value for one in row.published) for row in study.rows]
    assert published == [
        (41.5, 21.2),
        (),
        (48.4, 27.2),
        (49.9, 29.9),
        (51.1, 30.0),
        (53.8, 32.5),
        (),  # the paper's ensemble was tested elsewhere: its gain alone compares
    ]
    assert study.gaps[-1].paper == pytest.approx((59.0 - 55.7, 37.4 - 34.9))
    assert not study.comparable


def test_networks_are_trained_alike_but_for_the_backbone() -> None:
    study = mini(CPU, DATA, [0])
    commands = [row.trainings[0].command for row in study.rows[:3]]
    for other in commands[1:]:
        differing = [pair for pair in zip(commands[0], other, strict=True) if len(set(pair)) > 1]
        assert len(differing) == 1
        assert all(name.startswith("mini_") for name in differing[0])


def test_stand_ins_are_named_and_the_gpu_runs_the_networks_themselves() -> None:
    for row in mini(CPU, DATA, [0, 1]).rows:
        assert row.runs_as
        assert row.runs_as.split(",")[0] != row.method
    assert [network.runs_as for network in GPU.networks] == ["", "", ""]
    assert [network.key for network in GPU.networks] == ["vgg16", "resnet50", "resnet101"]


def test_every_seed_pretrains_anew_and_the_context_detector_shares_its_classifier() -> None:
    steps = {step.name: step for step in study_steps(mini(CPU, DATA, [0, 1]), OUT, [0, 1])}
    tools = [step.command[0] for step in steps.values()]
    assert [tools.count(tool) for tool in ("shapes", "pretrain", "train")] == [2, 6, 8]
    assert tools.count("evaluate") == 2 * 6 + 1
    plain, context = (steps[f"mini-resnet101{kind}-seed-1"] for kind in ("", "-context"))
    assert plain.resumes == plain.makes == OUT / "mini-resnet101/seed-1/last.ckpt"
    assert plain.after == context.after == ("mini-resnet101-pretrained-seed-1",)
    weights = "out/mini-resnet101-pretrained/seed-1/weights.safetensors"
    assert weights in plain.command
    pretrained = steps["mini-resnet101-pretrained-seed-1"]
    assert pretrained.makes == Path(weights)
    assert pretrained.resumes == Path(weights).with_name("last.ckpt")
    assert weights in context.command
    ensemble = steps["evaluate-mini-resnet101-ensemble-seeds-0-1"]
    assert ensemble.after == ("mini-resnet101-context-seed-0", "mini-resnet101-context-seed-1")


def test_a_study_of_more_seeds_has_an_ensemble_of_its_own() -> None:
    few, more = (study_steps(mini(CPU, DATA, seeds), OUT, seeds) for seeds in ([0, 1], [0, 1, 2]))
    commands = {step.name: step.command for step in few}
    shared = [step for step in more if step.name in commands]
    assert all(step.command == commands[step.name] for step in shared)
    assert commands.keys() - {step.name for step in shared} == {
        "evaluate-mini-resnet101-ensemble-seeds-0-1"
    }


def test_an_ensemble_says_of_what_it_is() -> None:
    members = [mini(preset, DATA, [0, 1]).rows[-1].runs_as for preset in (CPU, GPU)]
    assert members == ["ResNet-34, width 16, 2 seeds", "2 seeds"]


def test_one_seed_makes_no_ensemble() -> None:
    study = mini(QUICK, DATA, [0])
    assert study.rows[-1].unavailable == "needs several seeds: --seeds 3"
    assert all(gap.b != study.rows[-1].key for gap in study.gaps)


def test_the_quick_study_is_the_same_but_for_its_size() -> None:
    quick, whole = (mini(preset, DATA, [0]) for preset in (QUICK, CPU))
    assert [row.key.replace("mini-quick", "mini") for row in quick.rows] == [
        row.key for row in whole.rows
    ]
    for one, other in zip(quick.rows, whole.rows, strict=True):
        assert one[1:3] == other[1:3]
        assert [each.command for each in one.trainings] == [
            each.command for each in other.trainings
        ]


def test_presets() -> None:
    assert [preset_of(quick, gpu) for quick, gpu in ((0, 0), (1, 0), (0, 1))] == [CPU, QUICK, GPU]
    with pytest.raises(ValueError, match="--quick"):
        preset_of(quick=True, gpu=True)
