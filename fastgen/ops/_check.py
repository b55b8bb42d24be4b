"""Checks of arguments that every operation shares: metadata only, so they cost no synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference.accumulate import accumulator


def floating(t: Tensor, name: str) -> None:
    """Raises TypeError or ValueError unless `t` is a floating tensor whose storage holds its numbers."""
    if not isinstance(t, Tensor):
        raise TypeError(f"{name}: expected a tensor, found {type(t).__name__}")
    if not t.is_floating_point():
        raise TypeError(f"{name}: expected a floating dtype, found {t.dtype}")
    _held(t, name)


def _held(t: Tensor, name: str) -> None:
    # As the imaginary part of a conjugate: kernels read the storage.
    if not torch.compiler.is_compiling() and t.is_neg():
        raise ValueError(f"{name}: expected a tensor as it is stored, found a negated view (`resolve_neg()` makes it one)")


def like(t: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Raises TypeError or ValueError unless `t` has the dtype and the device of `other`."""
    if not isinstance(t, Tensor):
        raise TypeError(f"{name}: expected a tensor, found {type(t).__name__}")
    if t.dtype != other.dtype:
        raise TypeError(f"{name}: expected {other_name}'s dtype {other.dtype}, found {t.dtype}")
    if t.device != other.device:
        raise ValueError(f"{name}: expected {other_name}'s device {other.device}, found {t.device}")
    _held(t, name)


def shape(t: Tensor, name: str, expected: tuple[int, ...]) -> None:
    """Raises ValueError unless `t` has this shape."""
    if t.shape != expected:
        raise ValueError(f"{name}: expected shape {tuple(expected)}, found {tuple(t.shape)}")


def features(t: Tensor, name: str, expected: int | None = None) -> None:
    """Raises ValueError unless `t` has a last axis, of `expected` features where given, else of at least one."""
    if t.dim() == 0 or t.shape[-1] == 0 or (expected is not None and t.shape[-1] != expected):
        wanted = "at least 1" if expected is None else str(expected)
        raise ValueError(f"{name}: expected shape (..., {wanted}), found {tuple(t.shape)}")


def per_row(t: Tensor, name: str, x: Tensor, x_name: str, event_dims: int = 1) -> None:
    """Raises TypeError or ValueError unless `t` holds one log-determinant or log-density for each event of `x`."""
    if not isinstance(t, Tensor):
        raise TypeError(f"{name}: expected a tensor, found {type(t).__name__}")
    if t.dtype != accumulator(x.dtype):
        raise TypeError(f"{name}: expected dtype {accumulator(x.dtype)} with {x_name} of {x.dtype}, found {t.dtype}")
    if t.device != x.device:
        raise ValueError(f"{name}: expected {x_name}'s device {x.device}, found {t.device}")
    shape(t, name, x.shape[: x.dim() - event_dims])


def _expands(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))


def broadcastable(t: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Raises ValueError unless `t` can be expanded to the shape of `other`."""
    if t.shape != other.shape and not _expands(t.shape, other.shape):
        raise ValueError(
            f"{name}: expected a shape broadcastable to {other_name}'s {tuple(other.shape)}, found {tuple(t.shape)}"
        )


def batch_broadcastable(t: Tensor, name: str, batch: tuple[int, ...]) -> None:
    """Raises ValueError unless the leading axes of `t` can be expanded to the batch."""
    if not _expands(t.shape[:-1], batch):
        raise ValueError(f"{name}: expected a batch that broadcasts to {tuple(batch)}, found {tuple(t.shape[:-1])}")


def degrees(t: Tensor, name: str, length: int | None = None) -> None:
    """Raises TypeError or ValueError unless `t` is an int64 vector on the CPU, of at least one degree or of `length`."""
    if not isinstance(t, Tensor) or t.dtype != torch.int64:
        found = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"{name}: expected an int64 tensor, found {found}")
    if t.device.type != "cpu":
        raise ValueError(f"{name}: expected a CPU tensor, found one on {t.device}")
    if t.dim() != 1 or t.shape[0] == 0 or (length is not None and t.shape[0] != length):
        expected = "at least 1" if length is None else str(length)
        raise ValueError(f"{name}: expected a vector of {expected} degrees, found shape {tuple(t.shape)}")


def autocast_dtype(t: Tensor) -> torch.dtype | None:
    """The dtype autocast asks of matrix products on t's device; None outside autocast."""
    device = t.device.type
    if torch.is_autocast_enabled(device) and t.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return None


def upcast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors, half ones in float32 under autocast, as PyTorch does for losses. The first one rules the device."""
    first = tensors[0]
    if not isinstance(first, Tensor) or autocast_dtype(first) is None:
        return tensors
    return tuple(t.float() if isinstance(t, Tensor) and t.dtype in (torch.bfloat16, torch.float16) else t for t in tensors)
