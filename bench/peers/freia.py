"""FrEIA: Ardizzone et al. 2018, "Framework for Easily Invertible Architectures"."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastgen.ops import ScaleMap

from .coupled import CoupledPeer, Network


def realnvp(features: int, transforms: int) -> CoupledPeer:
    """Blocks of two couplings; the first maps the first half of the features."""
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    model = SequenceINN(features)
    for _ in range(transforms // 2):
        model.append(GLOWCouplingBlock, subnet_constructor=Network, clamp=2.0, clamp_activation=lambda a: a / (2 + a.abs()))
    networks = [network for block in model.module_list for network in (block.subnet2, block.subnet1)]

    def log_prob(model: Any, x: Tensor) -> Tensor:
        z, log_det = model(x)
        return log_det - 0.5 * z.square().sum(1) - 0.5 * features * math.log(2 * math.pi)

    order = torch.arange(features).roll(features // 2)
    return CoupledPeer(model, networks, log_prob, ScaleMap("soft_clip", c=2.0), order, first_half_first=True)
