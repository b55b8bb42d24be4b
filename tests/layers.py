"""Inputs of operations made of K layers, and their results with all gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen import ops, reference

OPERATIONS = ("planar", "planar_inverse", "radial", "radial_inverse")


def pair(name: str):  # type: ignore[no-untyped-def]
    """The operation and its definition."""
    return getattr(ops, name), getattr(reference, name)


def inputs(
    name: str,
    batch: Sequence[int],
    features: int,
    layers: int,
    *,
    shared: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> list[Tensor]:
    """z (*batch, D) and three parameters; those of planar layers keep clear of w = 0, where u_hat has no limit."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    lead = () if shared else tuple(batch)
    vector, number = (*lead, layers, features), (*lead, layers)
    if name.startswith("planar"):
        w = normal(*vector).double()
        w = (w * ((0.5 + normal(*number).double().sigmoid()) / w.norm(dim=-1))[..., None]).to(dtype)
        return [normal(*batch, features), features**-0.5 * normal(*vector), w, normal(*number)]
    return [normal(*batch, features), normal(*vector), 0.5 * normal(*number), 0.5 * normal(*number)]


def results(function, tensors: Sequence[Tensor], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Both results and the gradients of all inputs, for incoming gradients that differ from element to element."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    out, log_det = function(*leaves, **options)
    grads = [torch.linspace(*ends, o.numel()).to(o).view_as(o) for ends, o in (((-1, 2), out), ((1, 3), log_det))]
    grads = torch.autograd.grad((out, log_det), leaves, grads)
    return [out.detach(), log_det.detach(), *grads]
