import json
import os
from pathlib import Path

import pytest

from detection.reproduction import steps as module
from detection.reproduction.step import Step, seconds_of
from detection.reproduction.steps import StepError, in_order, last_line, pending, run_steps


def _quiet(name: str, line: str | None) -> None:
    pass


def _draw(name: str, folder: Path, *after: str) -> Step:
    sizes = ("--train", "1", "--val", "1", "--test", "1")
    return Step(name, ("shapes", str(folder), *sizes), None, after)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step], list[tuple]]:
    root = tmp_path_factory.mktemp("runs")
    steps = [
        _draw("a", root / "a"),
        _draw("b", root / "b"),
        Step("c", ("shapes", str(root / "c"), "--train", "1", "--seed", "1"), None, ("a", "b")),
    ]
    told: list[tuple] = []
    run_steps(steps, root, lambda *words: told.append(words), jobs=2)
    return root, steps, told


def test_steps_run_in_their_order(done) -> None:
    root, _, told = done
    assert [(root / name / "shapes.json").is_file() for name in "abc"] == [True] * 3
    ended = [name for name, line in told if line is None]
    assert sorted(ended[:2]) == ["a", "b"]
    assert ended[2] == "c"
    started = [name for name, _ in told]
    assert started.index("c") > max(told.index(("a", None)), told.index(("b", None)))


def test_what_holds_up_most_begins_first(tmp_path: Path) -> None:
    steps = [
        _draw("alone", tmp_path),
        _draw("first", tmp_path),
        _draw("short", tmp_path),
        _draw("second", tmp_path, "first"),
        _draw("third", tmp_path, "second"),
        _draw("after short", tmp_path, "short"),
    ]
    names = [step.name for step in in_order(steps, jobs=2)]
    assert names == ["first", "short", "second", "alone", "third", "after short"]
    assert in_order(steps, jobs=1) == steps


def test_a_chain_begins_before_what_stands_alone(tmp_path: Path) -> None:
    steps = [
        *(_draw(name, tmp_path / name) for name in ("a", "b")),
        _draw("chain", tmp_path / "chain"),
        _draw("end", tmp_path / "end", "chain"),
    ]
    told: list[tuple[str, str | None]] = []
    run_steps(steps, tmp_path, lambda *words: told.append(words), jobs=2)
    assert {*list(dict.fromkeys(name for name, _ in told))[:2]} == {"chain", "a"}


def test_what_is_done_is_not_pending(done) -> None:
    root, steps, _ = done
    assert pending(steps, root) == []
    assert seconds_of("a", root) > 0
    assert seconds_of("elsewhere", root) is None


def test_a_step_done_anew_takes_those_after_it_along(done) -> None:
    root, steps, _ = done
    marker = root / "steps" / "a.json"
    text = marker.read_text()
    marker.unlink()
    try:
        assert [step.name for step in pending(steps, root)] == ["a", "c"]
    finally:
        marker.write_text(text)


def test_another_command_is_refused(done) -> None:
    root, steps, _ = done
    changed = [steps[0]._replace(command=("shapes", "elsewhere"))]
    with pytest.raises(ValueError, match=r"a\.json: made by `resdet shapes .*now wanted"):
        pending(changed, root)


def test_a_step_before_the_one_it_waits_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step b waits for \['a'\]"):
        pending([_draw("b", tmp_path / "b", "a")], tmp_path)


def test_a_failure_names_step_reason_and_log_and_leaves_no_marker(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    steps = [_draw("bad", tmp_path / "full"), _draw("after", tmp_path / "after", "bad")]
    wanted = r"bad: exit code 1: resdet shapes: .*full.*log: .*bad\.log"
    with pytest.raises(StepError, match=wanted):
        run_steps(steps, tmp_path, _quiet)
    assert not (tmp_path / "after").exists()
    assert [step.name for step in pending(steps, tmp_path)] == ["bad", "after"]


def test_an_interrupted_step_is_resumed_and_one_done_anew_is_not(tmp_path: Path) -> None:
    """What asks for --resume of a tool without it fails, and so shows that it was asked."""
    first = _draw("first", tmp_path / "first")
    step = _draw("train", tmp_path / "data", "first")._replace(resumes=tmp_path / "run/last.ckpt")
    checkpoint = tmp_path / "run" / "last.ckpt"
    run_steps([first, step], tmp_path, _quiet)
    checkpoint.parent.mkdir()
    checkpoint.touch()  # of the finished run
    (tmp_path / "steps" / "first.json").unlink()
    said: list[str] = []
    run_steps([first, step], tmp_path, _quiet, say=said.append)
    assert not checkpoint.exists()
    why = "what it depends on has changed"
    removed = f"removed from {checkpoint.parent}: last.ckpt"
    assert said == [f"begun anew, as {why}: train; {removed}"]

    (tmp_path / "run" / "x").touch()
    broken = _draw("broken", tmp_path / "run", "first")._replace(resumes=checkpoint)
    with pytest.raises(StepError, match="exit code 1: resdet shapes"):
        run_steps([first, broken], tmp_path, _quiet)
    checkpoint.touch()  # as if it had come as far as that
    with pytest.raises(StepError, match="unrecognized arguments: --resume"):
        run_steps([first, broken], tmp_path, _quiet)
    assert checkpoint.is_file()


def test_checkpoints_of_others_are_refused_before_anything_runs(tmp_path: Path) -> None:
    first = _draw("first", tmp_path / "first")
    step = _draw("train", tmp_path / "data", "first")._replace(resumes=tmp_path / "run/last.ckpt")
    step.resumes.parent.mkdir()
    step.resumes.touch()
    with pytest.raises(
        ValueError, match=r"last\.ckpt of an unknown command, now wanted `resdet sh"
    ):
        run_steps([first, step], tmp_path, _quiet)
    assert step.resumes.is_file()
    assert not (tmp_path / "first").exists()


def test_a_step_without_its_product_is_not_done(tmp_path: Path) -> None:
    step = _draw("a", tmp_path / "a")._replace(makes=tmp_path / "a" / "figures.json")
    with pytest.raises(StepError, match=r"a: exit code 0, but .*figures\.json is not there \(log"):
        run_steps([step], tmp_path, _quiet)
    assert not (tmp_path / "steps" / "a.json").exists()
    assert pending([step], tmp_path) == [step]


STUBBORN = """#!/bin/sh
[ "$3" = fail ] && while [ ! -e "$4" ]; do sleep 0.05; done && exit 3
trap "" TERM
echo $$ > "$4"
while :; do sleep 0.05; done
"""


def test_a_process_that_ignores_the_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, pid = tmp_path / "program", tmp_path / "pid"
    program.write_text(STUBBORN)
    program.chmod(0o755)
    monkeypatch.setattr(module, "_GRACE", 0.3)
    monkeypatch.setattr(module.sys, "executable", str(program))
    steps = [Step("stubborn", ("stay", str(pid))), Step("fails", ("fail", str(pid)))]
    with pytest.raises(StepError, match="fails: exit code 3"):
        run_steps(steps, tmp_path, _quiet, jobs=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not (tmp_path / "steps" / "stubborn.json").exists()


def test_a_folder_has_one_runner(tmp_path: Path) -> None:
    def tell(name: str, line: str | None) -> None:
        if line is None:
            with pytest.raises(ValueError, match="another process works in this folder"):
                run_steps([], tmp_path, _quiet)

    run_steps([_draw("a", tmp_path / "a")], tmp_path, tell)
    assert json.loads((tmp_path / "steps" / "a.json").read_text())["command"][0] == "shapes"


@pytest.mark.parametrize(
    ("text", "line"),
    [("", ""), ("one\ntwo\n\n", "two"), ("10%\r50%\r", "50%"), ("x" * 9000 + "\nend", "end")],
)
def test_last_line(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "log"
    file.write_text(text)
    assert last_line(file) == line
