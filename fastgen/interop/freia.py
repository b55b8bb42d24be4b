"""FrEIA: what follows the networks of its affine couplings. Its networks are the user's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from FrEIA import modules
from torch import Tensor

from ..ops import ScaleMap, affine_autoregressive
from .accelerated import Accelerated
from .conditions import changed, ordinary
from .network import affine_scale_map

# From as many elements on, without and with gradients, one operation costs less on CPU than those of the library.
ELEMENTS_FROM, GRADIENTS_FROM = 2**16, math.inf


class FastCoupling(Accelerated):
    """A block that maps x to e^s x + t, with s and t from networks of what it does not map."""

    # From what a network puts out to s, with a clamp of 1 and no other activation.
    scale_map: ClassVar[ScaleMap] = ScaleMap()

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        known = _is_known(cls)  # type: ignore[arg-type]
        return changed(module) or (None if known else "a scale that fastgen does not know")

    @classmethod
    def ask(cls, block: Any, x: Tensor, shift: Tensor, raw: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        """What the library's class makes of the outputs of its networks."""
        raise NotImplementedError

    def _scaled(self, raw: Tensor) -> Tensor:
        return self.clamp * self.f_clamp(raw)  # type: ignore[attr-defined, no-any-return]


class RNVPCouplingBlock(FastCoupling, modules.RNVPCouplingBlock):
    covers = modules.RNVPCouplingBlock

    @classmethod
    def ask(cls, block: Any, x: Tensor, shift: Tensor, raw: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        block.subnet_s1 = block.subnet_s2 = lambda _: raw
        block.subnet_t1 = block.subnet_t2 = lambda _: shift
        return _if_same(cls.covers._coupling1(block, x, x, rev), cls.covers._coupling2(block, x, x, rev))

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        return _affine(x1, self.subnet_t2(u2), self._scaled(self.subnet_s2(u2)), self.ndims, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        return _affine(x2, self.subnet_t1(u1), self._scaled(self.subnet_s1(u1)), self.ndims, rev)


class GLOWCouplingBlock(FastCoupling, modules.GLOWCouplingBlock):
    covers = modules.GLOWCouplingBlock

    @classmethod
    def ask(cls, block: Any, x: Tensor, shift: Tensor, raw: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        block.subnet1 = block.subnet2 = lambda _: torch.cat((raw, shift), 1)
        return _if_same(cls.covers._coupling1(block, x, x, rev), cls.covers._coupling2(block, x, x, rev))

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        raw, shift = _halves(self.subnet2(u2), self.split_len1)
        return _affine(x1, shift, self._scaled(raw), self.ndims, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        raw, shift = _halves(self.subnet1(u1), self.split_len2)
        return _affine(x2, shift, self._scaled(raw), self.ndims, rev)


class AffineCouplingOneSided(FastCoupling, modules.AffineCouplingOneSided):
    covers = modules.AffineCouplingOneSided

    @classmethod
    def ask(cls, block: Any, x: Tensor, shift: Tensor, raw: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        block.subnet = lambda _: torch.cat((raw, shift), 1)
        (y,), log_det = cls.covers.forward(block, (torch.cat((x, x), 1),), rev=rev)
        return y[:, x.shape[1] :], log_det

    def forward(self, x: Any, c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True) -> tuple[tuple[Tensor], Tensor]:
        x1, x2 = torch.split(x[0], [self.split_len1, self.split_len2], dim=1)
        raw, shift = _halves(self.subnet(torch.cat((x1, *c), 1) if self.conditional else x1), self.split_len2)
        y2, log_det = _affine(x2, shift, self._scaled(raw), self.ndims, rev)
        return (torch.cat((x1, y2), 1),), log_det


class AllInOneBlock(FastCoupling, modules.AllInOneBlock):
    covers = modules.AllInOneBlock
    scale_map = ScaleMap("tanh", c=1.0)

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return "volume-preserving" if module.GIN else super().obstacle(module)

    @classmethod
    def ask(cls, block: Any, x: Tensor, shift: Tensor, raw: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        return cls.covers._affine(block, x, 10 * torch.cat((raw, shift), 1), rev)

    def _affine(self, x: Tensor, a: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        if self.GIN:
            return super()._affine(x, a, rev)
        a *= 0.1  # in place, as the library does
        raw, shift = _halves(a, x.shape[1])
        return _affine(x, shift, self.clamp * torch.tanh(raw), len(self.sum_dims), rev)


ACCELERATED = (RNVPCouplingBlock, GLOWCouplingBlock, AffineCouplingOneSided, AllInOneBlock)


def _halves(a: Tensor, first: int) -> Sequence[Tensor]:
    # Split, not sliced: the gradient of two slices would be two tensors of zeros to fill and to add.
    return a.split((first, a.shape[1] - first), 1)


def _pays(x: Tensor) -> bool:
    return x.is_cuda or x.numel() >= (GRADIENTS_FROM if torch.is_grad_enabled() else ELEMENTS_FROM)


def _affine(x: Tensor, shift: Tensor, log_scale: Tensor, rank: int, rev: bool) -> tuple[Tensor, Tensor]:
    """e^s x + t and the sum of s over `rank` dimensions after the first, or the inverse and minus that."""
    if _pays(x) and x.dim() == rank + 1 and x.shape == shift.shape == log_scale.shape and ordinary(x, shift, log_scale):
        y, log_det = affine_autoregressive(*(t.flatten(1) for t in (x, shift, log_scale)), inverse=not rev)
        return y.view(x.shape), log_det
    # The library's own lines: its code would call the networks again.
    log_det = log_scale.sum(tuple(range(1, rank + 1)))
    return ((x - shift) * torch.exp(-log_scale), -log_det) if rev else (torch.exp(log_scale) * x + shift, log_det)


def _if_same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What both halves of a block agree on; NaN where they do not, which agrees with nothing."""
    same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    return first if same else (first[0] * torch.nan, first[1])


@cache
def _is_known(fast: type[FastCoupling]) -> bool:
    """Asks the library's class, with a block that holds nothing else, what it makes of the outputs of its networks."""
    block = SimpleNamespace(
        clamp=1.0, f_clamp=lambda u: u, ndims=1, split_len1=2, split_len2=2, conditional=False, GIN=False, sum_dims=(1,)
    )

    def run(rev: bool) -> Any:
        return lambda x, shift, raw: fast.ask(block, x, shift, raw, rev)

    return affine_scale_map(run(False), run(True), 2, [fast.scale_map]) is not None
