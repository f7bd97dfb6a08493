import pytest

from detection.reproduction.devices import on_devices
from detection.reproduction.mini import GPU
from detection.reproduction.paper import TABLES, table10


def spread(command: tuple[str, ...], devices: int) -> dict[str, str]:
    options = on_devices(command, devices)
    return dict(zip(options[::2], options[1::2], strict=True))


def recipe(name: str, *more: str) -> tuple[str, ...]:
    return ("train", "--config", name, *more, "--config", "resnet101.yaml")


def alternating(recipe: str, addition: str) -> tuple[str, ...]:
    return ("alternate", "--config", recipe, "--config", addition, "--config", "vgg16.yaml")


def test_one_device_is_the_recipe_and_is_said() -> None:
    """Lightning would take all that there are."""
    assert spread(recipe("voc0712.yaml"), 1) == {"--trainer.devices": "1"}


def test_two_devices_have_an_image_each() -> None:
    wanted = {"--trainer.devices": "2", "--data.batch_size": "1"}
    assert spread(recipe("voc0712.yaml"), 2) == wanted


def test_eight_devices_take_a_quarter_of_the_updates() -> None:
    """490k updates of 2 images, dropped at 350k, are 122.5k of 8, dropped at 87.5k."""
    assert spread(recipe("coco2014.yaml"), 8) == {
        "--trainer.devices": "8",
        "--data.batch_size": "1",
        "--trainer.max_steps": "122500",
        "--trainer.val_check_interval": "17500",
        "--model.schedule.milestones": "[87500]",
    }


def test_what_is_given_in_epochs_or_fractions_stays() -> None:
    command = ("train", *GPU.training, "--config", GPU.networks[0].config)
    assert spread(command, 2) == {"--trainer.devices": "2", "--data.batch_size": "1"}
    assert spread(command, 8) == {
        "--trainer.devices": "8",
        "--data.batch_size": "1",
        "--model.schedule.warmup_steps": "25",  # 100 of 2 images
    }


def test_the_alternating_steps_of_voc_are_for_one_device() -> None:
    command = alternating("voc0712.yaml", "alternating_voc.yaml")
    assert spread(command, 1) == {"--trainer.devices": "1"}
    assert spread(command, 4) == {
        "--trainer.devices": "4",
        "--rpn.updates": "20000",  # 80k of 1 image
        "--rpn.milestones": "[15000]",
        "--head.batch_size": "1",
        "--head.updates": "20000",  # 40k of 2 images
        "--head.milestones": "[15000]",
        "--trainer.val_check_interval": "5000",
    }


def test_the_alternating_steps_of_coco_are_for_eight_devices() -> None:
    command = alternating("coco2014.yaml", "alternating_coco.yaml")
    assert spread(command, 8) == {"--trainer.devices": "8"}
    sizes = {"--rpn.batch_size": "8", "--head.batch_size": "16"}
    assert spread(command, 1) == {"--trainer.devices": "1", **sizes}
    assert spread(command, 16) == {
        "--trainer.devices": "16",
        "--rpn.updates": "160000",
        "--rpn.milestones": "[120000]",
        "--head.batch_size": "1",
    }


def test_a_joint_training_in_an_alternating_study_has_no_options_of_steps(tmp_path) -> None:
    study = table10(tmp_path, "alternating", tmp_path / "coco.ckpt")
    options = [spread(row.trainings[0].command, 4) for row in study.rows]
    assert ["--head.updates" in one for one in options] == [True, True, False]
    assert options[2]["--trainer.max_steps"] == "55000"


@pytest.mark.parametrize("schedule", ["joint", "alternating"])
def test_no_device_is_refused(schedule: str, tmp_path) -> None:
    for row in TABLES["table7"](tmp_path, schedule).rows[:2]:
        with pytest.raises(ValueError, match="at least 1, got 0"):
            on_devices(row.trainings[0].command, 0)
