"""Time ours beside its peers: `infer`, `train`, `data` or `startup`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

SUBJECTS = ("infer", "train", "data", "startup")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet benchmark", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--model", choices=("c4", "fpn"), default="fpn")
    parser.add_argument("--backbone", default="resnet50", help="a ResNet")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=Path, help="folder of JPEGs, for `data`")
    parser.add_argument("--output", type=Path, help="JSON file for the report")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    try:
        report = import_module(f"resdet.tools.benchmarks.{options.subject}").run(options)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"resdet benchmark: {error}", file=sys.stderr)
        return 1
    text = json.dumps(report, indent=2)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
