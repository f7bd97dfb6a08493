"""Loading of pre-trained weights: strict, and data only (``weights_only=True``)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torchvision.models
from safetensors.torch import load_file
from torch import Tensor

from backbones.base import Backbone
from backbones.preprocessing import Preprocessing

_COUNTER = ".num_batches_tracked"


def load_weights(
    network: Backbone, source: str | Path, fresh: Iterable[str] = ()
) -> tuple[str, ...]:
    """Load weights in place, all of them or none.

    Batch norm's ``num_batches_tracked`` may be absent or left over. Weights by name also set
    ``network.preprocessing``; for a file it is the network's own.

    Args:
        network: what to fill.
        source: a .pth, .pt or .safetensors file that holds a state dict, or the name of
            torchvision's weights for ``network.architecture``, such as "IMAGENET1K_V1", which are
            downloaded and checked against their hash.
        fresh: prefixes of layers whose weights may be absent or non-finite (torchvision's marker
            for a classifier that was not trained) and then keep their initialisation; those of
            ``network.head`` may also have other shapes.

    Returns:
        The names of the parameters and buffers that kept their initialisation.

    Raises:
        ValueError: the source is unreadable, not a state dict, unknown, or does not fit; the
            message lists every name that is missing, unexpected, of another shape or non-finite.
        OSError: the file or the address cannot be opened.
    """
    if Path(source).suffix in (".pth", ".pt", ".safetensors"):
        state, preprocessing = _read(Path(source)), network.preprocessing
    else:
        state, preprocessing = _download(network, str(source))
    own = network.state_dict()
    fresh = tuple(fresh)
    for prefix in fresh:
        if not any(_under(name, prefix) for name in own):
            raise ValueError(f"fresh: {_title(network)} has no layer {prefix!r}")
    problems, kept = _compare(own, state, fresh, network.head)
    if problems:
        raise ValueError("\n  ".join([f"{source} does not fit {_title(network)}:", *problems]))
    network.load_state_dict(
        own | {name: state[name] for name in own.keys() & state.keys() - {*kept}}
    )
    network.preprocessing = preprocessing
    return kept


def _compare(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], fresh: tuple[str, ...], head: str
) -> tuple[list[str], tuple[str, ...]]:
    """What does not fit, one line each, and which names stay as they are."""
    problems, kept = [], []
    for name, expected in own.items():
        if name.endswith(_COUNTER):
            continue
        shape, got = tuple(expected.shape), state.get(name)
        may_stay = any(_under(name, prefix) for prefix in fresh)
        if got is None:
            problem = f"missing: {name}, expected {shape}"
        elif got.shape != expected.shape:
            problem = f"shape: {name}, expected {shape}, got {tuple(got.shape)}"
            may_stay &= _under(name, head)
        elif not got.isfinite().all():
            problem = f"non-finite: {name}, expected numbers, got NaN or infinity"
        else:
            continue
        if may_stay:
            kept.append(name)
        else:
            problems.append(problem)
    for name, got in state.items():
        if name not in own and not name.endswith(_COUNTER):
            problems.append(f"unexpected: {name}, got {tuple(got.shape)}")
    return problems, tuple(kept)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # each format raises its own kinds
        raise ValueError(f"{path}: not readable as {path.suffix} weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        got = list(state)[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path}: expected a state dict, names to tensors, got {got}")
    return state


def _download(network: Backbone, name: str) -> tuple[dict[str, Tensor], Preprocessing]:
    if getattr(network, "stride_in_1x1", False):
        raise ValueError(
            f"{name} does not fit {_title(network)}: torchvision's weights were trained with the "
            "stride in the 3×3 convolution, the network has it in the first 1×1 (stride_in_1x1)"
        )
    if network.architecture is None:
        raise ValueError(f"{name}: expected a weights file, torchvision has no such network")
    published = torchvision.models.get_model_weights(network.architecture)
    if name not in published.__members__:
        raise ValueError(
            f"expected a .pth, .pt or .safetensors file or one of {list(published.__members__)} "
            f"for {network.architecture}, got {name!r}"
        )
    transform = published[name].transforms()
    preprocessing = Preprocessing("rgb", 1 / 255, tuple(transform.mean), tuple(transform.std))
    return published[name].get_state_dict(progress=False, check_hash=True), preprocessing


def _under(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")


def _title(network: Backbone) -> str:
    return network.architecture or type(network).__name__
