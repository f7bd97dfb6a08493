from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detection.checkpoint import KEY, PREFIX, CheckpointError, Description
from detection.data.labels import LabelMap
from detection.inference.assembly import assemble
from detection.inference.predictor import ImageDetections, Predictor
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.faster_rcnn import FasterRCNN
from detection.model.improved import Detector, ImprovedDetector, Improvements
from detection.structures import Batch

SHORT, LONG = 64, 96
LABELS = LabelMap(("dog", "cat"), (18, 17))


@pytest.fixture(scope="module")
def detector() -> FasterRCNN:
    torch.manual_seed(0)
    built = faster_rcnn(len(LABELS.names), spec())
    # Spread scores over [0, 1]: with the initial weights all are near 1/3.
    torch.nn.init.normal_(built.roi_head.class_logits.weight, std=0.2)
    return built.eval()


def spec() -> DetectorSpec:
    return DetectorSpec("resnet18", pyramid=True, frozen_stages=0, batch_norm="trained")


@pytest.fixture(scope="module")
def description(detector: FasterRCNN) -> Description:
    return Description(spec(), detector.preprocessing, LABELS, SHORT, LONG)


@pytest.fixture(scope="module")
def predictor(detector: FasterRCNN, description: Description) -> Predictor:
    return Predictor(detector, description)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coarse blocks, so that there is something to see at every scale."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def by_hand(detector: Detector, image: np.ndarray, original: tuple[int, int]) -> ImageDetections:
    """The detector on one resized image, without the predictor."""
    with torch.no_grad():
        found = detector(
            Batch(
                torch.tensor(image.transpose(2, 0, 1).copy())[None],
                torch.tensor([image.shape[:2]]),
                torch.tensor([original]),
                torch.tensor([0]),
            )
        )
    rows = found.scores[0] > 0
    return ImageDetections(*(column[0][rows].numpy() for column in found))


def assert_same(one: ImageDetections, other: ImageDetections, scale: float = 1.0) -> None:
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one.boxes, other.boxes * scale, rtol=1e-4, atol=1e-3)


def test_is_the_detector_called_by_hand(predictor: Predictor, detector: FasterRCNN) -> None:
    image = noise(64, 80)
    (found,) = predictor([image])
    assert_same(found, by_hand(detector, image, (64, 80)))
    assert len(found.labels) > 5
    assert found.boxes.shape == (len(found.labels), 4)
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert found.labels.dtype == np.int64
    assert set(found.labels) <= {1, 2}
    assert (np.diff(found.scores) <= 0).all()


def test_resizes_by_short_and_long_side(predictor: Predictor, detector: FasterRCNN) -> None:
    square, wide = noise(150, 160), noise(50, 150)
    expected = cv2.resize(square, (68, 64))
    assert_same(predictor([square])[0], by_hand(detector, expected, (150, 160)))
    expected = cv2.resize(wide, (96, 32))  # 128 wide by the short side: the long side decides
    assert_same(predictor([wide])[0], by_hand(detector, expected, (50, 150)))


def test_an_image_twice_as_large_has_boxes_twice_as_large(predictor: Predictor) -> None:
    image = noise(64, 80)
    (small,), (large,) = predictor([image]), predictor([image.repeat(2, 0).repeat(2, 1)])
    assert_same(large, small, scale=2)


def test_a_batch_of_two_is_two_of_one(predictor: Predictor) -> None:
    images = [noise(64, 80, seed) for seed in (1, 2)]
    for found, image in zip(predictor(images), images, strict=True):
        assert_same(found, predictor([image])[0])


def test_padding_holds_no_detections(predictor: Predictor) -> None:
    images = [noise(64, 96), noise(160, 128), noise(96, 64)]
    for found, image in zip(predictor(images), images, strict=True):
        assert len(found.labels)
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2:] <= np.array(image.shape[1::-1]) + 1e-3).all()


def test_any_memory_layout(predictor: Predictor) -> None:
    image = noise(64, 80)
    mirrored = image[:, ::-1]
    mirrored.flags.writeable = False
    assert_same(predictor([mirrored])[0], predictor([mirrored.copy()])[0])


def test_a_black_pixel_is_an_image(predictor: Predictor) -> None:
    (found,) = predictor([np.zeros((1, 1, 3), np.uint8)])
    assert (found.boxes <= 1).all()


def test_no_detections_are_empty_arrays(detector: FasterRCNN, description: Description) -> None:
    silent = faster_rcnn(2, spec())
    silent.load_state_dict(detector.state_dict())
    silent.roi_head.class_logits.bias.data = torch.tensor([1e4, 0, 0])
    (found,) = Predictor(silent, description)([noise(64, 80)])
    assert [column.shape for column in found] == [(0, 4), (0,), (0,)]


def test_no_images(predictor: Predictor) -> None:
    assert predictor([]) == []


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (np.zeros((8, 8, 3), np.float32), r"\(8, 8, 3\) float32"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\) uint8"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\) uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\) uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\) uint8"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "Tensor"),
    ],
)
def test_names_what_is_no_image(predictor: Predictor, bad: object, got: str) -> None:
    with pytest.raises(ValueError, match=rf"image 1: expected .*uint8.*got {got}"):
        predictor([noise(8, 8), bad])


def test_from_checkpoint(
    predictor: Predictor, detector: FasterRCNN, description: Description, tmp_path: Path
) -> None:
    state = {PREFIX + key: value for key, value in detector.state_dict().items()}
    torch.save({KEY: description.to_plain(), "state_dict": state}, tmp_path / "last.ckpt")
    loaded = Predictor.from_checkpoint(tmp_path / "last.ckpt", "cpu")
    assert loaded.labels == LABELS
    assert_same(loaded([noise(90, 70)])[0], predictor([noise(90, 70)])[0])


def test_an_ensemble_of_checkpoints_improved(
    detector: FasterRCNN, description: Description, tmp_path: Path
) -> None:
    state = {PREFIX + key: value for key, value in detector.state_dict().items()}
    torch.save({KEY: description.to_plain(), "state_dict": state}, tmp_path / "one.ckpt")
    other = description._replace(short_side=48, long_side=72).to_plain()
    torch.save({KEY: other, "state_dict": state}, tmp_path / "two.ckpt")
    image = noise(90, 70)
    switches = Improvements(refinement=True, scales=(32, 128))
    files = tmp_path / "one.ckpt", tmp_path / "two.ckpt"
    (found,) = Predictor.from_checkpoint(files[0], "cpu", others=files[1:], improvements=switches)(
        [image]
    )
    # The image comes at the largest scale: 90 x 70 becomes 165 x 128, below the bound of 192.
    improved = ImprovedDetector([detector, detector], [SHORT, 48], switches)
    assert_same(found, by_hand(improved, cv2.resize(image, (128, 165)), (90, 70)))
    assert len(found.labels) > 5


def test_nothing_to_improve_is_the_detector_itself(
    detector: FasterRCNN, description: Description
) -> None:
    assert assemble([(detector, description)]) == (detector, description)


def test_an_ensemble_must_know_the_same_classes(
    detector: FasterRCNN, description: Description
) -> None:
    other = description._replace(labels=LabelMap(("dog", "emu"), (18, 90)))
    with pytest.raises(ValueError, match="the first knows dog, cat; number 2 dog, emu"):
        assemble([(detector, description), (detector, other)])
    # Other data sets number the same classes otherwise: the first one's numbers are used.
    other = description._replace(labels=LabelMap(("dog", "cat"), (1, 2)))
    assert assemble([(detector, description), (detector, other)])[1].labels == LABELS


def test_from_checkpoint_takes_the_best_device(
    detector: FasterRCNN, description: Description, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "detection.inference.predictor.load_detector", lambda path: (detector, description)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Predictor.from_checkpoint("any").device == torch.device("cpu")
    with pytest.raises(ValueError, match="'cuda': no CUDA device"):
        Predictor.from_checkpoint("any", "cuda")


def test_from_checkpoint_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.ckpt"):
        Predictor.from_checkpoint(tmp_path / "none.ckpt", "cpu")
