"""A block of a masked autoregressive flow in the direction its network reads: the network, the affine map, the log_det."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .affine_autoregressive import affine_autoregressive
from .gaussian_log_prob import gaussian_log_prob
from .masked_mlp import MaskedNetwork, masked_mlp
from .scale_map import ScaleMap


class AutoregressiveBlock(NamedTuple):
    """One block of a stack: what `masked_autoregressive` takes of it, beside x and what the blocks before have summed up."""

    network: MaskedNetwork
    params: Sequence[Tensor | None]
    form: str = "multiply"
    scale_map: ScaleMap = ScaleMap()
    context_terms: Tensor | None = None


def masked_autoregressive(
    x: Tensor,
    network: MaskedNetwork,
    params: Sequence[Tensor | None],
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z_i = (x_i - mu_i) e^-s_i ("multiply") or z_i = x_i e^s_i + mu_i ("divide"), mu and s of x_<i, and the log_det.

    What `autoregressive_inverse` of the same form undoes. Papamakarios et al. 2017, "Masked Autoregressive Flow for Density
    Estimation", equations 3 and 4 ("multiply"); Kingma et al. 2016, "Improving Variational Inference with Inverse
    Autoregressive Flow", equation 10 ("divide").

    Args:
        x: (..., D), floating.
        network: a masked network of two outputs per feature, shift mu and raw log-scale, that sees features of lower degree
            only.
        params: its parameters as a flat list, see `MaskedNetwork`.
        form: "multiply" or "divide", that of the inverse.
        scale_map: from the raw log-scale to s.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.
        log_det: (...,), added to the result.

    Returns:
        z (..., D) of x's dtype, and log|det dz/dx| (...,) in nats: - or + the sum of s.
    """
    shift, raw = masked_mlp(x, network, params, context_terms=context_terms).to(x.dtype).unbind(-1)
    return affine_autoregressive(x, shift, raw, inverse=form == "divide", scale_map=scale_map, log_det=log_det)


def masked_autoregressive_log_prob(
    x: Tensor,
    network: MaskedNetwork,
    params: Sequence[Tensor | None],
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
) -> Tensor:
    """The log-density (...,) in nats of x where the z of `masked_autoregressive` is standard normal, `log_det` added.

    Arguments: those of `masked_autoregressive`.
    """
    z, total = masked_autoregressive(
        x, network, params, form=form, scale_map=scale_map, context_terms=context_terms, log_det=log_det
    )
    return gaussian_log_prob(z) + total


def masked_autoregressive_stack(
    x: Tensor, blocks: Sequence[AutoregressiveBlock], *, log_det: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`masked_autoregressive` block after block: z (..., D) of the last one, and the log_det (...,) of all in nats.

    Args:
        x: (..., D), floating.
        blocks: at least one; the first reads x.
        log_det: (...,), added to the result.
    """
    for b in blocks:
        x, log_det = masked_autoregressive(
            x,
            b.network,
            b.params,
            form=b.form,
            scale_map=b.scale_map,
            context_terms=b.context_terms,
            log_det=log_det,
        )
    assert log_det is not None
    return x, log_det


def masked_autoregressive_stack_log_prob(
    x: Tensor, blocks: Sequence[AutoregressiveBlock], *, log_det: Tensor | None = None
) -> Tensor:
    """The log-density (...,) in nats of x where the z of `masked_autoregressive_stack` is standard normal, `log_det` added."""
    z, total = masked_autoregressive_stack(x, blocks, log_det=log_det)
    return gaussian_log_prob(z) + total
