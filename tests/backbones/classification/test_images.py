from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.classification.images import FolderImages, KeptImages, read_image


def test_a_folder(image_folder):
    root = image_folder(train=3) / "train"
    images = FolderImages(root)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.name(4) == str(root / "dog" / "1.png")
    assert np.array_equal(images.read(4), np.asarray(Image.open(root / "dog" / "1.png")))


def test_kept_images(image_folder):
    root = image_folder(train=2) / "train"
    images = FolderImages(root)
    kept, expected = KeptImages(images), images.read(3)
    assert np.array_equal(kept.read(3), expected)
    (root / "dog" / "1.png").unlink()
    assert np.array_equal(kept.read(3), expected)
    with pytest.raises(ValueError, match="read-only"):
        kept.read(3)[0] = 0
    assert np.array_equal(kept.labels, images.labels)
    assert kept.name(3) == images.name(3)
    (root / "dog" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"dog/0\.png: not a readable image"):
        kept.read(2)


def test_names_that_are_not_ascii(tmp_path: Path):
    (tmp_path / "größe").mkdir()
    Image.new("RGB", (5, 4), (1, 2, 3)).save(tmp_path / "größe" / "ñ.png")
    assert FolderImages(tmp_path).read(0).shape == (4, 5, 3)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_every_kind_becomes_rgb(tmp_path: Path, mode: str):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
    assert np.array_equal(read_image(path), np.full((4, 6, 3), 255))


def test_exif_rotation_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").shape == (6, 4, 3)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "missing"])
def test_what_is_not_a_whole_image_is_refused(image_folder, damage: str):
    path = image_folder(train=1) / "train" / "cat" / "0.png"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("no image")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"cat/0\.png: not a readable image: "):
        read_image(path)


def test_an_image_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("backbones.classification.images.MAX_PIXELS", 10)
    Image.new("RGB", (4, 3)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png: .* 4 × 3 is above 10 pixels"):
        read_image(tmp_path / "x.png")
