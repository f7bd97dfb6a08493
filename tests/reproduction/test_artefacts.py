import json
from pathlib import Path
from typing import Any

import pytest

from detection.reproduction.artefacts import (
    ArtefactError,
    config_sha256,
    environment,
    read_artefact,
    read_artefacts,
)

HASH = "0123456789abcdef" * 4
SPEED: dict[str, Any] = {
    "command": "resdet benchmark startup",
    "kind": "speed",
    "environment": {"python": "3.11.7", "machine": "2 cores", "torch": "2.14.1"},
}
ACCURACY: dict[str, Any] = {
    "command": "resdet evaluate …",
    "environment": SPEED["environment"],
    "config_sha256": HASH,
    "seed": 0,
    "predictions_sha256": HASH,
}


def write(folder: Path, facts: Any, name: str = "one") -> Path:
    path = folder / f"{name}.json"
    path.write_text(facts if isinstance(facts, str) else json.dumps(facts), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "facts",
    [
        SPEED,
        ACCURACY,
        {**ACCURACY, "seed": [0, 1]},
        {**{k: v for k, v in ACCURACY.items() if k != "seed"}, "seeds": [0, 1]},
        {**ACCURACY, "predictions_sha256": {"ours": [HASH, HASH], "theirs": [HASH]}},
    ],
)
def test_a_measurement_is_read_as_it_is(tmp_path: Path, facts: dict[str, Any]):
    artefact = read_artefact(write(tmp_path, facts))
    assert artefact.facts == facts
    assert artefact.command == facts["command"]


@pytest.mark.parametrize("facts", [SPEED, ACCURACY], ids=["speed", "accuracy"])
def test_every_missing_field_is_named(tmp_path: Path, facts: dict[str, Any]):
    for field in facts.keys() - {"kind"}:
        path = write(tmp_path, {name: value for name, value in facts.items() if name != field})
        with pytest.raises(ArtefactError) as error:
            read_artefact(path)
        assert str(error.value) == f"{path}: {field} is missing"
    # Accuracies are what is not said to be speeds.
    if facts is SPEED:
        path = write(tmp_path, {**facts, "kind": "other"})
        with pytest.raises(ArtefactError, match="config_sha256 is missing"):
            read_artefact(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": " "}, "command: expected a text, got ' '"),
        ({"environment": {"python": "3", "machine": "m"}}, "environment: expected an object with"),
        ({"environment": "here"}, "environment: expected an object with"),
        ({"config_sha256": HASH[1:]}, "config_sha256: expected 64 hexadecimal digits"),
        ({"config_sha256": None}, "config_sha256: expected 64 hexadecimal digits"),
        ({"predictions_sha256": []}, "predictions_sha256: expected 64 hexadecimal digits"),
        ({"predictions_sha256": {"a": ["b"]}}, "predictions_sha256: expected 64 hexadecimal"),
        ({"seed": "0"}, "seed: expected an integer or a list of integers, got '0'"),
        ({"seed": True}, "seed: expected an integer or a list of integers, got True"),
        ({"seeds": []}, r"seeds: expected an integer or a list of integers, got \[\]"),
        ({"seed": None}, "seed: expected an integer or a list of integers, got None"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], message: str):
    path = write(tmp_path, ACCURACY | change)
    with pytest.raises(ArtefactError, match=f"{path}: {message}"):
        read_artefact(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"a": NaN}', "not JSON: the constant NaN is not a number"),
        ("[]", "expected an object, got list"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(ArtefactError, match=f"one.json: {message}"):
        read_artefact(write(tmp_path, text))


def test_folders_are_read_together(tmp_path: Path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    write(first, SPEED, "startup")
    (first / "deeper").mkdir()
    write(first / "deeper", "no artefact")
    path = write(second, ACCURACY, "quick-start")
    assert list(read_artefacts([first, second])) == ["startup", "quick-start"]
    assert read_artefacts([]) == {}
    path.rename(second / "startup.json")
    with pytest.raises(ArtefactError, match=r"b/startup.json: there is also .*a/startup.json"):
        read_artefacts([first, second])


def test_the_environment_is_one_an_artefact_may_have(tmp_path: Path):
    here = environment()
    path = write(tmp_path, SPEED | {"environment": here})
    assert read_artefact(path).facts["environment"] == here
    assert {"resdet", "torch", "numpy", "hotcoco", "albumentations"} < here.keys()
    assert " cores of " in here["machine"]


def test_the_hash_of_a_configuration():
    # printf '{"a":{"c":[1,2.5]},"b":null}' | sha256sum
    expected = "fdde3350444cb4c4921dbf3539d00f387730cb1ad252a501c45dd06a3e07359d"
    assert config_sha256({"b": None, "a": {"c": (1, 2.5)}}) == expected
    assert config_sha256({"b": None, "a": {"c": (2.5, 1)}}) != expected
    with pytest.raises(ValueError, match="JSON compliant"):
        config_sha256({"a": float("nan")})
