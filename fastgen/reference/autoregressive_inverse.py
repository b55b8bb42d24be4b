"""The inverse of a masked autoregressive network: feature by feature, one pass of the network each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .accumulate import accumulator
from .masked_mlp import MaskedNetwork, masked_mlp
from .scale_map import ScaleMap

FORMS = ("multiply", "divide")


def autoregressive_inverse(
    w: Tensor,
    network: MaskedNetwork,
    params: Sequence[Tensor | None],
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The v that solves v_i = w_i e^s_i + mu_i ("multiply") or v_i = (w_i - mu_i) e^-s_i ("divide"), mu and s of v_<i.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", equation 5 ("multiply"); Kingma et al. 2016,
    "Improving Variational Inference with Inverse Autoregressive Flow", solved for its noise ("divide").

    Args:
        w: (..., D), floating.
        network: a masked network of two outputs per feature, shift mu and raw log-scale, that sees features of lower degree
            only.
        params: its parameters as a flat list, see `MaskedNetwork`.
        form: "multiply" or "divide".
        scale_map: from the raw log-scale to s.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.
        log_det: (...,), added to the result.

    Returns:
        v (..., D) of w's dtype, and log|det dv/dw| (...,) in nats: + or - the sum of s.
    """
    order = torch.tensor(network.layers[0].in_degrees).argsort().tolist()
    v, scales = torch.zeros_like(w), []
    for i in order:
        # The features still to come are 0: what the network says of them now is not read.
        shift, raw = masked_mlp(v, network, params, context_terms=context_terms)[..., i, :].to(w.dtype).unbind(-1)
        s = scale_map(raw)
        value = w[..., i] * s.exp() + shift if form == "multiply" else (w[..., i] - shift) * (-s).exp()
        v = v.slice_scatter(value.unsqueeze(-1), -1, i, i + 1)
        scales.append(s)
    total = torch.stack(scales, -1).to(accumulator(w.dtype)).sum(-1)
    total = total if form == "multiply" else -total
    return v, total if log_det is None else log_det + total
