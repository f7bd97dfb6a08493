"""Stochastic gradient descent as the papers use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytorch_lightning import Trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class Schedule:
    """Optimizer and learning rate; the defaults are Caffe's end-to-end Faster R-CNN on VOC 2007.

    Attributes:
        lr_per_16_images: learning rate for 16 images per update; it is scaled linearly to the
            real number. The paper's 0.001 at 2 images is 0.008 here. Alternatives: 0.001, 0.003,
            0.02. Sources: py-faster-rcnn (0.001 at 2 images); for COCO, at 8 images for the RPN and
            16 for the head, ResNet appendix A (0.001) and Faster R-CNN section 4.2 (0.003); FPN
            section 5.2 (0.02 at 16 images).
        momentum: of the gradient.
        weight_decay: of the weights; biases and norms have none, as in Fast R-CNN's VGG16 prototxt
            (py-faster-rcnn's for ZF let biases decay). Alternatives: 0.0001. Sources: Faster R-CNN
            section 3.1.3 (0.0005), FPN section 5.2 (0.0001).
        bias_lr_factor: what the biases' learning rate is multiplied by. Alternatives: 1. Sources:
            py-faster-rcnn's prototxts (2), Detectron2 (1).
        milestones: where the learning rate is multiplied by ``gamma``: updates, or fractions of
            the run where not above 1.
        gamma: see ``milestones``.
        warmup_steps: updates over which the learning rate grows linearly to its full value, or a
            fraction of the run where below 1.
        warmup_factor: the fraction of the learning rate it grows from.
    """

    lr_per_16_images: float = 0.008
    momentum: float = 0.9
    weight_decay: float = 0.0005
    bias_lr_factor: float = 2.0
    milestones: tuple[float, ...] = (5 / 7,)
    gamma: float = 0.1
    warmup_steps: int | float = 0
    warmup_factor: float = 0.001

    def optimizer(self, module: nn.Module, images_per_update: int) -> SGD:
        """Builds the optimizer over the parameters that train.

        Args:
            module: whose parameters to optimise.
            images_per_update: over all processes and accumulated batches.
        """
        lr = self.lr_per_16_images * images_per_update / 16
        weights, norms, biases = _split(module.named_parameters())
        groups = [
            {"params": weights, "lr": lr, "weight_decay": self.weight_decay},
            {"params": norms, "lr": lr, "weight_decay": 0.0},
            {"params": biases, "lr": lr * self.bias_lr_factor, "weight_decay": 0.0},
        ]
        return SGD([group for group in groups if group["params"]], lr=lr, momentum=self.momentum)

    def scheduler(self, optimizer: SGD, total_steps: int) -> LambdaLR:
        """Builds the per-update scheduler for a run of ``total_steps`` updates."""
        return LambdaLR(optimizer, lambda step: self.factor(step, total_steps))

    def warmup(self, total_steps: int) -> float:
        """Returns the updates of the warm-up in a run of ``total_steps``."""
        return self.warmup_steps * (total_steps if self.warmup_steps < 1 else 1)

    def factor(self, step: int, total_steps: int) -> float:
        """Returns what the learning rate is multiplied by at update ``step``, counted from 0."""
        drops = sum(
            step >= (milestone * total_steps if milestone <= 1 else milestone)
            for milestone in self.milestones
        )
        factor: float = self.gamma**drops
        warmup = self.warmup(total_steps)
        if step < warmup:
            share = step / warmup
            factor *= self.warmup_factor + (1 - self.warmup_factor) * share
        return factor


def updates_of(trainer: Trainer) -> int:
    """Returns how many updates a run has.

    Raises:
        ValueError: it ends by the clock, or never.
    """
    updates = trainer.estimated_stepping_batches
    if updates == float("inf"):
        raise ValueError(
            "the learning rate follows the length of the run: set --trainer.max_epochs or max_steps"
        )
    return int(updates)


def _split(
    named: Iterable[tuple[str, nn.Parameter]],
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            if name.endswith("bias"):
                biases.append(parameter)
            else:
                (weights if parameter.dim() > 1 else norms).append(parameter)
    return weights, norms, biases
