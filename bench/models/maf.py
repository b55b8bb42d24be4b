"""MAF: density, gradients, training step and samples, beside plain PyTorch and other libraries.

Work: that of its networks once forward, and for samples the same; see networks.py. Beside another library fastgen's flow has
that one's weights, scale map and order of features. Samples take other libraries D passes of every network.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen import flows

from ..beside import Targets, density, samples
from ..case import OURS, Case, Setting
from ..eager import candidates, truth
from ..networks import Sizes, masked_works
from ..peers import installed
from ..steps import EVALUATION, GRADIENTS, STEP, Candidate, whole_model

SMALL, MIDDLE, LARGE = Sizes(64, 8, 64), Sizes(256, 64, 512), Sizes(4096, 63, 512)
MANY_ROWS = Sizes(1024, 8, 64)
# Against plain PyTorch, eager and compiled.
TARGETS = {MIDDLE: {STEP: {"PyTorch": 2.0, "compiled": 1.6}, EVALUATION: {"PyTorch": 2.6}}}
# Against other libraries and the same compiled, by pass.
PEER_TARGETS: dict[Sizes, Targets] = {
    MIDDLE: {STEP: (2.0, 1.6), EVALUATION: (3.0, None)},
    SMALL: {STEP: (2.0, 1.6)},
    LARGE: {STEP: (3.0, 1.5)},
}
# Samples, features, hidden width, and how many times faster than other libraries.
SAMPLES: tuple[tuple[Sizes, float | None], ...] = (
    (Sizes(256, 64, 512), 120.0),
    (Sizes(256, 256, 512), 400.0),
    (Sizes(1, 64, 512), 45.0),
    (Sizes(16, 64, 512), 80.0),
    (SMALL, 20.0),
    (MANY_ROWS, None),
)


def cases(setting: Setting) -> Iterator[Case]:
    densities: tuple[Sizes, ...] = (LARGE,)
    if setting.device == "cpu":
        densities = (SMALL,) if setting.quick else (MIDDLE, SMALL, MANY_ROWS)
    draws = [(sizes, target) for sizes, target in SAMPLES if not setting.quick or sizes == SMALL]
    for sizes in densities:
        yield from _plain(sizes, setting)
    for name, maf in installed("maf"):
        for sizes in densities:
            yield from density("MAF", name, maf(sizes), sizes, setting, PEER_TARGETS.get(sizes))
        for sizes, target in draws:
            yield samples("MAF", name, maf(sizes), sizes, setting, target)
    for name, maf in installed("maf_as_shipped"):
        sizes = densities[0]
        yield from density("MAF", f"{name} as shipped", maf(sizes), sizes, setting, modes=(GRADIENTS, STEP))


def _plain(sizes: Sizes, setting: Setting) -> Iterator[Case]:
    x = torch.randn(sizes.batch, sizes.features, device=setting.device)
    hidden = (sizes.hidden, sizes.hidden)
    flow = flows.MAF(sizes.features, transforms=sizes.transforms, hidden_features=hidden, device=setting.device)
    against = {OURS: Candidate(list(flow.parameters()), flow.log_prob, x), **candidates(flow, "log_prob", x, setting)}
    exact, works = truth(flow, "log_prob"), masked_works(flow, sizes.batch)
    yield from whole_model("MAF", str(sizes), against, exact, works, TARGETS.get(sizes))
