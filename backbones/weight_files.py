"""Files of named tensors, read as data and never as code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt")
_NOTES = "resdet"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read named tensors.

    Args:
        path: a .safetensors, .pth or .pt file; a .pth or .pt file may wrap the state dict in
            "state_dict" or "model"; names that all begin with "module." lose it.

    Returns:
        state: tensors by name, on the CPU.
        notes: what ``write_tensors`` was given beside them; empty for other files.

    Raises:
        ValueError: the file is not readable, of another kind, or not a state dict.
        OSError: it cannot be opened.
    """
    if path.suffix not in SUFFIXES:
        hint = "; backbones.convert reads Detectron's" if path.suffix == ".pkl" else ""
        raise ValueError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}{hint}")
    path.open("rb").close()  # safetensors' errors do not always name the file
    try:
        state, notes = (_read_safetensors if path.suffix == ".safetensors" else _read_torch)(path)
    except Exception as error:  # each format raises its own kinds
        # Torch would advise to run whatever the file holds.
        pickled = isinstance(error, UnpicklingError)
        reason = "expected tensors and plain values alone" if pickled else error
        raise ValueError(f"{path}: not readable as {path.suffix} weights: {reason}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        got = list(state)[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path}: expected a state dict, names to tensors, got {got}")
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state), notes


def write_tensors(path: Path, state: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write a .safetensors file; a reader sees all of it or nothing.

    Args:
        path: the file; an existing one is replaced.
        state: tensors by name.
        notes: plain values to keep beside them.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(save(tensors, {_NOTES: json.dumps(notes)}))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_torch(path: Path) -> tuple[Any, dict[str, Any]]:
    return torch.load(path, map_location="cpu", weights_only=True), {}


def _read_safetensors(path: Path) -> tuple[Any, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = json.loads((file.metadata() or {}).get(_NOTES, "{}"))
    if not isinstance(notes, dict):
        raise ValueError(f"expected an object in its notes, got {type(notes).__name__}")
    return state, notes
