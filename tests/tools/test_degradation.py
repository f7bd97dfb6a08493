import json
from pathlib import Path

import pytest

from backbones.classification import degradation
from backbones.classification.degradation import NETWORKS, Run
from detection.reproduction.artefacts import config_sha256, read_artefact
from resdet.tools.degradation import main

HASH = "0123456789abcdef" * 4
SMALL = ["--seeds=1", "--steps=8", "--batch-size=4", "--images=16", "--test-images=4"]


def test_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # Three of the four runs are there: the tool trains the last.
    done = {f"{name}/0": Run(10.0, 20.0, [(1, 90.0)], [(1, 80.0)], HASH, 90.0) for name in NETWORKS}
    del done["cifar_plain20/0"]
    recipe = degradation.Recipe(8, 4, 0.01, 16, 4)
    path = tmp_path / "study.json"
    runs = {key: run._asdict() for key, run in done.items()}
    path.write_text(json.dumps({"recipe": vars(recipe), "runs": runs}))
    assert main([*SMALL, f"--output={tmp_path}"]) == 0
    content = json.loads(path.read_text())
    assert sorted(content["runs"]) == sorted(f"{name}/0" for name in NETWORKS)
    assert len(content["runs"]["cifar_plain20/0"]["train"]) == 8
    assert content["summary"]["cifar_plain56"]["train_error"] == {"mean": 10.0, "std": 0.0}
    out = capsys.readouterr().out
    assert "| cifar_resnet56 | 1 | 10.00 ± 0.00 | 20.00 ± 0.00 |" in out
    figure = tmp_path / "curves.svg"
    assert "<svg" in figure.read_text()

    # The second time there is nothing to do but to report.
    before = path.stat().st_mtime_ns
    report = tmp_path / "new" / "report.json"
    options = [*SMALL, f"--output={tmp_path}", f"--report={report}"]
    assert main(options) == 0
    assert path.stat().st_mtime_ns == before
    facts = read_artefact(report).facts
    assert facts["command"] == f"resdet degradation {' '.join(options)}"
    assert facts["config_sha256"] == config_sha256(vars(recipe))
    assert facts["seeds"] == [0]
    assert facts["predictions_sha256"]["cifar_plain56/0"] == HASH
    assert facts["minutes"] == pytest.approx(4.5, abs=0.5)
    assert facts["summary"] == content["summary"]
    assert facts["runs"]["cifar_plain56/0"] == {"train_error": 10.0, "test_error": 20.0}


@pytest.mark.parametrize(
    ("content", "option", "reason"),
    [
        ('{"recipe": {"steps": 9}, "runs": {}}', "--seeds=1", "choose another --output"),
        ("{", "--seeds=1", "not a study's results"),
        ("[]", "--seeds=1", "not a study's results"),
        (None, "--steps=3", "expected at least 8 steps"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    option: str,
    reason: str,
):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    assert main([*SMALL, f"--output={tmp_path}", option]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resdet degradation: ")
    assert reason in line


def test_no_seeds(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as error:
        main(["--seeds=0"])
    assert error.value.code == 2
    assert "at least 1" in capsys.readouterr().err
