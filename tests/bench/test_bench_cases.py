"""The cases themselves: every candidate's results are right, every candidate runs, the work is counted as documented."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from fastgen import backends
from fastgen.bench import measure as measuring
from fastgen.bench.case import OURS, Case, Setting, copies_beyond
from fastgen.bench.networks import Sizes, masked_works
from fastgen.bench.ops import masked_linear, masked_mlp
from fastgen.bench.plain import PlainMAF
from fastgen.bench.precision import precision
from fastgen.bench.registry import MODELS, OPERATIONS, Entry
from fastgen.flows import MAF

ENTRIES = (*OPERATIONS, *MODELS)


def cases_of(entry: Entry, setting: Setting) -> list[Case]:
    torch.manual_seed(0)
    return [case for case in entry.cases(setting) if isinstance(case, Case)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_results_are_right_and_candidates_run(entry: Entry) -> None:
    cases = cases_of(entry, Setting(quick=True))
    if entry.name == "accelerate" and not cases:
        pytest.skip("none of the libraries whose models it accelerates is installed")
    assert {case.operation for case in cases} == set(entry.measures)
    assert max(Counter((case.operation, case.mode, case.shape, case.variant) for case in cases).values()) == 1
    for case in cases:
        assert set(case.targets) < set(case.candidates)
        for name, call in case.candidates.items():
            assert case.errors[name]() <= case.error_limit, (case.operation, case.mode, name)
            call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "cuda" in entry.devices], ids=lambda entry: entry.name)
def test_results_are_right_on_cuda(entry: Entry) -> None:
    for case in cases_of(entry, Setting("cuda", quick=True)):
        with measuring.cpu_variant(case.variant):
            assert case.errors[OURS]() <= case.error_limit


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("entry", OPERATIONS[:6], ids=lambda entry: entry.name)
def test_operations_are_right_in_other_precisions(entry: Entry, dtype: str) -> None:
    with precision(dtype):
        for case in cases_of(entry, Setting(quick=True, dtype=dtype)):
            assert str(case.dtype) == f"torch.{dtype}" and case.errors[OURS]() <= case.error_limit
    assert torch.get_default_dtype() == torch.float32


def test_every_operation_and_every_pass_is_measured() -> None:
    assert {name for entry in OPERATIONS for name in entry.measures} == set(backends.OPERATIONS)
    [first, *_] = (entry for entry in OPERATIONS if entry.name == "gaussian_log_prob")
    assert [case.mode for case in cases_of(first, Setting(quick=True))] == ["forward", "backward", "forward+backward"]


def test_a_case_without_a_check_of_every_candidate_is_refused() -> None:
    call = {OURS: lambda: None, "dense": lambda: None}
    with pytest.raises(ValueError, match="errors: expected one for each of fastgen, dense"):
        Case("an operation", "forward", "", call, {OURS: lambda: 0.0}, masked_linear.work(_layer(), 1, torch.float32)[0])


def test_inputs_of_a_gpu_are_larger_than_its_cache() -> None:
    x = torch.randn(1000, requires_grad=True)
    sets = copies_beyond(10_000, [x])
    assert len(sets) == 3 and sets[0][0] is x
    assert all(torch.equal(own[0], x) and own[0].requires_grad for own in sets)
    assert len({own[0].data_ptr() for own in sets}) == 3


def _layer():  # type: ignore[no-untyped-def]
    return masked_linear.made_layers(2, 4)[0]


def test_work_of_a_masked_layer() -> None:
    first, hidden, last = masked_linear.made_layers(2, 4)
    # Two features: hidden units see the first one only, and the outputs of the second feature see all hidden units.
    assert (first.out_degrees, hidden.out_degrees, last.out_degrees) == ((1,) * 4, (1,) * 4, (1, 1, 2, 2))
    for layer, allowed, fan_in, fan_out in ((first, 4, 2, 4), (hidden, 16, 4, 4), (last, 8, 4, 4)):
        forward, backward = masked_linear.work(layer, 3, torch.float32)
        assert forward == (2 * 3 * allowed, 4 * (3 * fan_in + allowed + fan_out + 3 * fan_out))
        assert backward == (4 * 3 * allowed, 4 * (3 * (2 * fan_in + fan_out) + allowed + fan_in * fan_out + fan_out))


def test_work_of_a_step_is_that_of_both_passes_and_the_optimiser() -> None:
    sizes = Sizes(3, 2, 4, transforms=2)
    flow = MAF(sizes.features, transforms=sizes.transforms, hidden_features=(4, 4))
    works = masked_works(flow, sizes.batch)
    forward, backward = masked_mlp.work(flow.transform[0].made.network, 3)
    assert works.forward == (2 * forward.flops, 2 * forward.bytes) and works.backward.flops == 2 * backward.flops
    parameters = sum(p.numel() for p in flow.parameters())
    assert works.step.bytes == 2 * (forward.bytes + backward.bytes) + 28 * parameters


def test_the_plain_flow_is_the_same_density() -> None:
    flow = MAF(5, transforms=3, hidden_features=(16, 8), dtype=torch.float64)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=0.3)
    x = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(PlainMAF(flow).log_prob(x), flow.log_prob(x))
