"""The Lightning module of a classification network in training: steps and optimizer only."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.catalogue import build
from backbones.classification.data import ClassificationData
from backbones.classification.schedule import LearningRate, Schedule
from backbones.classification.testing import count_errors, errors, normalise, predict
from backbones.statistics import estimate_statistics

_LEARNING_RATE = "learning_rate"
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class ClassifierModule(pl.LightningModule):
    """A network in training; its checkpoints say which network, in plain values.

    ``load_from_checkpoint(path, weights_only=True)`` gives the network back, with the schedule's
    defaults. Needs ``ClassificationData`` as the trainer's data.

    Args:
        class_names: names of the classes, read from the data.
        backbone: a name in ``backbones.catalogue``.
        options: of the network, as its function takes them, all but ``num_classes``.
        schedule: optimizer and learning rate.

    Raises:
        ValueError: the network or one of its options is unknown.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        backbone: str,
        options: dict[str, Any] | None = None,
        schedule: Schedule = Schedule(),
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        try:
            network = build(backbone, num_classes=len(self.class_names), **(options or {}))
        except TypeError as error:  # an option that the network does not have
            raise ValueError(f"{backbone}: {error}") from error
        self.network = network.to(memory_format=torch.channels_last)
        self.rate = LearningRate(schedule)
        self._counts = torch.zeros(4, dtype=torch.float64)  # wrong in one, in five, images; loss
        plain = {"class_names": list(class_names), "backbone": backbone, "options": options}
        self.save_hyperparameters(plain, logger=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer; ``on_train_batch_start`` sets its learning rate."""
        return self.rate.schedule.optimizer(self)

    def on_fit_start(self) -> None:
        """Compare the network's and the data's classes before the first step.

        Raises:
            ValueError: they differ.
        """
        self.check_classes(self._data.class_names)

    def check_classes(self, found: Sequence[str]) -> None:
        """Compare the network's classes with others.

        Raises:
            ValueError: they differ.
        """
        if tuple(found) != self.class_names:
            odd = sorted(set(found) ^ set(self.class_names))
            raise ValueError(
                f"the network has {len(self.class_names)} classes, the data {len(found)}; "
                f"in one of them alone, or in another order: {odd[:5]}"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, and seed dropout by the position, for resumed runs."""
        del batch, batch_idx
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        sequence = np.random.SeedSequence([self._data.seed, total.processed, self.global_rank])
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        rate = self.rate.at(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        self.log("lr", rate, batch_size=1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy; log it and the errors of the batch.

        Raises:
            FloatingPointError: it is not finite.
        """
        del batch_idx
        images, labels = batch
        scores = self.network.logits(normalise(self.network, images))
        loss = F.cross_entropy(scores.float(), labels)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss {loss.item()} at update {self.global_step}: lower the learning rate"
            )
        found = errors(count_errors(scores.detach(), labels))
        figures: dict[str, Tensor | float] = {
            "train/loss": loss.detach(),
            "train/top1": found.top1,
            "train/top5": found.top5,
        }
        self.log_dict(figures, prog_bar=True, batch_size=len(labels))
        if self.rate.warming:
            self.rate.trained(float(self._reduce(torch.tensor(found.top1), "mean")))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._counts = torch.zeros(4, dtype=torch.float64)

    def validation_step(self, batch: tuple[list[Tensor], Tensor], batch_idx: int) -> None:
        """Count errors, and add up the loss."""
        del batch_idx
        views, labels = batch
        probabilities = predict(self.network, views)
        tiny = torch.finfo(probabilities.dtype).tiny
        loss = F.nll_loss(probabilities.clamp_min(tiny).log(), labels, reduction="sum")
        self._counts += torch.cat([count_errors(probabilities, labels), loss[None]]).cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all images, each counted once, alike on every process."""
        *counts, loss = self._reduce(self._counts, "sum")
        found = errors(torch.stack(counts))
        figures = {"val/loss": loss.item() / found.images, "val/top1": found.top1}
        self.log_dict({**figures, "val/top5": found.top5}, prog_bar=True)
        if not self.trainer.sanity_checking:
            self.rate.validated(found.top1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the learning rate stands."""
        checkpoint[_LEARNING_RATE] = self.rate.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set where the learning rate stood."""
        self.rate.load_state_dict(checkpoint[_LEARNING_RATE])

    def estimate_statistics(
        self,
        data: ClassificationData,
        watch: Callable[[Iterable[Any]], Iterable[Any]] = lambda batches: batches,
    ) -> None:
        """Set batch norms to the exact averages over an epoch of training images, on one process.

        Networks without batch norm stay as they are.

        Args:
            data: whose training images.
            watch: what shows the progress over the batches.
        """
        if self.has_batch_norm:
            batches = watch(data.statistics_dataloader())
            images = (normalise(self.network, x.to(self.device)) for x, _ in batches)
            estimate_statistics(self.network, images)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has batch norms; VGG-16 has none."""
        return any(isinstance(layer, _NORMS) for layer in self.network.modules())

    @property
    def _data(self) -> ClassificationData:
        data: ClassificationData = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def _reduce(self, values: Tensor, how: str) -> Tensor:
        """The sum or mean over all processes."""
        reduced: Tensor = self.trainer.strategy.reduce(
            values.to(self.device, torch.float32), reduce_op=how
        )
        return reduced.cpu()
