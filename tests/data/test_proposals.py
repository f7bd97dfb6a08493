from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.data.dataset import DetectionDataset, ProposalDataset, collate_proposed
from detection.data.labels import LabelMap
from detection.data.proposals import (
    StoredProposals,
    origin_of,
    pack_proposals,
    read_proposals,
    write_proposals,
)
from detection.data.records import DataError, ImageRow, ObjectRow, Records, pack
from detection.data.sampling import Draw
from detection.data.transforms import NONE, Augmentation, Transform
from detection.evaluation.checks import select
from detection.structures import Predictions

IDS = np.array([7, 3, 5])
SHA = "0123456789abcdef" * 4
# Image 7 has none, image 3 has two, image 5 has one.
STORED = StoredProposals(
    IDS,
    np.array([0, 0, 2, 3]),
    np.array([[0, 0, 10, 20], [10, 5, 40, 30], [1, 2, 3, 4]], np.float32),
    np.array([1.5, -0.5, 0.25], np.float32),
)


def same(one: StoredProposals, other: StoredProposals) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_packing_follows_the_data_set_and_keeps_each_images_order():
    found = Predictions(np.array([3, 3, 5]), STORED.boxes, STORED.scores, np.ones(3, np.int64))
    assert same(pack_proposals(IDS, found), STORED)
    # Two processes: the images come in another order.
    rows = np.array([2, 0, 1])
    assert same(pack_proposals(IDS, select(found, rows)), STORED)
    nothing = pack_proposals(IDS, select(found, rows[:0]))
    assert nothing.offsets.tolist() == [0, 0, 0, 0]
    assert nothing.boxes.shape == (0, 4)


def test_the_boxes_of_an_image():
    assert [len(STORED.of(index)) for index in range(3)] == [0, 2, 1]
    assert STORED.of(1).tolist() == [[0, 0, 10, 20], [10, 5, 40, 30]]


def test_round_trip(tmp_path: Path):
    file = tmp_path / "new" / "proposals.npz"
    assert origin_of(file) is None
    write_proposals(file, STORED, SHA)
    assert origin_of(file) == SHA
    assert same(read_proposals(file, IDS, SHA), STORED)
    assert list(file.parent.iterdir()) == [file]


def test_other_images_and_checkpoints_are_refused(tmp_path: Path):
    file = tmp_path / "proposals.npz"
    write_proposals(file, STORED, SHA)
    with pytest.raises(DataError, match=r"proposals\.npz: of another .* 0123456789ab\w*, not ffff"):
        read_proposals(file, IDS, "f" * 64)
    for images in (IDS[:2], IDS[::-1], IDS + 1):
        with pytest.raises(DataError, match=r"proposals\.npz: of 3 images, which are not"):
            read_proposals(file, images, SHA)


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: bytes | None):
    file = tmp_path / "proposals.npz"
    write_proposals(file, STORED, SHA)
    content = bytearray(file.read_bytes())
    if damage is None:
        place = content.index(STORED.boxes.tobytes())
        content[place] ^= 1
        damage = bytes(content)
    file.write_bytes(damage)
    with pytest.raises(DataError, match=r"proposals\.npz: not a file of proposals, or damaged"):
        read_proposals(file, IDS, SHA)


def test_half_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "proposals.npz"
    write_proposals(file, STORED, SHA)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged"):
        origin_of(file)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"boxes": STORED.boxes.astype(np.float64)}, "boxes: expected float32, got float64"),
        ({"boxes": STORED.boxes[:2]}, r"of shapes \(\(4,\), \(2, 4\), \(3,\)\)"),
        ({"offsets": np.array([0, 2, 1, 3])}, "offsets must rise from 0 to the 3"),
        ({"offsets": np.array([0, 1, 1, 2])}, "offsets must rise from 0 to the 3"),
        ({"boxes": np.full((3, 4), np.nan, np.float32)}, "proposal 0 is not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, change: dict, reason: str):
    file = tmp_path / "proposals.npz"
    write_proposals(file, STORED._replace(**change), SHA)
    with pytest.raises(DataError, match=rf"proposals\.npz: .*{reason}"):
        read_proposals(file, IDS, SHA)


def test_a_file_without_an_array_is_refused(tmp_path: Path):
    file = tmp_path / "proposals.npz"
    np.savez(file, origin=np.array(SHA), boxes=STORED.boxes)
    with pytest.raises(DataError, match="image_ids"):
        read_proposals(file, IDS, SHA)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Images of 40 x 30 and 30 x 40, height first; the first has two objects, the other none."""
    rows = []
    objects = [ObjectRow((2, 4, 12, 24), 1, 200.0), ObjectRow((20, 10, 30, 40), 2, 300.0)]
    for name, size, own in (("0.png", (40, 30), objects), ("1.png", (30, 40), [])):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / name)
        rows.append(ImageRow(name, len(rows) + 1, size, own))
    return pack(tmp_path, rows, LabelMap(("a", "b"), (1, 2)), [])


OWN = StoredProposals(
    np.array([1, 2]),
    np.array([0, 3, 3]),
    np.array([[2, 4, 12, 24], [0, 0, 30, 40], [25, 1, 30, 3]], np.float32),
    np.zeros(3, np.float32),
)


def dataset(records: Records, augmentation: Augmentation) -> ProposalDataset:
    images = DetectionDataset(records, Transform(60, 80, augmentation))
    return ProposalDataset(images, OWN)


def test_proposals_are_resized_as_the_image_is(records: Records):
    item, proposals = dataset(records, NONE)[Draw(0, 0)]
    assert item.image.shape == (3, 80, 60)
    assert proposals.tolist() == [[4, 8, 24, 48], [0, 0, 60, 80], [50, 2, 60, 6]]
    assert proposals.dtype == torch.float32
    assert item.target.boxes.tolist() == [[4, 8, 24, 48], [40, 20, 60, 80]]


def test_proposals_are_flipped_as_the_image_is(records: Records):
    item, proposals = dataset(records, Augmentation(flip=1.0))[Draw(0, 0)]
    # x becomes 60 - x.
    wanted = torch.tensor([[36, 8, 56, 48], [0, 0, 60, 80], [0, 2, 10, 6]]).float()
    torch.testing.assert_close(proposals, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(item.target.boxes[0], wanted[0], rtol=0, atol=1e-4)


def test_proposals_follow_their_objects_through_every_augmentation(records: Records):
    augmentation = Augmentation(flip=0.5, scale_jitter=(0.5, 1.5))
    plain = DetectionDataset(records, Transform(60, 80, augmentation))
    flipped = set()
    for seed in range(12):
        item, proposals = dataset(records, augmentation)[Draw(0, seed)]
        alone = plain[Draw(0, seed)]
        assert torch.equal(item.target.boxes, alone.target.boxes)
        assert torch.equal(item.target.labels, alone.target.labels)
        assert torch.equal(item.image, alone.image)
        torch.testing.assert_close(proposals[0], item.target.boxes[0])
        flipped.add(bool(proposals[0, 0] > item.image.shape[2] / 2))
    assert flipped == {True, False}


def test_a_proposal_that_leaves_the_image_leaves_alone(records: Records):
    outside = OWN._replace(boxes=OWN.boxes + np.array([[0], [0], [100]], np.float32))
    images = DetectionDataset(records, Transform(60, 80, Augmentation(flip=1.0)))
    item, proposals = ProposalDataset(images, outside)[Draw(0, 0)]
    assert len(proposals) == 2
    assert item.target.labels.tolist() == [1, 2]


def test_an_image_without_proposals_and_objects(records: Records):
    for augmentation in (NONE, Augmentation(flip=1.0)):
        item, proposals = dataset(records, augmentation)[Draw(1, 0)]
        assert proposals.shape == (0, 4)
        assert item.target.boxes.shape == (0, 4)


def test_a_batch_keeps_the_images_apart(records: Records):
    data = dataset(records, NONE)
    batch, targets, proposals = collate_proposed([data[Draw(0, 0)], data[Draw(1, 0)]], 32)
    assert batch.images.shape == (2, 3, 96, 96)
    assert [len(target.boxes) for target in targets] == [2, 0]
    assert [len(boxes) for boxes in proposals] == [3, 0]
