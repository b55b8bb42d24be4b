"""The energies of Rezende & Mohamed 2015 in two dimensions, and planar flows fitted to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..nn.checks import check_counts
from ..ops import gaussian_log_prob, planar, planar_inverse

Energy = Callable[[Tensor], Tensor]

# Three of the energies go on for ever along the first axis: what is beyond EDGE is held back, on the scale SOFTNESS.
EDGE, SOFTNESS = 4.0, 0.2
# The square on which they are summed reaches so far, far enough for what is left out not to count.
REACH = 6.0


def _wave(x: Tensor) -> Tensor:
    return (2 * math.pi * x / 4).sin()


def _bump(x: Tensor) -> Tensor:
    return 3 * (-0.5 * ((x - 1) / 0.6) ** 2).exp()


def _step(x: Tensor) -> Tensor:
    return 3 * ((x - 1) / 0.3).sigmoid()


def _within(x: Tensor) -> Tensor:
    return 0.5 * ((x.abs() - EDGE).clamp(min=0) / SOFTNESS) ** 2


def _either(*terms: Tensor) -> Tensor:
    """-log of the sum of e^-term."""
    return -torch.logsumexp(-torch.stack(terms), 0)


def ring(z: Tensor) -> Tensor:
    """U1: a ring with two heavy sides. z (..., 2) -> (...), as all of them."""
    x = z[..., 0]
    sides = _either(0.5 * ((x - 2) / 0.6) ** 2, 0.5 * ((x + 2) / 0.6) ** 2)
    return 0.5 * ((z.square().sum(-1).sqrt() - 2) / 0.4) ** 2 + sides


def wave(z: Tensor) -> Tensor:
    """U2: a wave."""
    x, y = z.unbind(-1)
    return 0.5 * ((y - _wave(x)) / 0.4) ** 2 + _within(x)


def bump(z: Tensor) -> Tensor:
    """U3: a wave that parts around a bump."""
    x, y = z.unbind(-1)
    away = y - _wave(x)
    return _either(0.5 * (away / 0.35) ** 2, 0.5 * ((away + _bump(x)) / 0.35) ** 2) + _within(x)


def fork(z: Tensor) -> Tensor:
    """U4: a wave that parts for good."""
    x, y = z.unbind(-1)
    away = y - _wave(x)
    return _either(0.5 * (away / 0.4) ** 2, 0.5 * ((away + _step(x)) / 0.35) ** 2) + _within(x)


# Table 1 of Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows". The paper's U2 to U4 have no finite
# integral: here 1/2 ((|z_1| - 4) / 0.2)^2 is added where |z_1| > 4, the edge of its figures.
ENERGIES: dict[str, Energy] = {"U1": ring, "U2": wave, "U3": bump, "U4": fork}


def square(points: int, reach: float = REACH) -> Tensor:
    """The middles of points x points cells that fill the square of that reach: (points, points, 2), float64, by rows of z_2."""
    middles = (torch.arange(points, dtype=torch.float64) + 0.5) / points * 2 * reach - reach
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x, y], -1)


def log_normaliser(energy: Energy, points: int = 2000) -> float:
    """log of the integral of e^-energy over the plane, by the midpoint rule on `square`."""
    cell = (2 * REACH / points) ** 2
    return float(torch.logsumexp(-energy(square(points)).flatten(), 0)) + math.log(cell)


class PlanarSampler(nn.Module):
    """The distribution of planar layers' output for a Gaussian input of learned mean and scales.

    Rezende & Mohamed 2015, section 6.1. Several of them side by side are `restarts`, each with its own parameters.

    Args:
        features: D.
        transforms: K, how many layers.
        restarts: R.

    Raises:
        ValueError: fewer than one of them.
    """

    def __init__(
        self,
        features: int,
        transforms: int,
        *,
        restarts: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_counts(1, features=features, transforms=transforms, restarts=restarts)
        super().__init__()

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, device=device, dtype=dtype))

        self.mean = nn.Parameter(torch.zeros(restarts, features, device=device, dtype=dtype))
        self.log_scale = nn.Parameter(torch.zeros(restarts, features, device=device, dtype=dtype))
        self.w, self.u, self.b = (
            normal(restarts, transforms, features),
            normal(restarts, transforms, features),
            normal(restarts, transforms),
        )

    def sample_and_log_prob(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n samples of each restart, with gradients, (R, n, D), and their log-densities (R, n) in nats."""
        restarts, features = self.mean.shape
        noise = torch.randn(restarts, n, features, dtype=self.mean.dtype, device=self.mean.device, generator=generator)
        z = self.mean[:, None] + self.log_scale[:, None].exp() * noise
        x, log_det = planar(z, *self._layers(n))
        return x, gaussian_log_prob(noise) - self.log_scale.sum(-1)[:, None] - log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-densities of x (R, n, D) in nats, (R, n)."""
        z, log_det = planar_inverse(x, *self._layers(x.shape[1]))
        mean, log_scale = (t[:, None].expand_as(z) for t in (self.mean, self.log_scale))
        return gaussian_log_prob(z, mean, log_scale) + log_det

    def _layers(self, n: int) -> list[Tensor]:
        return [t[:, None].expand(t.shape[0], n, *t.shape[1:]) for t in (self.u, self.w, self.b)]


def fit_energy(
    energy: Energy,
    transforms: int,
    *,
    restarts: int = 1,
    steps: int = 5000,
    samples: int = 512,
    learning_rate: float = 0.01,
    annealed: float = 0.5,
    seed: int = 0,
) -> PlanarSampler:
    """Planar layers whose output has about the density e^-energy: KL(q || p) is minimised over reparameterised samples.

    Rezende & Mohamed 2015, equations 15 and 20: the energy counts by a factor that rises from 0.01 to 1.

    Args:
        energy: (..., 2) -> (...).
        transforms, restarts: see `PlanarSampler`; all restarts are fitted at once.
        steps: of Adam, whose rate falls to 0 along a cosine.
        samples: drawn for every step.
        annealed: the fraction of the steps after which the factor is 1.
        seed: of the first parameters and the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        sampler = PlanarSampler(2, transforms, restarts=restarts)
    optimizer = torch.optim.Adam(sampler.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        factor = min(1.0, 0.01 + step / (annealed * steps))
        x, log_prob = sampler.sample_and_log_prob(samples, generator=generator)
        optimizer.zero_grad()
        (log_prob + factor * energy(x)).mean(-1).sum().backward()
        # Each restart by itself: a wild one must not slow the others.
        for parameter in sampler.parameters():
            assert parameter.grad is not None
            norm = parameter.grad.flatten(1).norm(dim=1).clamp(min=1)
            parameter.grad.div_(norm.view(-1, *(1,) * (parameter.dim() - 1)))
        optimizer.step()
        schedule.step()
    return sampler


@torch.no_grad()
def divergence(sampler: PlanarSampler, energy: Energy, *, samples: int = 100_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """KL(q || p) of each restart in nats and its standard error, both (R,): p is e^-energy over its integral.

    samples: what the expectation over q is estimated from; the integral is `log_normaliser`'s.
    """
    generator = torch.Generator(sampler.mean.device).manual_seed(seed)
    x, log_prob = sampler.sample_and_log_prob(samples, generator=generator)
    ratio = (log_prob + energy(x)).double()
    return ratio.mean(-1) + log_normaliser(energy), ratio.std(-1) / math.sqrt(samples)
