"""What a checkpoint says of its detector, so that it needs no other file.

The description is plain JSON values under one key of a Lightning checkpoint; such a file loads
with ``weights_only=True``, which never executes what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch

from backbones import Preprocessing
from detection.data.labels import LabelMap
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.faster_rcnn import FasterRCNN

KEY = "resdet"
FORMAT = 1
PREFIX = "detector."
CLASS_LAYERS = ("roi_head.class_logits.", "roi_head.deltas.")


class CheckpointError(ValueError):
    """A file that is no checkpoint of a detector; the message names it and the reason."""


class Description(NamedTuple):
    """Everything but the weights.

    Attributes:
        spec: what the detector is made of.
        preprocessing: what its weights expect of an image.
        labels: names and category ids of its classes.
        short_side: what the images' short side was resized to, pixels.
        long_side: bound of the resized long side, pixels.
    """

    spec: DetectorSpec
    preprocessing: Preprocessing
    labels: LabelMap
    short_side: int
    long_side: int

    def to_plain(self) -> dict[str, Any]:
        """Returns the description as JSON has it."""
        return {
            "format": FORMAT,
            "spec": self.spec.to_plain(),
            "preprocessing": self.preprocessing._asdict(),
            "names": list(self.labels.names),
            "ids": list(self.labels.ids),
            "short_side": self.short_side,
            "long_side": self.long_side,
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Description:
        """Makes a description from what `to_plain` returned.

        Raises:
            KeyError: if a value is missing.
            TypeError: if the spec does not fit this version.
            ValueError: if there are not as many ids as names.
        """
        labels = LabelMap(tuple(values["names"]), tuple(values["ids"]))
        if len(labels.names) != len(labels.ids):
            raise ValueError(f"{len(labels.names)} names and {len(labels.ids)} ids of classes")
        spec = DetectorSpec.from_plain(values["spec"])
        preprocessing = Preprocessing(**values["preprocessing"])
        return cls(spec, preprocessing, labels, values["short_side"], values["long_side"])


def check_same(checkpoint: Mapping[str, Any], labels: LabelMap, spec: DetectorSpec) -> None:
    """Refuses to go on with a checkpoint of another detector.

    Args:
        checkpoint: what a file of ``resdet train`` holds.
        labels: of the detector that goes on.
        spec: what it is made of.

    Raises:
        CheckpointError: the classes or the parts are others; the message names them.
    """
    if not isinstance(checkpoint.get(KEY), dict):
        raise CheckpointError(f"expected a checkpoint of `resdet train`, with key {KEY!r}")
    try:
        there = Description.from_plain(checkpoint[KEY])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"does not describe its detector: {error!r}") from error
    if there.labels != labels:
        raise CheckpointError(f"is of the classes {there.labels}, not {labels}")
    check_same_parts("a detector", there.spec.to_plain(), spec.to_plain())


def check_same_parts(what: str, found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuses parts that differ.

    Args:
        what: is made of them.
        found: the parts of a checkpoint, by name.
        own: of what goes on with it.

    Raises:
        CheckpointError: the message names the first that differs.
    """
    for name, value in own.items():
        if name not in found or found[name] != value:
            raise CheckpointError(f"is of {what} with {name} {found.get(name)!r}, not {value!r}")


def read_checkpoint(path: Path) -> Any:
    """Reads a file of torch as data, never as code.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:
        # torch has no common error for a bad file, and its messages advise to execute the file.
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: it is damaged, or holds more than tensors "
            f"and plain values ({type(error).__name__})"
        ) from error


def load_detector(path: Path) -> tuple[FasterRCNN, Description]:
    """Rebuilds a detector from a training checkpoint.

    Args:
        path: a file that ``resdet train`` wrote.

    Returns:
        The detector on the CPU, in evaluation mode, and its description.

    Raises:
        CheckpointError: if the file cannot be read, or holds no detector of this format.
    """
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(KEY), dict):
        raise CheckpointError(f"{path}: expected a checkpoint of `resdet train`, with key {KEY!r}")
    if checkpoint[KEY].get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected format {FORMAT}, got {checkpoint[KEY].get('format')}"
        )
    try:
        description = Description.from_plain(checkpoint[KEY])
        detector = faster_rcnn(
            len(description.labels.names),
            description.spec,
            preprocessing=description.preprocessing,
        )
        detector.load_state_dict(
            {
                key.removeprefix(PREFIX): value
                for key, value in checkpoint["state_dict"].items()
                if key.startswith(PREFIX)
            }
        )
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = shorten(f"{type(error).__name__}: {error}", 400)
        raise CheckpointError(f"{path}: does not fit its own description: {reason}") from error
    return detector.eval(), description


def start_from(path: Path, classes: LabelMap, spec: DetectorSpec) -> FasterRCNN:
    """Builds a detector with another one's weights, to be fine-tuned on other data.

    The layers of the classes start anew where the classes differ; everything else is taken over.

    Args:
        path: a file that ``resdet train`` wrote.
        classes: of the new detector.
        spec: what the new detector is made of.

    Returns:
        The detector, in training mode.

    Raises:
        CheckpointError: if the file holds no detector, or one of other layers; the message names
            them.
    """
    other, description = load_detector(path)
    built = faster_rcnn(len(classes.names), spec, preprocessing=description.preprocessing)
    given, own = other.state_dict(), built.state_dict()
    # Frozen norms count no batches, trained ones do.
    fresh = (*(CLASS_LAYERS if classes != description.labels else ()), "num_batches_tracked")
    given = {name: value for name, value in given.items() if not any(x in name for x in fresh)}
    given |= {name: value for name, value in own.items() if any(x in name for x in fresh)}
    odd = sorted(
        name
        for name in own.keys() | given.keys()
        if name not in own or name not in given or own[name].shape != given[name].shape
    )
    if odd:
        raise CheckpointError(f"{path}: a detector of other layers: {shorten(', '.join(odd), 200)}")
    built.load_state_dict(given)
    return built
