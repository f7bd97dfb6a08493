"""What `resdet reproduce --from` takes in place of trainings: evaluated runs, prediction files."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from detection.reproduction.evaluated import read_figures
from detection.reproduction.step import Step
from detection.reproduction.study import Study


def given_runs(
    texts: Sequence[str], study: Study, output: Path
) -> tuple[list[Step], dict[str, list[Path]]]:
    """Reads ``KEY=PATH``: folders serve as they are, files by a step that scores them.

    Args:
        texts: what was given; several of a key are its seeds.
        study: whose rows they are of.
        output: folder of the runs.

    Returns:
        The steps, and by key the folders of the evaluations.

    Raises:
        OSError: a folder's figures cannot be read.
        ValueError: a key, path or test set is not the study's; the message names it.
    """
    steps: list[Step] = []
    folders: dict[str, list[Path]] = {}
    for text in texts:
        key, _, path = text.partition("=")
        _check_key(text, key, path, study)
        own = folders.setdefault(key, [])
        if Path(path).is_dir():
            _check_split(Path(path), study.split)
            own.append(Path(path))
            continue
        name = f"given-{key}-{len(own)}"
        steps.append(_scored(name, _files(text, path), study, output / "evaluations" / name))
        own.append(output / "evaluations" / name)
    return steps, folders


def _check_key(text: str, key: str, path: str, study: Study) -> None:
    tests = {row.key: row.published[0].test if row.published else study.test for row in study.rows}
    if key not in tests or not path:
        keys = [name for name, test in tests.items() if test == study.test]
        raise ValueError(f"--from {text}: expected KEY=PATH with KEY one of {', '.join(keys)}")
    if tests[key] != study.test:
        raise ValueError(
            f"--from {text}: {key} is tested on {tests[key]}, and {study.name} on {study.test}"
        )


def _check_split(folder: Path, split: str) -> None:
    found = read_figures(folder)["split"]
    if found != split:
        raise ValueError(f"{folder}: evaluated on split {found}, expected {split}")


def _files(text: str, path: str) -> tuple[Path, ...]:
    files = [path] if Path(path).is_file() else sorted(glob.glob(path))
    if not files:
        raise ValueError(f"--from {text}: no such folder or file")
    return tuple(map(Path, files))


def _scored(name: str, files: tuple[Path, ...], study: Study, folder: Path) -> Step:
    command = (
        *("evaluate", "--predictions", *map(str, files), "--data", str(study.data)),
        *("--split", study.split, "--output", str(folder)),
    )
    return Step(name, command, makes=folder / "figures.json", reads=files)
