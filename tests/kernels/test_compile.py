"""Every kernel compiled for the GPUs it is made for, as its launcher would launch it there, with no GPU at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from launches import DEVICES, Compiled, Launch, launches
from torch import Tensor
from triton.backends.compiler import GPUTarget

from fastgen.kernels import (
    affine_autoregressive,
    coupling,
    gaussian_log_prob,
    gaussian_mixture_log_prob,
    gaussian_rsample_kl,
    likelihoods,
    masked_autoregressive,
    masked_linear,
    planar,
    radial,
)
from fastgen.kernels._launch import Device
from fastgen.ops import make_plan

TENSOR_CORES = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
MI300 = Device(processors=304, shared_memory=64 * 1024)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(autouse=True)
def compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own; products and sums fused, which is the default of some versions only."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    yield
    matmul.allow_tf32 = before


def _linear(dtype: torch.dtype, batch: int, inputs: int, outputs: int, needs: tuple[bool, ...] = (True,) * 3) -> Callable:
    """A masked layer forward and backward, its degrees sorted as in nn.MADE."""
    x, y = torch.zeros(batch, inputs, dtype=dtype), torch.zeros(batch, outputs, dtype=dtype)
    weight, bias = torch.zeros(outputs, inputs, dtype=dtype), torch.zeros(outputs, dtype=dtype)
    plan = make_plan(torch.arange(inputs), torch.arange(outputs) * inputs // outputs)

    def call() -> None:
        masked_linear.forward(x, weight, bias, plan, "relu")
        masked_linear.backward(y, x, weight, y, plan, "relu", needs)

    return call


def _rows(dtype: torch.dtype, batch: int = 4096, features: int = 64) -> Callable:
    """Both operations on rows, forward and backward, on the two columns of a network's output."""
    x, network = torch.zeros(batch, features, dtype=dtype), torch.zeros(batch, features, 2, dtype=dtype)
    shift, log_scale = network.unbind(-1)
    per_row, needs = torch.zeros(batch), (True,) * 3

    def call() -> None:
        affine_autoregressive.forward(x, shift, log_scale, per_row, False, 3, 6.9, 0.0)
        affine_autoregressive.backward(x, per_row, x, shift, log_scale, False, 3, 6.9, 0.0, needs)
        gaussian_log_prob.forward(x, shift, log_scale, 3, 6.9, 0.0)
        gaussian_log_prob.backward(per_row, x, shift, log_scale, 3, 6.9, 0.0, needs)

    return call


def _coupling(
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    *,
    channels_last: bool = False,
    checkerboard: bool = False,
    compact: bool = False,
    additive: bool = False,
    device: str = "cpu",
) -> Callable:
    """A coupling layer forward, and backward where that reads most, from the inverse."""
    batch, channels, sites = shape

    def zeros(channels: int) -> Tensor:
        t = torch.zeros(batch, channels, sites, dtype=dtype, device=device)
        return t.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else t

    x, shift = zeros(channels), zeros(channels // 2 if compact else channels)
    log_scale, per_row = None if additive else shift.clone(), torch.zeros(batch, device=device)
    places = None if checkerboard else torch.full((channels,), -1, dtype=torch.int32, device=device)
    pattern = (math.isqrt(sites), 1) if checkerboard else None

    def call() -> None:
        coupling.forward(x, shift, log_scale, per_row, places, pattern, False, 3, 6.9, 0.0)
        coupling.backward(x, per_row, x, shift, log_scale, places, pattern, True, 3, 6.9, 0.0, (True,) * 3)

    return call


def _samples(dtype: torch.dtype, features: int = 64, samples: int = 1) -> Callable:
    """Samples with their divergence and with their log-ratio, forward and backward, of a learned prior."""
    mean, log_var, prior_mean, prior_log_var = (torch.zeros(4096, features, dtype=dtype) for _ in range(4))
    seed, needs = torch.zeros((), dtype=torch.int64), (True,) * 4
    z, per_row, ratio = torch.zeros(samples, 4096, features, dtype=dtype), torch.zeros(4096), torch.zeros(samples, 4096)
    given = mean, log_var, prior_mean, prior_log_var, samples

    def call() -> None:
        gaussian_rsample_kl.kl_forward(*given, 0.1, seed)
        gaussian_rsample_kl.kl_backward(z, per_row, *given, 0.1, seed, needs)
        gaussian_rsample_kl.log_ratio_forward(*given, seed)
        gaussian_rsample_kl.log_ratio_backward(z, ratio, *given, seed, needs)

    return call


def _layers(dtype: torch.dtype, shared: bool, batch: int = 65536, features: int = 64) -> Callable:
    """Sixteen planar and radial layers and their inverses, forward and backward."""
    lead = () if shared else (batch,)
    z, per_row = torch.zeros(batch, features, dtype=dtype), torch.zeros(batch)
    vectors, numbers = torch.zeros(*lead, 16, features, dtype=dtype), torch.zeros(*lead, 16, dtype=dtype)
    saved, needs = torch.zeros(16, batch), (True,) * 4

    def call() -> None:
        for inverse in (False, True):
            planar.forward(z, vectors, vectors, numbers, True, inverse, True)
            planar.backward(z, per_row, z, vectors, vectors, numbers, saved, True, inverse, needs)
            radial.forward(z, vectors, numbers, numbers, inverse)
            radial.backward(z, per_row, z, vectors, numbers, numbers, inverse, needs)

    return call


def _likelihoods(dtype: torch.dtype) -> Callable:
    """The decoders' likelihoods and a mixture, forward and backward."""
    x, per_row, logits = torch.zeros(4096, 64, dtype=dtype), torch.zeros(4096), torch.zeros(4096, 64, dtype=dtype)
    categories = torch.zeros(4096, dtype=torch.int64)
    weights, means = torch.zeros(256), torch.zeros(256, 64, dtype=dtype)

    def call() -> None:
        likelihoods.bernoulli_forward(x, logits)
        likelihoods.bernoulli_backward(per_row, x, logits, (True, True))
        likelihoods.discretized_logistic_forward(x, logits, logits, 256)
        likelihoods.discretized_logistic_backward(per_row, x, logits, logits, 256, (True,) * 3)
        likelihoods.categorical_forward(categories, logits)
        likelihoods.categorical_backward(per_row, categories, logits, 1)

    def call_all() -> None:
        call()
        gaussian_mixture_log_prob.forward(x, weights, means, means)
        gaussian_mixture_log_prob.backward(per_row, per_row, per_row, x, weights, means, means, (True,) * 4)

    return call_all


def _block(
    dtype: torch.dtype, batch: int = 4096, features: int = 64, hidden: int = 512, needs: tuple[bool, bool] = (True, True)
) -> Callable:
    """A block of a masked autoregressive flow of one hidden layer, forward and backward to x and to parameters."""
    degrees = torch.arange(features)
    units, outputs = torch.arange(hidden) * features // hidden, degrees.repeat_interleave(2)
    plan = [*make_plan(degrees, units), *make_plan(units, outputs, strict=True)]
    x, per_row = torch.zeros(batch, features, dtype=dtype), torch.zeros(batch)
    params = [
        torch.zeros(*shape, dtype=dtype) for shape in ((hidden, features), (hidden,), (2 * features, hidden), (2 * features,))
    ]
    saved = torch.zeros(batch * (hidden + 2 * features), dtype=dtype)
    given = plan, ["relu", "identity"], [-1, -1], False, False, 3, 6.9, 0.0
    every = needs[0], False, *needs[1:] * 4

    def call() -> None:
        masked_autoregressive.forward(x, params, None, per_row, *given, True, False)
        masked_autoregressive.backward(x, per_row, x, params, saved, *given, every, False)

    return call


def _compiled(call: Callable, architecture: int) -> list[tuple[str, Compiled]]:
    target = GPUTarget("cuda", architecture, 32)
    return [(launch.name, launch.compile(target)) for launch in launches(call, DEVICES[architecture])]


def _assert_fits(name: str, compiled: Compiled, architecture: int) -> None:
    """No spills, and no more shared memory than there is."""
    usage = compiled.usage()
    assert usage["STACK"] == usage["LOCAL"] == 0, f"{name} spills: {usage}"
    assert compiled.shared <= DEVICES[architecture].shared_memory, f"{name}: {compiled.shared} bytes of shared memory"


def _assert_loads_wide(name: str, compiled: Compiled) -> None:
    """All but a few bytes come in loads of 16 or more; the rest is one value per row or per unit."""
    widths = compiled.load_widths()
    wide = sum(count * width for width, count in widths.items() if width >= 16)
    assert wide > 0.8 * sum(count * width for width, count in widths.items()), f"{name}: bytes a load {dict(widths)}"


@pytest.mark.parametrize(
    ("architecture", "dtype"), [(80, torch.float32), (90, torch.float32), (90, torch.bfloat16), (100, torch.float32)]
)
def test_row_kernels(architecture: int, dtype: torch.dtype) -> None:
    for name, compiled in _compiled(_rows(dtype), architecture):
        _assert_fits(name, compiled, architecture)
        _assert_loads_wide(name, compiled)


@pytest.mark.parametrize(
    ("architecture", "shape", "options"),
    [
        (80, (4096, 128, 1), {}),
        (90, (4096, 128, 1), {}),
        (100, (4096, 128, 1), {}),
        (90, (4096, 128, 1), {"additive": True}),
        (90, (16, 12, 28 * 28), {"compact": True}),
        (90, (64, 32, 14 * 14), {"channels_last": True}),
        (90, (64, 32, 16 * 16), {"channels_last": True, "checkerboard": True}),
        *((architecture, (16, 3, 256 * 256), {"checkerboard": True}) for architecture in (80, 90, 100)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_coupling_kernels(architecture: int, shape: tuple[int, int, int], options: dict[str, bool], dtype: torch.dtype) -> None:
    """Every tensor comes in wide loads, whatever the mask, whose own loads may be narrow: of a channel each."""
    tensors = (
        {"_forward_kernel": 2, "_backward_kernel": 1}
        if "additive" in options
        else {"_forward_kernel": 3, "_backward_kernel": 4}
    )
    for launch in launches(_coupling(dtype, shape, **options), DEVICES[architecture]):
        compiled = launch.compile(GPUTarget("cuda", architecture, 32))
        _assert_fits(launch.name, compiled, architecture)
        widths = compiled.load_widths()
        elements = launch.arguments["ROWS"] * launch.arguments["COLUMNS"] // (32 * launch.options["num_warps"])
        assert 16 * widths[16] >= tensors[launch.name] * elements * dtype.itemsize, (
            f"{launch.name}: bytes a load {dict(widths)}"
        )


def test_coupling_of_scattered_channels() -> None:
    """Compact shift and log_scale of vectors come one by one, x and gradients wide."""
    for name, compiled in _compiled(_coupling(torch.float32, (4096, 128, 1), compact=True), 90):
        _assert_fits(name, compiled, 90)
        assert compiled.load_widths()[16] >= 2, name


# One row of one number, where every argument is 1; rows of more than 2^31 entries, which need not be there.
@pytest.mark.parametrize(("shape", "device"), [((1, 1, 1), "cpu"), ((2, 3, 1 << 30), "meta")])
def test_coupling_at_the_ends(shape: tuple[int, int, int], device: str) -> None:
    for name, compiled in _compiled(_coupling(torch.float32, shape, device=device), 90):
        _assert_fits(name, compiled, 90)


@pytest.mark.parametrize(("architecture", "dtype"), [(80, torch.float32), (90, torch.bfloat16), (100, torch.float32)])
@pytest.mark.parametrize("shared", [True, False])
def test_layer_kernels(architecture: int, dtype: torch.dtype, shared: bool) -> None:
    for name, compiled in _compiled(_layers(dtype, shared, batch=8192), architecture):
        _assert_fits(name, compiled, architecture)


@pytest.mark.parametrize(
    ("architecture", "dtype"), [(80, torch.float32), (90, torch.float32), (90, torch.bfloat16), (100, torch.float32)]
)
@pytest.mark.parametrize("call", [_samples, _likelihoods])
def test_samples_and_likelihoods(call: Callable, architecture: int, dtype: torch.dtype) -> None:
    for name, compiled in _compiled(call(dtype), architecture):
        _assert_fits(name, compiled, architecture)


def test_normals_shared_by_four_elements_are_stored_wide() -> None:
    forward = _compiled(_samples(torch.float32), 90)[0][1]
    assert "st.global.v4.b32" in forward.ptx


# Layers large enough for the largest tiles of each kind, and the first layer of a small MADE for the smallest.
@pytest.mark.parametrize(
    ("architecture", "arithmetic", "shape"),
    [
        (80, "half", (8192, 2048, 2048)),
        (90, "half", (8192, 2048, 2048)),
        (90, "half", (256, 64, 512)),
        (100, "half", (8192, 2048, 2048)),
        (90, "tf32", (4096, 1024, 1024)),
        (90, "ieee", (4096, 1024, 1024)),
    ],
)
def test_masked_linear_kernels(architecture: int, arithmetic: str, shape: tuple[int, int, int]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    dtype = torch.bfloat16 if arithmetic == "half" else torch.float32
    kernels = _compiled(_linear(dtype, *shape), architecture)
    assert {"_forward_kernel", "_grad_input_kernel", "_grad_weight_kernel", "_sum_rows_kernel"} == {name for name, _ in kernels}
    for name, compiled in kernels:
        _assert_fits(name, compiled, architecture)
        # Hopper multiplies tf32 along contiguous axes only: where it is not the summed one, loads transpose word by word.
        if arithmetic != "tf32" or name not in ("_grad_input_kernel", "_grad_weight_kernel"):
            _assert_loads_wide(name, compiled)
        if name != "_sum_rows_kernel" and arithmetic in ("half", "tf32"):
            # Hopper's instruction takes tiles of 64 rows at least.
            assert TENSOR_CORES[architecture if shape[0] > 1024 else 80] in compiled.ptx, name


@pytest.mark.parametrize(
    ("architecture", "arithmetic", "options"),
    [
        (80, "ieee", {}),
        (90, "ieee", {}),
        (90, "ieee", {"batch": 256, "features": 8, "hidden": 64}),
        (90, "tf32", {}),
        (90, "half", {}),
        (100, "half", {}),
    ],
)
def test_block_kernels(architecture: int, arithmetic: str, options: dict[str, int]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    dtype = torch.bfloat16 if arithmetic == "half" else torch.float32
    kernels = _compiled(_block(dtype, **options), architecture)
    assert [name for name, _ in kernels][:3] == ["forward_kernel", "delta_kernel", "_parameter_kernel"]
    for name, compiled in kernels:
        _assert_fits(name, compiled, architecture)
        if not options and arithmetic != "ieee":
            # In ieee arithmetic a thread has but two numbers of a tile of rows.
            _assert_loads_wide(name, compiled)
            if name != "_sum_slices_kernel":
                # Tiles of 64 rows, which Hopper's and Blackwell's own instructions take, only in half types' weights.
                own = arithmetic == "half" and name == "_parameter_kernel"
                assert TENSOR_CORES[architecture if own else 80] in compiled.ptx, name


def test_launches_of_a_block() -> None:
    """One forward; one back, another for the parameters, a third where these come in slices. No work for what is not needed."""
    walk, parameters = ["forward_kernel", "delta_kernel"], ["_parameter_kernel", "_sum_slices_kernel"]
    for options, expected in (
        ({"batch": 4096}, walk + parameters),
        ({"batch": 100}, walk + parameters[:1]),
        ({"needs": (True, False)}, walk),
        ({"needs": (False, False)}, walk[:1]),
        ({"batch": 0}, []),
    ):
        assert _names(launches(_block(torch.float32, **options), DEVICES[90])) == expected


@pytest.mark.parametrize(
    "call",
    [
        _rows(torch.float32),
        _coupling(torch.float32, (4096, 128, 1)),
        _coupling(torch.float32, (64, 12, 28 * 28), compact=True),
        _linear(torch.bfloat16, 4096, 1024, 1024),
        _block(torch.float32),
        _layers(torch.float32, True, batch=8192),
        _samples(torch.float32),
        _likelihoods(torch.float32),
    ],
    ids=["rows", "coupling", "coupling of images", "masked_linear", "block", "layers", "samples", "likelihoods"],
)
def test_amd(call: Callable) -> None:
    for launch in launches(call, MI300):
        compiled = launch.compile(GPUTarget("hip", "gfx942", 64))
        assert compiled.shared <= MI300.shared_memory, launch.name


def _names(found: list[Launch]) -> list[str]:
    return [launch.name for launch in found]


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    for i, kernel in enumerate(("_grad_input_kernel", "_grad_weight_kernel", "_sum_rows_kernel")):
        needs = tuple(j == i for j in range(3))
        assert _names(launches(_linear(torch.float32, 64, 32, 32, needs), DEVICES[90])) == ["_forward_kernel", kernel]


@pytest.mark.parametrize(("tf32", "expected"), [(False, "ieee"), (True, "tf32")])
def test_precision_follows_torch(tf32: bool, expected: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = tf32
    found = launches(_linear(torch.float32, 64, 32, 32), DEVICES[90])
    assert [launch.arguments["PRECISION"] for launch in found[:3]] == [expected] * 3


def test_no_rows_no_launch() -> None:
    assert not launches(_linear(torch.float32, 0, 8, 8), DEVICES[90])
    assert not launches(_rows(torch.float32, batch=0), DEVICES[90])
    assert not launches(_coupling(torch.float32, (0, 8, 1)), DEVICES[90])
    assert not launches(_layers(torch.float32, True, batch=0), DEVICES[90])
