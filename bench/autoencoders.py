"""Variational autoencoders in plain PyTorch, as users write them, beside fastgen's: their bounds with every pass."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen.models import IWAE, VAE
from fastgen.reference.gaussian_rsample_kl import draw_seed
from fastgen.reference.philox import philox_normal

from .case import OURS, Case, Setting
from .networks import Works, dense_works
from .providers import compiled
from .steps import Candidate, value_and_gradients, whole_model

# Before every checked call, so that fastgen's noise is known.
_SEED = 7


class Sizes(NamedTuple):
    """Rows, pixels, the width of one hidden layer each way, latent features, and samples of each row."""

    batch: int
    features: int
    hidden: int
    latent: int
    samples: int = 1

    def __str__(self) -> str:
        drawn = f", {self.samples} samples" if self.samples > 1 else ""
        return f"{self.batch} x {self.features}, hidden {self.hidden}, latent {self.latent}{drawn}"


class PlainVAE(nn.Module):
    """A VAE with a Gaussian posterior and a Bernoulli decoder, with the weights of one of fastgen's."""

    def __init__(self, model: VAE, samples: int) -> None:
        super().__init__()
        self.encoder, self.decoder = (_chain(network.layers) for network in (model.encoder, model.decoder.network))
        self.samples = samples

    def elbo(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """E_q[log p(x | z)] - KL(q(z | x) || p(z)) for x (B, D), of one sample: (B,) in nats."""
        mean, log_var = self.encoder(x).chunk(2, -1)
        noise = torch.randn_like(mean) if noise is None else noise
        z = mean + (0.5 * log_var).exp() * noise
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)
        return self._log_likelihood(x, z) - kl

    def iwae(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """The logarithm of the mean importance weight for x (B, D): (B,) in nats."""
        mean, log_var = self.encoder(x).chunk(2, -1)
        size = (self.samples, *mean.shape)
        noise = torch.randn(size, dtype=x.dtype, device=x.device) if noise is None else noise
        z = mean + (0.5 * log_var).exp() * noise
        log_ratio = 0.5 * (z.square() - noise.square() - log_var).sum(-1)
        weights = self._log_likelihood(x.expand(self.samples, *x.shape), z) - log_ratio
        return weights.logsumexp(0) - math.log(self.samples)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(-1)


def _chain(layers: Sequence[nn.Linear]) -> nn.Sequential:
    steps: list[nn.Module] = []
    for layer in layers:
        steps += [copy.deepcopy(layer), nn.ReLU()]
    return nn.Sequential(*steps[:-1])


def bounds(
    model: VAE, sizes: Sizes, setting: Setting, targets: Mapping[str, Mapping[str, float]] | None = None
) -> Iterator[Case]:
    """The cases of a model's objective, beside plain PyTorch and its compiler.

    Work: that of the linear layers, the decoder's on every sample.
    """
    x = torch.rand(sizes.batch, sizes.features, device=setting.device).round()
    method = "iwae" if isinstance(model, IWAE) else "elbo"
    exact = PlainVAE(model, sizes.samples).double()

    def truth(x: Tensor) -> tuple[Tensor, ...]:
        return value_and_gradients(list(exact.parameters()), _given(getattr(exact, method), sizes, method), x)

    ours = Candidate(list(model.parameters()), model.objective, x, checked=_seeded(model.objective))
    against = {OURS: ours, "PyTorch": _candidate(PlainVAE(model, sizes.samples), sizes, method, x)}
    for mode in compiled(exact.elbo, setting):
        plain = PlainVAE(model, sizes.samples)
        setattr(plain, method, compiled(getattr(plain, method), setting)[mode])
        against[mode] = _candidate(plain, sizes, method, x)
    encoder = dense_works(model.encoder, sizes.batch, sizes.features)
    decoder = dense_works(model.decoder, sizes.batch * sizes.samples, sizes.latent)
    works = Works(*(a + b for a, b in zip(encoder, decoder, strict=True)))
    yield from whole_model(type(model).__name__, str(sizes), against, truth, works, targets)


def _candidate(plain: PlainVAE, sizes: Sizes, method: str, x: Tensor) -> Candidate:
    function = getattr(plain, method)
    return Candidate(list(plain.parameters()), function, x, checked=_given(function, sizes, method))


def _seeded(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        torch.manual_seed(_SEED)
        return function(x)

    return run


def _given(function: Callable[[Tensor, Tensor], Tensor], sizes: Sizes, method: str) -> Callable[[Tensor], Tensor]:
    """The bound with the noise that fastgen draws after the seed."""

    def run(x: Tensor) -> Tensor:
        torch.manual_seed(_SEED)
        lead = (sizes.samples,) if method == "iwae" else ()
        noise = philox_normal((*lead, len(x), sizes.latent), draw_seed(x.device), torch.get_default_dtype())
        return function(x, noise.to(x.dtype))

    return run
