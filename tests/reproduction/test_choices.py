from dataclasses import dataclass, field
from pathlib import Path

from detection.reproduction.choices import Choice, Difference, find_choices, find_differences


@dataclass(frozen=True)
class Inner:
    """Part of it.

    Attributes:
        deep: an argument that goes on
            in another line. Alternatives: 2, or ``None``. Sources: A (1),
            B section 2.1 (2).
    """

    deep: int = 1


@dataclass(frozen=True)
class Outer:
    """A thing.

    Attributes:
        closed: nothing else is possible. Sources: all.
        open: what it is. Alternatives: b. Sources: A.
        inner: its part.
        unknown: Alternatives: none. Sources: none.

    Raises:
        ValueError: never. Alternatives: x. Sources: y.
    """

    closed: str = "c"
    open: str = "a"
    inner: Inner = field(default_factory=Inner)
    unknown: int = 0
    undocumented: int = 0


class Made:
    """Made by a constructor.

    Attributes:
        made: not an argument. Alternatives: x. Sources: y.

    Args:
        first: has no default. Alternatives: x. Sources: y.
        second: of ``this``. Alternatives: 0.5. Sources: The paper (0.3), *Code* (0.5).
        inner: its part.
    """

    def __init__(self, first: int, second: float = 0.3, inner: Inner = Inner(3)) -> None:
        self.made = (first, second, inner)


def deep(prefix: str, default: str) -> Choice:
    return Choice(
        f"{prefix}.inner.deep",
        default,
        "an argument that goes on in another line",
        "2, or `None`",
        "A (1), B section 2.1 (2)",
    )


def test_open_arguments_of_dataclasses_and_their_parts():
    assert list(find_choices({"model": Outer(open="z"), "other": Outer(inner=Inner(7))})) == [
        Choice("model.open", "'z'", "what it is", "b", "A"),
        deep("model", "1"),
        Choice("other.open", "'a'", "what it is", "b", "A"),
        deep("other", "7"),
    ]


def test_open_arguments_of_a_constructor():
    assert list(find_choices({"data": Made})) == [
        Choice("data.second", "0.3", "of `this`", "0.5", "The paper (0.3), *Code* (0.5)"),
        deep("data", "3"),
    ]


def test_differences_are_collected_without_importing(tmp_path: Path):
    package = tmp_path / "house"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "room" / "one.py").write_text(
        '"""A module.\n\nDiffers from the paper: it has\ntwo ``doors``.\n\nAnd goes on."""\n'
        "raise ImportError\n\n"
        'class Door:\n    """A door.\n\n    Differs from the paper: green.\n    """\n\n'
        '    def open(self):\n        """Opens. Differs from the paper: inwards."""\n'
    )
    assert list(find_differences([package])) == [
        Difference("house.room.one", "it has two `doors`"),
        Difference("house.room.one.Door", "green"),
        Difference("house.room.one.open", "inwards"),
    ]
