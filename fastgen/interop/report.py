"""What was replaced in a model, what was left, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from .accelerated import NOT_COVERED, Accelerated, why_left
from .registry import covered_base, fast_class, package_of
from .walk import modules

NOT_CALLED = "accelerate was not called"


class Entry(NamedTuple):
    """One module: where it is, its class, and why it was left; None where it was replaced."""

    name: str
    kind: str
    reason: str | None


@dataclass(frozen=True)
class Report:
    """What `accelerate` did to each module that is of a library, or looks like a masked linear layer.

    Attributes:
        entries: of each such module, outermost first.
    """

    entries: tuple[Entry, ...]

    @property
    def replaced(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.reason is None)

    @property
    def left(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.reason is not None)

    def __str__(self) -> str:
        counts = Counter((entry.kind, entry.reason) for entry in self.entries)
        lines = [
            f"{'replaced' if reason is None else 'left':8} {count:4} x {kind}{'' if reason is None else f': {reason}'}"
            for (kind, reason), count in counts.items()
        ]
        return "\n".join(lines) or "nothing that accelerate knows"


def accelerate_report(model: Any) -> Report:
    """What of a model runs on fastgen, what does not, and why.

    Args:
        model: as `accelerate` takes it, before or after.

    Raises:
        TypeError: an object that is no model.
    """
    entries = [entry for name, module in modules(model) if (entry := _entry(name, module)) is not None]
    # What merely holds others is told by them.
    holders = {entry.name[: i + 1] for entry in entries for i, c in enumerate(entry.name) if c == "."}
    holders |= {""} if len(entries) > 1 else set()
    return Report(tuple(e for e in entries if e.reason != NOT_COVERED or (f"{e.name}." if e.name else "") not in holders))


def _entry(name: str, module: nn.Module) -> Entry | None:
    if isinstance(module, Accelerated):
        return Entry(name, _name(module.covers), None)
    reason = _reason(module)
    return None if reason is None else Entry(name, _name(type(module)), reason)


def _reason(module: nn.Module) -> str | None:
    """Why a module is as it was; None where nobody would expect otherwise."""
    fast = fast_class(module)
    if fast is not None:
        return why_left(module, fast) or NOT_CALLED
    base = covered_base(module)
    if base is not None:
        return f"a class of its own, derived from {_name(base)}"
    return NOT_COVERED if package_of(type(module)) else None


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
