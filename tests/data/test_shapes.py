"""The embedded data set: what is drawn, what is recorded, and that both formats say the same."""

import contextlib
import io
import json
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detection.data import shape_drawing
from detection.data.coco import read_coco
from detection.data.records import DataError
from detection.data.shape_outlines import coverage, outline
from detection.data.shape_textures import texture
from detection.data.shape_variants import HARD, PLAIN
from detection.data.shapes import draw_shapes, ensure_shapes, write_shapes
from detection.data.voc import read_voc

SPLITS = {"train": 60, "val": 3}
RECORDED_SIZE = (199, 219)
RECORDED = [  # name, box, area
    ("star", (12, 18, 95, 99), 2520),
    ("circle", (34, 106, 94, 170), 2801),
    ("circle", (60, 119, 76, 136), 208),
    ("star", (103, 43, 157, 105), 1313),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, SPLITS)
    return root


@pytest.fixture(scope="module")
def drawn():
    return [draw_shapes("train", index) for index in range(200)]


@pytest.fixture(scope="module")
def objects(drawn):
    return [item for image in drawn for item in image.objects]


def contents(root):
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def coco(root, split):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(root / "annotations" / f"instances_{split}.json")


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_shapes(tmp_path / name, {"val": 2}, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a if name.endswith(".jpg"))


def test_an_image_depends_on_neither_count_nor_other_splits(tmp_path, root):
    write_shapes(tmp_path / "few", {"other": 1, "train": 4})
    few, many = contents(tmp_path / "few"), contents(root)
    for file in ("JPEGImages/train_000003.jpg", "Annotations/train_000003.xml"):
        assert few[file] == many[file]


def test_splits_have_images_of_their_own():
    images = [np.asarray(draw_shapes(split, 0).image) for split in ("train", "val")]
    assert images[0].shape != images[1].shape or (images[0] != images[1]).any()


@pytest.mark.parametrize("name", sorted({*PLAIN.classes, *HARD.classes}))
def test_box_and_area_are_those_of_the_painted_pixels(name, monkeypatch):
    """Paints an object alone, white on black, and looks for it in the picture."""
    white = np.full(3, 255)
    monkeypatch.setattr(
        shape_drawing, "texture", lambda rng, size, unit, *_: texture(rng, size, unit, white, white)
    )
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scene = shape_drawing._Scene(rng, (130, 150))
        scene.canvas.paste((0, 0, 0), (0, 0, 150, 130))
        points = outline(rng, name, 40.0**2, 100.0)
        scene.place(name, [points], crowd=False)
        (item,) = scene.objects()
        painted = np.asarray(scene.canvas)[..., 0] >= 128
        rows, columns = np.nonzero(painted)
        assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert item.area == painted.sum()
        assert item.truncated == (item.visible < 1)
        if not item.truncated:
            assert item.area == pytest.approx(40**2, rel=0.03)
            # Tips thinner than a pixel may be lost.
            sides = np.array((item.box[2] - item.box[0], item.box[3] - item.box[1]))
            assert (np.abs(sides - np.ptp(points, axis=0)) <= 3).all()


def test_coverage_of_a_rectangle_is_exact():
    """By hand, at three by three samples a pixel: the corners are the outermost samples."""
    left, right, top, bottom = 2 + 1 / 6, 7 - 1 / 6, 1 + 1 / 6, 4 + 1 / 6
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    expected = np.zeros((6, 9))
    expected[1:4, 2:7] = 255
    expected[4, 2:7] = 85
    np.testing.assert_array_equal(np.asarray(coverage([corners], (6, 9))), expected)


def test_outlines_have_the_area_asked_for():
    """By the corners of the square, which stays a rectangle."""
    for seed in range(5):
        a, b, c, d = outline(np.random.default_rng(seed), "square", 50.0, 100.0)
        assert np.linalg.norm(b - a) * np.linalg.norm(c - b) == pytest.approx(50)
        assert np.dot(b - a, c - b) == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(a + c, b + d)


def test_what_is_hidden_is_not_counted():
    """A square over all of the image, and smaller ones drawn upon it."""
    scene = shape_drawing._Scene(np.random.default_rng(0), (64, 64))
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
    scene.place("square", [square * 63.9], crowd=False)
    for _ in range(10):
        scene.place("square", [square * 19.9], crowd=False)
    lower, *upper = scene.objects()
    assert upper
    assert lower.area == 64 * 64 - sum(item.area for item in upper) < 64 * 64
    assert lower.visible == lower.area / 64**2


def test_sizes_flags_and_counts_are_all_there(drawn, objects):
    singles = [item for item in objects if not item.crowd]
    areas = np.array([item.area for item in singles])
    assert 0.18 < (areas < 32**2).mean() < 0.32
    assert 0.5 < ((areas >= 32**2) & (areas <= 96**2)).mean() < 0.7
    assert 0.08 < (areas > 96**2).mean() < 0.25
    counts = {sum(not item.crowd for item in image.objects) for image in drawn}
    assert set(range(1, 8)) <= counts <= set(range(1, 9))
    assert 0.01 < np.mean([item.difficult for item in singles]) < 0.1
    assert 0.03 < np.mean([item.truncated for item in singles]) < 0.2
    assert any(item.crowd for item in objects)
    heights, widths = np.array([image.image.size[::-1] for image in drawn]).T
    assert min(heights.min(), widths.min()) >= 192
    assert max(heights.max(), widths.max()) <= 256
    assert (heights < widths).any()
    assert (heights > widths).any()


def test_difficult_means_hidden_tiny_or_crowd(objects):
    assert min(item.visible for item in objects) >= 0.1
    for item in objects:
        assert item.difficult == (item.visible < 0.35 or item.area < 64 or item.crowd)


def test_classes_are_balanced(objects):
    counts = Counter(item.name for item in objects)
    assert set(counts) == set(PLAIN.classes)
    assert min(counts.values()) > 0.7 * len(objects) / len(PLAIN.classes)


@pytest.mark.parametrize("variant", [PLAIN, HARD], ids=["plain", "hard"])
def test_colour_and_size_say_nothing_about_the_class(variant):
    """The means of a class differ from those of all by chance only."""
    found = {name: [] for name in variant.classes}
    for index in range(200):
        image = draw_shapes("train", index, variant=variant)
        pixels = np.asarray(image.image, np.float64)
        for item in image.objects:
            x1, y1, x2, y2 = item.box
            colour = pixels[y1:y2, x1:x2].mean((0, 1))
            found[item.name].append([*colour, np.log(item.area)])
    everything = np.concatenate(list(found.values()))
    for values in found.values():
        error = everything.std(0) / np.sqrt(len(values))
        assert (np.abs(np.mean(values, 0) - everything.mean(0)) < 4.5 * error).all()


def test_plain_shapes_stay_as_they_are():
    """Recorded when there was no other variant."""
    drawn = draw_shapes("train", 0)
    assert drawn.image.size == RECORDED_SIZE
    assert [(item.name, item.box, item.area) for item in drawn.objects] == RECORDED


def test_hard_shapes_are_in_smaller_images_and_hidden_more():
    drawn = [draw_shapes("train", index, variant=HARD) for index in range(100)]
    objects = [item for image in drawn for item in image.objects]
    counts = Counter(item.name for item in objects)
    assert set(counts) == set(HARD.classes)
    assert len(HARD.classes) == 8
    assert min(counts.values()) > 0.5 * len(objects) / 8
    sides = np.array([image.image.size for image in drawn])
    assert 120 <= sides.min() < sides.max() <= 160
    plain = [item for index in range(100) for item in draw_shapes("train", index).objects]
    hidden, hidden_plain = (np.mean([x.visible < 0.8 for x in some]) for some in (objects, plain))
    assert hidden > 1.2 * hidden_plain
    assert not any(item.crowd for item in objects)


def test_hard_textures_differ(monkeypatch):
    """Stripes are constant along one direction and checks along none, whatever the turn."""
    white, black = np.full(3, 255), np.zeros(3, int)
    spread = {}
    for name in ("striped_hexagon", "checked_hexagon"):
        picture = texture(np.random.default_rng(1), (64, 64), 32, white, black, name)
        pixels = np.asarray(picture.convert("L"), float) - 127.5
        spectrum = np.sort(np.abs(np.fft.fft2(pixels * np.outer(*[np.hanning(64)] * 2))).ravel())
        spread[name] = spectrum[-2] / spectrum[-12]
    assert spread["striped_hexagon"] > spread["checked_hexagon"]


@pytest.mark.parametrize("split", SPLITS)
def test_voc_and_coco_say_the_same(root, split):
    content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    stems = (root / "ImageSets/Main" / f"{split}.txt").read_text().split()
    assert [image["file_name"] for image in content["images"]] == [f"{stem}.jpg" for stem in stems]
    assert len(stems) == SPLITS[split]
    for stem, image in zip(stems, content["images"], strict=True):
        tree = ElementTree.parse(root / "Annotations" / f"{stem}.xml")
        size = int(tree.findtext("size/width")), int(tree.findtext("size/height"))
        with Image.open(root / "JPEGImages" / image["file_name"]) as file:
            assert (file.format, file.size) == ("JPEG", size)
        assert size == (image["width"], image["height"])
        boxes = [item for item in content["annotations"] if item["image_id"] == image["id"]]
        for item, box in zip(tree.iterfind("object"), boxes, strict=True):
            low_x, low_y, high_x, high_y = (
                int(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            assert item.findtext("name") == names[box["category_id"]]
            assert box["bbox"] == [low_x - 1, low_y - 1, high_x - low_x + 1, high_y - low_y + 1]
            assert 0 < box["area"] <= box["bbox"][2] * box["bbox"][3]
            assert 1 <= low_x <= high_x <= size[0]
            assert 1 <= low_y <= high_y <= size[1]
            if box["iscrowd"]:
                assert item.findtext("difficult") == "1"


def test_both_readers_read_the_same(root):
    voc = read_voc(root, "train")
    ours = read_coco(root / "annotations/instances_train.json", root / "JPEGImages")
    assert voc.skipped == ours.skipped == ()
    assert [voc.path(i) for i in range(60)] == [ours.path(i) for i in range(60)]
    for field in ("image_ids", "sizes", "offsets", "boxes"):
        np.testing.assert_array_equal(
            getattr(voc.annotations, field), getattr(ours.annotations, field)
        )


def test_pycocotools_loads_it_and_finds_the_crowds(root):
    loaded = coco(root, "train")
    assert len(loaded.getImgIds()) == 60
    assert [item["name"] for item in loaded.loadCats(loaded.getCatIds())] == list(PLAIN.classes)
    crowds = sum(item.crowd for i in range(60) for item in draw_shapes("train", i).objects)
    assert len(loaded.getAnnIds(iscrowd=True)) == crowds > 0
    assert 0 not in loaded.getAnnIds()


def test_ensure_draws_once(tmp_path):
    root, calls = tmp_path / "new" / "shapes", []
    for _ in range(2):
        ensure_shapes(root, {"val": 2}, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    assert [path.name for path in root.parent.iterdir()] == ["shapes"]


def test_ensure_refuses_other_shapes_and_foreign_folders(tmp_path):
    root = tmp_path / "shapes"
    write_shapes(root, {"val": 1})
    for arguments in (
        {"splits": {"val": 2}},
        {"splits": {"val": 1}, "seed": 1},
        {"splits": {"val": 1}, "hard": True},
        {"splits": {"val": 1}, "hard": True, "image_size": (256, 256)},
    ):
        with pytest.raises(DataError, match=r"shapes: holds shapes made from .*expected"):
            ensure_shapes(root, **arguments)
    with pytest.raises(DataError, match="shapes: expected a new or an empty folder"):
        write_shapes(root, {"val": 1})
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"foreign: not a folder of shapes"):
        ensure_shapes(foreign, {"val": 1})
    assert (foreign / "thesis.txt").read_text() == "precious"


def test_the_hard_folder_says_what_it_is(tmp_path):
    ensure_shapes(tmp_path / "hard", {"val": 4}, hard=True)
    assert json.loads((tmp_path / "hard/shapes.json").read_text())["variant"] == "hard"
    loaded = coco(tmp_path / "hard", "val")
    assert [item["name"] for item in loaded.loadCats(loaded.getCatIds())] == list(HARD.classes)
    truth = read_voc(tmp_path / "hard", "val").annotations
    drawn = [x.box for i in range(4) for x in draw_shapes("val", i, variant=HARD).objects]
    np.testing.assert_array_equal(truth.boxes, drawn)
    with pytest.raises(DataError, match="expected"):
        ensure_shapes(tmp_path / "hard", {"val": 4})


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "shapes", {"val": 2}, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": {}}, "at least one"),
        ({"splits": {"val2017": 1}}, "letters"),
        ({"splits": {"../val": 1}}, "letters"),
        ({"splits": {"val": 0}}, "got 0"),
        ({"splits": {"val": 1}, "image_size": (32, 256)}, "at least 64"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_shapes(tmp_path / "shapes", **arguments)
    assert list(tmp_path.iterdir()) == []
