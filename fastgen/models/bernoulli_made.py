"""MADE with Bernoulli conditionals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..flows.flow import match_context, sample_shape
from ..nn import MADE
from ..reference.accumulate import accumulator


class BernoulliMADE(nn.Module):
    """P(x) = prod_i Bernoulli(x_i; sigmoid(l_i)) of binary x, with the logit l_i from a MADE of the features before i.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation".

    Args:
        features: D.
        hidden_features: widths of the hidden layers.
        context_features: F, the width of the context it is conditioned on; 0 for none.
        options: the others of `fastgen.nn.MADE`, `outputs` excepted.
    """

    def __init__(
        self, features: int, *, hidden_features: Sequence[int] = (512, 512), context_features: int = 0, **options: Any
    ) -> None:
        super().__init__()
        self.made = MADE(features, hidden_features=hidden_features, context_features=context_features, outputs=1, **options)
        self._generation_order: list[int] = self.made.degrees.argsort().tolist()

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same model again."""
        return {name: value for name, value in self.made.config.items() if name != "outputs"}

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, so that wrappers of modules (DistributedDataParallel) reach it."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-probability of x (..., D) given context (..., F), their batches broadcast: (...) in nats.

        x holds 0 and 1 in the parameters' dtype. float64 for float64, else float32.
        """
        x = match_context(x, context)
        dtype = accumulator(x.dtype)
        logits = self.made(x, context).squeeze(-1).to(dtype)
        return -F.binary_cross_entropy_with_logits(logits, x.to(dtype), reduction="none").sum(-1)

    @torch.no_grad()
    def sample(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """n samples of 0 and 1 in the parameters' dtype: (n, D), with a context (C..., F) (n, C..., D); n may be a shape.

        generator: where the samples are drawn from, on the device of the model; None: torch's own.
        """
        terms = self.made.context_terms(context)
        batch = () if context is None else context.shape[:-1]
        weight = self.made.layers[0].weight
        size = (*sample_shape(n), *batch, self.made.features)
        uniform = torch.rand(size, dtype=weight.dtype, device=weight.device, generator=generator)
        x = torch.zeros_like(uniform)
        for i in self._generation_order:
            probability = self.made.evaluate(x, terms)[..., i, 0].sigmoid()
            x[..., i] = uniform[..., i] < probability
        return x

    @torch.no_grad()
    def sample_and_log_prob(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """`sample` and the log-probabilities of its samples, (n,) or (n, C...), in nats."""
        x = self.sample(n, context, generator=generator)
        return x, self.log_prob(x, context)
