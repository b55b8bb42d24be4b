"""What a base distribution is, and the standard normal: what the noise of a flow is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import _check
from ..ops.gaussian_log_prob import gaussian_log_prob
from .batch import draw
from .checks import at_least_one


class Distribution(nn.Module):
    """What a flow asks of its base. A subclass gives `log_prob`, and `rsample` or, where samples have no gradients, `sample`.

    Attributes:
        features: D; None where the distribution does not tell.
        conditional: whether it depends on a context. Others take one and do not read it.
        config: keyword arguments, as JSON knows them, that build the same distribution again; its state_dict holds all
            learned numbers.
    """

    features: int | None = None
    conditional = False

    @property
    def config(self) -> dict[str, Any]:
        return {"features": self.features}

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """z (..., D) and context (..., F), their batches broadcast -> (...) in nats.

        float64 for float64 noise, else float32.
        """
        raise NotImplementedError

    @torch.no_grad()
    def sample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(*shape, D) without gradients, drawn from `generator` or from torch's own.

        context: (..., F), its batch broadcastable to `shape`.
        """
        return self.rsample(shape, context, generator=generator)

    def rsample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`sample` with gradients: of the samples with respect to parameters and context.

        Raises NotImplementedError where the distribution has no such samples.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a base whose samples have gradients; `sample` has none")

    @property
    def reparameterised(self) -> bool:
        """Whether there is an `rsample`."""
        return type(self).rsample is not Distribution.rsample

    def centre(self, context: Tensor | None = None) -> Tensor | float | None:
        """What samples are spread about, for temperatures: a number, or (..., D) for context (..., F).

        None where the distribution has no such centre.
        """
        return None

    def extra_repr(self) -> str:
        return f"features={self.features}"


class StandardNormal(Distribution):
    """The standard normal distribution of D features. Raises ValueError for fewer than one."""

    like: Tensor
    features: int

    def __init__(self, features: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        at_least_one(features=features)
        self.features = features
        # Holds nothing: it follows the module to the device and dtype that samples are to have.
        self.register_buffer("like", torch.zeros(0, device=device, dtype=dtype), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        _check.features(z, "z", self.features)
        return gaussian_log_prob(z)

    def rsample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        size = (*shape, self.features)
        return draw(torch.randn, size, generator, dtype=self.like.dtype, device=self.like.device)

    def centre(self, context: Tensor | None = None) -> float:
        return 0.0
