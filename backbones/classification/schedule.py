"""Stochastic gradient descent as the paper trains classifiers (ResNet sections 3.4 and 4.2)."""

from dataclasses import asdict, dataclass

from torch import nn
from torch.optim import SGD

_SMOOTHING = 0.98


@dataclass(frozen=True)
class Schedule:
    """Optimizer and learning rate; the defaults are the paper's for ImageNet.

    Attributes:
        lr: learning rate, for the batch that is given; it is not scaled.
        momentum: of the gradient.
        weight_decay: of all parameters, as in the paper's code.
        milestones: updates before which the learning rate is multiplied by ``gamma`` (CIFAR: 32000
            and 48000).
        patience: validations without a lower top-1 error after which it is multiplied by ``gamma``
            too ("when the error plateaus"); None never does.
        gamma: see ``milestones``.
        warmup_lr: the learning rate at first (110 layers: 0.01); None has no warm-up.
        warmup_error: the training error, %, below which the warm-up ends. It is averaged over
            about the last 50 updates; which average, the paper leaves open.

    Raises:
        ValueError: a rate is not positive, or ``patience`` is below 1.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0001
    milestones: tuple[int, ...] = ()
    patience: int | None = 5
    gamma: float = 0.1
    warmup_lr: float | None = None
    warmup_error: float = 80.0

    def __post_init__(self) -> None:
        rates = [self.lr, self.gamma] + ([] if self.warmup_lr is None else [self.warmup_lr])
        if min(rates) <= 0 or (self.patience is not None and self.patience < 1):
            raise ValueError(f"expected rates above 0 and patience >= 1 or null, got {self}")

    def optimizer(self, module: nn.Module) -> SGD:
        """Build the optimizer over the parameters that train."""
        trained = [one for one in module.parameters() if one.requires_grad]
        optimizer = SGD(trained, self.lr, self.momentum, weight_decay=self.weight_decay, fused=True)
        # Gradients are unscaled before the step: Lightning does not clip for one that does it.
        optimizer._step_supports_amp_scaling = False
        return optimizer


@dataclass
class LearningRate:
    """The learning rate of a run, which follows its errors.

    Attributes:
        schedule: the rules.
        warming: whether the warm-up lasts.
        train_error: the running mean of the training error, %.
        best: the lowest validation error so far, %.
        waited: validations since then.
        drops: how often the error stopped falling.
    """

    schedule: Schedule
    warming: bool = False
    train_error: float = 100.0
    best: float = 100.0
    waited: int = 0
    drops: int = 0

    def __post_init__(self) -> None:
        self.warming = self.schedule.warmup_lr is not None

    def at(self, update: int) -> float:
        """The learning rate of an update, counted from 0."""
        if self.warming and self.schedule.warmup_lr is not None:
            return self.schedule.warmup_lr
        drops = self.drops + sum(update >= milestone for milestone in self.schedule.milestones)
        rate: float = self.schedule.lr * self.schedule.gamma**drops
        return rate

    def trained(self, error: float) -> None:
        """Take note of a training batch's top-1 error, %, the same on every process."""
        self.train_error = _SMOOTHING * self.train_error + (1 - _SMOOTHING) * error
        self.warming = self.warming and self.train_error >= self.schedule.warmup_error

    def validated(self, error: float) -> None:
        """Take note of a validation's top-1 error, %, the same on every process."""
        self.best, self.waited = (error, 0) if error < self.best else (self.best, self.waited + 1)
        if self.schedule.patience is not None and self.waited >= self.schedule.patience:
            self.drops, self.waited = self.drops + 1, 0

    def state_dict(self) -> dict[str, float]:
        """All but the rules, as plain values."""
        state = asdict(self)
        del state["schedule"]
        return state

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Set what ``state_dict`` gave.

        Raises:
            ValueError: the names differ.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"expected {sorted(self.state_dict())}, got {sorted(state)}")
        for name, value in state.items():
            setattr(self, name, value)
