"""Blocks of a masked autoregressive flow as one operation: networks, affine maps and log_det in one call each way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import AutoregressiveBlock, MaskedNetwork, ScaleMap
from ..reference.autoregressive_inverse import FORMS
from . import _check
from ._autoregressive import check_autoregressive
from ._library import needs_gradients
from ._plan import NetworkPlan, make_network_plan
from ._stack import call, differentiable_call, prepare
from .affine_autoregressive import affine_autoregressive
from .autoregressive_inverse import Params
from .gaussian_log_prob import gaussian_log_prob
from .masked_linear import rows
from .masked_mlp import masked_mlp, validate, validate_context_terms

Blocks = Sequence[AutoregressiveBlock]
Plans = Sequence[NetworkPlan] | None


def masked_autoregressive(
    x: Tensor,
    network: MaskedNetwork,
    params: Params,
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
    plan: NetworkPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """z_i = (x_i - mu_i) e^-s_i ("multiply") or z_i = x_i e^s_i + mu_i ("divide"), mu and s of x_<i, and the log_det.

    What `autoregressive_inverse` of the same form undoes: a block of a flow in the direction its network reads. Papamakarios
    et al. 2017, "Masked Autoregressive Flow for Density Estimation", equations 3 and 4 ("multiply"); Kingma et al. 2016,
    "Improving Variational Inference with Inverse Autoregressive Flow", equation 10 ("divide"). Network, map and sum are one
    call: shift and log-scale are not stored for the batch unless gradients need them.

    Args:
        x: (..., D), floating; any strides, any number of rows.
        network: a masked network of two outputs per feature, shift mu and raw log-scale, that sees features of lower degree
            only.
        params: its parameters as a flat list of x's dtype and device, see `MaskedNetwork`.
        form: "multiply" or "divide", that of the inverse.
        scale_map: from the raw log-scale to s.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.
        log_det: (...,), read and added to the result, of the result's dtype.
        plan: what `make_network_plan` made of the network for x's device; without it this call makes one.

    Returns:
        z (..., D) of x's dtype, and log|det dz/dx| (...,) in nats: - or + the sum of s; float64 for float64 inputs, else
        float32. Under autocast the network computes in its dtype, the map in that of x, a half one in float32.

    Raises:
        TypeError, ValueError: a dtype, device, shape, form or network that does not fit.
    """
    blocks = [AutoregressiveBlock(network, params, form, scale_map, context_terms)]
    return _run("masked_autoregressive", False, x, blocks, None if plan is None else [plan], log_det)


def masked_autoregressive_log_prob(
    x: Tensor,
    network: MaskedNetwork,
    params: Params,
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
    plan: NetworkPlan | None = None,
) -> Tensor:
    """The log-density (...,) in nats of x where the z of `masked_autoregressive` is standard normal, `log_det` added.

    The last block of a flow in one call, which forms no z. Arguments, dtypes and errors: those of `masked_autoregressive`.
    """
    blocks = [AutoregressiveBlock(network, params, form, scale_map, context_terms)]
    return _run("masked_autoregressive_log_prob", True, x, blocks, None if plan is None else [plan], log_det)[1]


def masked_autoregressive_stack(
    x: Tensor, blocks: Blocks, *, log_det: Tensor | None = None, plans: Plans = None
) -> tuple[Tensor, Tensor]:
    """`masked_autoregressive` block after block, in one call each way on the CPU.

    What the blocks hand on to each other, and the gradients between them, stay inside the call: with small networks calls are
    most of the cost. On a GPU there is a call for each block, so that a wrapper can send the gradients of one while those of
    the blocks before are computed.

    Args:
        x: (..., D), floating; any strides, any number of rows.
        blocks: at least one, the first reads x; see `masked_autoregressive` for what each holds.
        log_det: (...,), read and added to the result, of the result's dtype.
        plans: what `make_network_plan` made of each network for x's device; without them this call makes them.

    Returns:
        z (..., D) of the last block, and the log_det (...,) of all in nats, both as `masked_autoregressive` gives them.

    Raises:
        TypeError, ValueError: no block, another number of plans, or what `masked_autoregressive` raises, the block named.
    """
    _expect_blocks(blocks, plans)
    return _run("masked_autoregressive_stack", False, x, blocks, plans, log_det)


def masked_autoregressive_stack_log_prob(
    x: Tensor, blocks: Blocks, *, log_det: Tensor | None = None, plans: Plans = None
) -> Tensor:
    """The log-density (...,) in nats of x where the z of `masked_autoregressive_stack` is standard normal, `log_det` added.

    The last block forms no z. Arguments and errors: those of `masked_autoregressive_stack`.
    """
    _expect_blocks(blocks, plans)
    return _run("masked_autoregressive_stack_log_prob", True, x, blocks, plans, log_det)[1]


def _expect_blocks(blocks: Blocks, plans: Plans) -> None:
    if not blocks:
        raise ValueError("blocks: expected at least one, found none")
    if plans is not None and len(plans) != len(blocks):
        raise ValueError(f"plans: expected one for each of {len(blocks)} blocks, found {len(plans)}")


def _run(name: str, log_prob: bool, x: Tensor, blocks: Blocks, plans: Plans, log_det: Tensor | None) -> tuple[Tensor, Tensor]:
    """z, not to be read where the log-density is wanted, and the log_det or that log-density."""
    _validate_rows(x, blocks, log_det)
    tensors = [t for block in blocks for t in (block.context_terms, *block.params)]
    if _check.autocast_dtype(x) is not None:
        _validate_networks(x, blocks)
        return _one_by_one(_by_parts, log_prob, x, blocks, plans, log_det)
    backend = backends.choose(name, x, log_det, *tensors).backend
    if backend == "cpu" and not torch.compiler.is_compiling():
        try:
            return _call(log_prob, x, blocks, plans, log_det)
        except (TypeError, ValueError):
            # The kernels check parameters themselves; this says which one does not fit.
            _validate_networks(x, blocks)
            raise
    _validate_networks(x, blocks)
    if backend == "reference":
        return _defined(log_prob, x, blocks, log_det)
    if backend != "cpu":
        return _one_by_one(_call, log_prob, x, blocks, plans, log_det)
    return _call(log_prob, x, blocks, plans, log_det)


def _defined(log_prob: bool, x: Tensor, blocks: Blocks, log_det: Tensor | None) -> tuple[Tensor, Tensor]:
    if log_prob:
        return x, reference.masked_autoregressive_stack_log_prob(x, blocks, log_det=log_det)
    return reference.masked_autoregressive_stack(x, blocks, log_det=log_det)


def _one_by_one(
    run: Callable, log_prob: bool, x: Tensor, blocks: Blocks, plans: Plans, log_det: Tensor | None
) -> tuple[Tensor, Tensor]:
    for i, block in enumerate(blocks):
        last = i + 1 == len(blocks)
        x, log_det = run(log_prob and last, x, [block], None if plans is None else [plans[i]], log_det)
    assert log_det is not None
    return x, log_det


def _call(log_prob: bool, x: Tensor, blocks: Blocks, plans: Plans, log_det: Tensor | None) -> tuple[Tensor, Tensor]:
    if plans is None:
        plans = [make_network_plan(block.network, x.device) for block in blocks]
    plan, described = prepare(blocks, plans)
    x2 = rows(x)
    shaped = x2 is not x
    terms = [block.context_terms for block in blocks]
    contexts = [c if c is None else rows(c.expand(*x.shape[:-1], c.shape[-1])) for c in terms]
    if shaped and log_det is not None:
        log_det = log_det.reshape(-1)
    params = [p if p is None else p.contiguous() for block in blocks for p in block.params]
    if needs_gradients(x2, log_det, *contexts, *params):

        def definition(x: Tensor, *tensors: Tensor | None) -> object:
            z, total = _defined(log_prob, x, _replaced(blocks, tensors), None)
            return total if log_prob else (z, total)

        z, total = differentiable_call(definition, x2, params, contexts, log_det, plan, described, log_prob)
    else:
        z, total, _ = call(x2, params, contexts, log_det, plan, *described, False, log_prob)
    if not shaped:
        return z, total
    return z if log_prob else z.view(x.shape), total.view(x.shape[:-1])


def _replaced(blocks: Blocks, tensors: Params) -> list[AutoregressiveBlock]:
    """The blocks with other tensors: the terms of every block's context, then the parameters of all."""
    made, at = [], len(blocks)
    for block, terms in zip(blocks, tensors, strict=False):
        end = at + len(block.params)
        made.append(block._replace(params=tensors[at:end], context_terms=terms))
        at = end
    return made


def _by_parts(log_prob: bool, x: Tensor, blocks: Blocks, plans: Plans, log_det: Tensor | None) -> tuple[Tensor, Tensor]:
    """For autocast, one block: the network in its dtype, the map in that of x."""
    (block,), plan = blocks, None if plans is None else plans[0]
    outputs = masked_mlp(x, block.network, block.params, context_terms=block.context_terms, plan=plan)
    shift, raw = outputs.to(x.dtype).unbind(-1)
    inverse = block.form == "divide"
    z, total = affine_autoregressive(x, shift, raw, inverse=inverse, scale_map=block.scale_map, log_det=log_det)
    return z, gaussian_log_prob(z) + total if log_prob else total


def _validate_rows(x: Tensor, blocks: Blocks, log_det: Tensor | None) -> None:
    _check.floating(x, "x")
    _check.features(x, "x", blocks[0].network.features)
    if log_det is not None:
        _check.per_row(log_det, "log_det", x, "x")
    for block in blocks:
        if block.context_terms is not None:
            validate_context_terms(x, "x", block.network, block.context_terms, x.shape[:-1])


def _validate_networks(x: Tensor, blocks: Blocks) -> None:
    for i, block in enumerate(blocks):
        try:
            _validate_network(x, block)
        except (TypeError, ValueError) as error:
            if len(blocks) == 1:
                raise
            raise type(error)(f"blocks[{i}]: {error}") from None


def _validate_network(x: Tensor, block: AutoregressiveBlock) -> None:
    if block.form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {block.form!r}")
    validate(x, block.network, block.params, None)
    check_autoregressive(block.network, 2)
