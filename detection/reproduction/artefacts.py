"""Stored measurements: JSON files that say what was run, on what, and what came out.

Each has ``command`` and ``environment`` (python, machine, versions of packages), and, unless its
``kind`` is "speed", what its accuracies come from: ``config_sha256``, ``seed`` or ``seeds``, and
``predictions_sha256``.
"""

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

SPEED = "speed"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtefactError(ValueError):
    """A stored measurement lacks what would make it one; the message names file and field."""


class Artefact(NamedTuple):
    """A stored measurement.

    Attributes:
        path: its file.
        facts: the file's content.
    """

    path: Path
    facts: dict[str, Any]

    @property
    def command(self) -> str:
        """What was run."""
        return str(self.facts["command"])


def read_artefacts(folders: Iterable[str | os.PathLike[str]]) -> dict[str, Artefact]:
    """Reads the JSON files of some folders.

    Args:
        folders: where; what they hold in folders of their own is left alone.

    Returns:
        The artefacts by their files' names without ``.json``.

    Raises:
        ArtefactError: a file is no artefact, or two have one name.
        OSError: a file cannot be read.
    """
    found: dict[str, Artefact] = {}
    for path in (path for folder in folders for path in sorted(Path(folder).glob("*.json"))):
        if path.stem in found:
            raise ArtefactError(f"{path}: there is also {found[path.stem].path}")
        found[path.stem] = read_artefact(path)
    return found


def read_artefact(path: str | os.PathLike[str]) -> Artefact:
    """Reads one artefact.

    Raises:
        ArtefactError: the file is not JSON, or a required field is missing or not what it must
            be; the message names it.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not JSON: {error}") from error
    check_facts(facts, str(path))
    return Artefact(path, facts)


def check_facts(facts: Any, where: str) -> None:
    """Checks what an artefact must say.

    Args:
        facts: its content.
        where: what errors call it.

    Raises:
        ArtefactError: as for `read_artefact`.
    """
    if not isinstance(facts, dict):
        raise ArtefactError(f"{where}: expected an object, got {type(facts).__name__}")
    seed = "seeds" if "seeds" in facts else "seed"
    accuracy = ("config_sha256", seed, "predictions_sha256")
    required = ("command", "environment", *(accuracy if facts.get("kind") != SPEED else ()))
    for field in required:
        if field not in facts:
            raise ArtefactError(f"{where}: {field} is missing")
        accepts, expected = _FIELDS[field]
        if not accepts(facts[field]):
            raise ArtefactError(f"{where}: {field}: expected {expected}, got {facts[field]!r}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_environment(value: Any) -> bool:
    named = isinstance(value, dict) and {"python", "machine"} < value.keys()
    return named and _is_text(value["python"]) and _is_text(value["machine"])


def _is_seed(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(type(one) is int for one in values)


def _is_hash(value: Any) -> bool:
    if isinstance(value, str):
        return _SHA256.fullmatch(value) is not None
    values = list(value.values()) if isinstance(value, dict) else value
    return isinstance(values, list) and bool(values) and all(map(_is_hash, values))


_HASH = (_is_hash, "64 hexadecimal digits, or a list or an object of such")
_SEED = (_is_seed, "an integer or a list of integers")
_FIELDS = {
    "command": (_is_text, "a text"),
    "environment": (_is_environment, "an object with python, machine and versions of packages"),
    "config_sha256": _HASH,
    "seed": _SEED,
    "seeds": _SEED,
    "predictions_sha256": _HASH,
}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the constant {name} is not a number")


def environment() -> dict[str, str]:
    """Says what figures may depend on: Python, the machine, resdet and the packages it needs."""
    names = (re.match(r"[\w.-]+", one) for one in requires("resdet") or () if "extra ==" not in one)
    versions = {}
    for name in ("resdet", *(match.group() for match in names if match)):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "machine": machine(), **versions}


def machine() -> str:
    """Names the processors, after the GPUs where torch is loaded and sees some."""
    cores = f"{os.cpu_count()} cores of {_processor()}"
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return cores
    return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}, {cores}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def config_sha256(config: Mapping[str, Any]) -> str:
    """The hash of a configuration: of its JSON with sorted keys and without spaces.

    Args:
        config: plain values; the order of keys does not count.
    """
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
