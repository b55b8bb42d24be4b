"""Everything a training run is, at one step: what `--resume` continues from to the bit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import io
from .run import RunFolder

FORMAT = 2
KIND = "training state"


@dataclass(frozen=True, eq=False)
class State:
    """Tensors by "group.name" and what JSON knows of the rest."""

    tensors: Mapping[str, Tensor]
    description: Mapping[str, Any]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of a group by their names in it."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}


def grouped(**groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Groups of tensors as the one mapping `State` takes."""
    return {f"{group}.{name}": t for group, tensors in groups.items() for name, t in tensors.items()}


def save_state(run: RunFolder, step: int, state: State, keep: int) -> None:
    """Writes the state after `step` steps, atomically, and removes all but the `keep` newest. Raises FileError."""
    io.save(run.state(step), state.tensors, {"format": FORMAT, "kind": KIND, **state.description})
    for old in run.states()[keep:]:
        old.unlink(missing_ok=True)


def load_state(run: RunFolder) -> tuple[State, list[str]]:
    """The newest state that is whole, and a line for every newer one that is not. Raises FileError where there is none."""
    complaints: list[str] = []
    for path in run.states():
        try:
            return _read(path), complaints
        except io.FileError as error:
            complaints.append(str(error))
    if complaints:
        raise io.FileError(complaints[0])
    raise io.FileError(f"{run.folder}: expected a state to resume from (state-*.safetensors), found none")


def _read(path: str | os.PathLike[str]) -> State:
    tensors, description = io.load(path)
    found = description.get("kind"), description.get("format")
    if found != (KIND, FORMAT):
        raise io.FileError(f"{path}: expected a {KIND} of format {FORMAT}, found {found[0]!r} of format {found[1]!r}")
    return State(tensors, description)


def optimizer_tensors(optimizer: Any) -> dict[str, Tensor]:
    """The tensors an optimiser holds, by "parameter.name"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": t for i, tensors in state.items() for name, t in tensors.items()}


def load_optimizer(optimizer: Any, tensors: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave. Raises KeyError, ValueError or RuntimeError where it does not fit."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        i, name = key.split(".")
        shape = tuple(parameters[int(i)].shape)
        if name != "step" and tensor.shape != shape:
            raise ValueError(f"{name} of parameter {i}: expected shape {shape}, found {tuple(tensor.shape)}")
        state.setdefault(int(i), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
