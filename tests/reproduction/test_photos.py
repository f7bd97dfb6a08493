from pathlib import Path

from detection.reproduction.photos import photos
from detection.reproduction.study import study_steps


def test_trainings_depend_on_the_weights_file() -> None:
    study = photos(Path("voc"), Path("/resnet18.pth"), [0, 1])
    reads = {step.name: step.reads for step in study_steps(study, Path("out"), [0, 1])}
    trained = {name: files for name, files in reads.items() if files}
    assert trained == dict.fromkeys(("photos-seed-0", "photos-seed-1"), (Path("/resnet18.pth"),))
