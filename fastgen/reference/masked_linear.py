"""The masked linear layer of MADE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .activations import ACTIVATIONS, activation_name


def degree_mask(in_degrees: Tensor, out_degrees: Tensor, strict: bool = False) -> Tensor:
    """The (out, in) boolean mask: True where an output of `out_degrees` may see an input of `in_degrees`."""
    return in_degrees < out_degrees[:, None] if strict else in_degrees <= out_degrees[:, None]


def masked_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    in_degrees: Tensor,
    out_degrees: Tensor,
    *,
    strict: bool = False,
    activation: str | None = None,
) -> Tensor:
    """y_k = act(b_k + sum_j M_kj W_kj x_j), M_kj = [in_degrees_j <= out_degrees_k], or `<` when `strict`.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", equations 12 and 13.

    Args:
        x: (..., in), floating.
        weight: (out, in), of x's dtype. Entries outside the mask are not read as numbers: a NaN there has no effect.
        bias: (out,) or None.
        in_degrees, out_degrees: int64, (in,) and (out,), on the CPU.
        strict: `<` in place of `<=`, as an output layer needs.
        activation: one of `ACTIVATIONS`; None is the identity.

    Returns:
        (..., out), of x's dtype.
    """
    mask = degree_mask(in_degrees, out_degrees, strict).to(weight.device)
    y = F.linear(x, torch.where(mask, weight, weight.new_zeros(())), bias)
    return ACTIVATIONS[activation_name(activation)](y)
