"""Modules that keep a plan: what their degrees were turned into for the device they are on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Plan = TypeVar("Plan")


class Planned(nn.Module, Generic[Plan]):
    """A module with a plan for one device: made when the module is built, moved, copied or unpickled, and never saved."""

    def _make_plan(self, device: torch.device) -> Plan:
        raise NotImplementedError

    def _replan(self) -> None:
        """Makes the plan here rather than in `forward`, where `torch.compile` could not trace it."""
        self._planned_for = next(self.parameters(), torch.empty(0)).device
        self._plan = self._make_plan(self._planned_for)

    def _plan_on(self, device: torch.device) -> Plan:
        # Parameters can reach another device without `_apply`: load_state_dict(assign=True), functional_call.
        return self._plan if device == self._planned_for else self._make_plan(device)

    def _apply(self, fn: Callable, recurse: bool = True) -> Planned[Plan]:
        super()._apply(fn, recurse)
        self._replan()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_plan", "_planned_for")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._replan()
