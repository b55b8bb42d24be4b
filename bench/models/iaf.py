"""IAF: the density of data, which is its slow direction, and samples, beside D passes of plain PyTorch and other libraries.

Work: that of one pass of every network, and back; see networks.py. Other libraries take D passes of each, and as many back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastgen import flows, reference
from fastgen.flows import MaskedAutoregressiveTransform

from ..beside import density, samples
from ..case import OURS, Case, Setting
from ..networks import Sizes, masked_works
from ..peers import installed
from ..steps import GRADIENTS, Candidate, own, value_and_gradients, whole_model

SMALL, MIDDLE, WIDE = Sizes(64, 8, 64), Sizes(256, 64, 512), Sizes(256, 256, 512)
TARGET = 200.0


def cases(setting: Setting) -> Iterator[Case]:
    yield from _plain(SMALL, setting)
    for kind in ("iaf", "maf_as_shipped"):
        for name, iaf in installed(kind):
            sizes, targets = (SMALL, None) if setting.quick else (WIDE, {GRADIENTS: (TARGET, None)})
            yield from density("IAF", name, iaf(sizes), sizes, setting, targets, modes=(GRADIENTS,))
            sizes = SMALL if setting.quick else MIDDLE
            yield samples("IAF", name, iaf(sizes), sizes, setting, None)


def _plain(sizes: Sizes, setting: Setting) -> Iterator[Case]:
    x = torch.randn(sizes.batch, sizes.features, device=setting.device)
    hidden = (sizes.hidden, sizes.hidden)
    flow = flows.IAF(sizes.features, transforms=sizes.transforms, hidden_features=hidden, device=setting.device)
    loop, exact = copy.deepcopy(flow), copy.deepcopy(flow).double()
    against = {OURS: own(flow, flow.log_prob, x), "PyTorch": Candidate(list(loop.parameters()), _d_passes(loop), x)}

    def truth(x: Tensor) -> tuple[Tensor, ...]:
        return value_and_gradients(list(exact.parameters()), _d_passes(exact), x)

    yield from whole_model("IAF", str(sizes), against, truth, masked_works(flow, sizes.batch))


def _d_passes(flow: flows.IAF) -> Callable[[Tensor], Tensor]:
    """The density as others compute it: the networks again and again, one feature more each time."""
    blocks = [module for module in flow.modules() if isinstance(module, MaskedAutoregressiveTransform)]

    def log_prob(x: Tensor) -> Tensor:
        log_det = x.new_zeros(len(x))
        for block in blocks:
            made = block.made
            x, log_det = reference.autoregressive_inverse(
                x, made.network, made.params, scale_map=block.scale_map, log_det=log_det
            )
        return reference.gaussian_log_prob(x) + log_det

    return log_prob
