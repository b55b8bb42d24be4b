"""What launchers launch, and kernels compiled at sizes beside those that have budgets; no GPU is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from fastgen.bench.static.calls import (
    CALLS,
    Call,
    Layers,
    affine,
    block,
    couple,
    gaussian,
    linear,
    planar_layers,
    radial_layers,
)
from fastgen.bench.static.jobs import fresh_cache
from fastgen.bench.static.launches import TARGETS, launches

HOPPER = TARGETS["sm_90"]


@pytest.fixture(scope="module", autouse=True)
def compiler() -> Iterator[None]:
    with fresh_cache():
        yield


@pytest.mark.parametrize("options", [{}, {"checkerboard": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_couplings_of_channels_that_are_last_load_wide(options: dict[str, bool], dtype: torch.dtype) -> None:
    """Every tensor comes in wide loads, whatever the mask, whose own loads may be narrow: of a channel each."""
    tensors = {"forward": 3, "backward": 4}
    for launch in launches(couple(dtype, (64, 32, 16 * 16), channels_last=True, **options), HOPPER.device):
        code = launch.compile(HOPPER)
        assert code.spills == 0
        elements = launch.arguments["ROWS"] * launch.arguments["COLUMNS"] // (32 * launch.options["num_warps"])
        assert 16 * code.loads[16] >= tensors[launch.name] * elements * dtype.itemsize, (launch.name, code.loads)


def test_coupling_of_scattered_channels() -> None:
    """Compact shift and log_scale of vectors come one by one, x and gradients wide."""
    for launch in launches(couple(torch.float32, (4096, 128, 1), compact=True), HOPPER.device):
        code = launch.compile(HOPPER)
        assert code.spills == 0 and code.loads[16] >= 2, launch.name


# One row of one number, where every argument is 1; rows of more than 2^31 entries, which need not be there.
@pytest.mark.parametrize(("shape", "device"), [((1, 1, 1), "cpu"), ((2, 3, 1 << 30), "meta")])
def test_coupling_at_the_ends(shape: tuple[int, int, int], device: str) -> None:
    for launch in launches(couple(torch.float32, shape, device=device), HOPPER.device):
        assert launch.compile(HOPPER).spills == 0, launch.name


def test_normals_shared_by_four_elements_are_stored_wide() -> None:
    (samples,) = (call for call in CALLS if call.name == "gaussian_rsample_kl")
    forward = samples.kernels("float32", HOPPER.device)["gaussian_rsample_kl: kl_forward"]
    assert forward.compile(HOPPER).stores[16]


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    for i, kernel in enumerate(("grad_input", "grad_weight", "sum_rows")):
        needs = tuple(j == i for j in range(3))
        found = launches(linear(torch.float32, 64, 32, 32, needs), HOPPER.device)
        assert [launch.name for launch in found] == ["forward", kernel]


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "ieee"), ("tf32", "tf32")])
def test_precision_follows_torch(dtype: str, expected: str) -> None:
    (layer,) = (call for call in CALLS if call.name == "masked_linear")
    found = list(layer.kernels(dtype, HOPPER.device).values())
    assert [launch.arguments["PRECISION"] for launch in found[:3]] == [expected] * 3


# The first as a MAF has them by default, the second as few as fit.
@pytest.mark.parametrize(
    ("target", "dtype", "options"),
    [
        ("sm_90", "float32", {}),
        ("sm_90", "float32", {"batch": 256, "features": 8, "hidden": 64}),
        ("sm_90", "bfloat16", {}),
        ("sm_80", "tf32", {}),
    ],
)
def test_blocks_spill_nothing(target: str, dtype: str, options: dict[str, int]) -> None:
    for launch in Call("block", partial(block, **options)).kernels(dtype, TARGETS[target].device).values():
        code = launch.compile(TARGETS[target])
        assert code.spills == 0, launch.name
        if dtype != "float32" and launch.name != "sum_slices":
            assert code.matrix and code.loads[16] > sum(code.loads.get(width, 0) for width in (2, 4)), launch.name


def test_launches_of_a_block() -> None:
    """One forward; one back, another for the parameters, a third where these come in slices. No work for what is not needed."""
    walk, parameters = ["forward", "delta"], ["parameter", "sum_slices"]
    for options, expected in (
        ({"batch": 4096}, walk + parameters),
        ({"batch": 100}, walk + parameters[:1]),
        ({"needs": (True, False)}, walk),
        ({"needs": (False, False)}, walk[:1]),
        ({"batch": 0}, []),
    ):
        found = launches(block(torch.float32, **options), HOPPER.device)  # type: ignore[arg-type]
        assert [launch.name for launch in found] == expected


def test_no_rows_no_launch() -> None:
    for call in (
        linear(torch.float32, 0, 8, 8),
        affine(torch.float32, 0),
        gaussian(torch.float32, 0),
        couple(torch.float32, (0, 8, 1)),
        *(make(torch.float32, Layers(True, False, 0)) for make in (planar_layers, radial_layers)),
    ):
        assert not launches(call, HOPPER.device)
