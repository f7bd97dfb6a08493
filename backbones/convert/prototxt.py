"""Protocol buffers' text format, as much of it as Caffe's network descriptions use."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CHARACTERS = 4 << 20
"""The longest text that is read; ResNet-152's has about 100,000 characters."""

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<string>"[^"\\\n]*"|'[^'\\\n]*')|(?P<punctuation>[{}:])"""
    r"""|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))|(?P<word>[A-Za-z_]\w*)"""
)


class Message(dict[str, list[Any]]):
    """A message: each field's values, in order; a value is a str, int, float, bool or Message."""

    def one(self, field: str, default: Any) -> Any:
        """The value of a field that may stand once at most.

        Raises:
            ValueError: it stands more than once.
        """
        values = self.get(field, [default])
        if len(values) != 1:
            raise ValueError(f"expected one {field}, got {len(values)}")
        return values[0]


def parse(text: str) -> Message:
    """Read a message.

    Args:
        text: fields as ``name: value`` or ``name { … }``, with ``#`` comments; neither lists in
            brackets nor escapes in strings.

    Returns:
        The message.

    Raises:
        ValueError: the text is too long or breaks this grammar; the message says in which line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"expected at most {MAX_CHARACTERS} characters, got {len(text)}")
    stack, field, colon, at = [Message()], "", False, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        token, kind = (match.group(), match.lastgroup) if match else (text[at], None)
        at += len(token)
        if kind == "space":
            continue
        if token == "}" and not field and len(stack) > 1:
            stack.pop()
        elif token == "{" and field:
            stack.append(Message())
            stack[-2].setdefault(field, []).append(stack[-1])
            field, colon = "", False
        elif token == ":" and field and not colon:
            colon = True
        elif kind == "word" and not field:
            field = token
        elif kind in ("word", "string", "number") and colon:
            stack[-1].setdefault(field, []).append(_value(token, kind))
            field, colon = "", False
        else:
            line = text.count("\n", 0, at - len(token)) + 1
            raise ValueError(f"line {line}: expected a field or its value, got {token!r}")
    if field or len(stack) > 1:
        raise ValueError(f"line {text.count(chr(10)) + 1}: expected a value or '}}', got the end")
    return stack[0]


def render(message: Mapping[str, Sequence[Any]], indent: str = "") -> str:
    """Write a message; ``parse`` reads it back.

    Strings are quoted, but for those in capitals, which are taken for enumerations.
    """
    lines = []
    for field, values in message.items():
        for value in values:
            if isinstance(value, Mapping):
                lines += [f"{indent}{field} {{\n{render(value, indent + '  ')}{indent}}}\n"]
            elif isinstance(value, bool):
                lines += [f"{indent}{field}: {str(value).lower()}\n"]
            else:
                quote = '"' if isinstance(value, str) and not value.isupper() else ""
                lines += [f"{indent}{field}: {quote}{value}{quote}\n"]
    return "".join(lines)


def _value(token: str, kind: str | None) -> str | int | float | bool:
    if kind == "string":
        return token[1:-1]
    if kind == "word":
        return {"true": True, "false": False}.get(token, token)
    return int(token) if re.fullmatch(r"[-+]?\d+", token) else float(token)
