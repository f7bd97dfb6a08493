import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import pytorch_lightning as pl
import rich

from detection.training.callbacks import progress_bar

Make = Callable[..., pl.Trainer]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        ({"max_steps": 3, "max_epochs": -1}, "a step: update 0 of 3"),
        ({"max_epochs": 2, "limit_train_batches": 1}, "a step: epoch 2 of 2"),
    ],
)
def test_the_bar_says_what_is_in_progress_and_where_it_stands(
    small: ModuleType,
    shapes: Path,
    make_trainer: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    length: dict[str, int],
    wanted: str,
    terminal: bool,
):
    monkeypatch.setattr(rich, "_console", None)  # else rich's own stays one of a terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "120")
    bar = progress_bar("a step")
    trainer = make_trainer(enable_progress_bar=True, callbacks=[bar], **length)
    data = small.small_data(shapes)
    trainer.fit(small.small_module(data), data)
    assert wanted in capsys.readouterr().out
    assert type(bar).__mro__[1].__name__ == ("RichProgressBar" if terminal else "TQDMProgressBar")


def test_a_bar_without_a_title_starts_with_the_position(
    small: ModuleType, shapes: Path, make_trainer: Make, capsys: pytest.CaptureFixture[str]
):
    data = small.small_data(shapes)
    trainer = make_trainer(enable_progress_bar=True, callbacks=[progress_bar()], max_steps=1)
    trainer.fit(small.small_module(data), data)
    shown = capsys.readouterr().out.replace("\r", "\n").splitlines()
    assert any(line.startswith("update 0 of 1: ") for line in shown)
