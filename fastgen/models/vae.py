"""The variational autoencoder, with Gaussian and with flow posteriors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..flows import Composed, Transform
from ..flows.batch import draw, sample_shape
from ..flows.registry import described, preprocessing
from ..nn.checks import check_counts, check_widths
from ..nn.mlp import MLP
from ..nn.pretrained import Pretrained
from ..ops import _check
from .decoders import DECODERS, Decoder
from .posteriors import AMORTISED, GaussianPosterior, IAFPosterior, PlanarPosterior, RadialPosterior

POSTERIORS = ("gaussian", "planar", "radial", "iaf")

# Rows of the decoder at a time where an estimate takes many samples.
ESTIMATE_ROWS = 1 << 13


class VAE(Pretrained):
    """p(x) = integral of p(x | z) N(z; 0, I) dz, trained on a bound that a second network, of q(z | x), makes tractable.

    Kingma & Welling 2014, "Auto-Encoding Variational Bayes". All bounds are per row, in nats: the log-likelihood of a row
    itself has no closed form, and `log_prob_estimate` says what it is about.

    Args:
        features: D.
        latent_features: L.
        hidden_features: widths of the encoder's hidden layers; the decoder has them in reverse.
        likelihood: p(x | z), one of DECODERS: "bernoulli", x in [0, 1]; "gaussian", any x; "discretized_logistic", x whole
            levels 0..levels-1.
        log_scale: of the latter two: "shared" by all features, one for each "feature", or of x and z from the "network".
        levels: of the last, at least 2.
        posterior: q(z | x): "gaussian", or one of a Gaussian and `transforms` layers of a "planar", "radial" or "iaf" flow.
        transforms: how many layers, at least 1.
        flow_hidden_features, flow_context_features: of an IAF the widths of its networks' hidden layers and that of the context
            they see.
        activation: of all networks.
        free_bits: lambda >= 0 in nats: in training mode each latent feature of a Gaussian posterior counts max(KL_j, lambda),
            row by row (Kingma et al. 2016, appendix C.8).
        preprocess: of the data of a Gaussian decoder, transforms before everything, as `fastgen.flows.MAF` takes them.

    Attributes:
        discrete: whether its bounds are of probabilities, not densities.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    def __init__(
        self,
        features: int,
        *,
        latent_features: int = 20,
        hidden_features: Sequence[int] = (400,),
        likelihood: str = "bernoulli",
        log_scale: str = "shared",
        levels: int = 256,
        posterior: str = "gaussian",
        transforms: int = 4,
        flow_hidden_features: Sequence[int] = (64,),
        flow_context_features: int = 32,
        activation: str = "relu",
        free_bits: float = 0.0,
        preprocess: Iterable[Transform | Mapping[str, Any]] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_counts(1, features=features, latent_features=latent_features)
        check_widths(hidden_features, residual=False)
        if not 0 <= free_bits < math.inf:
            raise ValueError(f"free_bits: expected a finite number of at least 0, found {free_bits}")
        super().__init__()
        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        network: dict[str, Any] = {"activation": activation, **placed}
        self.features, self.latent_features, self.free_bits = features, latent_features, free_bits
        self.hidden_features, self.likelihood = list(hidden_features), likelihood
        before = [preprocessing(t).to(**placed) for t in preprocess]
        if before and likelihood != "gaussian":
            raise ValueError(f"preprocess: expected none but with a gaussian likelihood, found {len(before)}")
        self.preprocess = Composed(before) if before else None
        self.posterior_kind = posterior
        flow: dict[str, Any] = {"flow_hidden_features": flow_hidden_features, "flow_context_features": flow_context_features}
        self.posterior = _posterior(posterior, latent_features, transforms, flow, network)
        if free_bits > 0 and not self.posterior.analytic:
            raise ValueError(f"free_bits: expected 0 but with a gaussian posterior, found {free_bits} with {posterior}")
        self.encoder = MLP(features, self.posterior.outputs, hidden_features=hidden_features, **network)
        self.decoder = _decoder(
            likelihood, latent_features, features, {**network, "hidden_features": self.hidden_features[::-1]}, log_scale, levels
        )
        self.posterior.start(self.encoder.layers[-1].bias)

    @property
    def discrete(self) -> bool:
        return self.decoder.discrete

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same kind of model again; its state_dict holds all numbers.

        Raises TypeError where `preprocess` holds a transform of one's own.
        """
        return {
            "features": self.features,
            "latent_features": self.latent_features,
            "hidden_features": self.hidden_features,
            "likelihood": self.likelihood,
            **self.decoder.options,
            "posterior": self.posterior_kind,
            **self.posterior.options,
            "activation": self.encoder.activation,
            "free_bits": self.free_bits,
            "preprocess": [described(t) for t in self.preprocess or ()],
        }

    @classmethod
    def stacks_modules(cls, config: Mapping[str, Any]) -> bool:
        # The encoder gives their parameters.
        return config.get("posterior") not in AMORTISED

    def forward(self, x: Tensor) -> Tensor:
        """`objective`, so that wrappers of modules (DistributedDataParallel) reach it."""
        return self.objective(x)

    def objective(self, x: Tensor) -> Tensor:
        """What training maximises in place of a log_prob: `elbo` for x (..., D), (...) in nats."""
        return self.elbo(x)

    def elbo(self, x: Tensor, samples: int = 1) -> Tensor:
        """A bound on log p(x) for x (..., D), (...) in nats: E_q[log p(x | z)] - KL(q(z | x) || p(z)).

        Kingma & Welling 2014, equation 7. The expectation is the mean over `samples` of z, with gradients through them, and
        so is the divergence unless the posterior is Gaussian. float64 for float64 data, else float32. Raises ValueError or
        TypeError for data of another width or dtype, or fewer than one sample.
        """
        check_counts(1, samples=samples)
        seen, log_det = self._seen(x)
        free_bits = self.free_bits if self.training else 0.0
        z, kl = self.posterior.rsample_kl(self._encoded(seen), None if samples == 1 else samples, free_bits)
        bound = self.decoder.log_prob(seen, z) - kl
        bound = bound if samples == 1 else bound.mean(0)
        return bound if log_det is None else bound + log_det

    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        """log p(x | z) + log p(z) - log q(z | x) for samples z of q(z | x), (samples, ...) in nats, x (..., D).

        The mean of their exponentials is p(x) on average. Raises as `elbo` does.
        """
        check_counts(1, samples=samples)
        seen, log_det = self._seen(x)
        z, log_ratio = self.posterior.rsample_log_ratio(self._encoded(seen), samples)
        log_w = self.decoder.log_prob(seen, z) - log_ratio
        return log_w if log_det is None else log_w + log_det

    @torch.no_grad()
    def log_prob_estimate(self, x: Tensor, samples: int = 100, *, batch_size: int = ESTIMATE_ROWS) -> tuple[Tensor, Tensor]:
        """log p(x) by importance sampling from q(z | x) for x (..., D), and its standard error, both (...) in nats.

        The logarithm of the mean weight of `samples` samples, without gradients: too low by about half the squared standard
        error on average (Burda et al. 2016, theorem 1). The standard error is that of the mean weight over the mean weight,
        by the delta method; it is to be trusted where it is well below 1, and nan for a single sample.

        batch_size: rows of the decoder at a time, what the memory taken follows. Raises as `elbo` does.
        """
        check_counts(1, samples=samples, batch_size=batch_size)
        rows = self._data(x).reshape(-1, self.features)
        pieces = [self._estimate(piece, samples, batch_size) for piece in rows.split(batch_size)]
        estimate, error = (torch.cat(found).view(x.shape[:-1]) for found in zip(*pieces, strict=True))
        return estimate, error

    def _estimate(self, rows: Tensor, samples: int, batch_size: int) -> tuple[Tensor, Tensor]:
        at_once = max(1, batch_size // max(1, len(rows)))
        # Logarithms of the sums of the weights and of their squares.
        total = squares = torch.tensor(-math.inf, dtype=torch.float64, device=rows.device).expand(len(rows))
        for done in range(0, samples, at_once):
            found = self.log_weights(rows, min(at_once, samples - done))
            log_w = found.double()
            total = torch.logaddexp(total, log_w.logsumexp(0))
            squares = torch.logaddexp(squares, (2 * log_w).logsumexp(0))
        estimate = total - math.log(samples)
        excess = torch.expm1((squares - 2 * total + math.log(samples)).clamp(min=0))
        error = (excess / (samples - 1)).sqrt() if samples > 1 else torch.full_like(estimate, math.nan)
        return estimate.to(found.dtype), error.to(found.dtype)

    @torch.no_grad()
    def sample(self, n: int | Sequence[int], *, mean: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """n samples, without gradients, (n, D); n may be a shape.

        mean: p(x | z)'s mean for each z of the prior, in place of a draw from it.
        generator: where the samples are drawn from, on the device of the model; None: torch's own.
        """
        weight = self.encoder.layers[0].weight
        size = (*sample_shape(n), self.latent_features)
        z = draw(torch.randn, size, generator, dtype=weight.dtype, device=weight.device)
        return self.decode(z) if mean else self._unseen(self.decoder.sample(z, generator))

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z) for z (..., L): (..., D).

        Where there is a `preprocess`, what its inverse makes of the mean.
        """
        return self._unseen(self.decoder.mean(z))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (..., L) of q(z | x) for x (..., D); of the Gaussian before the flow where there is one."""
        return self.posterior.moments(self._encoded(self._seen(x)[0]))

    def latent(self, x: Tensor, *, sample: bool = False) -> Tensor:
        """z (..., L) for x (..., D): what q(z | x)'s mean becomes through its flow, where there is one, or a sample."""
        encoded = self._encoded(self._seen(x)[0])
        return self.posterior.rsample_kl(encoded)[0] if sample else self.posterior.centre(encoded)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, sample: bool = False) -> Tensor:
        """`decode` of `latent`, without gradients: (..., D) for x (..., D)."""
        return self.decode(self.latent(x, sample=sample))

    def _data(self, x: Tensor) -> Tensor:
        """x in the parameters' dtype: levels may come in any, continuous data in that one."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a tensor, found {type(x).__name__}")
        _check.features(x, "x", self.features)
        weight = self.encoder.layers[0].weight
        if self.discrete or not x.is_floating_point():
            x = x.to(weight.dtype)
        _check.like(x, "x", weight, "the weight")
        return x

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x as encoder and decoder see it, and the log_det of the way there."""
        x = self._data(x)
        if self.preprocess is not None:
            return self.preprocess(x)
        return self.decoder.scaled(x), None

    def _unseen(self, y: Tensor) -> Tensor:
        return y if self.preprocess is None else self.preprocess.inverse(y)[0]

    def _encoded(self, seen: Tensor) -> Tensor:
        # Under autocast the network answers in half precision.
        return self.encoder(seen).to(seen.dtype)


def _posterior(kind: str, features: int, transforms: int, flow: dict[str, Any], network: dict[str, Any]) -> GaussianPosterior:
    if kind == "gaussian":
        return GaussianPosterior(features)
    if kind == "planar":
        return PlanarPosterior(features, transforms=transforms)
    if kind == "radial":
        return RadialPosterior(features, transforms=transforms)
    if kind == "iaf":
        return IAFPosterior(features, transforms=transforms, **flow, **network)
    raise ValueError(f"posterior: expected one of {', '.join(POSTERIORS)}, found {kind!r}")


def _decoder(kind: str, latent_features: int, features: int, network: dict[str, Any], log_scale: str, levels: int) -> Decoder:
    if kind not in DECODERS:
        raise ValueError(f"likelihood: expected one of {', '.join(DECODERS)}, found {kind!r}")
    own = {"bernoulli": {}, "gaussian": {"log_scale": log_scale}}
    options: dict[str, Any] = own.get(kind, {"log_scale": log_scale, "levels": levels})
    return DECODERS[kind](latent_features, features, **options, **network)
