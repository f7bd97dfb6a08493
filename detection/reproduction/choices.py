"""The papers' open choices, collected from the documentation of the constructors' arguments.

An argument is an open choice if its entry in the docstring's ``Attributes`` or ``Args`` says
``Alternatives: … Sources: …`` after what it is. Where the code decides otherwise than the papers, a
docstring has a paragraph that says so.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

_ENTRY = re.compile(r"^    (\w+): ", re.MULTILINE)
_SECTION = re.compile(r"^(?:Attributes|Args):\n((?:^    .*\n|^\n)+)", re.MULTILINE)
_OPEN = re.compile(r"(?P<meaning>.+?) Alternatives: (?P<others>.+?)\. Sources: (?P<sources>.+)\.")
_DIFFERS = re.compile(r"Differs from the paper: (.+?)(?:\n\n|\Z)", re.DOTALL)


class Choice(NamedTuple):
    """An open choice.

    Attributes:
        argument: the option's name, such as ``model.detector.roi_size``.
        default: as Python has it.
        meaning: what the argument is.
        alternatives: to the default.
        sources: who chose what.
    """

    argument: str
    default: str
    meaning: str
    alternatives: str
    sources: str


class Difference(NamedTuple):
    """Where the code differs from the papers, without an argument to choose.

    Attributes:
        place: module, or class or function in a module.
        text: what differs.
    """

    place: str
    text: str


def find_choices(roots: Mapping[str, Any]) -> Iterator[Choice]:
    """Finds the open choices among the arguments of constructors.

    Args:
        roots: by the prefix of their options, frozen dataclasses with their defaults, or classes
            whose constructor has defaults. Dataclasses in them are looked through too.

    Yields:
        The choices, in the order of the arguments.
    """
    for prefix, root in roots.items():
        texts = _entries(root)
        for name, default in _defaults(root):
            argument = f"{prefix}.{name}"
            if is_dataclass(default):
                yield from find_choices({argument: default})
            elif found := _OPEN.fullmatch(texts.get(name, "")):
                yield Choice(argument, repr(default), *map(_markdown, found.groups()))


def _defaults(root: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(root) and not isinstance(root, type):
        yield from ((field.name, getattr(root, field.name)) for field in fields(root))
        return
    for parameter in inspect.signature(root).parameters.values():
        if parameter.default is not parameter.empty:
            yield parameter.name, parameter.default


def _entries(root: Any) -> dict[str, str]:
    """Maps an object's arguments to what its docstring says of them, each in one line."""
    document = inspect.getdoc(root if isinstance(root, type) else type(root)) or ""
    found = {}
    for section in _SECTION.finditer(f"{document}\n"):
        parts = _ENTRY.split(section[1])
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            found[name] = " ".join(text.split())
    return found


def find_differences(packages: Sequence[Path]) -> Iterator[Difference]:
    """Finds what docstrings say of differences to the papers.

    Args:
        packages: folders whose modules are read, and not imported.

    Yields:
        The differences, by module.
    """
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    place = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
                    for found in _DIFFERS.finditer(ast.get_docstring(node) or ""):
                        yield Difference(place, _markdown(" ".join(found[1].split())))


def _markdown(text: str) -> str:
    """Turns a docstring's literals into Markdown's; a last full stop goes."""
    return text.replace("``", "`").removesuffix(".")
