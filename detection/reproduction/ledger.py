"""The claims ledger: every figure of the documents is rendered from an artefact, or is found out.

The text of a block is a template's, ``claims/NAME.md.jinja``, that takes its figures from
artefacts, or a command's output. Documents outside of their blocks, and templates, have no figures
of their own.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from detection.reproduction.artefacts import Artefact
from detection.reproduction.documents import find_blocks, find_figures, replace_blocks

TEMPLATE = ".md.jinja"


class LedgerError(ValueError):
    """A block cannot be rendered; the message names it."""


class Claim(NamedTuple):
    """A block of a document, and what it draws on.

    Attributes:
        block: its name.
        artefacts: names; none for a command's output.
        stale: whether it says something else than its rendering.
    """

    block: str
    artefacts: tuple[str, ...]
    stale: bool


class Audit(NamedTuple):
    """What came of the audit of a document.

    Attributes:
        claims: its blocks that can be rendered.
        problems: what is wrong with the others, and figures that have no artefact; a line each.
        text: the document with its blocks rendered anew.
    """

    claims: list[Claim]
    problems: list[str]
    text: str


def read_templates(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the templates of a folder, by the names of their blocks."""
    paths = sorted(Path(folder).glob(f"*{TEMPLATE}"))
    return {path.name.removesuffix(TEMPLATE): path.read_text(encoding="utf-8") for path in paths}


class Ledger:
    """Renders blocks by name, and audits documents.

    Args:
        artefacts: by name.
        templates: Jinja sources by block. A template calls ``artefact("NAME")`` for the facts of
            one; its filter ``shared`` gives the one value that all of a list are, ``interval`` a
            figure of a study with its interval.
        commands: by block, what returns its text where it has no template.
    """

    def __init__(
        self,
        artefacts: Mapping[str, Artefact],
        templates: Mapping[str, str],
        commands: Mapping[str, Callable[[], str]],
    ) -> None:
        self.artefacts = artefacts
        self.templates = templates
        self.commands = commands
        self._environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"shared": _shared, "interval": _interval}

    def render(self, block: str) -> tuple[str, tuple[str, ...]]:
        """Renders a block.

        Returns:
            Its text, and the names of the artefacts that it draws on.

        Raises:
            LedgerError: there is neither a template nor a command of its name; the template has a
                figure of its own, draws on no artefact, on one that is not there, or on a figure
                that its artefact lacks.
        """
        if block in self.commands:
            return self.commands[block](), ()
        if block not in self.templates:
            raise LedgerError(f"block {block}: there is no {block}{TEMPLATE}")
        source, used = self.templates[block], dict[str, None]()
        if figures := find_figures(source):
            raise LedgerError(f"block {block}: its template has a figure: {figures[0].text}")

        def artefact(name: str) -> dict[str, Any]:
            if name not in self.artefacts:
                raise LedgerError(f"there is no artefact {name}")
            used[name] = None
            return self.artefacts[name].facts

        try:
            text = self._environment.from_string(source).render(artefact=artefact)
        except (jinja2.TemplateError, LedgerError, TypeError, ValueError) as error:
            raise LedgerError(f"block {block}: {error}") from error
        if not used:
            raise LedgerError(f"block {block}: it draws on no artefact")
        return text, tuple(used)

    def audit(self, document: str) -> Audit:
        """Renders every block of a document, and looks for figures outside.

        Raises:
            DocumentError: the markers of a block are not in order.
        """
        claims, problems, texts = [], [], {}
        for block in find_blocks(document):
            try:
                texts[block.name], artefacts = self.render(block.name)
            except LedgerError as error:
                problems.append(str(error))
                continue
            claims.append(Claim(block.name, artefacts, texts[block.name] != block.text))
        problems += [
            f"line {figure.line}: a figure without an artefact: {figure.text}"
            for figure in find_figures(document)
        ]
        return Audit(claims, problems, replace_blocks(document, texts))


def _interval(figure: Mapping[str, float] | None, sign: str = "") -> str:
    """Writes a study's figure with its interval; a dash where there is none."""
    if figure is None:
        return "–"
    value, low, high = (f"{figure[key]:{sign}.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _shared(values: Iterable[Any]) -> Any:
    first, *rest = values
    if any(value != first for value in rest):
        raise LedgerError(f"expected one value, got {[first, *rest]}")
    return first
