import numpy as np
import pytest

from detection.inference.drawing import draw, palette

NAMES = ("dog", "cat", "tvmonitor")
HEIGHT, WIDTH = 240, 320


@pytest.fixture
def image() -> np.ndarray:
    # Neither black nor vivid, so that whatever is drawn changes pixels.
    return np.random.default_rng(0).integers(100, 156, (HEIGHT, WIDTH, 3), np.uint8)


def drawn(
    image: np.ndarray,
    *rows: tuple[tuple[float, float, float, float], int, float],
    scores: bool = True,
    **options: float,
) -> np.ndarray:
    """(box, label, score) rows on an image."""
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in rows], np.int64)
    found = np.array([score for _, _, score in rows], np.float32)
    return draw(image, boxes, labels, found if scores else None, NAMES, **options)


def changed(image: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return (image != picture).any(axis=2)


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def tag_of(image: np.ndarray) -> np.ndarray:
    """The tag "dog 0.90", cut out from above a box with room on all sides."""
    picture = drawn(image, ((100, 100, 200, 200), 1, 0.9))
    x1, y1, x2, y2 = extent(changed(image, picture)[:100])
    assert (x1, y2) == (100, 100)
    return picture[y1:y2, x1:x2]


@pytest.mark.parametrize("scores", [True, False])
def test_changes_the_frame_and_one_tag(image: np.ndarray, scores: bool) -> None:
    before = image.copy()
    picture = drawn(image, ((100, 100, 200, 180), 1, 0.9), scores=scores)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert not np.shares_memory(picture, image)
    np.testing.assert_array_equal(image, before)
    mask = changed(image, picture)
    x1, y1, x2, y2 = extent(mask[:100])
    assert mask[y1:y2, x1:x2].all()
    assert (x1, y2) == (100, 100)
    mask[y1:y2, x1:x2] = False
    assert extent(mask) == (100, 100, 200, 180)
    thickness = int(mask[140, :150].sum())
    assert 1 <= thickness <= 6
    mask[100:180, 100:200] = False
    assert not mask.any()
    inside = np.s_[100 + thickness : 180 - thickness, 100 + thickness : 200 - thickness]
    np.testing.assert_array_equal(picture[inside], image[inside])
    for colour in ((0, 0, 0), palette(3)[0]):
        assert (picture[140, 100 : 100 + thickness] == colour).all(axis=1).any()


def test_the_threshold_is_drawn_and_what_is_below_is_not(image: np.ndarray) -> None:
    below = ((20, 120, 60, 160), 2, 0.49)
    at = ((100, 100, 200, 180), 1, 0.5)
    np.testing.assert_array_equal(drawn(image, below, at), drawn(image, at))
    assert changed(image, drawn(image, at)).any()
    np.testing.assert_array_equal(drawn(image, below), image)
    assert changed(image, drawn(image, below, score_threshold=0.4)).any()


def test_ground_truth_has_no_score_in_its_tag(image: np.ndarray) -> None:
    row = ((100.0, 100.0, 200.0, 180.0), 1, 0.1)
    truth = drawn(image, row, scores=False)
    assert extent(changed(image, truth)[:100])[2] < 100 + tag_of(image).shape[1]
    np.testing.assert_array_equal(truth[100:], drawn(image, row, score_threshold=0)[100:])


@pytest.mark.parametrize(
    ("box", "left", "top"),
    [
        ((0, 0, 150, 100), 0, 0),
        ((170, 0, WIDTH, 100), 170, 0),
        ((WIDTH - 20, 100, WIDTH, 200), None, None),
        ((0, 200, 150, HEIGHT), 0, None),
    ],
)
def test_a_tag_at_the_border_is_whole(
    image: np.ndarray,
    box: tuple[float, float, float, float],
    left: int | None,
    top: int | None,
) -> None:
    tag = tag_of(image)
    if box[2] - box[0] < 100:  # a narrow box has a smaller tag
        picture = drawn(image, ((100, 100, 100 + box[2] - box[0], 200), 1, 0.9))
        x1, y1, x2, y2 = extent(changed(image, picture)[:100])
        tag = picture[y1:y2, x1:x2]
    height, width = tag.shape[:2]
    left = WIDTH - width if left is None else left
    top = int(box[1]) - height if top is None else top
    picture = drawn(image, (box, 1, 0.9))
    np.testing.assert_array_equal(picture[top : top + height, left : left + width], tag)


def test_a_box_over_the_border_is_cut_off(image: np.ndarray) -> None:
    over = drawn(image, ((-50, 100, WIDTH + 30, HEIGHT + 9), 2, 0.9))
    np.testing.assert_array_equal(over, drawn(image, ((0, 100, WIDTH, HEIGHT), 2, 0.9)))
    assert changed(image, over)[-1].all()


@pytest.mark.parametrize(
    "box",
    [
        (-50, 10, -1, 40),
        (WIDTH, 10, WIDTH + 9, 40),
        (10, 10, 10, 40),
        (40, 10, 10, 40),
        (np.nan, 10, 30, 40),
    ],
)
def test_a_box_without_pixels_is_not_drawn(
    image: np.ndarray, box: tuple[float, float, float, float]
) -> None:
    np.testing.assert_array_equal(drawn(image, (box, 1, 0.9)), image)


@pytest.mark.parametrize("side", [0.2, 1, 2, 3, 5])
def test_a_tiny_box_keeps_to_its_pixels(image: np.ndarray, side: float) -> None:
    mask = changed(image, drawn(image, ((100, 100, 100 + side, 100 + side), 1, 0.9)))
    pixels = int(np.ceil(side))
    assert extent(mask[100:]) == (100, 0, 100 + pixels, pixels)


def test_a_tiny_box_in_the_corner_of_a_large_image() -> None:
    image = np.full((2000, 3000, 3), 128, np.uint8)
    picture = drawn(image, ((0, 0, 1, 1), 1, 0.9))
    x1, y1, x2, y2 = extent(changed(image, picture))
    assert (x1, y1) == (0, 0)
    assert x2 < 600
    assert y2 < 200


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (2000, 3000)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    box = (0.0, 0.0, float(size[1]), float(size[0]))
    picture = drawn(image, (box, 3, 0.9), (box, 1, 0.8))
    assert changed(image, picture).any()
    assert picture.shape == image.shape


def test_text_and_lines_grow_with_the_image() -> None:
    def heights(scale: int) -> tuple[int, int]:
        image = np.full((240 * scale, 320 * scale, 3), 128, np.uint8)
        box = tuple(scale * value for value in (100.0, 100.0, 200.0, 180.0))
        mask = changed(image, drawn(image, (box, 1, 0.9)))
        above = extent(mask[: 100 * scale])
        return above[3] - above[1], int(mask[140 * scale, : 150 * scale].sum())

    (small_text, small_line), (text, line) = heights(1), heights(8)
    assert text > 4 * small_text
    assert line > 2 * small_line


def test_tags_of_equal_boxes_stand_side_by_side(image: np.ndarray) -> None:
    box = (100.0, 100.0, 200.0, 180.0)
    tag = tag_of(image)
    height, width = tag.shape[:2]
    picture = drawn(image, (box, 2, 0.8), (box, 1, 0.9))
    np.testing.assert_array_equal(picture[100 - height : 100, 100 : 100 + width], tag)
    fill = (picture == palette(3)[1]).all(axis=2)
    assert fill.sum() > 0.3 * height * width


def test_nothing_to_draw(image: np.ndarray) -> None:
    np.testing.assert_array_equal(drawn(image), image)
    np.testing.assert_array_equal(drawn(image, scores=False), image)


@pytest.mark.parametrize("pair", [("ä", "ö"), ("кот", "дом"), ("σ", "λ")])
def test_letters_beyond_ascii_are_drawn(image: np.ndarray, pair: tuple[str, str]) -> None:
    one, other = (
        draw(image, np.array([[50.0, 50, 200, 200]]), np.array([1]), None, [name]) for name in pair
    )
    assert changed(one, other)[:50].any()  # letters that the font lacks all look the same


def test_palette_is_stable_and_readable() -> None:
    colours = palette(80)
    assert palette(5) == colours[:5]
    assert len(set(colours)) == 80
    rgb = np.array(colours[:20], float)
    apart = np.linalg.norm(rgb[:, None] - rgb, axis=2) + 1e3 * np.eye(20)
    assert apart.min() > 40
    linear = np.array(colours) / 255  # WCAG 2.2: relative luminance, contrast with black text
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    assert ((linear @ [0.2126, 0.7152, 0.0722] + 0.05) / 0.05).min() >= 4.5


def test_refuses_what_does_not_fit(image: np.ndarray) -> None:
    boxes, labels, scores = np.zeros((2, 4)), np.array([1, 2]), np.ones(2)
    with pytest.raises(ValueError, match=r"image: expected \(H, W, 3\) uint8, got .* float64"):
        draw(image.astype(float), boxes, labels, scores, NAMES)
    with pytest.raises(ValueError, match=r"boxes \(D, 4\)"):
        draw(image, boxes[:1], labels, scores, NAMES)
    with pytest.raises(ValueError, match=r"scores \(2,\), got \(1,\)"):
        draw(image, boxes, labels, scores[:1], NAMES)
    for label in (0, 4):
        with pytest.raises(ValueError, match=r"labels 1…3, got"):
            draw(image, boxes, np.array([1, label]), scores, NAMES)
