from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastgen.flows import (
    BatchNorm,
    Composed,
    Flow,
    Inverse,
    Logit,
    MaskedAutoregressiveTransform,
    Permutation,
    StandardNormal,
    Standardise,
    Transform,
    UnitInterval,
)
from fastgen.flows.transform import Retraced

FEATURES, CONTEXT, ROWS = 6, 3, 16


class Coupling(Transform):
    """The second half scaled and shifted given the first; counts how often its network is evaluated."""

    def __init__(self, dropout: float = 0.0, context: int = 0, once: bool = True, features: int = FEATURES) -> None:
        super().__init__()
        self.half, self.context, self.once, self.evaluated = features // 2, context, once, 0
        rest = features - self.half
        self.network = nn.Sequential(
            nn.Linear(self.half + context, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 2 * rest)
        )

    def _coefficients(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.evaluated += 1
        seen = x[..., : self.half]
        if self.context:
            assert context is not None
            seen = torch.cat([seen, context.expand(*x.shape[:-1], -1)], -1)
        shift, log_scale = self.network(seen).to(x.dtype).chunk(2, -1)
        return shift, log_scale.tanh()

    def _couple(self, x: Tensor, shift: Tensor, log_scale: Tensor, inverse: bool) -> Tensor:
        first, second = x[..., : self.half], x[..., self.half :]
        second = (second - shift) * (-log_scale).exp() if inverse else second * log_scale.exp() + shift
        return torch.cat([first, second], -1)

    def _walk(self, x: Tensor, context: Tensor | None, log_det: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._coefficients(x, context)
        own = -log_scale.sum(-1) if inverse else log_scale.sum(-1)
        return self._couple(x, shift, log_scale, inverse), own if log_det is None else log_det + own

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._walk(x, context, log_det, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._walk(z, context, log_det, inverse=True)

    def retrace(self, output: Tensor, context: Tensor | None = None, *, inverse: bool = False) -> Retraced:
        if not self.once:
            return super().retrace(output, context, inverse=inverse)
        read = output.detach().requires_grad_()
        shift, log_scale = self._coefficients(read, context)
        leaf = self._couple(output, shift.detach(), log_scale.detach(), not inverse).detach().requires_grad_()
        log_det = log_scale.sum(-1)
        return Retraced((leaf, read), self._couple(leaf, shift, log_scale, inverse), -log_det if inverse else log_det)


def block(**options: int) -> MaskedAutoregressiveTransform:
    return MaskedAutoregressiveTransform(FEATURES, hidden_features=(32, 32), **options)


def standardise() -> Standardise:
    return Standardise.fit(3 * torch.randn(50, FEATURES) + 1)


def batch_norm() -> BatchNorm:
    norm = BatchNorm(FEATURES)
    with torch.no_grad():
        norm.log_scale.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2)
    return norm.eval()


STACKS: dict[str, Callable[[], list[Transform]]] = {
    "couplings": lambda: [t for _ in range(4) for t in (Coupling(), Permutation.reverse(FEATURES))],
    "couplings, two evaluations": lambda: [t for _ in range(4) for t in (Coupling(once=False), Permutation.reverse(FEATURES))],
    "couplings, context": lambda: [t for _ in range(3) for t in (Coupling(context=CONTEXT), Permutation.random(FEATURES))],
    "inverse couplings": lambda: [t for _ in range(3) for t in (Inverse(Coupling()), Permutation.reverse(FEATURES))],
    "blocks": lambda: [block(order="natural"), block(order="reversed"), block(order="natural")],
    "blocks, context": lambda: [block(context_features=CONTEXT), block(context_features=CONTEXT, order="reversed")],
    "inverse blocks": lambda: [Inverse(block()), Inverse(block(order="reversed"))],
    "batch-norm": lambda: [block(), batch_norm(), Inverse(batch_norm()), Coupling()],
    "elementwise": lambda: [UnitInterval(4), Logit(0.05), standardise(), Inverse(standardise()), Coupling()],
    "one": lambda: [Coupling()],
    "fixed": lambda: [UnitInterval(4), Permutation.reverse(FEATURES)],
}


def build(name: str, dtype: torch.dtype) -> list[Transform]:
    torch.manual_seed(0)
    return [t.to(dtype) for t in STACKS[name]()]


def inputs(name: str, dtype: torch.dtype, rows: tuple[int, ...] = (ROWS,)) -> tuple[Tensor, Tensor | None, Tensor]:
    """x inside (0, 4), a context for those who need one, and a log_det."""
    torch.manual_seed(1)
    x = (0.2 + 3.6 * torch.rand(*rows, FEATURES, dtype=torch.float64)).to(dtype)
    context = torch.randn(*rows, CONTEXT, dtype=torch.float64).to(dtype) if "context" in name else None
    return x, context, torch.randn(rows, dtype=torch.float64).to(dtype)


def results(call: Callable, transform: Transform, given: tuple[Tensor | None, ...]) -> list[Tensor | None]:  # type: ignore[type-arg]
    """The outputs, then the gradients of all that is given and of the parameters, for gradients that differ everywhere."""
    x, context, log_det = leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    outputs = call(x, context, log_det=log_det)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
    wanted = [t for t in (*leaves, *transform.parameters()) if t is not None]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, wanted, grads, allow_unused=True)]


def assert_same(found: list[Tensor | None], expected: list[Tensor | None], tolerance: float) -> None:
    """Equal to `tolerance` of each tensor's largest entry."""
    for f, e in zip(found, expected, strict=True):
        assert (f is None) == (e is None)
        if f is not None and e is not None and e.numel():
            assert f.shape == e.shape and f.dtype == e.dtype
            assert (f - e).abs().max() <= tolerance * e.abs().max(), f"{(f - e).abs().max() / e.abs().max():.3g}"


@pytest.mark.parametrize("anchor_every", [None, 1, 3])
@pytest.mark.parametrize("direction", ["forward", "inverse", "normal_log_prob"])
@pytest.mark.parametrize("name", STACKS)
def test_results_are_those_of_autograd(name: str, direction: str, anchor_every: int | None) -> None:
    # What is rebuilt differs from what was by a few roundings for each transform.
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        plain = Composed(build(name, dtype))
        rebuilt = Composed(build(name, dtype), reversible=True, anchor_every=anchor_every)
        x, context, log_det = inputs(name, dtype)
        if direction == "inverse":
            x = plain(x, context)[0].detach()
        given = (x, context, log_det)
        expected = results(getattr(plain, direction), plain, given)
        assert_same(results(getattr(rebuilt, direction), rebuilt, given), expected, tolerance)
