"""Who may import whom, by DESIGN's rooms, and what an import may pull in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODEL = "detection.model."
DATA = "detection.data."
# room -> prefixes of the project's own modules it may import, its own room apart
ALLOWED = {
    "backbones": (),
    "detection.structures": (),
    "detection.boxes": (),
    "detection.checkpoint": (
        "backbones",
        MODEL + "build",
        MODEL + "faster_rcnn",
        DATA + "labels",
    ),
    MODEL + "anchors": (),
    MODEL + "suppression": (),
    MODEL + "pooling": ("detection.boxes",),
    MODEL + "matching": ("detection.structures",),
    MODEL + "rpn": (MODEL + "anchors", MODEL + "suppression", "detection.boxes"),
    MODEL + "roi_head": (
        MODEL + "rpn",
        MODEL + "suppression",
        "detection.boxes",
        "detection.structures",
    ),
    MODEL + "faster_rcnn": (
        MODEL + "rpn",
        MODEL + "roi_head",
        "detection.structures",
        "backbones",
    ),
    MODEL + "context": (MODEL + "roi_head",),
    MODEL + "views": ("detection.structures",),
    MODEL + "refinement": (
        MODEL + "roi_head",
        MODEL + "rpn",
        "detection.boxes",
        "detection.structures",
    ),
    MODEL + "pyramid": (
        MODEL + "faster_rcnn",
        MODEL + "roi_head",
        MODEL + "rpn",
        "detection.structures",
    ),
    MODEL + "ensemble": (MODEL + "faster_rcnn", MODEL + "roi_head"),
    MODEL + "fusion": ("detection.structures",),
    MODEL + "improved": (
        MODEL + "ensemble",
        MODEL + "faster_rcnn",
        MODEL + "fusion",
        MODEL + "pyramid",
        MODEL + "refinement",
        MODEL + "roi_head",
        MODEL + "rpn",
        MODEL + "views",
        "detection.structures",
    ),
    MODEL + "criterion": (
        MODEL + "faster_rcnn",
        MODEL + "rpn",
        MODEL + "roi_head",
        MODEL + "matching",
        "detection.boxes",
        "detection.structures",
    ),
    MODEL + "build": (
        "backbones",
        MODEL + "anchors",
        MODEL + "pooling",
        MODEL + "rpn",
        MODEL + "roi_head",
        MODEL + "context",
        MODEL + "faster_rcnn",
    ),
    MODEL + "localization": (
        "backbones",
        MODEL + "anchors",
        "detection.boxes",
        "detection.structures",
    ),
    MODEL + "localization_build": (
        "backbones",
        MODEL + "anchors",
        MODEL + "localization",
    ),
    MODEL + "localization_criterion": (
        MODEL + "criterion",
        MODEL + "localization",
        MODEL + "matching",
        MODEL + "rpn",
        "detection.structures",
    ),
    MODEL + "complexity": (
        "backbones",
        MODEL + "context",
        MODEL + "faster_rcnn",
        MODEL + "improved",
    ),
    "detection.processes": (),
    "detection.json_rows": ("detection.processes",),
    "detection.atomic": (),
    "detection.data": ("detection.atomic", "detection.json_rows", "detection.structures"),
    "detection.data.download": ("detection.data", "backbones.download"),
    # What a localizer sees is what a classifier sees, with boxes.
    "detection.data.localization_views": (
        "backbones.classification",
        "detection.data",
        "detection.structures",
    ),
    "detection.evaluation": ("detection.json_rows", "detection.structures"),
    "detection.reproduction": ("detection.evaluation", "detection.data", "detection.structures"),
    "detection.inference": (
        "detection.checkpoint",
        "detection.structures",
        MODEL + "faster_rcnn",
        MODEL + "improved",
        DATA + "images",
        DATA + "labels",
        DATA + "records",
        DATA + "transforms",
    ),
    "detection.training": (
        "detection.atomic",
        "detection.checkpoint",
        "detection.structures",
        "detection.model",
        "detection.evaluation",
        "detection.data",
        "detection.inference.drawing",
    ),
    **{
        f"detection.training.{name}": (
            "backbones",
            "detection.checkpoint",
            "detection.data",
            "detection.evaluation",
            "detection.model",
            "detection.structures",
            "detection.training",
        )
        for name in ("localization", "localization_data", "localization_testing")
    },
}
# third party -> the only modules (or rooms) that may import it
CONFINED = {
    "pytorch_lightning": (
        "backbones.classification",
        "detection.training",
        "detection.data.datamodule",
        "detection.data.loading",
    ),
    "hotcoco": ("detection.evaluation",),
    "jinja2": (
        "detection.evaluation.report",
        "detection.reproduction.ledger",
        "detection.reproduction.pages",
    ),
    "msgspec": ("detection.json_rows", "detection.data", "detection.evaluation.results"),
    "pycocotools": ("detection.evaluation.engines",),
    "albumentations": ("detection.data.transforms",),
    "cv2": ("detection.data.transforms", "detection.inference.drawing"),
}


def _modules() -> Iterator[tuple[str, Path]]:
    for package in ("backbones", "detection"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def _within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def _room(name: str) -> str:
    rooms = [room for room in ALLOWED if _within(name, room)]
    assert rooms or name in ("detection", "detection.model"), f"{name} has no room"
    return max(rooms, key=len, default=name)


def test_modules_import_only_what_their_room_may() -> None:
    wrong = []
    for name, path in _modules():
        room = _room(name)
        for imported in _imports(path):
            own = imported.split(".")[0] in ("backbones", "detection", "resdet", "tools")
            allowed = (room, *ALLOWED.get(room, ()))
            if own and not any(_within(imported, one) for one in allowed):
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_heavy_libraries_stay_in_their_rooms() -> None:
    wrong = []
    for name, path in _modules():
        for imported in _imports(path):
            rooms = CONFINED.get(imported.split(".", maxsplit=1)[0])
            if rooms and not any(_within(name, room) for room in rooms):
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("backbones", ("pytorch_lightning", "albumentations", "pycocotools", "detection")),
        ("detection.model.build", ("pytorch_lightning", "albumentations", "pycocotools")),
        ("resdet.tools.__main__", ("torch", "numpy", "rich")),
    ],
)
def test_import_stays_light(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(absent).isdisjoint(loaded)


def test_no_public_function_is_too_long() -> None:
    long = []
    for _, path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
                if (node.end_lineno or 0) - body[0].lineno >= 45:
                    long.append(f"{path}:{node.lineno} {node.name}")
    assert long == []
