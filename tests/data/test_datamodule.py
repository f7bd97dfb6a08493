import logging
from pathlib import Path
from types import SimpleNamespace

import jsonargparse
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from detection.data.datamodule import DetectionData
from detection.data.dataset import DetectionDataset, Item, collate
from detection.data.folder import read_folder
from detection.data.proposals import StoredProposals
from detection.data.records import DataError
from detection.data.sampling import Draw
from detection.data.transforms import NONE, Augmentation, Transform
from detection.structures import Target

IMAGES = 11  # in batches of 2: five batches an epoch, one image left out


def object_xml(name: str, box: tuple[int, int, int, int], difficult: int = 0) -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def write_image(root: Path, name: str, size: tuple[int, int], *objects: str) -> None:
    pixels = np.random.default_rng(int(name)).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
    text = (
        f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth>"
        f"</size>{''.join(objects)}</annotation>"
    )
    (root / "Annotations" / f"{name}.xml").write_text(text)


def write_split(root: Path, split: str, *names: object) -> None:
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(map(str, names)))


@pytest.fixture
def root(tmp_path) -> Path:
    """A VOC folder: 11 images to train on, 3 of them to validate on, every third a portrait."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    for index in range(IMAGES):
        size = (30, 40) if index % 3 else (40, 30)
        write_image(
            tmp_path,
            str(index),
            size,
            object_xml("dog", (1, 1, 10, 20)),
            object_xml("cat", (6, 11, 15, 30), difficult=index % 2),
        )
    write_split(tmp_path, "train", *range(IMAGES))
    write_split(tmp_path, "val", 4, 0, 2)
    return tmp_path


def data(root: Path, workers: int = 0, **settings) -> DetectionData:
    return DetectionData(
        str(root), workers=workers, short_side=30, long_side=50, divisible=1, **settings
    )


def images_of(loader) -> list[list[int]]:
    return [batch.image_ids.tolist() for batch, _ in loader]


class TestDataset:
    def test_item_by_hand(self, root):
        dataset = DetectionDataset(read_folder(root, "train"), Transform(60, 100, NONE))
        item = dataset[Draw(1, 0)]
        assert len(dataset) == IMAGES
        assert item.image.shape == (3, 60, 80)
        assert item.image.dtype == torch.uint8
        assert item.original_size == (30, 40)
        # 1-based inclusive corners (1, 1, 10, 20) are half-open (0, 0, 10, 20), then doubled.
        assert item.target.boxes.tolist() == [[0, 0, 20, 40], [10, 20, 30, 60]]
        assert item.target.boxes.dtype == torch.float32
        assert item.target.labels.tolist() == [2, 1]  # cat, dog in alphabetical order
        assert item.target.ignore.tolist() == [False, True]

    def test_labels_stay_with_their_boxes_when_one_leaves(self, root):
        records = read_folder(root, "train")
        boxes = records.annotations.boxes.copy()
        boxes[2] += 100  # the first box of image 1, now outside
        records = records._replace(annotations=records.annotations._replace(boxes=boxes))
        transform = Transform(30, 50, Augmentation(flip=1.0))
        target = DetectionDataset(records, transform)[Draw(1, 0)].target
        np.testing.assert_allclose(target.boxes, [[25, 10, 35, 30]], atol=1e-4)
        assert target.labels.tolist() == [1]
        assert target.ignore.tolist() == [True]

    def test_image_of_another_size_than_annotated(self, root):
        records = read_folder(root, "train")
        Image.new("RGB", (33, 22)).save(root / "JPEGImages" / "1.jpg")
        dataset = DetectionDataset(records, Transform(30, 50, NONE))
        with pytest.raises(DataError, match=r"1\.jpg: expected .*\(30, 40\).* got \(22, 33\)"):
            dataset[Draw(1, 0)]

    def test_image_that_cannot_be_decoded_ends_the_worker_with_its_name(self, root):
        records = read_folder(root, "train")
        (root / "JPEGImages" / "1.jpg").write_bytes(b"\xff\xd8\xff no image")
        dataset = DetectionDataset(records, Transform(30, 50, NONE))
        loader = torch.utils.data.DataLoader(
            dataset, sampler=[Draw(1, 0)], num_workers=1, collate_fn=collate
        )
        with pytest.raises(DataError, match=r"1\.jpg"):
            next(iter(loader))


class TestCollate:
    def item(self, height: int, width: int, image_id: int) -> Item:
        target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0) > 0)
        pixels = torch.full((3, height, width), 7, dtype=torch.uint8)
        return Item(pixels, target, (height * 2, width * 2), image_id)

    @pytest.mark.parametrize(
        ("divisible", "expected"), [(1, (40, 50)), (32, (64, 64)), (10, (40, 50))]
    )
    def test_pads_with_zeros_below_and_right(self, divisible, expected):
        batch, targets = collate([self.item(30, 50, 8), self.item(40, 33, 9)], divisible)
        assert batch.images.shape == (2, 3, *expected)
        assert batch.images.dtype == torch.uint8
        for image, (height, width) in zip(batch.images, [(30, 50), (40, 33)], strict=True):
            assert (image[:, :height, :width] == 7).all()
            assert image.sum() == 7 * 3 * height * width
        assert batch.sizes.tolist() == [[30, 50], [40, 33]]
        assert batch.original_sizes.tolist() == [[60, 100], [80, 66]]
        assert batch.image_ids.tolist() == [8, 9]
        assert {column.dtype for column in batch[1:]} == {torch.int64}
        assert len(targets) == 2


class TestLoaders:
    def test_validation_comes_in_order_and_once(self, root):
        module = data(root, val_batch_size=2)
        ids = module.val_annotations.image_ids.tolist()
        assert images_of(module.val_dataloader()) == [ids[:2], ids[2:]]
        assert module.labels.names == ("cat", "dog")

    def test_workers_change_nothing(self, root):
        varied = Augmentation(flip=0.5, color=0.4, scale_jitter=(0.7, 1.3))
        alone, two = (
            data(root, workers, augmentation=varied).train_dataloader() for workers in (0, 2)
        )
        for position in (0, 5):
            epochs = []
            for loader in (alone, two):
                loader.batch_sampler.seek(position)
                epochs.append(list(loader))
            for (one, targets), (other, others) in zip(*epochs, strict=True):
                assert torch.equal(one.images, other.images)
                assert all(
                    torch.equal(a.boxes, b.boxes) for a, b in zip(targets, others, strict=True)
                )

    def test_epochs_augment_anew(self, root):
        varied = Augmentation(flip=0.0, scale_jitter=(0.5, 2.0))
        write_split(root, "train", 1)
        loader = data(root, augmentation=varied).train_dataloader()
        widths = set()
        for epoch in range(8):
            loader.batch_sampler.seek(epoch)
            widths |= {batch.images.shape[3] for batch, _ in loader}
        assert len(widths) > 4

    def test_images_without_objects_are_left_out_of_training_only(self, root, caplog):
        write_image(root, "50", (30, 40))
        write_image(root, "51", (30, 40), object_xml("dog", (1, 1, 9, 9), difficult=1))
        write_split(root, "train", 50, 1, 51)
        write_split(root, "val", 50, 1)
        with caplog.at_level(logging.INFO):
            module = data(root)
            (batch,) = images_of(module.train_dataloader())
        assert batch == [int(module.train_records.annotations.image_ids[1])]
        assert "training on 1 images; 2 without objects are left out" in caplog.text
        assert len(images_of(module.val_dataloader())) == 2
        (batch,) = images_of(data(root, skip_empty=False, batch_size=3).train_dataloader())
        assert len(batch) == 3

    def test_log_counts_objects_and_names_what_was_skipped(self, root, caplog):
        write_image(
            root,
            "1",
            (30, 40),
            object_xml("dog", (1, 1, 9, 9)),
            object_xml("dog", (1, 1, 8, 9), difficult=1),
            object_xml("dog", (20, 1, 10, 9)),
        )
        write_split(root, "train", 1)
        with caplog.at_level(logging.INFO):
            data(root).setup("fit")
        line = next(text for text in caplog.messages if "split train" in text)
        assert "1 images, 1 objects, 1 ignored" in line
        assert "1 records skipped" in line
        assert "1.xml" in line

    def test_nothing_to_train_on(self, root):
        write_image(root, "50", (30, 40))
        write_split(root, "train", 50)
        write_image(root, "51", (30, 40), object_xml("dog", (1, 1, 9, 9)))
        with pytest.raises(DataError, match="split train: 0 usable"):
            data(root).train_dataloader()

    def processes(self, module, rank: int, world: int, sharded_by_lightning: bool = False):
        batches = SimpleNamespace(total=SimpleNamespace(processed=0))
        module.trainer = SimpleNamespace(
            global_rank=rank,
            world_size=world,
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=batches)),
            _accelerator_connector=SimpleNamespace(use_distributed_sampler=sharded_by_lightning),
        )
        return module

    def test_two_processes_share_the_images(self, root):
        modules = [self.processes(data(root), rank, 2) for rank in range(2)]
        val = [images_of(module.val_dataloader()) for module in modules]
        ids = modules[0].val_annotations.image_ids.tolist()
        assert val == [[ids[:1], ids[2:]], [ids[1:2]]]
        train = [images_of(module.train_dataloader()) for module in modules]
        assert [len(part) for part in train] == [2, 2]
        assert len({image for part in train for batch in part for image in batch}) == 8

    def test_all_training_images_are_predicted_in_order_and_once(self, root):
        write_image(root, "50", (30, 40))  # without objects
        write_split(root, "train", 50, *range(IMAGES))
        module = data(root, augmentation=Augmentation(flip=1.0))
        module.setup("predict")
        ids = module.train_records.annotations.image_ids.tolist()
        assert images_of(module.predict_dataloader()) == [[one] for one in ids]
        batch, (target,) = list(module.predict_dataloader())[1]
        assert batch.image_ids.tolist() == ids[1:2]
        assert target.boxes[0].tolist() == [0, 0, 10, 20]  # not flipped
        parts = [self.processes(data(root), rank, 2).predict_dataloader() for rank in range(2)]
        assert [images_of(part) for part in parts] == [
            [[one] for one in ids[::2]],
            [[one] for one in ids[1::2]],
        ]

    def test_training_batches_bring_the_proposals_of_their_images(self, root):
        module = data(root, augmentation=Augmentation(flip=0.0), batch_size=1)
        ids = module.train_records.annotations.image_ids
        boxes = np.array([[0, 0, 1 + i, 2] for i in range(IMAGES)], np.float32)
        scores = np.zeros(IMAGES, np.float32)
        module.proposals = StoredProposals(ids, np.arange(IMAGES + 1), boxes, scores)
        places = {image_id: place for place, image_id in enumerate(ids.tolist())}
        seen = set()
        for batch, targets, proposals in module.train_dataloader():
            assert len(batch.images) == len(targets) == len(proposals) == 1
            place = places[batch.image_ids.item()]
            assert proposals[0].tolist() == [[0, 0, 1 + place, 2]]
            seen.add(place)
        assert len(seen) == IMAGES
        module.proposals = None
        assert len(next(iter(module.train_dataloader()))) == 2

    def test_lightning_must_not_shard_again(self, root):
        module = self.processes(data(root), 0, 2, sharded_by_lightning=True)
        loaders = module.train_dataloader, module.val_dataloader, module.predict_dataloader
        for loader in loaders:
            with pytest.raises(ValueError, match="use_distributed_sampler=False"):
                loader()

    def test_more_processes_than_images(self, root):
        with pytest.raises(DataError, match="split val: 3 usable image"):
            self.processes(data(root), 0, 4).val_dataloader()

    def test_augmentation_comes_from_a_configuration(self, root):
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(DetectionData, "data")
        parsed = parser.parse_args([f"--data.root={root}", "--data.augmentation.color=0.25"])
        made = parser.instantiate(parsed).data
        assert made._train_transform.augmentation == Augmentation(flip=0.5, color=0.25)

    @pytest.mark.parametrize("name", ["batch_size", "val_batch_size", "divisible"])
    def test_numbers_out_of_range(self, name):
        with pytest.raises(ValueError, match=f"{name} >= 1, got 0"):
            DetectionData("nowhere", **{name: 0})


class Watcher(pl.LightningModule):
    """Trains one number, and notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[object, ...]] = []

    def training_step(self, batch, batch_index):
        images, _ = batch
        last = self.trainer.is_last_batch
        pixels = images.images.long().sum().item()
        self.seen.append((batch_index, last, *images.image_ids.tolist(), pixels))
        return self.weight.sum()

    def validation_step(self, batch, batch_index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Save(pl.Callback):
    """Saves after some step, from one of the hooks that save in practice."""

    def __init__(self, file: Path, hook: str, step: int) -> None:
        def save(trainer, *_):
            if trainer.global_step == step:
                trainer.save_checkpoint(file)
                trainer.should_stop = True

        setattr(self, hook, save)


def fit(data: DetectionData, resume: Path | None = None, callbacks=(), **settings) -> list:
    module = Watcher()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **settings,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return module.seen


BATCH_END, EPOCH_END, VALIDATED = "on_train_batch_end", "on_train_epoch_end", "on_validation_end"


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.`:FutureWarning")
@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 15}])
class TestResume:
    @pytest.mark.parametrize(
        ("hook", "step"),
        [
            (BATCH_END, 2),
            (BATCH_END, 5),
            (BATCH_END, 8),
            (EPOCH_END, 5),
            (EPOCH_END, 10),
            (VALIDATED, 5),
        ],
    )
    def test_sees_exactly_the_rest(self, root, tmp_path, length, hook, step):
        whole = fit(data(root), **length)
        assert len(whole) == 15
        assert [entry[:2] for entry in whole[:5]] == [(i, i == 4) for i in range(5)]
        file = tmp_path / "last.ckpt"
        first = fit(data(root), callbacks=[Save(file, hook, step)], **length)
        assert first == whole[:step]
        assert fit(data(root), resume=file, **length) == whole[step:]

    def test_with_workers(self, root, tmp_path, length):
        whole = fit(data(root), **length)
        file = tmp_path / "last.ckpt"
        fit(data(root, workers=2), callbacks=[Save(file, BATCH_END, 7)], **length)
        assert fit(data(root, workers=2), resume=file, **length) == whole[7:]

    def test_twice(self, root, tmp_path, length):
        whole, seen = fit(data(root), **length), []
        file = None
        for step in (7, 11):
            saved = tmp_path / f"{step}.ckpt"
            seen += fit(data(root), file, [Save(saved, BATCH_END, step)], **length)
            file = saved
        assert seen + fit(data(root), resume=file, **length) == whole

    def test_with_another_batch_size_says_so(self, root, tmp_path, length, caplog):
        file = tmp_path / "last.ckpt"
        fit(data(root), callbacks=[Save(file, BATCH_END, 2)], **length)
        with caplog.at_level(logging.INFO):
            fit(data(root, batch_size=1), resume=file, **length)
        assert "images come in another order" in caplog.text
