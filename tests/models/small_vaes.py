"""Small autoencoders: with arbitrary weights, and with a likelihood that is known."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as td

from fastgen.models import VAE

DOUBLE = torch.float64
D, L = 5, 3
LEVELS = 9


def model(kind: type[VAE] = VAE, features: int = D, **options) -> VAE:
    """A small model, none of whose numbers is what it starts at."""
    torch.manual_seed(0)
    sizes = {"latent_features": L, "hidden_features": (7,), "activation": "tanh", "levels": LEVELS, "transforms": 2}
    made = kind(features, **{**sizes, "flow_hidden_features": (6,), "flow_context_features": 4, **options}, dtype=DOUBLE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval()


def rows(likelihood: str, *batch: int) -> Tensor:
    u = torch.rand(*batch, D, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    return {"bernoulli": u, "gaussian": 4 * u - 2, "discretized_logistic": (u * (LEVELS - 1)).round()}[likelihood]


def linear_gaussian(kind: type[VAE] = VAE, **options) -> tuple[VAE, Tensor, Tensor]:
    """x = W z + b + noise with q near the true posterior but not it; rows of it, and their log p(x)."""
    torch.manual_seed(1)
    vae = kind(4, latent_features=2, hidden_features=(), likelihood="gaussian", dtype=DOUBLE, **options).eval()
    weight, bias = vae.decoder.network.layers[0].weight, vae.decoder.network.layers[0].bias
    with torch.no_grad():
        weight.copy_(torch.randn_like(weight))
        bias.copy_(torch.randn_like(bias))
        vae.decoder.log_scale.fill_(-0.3)
        noise = vae.decoder.log_scale.exp() ** 2
        precision = torch.eye(2, dtype=DOUBLE) + weight.T @ weight / noise
        layer = vae.encoder.layers[0]
        gain = torch.linalg.solve(precision, weight.T) / noise
        layer.weight[:2] = gain + 0.05 * torch.randn_like(gain)
        layer.bias[:2] = -gain @ bias
        layer.weight[2:] = 0
        layer.bias[2:] = -precision.diagonal().log()
    covariance = (weight @ weight.T + noise * torch.eye(4, dtype=DOUBLE)).detach()
    marginal = td.MultivariateNormal(bias.detach(), covariance)
    x = marginal.sample((40,))
    return vae, x, marginal.log_prob(x)
