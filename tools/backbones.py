"""Print the networks: layers, parameters, multiply-adds, features and published weights.

Without a name, all of them; with one, that network stage by stage. Multiply-adds are of one image
and leave out norms, as the papers' do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from backbones.base import Backbone
    from backbones.complexity import Cost

if __name__ == "backbones":
    # A script's folder comes first on its path, so in `python tools/train.py` the library's name
    # finds this file. Without the folder it finds the library, which takes the name.
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != folder]
    del sys.modules[__name__]
    import_module(__name__)

DETECTOR_SIZE = (600, 1000)
DETECTOR_CLASSES = 20
PROPOSALS = 300


class Sheet(NamedTuple):
    """A table, its cells as they are printed.

    Attributes:
        title: the line above it; may be empty.
        columns: their headings.
        numbers: how many columns after the first hold numbers.
        rows: as many cells as columns.
    """

    title: str
    columns: tuple[str, ...]
    numbers: int
    rows: Sequence[tuple[str, ...]]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser("resdet backbones", description=summary[0], epilog=summary[1])
    parser.add_argument("name", metavar="NAME", nargs="?", help="a network, such as resnet50")
    parser.add_argument(
        "--size", metavar=("H", "W"), nargs=2, type=int, help="of the image, with NAME"
    )
    parser.add_argument(
        "--detector", action="store_true", help="with NAME, also Faster R-CNN's parts on it"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    options = parser.parse_args(argv)
    if options.name is None and (options.size or options.detector):
        parser.error("--size and --detector need a NAME")
    return options


def _overview() -> Sheet:
    """Every network of the catalogue."""
    import torch

    from backbones.catalogue import CIFAR, IMAGENET
    from backbones.complexity import network_cost

    rows = []
    for name, network in {**IMAGENET, **CIFAR}.items():
        with torch.device("meta"):
            built = network()
        size = _size(name)
        cost = network_cost(built, size)
        rows.append(
            (
                name,
                str(cost.layers),
                f"{cost.total.parameters / 1e6:.2f}",
                f"{cost.total.multiply_adds / 1e9:.3f}",
                _sides(size),
                ", ".join(str(feature.channels) for feature in built.feature_info),
                ", ".join(str(feature.stride) for feature in built.feature_info),
                ", ".join(_published(built)) or "–",
                built.preprocessing.order.upper(),
            )
        )
    counts = ("layers", "parameters (M)", "multiply-adds (G)")
    rest = ("image", "feature channels", "strides", "torchvision weights", "input")
    return Sheet("", ("network", *counts, *rest), len(counts), rows)


def _published(network: Backbone) -> list[str]:
    """Names of torchvision's weights, once each."""
    from torchvision.models import get_model_weights

    return [w.name for w in get_model_weights(network.architecture)] if network.architecture else []


def _stages(name: str, size: tuple[int, int]) -> Sheet:
    """One network, a row a stage."""
    import torch

    from backbones.catalogue import build
    from backbones.complexity import network_cost

    with torch.device("meta"):
        cost = network_cost(build(name), size)
    parts = {**cost.stages, "total": cost.total}
    return _costs(f"{name}: {cost.layers} layers, image of {_sides(size)}", "stage", parts)


def _detectors(name: str) -> Iterator[Sheet]:
    """Faster R-CNN on one network, cut and with a pyramid."""
    import torch

    from backbones.catalogue import CIFAR
    from detection.model.build import DetectorSpec, faster_rcnn
    from detection.model.complexity import detector_cost

    if name in CIFAR:
        raise ValueError(f"--detector: expected a network for ImageNet, got {name!r}")
    for pyramid in (False, True):
        # Nothing frozen, so that the batch norms' parameters count as in the network's own table.
        spec = DetectorSpec(name, pyramid=pyramid, batch_norm="trained", frozen_stages=0)
        with torch.device("meta"):
            cost = detector_cost(faster_rcnn(DETECTOR_CLASSES, spec), DETECTOR_SIZE)
        parts = {"trunk": cost.trunk, "RPN": cost.rpn, "one region": cost.roi}
        parts[f"total, {PROPOSALS} regions"] = cost.total(PROPOSALS)
        title = "Faster R-CNN with a feature pyramid" if pyramid else "Faster R-CNN"
        title += f" on {name}: {DETECTOR_CLASSES + 1} classes, image of {_sides(DETECTOR_SIZE)}"
        yield _costs(title, "part", parts)


def _costs(title: str, heading: str, parts: dict[str, Cost]) -> Sheet:
    rows = [(name, f"{one.parameters:,}", f"{one.multiply_adds:,}") for name, one in parts.items()]
    return Sheet(title, (heading, "parameters", "multiply-adds"), 2, rows)


def _size(name: str) -> tuple[int, int]:
    from backbones.catalogue import CIFAR

    return (32, 32) if name in CIFAR else (224, 224)


def _sides(size: tuple[int, int]) -> str:
    return "×".join(map(str, size))


def _markdown(sheet: Sheet) -> str:
    rules = ["---:" if 0 < i <= sheet.numbers else "---" for i, _ in enumerate(sheet.columns)]
    lines = [f"| {' | '.join(row)} |" for row in (sheet.columns, rules, *sheet.rows)]
    return "\n".join([*([f"**{sheet.title}**", ""] if sheet.title else []), *lines])


def _print(sheet: Sheet) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if sheet.title:
        print(f"\n{sheet.title}")
    table = Table(box=box.SIMPLE_HEAD)
    for i, heading in enumerate(sheet.columns):
        justify: Literal["left", "right"] = "right" if 0 < i <= sheet.numbers else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    for row in sheet.rows:
        table.add_row(*row)
    # In a file or a pipe a row is a line.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    try:
        if options.name is None:
            sheets = [_overview()]
        else:
            height, width = options.size or _size(options.name)
            sheets = [_stages(options.name, (height, width))]
            sheets += _detectors(options.name) if options.detector else []
    except (ValueError, TypeError) as error:
        print(f"resdet backbones: {error}", file=sys.stderr)
        return 1
    if options.markdown:
        print("\n\n".join(map(_markdown, sheets)))
        return 0
    for sheet in sheets:
        _print(sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
