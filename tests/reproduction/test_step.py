import json
from pathlib import Path

import pytest

from detection.reproduction.step import Step, begin, end, forget, is_done, seconds_of


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
        ValueError, match=r"own\.json: made by `resdet train`, now wanted `resdet a"
    ):
        is_done(step._replace(command=("alternate",)), tmp_path)


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
    assert begin(step, tmp_path) == ()
    assert begin(step, tmp_path) == ()  # it had no checkpoint yet
    step.resumes.touch()
    assert begin(step, tmp_path) == ("--resume",)
    assert step.resumes.is_file()


def test_a_finished_run_is_not_taken_for_the_new_one(step: Step, tmp_path: Path) -> None:
    """Its checkpoints are removed, so that the tool starts from nothing."""
    finish(step, tmp_path)
    step.resumes.touch()
    forget(step, tmp_path)
    assert begin(step, tmp_path) == ()
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("change", ["before", "command"])
def test_another_try_is_not_resumed(step: Step, tmp_path: Path, change: str) -> None:
    begin(step, tmp_path)
    step.resumes.touch()
    if change == "before":
        finish(Step("before", ("shapes",)), tmp_path)
    else:
        step = step._replace(command=("alternate",))
    assert begin(step, tmp_path) == ()
    assert not step.resumes.exists()


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
