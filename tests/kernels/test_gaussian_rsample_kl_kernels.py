"""gaussian_rsample_kl and gaussian_rsample_log_ratio on Triton kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from compare import RUNS_KERNELS, padded
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference.philox import philox_normal

pytestmark = RUNS_KERNELS


def _inputs(device: str, batch: int, features: int, prior: bool = True, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(batch, features, generator=generator) for _ in range(4 if prior else 2)]
    return [t.to(device, dtype) for t in drawn]


def _call(module, name: str, samples: int, device: str | torch.device, **options) -> Callable:  # type: ignore[no-untyped-def]
    seed = torch.tensor(-1234567890123456789, device=device)
    return lambda *t: getattr(module, f"gaussian_rsample_{name}")(*t, samples=samples, seed=seed, **options)


def _assert_equal(name: str, samples: int, tensors: Sequence[Tensor], **options) -> None:  # type: ignore[no-untyped-def]
    """Outputs and gradients are the reference's, up to roundings of float64."""
    pair = []
    for module, backend in ((ops, "triton"), (reference, "auto")):
        leaves = [t.clone().requires_grad_() for t in tensors]
        with backends.use(backend):
            outputs = _call(module, name, samples, tensors[0].device, **options)(*leaves)
            # Transposed, so that incoming gradients are not contiguous.
            grads = [torch.linspace(-1, 2, o.numel()).view(o.shape[::-1]).permute(*range(o.dim())[::-1]).to(o) for o in outputs]
            pair.append([*outputs, *torch.autograd.grad(outputs, leaves, grads)])
    torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-11)


# Rows that begin groups of four elements and rows that do not; 1100 features are more than one block of columns.
@pytest.mark.parametrize("name", ["kl", "log_ratio"])
@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize(("batch", "features", "samples"), [(0, 4, 1), (1, 1, 1), (5, 8, 3), (70, 7, 2), (3, 1100, 1)])
def test_float64(device: str, name: str, prior: bool, batch: int, features: int, samples: int) -> None:
    _assert_equal(name, samples, _inputs(device, batch, features, prior))


@pytest.mark.parametrize("free_bits", [0.3, 5.0])
def test_free_bits(device: str, free_bits: float) -> None:
    _assert_equal("kl", 2, _inputs(device, 9, 8), free_bits=free_bits)


@pytest.mark.parametrize("features", [4, 7])
def test_float32_has_the_noise_of_the_reference(device: str, features: int) -> None:
    zeros, seed = torch.zeros(40, features, device=device), torch.tensor(-3, device=device)
    with backends.use("triton"):
        z, kl = ops.gaussian_rsample_kl(zeros, zeros, samples=3, seed=seed)
    # Equal words; cosines of float32 angles are off by 2 pi 2^-25 times a length up to 6.7.
    torch.testing.assert_close(z, philox_normal((3, 40, features), seed, torch.float32), rtol=0, atol=1e-5)
    assert not kl.any()


@pytest.mark.parametrize("name", ["kl", "log_ratio"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes(device: str, name: str, dtype: torch.dtype) -> None:
    """Gradients come in and go out in the inputs' dtype; noise differs in its last digits from the reference's."""
    tensors = _inputs(device, 30, 8, dtype=dtype)
    pair = []
    for module, backend in ((ops, "triton"), (reference, "auto")):
        leaves = [t.clone().requires_grad_() for t in tensors]
        with backends.use(backend):
            z, other = _call(module, name, 2, device)(*leaves)
            pair.append([z, other, *torch.autograd.grad((z.float().square().sum(), other.sum()), leaves)])
    for found, expected in zip(*pair, strict=True):
        assert found.dtype == expected.dtype
        # The inputs' dtype rounds the gradients of z too, which reach 100.
        scale = float(expected.detach().abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=scale * max(4 * torch.finfo(found.dtype).eps, 1e-5))


def test_strides_and_one_incoming_gradient(device: str) -> None:
    tensors = _inputs(device, 20, 7)
    given = [padded(tensors[0]), tensors[1].T.contiguous().T, tensors[2][:1].expand(20, 7), tensors[3][:, :1].expand(20, 7)]
    for name in ("kl", "log_ratio"):
        for output in (0, 1):
            pair = []
            for module, backend in ((ops, "triton"), (reference, "auto")):
                leaves = [t.detach().requires_grad_() for t in given]
                with backends.use(backend):
                    found = torch.autograd.grad(
                        _call(module, name, 2, device)(*leaves)[output].sum(), leaves, allow_unused=True
                    )
                pair.append([torch.zeros_like(given[0]) if g is None else g for g in found])
            torch.testing.assert_close(*pair)
