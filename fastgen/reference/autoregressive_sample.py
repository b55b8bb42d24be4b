"""Samples of an autoregressive density: feature by feature, one pass of the network each."""

from __future__ import annotations

from collections.abc import Sequence

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
    first = params[0]
    assert first is not None
    degrees = torch.tensor(network.layers[0].in_degrees[:: sampler.inputs])
    order = degrees.argsort(stable=True).tolist()
    x = torch.zeros(noise.shape[:-1], dtype=noise.dtype, device=noise.device)
    columns = torch.zeros(*x.shape[:-1], network.features, dtype=first.dtype, device=noise.device)
    for step, i in enumerate(order):
        if step < known and given is not None:
            value = given[..., i].to(noise.dtype).expand(noise.shape[:-2])
        else:
            # The features still to come are 0: what the network says of them now is not read.
            outputs = masked_mlp(columns, network, params, context_terms=context_terms)
            value = sampler(outputs[..., i, :], noise[..., i, :])
        x[..., i] = value
        columns[..., i * sampler.inputs : (i + 1) * sampler.inputs] = sampler.encode(value.unsqueeze(-1), first.dtype)
    return x
