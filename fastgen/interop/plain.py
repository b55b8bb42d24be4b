"""Masked linear layers that people write themselves: subclasses of nn.Linear that compute F.linear(x, weight * mask, bias)."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .accelerated import Accelerated
from .linear import FastMaskedLinear, Layer
from .network import close

# A mask that has changed so often is one of those that are drawn anew for every batch: plans do not pay.
MOST_CHANGES = 8


class PlainMaskedLinear(FastMaskedLinear):
    """A user's class gets its accelerated one when it is met, and again in the process that unpickles a module of it."""

    def mismatch(self) -> str | None:
        return _differs(self) or super().mismatch()

    def _derive(self) -> Layer | Literal[False]:
        layer = super()._derive()
        return layer and layer._replace(mask=self.mask.detach().clone())

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or torch.compiler.is_compiling() or not self._is_known():
            return self.covers.forward(self, x, *args, **kwargs)
        return super().forward(x)

    def _is_known(self) -> bool:
        """Whether the mask is that of the plan. Numbers are compared: `mask.data.copy_`, as some write, counts no version."""
        layer = self.derived()
        if not layer or self.mask.is_cuda:  # which would wait for the device
            return False
        if not torch.equal(self.mask, layer.mask):
            if self._fastgen.derivations > MOST_CHANGES:
                return False
            self._rederive()
        return True

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _new, (self.covers,), dict(self.__dict__)


def plain_class(module: nn.Module) -> type[Accelerated] | None:
    """The class that stands for that of a module which looks like a masked linear layer; None where it does not."""
    cls = type(module)
    if not isinstance(module, nn.Linear) or isinstance(module, Accelerated) or cls.__module__.partition(".")[0] == "fastgen":
        return None
    mask = getattr(module, "mask", None)
    fits = isinstance(mask, Tensor) and mask.shape == module.weight.shape
    return _fast_class(cls) if fits else None  # type: ignore[arg-type]


@cache
def _fast_class(cls: type[nn.Module]) -> type[PlainMaskedLinear]:
    return type(cls.__name__, (PlainMaskedLinear, cls), {"covers": cls, "__module__": cls.__module__, "__doc__": cls.__doc__})


def _new(cls: type[nn.Module]) -> nn.Module:
    fast: Any = _fast_class(cls)  # type: ignore[arg-type]
    return fast.__new__(fast)


@torch.no_grad()
def _differs(module: Any) -> str | None:
    """Asks a layer and the formula for the same outputs."""
    weight = module.weight
    x = torch.arange(3 * weight.shape[1]).view(3, -1).to(weight).sin()
    try:
        found = module.covers.forward(module, x)
    except Exception as error:
        return f"its forward takes more than rows: {error}"
    same = isinstance(found, Tensor) and close([found], [F.linear(x, weight * module.mask, module.bias)])
    return None if same else "its forward is not F.linear(x, weight * mask, bias)"
