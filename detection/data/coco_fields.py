"""Fields and names of the records of a COCO file, which may be anything."""

from __future__ import annotations

from typing import Any

from detection.data.records import UnusableError

MAX_ID = 2**53  # a larger id would not survive JSON readers that use doubles


def integer(fields: Any, key: str) -> int:
    """Returns an integer field of a record, which may be anything.

    Args:
        fields: the record.
        key: the field's name.

    Raises:
        UnusableError: the field is missing or no integer of at most 53 bits.
    """
    value = fields.get(key) if isinstance(fields, dict) else None
    if type(value) is not int or abs(value) >= MAX_ID:
        raise UnusableError(f"{key} is {short(value)}, expected an integer")
    return value


def record(kind: str, fields: Any, position: int) -> str:
    """Names a record by its id, or by its position where it has none.

    Args:
        kind: such as annotation.
        fields: the record.
        position: from 1.
    """
    identity = fields.get("id") if isinstance(fields, dict) else None
    return f"{kind} at position {position}" if identity is None else f"{kind} {short(identity)}"


def short(value: Any) -> str:
    """Returns a value's text, of at most 80 characters."""
    return repr(value)[:80]
