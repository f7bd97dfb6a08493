import pytest

from detection.reproduction.devices import on_devices


def test_one_device_is_the_recipe() -> None:
    assert on_devices("voc0712.yaml", 1) == ()


def test_two_devices_have_an_image_each() -> None:
    spread = ("--trainer.devices", "2", "--data.batch_size", "1")
    assert on_devices("voc0712.yaml", 2) == spread


def test_eight_devices_take_a_quarter_of_the_updates() -> None:
    """490k updates of 2 images, dropped at 350k, are 122.5k of 8, dropped at 87.5k."""
    options = on_devices("coco2014.yaml", 8)
    found = dict(zip(options[::2], options[1::2], strict=True))
    assert found == {
        "--trainer.devices": "8",
        "--data.batch_size": "1",
        "--trainer.max_steps": "122500",
        "--trainer.val_check_interval": "17500",
        "--model.schedule.milestones": "[87500]",
    }


def test_the_alternating_steps_keep_their_batches() -> None:
    assert on_devices("coco2014.yaml", 8, "alternating") == ("--trainer.devices", "8")


def test_no_device_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        on_devices("voc0712.yaml", 0)
