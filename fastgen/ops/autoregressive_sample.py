"""Samples of an autoregressive density as an operation, at the price of one pass of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..reference import ConditionalSampler, MaskedNetwork
from ..reference.accumulate import accumulator
from ..reference.autoregressive_sample import generate
from . import _autoregressive_cuda, _check
from ._autoregressive import check_autoregressive
from ._library import register
from ._network import Spec, compiled_plan, prepare
from ._plan import NetworkPlan, make_network_plan
from .masked_linear import rows
from .masked_mlp import masked_mlp, validate_context_terms, validate_parameters

Params = Sequence[Tensor | None]

# `plan, *described`: the flat plan, then the network and the sampler, as the schema below lists them.


def _sample(
    noise: Tensor,
    params: Params,
    context_terms: Tensor | None,
    given: Tensor | None,
    known: int,
    plan: Params,
    *described: Any,
) -> Tensor:
    x = noise.new_empty(noise.shape[:2])
    arguments = noise.flatten(1), params, context_terms, given, known
    if noise.is_cuda:
        _autoregressive_cuda.sample(x, *arguments, plan, *described)
    else:
        network, conditional = described[: len(Spec._fields)], described[len(Spec._fields) :]
        backends.compiled().autoregressive_sample(*arguments, compiled_plan(plan, *network), *conditional, x)
    return x


def _sample_fake(noise: Tensor, *_: object) -> Tensor:
    return noise.new_empty(noise.shape[:2])


_call = register(
    "autoregressive_sample(Tensor noise, Tensor?[] params, Tensor? context_terms, Tensor? given, int known, Tensor?[] plan,"
    " str[] activations, int[] residuals, bool direct, int conditional, int size, int kind, float first, float second)"
    " -> Tensor",
    _sample,
    _sample_fake,
)


@torch.no_grad()
def autoregressive_sample(
    noise: Tensor,
    network: MaskedNetwork,
    params: Params,
    *,
    sampler: ConditionalSampler,
    given: Tensor | None = None,
    known: int = 0,
    context_terms: Tensor | None = None,
    plan: NetworkPlan | None = None,
) -> Tensor:
    """x_i = sampler(the network's outputs for x_<i, noise_i), feature by feature in the order of degrees.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", section 4. A hidden unit of degree d is final
    as soon as the first d features are known, so each is evaluated once: the samples cost one pass of the network. Without
    gradients: samples with them are of `autoregressive_inverse`.

    Args:
        noise: (..., D, Q), floating: the random numbers that `sampler` takes of each feature; any strides, any number of rows.
        network: a masked network of P outputs and C inputs per feature, that sees features of lower degree only.
        params: its parameters as a flat list, see `MaskedNetwork`; of the noise's device and dtype, or of half precision with
            noise of float32.
        sampler: how a feature is drawn.
        given: (..., D), broadcastable to the batch, of the noise's dtype: the values of the `known` features; others are not
            read.
        known: how many features, the first in the order of degrees, are as `given`.
        context_terms: (..., H), broadcastable to the batch, of the parameters' dtype, added to the first layer's sum: a
            context's part.
        plan: what `make_network_plan` made of the network for the noise's device; without it this call makes one.

    Returns:
        x (..., D) of the noise's dtype.

    Raises:
        TypeError, ValueError: a dtype, device, shape, number or network that does not fit.
    """
    _validate(noise, network, params, sampler, given, known, context_terms)
    if backends.choose("autoregressive_sample", params[0], noise, given, context_terms, *params).backend == "reference":
        if plan is None:
            plan = make_network_plan(network, noise.device)

        def evaluate(columns: Tensor) -> Tensor:
            return masked_mlp(columns, network, params, context_terms=context_terms, plan=plan)

        return generate(noise, network, evaluate, params[0].dtype, sampler=sampler, given=given, known=known)  # type: ignore[union-attr]
    flat_plan, spec = prepare(network, plan, noise.device)
    if context_terms is not None:
        context_terms = rows(context_terms.expand(*noise.shape[:-2], context_terms.shape[-1]))
    if given is not None:
        given = given.expand(noise.shape[:-1]).reshape(-1, given.shape[-1])
    params = [p if p is None else p.contiguous() for p in params]
    numbers = noise.reshape(-1, *noise.shape[-2:])
    x = _call(numbers, params, context_terms, given, known, flat_plan, *spec, *sampler.code)
    return x.view(noise.shape[:-1])


def _validate(
    noise: Tensor,
    network: MaskedNetwork,
    params: Params,
    sampler: ConditionalSampler,
    given: Tensor | None,
    known: int,
    context_terms: Tensor | None,
) -> None:
    check_autoregressive(network, sampler.outputs, sampler.inputs)
    features = network.features // sampler.inputs
    _check.floating(noise, "noise")
    if noise.dim() < 2 or noise.shape[-2:] != (features, sampler.numbers):
        raise ValueError(f"noise: expected shape (..., {features}, {sampler.numbers}), found {tuple(noise.shape)}")
    first = params[0] if params else None
    if first is None:
        raise ValueError(f"params: expected {network.parameter_count} tensors, found none first")
    _check.floating(first, "params[0]")
    validate_parameters(first, "params[0]", network, params)
    if context_terms is not None:
        validate_context_terms(first, "params[0]", network, context_terms, noise.shape[:-2])
    if noise.dtype not in (first.dtype, accumulator(first.dtype)):
        raise TypeError(f"noise: expected params[0]'s dtype {first.dtype}, found {noise.dtype}")
    if noise.device != first.device:
        raise ValueError(f"noise: expected params[0]'s device {first.device}, found {noise.device}")
    if given is not None:
        _check.like(given, "given", noise, "noise")
        _check.features(given, "given", features)
        _check.batch_broadcastable(given, "given", noise.shape[:-2])
    most = 0 if given is None else features
    if not 0 <= known <= most:
        raise ValueError(f"known: expected 0 to {most}, found {known}")
