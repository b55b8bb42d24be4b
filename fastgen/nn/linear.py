"""The masked linear layer of MADE as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import LinearPlan, _check, make_plan, masked_linear
from ..ops._plan import check_degrees
from ..reference import activation_name
from .degrees import fan_in
from .planned import Planned


class MaskedLinear(Planned[LinearPlan]):
    """y_k = act(b_k + sum_j M_kj W_kj x_j), M_kj = [in_degrees_j <= out_degrees_k], or `<` when `strict`.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", equations 12 and 13. Neither the mask nor
    W * M is ever formed. Entries of `weight` outside the mask have no effect and get zero gradient.

    Args:
        in_features, out_features: at least 1.
        in_degrees, out_degrees: int64 vectors of these lengths, on the CPU. Configuration: neither buffers nor in the
            state_dict.
        bias: whether there is one.
        strict: `<` in place of `<=`, as an output layer needs.
        activation: identity (None), relu, leaky_relu, elu, tanh, sigmoid, softplus, silu or gelu.

    Raises:
        ValueError, TypeError: a width below 1, degrees of another length or dtype, an unknown activation.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        in_degrees: Tensor,
        out_degrees: Tensor,
        *,
        bias: bool = True,
        strict: bool = False,
        activation: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, width in (("in_features", in_features), ("out_features", out_features)):
            if width < 1:
                raise ValueError(f"{name}: expected at least 1, found {width}")
        self.in_features, self.out_features = in_features, out_features
        for name, degrees, width in (("in_degrees", in_degrees, in_features), ("out_degrees", out_degrees, out_features)):
            check_degrees(degrees, name)
            _check.shape(degrees, name, (width,))
        self.in_degrees, self.out_degrees = in_degrees.clone(), out_degrees.clone()
        self.strict, self.activation = strict, activation_name(activation)
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()
        self._replan()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws weight and bias from U(-1/sqrt(n), 1/sqrt(n)), n the number of inputs an output may see.

        That is torch.nn.Linear's initialisation with the masked inputs left out of the fan-in: counted in, they would make
        the outputs of low degree, which see few inputs, start much smaller than the others.
        """
        bound = fan_in(self.in_degrees, self.out_degrees, self.strict).clamp(min=1).to(self.weight).rsqrt()
        self.weight.uniform_(-1, 1).mul_(bound[:, None])
        if self.bias is not None:
            self.bias.uniform_(-1, 1).mul_(bound)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        return masked_linear(
            x,
            self.weight,
            self.bias,
            self.in_degrees,
            self.out_degrees,
            strict=self.strict,
            activation=self.activation,
            plan=self._plan_on(x.device),
        )

    @property
    def params(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias."""
        own = self._parameters
        # A lookup costs a tenth of an attribute; a parametrized weight is an attribute only.
        if "weight" in own and "bias" in own:
            return own["weight"], own["bias"]  # type: ignore[return-value]
        return self.weight, self.bias

    def _make_plan(self, device: torch.device) -> LinearPlan:
        return make_plan(self.in_degrees, self.out_degrees, strict=self.strict, device=device)

    def extra_repr(self) -> str:
        options = f"bias={self.bias is not None}, strict={self.strict}, activation={self.activation!r}"
        return f"in_features={self.in_features}, out_features={self.out_features}, {options}"
