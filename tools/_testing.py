"""What the tools that test share: a classifier from a checkpoint, and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones.classification.module import ClassifierModule


def read_classifier(path: Path) -> ClassifierModule:
    """Reads a checkpoint of `resdet pretrain`.

    Raises:
        ValueError: it is none.
    """
    from pickle import UnpicklingError

    from backbones.classification.module import ClassifierModule

    try:
        module: ClassifierModule = ClassifierModule.load_from_checkpoint(
            path, map_location="cpu", weights_only=True
        )
    except (RuntimeError, OSError, KeyError, TypeError, EOFError, UnpicklingError) as error:
        raise ValueError(f"{path}: not a classifier's checkpoint: {error}") from error
    return module


def bar(title: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Shows progress over batches, on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return partial(track, description=title, console=console, disable=not console.is_terminal)
