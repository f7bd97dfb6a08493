"""Convert weights between our networks and timm, Hugging Face, Detectron(2) and Caffe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones import Backbone
    from backbones.weights import Weights

FORMATS = ("timm", "huggingface", "detectron", "detectron2", "caffe")
_SUFFIXES = {  # all but Hugging Face's, which is a folder
    None: ".safetensors",
    "timm": ".safetensors",
    "detectron": ".pkl",
    "detectron2": ".pkl",
    "caffe": ".npz",
}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet convert", description=__doc__)
    parser.add_argument("source", type=Path, help="what to read; huggingface: a folder")
    parser.add_argument(
        "target",
        type=Path,
        help="what to write; nothing is overwritten: a folder for huggingface, .pkl for "
        "detectron and detectron2, .npz for caffe, else .safetensors",
    )
    parser.add_argument("--network", required=True, help="the network's name, such as resnet50")
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from", dest="source_format", choices=FORMATS, help="SOURCE's format")
    direction.add_argument("--to", dest="target_format", choices=FORMATS, help="TARGET's format")
    parser.add_argument(
        "--stride-in-1x1", action="store_true", help="the network's bottlenecks stride in the 1×1"
    )
    parser.add_argument("--classes", type=int, default=1000, help="outputs of the last layer")
    parser.add_argument(
        "--fresh",
        action="append",
        default=[],
        metavar="LAYER",
        help="a layer that SOURCE may lack, such as fc; it is written untrained",
    )
    parser.add_argument("--prototxt", type=Path, help="caffe: the prototxt beside the npz")
    options = parser.parse_args(argv)
    if ("caffe" in (options.source_format, options.target_format)) != bool(options.prototxt):
        parser.error("--prototxt goes with caffe, and caffe with --prototxt")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    from backbones.weights import load_weights, save_weights

    try:
        _check_target(options)
        network = _network(options)
        if options.source_format:
            load_weights(network, _read(options, network), fresh=options.fresh)
            save_weights(network, options.target)
        else:
            load_weights(network, options.source, fresh=options.fresh)
            _write(options, network)
    except (ValueError, OSError, ImportError) as error:
        print(f"resdet convert: {error}", file=sys.stderr)
        return 1
    print(options.target)
    return 0


def _check_target(options: argparse.Namespace) -> None:
    """Refuses what cannot be written, before anything is read."""
    target, suffix = options.target, _SUFFIXES.get(options.target_format)
    if suffix and target.suffix != suffix:
        raise ValueError(f"{target}: expected a name that ends in {suffix}")
    for path in [target, options.prototxt] if options.target_format == "caffe" else [target]:
        if path.exists():
            raise FileExistsError(f"expected no file yet at {path}")
        if suffix and not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: expected a folder at {path.parent}")


def _network(options: argparse.Namespace) -> Backbone:
    from backbones import build

    arguments: dict[str, Any] = {"num_classes": options.classes}
    if options.stride_in_1x1:
        arguments["stride_in_1x1"] = True
    try:
        return build(options.network, **arguments)
    except TypeError as error:
        raise ValueError(f"--stride-in-1x1 is not for {options.network}: {error}") from error


def _read(options: argparse.Namespace, network: Any) -> Weights:
    from backbones import convert

    match options.source_format:
        case "timm":
            return convert.from_timm(options.source, network)
        case "huggingface":
            return convert.from_huggingface(options.source, network)
        case "detectron":
            return convert.from_detectron(options.source, network)
        case "detectron2":
            return convert.from_detectron2(options.source, network)
    return convert.from_caffe(options.prototxt, options.source, network)


def _write(options: argparse.Namespace, network: Any) -> None:
    from safetensors.torch import save

    from backbones import convert

    match options.target_format:
        case "timm":
            options.target.write_bytes(save(convert.to_timm(network)))
        case "huggingface":
            convert.to_huggingface(network).save_pretrained(options.target)
        case "detectron":
            content: dict[str, Any] = convert.to_detectron(network)
            options.target.write_bytes(_pickled(content))
        case "detectron2":
            arrays = {name: x.numpy() for name, x in convert.to_detectron2(network).items()}
            content = {"model": arrays, "__author__": "resdet", "matching_heuristics": True}
            options.target.write_bytes(_pickled(content))
        case "caffe":
            convert.to_caffe(network, options.prototxt, options.target)


def _pickled(content: dict[str, Any]) -> bytes:
    """A pickle for any Python and NumPy: before 1.26, NumPy has no ``numpy._core``."""
    import pickle

    data = pickle.dumps(content, protocol=2)
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


if __name__ == "__main__":
    sys.exit(main())
