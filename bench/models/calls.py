"""The Python of a call: operations forward and backward at batch 1, beside a Function of as many tensors that does nothing.

The bare Function makes its outputs and hands back gradients made before. `autoregressive_sample` has no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastgen import backends, ops

from ..case import OURS, Case, Function, Setting, Work, leaves, relative_error, with_gradients

OPERATION = "calls"
BARE = "bare Function"

# A call is to take at most 1.5 times as long.
TARGETS = {BARE: 1 / 1.5}

_D, _K = 4, 2


class _Bare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, shapes: Sequence[torch.Size], grads: Sequence[Tensor], *inputs: Tensor) -> Any:  # type: ignore[no-untyped-def]
        ctx.grads = grads
        outputs = tuple([inputs[0].new_empty(shape) for shape in shapes])
        return outputs if len(outputs) > 1 else outputs[0]

    @staticmethod
    def backward(ctx, *_):  # type: ignore[no-untyped-def]
        return None, None, *ctx.grads


def cases(setting: Setting) -> Iterator[Case]:
    for name, (run, inputs) in _calls().items():
        outputs = run(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        grads = [torch.randn_like(y) for y in outputs]
        bare = partial(_Bare.apply, [y.shape for y in outputs], [torch.zeros_like(t) for t in inputs])
        candidates = {
            OURS: partial(with_gradients, run, inputs, grads),
            BARE: partial(with_gradients, bare, inputs, grads),
        }
        # What computes nothing is not wrong either.
        errors: dict[str, Callable[[], float]] = {OURS: partial(_error, run, inputs, grads), BARE: lambda: 0.0}
        yield Case(OPERATION, "forward+backward", name, candidates, errors, Work(0, 0), TARGETS)


def _error(run: Function, inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> float:
    with backends.use("reference"):
        expected = with_gradients(run, inputs, grads)
    return relative_error(with_gradients(run, inputs, grads), expected)


def _calls() -> dict[str, tuple[Function, list[Tensor]]]:
    """Every operation with gradients, as a function of its tensors."""
    rows = x, a, b = leaves(*torch.randn(3, 1, _D))
    degrees = torch.arange(1, _D + 1)
    linear: dict[str, Any] = {"in_degrees": degrees, "out_degrees": degrees, "plan": ops.make_plan(degrees, degrees)}
    once, twice = tuple(degrees.tolist()), tuple(degrees.repeat_interleave(2).tolist())
    layers = ops.MaskedLayer(once, once, activation="tanh"), ops.MaskedLayer(once, twice, True)
    network = ops.MaskedNetwork(layers, outputs=2)
    plan = ops.make_network_plan(network)
    params = leaves(*(0.3 * torch.randn(shape) for shape in network.parameter_shapes))
    mask = torch.arange(_D) % 2 == 0
    coupling: dict[str, Any] = {"mask": mask, "plan": ops.make_coupling_plan(mask)}
    seed = torch.tensor([1])
    vectors = leaves(*(0.3 * torch.randn(2, _K, _D)))
    numbers = leaves(*torch.randn(2, _K))
    pixels = leaves(torch.randint(2, (1, _D)).float())
    categories = torch.randint(_K, (1, _D))

    def of_network(operation: Function) -> tuple[Function, list[Tensor]]:
        return lambda x, *params: operation(x, network, params, plan=plan), [x, *params]

    return {
        "masked_linear": (partial(ops.masked_linear, **linear), [x, *leaves(torch.randn(_D, _D), torch.randn(_D))]),
        **{
            name: of_network(getattr(ops, name))
            for name in ("masked_mlp", "masked_autoregressive", "masked_autoregressive_log_prob", "autoregressive_inverse")
        },
        "affine_autoregressive": (ops.affine_autoregressive, rows),
        "affine_coupling": (partial(ops.affine_coupling, **coupling), rows),
        "additive_coupling": (lambda x, shift: ops.additive_coupling(x, shift, **coupling)[0], [x, a]),
        "gaussian_log_prob": (ops.gaussian_log_prob, rows),
        "gaussian_mixture_log_prob": (ops.gaussian_mixture_log_prob, [x, numbers[0], *vectors]),
        "gaussian_rsample_kl": (partial(ops.gaussian_rsample_kl, seed=seed), [x, a]),
        "gaussian_rsample_log_ratio": (partial(ops.gaussian_rsample_log_ratio, samples=1, seed=seed), [x, a]),
        "bernoulli_log_prob": (ops.bernoulli_log_prob, [*pixels, a]),
        "categorical_log_prob": (partial(ops.categorical_log_prob, categories), leaves(torch.randn(1, _D, _K))),
        "discretized_logistic_log_prob": (ops.discretized_logistic_log_prob, [*pixels, a, b]),
        **{name: (getattr(ops, name), [x, *vectors, numbers[0]]) for name in ("planar", "planar_inverse")},
        **{name: (getattr(ops, name), [x, vectors[0], *numbers]) for name in ("radial", "radial_inverse")},
    }
