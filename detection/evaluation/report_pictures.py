"""What a report's pictures show: the worst images and the most confident mistakes, as frames.

The frames are drawn by the page, over the image: they stay sharp when it is enlarged, and tell
hits, mistakes and missed objects apart, where `detection.inference.drawing` tells classes apart.
"""

from typing import NamedTuple

import numpy as np

from detection.evaluation.errors import ErrorType
from detection.evaluation.mistakes import Box, confident_mistakes, worst_images
from detection.evaluation.report_analysis import MAX_DETECTIONS, Analysis

WORDS = {
    ErrorType.CLASSIFICATION: "wrong class",
    ErrorType.LOCALIZATION: "badly placed",
    ErrorType.BOTH: "wrong class and badly placed",
    ErrorType.DUPLICATE: "duplicate",
    ErrorType.BACKGROUND: "nothing there",
    ErrorType.MISSED: "missed",
}


class Frame(NamedTuple):
    """A box in a picture.

    Attributes:
        box: xyxy, pixels of the original image.
        text: its tag.
        kind: ``hit``, ``mistake``, ``missed`` or ``truth``.
    """

    box: Box
    text: str
    kind: str


class Picture(NamedTuple):
    """An image with frames.

    Attributes:
        image_id: the data set's own id.
        size: height and width, pixels.
        title: what is to be seen, in a few words.
        text: the rest of the caption.
        frames: the last is on top.
    """

    image_id: int
    size: tuple[int, int]
    title: str
    text: str
    frames: tuple[Frame, ...]


def worst_pictures(run: Analysis, limit: int) -> list[Picture]:
    """Shows the images of the lowest F1 at the run's score threshold, the worst first.

    Args:
        run: the analysis.
        limit: the most pictures.
    """
    return [
        Picture(
            image.image_id,
            _size(run, image.image_id),
            f"F1 {100 * image.f1:.0f}",
            f"{image.hits} found, {image.misses} missed, {image.false_positives} false",
            tuple(_frames_of_image(run, image.image_id)),
        )
        for image in worst_images(run.matches, run.score, limit=limit)
    ]


def mistake_pictures(run: Analysis, limit: int) -> list[Picture]:
    """Shows the false positives of the highest scores, one an image, the most confident first.

    Args:
        run: the analysis.
        limit: the most pictures.
    """
    names = run.matches.class_names
    pictures: dict[int, Picture] = {}
    most = limit * MAX_DETECTIONS  # rarely more in as many images, and a report need not list all
    for mistake in confident_mistakes(run.annotations, run.matches, run.errors, most):
        if len(pictures) == limit:
            break
        frames = [Frame(mistake.box, f"{names[mistake.label - 1]} {mistake.score:.2f}", "mistake")]
        text = WORDS[mistake.error]
        if mistake.truth_box is not None and mistake.truth_label is not None:
            truth = names[mistake.truth_label - 1]
            frames.insert(0, Frame(mistake.truth_box, truth, "truth"))
            text += f"; the object is a {truth}" if mistake.truth_label != mistake.label else ""
        pictures.setdefault(
            mistake.image_id,
            Picture(
                mistake.image_id,
                _size(run, mistake.image_id),
                f"{names[mistake.label - 1]} {mistake.score:.2f}",
                text,
                tuple(frames),
            ),
        )
    return list(pictures.values())


def _frames_of_image(run: Analysis, image_id: int) -> list[Frame]:
    """Missed objects, then hits, then mistakes, the most confident last."""
    matches, annotations = run.matches, run.annotations
    t = matches.iou_index(run.errors.iou)
    position = int(np.searchsorted(matches.image_ids, image_id))
    rows = np.flatnonzero(
        (matches.images == position) & (matches.scores >= run.score) & ~matches.ignored[:, t]
    )
    rows = rows[np.argsort(matches.scores[rows], kind="stable")]
    found = matches.matched[rows, t]
    place = annotations.image_ids.tolist().index(image_id)
    objects = np.arange(*annotations.offsets[place : place + 2].tolist())
    objects = objects[~(annotations.crowd | annotations.difficult)[objects]]
    missed = np.setdiff1d(objects, found)
    frames = [
        Frame(_box(annotations.boxes[n]), matches.class_names[annotations.labels[n] - 1], "missed")
        for n in missed.tolist()
    ]
    for kind, chosen in (("hit", rows[found >= 0]), ("mistake", rows[found < 0])):
        frames += [
            Frame(
                _box(matches.boxes[row]),
                f"{matches.class_names[matches.labels[row] - 1]} {matches.scores[row]:.2f}",
                kind,
            )
            for row in chosen.tolist()
        ]
    return frames


def _size(run: Analysis, image_id: int) -> tuple[int, int]:
    place = run.annotations.image_ids.tolist().index(image_id)
    height, width = run.annotations.sizes[place].tolist()
    return height, width


def _box(box: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Box:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
