"""Compare with peers: speed of `infer`, `train`, `data`, `evaluation`, `startup`; `accuracy`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

SUBJECTS = ("infer", "train", "data", "evaluation", "startup", "accuracy")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser("resdet benchmark", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS, help="each has a --help of its own")
    subject = parser.parse_args(arguments[:1]).subject
    module = import_module(f"resdet.tools.benchmarks.{subject}")
    parser = argparse.ArgumentParser(f"resdet benchmark {subject}", description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument("--output", type=Path, help="JSON file for the report")
    options = parser.parse_args(arguments[1:])
    from detection.reproduction.artefacts import SPEED, environment

    try:
        command = shlex.join(["resdet", "benchmark", *arguments])
        kind = {} if subject == "accuracy" else {"kind": SPEED}
        facts = {"command": command, **kind, **module.run(options), "environment": environment()}
        report = json.dumps(facts, indent=2)
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(report + "\n", encoding="utf-8")
    except (RuntimeError, ValueError, OSError) as error:
        print(f"resdet benchmark: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
