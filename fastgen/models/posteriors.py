"""What an encoder says of a latent vector: a Gaussian, or one that flows of the encoder's own carry on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..flows import IAF
from ..nn.checks import check_counts
from ..ops import gaussian_log_prob, gaussian_rsample_kl, gaussian_rsample_log_ratio, planar, radial

# Those whose transforms have no parameters of their own.
AMORTISED = ("planar", "radial")

# softplus of it is 1.
UNIT_SOFTPLUS = math.log(math.e - 1)


class GaussianPosterior(nn.Module):
    """q(z | x) = N(mean, e^log_var), a number of each for every latent feature; the prior is the standard normal.

    Kingma & Welling 2014, "Auto-Encoding Variational Bayes".

    Args:
        features: L.

    Attributes:
        outputs: what an encoder puts out for a row, the first L the mean, then log_var, then what the flow takes.
        analytic: whether the divergence from the prior is in closed form.
        options: the keyword arguments, as JSON knows them, that a posterior has beside `features`.
    """

    analytic = True

    def __init__(self, features: int, flow_outputs: int = 0) -> None:
        super().__init__()
        self.features, self.outputs = features, 2 * features + flow_outputs
        self.options: dict[str, Any] = {}

    def start(self, bias: Tensor) -> None:
        """Sets the bias (outputs,) of the encoder's last layer, where the flow is to start near the identity."""

    def moments(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log_var (..., L) out of what an encoder put out, (..., outputs)."""
        mean, log_var = encoded[..., : 2 * self.features].chunk(2, -1)
        return mean, log_var

    def centre(self, encoded: Tensor) -> Tensor:
        """The latent vectors (..., L) that the means become."""
        return self.moments(encoded)[0]

    def rsample_kl(self, encoded: Tensor, samples: int | None = None, free_bits: float = 0.0) -> tuple[Tensor, Tensor]:
        """z (..., L) or (samples, ..., L), and KL(q || prior) in nats, or an unbiased estimate of it from each z.

        It has the shape of the rows, or of the samples where it is an estimate.
        """
        return gaussian_rsample_kl(*self.moments(encoded), samples=samples, free_bits=free_bits)

    def rsample_log_ratio(self, encoded: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """z (samples, ..., L) and log q(z | x) - log p(z) of each, (samples, ...) in nats."""
        return gaussian_rsample_log_ratio(*self.moments(encoded), samples=samples)


class FlowPosterior(GaussianPosterior):
    """z = f(z_0) with z_0 from a Gaussian: log q(z | x) = log q_0(z_0) - log|det df/dz_0|.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", equations 13 and 15.
    """

    analytic = False

    def push(self, z: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """f(z) (S..., L) and log|det df/dz| (S...) in nats, for z (S..., L) and `encoded`, its batch broadcastable to z's."""
        raise NotImplementedError

    def flow_part(self, encoded: Tensor) -> Tensor:
        """What the encoder put out for the flow."""
        return encoded[..., 2 * self.features :]

    def centre(self, encoded: Tensor) -> Tensor:
        return self.push(super().centre(encoded), encoded)[0]

    def rsample_kl(self, encoded: Tensor, samples: int | None = None, free_bits: float = 0.0) -> tuple[Tensor, Tensor]:
        z, ratio = self.rsample_log_ratio(encoded, samples or 1)
        return (z[0], ratio[0]) if samples is None else (z, ratio)

    def rsample_log_ratio(self, encoded: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        first, ratio = super().rsample_log_ratio(encoded, samples)
        z, log_det = self.push(first, encoded)
        return z, ratio + gaussian_log_prob(first) - gaussian_log_prob(z) - log_det


class PlanarPosterior(FlowPosterior):
    """K planar layers whose parameters the encoder gives row by row.

    transforms: K, at least 1.
    """

    def __init__(self, features: int, *, transforms: int) -> None:
        check_counts(1, transforms=transforms)
        super().__init__(features, transforms * (2 * features + 1))
        self.transforms, self.options = transforms, {"transforms": transforms}

    @torch.no_grad()
    def start(self, bias: Tensor) -> None:
        # A w of about length 1 in a direction of its own, and the u with which the layer does nothing: u_hat is 0.
        w = torch.randn(self.transforms, self.features, device=bias.device, dtype=bias.dtype) / self.features**0.5
        u = UNIT_SOFTPLUS * w / w.square().sum(-1, keepdim=True)
        bias[2 * self.features :].copy_(torch.cat([u.flatten(), w.flatten(), w.new_zeros(self.transforms)]))

    def push(self, z: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        size = self.transforms * self.features
        u, w, b = self.flow_part(encoded).split([size, size, self.transforms], -1)
        u, w = (t.unflatten(-1, (self.transforms, self.features)).expand(*z.shape[:-1], -1, -1) for t in (u, w))
        return planar(z, u, w, b.expand(*z.shape[:-1], -1))


class RadialPosterior(FlowPosterior):
    """K radial layers whose parameters the encoder gives row by row.

    transforms: K, at least 1.
    """

    def __init__(self, features: int, *, transforms: int) -> None:
        check_counts(1, transforms=transforms)
        super().__init__(features, transforms * (features + 2))
        self.transforms, self.options = transforms, {"transforms": transforms}

    @torch.no_grad()
    def start(self, bias: Tensor) -> None:
        # Centres of their own about the prior's, and beta = softplus(raw_beta) - alpha = 0.
        centre = torch.randn(self.transforms * self.features, device=bias.device, dtype=bias.dtype)
        ones = centre.new_ones(self.transforms)
        bias[2 * self.features :].copy_(torch.cat([centre, 0 * ones, UNIT_SOFTPLUS * ones]))

    def push(self, z: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        batch, k = z.shape[:-1], self.transforms
        centre, log_alpha, raw_beta = self.flow_part(encoded).split([k * self.features, k, k], -1)
        centre = centre.unflatten(-1, (k, self.features)).expand(*batch, -1, -1)
        return radial(z, centre, log_alpha.expand(*batch, -1), raw_beta.expand(*batch, -1))


class IAFPosterior(FlowPosterior):
    """An inverse autoregressive flow from z_0 to z, one pass of each network, with a context that the encoder gives.

    Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", section 4.

    transforms: how many, at least 1.
    flow_hidden_features: widths of the hidden layers of each one's network.
    flow_context_features: the width of the context, at least 1.
    """

    def __init__(
        self,
        features: int,
        *,
        transforms: int,
        flow_hidden_features: Sequence[int],
        flow_context_features: int,
        activation: str,
        **placed: Any,
    ) -> None:
        check_counts(1, flow_context_features=flow_context_features)
        super().__init__(features, flow_context_features)
        self.options = {
            "transforms": transforms,
            "flow_hidden_features": list(flow_hidden_features),
            "flow_context_features": flow_context_features,
        }
        self.flow = IAF(
            features,
            context_features=flow_context_features,
            transforms=transforms,
            hidden_features=flow_hidden_features,
            activation=activation,
            **placed,
        )

    def push(self, z: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.transform.inverse(z, self.flow_part(encoded))
