from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from support import SCALE_MAPS, assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference import Checkerboard, ScaleMap

pytestmark = pytest.mark.usefixtures("cpu_backend")

every_map = pytest.mark.parametrize("scale_map", SCALE_MAPS.values(), ids=SCALE_MAPS.keys())
both_directions = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
both_forms = pytest.mark.parametrize("affine", [True, False], ids=["affine", "additive"])
SOFT_CLIP = SCALE_MAPS["soft_clip"]

# By name, the mask of so many features or channels.
MASKS: dict[str, Callable[[int], Tensor]] = {
    "halves": lambda n: torch.arange(n) >= n // 2,
    "first": lambda n: torch.arange(n) < (n + 1) // 2,
    "alternating": lambda n: torch.arange(n) % 2 == 0,
    "irregular": lambda n: torch.randn(n, generator=torch.Generator().manual_seed(n)) > 0,
    "all": lambda n: torch.ones(n, dtype=torch.bool),
    "none": lambda n: torch.zeros(n, dtype=torch.bool),
}
every_mask = pytest.mark.parametrize("make_mask", MASKS.values(), ids=MASKS.keys())
both_widths = pytest.mark.parametrize("compact", [False, True], ids=["full", "compact"])
CHANNELS_LAST = torch.channels_last
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": CHANNELS_LAST}
every_format = pytest.mark.parametrize("order", FORMATS.values(), ids=FORMATS.keys())


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(
    shape: Sequence[int], mask: Tensor | Checkerboard, compact: bool, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """x, the two halves of a network's output as views of it, and log_det."""
    channels = int(mask.sum()) if compact and isinstance(mask, Tensor) else shape[1]
    params = normal(shape[0], 2 * channels, *shape[2:], dtype=dtype, seed=1)
    return [normal(*shape, dtype=dtype), *params.chunk(2, 1), normal(shape[0], dtype=dtype, seed=2)]


def results(module, tensors: Sequence[Tensor], mask: Tensor | Checkerboard, affine: bool = True, **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """y, log_det and the gradients of all inputs, for gradients of y and log_det that differ from entry to entry."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    x, shift, log_scale, log_det = leaves
    if affine:
        y, total = module.affine_coupling(x, shift, log_scale, mask, log_det=log_det, **options)
    else:
        del leaves[2]
        y, total = module.additive_coupling(x, shift, mask, log_det=log_det, **options)
    weights = (
        torch.linspace(-1, 2.3, y.numel(), dtype=y.dtype).view(y.shape),
        torch.linspace(1, 3, total.numel(), dtype=total.dtype),
    )
    grads = torch.autograd.grad((y, total), leaves, (weights[0], weights[1].view(total.shape)))
    return [y.detach(), total.detach(), *grads]


@every_map
@both_directions
@pytest.mark.parametrize(("features", "name"), [(2, "halves"), (33, "alternating"), (128, "halves"), (1100, "irregular")])
def test_float32_is_as_accurate_as_pytorch(
    cpu_variant: str, scale_map: ScaleMap, inverse: bool, features: int, name: str
) -> None:
    mask = MASKS[name](features)
    tensors = inputs((21, features), mask, True, torch.float32)
    options = {"scale_map": scale_map, "inverse": inverse}
    truth = results(reference, [t.double() for t in tensors], mask, **options)
    expected = results(reference, tensors, mask, **options)
    for triple in zip(results(ops, tensors, mask, **options), expected, truth, strict=True):
        # One entry may cancel to nothing: where rows have one, the batch is the row.
        assert_as_accurate(*(t.flatten() for t in triple))


@every_mask
@both_widths
@both_directions
@both_forms
@pytest.mark.parametrize("features", [1, 2, 5, 34, 70, 1030])
def test_vectors_equal_the_reference(
    make_mask: Callable[[int], Tensor], compact: bool, inverse: bool, affine: bool, features: int
) -> None:
    mask = make_mask(features)
    tensors = inputs((7, features), mask, compact)
    expected = results(reference, tensors, mask, affine, inverse=inverse)
    # A sum of a thousand terms in another order.
    torch.testing.assert_close(results(ops, tensors, mask, affine, inverse=inverse), expected, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("mask", [*MASKS, Checkerboard(0), Checkerboard(1)], ids=str)
@both_widths
@both_directions
@both_forms
@every_format
@pytest.mark.parametrize("params_order", FORMATS.values(), ids=[f"of_{name}" for name in FORMATS])
def test_images_equal_the_reference(
    mask: str | Checkerboard,
    compact: bool,
    inverse: bool,
    affine: bool,
    order: torch.memory_format,
    params_order: torch.memory_format,
) -> None:
    for channels, height, width in ((1, 1, 1), (3, 4, 6), (6, 5, 5), (34, 3, 2), (2, 1, 40), (4, 24, 23), (3, 7, 1)):
        chosen = MASKS[mask](channels) if isinstance(mask, str) else mask
        x, shift, log_scale, log_det = inputs((3, channels, height, width), chosen, compact)
        params = torch.cat((shift, log_scale), 1).contiguous(memory_format=params_order)
        tensors = [x.contiguous(memory_format=order), *params.chunk(2, 1), log_det]
        expected = results(reference, tensors, chosen, affine, event_dims=3, inverse=inverse)
        found = results(ops, tensors, chosen, affine, event_dims=3, inverse=inverse)
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-12)
        assert found[0].is_contiguous(memory_format=order)


@every_format
@pytest.mark.parametrize("mask", ["halves", "alternating", Checkerboard(0)], ids=str)
def test_images_in_float32_are_as_accurate_as_pytorch(
    cpu_variant: str, order: torch.memory_format, mask: str | Checkerboard
) -> None:
    chosen = MASKS[mask](6) if isinstance(mask, str) else mask
    tensors = inputs((5, 6, 10, 10), chosen, True, torch.float32)
    tensors[0] = tensors[0].contiguous(memory_format=order)
    options = {"scale_map": SOFT_CLIP, "event_dims": 3}
    truth = results(reference, [t.double() for t in tensors], chosen, **options)
    expected = results(reference, tensors, chosen, **options)
    for triple in zip(results(ops, tensors, chosen, **options), expected, truth, strict=True):
        assert_as_accurate(*(t.reshape(-1) for t in triple))


@every_map
@pytest.mark.parametrize("event_dims", [1, 3])
def test_round_trip(scale_map: ScaleMap, event_dims: int) -> None:
    mask = MASKS["irregular"](6)
    shape = (17, 6) if event_dims == 1 else (3, 6, 4, 5)
    x, shift, log_scale, log_det = inputs(shape, mask, True)
    options = {"event_dims": event_dims, "scale_map": scale_map}
    y, forward = ops.affine_coupling(x, shift, log_scale, mask, log_det=log_det, **options)
    back, total = ops.affine_coupling(y, shift, log_scale, mask, inverse=True, log_det=forward, **options)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(total, log_det)


@both_directions
@both_forms
@pytest.mark.parametrize("mask", [*MASKS, Checkerboard(0), Checkerboard(1)], ids=str)
def test_log_det_is_that_of_the_jacobian(inverse: bool, affine: bool, mask: str | Checkerboard) -> None:
    shape = (1, 2, 3, 2) if isinstance(mask, Checkerboard) else (1, 5)
    chosen = MASKS[mask](5) if isinstance(mask, str) else mask
    options = {"event_dims": len(shape) - 1, "inverse": inverse}
    x, shift, log_scale, _ = inputs(shape, chosen, False)

    def transform(x: Tensor) -> tuple[Tensor, Tensor]:
        # shift and log_scale are functions of what passes through, as in a flow.
        kept = torch.where(reference.coupling.entries(chosen, x, len(shape) - 1), 0.0, x).sum()
        if not affine:
            return ops.additive_coupling(x, shift * kept, chosen, **options)
        return ops.affine_coupling(x, shift * kept, log_scale * kept.tanh(), chosen, scale_map=SOFT_CLIP, **options)

    jacobian = torch.autograd.functional.jacobian(lambda x: transform(x)[0].flatten(), x).view(x.numel(), x.numel())
    torch.testing.assert_close(transform(x)[1][0], jacobian.slogdet()[1])


# The gradient of clamp_straight is not that of its value, by definition.
@pytest.mark.parametrize("kind", [k for k in SCALE_MAPS if k != "clamp_straight"])
@both_directions
@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_gradcheck(kind: str, inverse: bool, second: bool) -> None:
    mask = torch.tensor([True, False, True])
    tensors = [t.clone().requires_grad_() for t in inputs((2, 3), mask, True)]

    def function(x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        options = {"inverse": inverse, "scale_map": SCALE_MAPS[kind]}
        return ops.affine_coupling(x, shift, log_scale, mask, log_det=log_det, **options)

    (torch.autograd.gradgradcheck if second else torch.autograd.gradcheck)(function, tensors)


@both_directions
@both_widths
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_gradcheck_of_images(inverse: bool, compact: bool, check: Callable) -> None:
    mask = torch.tensor([False, True]) if compact else Checkerboard(1)
    tensors = [t.clone().requires_grad_() for t in inputs((1, 2, 2, 2), mask, compact)]

    def affine(x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        return ops.affine_coupling(x, shift, log_scale, mask, event_dims=3, inverse=inverse, log_det=log_det)

    def additive(x: Tensor, shift: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        # Squared, or there were no second derivative.
        y, total = ops.additive_coupling(x, shift, mask, event_dims=3, inverse=inverse, log_det=log_det)
        return y.square(), total

    check(affine, tensors)
    check(additive, [tensors[0], tensors[1], tensors[3]])


@every_map
@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_scales_are_those_of_the_reference(
    cpu_variant: str, scale_map: ScaleMap, inverse: bool, dtype: torch.dtype
) -> None:
    log_scale = torch.tensor([[a] for a in (-80.0, -40.0, -18.5, -18.0, -1.0, 0.5, 1e-30, 0.0, 18.0, 40.0, 80.0)], dtype=dtype)
    mask = torch.tensor([False, True])
    tensors = [torch.full((11, 2), 3.0, dtype=dtype), torch.ones_like(log_scale), log_scale, torch.zeros(11, dtype=dtype)]
    options = {"scale_map": scale_map, "inverse": inverse}
    truth = results(reference, [t.double() for t in tensors], mask, **options)
    # Under e^80 one unit in the last place of s becomes 80 of y.
    tolerance = 256 * torch.finfo(dtype).eps
    for value, exact in zip(results(ops, tensors, mask, **options), truth, strict=True):
        torch.testing.assert_close(value, exact.to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["x", "shift", "log_scale"])
@both_directions
@pytest.mark.parametrize("features", [6, 64])
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, bad: float, where: int, inverse: bool, features: int) -> None:
    mask = MASKS["halves"](features)
    tensors = inputs((21, features), mask, False, torch.float32)
    clean = results(ops, tensors, mask, inverse=inverse)
    tensors[where] = tensors[where].clone()
    tensors[where][4, -1] = bad
    others = torch.arange(21) != 4
    dirty = results(ops, tensors, mask, inverse=inverse)
    for value, expected in zip(dirty, clean, strict=True):
        assert torch.equal(value[others], expected[others])
    touched = dirty[1] if where == 2 else dirty[0][:, -1]
    assert not touched[4].isfinite()


@pytest.mark.parametrize("name", ["halves", "alternating"])
@pytest.mark.parametrize("features", [6, 64])
@both_forms
def test_what_is_not_transformed_is_not_read(cpu_variant: str, name: str, features: int, affine: bool) -> None:
    mask = MASKS[name](features)
    tensors = inputs((5, features), mask, False, torch.float32)
    clean = results(ops, tensors, mask, affine)
    for i in (1, 2):
        tensors[i] = torch.where(mask, tensors[i], torch.nan)
    dirty = results(ops, tensors, mask, affine)
    assert all(map(torch.equal, dirty, clean))
    for gradient in dirty[3:-1]:
        assert not gradient[:, ~mask].any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -0.0])
@pytest.mark.parametrize("features", [6, 64])
@both_forms
def test_what_passes_through_passes_to_the_bit(bad: float, features: int, affine: bool) -> None:
    mask = MASKS["alternating"](features)
    tensors = inputs((5, features), mask, True, torch.float32)
    tensors[0][2, 1::2] = bad
    y, total = results(ops, tensors, mask, affine)[:2]
    assert torch.equal(y[:, 1::2].contiguous().view(torch.int32), tensors[0][:, 1::2].contiguous().view(torch.int32))
    assert total.isfinite().all()


@pytest.mark.parametrize("features", [1, 6, 70])
@pytest.mark.parametrize("name", ["halves", "alternating", "all"])
@both_widths
def test_any_strides_of_vectors(cpu_variant: str, features: int, name: str, compact: bool) -> None:
    mask = MASKS[name](features)
    tensors = [t.contiguous() for t in inputs((19, features), mask, compact, torch.float32)]
    expected = results(ops, tensors, mask, scale_map=SOFT_CLIP)
    for i in range(3):
        for strided in strided_like(tensors[i]):
            given = [strided if j == i else t for j, t in enumerate(tensors)]
            assert all(map(torch.equal, results(ops, given, mask, scale_map=SOFT_CLIP), expected))


@pytest.mark.parametrize("mask", ["halves", "alternating", Checkerboard(0)], ids=str)
def test_any_strides_of_images(cpu_variant: str, mask: str | Checkerboard) -> None:
    chosen = MASKS[mask](4) if isinstance(mask, str) else mask
    tensors = [t.contiguous() for t in inputs((3, 4, 6, 5), chosen, False, torch.float32)]
    expected = results(ops, tensors, chosen, event_dims=3)
    for i in range(3):
        wide = tensors[i].new_full((3, 4, 6, 11), torch.nan)
        wide[..., 1::2] = tensors[i]
        for strided in (wide[..., 1::2], tensors[i].transpose(2, 3).contiguous().transpose(2, 3)):
            given = [strided if j == i else t for j, t in enumerate(tensors)]
            # In another order of x's memory sums are taken in another order.
            torch.testing.assert_close(results(ops, given, chosen, event_dims=3), expected)


def test_expanded_inputs() -> None:
    mask = MASKS["alternating"](6)
    x, shift, log_scale, log_det = inputs((6, 6), mask, False)
    expanded = [x[:1].expand(6, 6), shift[:, :1].expand(6, 6), log_scale[:1, :1].expand(6, 6), log_det[:1].expand(6)]
    expected = results(ops, [t.contiguous() for t in expanded], mask)
    assert all(map(torch.equal, results(ops, expanded, mask), expected))


@pytest.mark.parametrize("features", [6, 64])
@both_forms
def test_any_strides_of_incoming_gradients(cpu_variant: str, features: int, affine: bool) -> None:
    mask = MASKS["halves"](features)
    tensors = [t.requires_grad_() for t in inputs((6, features), mask, True)]
    if affine:
        outputs = ops.affine_coupling(*tensors[:3], mask, log_det=tensors[3])
    else:
        del tensors[2]
        outputs = ops.additive_coupling(*tensors[:2], mask, log_det=tensors[2])
    for grad in (*strided_like(normal(6, features)), torch.ones(()).double().expand(6, features)):
        for per_row in (torch.ones(()).double().expand(6), normal(12)[::2]):
            given = torch.autograd.grad(outputs, tensors, (grad, per_row), retain_graph=True)
            expected = torch.autograd.grad(outputs, tensors, (grad.contiguous(), per_row.contiguous()), retain_graph=True)
            assert all(map(torch.equal, given, expected))


@every_format
@pytest.mark.parametrize("mask", ["halves", Checkerboard(1)], ids=str)
@both_forms
def test_incoming_gradients_of_another_memory_format(
    order: torch.memory_format, mask: str | Checkerboard, affine: bool
) -> None:
    chosen = MASKS[mask](4) if isinstance(mask, str) else mask
    x, shift, log_scale, _ = (t.requires_grad_() for t in inputs((2, 4, 3, 5), chosen, False))
    leaves = [x, shift, log_scale] if affine else [x, shift]
    y, _ = (ops.affine_coupling if affine else ops.additive_coupling)(*leaves, chosen, event_dims=3)
    grad = normal(2, 4, 3, 5, seed=5)
    expected = torch.autograd.grad(y, leaves, grad, retain_graph=True)
    given = torch.autograd.grad(y, leaves, grad.contiguous(memory_format=order), retain_graph=True)
    assert all(map(torch.equal, given, expected))


@pytest.mark.parametrize("batch", [(0,), (2, 0), (), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("event", [(4,), (2, 3, 3)], ids=["vector", "image"])
@both_forms
def test_leading_dimensions(batch: tuple[int, ...], event: tuple[int, ...], affine: bool) -> None:
    mask = torch.arange(event[0]) % 2 == 0
    tensors = [normal(*batch, *event, seed=i) for i in range(3)] + [normal(*batch, seed=3)]
    options = {"event_dims": len(event)}
    expected = results(reference, tensors, mask, affine, **options)
    given = results(ops, tensors, mask, affine, **options)
    torch.testing.assert_close(given, expected)
    assert given[0].shape == (*batch, *event) and given[1].shape == batch


@pytest.mark.parametrize("batch", [(), (2, 3), (0, 2)])
@pytest.mark.parametrize("event", [(4,), (2, 3, 3)], ids=["vector", "image"])
@both_forms
def test_leading_dimensions_of_a_compact_shift_without_entries(
    batch: tuple[int, ...], event: tuple[int, ...], affine: bool
) -> None:
    mask = torch.zeros(event[0], dtype=torch.bool)
    params = [torch.zeros(*batch, 0, *event[1:])] * (2 if affine else 1)
    x = normal(*batch, *event, dtype=torch.float32)
    y, log_det = (ops.affine_coupling if affine else ops.additive_coupling)(x, *params, mask, event_dims=len(event))
    assert torch.equal(y, x) and torch.equal(log_det, torch.zeros(batch))


@both_forms
@pytest.mark.parametrize("name", ["halves", "none"])
def test_results_are_new_tensors(affine: bool, name: str) -> None:
    mask = MASKS[name](4)
    x, shift, log_scale, log_det = inputs((4, 4), mask, False)
    before = [t.clone() for t in (x, log_det)]
    parameters = (shift, log_scale) if affine else (shift,)
    y, total = (ops.affine_coupling if affine else ops.additive_coupling)(x, *parameters, mask, log_det=log_det)
    y.zero_(), total.zero_()
    assert torch.equal(x, before[0]) and torch.equal(log_det, before[1])


@pytest.mark.parametrize("wanted", range(4))
@both_directions
@both_widths
def test_one_gradient_alone(wanted: int, inverse: bool, compact: bool) -> None:
    for features in (6, 64):
        mask = MASKS["halves"](features)
        tensors = inputs((5, features), mask, compact)
        expected = results(ops, tensors, mask, inverse=inverse, scale_map=SOFT_CLIP)[2 + wanted]
        tensors[wanted] = tensors[wanted].clone().requires_grad_()
        options = {"log_det": tensors[3], "inverse": inverse, "scale_map": SOFT_CLIP}
        y, log_det = ops.affine_coupling(*tensors[:3], mask, **options)
        weights = torch.linspace(-1, 2.3, y.numel(), dtype=y.dtype).view_as(y), torch.linspace(1, 3, 5, dtype=y.dtype)
        outputs = (y, log_det) if wanted < 3 else (log_det,)
        assert torch.equal(torch.autograd.grad(outputs, tensors[wanted], weights[2 - len(outputs) :])[0], expected)


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    mask = MASKS["halves"](4)
    x, shift, log_scale, log_det = inputs((5, 4), mask, True)
    places = ops.make_coupling_plan(mask).places
    grads = torch.ops.fastgen.coupling_backward(
        x, log_det, x, shift, log_scale, places, 0, False, 0, 0.0, 0.0, [False, True, False]
    )
    assert [g.numel() for g in grads] == [0, 10, 0]


@both_directions
@pytest.mark.parametrize("features", [6, 64])
def test_a_loss_of_one_output(inverse: bool, features: int) -> None:
    mask = MASKS["halves"](features)
    tensors = [t.requires_grad_() for t in inputs((5, features), mask, True)]
    options = {"inverse": inverse, "scale_map": SOFT_CLIP, "log_det": tensors[3]}
    for i in range(2):
        pair = [
            torch.autograd.grad(
                module.affine_coupling(*tensors[:3], mask, **options)[i].square().sum(),
                tensors,
                allow_unused=True,
                materialize_grads=True,
            )
            for module in (ops, reference)
        ]
        torch.testing.assert_close(*pair)


def test_log_det_alone_has_a_finite_gradient_where_y_overflows() -> None:
    mask = MASKS["halves"](4)
    x, shift, log_scale, _ = inputs((2, 4), mask, True)
    log_scale = (log_scale + 1e4).requires_grad_()
    _, log_det = ops.affine_coupling(x, shift, log_scale, mask)
    assert torch.autograd.grad(log_det.sum(), log_scale)[0].tolist() == [[1.0] * 2] * 2


def test_one_tensor_given_twice_gets_both_gradients() -> None:
    a, b = (normal(3, 4, seed=i).requires_grad_() for i in range(2))
    mask = MASKS["alternating"](4)
    torch.autograd.gradcheck(lambda a, b: ops.affine_coupling(a, b, b, mask), (a, b))
    torch.autograd.gradgradcheck(lambda a, b: ops.affine_coupling(a, b, b, mask), (a, b))
    torch.autograd.gradcheck(lambda a: ops.additive_coupling(a, a, mask)[0], (a,))


def test_an_additive_coupling_keeps_nothing_for_backward() -> None:
    kept: list[Tensor] = []
    mask = MASKS["halves"](4)
    x, shift, log_scale, _ = (t.requires_grad_() for t in inputs((2, 4), mask, True))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ops.additive_coupling(x, shift, mask)
        assert not kept
        ops.affine_coupling(x, shift, log_scale, mask)
    assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in (x, shift, log_scale)]


def test_the_log_det_of_an_additive_coupling_is_a_constant() -> None:
    mask = MASKS["halves"](4)
    x, shift, _, log_det = (t.requires_grad_() for t in inputs((2, 4), mask, True))
    assert not ops.additive_coupling(x, shift, mask)[1].requires_grad
    assert torch.autograd.grad(ops.additive_coupling(x, shift, mask, log_det=log_det)[1].sum(), log_det)[0].tolist() == [1, 1]


def test_the_thread_count_does_not_change_a_bit() -> None:
    before = torch.get_num_threads()
    for shape in ((700, 64), (700, 6), (5, 4, 40, 40)):
        mask = MASKS["halves"](shape[1])
        tensors = inputs(shape, mask, True, torch.float32)
        try:
            runs = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                runs.append(results(ops, tensors, mask, scale_map=SOFT_CLIP, event_dims=len(shape) - 1))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@both_directions
@pytest.mark.parametrize("mask", ["halves", Checkerboard(1)], ids=str)
@every_format
def test_compile(inverse: bool, mask: str | Checkerboard, order: torch.memory_format) -> None:
    chosen = MASKS[mask](4) if isinstance(mask, str) else mask
    plan = ops.make_coupling_plan(chosen)
    options = {"event_dims": 3, "inverse": inverse, "plan": plan}

    def loss(x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor) -> Tensor:
        y, total = ops.affine_coupling(x, shift, log_scale, chosen, scale_map=SOFT_CLIP, log_det=log_det, **options)
        y, total = ops.additive_coupling(y, shift, chosen, log_det=total, **options)
        return (y.square().sum((1, 2, 3)) + total).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    tensors = inputs((3, 4, 2, 3), chosen, True)
    tensors[0] = tensors[0].contiguous(memory_format=order)
    tensors = [t.requires_grad_() for t in tensors]
    torch.testing.assert_close(compiled(*tensors), loss(*tensors))
    pair = [torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss)]
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("which", [0, 1], ids=["y", "log_det"])
def test_compile_of_one_output(which: int) -> None:
    mask = MASKS["alternating"](5)
    plan = ops.make_coupling_plan(mask)

    def loss(x: Tensor, shift: Tensor, log_scale: Tensor) -> Tensor:
        return ops.affine_coupling(x, shift, log_scale, mask, plan=plan)[which].square().sum()

    tensors = [t.requires_grad_() for t in inputs((4, 5), mask, True)[:3]]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    pair = [torch.autograd.grad(f(*tensors), tensors, allow_unused=True, materialize_grads=True) for f in (compiled, loss)]
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_format
def test_opcheck(dtype: torch.dtype, order: torch.memory_format) -> None:
    mask = MASKS["halves"](4)
    places = ops.make_coupling_plan(mask).places
    x, shift, log_scale, log_det = inputs((5, 4, 2, 3), mask, True, dtype)
    x = x.contiguous(memory_format=order)
    code = (True, 5, 6.9, 0.0)
    torch.library.opcheck(torch.ops.fastgen.coupling, (x, shift, log_scale, log_det, places, 0, *code))
    torch.library.opcheck(torch.ops.fastgen.coupling, (x, x, None, None, None, 1, *code))
    for needs in ([True, True, True], [True, False, False]):
        arguments = (x, log_det, x, shift, log_scale, places, 0, *code, needs)
        torch.library.opcheck(torch.ops.fastgen.coupling_backward, arguments)


@both_forms
def test_torch_func(affine: bool) -> None:
    mask = MASKS["irregular"](5)
    x, shift, log_scale, _ = inputs((4, 5), mask, True)

    def loss(module, shift: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        if affine:
            y, log_det = module.affine_coupling(x, shift, log_scale, mask)
        else:
            y, log_det = module.additive_coupling(x, shift, mask)
        return (y.square().sum(-1) + log_det).sum()

    given, expected = (torch.func.grad(lambda t, m=m: loss(m, t))(shift) for m in (ops, reference))
    torch.testing.assert_close(given, expected)


def test_forward_mode_raises() -> None:
    mask = MASKS["halves"](4)
    x, shift, log_scale, _ = inputs((4, 4), mask, True)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.func.jvp(lambda x: ops.affine_coupling(x, shift, log_scale, mask)[0], (x,), (torch.ones_like(x),))


def test_autocast_computes_in_float32() -> None:
    mask = MASKS["halves"](4)
    x, shift, log_scale, _ = inputs((5, 4), mask, True, torch.float32)
    halves = [shift.bfloat16().requires_grad_(), log_scale.bfloat16().requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        y, log_det = ops.affine_coupling(x, *halves, mask)
        z, _ = ops.additive_coupling(x, halves[0], mask)
    assert y.dtype == log_det.dtype == z.dtype == torch.float32
    torch.testing.assert_close((y, log_det), reference.affine_coupling(x, *(t.float() for t in halves), mask))
    assert [g.dtype for g in torch.autograd.grad((y + z).sum() + log_det.sum(), halves)] == [torch.bfloat16] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_run_on_the_reference(dtype: torch.dtype) -> None:
    mask = MASKS["halves"](4)
    x, shift, log_scale, _ = inputs((5, 4), mask, True, dtype)
    with backends.use("auto"):
        y, log_det = ops.affine_coupling(x, shift, log_scale, mask)
        z, _ = ops.additive_coupling(x, shift, mask)
    assert y.dtype == z.dtype == dtype and log_det.dtype == torch.float32
    assert torch.equal(y, reference.affine_coupling(x, shift, log_scale, mask)[0])
    assert torch.equal(z, reference.additive_coupling(x, shift, mask)[0])


def test_forced_backends() -> None:
    mask = MASKS["halves"](4)
    x, shift, log_scale, _ = inputs((5, 4), mask, True, torch.float32)
    with backends.use("reference"):
        given = ops.affine_coupling(x, shift, log_scale, mask)
    assert all(map(torch.equal, given, reference.affine_coupling(x, shift, log_scale, mask)))
    with pytest.raises(backends.BackendError, match="bfloat16"):
        ops.additive_coupling(x.bfloat16(), shift.bfloat16(), mask)


def test_a_plan_is_what_a_mask_says() -> None:
    plan = ops.make_coupling_plan(torch.tensor([True, False, False, True]))
    assert plan.places is not None and plan.places.tolist() == [0, -1, -1, 1] and plan.places.dtype == torch.int32
    assert plan.transformed == 2
    assert ops.make_coupling_plan(Checkerboard(1)) == (None, 0)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True], TypeError, "mask: expected a bool tensor or a Checkerboard, found list"),
        (torch.ones(3), TypeError, "mask: expected a bool tensor or a Checkerboard, found torch.float32"),
        (torch.ones(3, device="meta").bool(), ValueError, "mask: expected a CPU tensor, or a plan of one"),
        (torch.ones(0).bool(), ValueError, "mask: expected a vector of at least 1 value"),
        (torch.ones(3, 1).bool(), ValueError, r"mask: expected a vector of at least 1 value, found shape \(3, 1\)"),
    ],
)
def test_bad_masks(mask: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.make_coupling_plan(mask)  # type: ignore[arg-type]


X = torch.zeros(4, 3)
IMAGE = torch.zeros(2, 3, 4, 5)
MASK = torch.tensor([True, False, True])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X.long()}, TypeError, "x: expected a floating dtype, found torch.int64"),
        ({"x": torch.zeros(4, 0)}, ValueError, r"x: expected shape \(\.\.\., at least 1\), found \(4, 0\)"),
        ({"x": torch.zeros(())}, ValueError, "x: expected shape"),
        ({"x": X, "event_dims": 3}, ValueError, r"x: expected shape \(\.\.\., C, H, W\)"),
        ({"event_dims": 2}, ValueError, "event_dims: expected 1 or 3, found 2"),
        ({"mask": MASK[:2]}, ValueError, r"mask: expected shape \(3,\), found \(2,\)"),
        ({"mask": MASK.long()}, TypeError, "mask: expected a bool tensor"),
        ({"mask": Checkerboard(0)}, ValueError, "mask: expected a bool tensor for vectors, found a Checkerboard"),
        ({"plan": ops.CouplingPlan(torch.zeros(2).int(), 2)}, ValueError, r"mask: expected shape \(3,\), found \(2,\)"),
        ({"shift": torch.zeros(4, 1)}, ValueError, r"shift: expected shape \(4, 3\), or compact \(4, 2\), found \(4, 1\)"),
        ({"shift": X.double()}, TypeError, "shift: expected x's dtype torch.float32, found torch.float64"),
        ({"shift": 0.0}, TypeError, "shift: expected a tensor, found float"),
        ({"log_scale": torch.zeros(4, 2)}, ValueError, r"log_scale: expected shift's shape \(4, 3\), found \(4, 2\)"),
        ({"log_scale": torch.zeros(3)}, ValueError, "log_scale: expected shape"),
        ({"log_scale": X.to("meta")}, ValueError, "log_scale: expected x's device cpu, found meta"),
        ({"log_scale": None}, TypeError, "log_scale: expected a tensor, found NoneType"),
        ({"log_det": torch.zeros(3)}, ValueError, r"log_det: expected shape \(4,\), found \(3,\)"),
        ({"log_det": torch.zeros(4).double()}, TypeError, "log_det: expected dtype torch.float32"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.affine_coupling(**{"x": X, "shift": X, "log_scale": X, "mask": MASK, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "plan", "message"),
    [
        (MASK, ops.make_coupling_plan(Checkerboard(0)), "plan: .* a Tensor, found that of a Checkerboard"),
        (Checkerboard(0), ops.make_coupling_plan(MASK), "plan: .* a Checkerboard, found that of a bool tensor"),
        (None, ops.make_coupling_plan(MASK), "plan: .* a NoneType, found that of a bool tensor"),
        (MASK, ops.make_coupling_plan(MASK, "meta"), "plan: expected one for x's device cpu, found one for meta"),
    ],
)
def test_plans_of_another_mask_or_device(mask: object, plan: ops.CouplingPlan, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.affine_coupling(IMAGE, IMAGE, IMAGE, mask, event_dims=3, plan=plan)  # type: ignore[arg-type]


def test_a_checkerboard_has_no_compact_form() -> None:
    with pytest.raises(ValueError, match=r"shift: expected shape \(2, 3, 4, 5\), found \(2, 2, 4, 5\)"):
        ops.additive_coupling(IMAGE, IMAGE[:, :2], Checkerboard(0), event_dims=3)


PLACES = torch.tensor([0, -1, 1], dtype=torch.int32)


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(4, 3, 1), "x: "),
        (0, torch.zeros(4, 0), "x: "),
        (0, X.half(), "x: "),
        (1, torch.zeros(4, 1), "shift: "),
        (1, torch.zeros(5, 2), "shift: "),
        (1, X.double(), "shift: "),
        (2, torch.zeros(5, 3), "log_scale: "),
        (3, torch.zeros(5), "log_det_in: "),
        (4, PLACES[:2], "places: "),
        (4, PLACES.long(), "places: "),
        (4, PLACES + 1, "places: "),
        (4, -2 - PLACES, "places: "),
        (4, torch.arange(6, dtype=torch.int32)[::2], "places: .*contiguous"),
        (4, None, "places: "),
        (7, 7, "kind: "),
        (7, -1, "kind: "),
        (10, torch.zeros(3, 3), "y: "),
        (10, torch.zeros(3, 4).t(), "y: .*without gaps"),
        (10, torch.zeros(4, 4)[:, 1:], "y: .*without gaps"),
        (11, torch.zeros(4).double(), "log_det: "),
    ],
)
def test_the_compiled_forward_checks_every_argument(position: int, wrong: object, message: str) -> None:
    arguments = [X, X, X, torch.zeros(4), PLACES, 0, False, 0, 0.0, 0.0, torch.zeros(4, 3), torch.zeros(4)]
    arguments[position] = wrong
    with pytest.raises((ValueError, TypeError), match=message):
        backends.compiled().coupling_forward(*arguments)


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, IMAGE[:, :, :0], "x: "),
        (1, IMAGE[:, :2], "shift: "),
        (5, 2, "parity: "),
        (5, -1, "parity: "),
        (10, IMAGE.contiguous(memory_format=CHANNELS_LAST), "y: .*without gaps"),
        (10, IMAGE[..., :1], "y: "),
    ],
)
def test_the_compiled_forward_checks_images(position: int, wrong: object, message: str) -> None:
    arguments = [IMAGE, IMAGE, IMAGE, None, None, 0, False, 0, 0.0, 0.0, torch.zeros_like(IMAGE), torch.zeros(2)]
    arguments[position] = wrong
    with pytest.raises((ValueError, TypeError), match=message):
        backends.compiled().coupling_forward(*arguments)


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 5, 11, 12, 13])
def test_the_compiled_backward_checks_every_tensor(position: int) -> None:
    room = [torch.zeros(4, 3), torch.zeros(4, 2), torch.zeros(4, 3)]
    arguments = [X, torch.zeros(4), X, X[:, :2], X, PLACES, 0, False, 0, 0.0, 0.0, *room]
    arguments[position] = torch.zeros(5)
    with pytest.raises((ValueError, TypeError), match="expected"):
        backends.compiled().coupling_backward(*arguments)


def test_the_compiled_backward_has_no_gradient_of_a_log_scale_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="grad_log_scale: expected None"):
        backends.compiled().coupling_backward(X, None, X, X, None, PLACES, 0, False, 0, 0.0, 0.0, None, None, X)


def test_a_negated_view_is_refused() -> None:
    x = torch.randn(3, 4)
    negated = torch.randn(3, 4, dtype=torch.complex64).conj().imag
    for arguments, name in (((negated, x, x), "x"), ((x, negated, x), "shift"), ((x, x, negated), "log_scale")):
        with pytest.raises(ValueError, match=f"{name}: expected a tensor as it is stored"):
            ops.affine_coupling(*arguments, torch.tensor([True, False, True, False]))


def test_no_rows_of_large_images_take_no_time() -> None:
    images = torch.empty(0, 1, 1, 1).expand(0, 1, 1 << 15, 1 << 15)
    y, log_det = ops.additive_coupling(images, images, ops.Checkerboard(0), event_dims=3)
    assert y.shape == images.shape and log_det.shape == (0,)
