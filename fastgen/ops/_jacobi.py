"""The inverse of a masked autoregressive network by fixed-point sweeps, for tensors that no kernel takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import backends
from ..reference import MaskedNetwork, ScaleMap
from ..reference.accumulate import accumulator
from ..reference.autoregressive_inverse import autoregressive_inverse as definition
from ._library import apply, differentiable, twice_differentiable
from ._plan import NetworkPlan, make_network_plan
from .masked_mlp import masked_mlp

# With fewer features than this a trained network may need as many sweeps as it has features.
FEATURES = 32

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def serves(*tensors: Tensor | None) -> bool:
    """Whether `jacobi` can stand in for the definition: it looks at numbers, which not every kind of tensor has.

    Where the definition was asked for by name it is what runs.
    """
    first = tensors[0]
    assert first is not None
    tracing = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    recorded = first.is_cuda and torch.cuda.is_current_stream_capturing()
    plain = all(t is None or type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
    return plain and not tracing and not recorded and backends.forced() == "auto" and first.shape[-1] >= FEATURES


def jacobi(
    w: Tensor,
    network: MaskedNetwork,
    params: Sequence[Tensor | None],
    *,
    form: str,
    scale_map: ScaleMap,
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: NetworkPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """What the definition gives, by passes over all features at once until none changes any more.

    Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving": Jacobi. A pass
    settles at least the first feature that is not settled, so that there are at most D of them; mostly there are far
    fewer. The gradient is found likewise, in passes backward at the solution: nothing is kept of the sweeps.

    Arguments and results: those of `fastgen.ops.autoregressive_inverse`.
    """
    plan = make_network_plan(network, w.device) if plan is None else plan

    def evaluate(v: Tensor, w: Tensor, context_terms: Tensor | None, *params: Tensor | None) -> tuple[Tensor, Tensor]:
        shift, raw = masked_mlp(v, network, params, context_terms=context_terms, plan=plan).unbind(-1)
        s = scale_map(raw)
        total = s.to(accumulator(w.dtype)).sum(-1)
        return (w * s.exp() + shift, total) if form == "multiply" else ((w - shift) * (-s).exp(), -total)

    def by_definition(w: Tensor, context_terms: Tensor | None, *params: Tensor | None) -> tuple[Tensor, Tensor]:
        return definition(w, network, params, form=form, scale_map=scale_map, context_terms=context_terms)

    with _autocast_off(w):
        v, total = apply(_Jacobi, evaluate, by_definition, w, context_terms, *params)
    return v, total if log_det is None else log_det + total


class _Jacobi(torch.autograd.Function):
    @staticmethod
    def forward(
        evaluate: Callable[..., tuple[Tensor, Tensor]],
        by_definition: Callable[..., tuple[Tensor, Tensor]],
        w: Tensor,
        context_terms: Tensor | None,
        *params: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        v, total = _fixed_point(lambda v: evaluate(v, w, context_terms, *params), torch.zeros_like(w))
        bad = ~(v.isfinite().all(-1) & total.isfinite())
        if bad.any():
            # Also where a number on the way was too large: masked or not, infinity times 0 is no number.
            terms = None if context_terms is None else context_terms.expand(*w.shape[:-1], -1)[bad]
            v[bad], total[bad] = by_definition(w[bad], terms, *params)
        return v, total

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.evaluate, ctx.by_definition, w, context_terms, *params = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(w, context_terms, output[0], *params)

    @staticmethod
    def backward(ctx, grad_v, grad_total):  # type: ignore[no-untyped-def]
        w, context_terms, v, *params = ctx.saved_tensors
        inputs, needs = (w, context_terms, *params), ctx.needs_input_grad[2:]
        if grad_v is None and grad_total is None:
            return (None,) * len(ctx.needs_input_grad)
        with _autocast_off(w):
            if twice_differentiable():
                return None, None, *differentiable(ctx.by_definition, inputs, needs, (grad_v, grad_total))
            outside = torch.zeros_like(v) if grad_v is None else grad_v
            of_total = v.new_zeros(v.shape[:-1], dtype=accumulator(v.dtype)) if grad_total is None else grad_total
            return None, None, *_gradients(ctx.evaluate, inputs, needs, v, outside, of_total)


@torch.enable_grad()
def _gradients(
    evaluate: Callable[..., tuple[Tensor, Tensor]],
    inputs: Sequence[Tensor | None],
    needs: Sequence[bool],
    v: Tensor,
    outside: Tensor,
    of_total: Tensor,
) -> list[Tensor | None]:
    """The gradients with respect to `inputs` of the solution v of v = evaluate(v, *inputs)[0], and of its log_det.

    They are those of one evaluation at v, once what reaches v from outside has been passed on through all that depends on it.
    """
    v = v.detach().requires_grad_()
    # Nothing but v is to be differentiated while the sweeps run.
    held = [None if t is None else t.detach() for t in inputs]
    outputs = evaluate(v, *held)

    def passed_on(g: Tensor) -> tuple[Tensor]:
        return (outside + torch.autograd.grad(outputs, v, (g, of_total), retain_graph=True)[0],)

    (g,) = _fixed_point(passed_on, outside)
    wanted = [t.requires_grad_() for t, n in zip(held, needs, strict=True) if n and t is not None]
    # The log_det of one evaluation does not depend on w.
    pairs = [(y, grad) for y, grad in zip(evaluate(v.detach(), *held), (g, of_total), strict=True) if y.requires_grad]
    found = iter(torch.autograd.grad([y for y, _ in pairs], wanted, [grad for _, grad in pairs]))
    return [next(found) if n else None for n in needs]


def _fixed_point(update: Callable[[Tensor], tuple[Tensor, ...]], start: Tensor) -> tuple[Tensor, ...]:
    """What `update` gives where its first result is what it was given, to the bit; at most an update for each feature."""
    before = _cleaned(start)
    for _ in range(start.shape[-1]):
        found = update(before)
        after = _cleaned(found[0])
        if torch.equal(_bits(after), _bits(before)):
            break
        before = after
    return found


def _autocast_off(t: Tensor) -> torch.autocast:
    """Sweeps in half precision would settle on another solution, and their backward passes on that of yet another."""
    return torch.autocast(t.device.type, enabled=False)


def _cleaned(t: Tensor) -> Tensor:
    """0 where t is not finite: what a masked weight lets through of it would be no number."""
    return t.nan_to_num(0.0, 0.0, 0.0)


def _bits(t: Tensor) -> Tensor:
    return t.view(_INTEGERS[t.element_size()])
