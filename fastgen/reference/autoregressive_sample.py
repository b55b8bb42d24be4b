"""Samples of an autoregressive density: feature by feature, one pass of the network each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .conditional_sampler import ConditionalSampler
from .masked_mlp import MaskedNetwork, masked_mlp


@torch.no_grad()
def autoregressive_sample(
    noise: Tensor,
    network: MaskedNetwork,
    params: Sequence[Tensor | None],
    *,
    sampler: ConditionalSampler,
    given: Tensor | None = None,
    known: int = 0,
    context_terms: Tensor | None = None,
) -> Tensor:
    """x_i = sampler(the network's outputs for x_<i, noise_i), feature by feature in the order of degrees.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", section 4. Without gradients.

    Args:
        noise: (..., D, Q), floating: the random numbers that `sampler` takes of each feature.
        network: a masked network of P outputs and C inputs per feature, that sees features of lower degree only.
        params: its parameters as a flat list, see `MaskedNetwork`.
        sampler: how a feature is drawn.
        given: (..., D), broadcastable to the batch: the values of the `known` features; others are not read.
        known: how many features, the first in the order of degrees, are as `given`.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.

    Returns:
        x (..., D) of the noise's dtype.
    """

    def evaluate(columns: Tensor) -> Tensor:
        return masked_mlp(columns, network, params, context_terms=context_terms)

    first = params[0]
    assert first is not None
    return generate(noise, network, evaluate, first.dtype, sampler=sampler, given=given, known=known)


def generate(
    noise: Tensor,
    network: MaskedNetwork,
    evaluate: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    *,
    sampler: ConditionalSampler,
    given: Tensor | None,
    known: int,
) -> Tensor:
    """`autoregressive_sample` with what evaluates the network for its input (..., D C) of `dtype`."""
    degrees = torch.tensor(network.layers[0].in_degrees[:: sampler.inputs])
    x = torch.zeros(noise.shape[:-1], dtype=noise.dtype, device=noise.device)
    # The features still to come are 0: what the network says of them now is not read.
    columns = torch.zeros(*x.shape[:-1], network.features, dtype=dtype, device=noise.device)
    for step, i in enumerate(degrees.argsort(stable=True).tolist()):
        if step < known and given is not None:
            value = given[..., i].expand(x.shape[:-1])
        else:
            value = sampler(evaluate(columns)[..., i, :], noise[..., i, :])
        x[..., i] = value
        columns[..., i * sampler.inputs : (i + 1) * sampler.inputs] = sampler.encode(value.unsqueeze(-1), dtype)
    return x
