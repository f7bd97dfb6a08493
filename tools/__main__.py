"""The console command: `resdet <tool>` runs tools/<tool>.py, and imports nothing else before."""

import ast
import sys
from importlib import import_module
from pathlib import Path


def _tools() -> dict[str, str]:
    """Maps each tool to the first line of its docstring, read without importing it."""
    tools = {}
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        tools[file.stem] = text.split("\n", maxsplit=1)[0]
    return tools


def main() -> int:
    """Runs the tool that the first argument names.

    Returns:
        The tool's exit code; 2 if there is no such tool.
    """
    tools = _tools()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in tools:
        # sys.argv stays as it is: Lightning starts a process per device by it.
        result: int = import_module(f"resdet.tools.{name}").main(arguments)
        return result
    listing = "\n".join(f"  {tool:<12}{text}" for tool, text in tools.items())
    usage = f"usage: resdet TOOL [options]; `resdet TOOL --help` lists them\n\n{listing}"
    if name in ("-h", "--help"):
        print(usage)
        return 0
    print(f"resdet: no tool {name!r}\n{usage}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
