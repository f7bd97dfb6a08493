import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detection.reproduction import recording
from detection.reproduction.documents import find_blocks
from resdet.tools import claims
from resdet.tools.claims import main

TEMPLATE = '{% set run = artefact("startup") %}\nIt takes {{ "%.1f" % run.seconds }} s.\n'
RIGHT = "# Tool\n\n<!-- generated: startup -->\nIt takes 2.0 s.\n<!-- end: startup -->\n"
FACTS: dict[str, Any] = {
    "command": "resdet benchmark startup",
    "kind": "speed",
    "environment": {"python": "3.11.7", "machine": "2 cores", "torch": "2.11"},
    "seconds": 2.0,
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one document, one template and two artefacts."""
    monkeypatch.setattr(claims, "COMMANDS", {})
    for folder in (claims.TEMPLATES, *claims.ARTEFACTS, "backbones"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / claims.TEMPLATES / "startup.md.jinja").write_text(TEMPLATE)
    for name in ("startup", "unused"):
        (tmp_path / claims.ARTEFACTS[0] / f"{name}.json").write_text(json.dumps(FACTS))
    (tmp_path / "README.md").write_text(RIGHT)
    return tmp_path


def run(checkout: Path, *options: str) -> int:
    return main([*options, "--root", str(checkout)])


def test_blocks_are_listed_with_their_commands(checkout: Path, capsys: pytest.CaptureFixture[str]):
    assert run(checkout) == 0
    output, error = capsys.readouterr()
    assert output.splitlines() == [
        "README.md",
        "  startup",
        "    startup.json: resdet benchmark startup",
        "in no block: tools/benchmarks/reports/unused.json",
    ]
    assert error == ""


def test_a_stale_block_is_written_anew(checkout: Path, capsys: pytest.CaptureFixture[str]):
    readme = checkout / "README.md"
    readme.write_text(RIGHT.replace("2.0", "1.9"))
    assert run(checkout) == 1
    expected = "resdet claims: README.md: block startup is stale: `resdet claims --write`\n"
    assert capsys.readouterr().err == expected
    assert run(checkout, "--write") == 0
    assert readme.read_text() == RIGHT
    assert run(checkout) == 0


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("README.md", RIGHT + "In 7 s.\n", "README.md: line 6: a figure without an artefact: 7 s"),
        ("backbones/README.md", "0.5", "backbones/README.md: line 1: a figure without an artefact"),
        (
            "README.md",
            RIGHT + "<!-- end: a -->\n",
            "README.md: block a ends where it did not begin",
        ),
        ("README.md", "Nothing.\n", "startup.md.jinja: no document has this block"),
        (f"{claims.TEMPLATES}/unused.md.jinja", TEMPLATE, "unused.md.jinja: no document has this"),
        ("tools/benchmarks/reports/startup.json", "{}", "startup.json: command is missing"),
        ("detection/reproduction/claims/startup.md.jinja", "It.\n", "it draws on no artefact"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--write"]])
def test_problems(
    checkout: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    text: str,
    message: str,
    options: list[str],
):
    (checkout / file).write_text(text)
    assert run(checkout, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("resdet claims: ")
    assert message in error
    assert (checkout / file).read_text() == text


def test_a_folder_that_is_no_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path) == 1
    assert "no README.md; --root names the checkout" in capsys.readouterr().err


def test_a_block_that_a_tool_prints(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def table(argv: list[str]) -> int:
        sys.stdout.write(f"a table of {argv}\n")
        return 3 if argv else 0

    monkeypatch.setitem(sys.modules, "resdet.tools.table", SimpleNamespace(main=table))
    document = checkout / "backbones/README.md"
    document.write_text("<!-- generated: shapes -->\n<!-- end: shapes -->\n")
    monkeypatch.setattr(claims, "COMMANDS", {"shapes": ["table", "broken"]})
    assert run(checkout, "--write") == 1
    assert capsys.readouterr().err == "resdet claims: resdet table broken: exit code 3\n"
    monkeypatch.setattr(claims, "COMMANDS", {"shapes": ["table"]})
    assert run(checkout) == 1
    output, error = capsys.readouterr()
    assert "  shapes: resdet table\n" in output
    assert "backbones/README.md: block shapes is stale" in error
    assert run(checkout, "--write") == 0
    (block,) = find_blocks(document.read_text())
    assert block.text == "a table of []\n"


def test_recording(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []

    def record(*arguments: Any) -> dict[str, Any]:
        seen.extend(arguments)
        return FACTS

    monkeypatch.setattr(recording, "record", record)
    new = str(checkout / "new")
    assert run(checkout, "--record", "quick-start", new) == 1
    assert "there are no commands 'quick-start'" in capsys.readouterr().err
    fence = "\n<!-- commands: quick-start -->\n```sh\nbin/resdet shapes data\n```\n"
    (checkout / "README.md").write_text(RIGHT + fence)
    assert run(checkout, "--record", "quick-start", new) == 0
    assert seen == [[["shapes", "data"]], Path(new), "README.md, quick-start"]
    path = checkout / "detection/reproduction/artefacts/quick-start.json"
    assert json.loads(path.read_text()) == FACTS
    assert str(path) in capsys.readouterr().out
