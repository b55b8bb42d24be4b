"""A block of a masked autoregressive flow in the direction its network reads: the network, the affine map, the log_det."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .affine_autoregressive import affine_autoregressive
from .gaussian_log_prob import gaussian_log_prob
from .masked_mlp import MaskedNetwork, masked_mlp
from .scale_map import ScaleMap


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
