"""One rank of test_gather: python gather_worker.py FOLDER RANK; writes FOLDER/RANK.json."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch.distributed as dist

from detection.evaluation.checks import select
from detection.evaluation.gather import broadcast_figures, gather_predictions
from detection.structures import Predictions


def rows(predictions: Predictions, image_ids: np.ndarray) -> Predictions:
    return select(predictions, np.flatnonzero(np.isin(predictions.image_ids, image_ids)))


def error_of(call, argument) -> str:
    try:
        call(argument)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def plain(predictions: Predictions | None) -> list | None:
    return None if predictions is None else [array.tolist() for array in predictions[:4]]


def main(folder: Path, rank: int) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=20),
    )
    with np.load(folder / "case.npz") as case:
        images = case["images"]
        predictions = Predictions(*(case[name] for name in Predictions._fields[:4]))
    none = images[:0]
    report = {
        "sharded": plain(gather_predictions(rows(predictions, images[rank::2]))),
        "one empty": plain(gather_predictions(rows(predictions, [none, images][rank]))),
        "both empty": plain(gather_predictions(rows(predictions, none))),
        "shared": error_of(gather_predictions, rows(predictions, images[[rank, 2]])),
        "figures": broadcast_figures([{"ap": 0.25, "ap_small": float("inf")}, None][rank]),
        "no figures": error_of(broadcast_figures, None),
    }
    (folder / f"{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
