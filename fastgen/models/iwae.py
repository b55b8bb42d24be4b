"""The importance-weighted autoencoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..nn.checks import check_counts
from ..ops import gaussian_log_prob, iwae_bound
from .vae import VAE


class IWAE(VAE):
    """A VAE trained on the logarithm of the mean of several importance weights, a tighter bound than `elbo`.

    Burda et al. 2016, "Importance Weighted Autoencoders".

    Args:
        samples: k, how many weights; with one it is the VAE's bound, the divergence estimated from the sample.
        doubly_reparameterised: takes the encoder's gradient as Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators
            for Monte Carlo Objectives", equation 8: the same on average, with a variance that does not grow with k. For a
            Gaussian posterior.
        options: those of `VAE`, `free_bits` excepted, which this bound has no use for.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    def __init__(self, features: int, *, samples: int = 5, doubly_reparameterised: bool = False, **options: Any) -> None:
        check_counts(1, samples=samples)
        if options.get("free_bits"):
            raise ValueError(f"free_bits: expected 0 with importance weights, found {options['free_bits']}")
        super().__init__(features, **options)
        if doubly_reparameterised and not self.posterior.analytic:
            raise ValueError(f"doubly_reparameterised: expected False with a {self.posterior_kind} posterior, found True")
        self.samples, self.doubly_reparameterised = samples, doubly_reparameterised

    @property
    def config(self) -> dict[str, Any]:
        config = {**super().config, "samples": self.samples, "doubly_reparameterised": self.doubly_reparameterised}
        del config["free_bits"]
        return config

    def objective(self, x: Tensor) -> Tensor:
        """`bound` for x (..., D), (...) in nats."""
        return self.bound(x)

    def bound(self, x: Tensor, samples: int | None = None) -> Tensor:
        """log of the mean of e^`log_weights` for x (..., D), (...) in nats: a bound on log p(x).

        Burda et al. 2016, equation 8. samples: None: as many as the model is trained with. Raises as `elbo` does.
        """
        return iwae_bound(self.log_weights(x, self.samples if samples is None else samples))

    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        """As that of `VAE`, with the gradients that `doubly_reparameterised` asks for."""
        if not self.doubly_reparameterised:
            return super().log_weights(x, samples)
        check_counts(1, samples=samples)
        seen, log_det = self._seen(x)
        encoded = self._encoded(seen)
        z, _ = self.posterior.rsample_log_ratio(encoded, samples)
        # The encoder's gradient goes through z alone.
        mean, log_var = self.posterior.moments(encoded.detach())
        log_q = gaussian_log_prob(z, mean.expand_as(z), (0.5 * log_var).expand_as(z))
        log_w = self.decoder.log_prob(seen, z) + gaussian_log_prob(z) - log_q
        if z.requires_grad:
            weights = log_w.detach().softmax(0)[..., None]
            z.register_hook(lambda grad: grad * weights.to(grad.dtype))
        return log_w if log_det is None else log_w + log_det
