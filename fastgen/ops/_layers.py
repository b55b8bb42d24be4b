"""What operations made of K layers share: parameters that all rows share, or that each row has of its own."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .. import backends
from . import _check


def usual(z: Tensor, vectors: tuple[Tensor, ...], numbers: tuple[Tensor, ...]) -> bool:
    """Whether rows and the parameters of layers that all of them share go to the C++ kernels as they stand."""
    if not backends.plain(z, *vectors, *numbers) or z.dim() != 2:
        return False
    layers, features = vectors[0].shape if vectors[0].dim() == 2 else (0, 0)
    return (
        layers > 0
        and features > 0
        and z.shape[1] == features
        and all([t.shape == (layers, features) and t.is_contiguous() for t in vectors])
        and all([t.shape == (layers,) for t in numbers])
    )


def validate(z: Tensor, name: str, vectors: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> None:
    """Raises TypeError or ValueError unless `z`, called `name`, is (..., D), and parameters fit it and one another.

    vectors: (K, D), or (..., K, D) with z's batch; the first rules K and which of the two it is.
    numbers: (K,), or (..., K) likewise.
    """
    _check.floating(z, name)
    _check.features(z, name)
    (first_name, first), *_ = vectors.items()
    for t_name, t in (*vectors.items(), *numbers.items()):
        _check.like(t, t_name, z, name)
    if first.dim() < 2 or first.shape[-2] == 0 or first.shape not in _vector_shapes(z, first.shape[-2]):
        layers = first.shape[-2] if first.dim() >= 2 and first.shape[-2] else "K"
        shapes = " or ".join(str(s).replace("'", "") for s in dict.fromkeys(_vector_shapes(z, layers)))
        raise ValueError(f"{first_name}: expected shape {shapes}, found {tuple(first.shape)}")
    for t_name, t in vectors.items():
        _check.shape(t, t_name, first.shape)
    for t_name, t in numbers.items():
        _check.shape(t, t_name, first.shape[:-1])


def _vector_shapes(z: Tensor, layers: int | str) -> tuple[tuple[int | str, ...], ...]:
    return (layers, z.shape[-1]), (*z.shape[:-1], layers, z.shape[-1])


def matrix(z: Tensor) -> Tensor:
    """(..., D) as (B, D)."""
    return z if z.dim() == 2 else z.reshape(-1, z.shape[-1])


def vectors(t: Tensor) -> Tensor:
    """(K, D) as it is, (..., K, D) as (B, K, D); features one after the other."""
    t = t if t.dim() in (2, 3) else t.reshape(-1, *t.shape[-2:])
    return t if t.shape[-1] == 1 or t.stride(-1) == 1 else t.contiguous()


def numbers(t: Tensor) -> Tensor:
    """(K,) as it is, (..., K) as (B, K)."""
    return t if t.dim() in (1, 2) else t.reshape(-1, t.shape[-1])
