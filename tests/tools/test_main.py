import os
import subprocess
import sys
from pathlib import Path

import pytest

from resdet.tools import __main__ as console

TOOLS = Path(console.__file__).parent
ARGPARSE = (
    "backbones",
    "benchmark",
    "check",
    "choices",
    "compare",
    "convert",
    "degradation",
    "download",
    "evaluate",
    "predict",
    "report",
    "shapes",
    "submit",
)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100"},
        check=False,
    )


def test_help_lists_every_tool_and_imports_nothing_heavy():
    code = (
        "import sys; from resdet.tools.__main__ import main\n"
        "sys.argv = ['resdet', '--help']\n"
        "assert main() == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    finished = python("-c", code)
    assert finished.returncode == 0, finished.stderr
    names = sorted(file.stem for file in TOOLS.glob("[!_]*.py"))
    assert {*ARGPARSE, "train"} <= set(names)
    lines = finished.stdout.splitlines()[2:]
    assert [line.split()[0] for line in lines] == names
    for line in lines:
        name, text = line.split(maxsplit=1)
        assert f'"""{text}' in (TOOLS / f"{name}.py").read_text()
        assert text.endswith(".")
    assert "ast" in (loaded := finished.stderr.split())
    assert {"torch", "numpy", "pytorch_lightning", "jsonargparse", "PIL"}.isdisjoint(loaded)


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["resdet", *arguments])
    return console.main()


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
):
    assert main(monkeypatch, *arguments) == 0
    output, error = capsys.readouterr()
    assert output.startswith("usage: resdet TOOL")
    assert error == ""


@pytest.mark.parametrize("name", ["trian", "__main__", "benchmarks", "--version", ""])
def test_an_unknown_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
):
    assert main(monkeypatch, name, "--help") == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"resdet: no tool {name!r}\nusage: resdet TOOL")
    assert "  evaluate " in error


def test_the_tools_exit_code_is_returned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(monkeypatch, "evaluate", "--checkpoint", "none.ckpt", "--data", "none") == 1
    assert "resdet evaluate: none.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize("name", ARGPARSE)
def test_a_tool_is_a_script_too(name: str):
    script, module = python(str(TOOLS / f"{name}.py"), "--help"), None
    module = python("-m", "resdet.tools", name, "--help")
    assert script.returncode == module.returncode == 0, script.stderr
    assert script.stdout == module.stdout
    assert script.stdout.startswith(f"usage: resdet {name}")
    assert script.stderr == module.stderr == ""
