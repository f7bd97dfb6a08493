"""Train a localizer on a classification folder with boxes, or test one (ResNet appendix C)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdet.tools._provenance import provenance
from resdet.tools._run import run_tool
from resdet.tools._testing import bar, read_classifier

if TYPE_CHECKING:
    from backbones.base import Backbone
    from detection.model.localization import Localizer
    from resdet.tools._localizer_cli import LocalizerCLI

RESULTS = "localization.json"


def _cli(arguments: list[str]) -> LocalizerCLI:
    # Imported here, so that `resdet --help` stays quick.
    from detection.training.localization import LocalizerModule
    from detection.training.localization_data import LocalizationData
    from resdet.tools._localizer_cli import LocalizerCLI
    from resdet.tools._run_cli import open_cli

    return open_cli(LocalizerCLI, LocalizerModule, LocalizationData, "resdet localize", arguments)


def _load(cli: LocalizerCLI, path: Path) -> Localizer:
    """Reads the localizer to test; its way of choosing boxes is the configuration's."""
    from detection.training.localization import load_localizer

    localizer, labels = load_localizer(path)
    localizer.merge = cli.model.spec.merge
    cli.datamodule.labels = labels
    return localizer


def _classifier(cli: LocalizerCLI) -> Backbone | None:
    """Reads what guesses the classes; they must be the localizer's."""
    from backbones.catalogue import build
    from backbones.weights import load_weights

    source = cli.config.classifier
    if source is None:
        return None
    names = cli.datamodule.labels.names
    if source.endswith(".ckpt"):
        module = read_classifier(Path(source))
        module.check_classes(names)
        return module.network
    spec = cli.model.spec
    network = build(spec.backbone, num_classes=len(names), **(spec.options or {}))
    load_weights(network, source)
    return network


def _test(cli: LocalizerCLI, localizer: Localizer, path: Path) -> None:
    """Prints the errors, a line for each way of testing, and writes them beside the checkpoint."""
    from detection.training.localization_testing import measure_localization

    device = cli.trainer.strategy.root_device
    classifier = _classifier(cli)
    if classifier is not None:
        classifier.to(device)
    localizer.to(device)
    errors = {}
    for testing in cli.config.testing:
        batches = cli.datamodule.test_loader(testing, cli.config.scales)
        found = measure_localization(
            localizer, bar(f"testing, {testing}")(batches), classifier, mirrored=testing == "dense"
        )
        errors[testing] = found._asdict()
        guessed = ""
        if found.top5 is not None:
            guessed = f", top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % with guessed classes"
        print(
            f"{path}, {testing}: localization error {found.gt_class:.2f} % with the true class"
            f"{guessed}, {found.images} images"
        )
    _write(cli, path, {"merge": localizer.merge, "errors": errors})


def _write(cli: LocalizerCLI, path: Path, found: dict[str, Any]) -> None:
    from detection.atomic import replacing
    from detection.reproduction.artefacts import environment

    origin = {
        **provenance([path]),
        "classifier": cli.config.classifier,
        "data": str(Path(cli.config.data.root).resolve()),
        "split": cli.config.data.val,
        "scales": cli.config.scales,
        "command": cli.command,
        "environment": environment(),
    }
    with replacing(path.parent / RESULTS) as file:
        file.write(f"{json.dumps({**origin, **found}, indent=2)}\n".encode())


def _run(cli: LocalizerCLI) -> None:
    if cli.trainer.is_global_zero:
        cli.datamodule.watch = bar("reading XML files")
    if cli.config.test:
        path = Path(cli.config.test)
        localizer = _load(cli, path)
    else:
        path = Path(cli.config.output) / "last.ckpt"
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.resumed(), weights_only=True)
        localizer = cli.model.localizer
    if cli.trainer.is_global_zero:
        _test(cli, localizer, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    return run_tool("localize", argv, _cli, _run)


if __name__ == "__main__":
    sys.exit(main())
