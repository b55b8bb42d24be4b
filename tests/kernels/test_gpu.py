"""What only a CUDA device can show of the Triton kernels: graphs, streams, devices, the same bits twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compare import NEEDS_GPU
from torch import Tensor

from fastgen import backends, ops
from fastgen.kernels import coupling
from fastgen.ops import make_plan
from fastgen.reference import ScaleMap

pytestmark = NEEDS_GPU


def _step(batch: int = 4096, features: int = 32, hidden: int = 256) -> tuple[Callable[[], list[Tensor]], list[Tensor]]:
    """Forward and backward of a masked layer into both operations on rows; and the tensors that require gradients."""
    torch.manual_seed(0)
    into, units = torch.arange(features), torch.arange(hidden) * features // hidden
    out = into.repeat_interleave(2)
    leaves = [
        torch.randn(shape, device="cuda", requires_grad=True)
        for shape in ((batch, features), (hidden, features), (hidden,), (2 * features, hidden), (2 * features,))
    ]
    plans = [make_plan(into, units, device="cuda"), make_plan(units, out, strict=True, device="cuda")]

    def step() -> list[Tensor]:
        x, w1, b1, w2, b2 = leaves
        h = ops.masked_linear(x, w1 / 6, b1, into, units, activation="tanh", plan=plans[0])
        o = ops.masked_linear(h, w2 / 16, b2, units, out, strict=True, plan=plans[1]).view(batch, features, 2)
        z, log_det = ops.affine_autoregressive(x, o[..., 0], o[..., 1], scale_map=ScaleMap("soft_clip", c=6.9))
        log_prob = ops.gaussian_log_prob(z) + log_det
        return [log_prob, *torch.autograd.grad(log_prob.sum(), leaves)]

    return step, leaves


@pytest.mark.parametrize("batch", [64, 40000])
def test_the_same_bits_twice(batch: int) -> None:
    """Also where a batch is so large that weight gradients are summed slice by slice."""
    step, _ = _step(batch)
    with backends.use("triton"):
        first, second = step(), step()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_inside_a_cuda_graph() -> None:
    step, leaves = _step()
    with backends.use("triton"):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        with torch.no_grad():
            leaves[0].normal_()
        graph.replay()
        eager = step()
    assert all(torch.equal(a, b) for a, b in zip(captured, eager, strict=True))


def test_no_host_synchronisation() -> None:
    step, _ = _step()
    with backends.use("triton"):
        step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_launches_go_to_the_tensors_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    x = torch.randn(8, 5, device="cuda:1")
    with torch.cuda.device(0), backends.use("triton"):
        log_prob = ops.gaussian_log_prob(x)
    assert log_prob.device == x.device and log_prob.isfinite().all()


def test_offsets_past_two_to_the_31() -> None:
    if torch.cuda.mem_get_info()[0] < 14 << 30:
        pytest.skip("needs 14 GB of free memory")
    rows, features = (1 << 25) + 3, 65
    x = torch.zeros(rows, features, device="cuda", dtype=torch.bfloat16)
    x[-1] = 1.0
    with backends.use("triton"), torch.no_grad():
        log_prob = ops.gaussian_log_prob(x)
    # The last row's 65 squares, halved.
    assert float(log_prob[0] - log_prob[-1]) == pytest.approx(32.5, rel=1e-6)


def test_coupling_of_images_cut_into_parts() -> None:
    """The same bits twice and inside a graph, without a word from the host."""
    torch.manual_seed(0)
    x, shift, log_scale = (torch.randn(4, 3, 256 * 256, device="cuda") for _ in range(3))
    log_det = torch.randn(4, device="cuda")

    def step() -> list[Tensor]:
        y, total = coupling.forward(x, shift, log_scale, log_det, None, (256, 1), False, 3, 6.9, 0.0)
        grads = coupling.backward(y, total, x, shift, log_scale, None, (256, 1), False, 3, 6.9, 0.0, (True,) * 3)
        return [y, total, *(g for g in grads if g is not None)]

    first = step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, second, captured, strict=True))


def test_coupling_of_rows_past_two_to_the_31() -> None:
    if torch.cuda.mem_get_info()[0] < 14 << 30:
        pytest.skip("needs 14 GB of free memory")
    sites = 1 << 30
    x = torch.zeros(1, 3, sites, device="cuda", dtype=torch.bfloat16)
    x[0, 2, -1] = 1.0
    shift, log_scale = (torch.full((1, 1, 1), v, device="cuda", dtype=x.dtype).expand_as(x) for v in (0.5, 2.0**-20))
    places = torch.tensor([-1, 0, 1], device="cuda", dtype=torch.int32)
    y, total = coupling.forward(x, shift, log_scale, None, places, None, False, 0, 0.0, 0.0)
    # bfloat16 rounds 1 + 2^-20 + 0.5.
    assert [float(y[0, 0, -1]), float(y[0, 1, -1]), float(y[0, 2, -1])] == [0.0, 0.5, 1.5]
    assert float(total) == pytest.approx(2 * sites * 2.0**-20, rel=1e-6)
