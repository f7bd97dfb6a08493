"""Train a classification network on ImageNet, CIFAR-10 or your own folder, or test one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resdet.tools._run import run_tool
from resdet.tools._testing import bar, read_classifier

if TYPE_CHECKING:
    from backbones.base import Backbone
    from resdet.tools._classifier_cli import ClassifierCLI

WEIGHTS = "weights.safetensors"


def _cli(arguments: list[str]) -> ClassifierCLI:
    # Imported here, so that `resdet --help` stays quick.
    from backbones.classification.data import ClassificationData
    from backbones.classification.module import ClassifierModule
    from resdet.tools._classifier_cli import ClassifierCLI
    from resdet.tools._run_cli import open_cli

    return open_cli(
        ClassifierCLI, ClassifierModule, ClassificationData, "resdet pretrain", arguments
    )


def _train(cli: ClassifierCLI) -> Path:
    """Trains, sets the exact statistics and writes the weights."""
    from backbones.weights import save_weights

    output = Path(cli.config.output)
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.resumed(), weights_only=True)
    file = output / WEIGHTS
    if cli.trainer.is_global_zero:
        cli.model.to(cli.trainer.strategy.root_device)
        print("exact batch-norm statistics over the training images …", file=sys.stderr)
        cli.model.estimate_statistics(cli.datamodule)
        save_weights(cli.model.network, file)
        _draw(cli, output)
    return file


def _draw(cli: ClassifierCLI, output: Path) -> None:
    """Draws the training curves, and the layers' responses to the test images."""
    from backbones.classification.curves import draw_curves, log_files, read_curve
    from backbones.classification.responses import draw_responses, layer_responses
    from backbones.classification.testing import normalise

    name, model = cli.model.hparams["backbone"], cli.model
    if cli.trainer.loggers and log_files(output):
        draw_curves({name: [read_curve(output, name)]}, output / "curves.svg")
    if model.has_batch_norm:
        images = (
            normalise(model.network, views[0][:, 0].to(model.device))
            for views, _ in cli.datamodule.test_loader("center")
        )
        draw_responses({name: layer_responses(model.network, images)}, output / "responses.svg")


def _load(cli: ClassifierCLI, path: Path) -> None:
    """Fills the model with what is to be tested."""
    from backbones.weights import load_weights

    if not path.is_file():
        raise FileNotFoundError(f"--test: no file {path}")
    if path.suffix == ".ckpt":
        cli.model = read_classifier(path)
        cli.model.check_classes(cli.datamodule.class_names)
    else:
        load_weights(cli.model.network, path)
    cli.model.to(cli.trainer.strategy.root_device)


def _test(cli: ClassifierCLI, network: Backbone, name: str) -> None:
    """Prints the errors, a line for each way of testing."""
    from backbones.classification.testing import measure_errors

    for testing in cli.config.testing:
        batches = cli.datamodule.test_loader(testing, cli.config.scales)
        found = measure_errors(network, bar(f"testing, {testing}")(batches))
        print(
            f"{name}, {testing}: top-1 error {found.top1:.2f} %, top-5 error {found.top5:.2f} %, "
            f"{found.images} images"
        )


def _run(cli: ClassifierCLI) -> None:
    if cli.config.test:
        path = Path(cli.config.test)
        _load(cli, path)
    else:
        path = _train(cli)
    if cli.trainer.is_global_zero:
        _test(cli, cli.model.network, str(path))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    return run_tool("pretrain", argv, _cli, _run)


if __name__ == "__main__":
    sys.exit(main())
