"""The CUDA C++ kernels of autoregressive_inverse on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from compare import NEEDS_GPU
from inverses import NETWORKS, SOFT_CLIP, call, case, results
from networks import network
from support import SCALE_MAPS, assert_as_accurate
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference import MaskedNetwork
from fastgen.reference.autoregressive_inverse import FORMS

BUILT = backends.choose_for("autoregressive_inverse", "cuda", torch.float32)
pytestmark = [*NEEDS_GPU, pytest.mark.skipif(BUILT.backend != "cuda", reason=f"needs the CUDA kernels: {BUILT.reason}")]

WIDE = network(range(1, 7), (512, 512))
LONG = network(range(1, 785), (1024, 1024))


def _on_device(given: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.cuda() for t in given]


def _solve(net: MaskedNetwork, given: Sequence[Tensor | None], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    with backends.use("cuda"):
        return results(ops.autoregressive_inverse, net, given, **options)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [0, 1, 70])
def test_float64_equals_the_reference(name: str, form: str, rows: int) -> None:
    net = NETWORKS[name]
    given = _on_device(case(net, rows, True))
    expected = results(reference.autoregressive_inverse, net, given, form=form)
    torch.testing.assert_close(_solve(net, given, form=form), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scale_map", SCALE_MAPS)
def test_every_scale_map(scale_map: str) -> None:
    net, options = NETWORKS["any order"], {"scale_map": SCALE_MAPS[scale_map]}
    given = _on_device(case(net, 40, False))
    expected = results(reference.autoregressive_inverse, net, given, **options)
    torch.testing.assert_close(_solve(net, given, **options), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rows", [5, 1000, 5000])
def test_float32_is_as_accurate_as_pytorch(rows: int) -> None:
    """Every height of a tile."""
    net = network(range(1, 33), (256, 256))
    given = _on_device(case(net, rows, False, torch.float32))
    truth = results(reference.autoregressive_inverse, net, [t if t is None else t.double() for t in given])
    expected = results(reference.autoregressive_inverse, net, given)
    for triple in zip(_solve(net, given), expected, truth, strict=True):
        assert_as_accurate(*(t.flatten() for t in triple))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_as_accurate_as_pytorch(dtype: torch.dtype) -> None:
    net = network(range(1, 65), (256, 256))
    w, _, _, *params = _on_device(case(net, 64, False, dtype))
    with torch.no_grad(), backends.use("cuda"):
        found = call(ops.autoregressive_inverse, net, [w, None, None, *params])
    with torch.no_grad():
        truth = call(reference.autoregressive_inverse, net, [t if t is None else t.double() for t in (w, None, None, *params)])
        expected = call(reference.autoregressive_inverse, net, [w, None, None, *params])
    for f, e, t in zip(found, expected, truth, strict=True):
        assert_as_accurate(f.flatten(), e.flatten(), t.flatten())


@pytest.mark.parametrize("rows", [5, 1000, 5000])
def test_tf32_is_as_accurate_as_pytorch(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Every height of a tile, several blocks of features."""
    net = network(range(1, 65), (256, 256))
    given = _on_device(case(net, rows, False, torch.float32))
    truth = results(reference.autoregressive_inverse, net, [t if t is None else t.double() for t in given])
    in_float32 = _solve(net, given)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    found, expected = _solve(net, given), results(reference.autoregressive_inverse, net, given)
    assert not torch.equal(found[0], in_float32[0])
    for triple in zip(found, expected, truth, strict=True):
        assert_as_accurate(*(t.flatten() for t in triple))


@pytest.mark.parametrize("net", [WIDE, LONG, network(range(1, 4097), (4096,))], ids=["wide", "long", "beyond shared memory"])
def test_the_network_maps_the_solution_back(net: MaskedNetwork) -> None:
    w, _, _, *params = _on_device(case(net, 40, False))
    with torch.no_grad():
        v, total = call(ops.autoregressive_inverse, net, [w, None, None, *params])
        shift, raw = ops.masked_mlp(v, net, params).unbind(-1)
    s = SOFT_CLIP(raw)
    torch.testing.assert_close((v - shift) * (-s).exp(), w, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(total, s.sum(-1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("net", [WIDE, LONG], ids=["wide", "long"])
def test_the_gradient_is_that_of_the_cpu(net: MaskedNetwork) -> None:
    given = case(net, 40, False)
    expected = results(ops.autoregressive_inverse, net, given)
    for one, other in zip(_solve(net, _on_device(given)), expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-8, atol=1e-8)


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    net = NETWORKS["more features than a block"]
    given = _on_device(case(net, 70, False))
    everything = _solve(net, given)[:3]
    given[0][11, 3] = torch.nan
    spoilt = _solve(net, given)[:3]
    others = torch.arange(70) != 11
    assert all(torch.equal(a[others], b[others]) for a, b in zip(everything, spoilt, strict=True))


def _step(rows: int = 4096) -> tuple[Callable[[], list[Tensor]], Tensor]:
    net = network(range(1, 65), (512, 512))
    plan = ops.make_network_plan(net, "cuda")
    given = _on_device(case(net, rows, False, torch.float32))
    w = given[0].clone()
    run = partial(ops.autoregressive_inverse, plan=plan)
    return lambda: results(run, net, [w, *given[1:]]), w


def test_the_same_bits_twice() -> None:
    step, _ = _step()
    first, second = step(), step()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_inside_a_cuda_graph() -> None:
    step, w = _step()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    w.normal_()
    graph.replay()
    eager = step()
    assert all(torch.equal(a, b) for a, b in zip(captured, eager, strict=True))


def test_no_host_synchronisation() -> None:
    step, _ = _step(70)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_compile() -> None:
    net = NETWORKS["any order"]
    plan = ops.make_network_plan(net, "cuda")
    given = _on_device(case(net, 6, True))

    def loss(*given: Tensor) -> Tensor:
        v, total = call(ops.autoregressive_inverse, net, given, plan=plan)
        return (v.square().sum(-1) + total).sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    leaves = [t.requires_grad_() for t in given if t is not None]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), expected)
