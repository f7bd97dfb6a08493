"""Batch norm with fixed statistics, folded into the convolution before it.

During detection training the statistics are constants and batch norm is an affine map (ResNet
appendix A). An affine map after a convolution is one more convolution, so ``conv_norm`` runs one
where the plain code runs two layers. The folding happens in every forward pass: gradients reach
the convolution's own weight, and state dicts keep both layers' names and values.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants.

    The state dict is ``nn.BatchNorm2d``'s without ``num_batches_tracked``, which is accepted and
    dropped on loading.

    Args:
        channels: number of channels C.
        eps: added to the variance, as in ``nn.BatchNorm2d``.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_load_state_dict_pre_hook(_drop_counter)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x.

        Args:
            x: (B, C, H, W) float.

        Returns:
            (B, C, H, W) float, of x's dtype.
        """
        scale, shift = _affine(self.tensors(), self.eps)
        # The input's dtype, whatever the norm's own: as nn.BatchNorm2d's in mixed precision.
        return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight, bias, mean and variance, each (C,) float."""
        return self.weight, self.bias, self.running_mean, self.running_var

    def extra_repr(self) -> str:
        """Channels and eps."""
        return f"{len(self.weight)}, eps={self.eps}"


def freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch norm inside a module by a frozen one, in place.

    A module cut from a network shares the network's layers but has its own references to them:
    freeze before cutting, or freeze the part that is used.

    Args:
        module: any module; its parameters' devices and dtypes are kept.

    Returns:
        ``module`` itself, or the frozen layer where ``module`` is a batch norm.

    Raises:
        ValueError: a batch norm has no running statistics or no affine parameters.
    """
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        if not (module.affine and module.track_running_stats):
            raise ValueError(f"expected affine parameters and running statistics, got {module}")
        frozen = FrozenBatchNorm2d(module.num_features, module.eps)
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        frozen.load_state_dict(state, assign=True)
        return frozen.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, freeze_batch_norm(child))
    return module


def conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``, as a single convolution where the norm is frozen.

    Neither layer is called in the folded case, so hooks on them do not fire. What wraps or extends
    ``nn.Conv2d``, such as an adapter or a checkpoint wrapper, is never folded.

    Args:
        x: (B, C, H, W) float.
        conv: a convolution with zero padding, or what stands in its place.
        norm: the layer after it.

    Returns:
        (B, C', H', W') float.
    """
    if not (isinstance(norm, FrozenBatchNorm2d) and type(conv) is nn.Conv2d):
        y: Tensor = norm(conv(x))
        return y
    weight, bias = _fold(conv.weight, conv.bias, norm.tensors(), norm.eps)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class ConvNorm(nn.Sequential):
    """A convolution ("0") and the norm after it ("1"), run by ``conv_norm``."""

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__(conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise: (B, C, H, W) float -> (B, C', H', W') float."""
        conv, norm = self
        return conv_norm(x, conv, norm)


def _affine(norm: Sequence[Tensor], eps: float) -> tuple[Tensor, Tensor]:
    weight, bias, mean, var = norm
    scale = weight * (var + eps).rsqrt()
    return scale, bias - mean * scale


@fx.wrap  # so that a traced graph refers to the layers' tensors instead of baking in their product
def _fold(
    weight: Tensor, bias: Tensor | None, norm: Sequence[Tensor], eps: float
) -> tuple[Tensor, Tensor]:
    scale, shift = _affine(norm, eps)
    folded = shift if bias is None else shift + bias * scale
    # A network in low precision may keep its norms in float32.
    return (weight * scale[:, None, None, None]).to(weight.dtype), folded.to(weight.dtype)


def _drop_counter(
    _module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    state_dict.pop(f"{prefix}num_batches_tracked", None)
