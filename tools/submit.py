"""Pack an evaluated run for the evaluation server of COCO or VOC."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

EPILOG = """
A RUN is a folder that `resdet evaluate` wrote, of any split, annotated or not. COCO: a zip of
detections_SPLIT_NAME_results.json. VOC: comp4_det_SPLIT.tar.gz of results/YEAR/Main/. What was
written is read back and compared.
"""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet submit", description=__doc__, epilog=EPILOG)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run")
    parser.add_argument("--server", choices=("coco", "voc"), required=True)
    parser.add_argument("--name", default="resdet", help="of the detector, for COCO (resdet)")
    parser.add_argument("--split", help="the server's name of the images; the run's own")
    parser.add_argument("--year", help="of the challenge, for VOC; of the run's split or VOC2012")
    parser.add_argument("--data", type=Path, help="where the data set is now, if it was moved")
    parser.add_argument("--output", type=Path, help="existing folder of the archive; the run's")
    return parser.parse_args(argv)


def _submit(options: argparse.Namespace) -> Path:
    from detection.evaluation.submission import write_coco_submission, write_voc_submission
    from detection.reproduction.evaluated import read_run

    run = read_run(options.run, str(options.run), options.data)
    folder = options.output or options.run
    below, _, own = run.figures["split"].rpartition("/")
    split = options.split or own
    if options.server == "coco":
        ids = run.records.labels.ids
        return write_coco_submission(folder, run.predictions, ids, options.name, split)
    ids = run.records.annotations.image_ids.tolist()
    stems = [Path(str(file)).stem for file in run.records.files]
    by_id = dict(zip(ids, stems, strict=True))
    names, year = run.records.labels.names, options.year or below or "VOC2012"
    return write_voc_submission(folder, run.predictions, names, by_id, split, year)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    try:
        print(_submit(options))
    except (ValueError, OSError) as error:
        print(f"resdet submit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
