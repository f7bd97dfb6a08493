"""Pre-trained weights: what they expect comes with them, and all of them fit or none is loaded."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torchvision.models
from torch import Tensor

from backbones.base import Backbone
from backbones.download import fetch, is_address
from backbones.preprocessing import Preprocessing
from backbones.weight_files import SUFFIXES, read_tensors, write_tensors

_COUNTER = ".num_batches_tracked"


class Weights(NamedTuple):
    """Weights under our names (torchvision's), and what they expect.

    Attributes:
        state: tensors by name.
        preprocessing: what an image must look like; None where the source does not say.
        stride_in_1x1: where bottlenecks have their stride; None without bottlenecks, or where the
            source does not say.
    """

    state: dict[str, Tensor]
    preprocessing: Preprocessing | None = None
    stride_in_1x1: bool | None = None


def load_weights(
    network: Backbone,
    source: str | Path | Weights,
    fresh: Iterable[str] = (),
    unused: Iterable[str] = (),
) -> tuple[str, ...]:
    """Load weights in place, all of them or none.

    Batch norm's ``num_batches_tracked`` may be absent or left over. What the weights say of the
    preprocessing becomes ``network.preprocessing``; where they do not say, it stays.

    Args:
        network: what to fill.
        source: a .safetensors, .pth or .pt file that holds a state dict; the address of one, with
            its hash (see ``download.fetch``); the name of torchvision's weights for
            ``network.architecture``, such as "IMAGENET1K_V1"; or ``Weights``.
        fresh: prefixes of layers whose weights may be absent or non-finite (torchvision's marker
            for a classifier that was not trained) and then keep their initialisation; those of
            ``network.head`` may also have other shapes.
        unused: patterns of names that are left out of the source: a plain network takes its
            residual twin's weights with ``["*.downsample.*"]``.

    Returns:
        The names of the parameters and buffers that kept their initialisation.

    Raises:
        ValueError: the source is unreadable, not a state dict, unknown, of another stride
            position, or does not fit; the message lists every name that is missing, unexpected, of
            another shape or non-finite.
        OSError: the file or the address cannot be opened.
    """
    weights = source if isinstance(source, Weights) else _find(network, source)
    title = "the weights" if isinstance(source, Weights) else str(source)
    _check_stride(network, weights.stride_in_1x1, title)
    own = network.state_dict()
    fresh = tuple(fresh)
    for prefix in fresh:
        if not any(_under(name, prefix) for name in own):
            raise ValueError(f"fresh: {network_title(network)} has no layer {prefix!r}")
    state = _without(weights.state, tuple(unused), title)
    problems, kept = _compare(own, state, fresh, network.head)
    if problems:
        raise ValueError(
            "\n  ".join([f"{title} does not fit {network_title(network)}:", *problems])
        )
    network.load_state_dict(
        own | {name: state[name] for name in own.keys() & state.keys() - {*kept}}
    )
    network.preprocessing = weights.preprocessing or network.preprocessing
    return kept


def expected_preprocessing(network: Backbone, source: str | Path) -> Preprocessing:
    """What an image must look like once a network has loaded some weights.

    Args:
        network: whose own preprocessing counts where the weights do not say.
        source: as for ``load_weights``. An address is fetched, a name is only looked up.

    Raises:
        ValueError: the source is unreadable, unknown or of another stride position.
        OSError: the file or the address cannot be opened.
    """
    if _is_name(source):
        return _published(network, str(source))[1]
    return _find(network, source).preprocessing or network.preprocessing


def read_weights(path: str | Path) -> Weights:
    """Read a file of weights, as data and never as code.

    Args:
        path: a .safetensors, .pth or .pt file.

    Returns:
        Its tensors, and what ``save_weights`` wrote beside them, if it did.

    Raises:
        ValueError: it is not readable or not a state dict.
        OSError: it cannot be opened.
    """
    state, notes = read_tensors(Path(path))
    try:
        return Weights(
            state, *_expectations(notes.get("preprocessing"), notes.get("stride_in_1x1"))
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected save_weights' metadata, got {notes}") from error


def save_weights(network: Backbone, path: str | Path) -> None:
    """Write a network's weights and what they expect; a reader sees all of the file or nothing.

    Args:
        network: whose weights.
        path: a .safetensors file; an existing one is replaced.

    Raises:
        ValueError: the file's name ends otherwise.
        OSError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a name that ends in .safetensors")
    stride = getattr(network, "stride_in_1x1", None)
    write_tensors(
        path,
        network.state_dict(),
        {"preprocessing": list(network.preprocessing), "stride_in_1x1": stride},
    )


def network_title(network: Backbone) -> str:
    """The network's name in messages."""
    return network.architecture or type(network).__name__


def _find(network: Backbone, source: str | Path) -> Weights:
    if _is_name(source):
        url, preprocessing = _published(network, str(source))
        return Weights(read_weights(fetch(url)).state, preprocessing)
    return read_weights(fetch(str(source)) if is_address(str(source)) else source)


def _is_name(source: str | Path) -> bool:
    """Whether it is a name of torchvision's, none of which has a suffix."""
    return isinstance(source, str) and not is_address(source) and not Path(source).suffix


def _published(network: Backbone, source: str) -> tuple[str, Preprocessing]:
    """The address of torchvision's weights, and what they expect."""
    if network.architecture is None:
        raise ValueError(f"{source}: expected a weights file, torchvision has no such network")
    published = torchvision.models.get_model_weights(network.architecture)
    if source not in published.__members__:
        raise ValueError(
            f"expected a file ({', '.join(SUFFIXES)}), an address or one of "
            f"{list(published.__members__)} for {network.architecture}, got {source!r}"
        )
    entry = published[source]
    # Torchvision has bottlenecks' stride in the 3×3; before a download that could not serve.
    _check_stride(network, False, source)
    transform = entry.transforms()
    return entry.url, Preprocessing("rgb", 1 / 255, tuple(transform.mean), tuple(transform.std))


def _expectations(
    preprocessing: Sequence[Any] | None, stride_in_1x1: bool | None
) -> tuple[Preprocessing | None, bool | None]:
    """What ``save_weights`` wrote, whose shape is checked: a file may come from anywhere."""
    if stride_in_1x1 not in (None, True, False):
        raise ValueError(f"expected true, false or null, got {stride_in_1x1}")
    if preprocessing is None:
        return None, stride_in_1x1
    order, scale, (*mean,), (*std,) = preprocessing
    numbers = all(isfinite(number) for number in (scale, *mean, *std))
    if order not in ("rgb", "bgr") or not numbers or not len(mean) == len(std) == 3 or 0 in std:
        raise ValueError(f"expected an order, a scale, means and deviations, got {preprocessing}")
    return Preprocessing(order, scale, tuple(mean), tuple(std)), stride_in_1x1


def _check_stride(network: Backbone, expected: bool | None, title: str) -> None:
    got = getattr(network, "stride_in_1x1", None)
    if None not in (expected, got) and expected != got:
        first, then = ("first 1×1", "3×3") if expected else ("3×3", "first 1×1")
        raise ValueError(
            f"{title} does not fit {network_title(network)}: the weights were trained with the "
            f"stride in the {first} convolution, the network has it in the {then} (stride_in_1x1)"
        )


def _without(
    state: Mapping[str, Tensor], patterns: tuple[str, ...], title: str
) -> Mapping[str, Tensor]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in state):
            raise ValueError(f"unused: {title} has no name like {pattern!r}")
    return {
        name: tensor
        for name, tensor in state.items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _compare(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], fresh: tuple[str, ...], head: str
) -> tuple[list[str], tuple[str, ...]]:
    """What does not fit, one line each, and which names stay as they are."""
    problems, kept = [], []
    for name, expected in own.items():
        if name.endswith(_COUNTER) and name not in state:
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


def _under(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")
