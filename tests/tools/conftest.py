from collections.abc import Sequence
from pathlib import Path

import pytest

from detection.data.shapes import write_shapes
from resdet.tools import train


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on and five to validate on."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, {"train": 8, "val": 5}, (64, 64))
    return root


@pytest.fixture(scope="session")
def small_run(shapes: Path) -> Sequence[str]:
    """Options with which shapes.yaml is quick."""
    return [
        "--config=shapes.yaml",
        f"--data.root={shapes}",
        "--data.workers=0",
        "--data.batch_size=2",
        "--data.short_side=64",
        "--data.long_side=64",
        "--model.detector.width=16",
        "--model.detector.pyramid_channels=16",
        "--model.detector.pyramid_tail_channels=64",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.log_every_n_steps=1",
    ]


@pytest.fixture(scope="session")
def run(small_run: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `resdet train`: an epoch of two updates of two batches each."""
    output = tmp_path_factory.mktemp("runs") / "shapes"
    own = output.with_suffix(".yaml")
    own.write_text(
        "data: {batch_size: 8}\n"
        "model: {schedule: {milestones: [0.5], warmup_steps: 0}}\n"
        "trainer: {max_epochs: 1, accumulate_grad_batches: 2}\n"
    )
    first, *options = small_run
    assert train.main([first, "--config", str(own), *options, f"--output={output}"]) == 0
    return output
