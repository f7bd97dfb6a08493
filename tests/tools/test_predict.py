import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.checkpoint import KEY, PREFIX, Description
from detection.data.images import read_image
from detection.data.labels import LabelMap
from detection.inference.drawing import draw
from detection.inference.predictor import Predictor
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.improved import Improvements
from resdet.tools.predict import main

LABELS = LabelMap.from_names(("dog", "cat"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt", seed=0)


def save_checkpoint(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    spec = DetectorSpec("resnet18", pyramid=True, frozen_stages=0, batch_norm="trained")
    detector = faster_rcnn(len(LABELS.names), spec)
    # Spread scores over [0, 1]: with the initial weights all are near 1/3.
    torch.nn.init.normal_(detector.roi_head.class_logits.weight, std=0.2)
    description = Description(spec, detector.preprocessing, LABELS, 64, 96)
    state = {PREFIX + key: value for key, value in detector.state_dict().items()}
    torch.save({KEY: description.to_plain(), "state_dict": state}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with photos/{a.png, sub/a.png, sub/b.JPG}, and files that are no images."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.png", "sub/a.png", "sub/b.JPG")):
        save_photo(tmp_path / "photos" / name, seed)
    (tmp_path / "photos/.hidden.png").write_bytes(b"")
    (tmp_path / "photos/notes.txt").write_text("not an image")
    return tmp_path


def save_photo(path: Path, seed: int, size: tuple[int, int] = (70, 90)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(blocks).resize(size[::-1], Image.Resampling.NEAREST).save(path)


def predict(checkpoint: Path, *arguments: str) -> int:
    return main(["--checkpoint", str(checkpoint), "--output", "out", "--device", "cpu", *arguments])


def written() -> list[str]:
    out = Path("out")
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def records() -> list[dict]:
    return json.loads(Path("out/predictions.json").read_text())


def test_a_folder(checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(checkpoint, "photos", "--batch-size", "2", "--score-threshold", "0.4") == 0
    assert written() == ["a.png", "predictions.json", "sub/a.png", "sub/b.JPG"]
    assert "3/3" in capsys.readouterr().err
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    found = records()
    files = ["photos/a.png", "photos/sub/a.png", "photos/sub/b.JPG"]
    assert [record["file"] for record in found] == files
    images = [read_image(Path(file)) for file in files]
    expected = [*predictor(images[:2]), *predictor(images[2:])]
    for record, image, detections in zip(found, images, expected, strict=True):
        assert record["size"] == {"height": 70, "width": 90}
        rows = record["detections"]
        assert len(rows) > 1
        # Written and read back without any loss.
        assert np.array_equal(np.array([row["box"] for row in rows], np.float32), detections.boxes)
        assert np.array_equal(
            np.array([row["score"] for row in rows], np.float32), detections.scores
        )
        assert [row["label"] for row in rows] == [LABELS.names[k - 1] for k in detections.labels]
        assert min(detections.scores) < 0.4 < max(detections.scores)
        picture = draw(
            image,
            detections.boxes,
            detections.labels,
            detections.scores,
            LABELS.names,
            score_threshold=0.4,
        )
        written_picture = read_image(Path("out", *Path(record["file"]).parts[1:])).astype(int)
        tolerance = 0 if record["file"].endswith("png") else 12
        assert np.abs(written_picture - picture).mean() <= tolerance


def test_a_second_run_does_not_see_the_first(checkpoint: Path, folder: Path) -> None:
    for _ in range(2):
        assert predict(checkpoint, ".") == 0
        assert len(records()) == 3
    assert "photos/sub/a.png" in written()


def test_patterns_and_files_are_drawn_once(checkpoint: Path, folder: Path) -> None:
    (folder / "odd[1].image").write_bytes((folder / "photos/a.png").read_bytes())
    arguments = ("photos/**/a.*", "photos/sub", "photos/a.png", "odd[1].image")
    assert predict(checkpoint, *arguments) == 0
    assert written() == [
        "odd[1].png",
        "photos/a.png",
        "photos/sub/a.png",
        "photos/sub/b.JPG",
        "predictions.json",
    ]
    assert len(records()) == 4


def test_an_improved_ensemble(checkpoint: Path, folder: Path) -> None:
    other = save_checkpoint(folder / "other.ckpt", seed=1)
    image = read_image(Path("photos/a.png"))
    improvements = Improvements(flip=True, voting=True)

    def boxes(*others: Path, improvements: Improvements = Improvements()) -> list:
        ensemble = Predictor.from_checkpoint(
            checkpoint, "cpu", others=others, improvements=improvements
        )
        return ensemble([image])[0].boxes.tolist()

    assert predict(checkpoint, "photos/a.png", "--flip", "--vote", "--checkpoint", str(other)) == 0
    (record,) = records()
    found = [row["box"] for row in record["detections"]]
    assert found == boxes(other, improvements=improvements)
    assert found != boxes(improvements=improvements)
    assert found != boxes(other)


def test_improvements_that_do_not_go_together(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(checkpoint, "photos", "--fuse") == 2
    assert capsys.readouterr().err.startswith("resdet predict: ")


def test_pictures_of_one_name_do_not_collide(checkpoint: Path, folder: Path) -> None:
    for suffix in ("webp", "bmp", "jpg"):
        save_photo(folder / f"photos/a.{suffix}", 5)
    save_photo(folder / "other/a.png", 6)
    save_photo(folder / "other/c.tif", 7)
    assert predict(checkpoint, "photos/*", "other") == 0
    assert written() == [
        "other/a.png",
        "other/c.png",
        "photos/a.bmp.png",
        "photos/a.jpg",
        "photos/a.png",
        "photos/a.webp.png",
        "predictions.json",
    ]
    for name in written()[:-1]:
        Image.open(Path("out", name)).load()


def test_unreadable_images_are_skipped(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / "photos/sub/b.JPG").read_bytes()
    (folder / "photos/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "photos/text.png").write_text("not an image")
    assert predict(checkpoint, "photos", "--batch-size", "1") == 1
    error = capsys.readouterr().err
    assert "photos/cut.jpg" in error
    assert "photos/text.png" in error
    assert "skipped 2 of 5 images" in error
    assert written() == ["a.png", "predictions.json", "sub/a.png", "sub/b.JPG"]


@pytest.mark.parametrize("argument", ["missing.jpg", "missing/", "photos/*.bmp", "missing/*.jpg"])
def test_an_input_that_does_not_exist(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    assert predict(checkpoint, "photos", argument) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"resdet predict: {argument}: no such file or folder")
    assert error.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize("argument", ["empty", "photos/*.txt"])
def test_no_images(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    Path("empty").mkdir()
    assert predict(checkpoint, argument) == 1
    assert f"no images in {argument}" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("argument", ["photos", "photos/a.png", "photos/*.png"])
def test_never_replaces_an_image(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    before = Path("photos/a.png").read_bytes()
    Path("out").symlink_to("photos")
    assert predict(checkpoint, argument) == 2
    assert "--output out: the picture of photos/a.png" in capsys.readouterr().err
    assert Path("photos/a.png").read_bytes() == before


def test_a_bad_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(Path("photos/notes.txt"), "photos") == 2
    assert "resdet predict: photos/notes.txt: cannot be read" in capsys.readouterr().err
    assert predict(Path("none.ckpt"), "photos") == 2
    assert "none.ckpt" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file(
    checkpoint: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"old")

    def fail(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert predict(checkpoint, "photos") == 2
    assert "No space left" in capsys.readouterr().err
    monkeypatch.undo()
    out = folder / "out"
    assert [path.name for path in out.iterdir()] == ["a.png"]
    assert (out / "a.png").read_bytes() == b"old"


@pytest.mark.parametrize(("done", "said"), [(2, "2 of 3 images"), (0, "0 of 3 images")])
def test_ctrl_c_leaves_what_was_done(
    checkpoint: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    done: int,
    said: str,
) -> None:
    assert predict(checkpoint, "photos/sub") == 0
    before = records()
    calls = iter(range(3))

    def interrupted(*arguments: object, **options: object) -> np.ndarray:
        if next(calls) == done:
            raise KeyboardInterrupt
        return draw(*arguments, **options)

    monkeypatch.setattr("detection.inference.drawing.draw", interrupted)
    assert predict(checkpoint, "photos", "--batch-size", "1") == 130
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("resdet predict: stopped")
    assert said in lines[-1]
    files = ["photos/a.png", "photos/sub/a.png"]
    assert [one["file"] for one in records()] == (
        files if done else [one["file"] for one in before]
    )


@pytest.mark.parametrize("arguments", [["--batch-size", "0"], ["--device", "abacus"]])
def test_bad_options(checkpoint: Path, folder: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        predict(checkpoint, "photos", *arguments)
    assert error.value.code == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from resdet.tools.predict import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "glob" in loaded
    assert {"torch", "numpy", "cv2", "rich", "PIL"}.isdisjoint(loaded)
