import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from detection.data.shapes import write_shapes
from detection.training.checkpointing import AtomicCheckpointIO


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Runs that are to end in the same weights add up in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """small.py, which the script of two processes imports too."""
    return load("small")


@pytest.fixture(scope="session")
def ddp_worker(small: ModuleType) -> ModuleType:
    """ddp_worker.py, to run it in this process."""
    return load("ddp_worker")


@pytest.fixture(scope="session")
def alternating_worker(small: ModuleType) -> ModuleType:
    """alternating_worker.py, to run it in this process."""
    return load("alternating_worker")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on, 21 to validate on and two to overfit."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, {"train": 8, "val": 21, "two": 2}, (64, 64))
    return root


@pytest.fixture(scope="session")
def make_trainer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pl.Trainer]:
    root = tmp_path_factory.mktemp("runs")

    def make(**settings: Any) -> pl.Trainer:
        return pl.Trainer(
            **{
                "accelerator": "cpu",
                "devices": 1,
                "default_root_dir": root,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                "num_sanity_val_steps": 0,
                "limit_val_batches": 0,
                "plugins": [AtomicCheckpointIO()],
                **settings,
            }
        )

    return make
