import pickle

import cv2
import numpy as np
import pytest

from detection.data.transforms import NONE, Augmentation, Transform, resize, resized_size

FLIP = Augmentation(flip=1.0)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


class TestSize:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((375, 500), (600, 800)),  # a VOC photo, landscape
            ((500, 375), (800, 600)),
            ((480, 640), (600, 800)),
            ((600, 600), (600, 600)),
            ((600, 1000), (600, 1000)),  # both limits at once
            ((300, 500), (600, 1000)),
            ((300, 501), (599, 1000)),  # 600 / 300 would make 1002
            ((200, 800), (250, 1000)),
            ((1200, 1600), (600, 800)),
            ((1, 4000), (1, 1000)),  # 0.25 pixels high
        ],
    )
    def test_by_hand(self, size, expected):
        assert resized_size(size, 600, 1000) == expected
        assert resized_size(size[::-1], 600, 1000) == expected[::-1]

    def test_halves_go_to_the_even_number(self):
        assert resized_size((2, 3), 3, 100) == (3, 4)  # 4.5
        assert resized_size((2, 5), 3, 100) == (3, 8)  # 7.5

    def test_is_the_rule_of_py_faster_rcnn(self):
        """`prep_im_for_blob`: one scale, the limit checked on the rounded size, cv2.resize."""
        for height, width in np.random.default_rng(0).integers(10, 900, (60, 2)).tolist():
            scale = 60 / min(height, width)
            if np.round(scale * max(height, width)) > 100:
                scale = 100 / max(height, width)
            theirs = cv2.resize(np.zeros((height, width), np.uint8), None, fx=scale, fy=scale)
            assert resized_size((height, width), 60, 100) == theirs.shape

    def test_pixels_are_bilinear(self):
        image = np.zeros((2, 2, 3), np.uint8)
        image[:, 1] = 100
        # Output centres lie at -0.25, 0.25, 0.75, 1.25 between the two columns.
        np.testing.assert_array_equal(resize(image, 4, 4)[0, :, 0], [0, 25, 75, 100])

    @pytest.mark.parametrize(("short", "long"), [(0, 10), (20, 10)])
    def test_sides_that_make_no_sense(self, short, long):
        with pytest.raises(ValueError, match="short_side"):
            Transform(short, long)


class TestBoxes:
    @pytest.mark.parametrize("augmentation", [NONE, FLIP, Augmentation(color=0.5)])
    def test_no_boxes(self, augmentation):
        result = Transform(60, 100, augmentation)(photo(30, 40), np.zeros((0, 4)), 0)
        assert result.boxes.shape == (0, 4)
        assert result.boxes.dtype == np.float32
        assert result.kept.shape == (0,)
        assert result.kept.dtype == np.int64
        assert result.image.shape == (60, 80, 3)

    def test_each_axis_by_its_true_ratio(self):
        # 47 × 60 / 31 = 90.97 becomes 91: the width grows by 1.9362, the height by 1.9355.
        boxes = np.array([[0, 0, 47, 31], [10, 10, 20, 20]])
        result = Transform(60, 100, NONE)(photo(31, 47), boxes, 0)
        expected = [[0, 0, 91, 60], [910 / 47, 600 / 31, 1820 / 47, 1200 / 31]]
        np.testing.assert_allclose(result.boxes, expected, rtol=1e-6)

    def test_flip_by_hand(self):
        image = np.zeros((4, 10, 3), np.uint8)
        image[1:3, 2:5] = 255
        result = Transform(4, 10, FLIP)(image, np.array([[2.0, 1.0, 5.0, 3.0]]), 0)
        np.testing.assert_allclose(result.boxes, [[10 - 5, 1, 10 - 2, 3]], atol=1e-5)
        expected = np.zeros((4, 10, 3), np.uint8)
        expected[1:3, 5:8] = 255
        np.testing.assert_array_equal(result.image, expected)

    def test_flip_happens_at_its_rate(self):
        transform, box = Transform(4, 10), np.array([[0, 0, 1, 1]])
        flipped = [transform(photo(4, 10), box, seed).boxes[0, 0] > 5 for seed in range(400)]
        assert 160 < sum(flipped) < 240  # four standard deviations

    def test_small_boxes_stay(self):
        boxes = np.array([[0, 0, 1, 1], [999, 599, 1000, 600], [500.5, 10, 501, 10.5]])
        result = Transform(600, 1000, FLIP)(photo(600, 1000), boxes, 0)
        np.testing.assert_array_equal(result.kept, [0, 1, 2])
        np.testing.assert_allclose(result.boxes[:, 0], [999, 0, 499], atol=1e-3)

    def test_only_boxes_outside_leave_and_others_are_clipped(self):
        boxes = np.array([[50, 0, 60, 5], [0, 0, 5, 5], [35, 10, 45, 20], [8, 8, 8, 20]])
        result = Transform(30, 40, FLIP)(photo(30, 40), boxes, 0)
        np.testing.assert_array_equal(result.kept, [1, 2])
        np.testing.assert_allclose(result.boxes, [[35, 0, 40, 5], [0, 10, 5, 20]], atol=1e-4)

    def test_scale_jitter_moves_image_and_boxes_alike(self):
        transform = Transform(40, 50, Augmentation(flip=0.0, scale_jitter=(0.5, 2.0)))
        sizes = set()
        for seed in range(30):
            result = transform(photo(30, 40), np.array([[0, 0, 40, 30], [20, 15, 40, 30]]), seed)
            height, width = result.image.shape[:2]
            expected = [[0, 0, width, height], [width / 2, height / 2, width, height]]
            np.testing.assert_allclose(result.boxes, expected, rtol=1e-6)
            assert abs(width * 3 - height * 4) <= 4  # the long side is limited in every draw
            assert 25 <= width <= 100
            sizes.add((height, width))
        assert len(sizes) > 20


class TestSeed:
    VARIED = Augmentation(flip=0.5, color=0.4, scale_jitter=(0.8, 1.2))

    def draw(self, transform, seed):
        return transform(photo(30, 40), np.array([[1, 2, 30, 20]]), seed)

    def test_same_seed_same_result_whatever_came_before(self):
        one, other = Transform(30, 50, self.VARIED), Transform(30, 50, self.VARIED)
        self.draw(other, 3)
        np.random.seed(1)
        other = pickle.loads(pickle.dumps(other))  # as a spawned worker gets it
        for left, right in zip(self.draw(one, 7), self.draw(other, 7), strict=True):
            np.testing.assert_array_equal(left, right)

    def test_different_seeds_differ(self):
        transform = Transform(30, 50, self.VARIED)
        assert len({self.draw(transform, seed).image.tobytes() for seed in range(20)}) == 20

    def test_color_leaves_boxes_and_input_alone(self):
        image, boxes = photo(30, 40), np.array([[1, 2, 30, 20]])
        result = Transform(30, 50, Augmentation(flip=0.0, color=0.5))(image, boxes, 5)
        assert (result.image != image).any()
        np.testing.assert_array_equal(image, photo(30, 40))
        np.testing.assert_allclose(result.boxes, boxes, atol=1e-5)

    @pytest.mark.parametrize(
        "values",
        [{"flip": 1.5}, {"color": -0.1}, {"scale_jitter": (2.0, 1.0)}, {"scale_jitter": (0, 1)}],
    )
    def test_values_out_of_range(self, values):
        with pytest.raises(ValueError, match=next(iter(values))):
            Augmentation(**values)
