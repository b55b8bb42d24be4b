"""What every accelerated class has in common: the class it stands for, and state that is read from a module, never saved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

NOT_COVERED = "not covered"


class _Cache:
    """Derived state and what it was read from: empty in every copy, pickle and checkpoint."""

    def __init__(self) -> None:
        self.state: Any = None
        self.derivations = 0
        # Where each module and each mask or option lies, which one it was, and a tensor's version.
        self.modules: list[tuple[dict[str, Any], str, nn.Module]] = []
        self.sources: list[tuple[dict[str, Any], str, Any, int]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _Cache:
        return _Cache()

    def __reduce__(self) -> tuple[type[_Cache], tuple[()]]:
        return _Cache, ()

    def watch(self, module: nn.Module, names: tuple[str, ...], inside: bool) -> None:
        """Notes the attributes of these names of a module; with `inside`, the modules inside it and theirs too."""
        self.modules, self.sources = [], []
        for part in module.modules() if inside else [module]:
            if inside:
                self.modules += [(part._modules, name, child) for name, child in part._modules.items() if child is not None]
            for place in (part._buffers, part.__dict__):
                self.sources += [(place, name, place[name], version(place[name])) for name in names if name in place]

    def is_fresh(self) -> bool:
        """Whether all that was noted is still there as it was."""
        for place, name, module in self.modules:
            if place.get(name) is not module:
                return False
        for place, name, source, seen in self.sources:  # noqa: SIM110 - a generator costs as much as the rest
            if place.get(name) is not source or version(source) != seen:
                return False
        return True


class Accelerated:
    """A mixin before a library's class: `class FastThing(Accelerated, Thing)` with `covers = Thing`.

    Modules come to their class by having `__class__` set, so nothing is constructed: parameters, buffers and names in a
    state_dict stay as they are. What a call needs beside them, such as a plan, is derived: made when a module is accelerated,
    moved, copied or unpickled, and again when a tensor it was read from has changed.
    """

    covers: ClassVar[type[nn.Module]]
    # The names of the attributes that the derived state is read from, masks and options; whether of the modules inside too.
    reads: ClassVar[tuple[str, ...]] = ("mask",)
    inside: ClassVar[bool] = False
    _fastgen: _Cache

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        """Why a module of the covered class has to be left alone, in a few words; None where it need not."""
        return None

    def mismatch(self) -> str | None:
        """What shows only once a module is of this class, such as numbers unlike its own class's; None where it fits."""
        return None

    def _derive(self) -> Any:
        """The derived state, from modules and masks as they are now. Raises ValueError or IndexError where these allow none."""
        return None

    def derived(self) -> Any:
        """The derived state, for modules and masks as they are now; None where these allow none and the library's code runs."""
        cache = self._fastgen
        # A compiler has no versions to compare: what moves or reloads a module has made the state anew, or dropped it.
        if cache.state is None or not (torch.compiler.is_compiling() or cache.is_fresh()):
            self._rederive()
        return cache.state

    @torch.compiler.disable
    @torch.no_grad()
    def _rederive(self) -> None:
        cache = self.__dict__.setdefault("_fastgen", _Cache())
        cache.watch(self, self.reads, self.inside)  # type: ignore[arg-type]
        cache.state = None
        cache.derivations += 1
        if not any(isinstance(source, Tensor) and source.is_meta for _, _, source, _ in cache.sources):
            with suppress(ValueError, IndexError):  # masks of another model, or of uninitialised memory
                cache.state = self._derive()

    def _apply(self, fn: Callable, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[misc]
        self._rederive()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]
        self._fastgen.state = None  # masks of modules inside are loaded after this

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._rederive()


def version(source: Any) -> int:
    """What counts a tensor's changes; 0 of anything else."""
    return source._version if isinstance(source, Tensor) and not source.is_inference() else 0


def swap(module: nn.Module, fast: type[Accelerated]) -> str | None:
    """Makes a module of the covered class one of the accelerated class. Returns why it had to be left alone; None where not."""
    reason = fast.obstacle(module)
    if reason is None:
        module.__class__ = fast  # type: ignore[assignment]
        module._rederive()  # type: ignore[operator]
        reason = module.mismatch()  # type: ignore[operator]
        if reason is not None:
            swap_back(module)
    return reason


def why_left(module: nn.Module, fast: type[Accelerated]) -> str | None:
    """Why `swap` would leave a module alone; None where it would not."""
    reason = swap(module, fast)
    if reason is None:
        swap_back(module)
    return reason


def swap_back(module: Any) -> None:
    """Makes an accelerated module one of its library's class again."""
    module.__dict__.pop("_fastgen", None)
    module.__class__ = module.covers
