"""The ledger on small cases, and on the documents of this checkout."""

import re
from pathlib import Path
from typing import Any

import pytest

from detection.reproduction.artefacts import Artefact
from detection.reproduction.documents import CONSTANTS, find_blocks
from detection.reproduction.ledger import Claim, Ledger, LedgerError, read_templates
from resdet.tools import claims

ROOT = Path(claims.__file__).parent.parent
DOCUMENTS = claims.find_documents(ROOT)


def ledger(templates: dict[str, str], **facts: Any) -> Ledger:
    artefacts = {"run": Artefact(Path("run.json"), {"command": "resdet …", **facts})}
    return Ledger(artefacts, templates, {"table": lambda: "printed 1.5\n"})


def document(name: str, text: str) -> str:
    return f"Before.\n\n<!-- generated: {name} -->\n{text}<!-- end: {name} -->\n\nAfter.\n"


SPEED = '{% set run = artefact("run") %}\nIt takes {{ "%.1f" % run.seconds }} s.\n'


def test_a_block_says_what_its_artefact_says():
    own = ledger({"speed": SPEED}, seconds=2.04)
    assert own.render("speed") == ("It takes 2.0 s.\n", ("run",))
    right = document("speed", "It takes 2.0 s.\n")
    assert own.audit(right) == ([Claim("speed", ("run",), stale=False)], [], right)


def test_a_stale_block_is_found_and_rendered_anew():
    stale = document("speed", "It takes 1.9 s.\n")
    result = ledger({"speed": SPEED}, seconds=2.04).audit(stale)
    assert result.claims == [Claim("speed", ("run",), stale=True)]
    assert result.problems == []
    assert result.text == document("speed", "It takes 2.0 s.\n")


def test_a_planted_figure_is_a_problem():
    text = document("speed", "It takes 2.0 s.\n")
    result = ledger({"speed": SPEED}, seconds=2.04).audit(f"{text}Ours needs 7 s.\n")
    assert result.problems == ["line 8: a figure without an artefact: 7 s"]


def test_a_block_may_be_what_a_command_prints():
    result = ledger({}).audit(document("table", "printed 1.4\n"))
    assert result.claims == [Claim("table", (), stale=True)]
    assert "printed 1.5" in result.text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("It takes 2.0 s.", "block a: its template has a figure: 2.0 s"),
        ('{{ artefact("run").command }}{{ 0.5 }}', "block a: its template has a figure: 0.5"),
        ("It is quick.", "block a: it draws on no artefact"),
        ('{{ artefact("walk").seconds }}', "block a: there is no artefact walk"),
        ('{{ artefact("run").second }}', "block a: 'dict object' has no attribute 'second'"),
        ('{{ "%.1f" % artefact("run").unknown }}', "block a: must be real number, not NoneType"),
        ('{{ artefact("run").seconds', "block a: unexpected end of template"),
        ('{% set run = artefact("run") %}{{ [run.a, run.b] | shared }}', "block a: expected one"),
    ],
)
def test_a_figure_that_no_artefact_has_is_refused(template: str, message: str):
    own = ledger({"a": template}, seconds=2, unknown=None, a=1, b=2)
    with pytest.raises(LedgerError, match=f"^{message}"):
        own.render("a")
    result = own.audit(document("a", "It takes.\n"))
    assert result.claims == []
    assert result.problems[0].startswith(message)
    assert result.text == document("a", "It takes.\n")


def test_a_block_without_a_template_is_refused():
    with pytest.raises(LedgerError, match=r"^block b: there is no b.md.jinja$"):
        ledger({"a": SPEED}).render("b")


def test_what_all_share():
    template = '{% set run = artefact("run") %}{{ [run.a, run.a] | shared }}'
    assert ledger({"a": template}, a="one").render("a")[0] == "one"


def test_a_figure_with_its_interval():
    template = (
        '{% set run = artefact("run") %}'
        '{{ run.a | interval }}; {{ run.a | interval("+") }}; {{ run.b | interval }}'
    )
    found = ledger({"a": template}, a={"value": 1.25, "low": -0.5, "high": 3}, b=None)
    assert found.render("a")[0] == "1.2 [-0.5, 3.0]; +1.2 [-0.5, +3.0]; –"


def test_templates_are_read_by_name(tmp_path: Path):
    (tmp_path / "a-b.md.jinja").write_text("± {{ x }}", encoding="utf-8")
    (tmp_path / "other.txt").touch()
    assert read_templates(tmp_path) == {"a-b": "± {{ x }}"}


@pytest.fixture(scope="module")
def here() -> Ledger:
    own = claims.open_ledger(ROOT)
    # What tools print is held to the documents by their own tests, and by the slow one here.
    own.commands = {
        block.name: (lambda text=block.text: text)
        for path in DOCUMENTS
        for block in find_blocks(path.read_text(encoding="utf-8"))
        if block.name in claims.COMMANDS
    }
    return own


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_figure_of_a_document_has_its_artefact(here: Ledger, path: Path):
    result = here.audit(path.read_text(encoding="utf-8"))
    assert result.problems == []
    assert [claim.block for claim in result.claims if claim.stale] == []


@pytest.mark.slow
def test_every_block_is_what_its_tool_prints():
    assert list(claims.audit(ROOT, write=False)) == []


def test_every_template_has_its_block(here: Ledger):
    found = {
        block.name for path in DOCUMENTS for block in find_blocks(path.read_text(encoding="utf-8"))
    }
    assert here.templates.keys() <= found


def test_every_constant_is_used(here: Ledger):
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    whole = "\n".join([*texts, *here.templates.values()])
    assert [pattern for pattern in CONSTANTS if not re.search(pattern, whole)] == []


def test_the_configuration_of_the_quick_start_says_the_same(here: Ledger):
    facts = here.artefacts["quick-start"].facts
    claim = (ROOT / "configs/shapes.yaml").read_text(encoding="utf-8")
    assert f"Measured: AP {facts['ap']:.3f}, AP50 {facts['ap50']:.3f}." in claim
    assert f"{sum(facts['seconds'].values()) / 60:.1f} minutes" in claim
