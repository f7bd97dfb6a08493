"""Detections collected over batches, and gathered so that every image counts once.

Shape shorthand:
    B: images in a batch        D: detection slots of an image        N: detections

Gathering uses collective operations: every rank must call it, and every rank gets the error.
"""

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from detection.evaluation.checks import join
from detection.structures import Detections, Predictions

RECORD = np.dtype([("image_id", "i8"), ("box", "f4", 4), ("score", "f4"), ("label", "i8")])


class PredictionBuffer:
    """Collects the detections of batches in packed arrays, without the empty slots."""

    def __init__(self) -> None:
        self._parts: list[Predictions] = []
        self._seen: set[int] = set()

    def add(self, detections: Detections, image_ids: Tensor) -> None:
        """Adds the detections of a batch.

        Args:
            detections: of B images, on any device.
            image_ids: (B,) int64, the data set's own image ids.

        Raises:
            ValueError: an image was added before, or the numbers of images differ.
        """
        ids = image_ids.cpu().numpy().astype(np.int64)
        if ids.shape != detections.labels.shape[:1]:
            raise ValueError(
                f"expected {len(detections.labels)} image ids, got shape {tuple(ids.shape)}"
            )
        for image_id in ids.tolist():
            if image_id in self._seen:
                raise ValueError(f"image {image_id} was added twice; every image counts once")
            self._seen.add(image_id)
        labels = detections.labels.detach().cpu().numpy().astype(np.int64)
        image, slot = np.nonzero(labels > 0)
        boxes = detections.boxes.detach().cpu().float().numpy()
        scores = detections.scores.detach().cpu().float().numpy()
        part = (ids[image], boxes[image, slot], scores[image, slot], labels[image, slot])
        self._parts.append(Predictions(*part))

    def predictions(self) -> Predictions:
        """Returns all detections added so far."""
        return join([_unpack(np.empty(0, RECORD)), *self._parts])


def gather_predictions(local: Predictions) -> Predictions | None:
    """Gathers the detections of all ranks on rank 0.

    Args:
        local: this rank's detections, possibly none, of a detector: without extents.

    Returns:
        On rank 0 the detections of all ranks, in order of the ranks; None on the others.
        Without torch.distributed, or in a group of one, ``local`` itself.

    Raises:
        ValueError: two ranks hold detections of the same image; raised on every rank.
    """
    if _alone():
        return local
    records = _pack(local)
    count = torch.tensor([len(records)], device=_device())
    counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    lengths = [int(c) for c in counts]

    padded = np.zeros(max(lengths), RECORD)
    padded[: len(records)] = records
    sent = torch.from_numpy(padded.view(np.uint8)).to(_device())
    is_first = dist.get_rank() == 0
    received = [torch.empty_like(sent) for _ in lengths] if is_first else None
    dist.gather(sent, received, dst=0)

    parts: list[Predictions] = []
    if received is not None:
        everything = [part.cpu().numpy().view(RECORD) for part in received]
        parts = [_unpack(part[:n]) for part, n in zip(everything, lengths, strict=True)]
    _refuse_shared_images(parts)
    return join(parts) if is_first else None


def broadcast_figures(figures: dict[str, float] | None) -> dict[str, float]:
    """Sends rank 0's figures to every rank.

    Args:
        figures: on rank 0 the figures, or None if they could not be computed; ignored elsewhere.

    Returns:
        Rank 0's figures.

    Raises:
        RuntimeError: rank 0 has no figures; raised on every rank, so that none waits.
    """
    sent = [figures]
    if not _alone():
        dist.broadcast_object_list(sent, src=0)
    if sent[0] is None:
        raise RuntimeError("rank 0 has no figures: its evaluation failed")
    return sent[0]


def _refuse_shared_images(parts: list[Predictions]) -> None:
    """Raises on every rank if rank 0 finds an image in two of the parts; only it has parts."""
    shared = torch.zeros(2, dtype=torch.int64, device=_device())  # how many, the first image id
    if parts:
        ids, ranks = np.unique(
            np.concatenate([np.unique(part.image_ids) for part in parts]), return_counts=True
        )
        repeated = ids[ranks > 1]
        if len(repeated):
            shared = torch.tensor([len(repeated), int(repeated[0])], device=_device())
    dist.broadcast(shared, src=0)
    count, image_id = shared.tolist()
    if count:
        raise ValueError(
            f"image {image_id} has detections on more than one rank ({count} such images);"
            " every image counts once: give each rank its own images"
        )


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def _device() -> torch.device:
    """Returns where the group's tensors must lie: NCCL moves only CUDA memory."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _pack(predictions: Predictions) -> NDArray[np.void]:
    records = np.empty(len(predictions.image_ids), RECORD)
    for name, array in zip(RECORD.names or (), predictions[:4], strict=True):
        records[name] = array
    return records


def _unpack(records: NDArray[np.void]) -> Predictions:
    return Predictions(*(records[name].copy() for name in RECORD.names or ()))
