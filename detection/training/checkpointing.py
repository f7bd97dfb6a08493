"""Checkpoints that are whole or absent, whatever happens while they are written."""

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from detection.atomic import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, then replaces it.

    Lightning stages files in the temporary folder, which may be another file system, where the
    final move is a copy that a kill or a full disk cuts short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Saves so that ``path`` is the old file or the whole new one at every moment.

        Raises:
            OSError: if the file cannot be written; the old one, if any, still stands.
        """
        del storage_options
        try:
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"{path}: cannot be written: {error}") from error
