"""autoregressive_inverse against one pass of the same network, dense and fused, and against D of them.

Flops and bytes forward: those of one masked pass of the network; the noise is read, the solution and one log_det per row are
written. Backward: a forward pass at the solution and a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.flows import MaskedAutoregressiveTransform

from ..case import OURS, Case, Setting, leaves, relative_error, with_gradients, without_gradients
from ..plain import mask_of, masked_chain, parameters_of
from . import masked_mlp

OPERATION = "autoregressive_inverse"
DENSE, FUSED, PASS = "one dense pass", "one fused pass", "one of D passes of W * M"
# Features, hidden width, rows, targets.
SIZES = (
    (16, 512, 256, {DENSE: 1.8, FUSED: 1.0}),
    (64, 512, 256, {DENSE: 1.8, FUSED: 1.0}),
    (256, 512, 256, {DENSE: 1.8, FUSED: 1.0}),
    (64, 512, 1, {DENSE: 1 / 1.5}),
    (64, 512, 16, {DENSE: 1 / 0.7}),
    # D passes in a thousandth of their time.
    (784, 1024, 1000, {PASS: 1000 / 784}),
)


def cases(setting: Setting) -> Iterator[Case]:
    for features, hidden, batch, targets in SIZES[1:2] if setting.quick else SIZES:
        yield _inverse(features, hidden, batch, targets, setting.device)
    yield _gradient(64, 512, 256, setting.device)


def _inverse(features: int, hidden: int, batch: int, targets: dict[str, float], device: str) -> Case:
    transform, w = _transform(features, hidden, device), torch.randn(batch, features, device=device)
    network, params = transform.made.network, [p.detach() for p in parameters_of(transform.made)]
    masks = [mask_of(layer).to(w) for layer in network.layers]
    candidates: dict[str, Callable[[Tensor], object]] = {
        OURS: transform.inverse,
        DENSE: lambda x: masked_chain(x, network, params, [None] * len(masks)),
        FUSED: transform.forward,
        PASS: lambda x: masked_chain(x, network, params, masks),
    }
    work, _ = masked_mlp.work(network, batch)
    calls = {name: without_gradients(run, [w]) for name, run in candidates.items()}
    shape = f"{batch} x {features}, hidden {hidden} x 2"
    doubles = [p.double() for p in params]
    errors = {
        OURS: lambda: _error(transform, w),
        DENSE: lambda: _error_of_a_pass(candidates[DENSE], network, doubles, [None] * len(masks), w),
        FUSED: lambda: _error_of_a_transform(transform, w),
        PASS: lambda: _error_of_a_pass(candidates[PASS], network, doubles, masks, w),
    }
    return Case(OPERATION, "forward", shape, calls, errors, work, targets, device=device)


def _error_of_a_pass(
    run: Callable[[Tensor], object],
    network: ops.MaskedNetwork,
    doubles: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    w: Tensor,
) -> float:
    expected = masked_chain(w.double(), network, doubles, masks)
    found = run(w)
    assert isinstance(found, Tensor)
    return relative_error([found], [expected])


@torch.no_grad()
def _error_of_a_transform(transform: MaskedAutoregressiveTransform, w: Tensor) -> float:
    """Of the fused pass, against its definition in float64."""
    doubles = [p.double() for p in parameters_of(transform.made)]
    with backends.use("reference"):
        shift, log_scale = ops.masked_mlp(w.double(), transform.made.network, doubles).unbind(-1)
        expected = ops.affine_autoregressive(w.double(), shift, log_scale, scale_map=transform.scale_map)
    return relative_error(transform(w), expected)


def _gradient(features: int, hidden: int, batch: int, device: str) -> Case:
    transform, w = _transform(features, hidden, device), torch.randn(batch, features, device=device)
    inputs = leaves(w, *parameters_of(transform.made))
    grads = [torch.randn_like(w), torch.randn(batch, device=device)]
    network, plan = transform.made.masked(0, w.device)

    def inverse(w: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        return ops.autoregressive_inverse(w, network, params, scale_map=transform.scale_map, plan=plan)

    def forward(x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = ops.masked_mlp(x, network, params, plan=plan).unbind(-1)
        return ops.affine_autoregressive(x, shift, log_scale, scale_map=transform.scale_map)

    def error_of_the_network() -> float:
        # So few rows that rounding takes no unit past the kink of its ReLU.
        few, few_grads = leaves(w[:32], *inputs[1:]), [g[:32] for g in grads]
        with backends.use("reference"):
            expected = with_gradients(forward, leaves(*(t.double() for t in few)), [g.double() for g in few_grads])
        return relative_error(with_gradients(forward, few, few_grads), expected)

    calls = {
        OURS: lambda: with_gradients(inverse, inputs, grads),
        "the fused network": lambda: with_gradients(forward, inputs, grads),
    }
    ahead, back = masked_mlp.work(network, batch)
    shape = f"{batch} x {features}, hidden {hidden} x 2"
    errors = {OURS: lambda: _error(transform, w), "the fused network": error_of_the_network}
    # At the price of a few passes: a forward pass more than the network's own.
    return Case(OPERATION, "forward+backward", shape, calls, errors, ahead + ahead + back, device=device)


def _transform(features: int, hidden: int, device: str) -> MaskedAutoregressiveTransform:
    return MaskedAutoregressiveTransform(features, hidden_features=(hidden, hidden)).to(device)


def _error(transform: MaskedAutoregressiveTransform, w: Tensor) -> float:
    """Of the first rows against the loop over features in float64; gradients, too, but both in float64.

    In float32 a unit whose sum is 0 to rounding is on one side or the other of relu's kink. Of wide networks the gradients are
    left out: the loop keeps the masked weights of every pass.
    """
    made, wide = transform.made, w.shape[1] > 256
    network, rows = made.network, w[: 4 if wide else 32]
    exact = [t.double() for t in (rows, *parameters_of(made))]

    def inverse(function: Callable, w: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        return function(w, network, params, scale_map=transform.scale_map)

    with torch.no_grad():
        single = inverse(ops.autoregressive_inverse, rows, *parameters_of(made))
        if wide:
            return relative_error(single, inverse(reference.autoregressive_inverse, *exact))
    grads = [torch.linspace(-1, 1, rows.numel(), dtype=torch.float64).view_as(rows).to(exact[0])]
    grads.append(torch.linspace(-1, 1, len(rows), dtype=torch.float64).to(exact[0]))
    truth = with_gradients(partial(inverse, reference.autoregressive_inverse), leaves(*exact), grads)
    found = with_gradients(partial(inverse, ops.autoregressive_inverse), leaves(*exact), grads)
    return max(relative_error(single, truth[:2]), relative_error(found, truth))
