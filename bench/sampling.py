"""The slow directions of autoregressive flows: samples of a MAF, and the log_prob of an IAF with its gradients.

Other libraries take D passes of every network; the work here is that of one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fastgen import flows

from .case import OURS, Case, Setting, relative_error
from .models import Sizes, forward_work, peers, step_work
from .plain import PlainMAF
from .steps import LEARNING_RATE

# Features, samples, targets.
SIZES = (
    (64, 256, 120.0),
    (256, 256, 400.0),
    (64, 1, 45.0),
    (64, 16, 80.0),
)
DENSITY = Sizes(256, 256, 512)
DENSITY_TARGET = 200.0


def cases(setting: Setting) -> Iterator[Case]:
    for features, n, target in SIZES[:1] if setting.quick else SIZES:
        yield _sample(Sizes(n, features, 512), target, setting.device)
    if not setting.quick:
        yield _density(DENSITY, setting.device)


def _sample(sizes: Sizes, target: float, device: str) -> Case:
    flow = _flow(flows.MAF, sizes, device)
    others = {name: sampler(name, model, sizes.batch) for name, (model, _) in peers(sizes, device).items()}

    def error() -> float:
        with torch.no_grad():
            z = torch.randn(sizes.batch, sizes.features, device=device)
            x, _ = flow.transform.inverse(z)
            truth = PlainMAF(flow).double()
            return relative_error([truth.noise(x.double())], [z.double()])

    calls: dict[str, Callable[[], object]] = {OURS: lambda: flow.sample(sizes.batch), **others}
    work = forward_work(flow, sizes.batch)
    return Case("MAF", "sample", str(sizes), calls, error, work, dict.fromkeys(others, target), device=device)


def sampler(name: str, model: nn.Module, n: int) -> Callable[[], object]:
    @torch.no_grad()
    def draw() -> object:
        return model().sample((n,)) if name == "zuko" else model.sample(n)  # type: ignore[operator]

    return draw


def _density(sizes: Sizes, device: str) -> Case:
    flow, x = _flow(flows.IAF, sizes, device), torch.randn(sizes.batch, sizes.features, device=device)
    others = dict(slow_peers(sizes, device))

    def error() -> float:
        with torch.no_grad():
            z, _ = flow.transform(x[:8])
            back, _ = flow.transform.inverse(z.double() if z.dtype == torch.float64 else z)
            return relative_error([back], [x[:8].double()])

    calls = {OURS: _gradients(flow, flow.log_prob, x)}
    calls |= {name: _gradients(model, log_prob, x) for name, (model, log_prob) in others.items()}
    work = step_work(flow, sizes.batch)
    return Case(
        "IAF", "log_prob and gradients", str(sizes), calls, error, work, dict.fromkeys(others, DENSITY_TARGET), device=device
    )


def _gradients(model: nn.Module, log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def run() -> None:
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()

    return run


def _flow(kind: type[flows.MAF] | type[flows.IAF], sizes: Sizes, device: str) -> flows.MAF | flows.IAF:
    hidden = (sizes.hidden, sizes.hidden)
    return kind(sizes.features, transforms=sizes.transforms, hidden_features=hidden).to(device)


def slow_peers(sizes: Sizes, device: str) -> Iterator[tuple[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]]:
    """Flows of other libraries whose density is their slow direction, where they are installed."""
    hidden = [sizes.hidden] * 2
    if importlib.util.find_spec("pyro"):
        from pyro.distributions import Normal, TransformedDistribution
        from pyro.distributions.transforms import AffineAutoregressive
        from pyro.nn import AutoRegressiveNN

        blocks = [AffineAutoregressive(AutoRegressiveNN(sizes.features, hidden)) for _ in range(sizes.transforms)]
        noise = Normal(torch.zeros(sizes.features, device=device), 1.0).to_event(1)
        distribution = TransformedDistribution(noise, blocks)

        def log_prob(x: Tensor) -> Tensor:
            # What a transform just computed it remembers: a density of fresh data has to be inverted.
            distribution.clear_cache()
            return distribution.log_prob(x)

        yield "Pyro", (nn.ModuleList(blocks).to(device), log_prob)
    if importlib.util.find_spec("normflows"):
        import normflows

        layers = [
            normflows.flows.MaskedAffineAutoregressive(sizes.features, sizes.hidden, num_blocks=1, use_residual_blocks=False)
            for _ in range(sizes.transforms)
        ]
        model = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(sizes.features, trainable=False), layers)
        yield "normflows", (model.to(device), model.log_prob)
