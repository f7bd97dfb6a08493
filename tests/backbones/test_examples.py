"""Every example runs, as a user would start it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import backbones

FOLDER = Path(backbones.__file__).parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
# A file is named after the library it is for; these are imported under other names.
LIBRARIES = {"huggingface": "transformers", "mmdetection": "mmdet"}


def test_every_library_has_an_example():
    prefixes = {path.name.split("_")[0] for path in EXAMPLES}
    assert prefixes >= {"torchvision", "timm", "huggingface", "detectron2", "mmdetection"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    library = path.name.split("_")[0]
    if find_spec(LIBRARIES.get(library, library)) is None:
        pytest.skip(f"{library} is not installed")
    done = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TORCH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []  # nothing is downloaded or left behind
