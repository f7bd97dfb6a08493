"""Two gloo processes evaluate as one, and train one model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import detection

WORKER = Path(__file__).with_name("ddp_worker.py")
Report = dict


def work(root: Path, output: Path) -> list[Report]:
    """Runs ddp_worker.py on two ranks; the whole process group ends with it, whatever happens."""
    project = str(Path(detection.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(root), str(output), "2"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": project},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=180)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors[-5000:]
    return [json.loads((output / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def one(shapes: Path, tmp_path_factory: pytest.TempPathFactory, ddp_worker: ModuleType) -> Report:
    """What one process alone reports."""
    output, threads = tmp_path_factory.mktemp("one"), torch.get_num_threads()
    ddp_worker.main(shapes, output, 1)
    torch.set_num_threads(threads)
    return json.loads((output / "0.json").read_text())


@pytest.fixture(scope="module")
def ranks(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    ranks = work(shapes, tmp_path_factory.mktemp("two"))
    assert [rank["world"] for rank in ranks] == [2, 2]
    return ranks


@pytest.mark.parametrize("name", ["oracle", "detector"])
def test_two_ranks_evaluate_as_one(one: Report, ranks: list[Report], name: str):
    assert ranks[0][name] == one[name]
    assert ranks[1][name] is None
    assert f"{name} logged" in one
    for rank in ranks:
        assert rank[f"{name} logged"] == one[f"{name} logged"]


def test_every_image_counts_once(ranks: list[Report]):
    # The oracle finds something in each image, and nothing twice in one.
    image_ids, boxes, *_ = ranks[0]["oracle"]["predictions"]
    assert sorted(set(image_ids)) == list(range(1, 22))
    rows = [(image_id, *box) for image_id, box in zip(image_ids, boxes, strict=True)]
    assert len(set(rows)) == len(rows)
    assert "images=21" in ranks[0]["oracle"]["coco"]
    assert 0.2 < ranks[0]["oracle logged"]["val/AP"] < 0.9


def test_two_ranks_train_one_model(one: Report, ranks: list[Report]):
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert all(rank["trained"] for rank in [one, *ranks])
    # Eight images: an epoch of two steps of two images on each of two ranks.
    assert [len(rank["images"]) for rank in ranks] == [3, 3]
    epoch = [image for rank in ranks for batch in rank["images"][:2] for image in batch]
    assert sorted(epoch) == list(range(1, 9))
    assert one["rates"] == pytest.approx([0.02 * 2 / 16] * 3)
    for rank in ranks:
        assert rank["rates"] == pytest.approx([0.02 * 4 / 16] * 3)
