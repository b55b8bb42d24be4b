"""Fixed transforms of each feature by itself, that prepare data for a flow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.checks import check_counts
from ..ops import _check
from ..reference.accumulate import accumulator
from .checks import at_least_one
from .moments import Moments
from .transform import Transform, spread_log_det


def dequantize(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Integer grey levels 0..L-1 -> continuous ones in [0, L): noise from U[0, 1) is added.

    The mean log-density of the result, per unit of one grey level, is at most the log-probability of the integers (Theis et
    al. 2016, "A note on the evaluation of generative models").

    Args:
        pixels: any shape; integers, or floating numbers of integer value.
        generator: where the noise is drawn from, on the device of `pixels`; None: torch's own.

    Returns:
        The pixels' shape and dtype, torch's default dtype for integers.
    """
    dtype = pixels.dtype if pixels.is_floating_point() else torch.get_default_dtype()
    levels = pixels.to(dtype)
    noisy = levels + torch.rand(pixels.shape, dtype=dtype, device=pixels.device, generator=generator)
    # The sum may round up to the next level.
    return torch.minimum(noisy, torch.nextafter(levels + 1, levels))


class Dequantize(Transform):
    """Integer grey levels 0..L-1 to continuous ones in [0, L) by `dequantize`; the inverse rounds down. log_det is 0.

    A flow behind it has the log-density of noisy levels, on average at most the log-probability of the levels themselves. The
    noise is drawn from torch's generator, in evaluation mode too.

    Raises ValueError for fewer than 2 levels.
    """

    exact_inverse = False

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        check_counts(2, levels=levels)
        self.levels = levels

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again."""
        return {"levels": self.levels}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        noisy = dequantize(x)
        return noisy, spread_log_det(0.0, noisy, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As every transform's; what lies outside [0, L) goes to the nearest level."""
        return z.floor().clamp(0, self.levels - 1), spread_log_det(0.0, z, log_det)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


class UnitInterval(Transform):
    """Grey levels to [0, 1]: z = x / levels for x in [0, levels], so that a log-density of x is per unit of one grey level.

    Raises ValueError for fewer than 2 levels.
    """

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        check_counts(2, levels=levels)
        self.levels = levels

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again."""
        return {"levels": self.levels}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x / self.levels, spread_log_det(-x.shape[-1] * math.log(self.levels), x, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * self.levels, spread_log_det(z.shape[-1] * math.log(self.levels), z, log_det)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


class Logit(Transform):
    """z = log(p / (1 - p)), p = alpha + (1 - 2 alpha) x, for x in [0, 1] (Papamakarios et al. 2017).

    alpha > 0 keeps x = 0 and x = 1 finite, and lets the inverse reach alpha / (1 - 2 alpha) beyond either.

    Raises ValueError unless 0 <= alpha < 1/2.
    """

    def __init__(self, alpha: float = 1e-6) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha: expected a number in [0, 0.5), found {alpha}")
        self.alpha = alpha

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again."""
        return {"alpha": self.alpha}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.floating(x, "x")
        y = x.to(accumulator(x.dtype))
        p, q = self.alpha + (1 - 2 * self.alpha) * y, self.alpha + (1 - 2 * self.alpha) * (1 - y)
        total = -(p.log() + q.log()).sum(-1)
        return (p / q).log().to(x.dtype), spread_log_det(total + self._constant(x), x, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.floating(z, "z")
        a = z.to(accumulator(z.dtype))
        x = (a.sigmoid() - self.alpha) / (1 - 2 * self.alpha)
        total = (F.logsigmoid(a) + F.logsigmoid(-a)).sum(-1)
        return x.to(z.dtype), spread_log_det(total - self._constant(z), z, log_det)

    def _constant(self, x: Tensor) -> float:
        return x.shape[-1] * math.log1p(-2 * self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Standardise(Transform):
    """z = (x - mean) / std, feature by feature, with buffers mean and std (D,): 0 and 1 until fitted or loaded.

    Raises ValueError for fewer than one feature.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        at_least_one(features=features)
        self.features = features
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @classmethod
    def fit(cls, x: Tensor | Iterable[Tensor]) -> Standardise:
        """The transform that gives the rows of x (..., D) mean 0 and standard deviation 1; constant features keep their scale.

        It has x's dtype and device. x may also be an iterable of tensors, the rows part by part: they are passed over once, so
        that data larger than memory can be fitted. Raises ValueError for no rows or values that are not finite, TypeError for
        values that are not floating.
        """
        moments = Moments(x)
        fitted = cls(len(moments.mean)).to(moments.like)
        fitted.mean.copy_(moments.mean)
        fitted.std.copy_(torch.where(moments.low == moments.high, 1.0, moments.deviation))
        return fitted

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again, mean and std excepted."""
        return {"features": self.features}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.features(x, "x", self.features)
        return (x - self.mean) / self.std, spread_log_det(-self._log_scale(x), x, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.features(z, "z", self.features)
        return z * self.std + self.mean, spread_log_det(self._log_scale(z), z, log_det)

    def _log_scale(self, x: Tensor) -> Tensor:
        return self.std.to(accumulator(x.dtype)).log().sum()

    def extra_repr(self) -> str:
        return f"features={self.features}"
