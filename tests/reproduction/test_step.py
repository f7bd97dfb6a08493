import json
import shutil
from pathlib import Path

import pytest

from detection.reproduction.step import Beginning, Step, begin, end, forget, is_done, seconds_of


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A training that comes after another step, which is done."""
    (tmp_path / "steps").mkdir()
    finish(Step("before", ("shapes",)), tmp_path)
    run = tmp_path / "run"
    (run / "step1").mkdir(parents=True)
    return Step("own", ("train",), run / "step1/last.ckpt", ("before",), run / "last.ckpt")


def finish(step: Step, output: Path) -> None:
    begin(step, output)
    if step.makes is not None:
        step.makes.touch()
    end(step, output, 1.23)


def test_what_has_ended_is_done_until_it_is_forgotten(step: Step, tmp_path: Path) -> None:
    assert not is_done(step, tmp_path)
    finish(step, tmp_path)
    assert is_done(step, tmp_path)
    assert seconds_of("own", tmp_path) == 1.2
    assert not list((tmp_path / "steps").glob("*.started"))
    assert not is_done(step._replace(always=True, command=("evaluate",)), tmp_path)
    forget(step, tmp_path)
    assert not is_done(step, tmp_path)
    assert seconds_of("own", tmp_path) is None


def test_another_command_is_refused(step: Step, tmp_path: Path) -> None:
    finish(step, tmp_path)
    with pytest.raises(
        ValueError,
        match=r"own\.json: made by `resdet train`, now wanted `resdet a.*or remove .*run$",
    ):
        is_done(step._replace(command=("alternate",)), tmp_path)


def test_paths_may_be_spelled_otherwise(
    step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = (
        step._replace(command=("train", "--max_steps", "2", "--output", str(path)))
        for path in (Path("run"), tmp_path / "run")
    )
    begin(relative, Path())
    step.resumes.touch()
    assert begin(absolute, tmp_path).options == ("--resume",)
    finish(relative, Path())
    assert is_done(absolute, tmp_path)


def test_without_its_product_a_step_is_not_done(step: Step, tmp_path: Path) -> None:
    finish(step, tmp_path)
    step.makes.unlink()
    assert not is_done(step, tmp_path)


def test_a_step_whose_file_has_changed_is_not_done(step: Step, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text("1")
    step = step._replace(reads=(given,))
    finish(step, tmp_path)
    assert is_done(step, tmp_path)
    given.write_text("2")
    assert not is_done(step, tmp_path)


def test_the_same_try_goes_on(step: Step, tmp_path: Path) -> None:
    assert begin(step, tmp_path) == Beginning()
    assert begin(step, tmp_path) == Beginning()  # it had no checkpoint yet
    step.resumes.touch()
    assert begin(step, tmp_path) == Beginning(("--resume",))
    assert step.resumes.is_file()


def test_a_try_without_its_last_checkpoint_begins_anew(step: Step, tmp_path: Path) -> None:
    begin(step, tmp_path)
    (tmp_path / "run" / "best.ckpt").touch()
    began = begin(step, tmp_path)
    reason = f"there is no {step.resumes}: own; removed from {tmp_path}/run: best.ckpt"
    assert began == Beginning((), f"begun anew, as {reason}")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", ["before", "reads"])
def test_what_depends_on_a_change_begins_anew_and_says_so(
    step: Step, tmp_path: Path, change: str, finished: bool
) -> None:
    start = tmp_path / "coco.pt"
    start.write_text("1")
    step = step._replace(reads=(start,))
    begin(step, tmp_path)
    step.resumes.touch()
    if finished:
        finish(step, tmp_path)
    if change == "before":
        finish(Step("before", ("shapes",)), tmp_path)
    else:
        start.write_text("2")
        assert not is_done(step, tmp_path)
    forget(step, tmp_path)
    names = "last.ckpt, step1/last.ckpt" if finished else "step1/last.ckpt"
    began = begin(step, tmp_path)
    reason = f"what it depends on has changed: own; removed from {tmp_path}/run: {names}"
    assert began == Beginning((), f"begun anew, as {reason}")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("finished", [False, True])
def test_checkpoints_of_another_command_are_kept(
    step: Step, tmp_path: Path, finished: bool
) -> None:
    begin(step, tmp_path)
    step.resumes.touch()
    if finished:
        finish(step, tmp_path)
        forget(step, tmp_path)
    wanted = (
        r"run: has .*step1/last\.ckpt of `resdet train`, now wanted `resdet alternate`: .*remove"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=wanted):
            begin(step._replace(command=("alternate",)), tmp_path)
    assert step.resumes.is_file()
    assert begin(step, tmp_path) == Beginning(("--resume",))  # the command that they are of goes on


def test_checkpoints_of_nobody_knows_which_command_are_kept(step: Step, tmp_path: Path) -> None:
    step.resumes.touch()
    with pytest.raises(ValueError, match=r"has step1/last\.ckpt of an unknown command, now wanted"):
        begin(step, tmp_path)
    assert step.resumes.is_file()
    shutil.rmtree(tmp_path / "run")
    assert begin(step, tmp_path) == Beginning()


def test_weights_that_were_made_by_hand_are_kept(step: Step, tmp_path: Path) -> None:
    weights = tmp_path / "run" / "weights.safetensors"
    weights.touch()
    with pytest.raises(ValueError, match=r"run: has weights\.safetensors of an unknown command"):
        begin(step._replace(makes=weights), tmp_path)
    assert weights.is_file()


def test_a_product_of_before_is_not_taken_for_the_new_one(step: Step, tmp_path: Path) -> None:
    figures = tmp_path / "run" / "figures.json"
    figures.touch()
    begin(Step("evaluate", ("evaluate",), makes=figures), tmp_path)
    assert not figures.exists()


def test_a_marker_says_what_was_done(step: Step, tmp_path: Path) -> None:
    finish(step, tmp_path)
    facts = json.loads((tmp_path / "steps" / "own.json").read_bytes())
    assert facts["command"] == ["train"]
    assert list(facts["after"]) == [str(tmp_path / "steps" / "before.json")]
    assert facts["ended"].endswith("+00:00")
