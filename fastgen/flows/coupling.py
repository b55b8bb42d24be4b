"""Coupling layers: some entries are mapped, given what a network makes of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.networks import build_network, describe_network
from ..nn.planned import Planned
from ..ops import Checkerboard, CouplingPlan, ScaleMap, _check, additive_coupling, affine_coupling, make_coupling_plan
from ..reference.coupling import MASKED_AXIS
from .checks import at_least_one
from .image import image_shape
from .transform import Retraced, Transform

# Scales between e^-2 and e^2: each feature meets many couplings, whose scales multiply, and what a reversible stack or a
# sample loses to rounding grows with the largest. A soft clip, unlike tanh, lets gradients through far outside.
SCALE_MAP = ScaleMap("soft_clip", c=2.0)

# A network, what makes one out of how many features (channels) it reads and answers with, or the description of one.
Conditioner = nn.Module | Callable[[int, int], nn.Module] | Mapping[str, Any]


class Coupling(Planned[CouplingPlan], Transform):
    """Entries where the mask is True are transformed, given the others, which pass as they are.

    Args:
        shape: D for vectors, (C, H, W) for images.
        mask: True where an entry is transformed: bools (D,) for vectors or (C,) for images; or, for images, a Checkerboard or
            its keyword arguments. It is configuration, not part of the state_dict.
        conditioner: a network, or what makes one given two numbers of features (channels), of its input and its output, such as
            `functools.partial(fastgen.nn.MLP, hidden_features=(64, 64), zero_init=True)`; or one of `fastgen.nn`, its name
            under "network" and its arguments. It is called with the entries that
            pass, in order, and the context where there is one; with a checkerboard, with images of full width that are zero
            where the mask is True. It answers with the coefficients of the transformed entries (all entries with a
            checkerboard) side by side, one kind after the other.

    Raises:
        ValueError, TypeError: a size below 1, a mask of another shape or dtype, or one that is True nowhere or everywhere.
    """

    # How many numbers the network gives for each entry.
    coefficients: int
    _index: Tensor

    def __init__(
        self,
        shape: int | Sequence[int],
        mask: Tensor | Sequence[bool] | Checkerboard | Mapping[str, int],
        conditioner: Conditioner,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else image_shape(shape)
        at_least_one(features=self.shape[0])
        self.event_dims = len(self.shape)
        self._axis = MASKED_AXIS[self.event_dims]
        mask = Checkerboard(**mask) if isinstance(mask, Mapping) else mask
        self.mask = mask if isinstance(mask, Checkerboard) else _checked(mask, self.shape)
        # What tells the entries that pass: a slice, the index of each, or the pixels where none does.
        self._slice: slice | None = None
        inputs = outputs = self.shape[0]
        index: Tensor | None
        if isinstance(self.mask, Checkerboard):
            index = _squares(self.mask, self.shape)
        else:
            index = (~self.mask).nonzero().flatten()
            inputs, outputs = len(index), outputs - len(index)
            self._slice = _progression(index.tolist())
        self.register_buffer("_index", index if self._slice is None else None, persistent=False)
        self.answers = self.coefficients * outputs
        if isinstance(conditioner, Mapping):
            conditioner = build_network(conditioner, device=device, dtype=dtype)
        self.conditioner = conditioner if isinstance(conditioner, nn.Module) else conditioner(inputs, self.answers)
        self._replan()

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same coupling again.

        Raises TypeError where the network is of one's own.
        """
        mask = {"parity": self.mask.parity} if isinstance(self.mask, Checkerboard) else self.mask.tolist()
        shape = list(self.shape) if self.event_dims > 1 else self.shape[0]
        return {"shape": shape, "mask": mask, "conditioner": describe_network(self.conditioner)}

    def couple(
        self, x: Tensor, coefficients: Sequence[Tensor], *, inverse: bool, log_det: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The map of x with these coefficients, or its inverse, and its log_det."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (..., D) or (..., C, H, W) and context (..., F) -> z of x's shape and log|det dz/dx| (...), added to `log_det`."""
        return self.couple(x, self._coefficients(x, context), inverse=False, log_det=log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.couple(z, self._coefficients(z, context), inverse=True, log_det=log_det)

    def retrace(self, output: Tensor, context: Tensor | None = None, *, inverse: bool = False) -> Retraced:
        # The entries that pass are those of the input: the network that read them there reads them here.
        passed = output.detach().requires_grad_()
        coefficients = self._coefficients(passed, context)
        with torch.no_grad():
            rebuilt, _ = self.couple(output, coefficients, inverse=not inverse)
        leaf = rebuilt.detach().requires_grad_()
        return Retraced((leaf, passed), *self.couple(leaf, coefficients, inverse=inverse))

    def _coefficients(self, x: Tensor, context: Tensor | None) -> Sequence[Tensor]:
        _check.floating(x, "x")
        if x.shape[x.dim() - self.event_dims :] != self.shape or x.dim() < self.event_dims:
            raise ValueError(f"x: expected shape (..., {', '.join(map(str, self.shape))}), found {tuple(x.shape)}")
        passing = self._passing(x)
        answer = self.conditioner(passing) if context is None else self.conditioner(passing, context)
        if answer.shape[self._axis] != self.answers:
            expected = f"{self.answers} {'features' if self.event_dims == 1 else 'channels'}"
            raise ValueError(f"conditioner: expected {expected}, found shape {tuple(answer.shape)}")
        # Under autocast the network answers in half precision; the data stays what it is.
        return answer.to(x.dtype).chunk(self.coefficients, self._axis)

    def _passing(self, x: Tensor) -> Tensor:
        if isinstance(self.mask, Checkerboard):
            return torch.where(self._index, 0.0, x)
        if self._slice is None:
            return x.index_select(self._axis, self._index)
        return x[..., self._slice] if self.event_dims == 1 else x[..., self._slice, :, :]

    def _make_plan(self, device: torch.device) -> CouplingPlan:
        return make_coupling_plan(self.mask, device)

    def extra_repr(self) -> str:
        mask = self.mask if isinstance(self.mask, Checkerboard) else f"{int(self.mask.sum())} of {len(self.mask)}"
        return f"shape={self.shape}, mask={mask}"


class AdditiveCoupling(Coupling):
    """z = x + shift where the mask is True, z = x elsewhere, with the shift from a network of x elsewhere; log_det is 0.

    Dinh et al. 2015, "NICE: Non-linear Independent Components Estimation", section 3.2. Arguments: those of `Coupling`.
    """

    coefficients = 1

    def couple(
        self, x: Tensor, coefficients: Sequence[Tensor], *, inverse: bool, log_det: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        (shift,) = coefficients
        return additive_coupling(
            x,
            shift,
            self.mask,
            event_dims=self.event_dims,
            inverse=inverse,
            log_det=log_det,
            plan=self._plan_on(x.device),
        )


class AffineCoupling(Coupling):
    """z = x e^s + t where the mask is True, z = x elsewhere, with t and then s from a network of x elsewhere.

    Dinh et al. 2017, "Density estimation using Real NVP", equations 7 and 8.

    Args:
        shape, mask, conditioner: those of `Coupling`.
        scale_map: from the network's answer to s: a ScaleMap, or the keyword arguments of one.
    """

    coefficients = 2

    def __init__(
        self,
        shape: int | Sequence[int],
        mask: Tensor | Sequence[bool] | Checkerboard | Mapping[str, int],
        conditioner: Conditioner,
        *,
        scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(shape, mask, conditioner, device=device, dtype=dtype)
        self.scale_map = scale_map if isinstance(scale_map, ScaleMap) else ScaleMap(**scale_map)

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "scale_map": dataclasses.asdict(self.scale_map)}

    def couple(
        self, x: Tensor, coefficients: Sequence[Tensor], *, inverse: bool, log_det: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        shift, log_scale = coefficients
        return affine_coupling(
            x,
            shift,
            log_scale,
            self.mask,
            event_dims=self.event_dims,
            inverse=inverse,
            scale_map=self.scale_map,
            log_det=log_det,
            plan=self._plan_on(x.device),
        )


def _checked(mask: Tensor | Sequence[bool], shape: tuple[int, ...]) -> Tensor:
    entries = torch.as_tensor(mask, device="cpu")
    if entries.dtype != torch.bool:
        raise TypeError(f"mask: expected bools or, for images, a Checkerboard, found {entries.dtype}")
    if entries.shape != shape[:1]:
        raise ValueError(f"mask: expected shape {shape[:1]}, found {tuple(entries.shape)}")
    if entries.all() or not entries.any():
        raise ValueError(f"mask: expected True and False entries, found {bool(entries[0])} everywhere")
    return entries.clone()


def _squares(mask: Checkerboard, shape: tuple[int, ...]) -> Tensor:
    if len(shape) != 3 or shape[1] * shape[2] < 2:
        raise ValueError(f"mask: expected images of at least two pixels for a Checkerboard, found shape {shape}")
    return mask.on(*shape[1:])


def _progression(index: Sequence[int]) -> slice | None:
    """The slice that takes these rising indices; None where they are no arithmetic progression."""
    step = index[1] - index[0] if len(index) > 1 else 1
    found = slice(index[0], index[-1] + 1, step)
    return found if list(range(found.start, found.stop, step)) == list(index) else None
