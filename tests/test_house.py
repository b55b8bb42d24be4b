"""An operation has one name, and that name is its address: whoever knows it knows every room."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgen import backends, ops, reference

ROOT = Path(__file__).parent.parent
ROOMS = (
    "fastgen/reference/{}.py",
    "fastgen/ops/{}.py",
    "csrc/cpu/{}.cpp",
    "tests/ops/test_{}.py",
    "bench/ops/{}.py",
)
# A form of an operation shares the rooms that are not its own.
FORMS = {
    "autoregressive_sample": "autoregressive_inverse",
    "masked_autoregressive_log_prob": "masked_autoregressive",
    "masked_autoregressive_stack": "masked_autoregressive",
    "masked_autoregressive_stack_log_prob": "masked_autoregressive",
    "affine_coupling": "coupling",
    "additive_coupling": "coupling",
    "planar_inverse": "planar",
    "radial_inverse": "radial",
    "gaussian_rsample_log_ratio": "gaussian_rsample_kl",
    "bernoulli_log_prob": "likelihoods",
    "categorical_log_prob": "likelihoods",
    "discretized_logistic_log_prob": "likelihoods",
}
# Operations made of PyTorch's own, for which there is nothing to choose.
PLAIN = {"iwae_bound"}


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("operation", backends.OPERATIONS)
def test_every_operation_has_every_room(operation: str, room: str) -> None:
    names = (operation, FORMS.get(operation, operation))
    assert any((ROOT / room.format(name)).is_file() for name in names)


@pytest.mark.parametrize("operation", backends.OPERATIONS)
def test_every_operation_has_one_implementation_on_a_gpu(operation: str) -> None:
    name = FORMS.get(operation, operation)
    found = [room for room in ("kernels/{}.py", "csrc/cuda/{}.cu") if (ROOT / room.format(name)).is_file()]
    assert len(found) == 1


@pytest.mark.parametrize("operation", backends.OPERATIONS)
def test_every_operation_is_called_by_its_name(operation: str) -> None:
    assert operation in ops.__all__ and operation in reference.__all__


def test_every_module_of_ops_is_an_operation_or_serves_them() -> None:
    names = {path.stem for path in (ROOT / "fastgen" / "ops").glob("[a-z]*.py")}
    assert names - PLAIN == {name if name in names else FORMS[name] for name in backends.OPERATIONS}
