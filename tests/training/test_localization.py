from pathlib import Path

import pytest
import torch

from detection.checkpoint import CheckpointError
from detection.model.localization_build import LocalizerSpec
from detection.training.localization import KEY, LocalizerModule, load_localizer

SPEC = LocalizerSpec(
    "resnet18", options={"width": 8}, anchor_sizes=(32, 64), rpn_width=16, merge=0.5
)
NAMES = ["ant", "bee", "cow"]


@pytest.fixture
def checkpoint() -> dict[str, object]:
    """What Lightning hands the module to complete."""
    module = LocalizerModule(NAMES, SPEC)
    content: dict[str, object] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    return content


def test_a_checkpoint_makes_the_localizer_again(checkpoint: dict[str, object], tmp_path: Path):
    torch.save(checkpoint, tmp_path / "some.ckpt")
    localizer, labels = load_localizer(tmp_path / "some.ckpt")
    assert labels.names == (*NAMES,)
    assert localizer.merge == 0.5
    assert not localizer.training
    own = checkpoint["state_dict"]
    for name, value in localizer.state_dict().items():
        assert torch.equal(own[f"localizer.{name}"], value)


def test_the_preprocessing_is_the_checkpoints(checkpoint: dict[str, object], tmp_path: Path):
    checkpoint[KEY]["preprocessing"]["order"] = "bgr"
    torch.save(checkpoint, tmp_path / "some.ckpt")
    assert load_localizer(tmp_path / "some.ckpt")[0].preprocessing.order == "bgr"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop(KEY), "expected a checkpoint of `resdet localize`"),
        (
            lambda content: content[KEY].pop("localizer"),
            "its own description: KeyError: 'localizer'",
        ),
        (lambda content: content[KEY]["localizer"].update(widht=8), "TypeError: .*widht"),
        (lambda content: content[KEY].update(class_names=["ant"]), "RuntimeError: .*size mismatch"),
        (lambda content: content.pop("state_dict"), "KeyError: 'state_dict'"),
    ],
)
def test_other_checkpoints_are_refused(
    checkpoint: dict[str, object], tmp_path: Path, change, reason: str
):
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "some.ckpt")
    with pytest.raises(CheckpointError, match=rf"some\.ckpt: .*{reason}"):
        load_localizer(tmp_path / "some.ckpt")


def test_a_file_that_is_none(tmp_path: Path):
    (tmp_path / "some.ckpt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"some\.ckpt: cannot be read as a checkpoint"):
        load_localizer(tmp_path / "some.ckpt")
