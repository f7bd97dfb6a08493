import numpy as np
import pytest
import torch
from PIL import Image

from backbones.classification.augmentation import Augmentation
from backbones.classification.data import ClassificationData

CIFAR = Augmentation(32, None, pad=4, lighting=0)
SMALL = Augmentation(32, (34, 44))


def data(root, **options) -> ClassificationData:
    given = {"workers": 0, "augmentation": CIFAR, "test_short_side": None, "batch_size": 2}
    return ClassificationData(str(root), **{**given, **options})


def test_cifar(cifar):
    root, records = cifar
    found = data(root)
    assert found.class_names[0] == "airplane"
    images, labels = next(iter(found.train_dataloader()))
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    pairs = [(view[0], labels) for view, labels in found.val_dataloader()]
    pixels = torch.cat([view[:, 0] for view, _ in pairs])
    assert torch.equal(pixels, torch.from_numpy(records[20:, 1:].reshape(4, 3, 32, 32)))
    assert torch.cat([labels for _, labels in pairs]).tolist() == records[20:, 0].tolist()


def test_the_holdout_splits_the_training_images(cifar):
    root, _ = cifar
    found = data(root, holdout=5)
    train, val = found.split("train").indices, found.split("val").indices
    assert len(train) == 15
    assert sorted([*train, *val]) == list(range(20))
    assert val.tolist() == data(root, holdout=5, seed=3).split("val").indices.tolist()
    assert val.tolist() != data(root, holdout=5, holdout_seed=1).split("val").indices.tolist()
    assert len(found.split("test").indices) == 4
    with pytest.raises(ValueError, match="holdout=20: there are 20 images"):
        data(root, holdout=20).split("train")


def test_a_folder(image_folder):
    found = data(image_folder(train=3, val=2), augmentation=SMALL, test_short_side=36)
    assert found.class_names == ("cat", "dog")
    assert next(iter(found.train_dataloader()))[0].shape == (2, 3, 32, 32)
    ((view,), labels) = next(iter(found.val_dataloader()))
    assert view.shape == (4, 1, 3, 32, 32)
    assert labels.tolist() == [0, 0, 1, 1]
    assert next(iter(found.test_loader("ten")))[0][0].shape == (4, 10, 3, 32, 32)
    sizes = next(iter(found.test_loader("scales", (32, 40))))[0]
    assert [tuple(size.shape) for size in sizes] == [(1, 2, 3, 32, 42), (1, 2, 3, 40, 52)]


def test_images_in_memory_are_read_once(image_folder):
    root = image_folder(train=3, val=2)
    kept, read = (data(root, augmentation=SMALL, in_memory=one) for one in (True, False))
    expected = [images for _ in range(2) for images, _ in read.statistics_dataloader()]
    loader = kept.statistics_dataloader()
    found = [images for images, _ in loader]
    for file in (root / "train").glob("*/*.png"):
        file.unlink()
    found += [images for images, _ in loader]
    assert len(found) == 6
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_which_folder_is_for_what(image_folder):
    cases = {
        "a": ({"train": 1, "val": 2}, "val", "val"),
        "b": ({"train": 1, "test": 3}, "test", "test"),
        "c": ({"train": 1, "val": 2, "test": 3}, "val", "test"),
    }
    for name, (splits, val, test) in cases.items():
        found = data(image_folder(name, **splits))
        assert len(found.split("val").indices) == 2 * splits[val]
        assert len(found.split("test").indices) == 2 * splits[test]


def draws(found: ClassificationData, epoch: int = 0) -> list[torch.Tensor]:
    loader = found.train_dataloader()
    loader.batch_sampler.seek(epoch * len(loader.batch_sampler))
    return [images for images, _ in loader]


def test_images_follow_from_seed_and_epoch_whatever_the_workers(image_folder):
    root = image_folder(train=3, val=1)
    options = {"augmentation": SMALL, "batch_size": 6}
    (first,) = draws(data(root, **options))
    (again,) = draws(data(root, **options, workers=2))
    (later,) = draws(data(root, **options), epoch=1)
    (other,) = draws(data(root, **options, seed=1))
    assert torch.equal(first, again)

    def different(batch: torch.Tensor) -> bool:
        return all(not torch.equal(a, b) for a in first for b in batch)

    assert different(later)
    assert different(other)
    assert len({image.numpy().tobytes() for image in first}) == 6


def test_augmentation_differs_by_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    for split in ("train", "val"):
        (tmp_path / split / "same").mkdir(parents=True)
        for i in range(4):
            Image.fromarray(pixels).save(tmp_path / split / "same" / f"{i}.png")
    (batch,) = draws(data(tmp_path, augmentation=SMALL, batch_size=4))
    assert len({image.numpy().tobytes() for image in batch}) == 4


def test_bad_images_are_named(image_folder):
    root = image_folder(train=1, val=1)
    path = root / "train" / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"dog/0\.png: not a readable image"):
        draws(data(root))
    Image.new("RGB", (20, 60)).save(path)
    with pytest.raises(ValueError, match=r"dog/0\.png: expected .* 32×32, got 60×20"):
        draws(data(root, augmentation=Augmentation(32, None)))


def test_bad_folders_are_named(tmp_path, image_folder):
    with pytest.raises(FileNotFoundError, match=r"expected CIFAR-10's .*; there is no train"):
        data(tmp_path).class_names  # noqa: B018
    root = image_folder(train=1, val=1)
    (root / "val" / "dog").rename(root / "val" / "wolf")
    with pytest.raises(ValueError, match=r"val: other classes than train's: \['dog', 'wolf'\]"):
        data(root).split("val")


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": -1}, {"holdout": -1}])
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="expected batch sizes"):
        data("nowhere", **options)
