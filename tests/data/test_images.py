import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from detection.data.images import MAX_PIXELS, image_size, read_image
from detection.data.records import DataError

RGB = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "ppm"])
def test_lossless_formats_keep_every_pixel(tmp_path, extension):
    image = read_image(saved(tmp_path / f"a.{extension}", Image.fromarray(RGB)))
    np.testing.assert_array_equal(image, RGB)
    assert image.dtype == np.uint8
    assert image.flags.writeable


def test_jpeg_equals_pillow(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(RGB))
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))


def test_first_picture_of_a_multi_picture_jpeg(tmp_path):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    path = saved(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    assert read_image(path)[0, 0, 0] > 250


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "jpg", "tif"])
def test_every_exif_orientation_is_applied_to_pixels_and_size(tmp_path, orientation, extension):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(RGB), exif=exif)
    image = read_image(path)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(image, np.asarray(ImageOps.exif_transpose(opened)))
    assert image.shape[:2] == ((3, 5) if orientation < 5 else (5, 3))
    assert image_size(path) == image.shape[:2]


def test_orientation_6_by_hand(tmp_path):
    # Orientation 6: row 0 of the file is the right side of the scene, column 0 its top.
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = read_image(saved(tmp_path / "a.png", Image.fromarray(RGB), exif=exif))
    np.testing.assert_array_equal(image[0, -1], RGB[0, 0])
    np.testing.assert_array_equal(image[-1, -1], RGB[0, -1])


def test_unreadable_exif_does_not_spoil_the_pixels(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RGB), exif=b"Exif\0\0no such thing")
    np.testing.assert_array_equal(read_image(path), RGB)
    assert image_size(path) == (3, 5)


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_16_bit_grey_is_divided_not_saturated(tmp_path, extension):
    grey = np.array([[0, 255, 256, 511], [512, 32768, 65280, 65535]], np.uint16)
    image = read_image(saved(tmp_path / f"a.{extension}", Image.fromarray(grey)))
    expected = np.array([[0, 0, 1, 1], [2, 128, 255, 255]], np.uint8)
    np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 10), (77, 77, 77)),
        ("RGBA", (1, 2, 3, 4), (1, 2, 3)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_modes_become_rgb(tmp_path, mode, colour, expected):
    path = saved(tmp_path / "a.png", Image.new(mode, (4, 2), colour))
    assert (read_image(path) == np.array(expected)).all()


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    image = read_image(path)
    assert image.shape == (8, 8, 3)
    assert np.abs(image.astype(int) - (255, 0, 0)).max() < 3


def test_palette_with_transparency_becomes_rgb(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    path = saved(tmp_path / "a.png", palette, transparency=b"\x80\xff")
    assert read_image(path).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_float_pixels_are_refused(tmp_path):
    path = saved(tmp_path / "a.tif", Image.new("F", (4, 2), 0.5))
    with pytest.raises(DataError, match=r"a\.tif: floating-point"):
        read_image(path)


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_truncated_file(tmp_path, extension):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a\.{extension}: .*[Tt]runcated"):
        read_image(path)
    assert image_size(path) == (64, 64)


def test_png_with_a_bad_checksum(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RGB))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: .*checksum"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, image_size])
class TestRefusals:
    @pytest.mark.parametrize("content", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
    def test_not_an_image(self, tmp_path, read, content):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.jpg: not an image"):
            read(tmp_path / "a.jpg")

    def test_missing(self, tmp_path, read):
        with pytest.raises(DataError, match=r"a\.jpg: No such file"):
            read(tmp_path / "a.jpg")

    def test_a_folder(self, tmp_path, read):
        with pytest.raises(DataError, match="directory"):
            read(tmp_path)

    @pytest.mark.parametrize("width", [MAX_PIXELS // 1000 + 1, 95_000, 65_000_000])
    def test_header_above_the_limit(self, tmp_path, read, width):
        (tmp_path / "a.png").write_bytes(png_header(width, 1000))
        with pytest.raises(DataError, match=rf"a\.png: .*limit of {MAX_PIXELS} pixels"):
            read(tmp_path / "a.png")


def test_size_at_the_limit_comes_from_the_header_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(MAX_PIXELS // 1000, 1000))
    assert image_size(tmp_path / "a.png") == (1000, MAX_PIXELS // 1000)
