import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from backbones.classification.augmentation import (
    EIGENVALUES,
    EIGENVECTORS,
    Augmentation,
    center_crop,
    light,
    resize_short_side,
    ten_crops,
)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)


def peer(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).movedim(-1, -3)


@pytest.mark.parametrize(("height", "width"), [(40, 61), (53, 37), (32, 32), (33, 34)])
def test_ten_crops_are_torchvisions(height: int, width: int):
    pixels = noise(height, width)
    expected = torch.stack(v2.TenCrop(32)(peer(pixels)))
    assert torch.equal(peer(ten_crops(pixels, 32)), expected)
    assert torch.equal(peer(center_crop(pixels, 32)), v2.CenterCrop(32)(peer(pixels)))


@pytest.mark.parametrize(("height", "width"), [(40, 61), (53, 37), (20, 90), (32, 50)])
@pytest.mark.parametrize("side", [32, 48])
def test_the_resized_image_is_torchvisions(height: int, width: int, side: int):
    from PIL import Image

    pixels = noise(height, width)
    ours = resize_short_side(pixels, side)
    theirs = np.asarray(v2.Resize(side)(Image.fromarray(pixels)))
    assert min(ours.shape[:2]) == side
    assert np.abs(np.subtract(ours.shape, theirs.shape)).max() <= 1  # they cut, we round
    if ours.shape == theirs.shape:
        assert np.array_equal(ours, theirs)


def test_light_is_the_matrix_product():
    pixels = np.full((2, 2, 3), 128, np.uint8)
    multiples = np.array([0.1, -0.2, 0.3])
    red = 0.1 * 0.2175 * -0.5675 + -0.2 * 0.0188 * 0.7192 + 0.3 * 0.0045 * 0.4009
    assert light(pixels, multiples)[0, 0, 0] == round(128 + 255 * red)
    assert np.array_equal(light(pixels, np.zeros(3)), pixels)
    # cuda-convnet's eigenvalues are of values in 0 … 255.
    assert (255 * EIGENVALUES).round(1).tolist() == [55.5, 4.8, 1.1]
    assert np.allclose(EIGENVECTORS.T @ EIGENVECTORS, np.eye(3), atol=1e-3)


def test_light_clips():
    bright = light(np.full((1, 1, 3), 250, np.uint8), np.array([-1.0, 0, 0]))
    dark = light(np.full((1, 1, 3), 5, np.uint8), np.array([1.0, 0, 0]))
    assert (bright == 255).all()
    assert (dark == 0).all()


def test_the_short_side_covers_its_range(monkeypatch):
    seen = []

    def record(image, side):
        seen.append(side)
        return resize_short_side(image, side)

    monkeypatch.setattr("backbones.classification.augmentation.resize_short_side", record)
    augmentation = Augmentation(8, (9, 12))
    for seed in range(60):
        crop = augmentation.apply(noise(10, 14), np.random.default_rng(seed))
        assert crop.shape == (8, 8, 3)
        assert crop.dtype == np.uint8
    assert sorted(set(seen)) == [9, 10, 11, 12]


def test_crops_are_inside_everywhere_and_flipped_half_of_the_time():
    height, width, side = 6, 8, 4
    # Each pixel tells its place.
    rows, columns = np.indices((height, width))
    pixels = np.stack([rows, columns, rows], -1).astype(np.uint8)
    places, flips = set(), 0
    for seed in range(400):
        crop = Augmentation(side, None, lighting=0).apply(pixels, np.random.default_rng(seed))
        flipped = crop[0, 0, 1] > crop[0, -1, 1]
        crop = crop[:, ::-1] if flipped else crop
        top, left = crop[0, 0, :2].tolist()
        assert np.array_equal(crop, pixels[top : top + side, left : left + side])
        places.add((top, left))
        flips += int(flipped)
    assert places == {(top, left) for top in range(3) for left in range(5)}
    assert 160 < flips < 240


def test_padding_puts_zeros_around():
    augmentation = Augmentation(32, None, pad=4, flip=False, lighting=0)
    white = np.full((32, 32, 3), 255, np.uint8)
    corners = set()
    for seed in range(600):
        covered = augmentation.apply(white, np.random.default_rng(seed))[..., 0] == 255
        rows, columns = covered.any(1).sum(), covered.any(0).sum()
        assert covered.sum() == rows * columns
        corners.add((int(rows), int(columns)))
    assert corners == {(rows, columns) for rows in range(28, 33) for columns in range(28, 33)}


def test_the_colour_shift_is_one_for_the_whole_image():
    augmentation = Augmentation(8, None, flip=False, lighting=0.1)
    grey = np.full((8, 8, 3), 128, np.uint8)
    shifts = []
    for seed in range(300):
        shifted = augmentation.apply(grey, np.random.default_rng(seed))
        assert (shifted == shifted[0, 0]).all()
        shifts.append(shifted[0, 0].astype(float) - 128)
    covariance = 255**2 * 0.01 * EIGENVECTORS @ np.diag(EIGENVALUES**2) @ EIGENVECTORS.T
    assert np.allclose(np.cov(np.array(shifts).T), covariance, rtol=0.25, atol=0.3)


@pytest.mark.parametrize(
    "options",
    [
        {"crop": 0},
        {"pad": -1},
        {"lighting": -0.1},
        {"short_side": (200, 300)},
        {"short_side": (300, 256)},
    ],
)
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Augmentation(**options)


@pytest.mark.parametrize("function", [center_crop, ten_crops])
def test_an_image_below_the_crop_is_refused(function):
    with pytest.raises(ValueError, match="at least 32×32, got 31×40"):
        function(noise(31, 40), 32)
