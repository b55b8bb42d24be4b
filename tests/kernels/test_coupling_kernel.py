"""Affine and additive coupling on Triton kernels. Entries of shift and log_scale where a mask is False hold NaN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from compare import RUNS_KERNELS
from support import SCALE_MAPS, assert_as_accurate
from torch import Tensor

from fastgen import reference
from fastgen.kernels import _rows
from fastgen.kernels import coupling as kernel
from fastgen.kernels._launch import Device
from fastgen.reference import Checkerboard, ScaleMap
from fastgen.reference.coupling import Mask, entries

pytestmark = RUNS_KERNELS

SOFT_CLIP = SCALE_MAPS["soft_clip"]


def _mask(kind: str, channels: int) -> Mask:
    """Half, every second, all, none or a scatter of the channels; or a checkerboard, named by its parity."""
    if kind in "01":
        return Checkerboard(int(kind))
    i = torch.arange(channels)
    return {"half": i < channels // 2, "odd": i % 2 == 1, "all": i >= 0, "none": i < 0, "scatter": i * 7 % 5 < 2}[kind]


def _inputs(
    device: str, shape: Sequence[int], mask: Mask, compact: bool = False, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """x, shift and log_scale of a shape (B, D) or (B, C, H, W), the last two NaN where the mask is False, or compact."""
    torch.manual_seed(0)
    x, shift, log_scale = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    if compact:
        shift, log_scale = shift[:, mask], log_scale[:, mask]
    else:
        chosen = entries(mask, x, len(shape) - 1).expand(shape)
        shift, log_scale = torch.where(chosen, shift, torch.nan), torch.where(chosen, log_scale, torch.nan)
    return [t.to(device, dtype) for t in (x, shift, log_scale)]


def _three_axes(t: Tensor | None) -> Tensor | None:
    return t if t is None else t[..., None] if t.dim() == 2 else t.flatten(2)


def _told_of(mask: Mask, x: Tensor) -> tuple[Tensor | None, tuple[int, int] | None]:
    """places and pattern, as the kernel takes them."""
    if isinstance(mask, Checkerboard):
        return None, (x.shape[-1], mask.parity)
    return torch.where(mask, mask.cumsum(0) - 1, -1).to(x.device, torch.int32), None


def _forward(
    inputs: Sequence[Tensor], mask: Mask, inverse: bool = False, scale_map: ScaleMap = SOFT_CLIP, log_det: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """With two inputs, x and shift, the additive form."""
    x, shift, log_scale = (*inputs, None)[:3]
    rows = (_three_axes(t) for t in (x, shift, log_scale))
    y, total = kernel.forward(*rows, log_det, *_told_of(mask, x), inverse, *scale_map.code)
    assert y.stride() == torch.empty_like(_three_axes(x)).stride()
    return y.view_as(x), total


def _backward(
    inputs: Sequence[Tensor],
    mask: Mask,
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    inverse: bool = False,
    scale_map: ScaleMap = SOFT_CLIP,
    needs: Sequence[bool] = (True,) * 3,
) -> list[Tensor | None]:
    x, shift, log_scale = (*inputs, None)[:3]
    rows = (_three_axes(t) for t in (x, shift, log_scale))
    grads = kernel.backward(_three_axes(grad_y), grad_log_det, *rows, *_told_of(mask, x), inverse, *scale_map.code, needs)
    return [g if g is None else g.view_as(t) for g, t in zip(grads, inputs, strict=False)]


def _definition(
    inputs: Sequence[Tensor], mask: Mask, inverse: bool = False, scale_map: ScaleMap = SOFT_CLIP, log_det: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    options = {"event_dims": inputs[0].dim() - 1, "inverse": inverse, "log_det": log_det}
    if len(inputs) == 2:
        return reference.additive_coupling(*inputs, mask, **options)
    return reference.affine_coupling(*inputs, mask, scale_map=scale_map, **options)


def _by_definition(
    inputs: Sequence[Tensor], mask: Mask, grads: Sequence[Tensor | None], dtype: torch.dtype, **options: object
) -> list[Tensor]:
    """What the definition returns in a dtype, and its gradients for incoming ones, of which None is zero."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in inputs]
    outputs = _definition(leaves, mask, **options)  # type: ignore[arg-type]
    pairs = [(o, g.to(o)) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad]
    roots, weights = zip(*pairs, strict=True)
    found = torch.autograd.grad(roots, leaves, weights, allow_unused=True)
    return [
        *(o.detach() for o in outputs),
        *(torch.zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)),
    ]


def _assert_matches(inputs: Sequence[Tensor], mask: Mask, log_det: Tensor | None = None, **options: object) -> None:
    """The error rule for both outputs and every gradient."""
    x = inputs[0]
    torch.manual_seed(1)
    grads = torch.randn(x.shape).to(x), torch.randn(len(x)).to(x.device)
    truth, plain = (
        _by_definition(inputs, mask, grads, dtype, log_det=log_det, **options) for dtype in (torch.float64, x.dtype)
    )
    found = [*_forward(inputs, mask, log_det=log_det, **options), *_backward(inputs, mask, *grads, **options)]  # type: ignore[arg-type]
    for f, p, t in zip(found, plain, truth, strict=True):
        assert f is not None
        # Gradients of what lies outside the mask are 0, a row of them has no norm.
        assert_as_accurate(*(v.reshape(1, -1) for v in (f, p, t)))


def _nhwc(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last)


def _apart(t: Tensor) -> Tensor:
    """Every second entry along the last axis of a larger tensor of NaN."""
    room = t.new_full((*t.shape[:-1], 2 * t.shape[-1] + 1), torch.nan)
    room[..., 1::2] = t
    return room[..., 1::2]


VECTOR_MASKS = ("half", "odd", "all", "none", "scatter")
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {"contiguous": lambda t: t, "channels_last": _nhwc}


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("kind", VECTOR_MASKS)
def test_vectors(device: str, kind: str, compact: bool) -> None:
    mask = _mask(kind, 13)
    inputs = _inputs(device, (40, 13), mask, compact)
    for inverse in (False, True):
        _assert_matches(inputs, mask, inverse=inverse)
        _assert_matches(inputs[:2], mask, inverse=inverse)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "compact"), [*product(VECTOR_MASKS, [False, True]), ("0", False), ("1", False)], ids=lambda v: str(v)
)
def test_images(device: str, kind: str, compact: bool, layout: str) -> None:
    mask = _mask(kind, 6)
    inputs = [LAYOUTS[layout](t) for t in _inputs(device, (5, 6, 5, 7), mask, compact)]
    for inverse in (False, True):
        _assert_matches(inputs, mask, inverse=inverse)
        _assert_matches(inputs[:2], mask, inverse=inverse)


@pytest.mark.parametrize("name", SCALE_MAPS)
@pytest.mark.parametrize("inverse", [False, True])
def test_scale_maps(device: str, inverse: bool, name: str) -> None:
    mask = _mask("scatter", 13)
    x, shift, log_scale = _inputs(device, (120, 13), mask)
    # The clamps' edges.
    log_scale[0, mask] = torch.tensor([-1.0, 0.5, 0.0, 1.0, 2.0])[: int(mask.sum())].to(log_scale)
    _assert_matches((x, shift, log_scale), mask, inverse=inverse, scale_map=SCALE_MAPS[name])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inverse", [False, True])
def test_other_dtypes(device: str, inverse: bool, dtype: torch.dtype) -> None:
    for shape, kind, compact in (((60, 16), "half", False), ((60, 16), "scatter", True), ((4, 3, 8, 8), "1", False)):
        mask = _mask(kind, shape[1])
        inputs = _inputs(device, shape, mask, compact, dtype)
        _assert_matches(inputs, mask, inverse=inverse)
        _assert_matches(inputs[:2], mask, inverse=inverse)


# 1100 features are more than one tile; a site or a channel alone leaves one axis.
@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (300, 3), (3, 1100), (2, 1, 3, 3), (3, 4, 1, 1), (2, 3, 4, 1)])
@pytest.mark.parametrize("kind", ["odd", "all"])
def test_shapes(device: str, shape: tuple[int, ...], kind: str) -> None:
    mask = _mask(kind, shape[1])
    _assert_matches(_inputs(device, shape, mask), mask)
    _assert_matches(_inputs(device, shape, mask, compact=True), mask)
    if len(shape) == 4:
        _assert_matches(_inputs(device, shape, Checkerboard(1)), Checkerboard(1))


def test_one_number(device: str) -> None:
    inputs, mask = _inputs(device, (1, 1), torch.tensor([True])), torch.tensor([True])
    grads = torch.ones(1, 1, device=device), torch.ones(1, device=device)
    expected = _by_definition(inputs, mask, grads, torch.float32)
    for f, e in zip([*_forward(inputs, mask), *_backward(inputs, mask, *grads)], expected, strict=True):
        # A few roundings of terms of order 1, which may cancel.
        torch.testing.assert_close(f, e, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_cut_into_parts(device: str, layout: str, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many programs a row, the last with less to do; also with the offsets of rows of 2^31 entries."""
    monkeypatch.setattr(_rows, "_STEPS", 2)
    monkeypatch.setattr(_rows, "device_of", lambda t: Device(processors=1, shared_memory=0))
    plan = kernel._layout
    monkeypatch.setattr(kernel, "_layout", lambda *given: {**plan(*given), "LONG": long})
    for kind, compact in (("half", False), ("half", True), ("1", False)):
        mask = _mask(kind, 3)
        inputs = [LAYOUTS[layout](t) for t in _inputs(device, (3, 3, 37, 41), mask, compact)]
        assert kernel.row_parts(inputs[0], kernel.row_tile(inputs[0])) == (1024, 5)
        _assert_matches(inputs, mask, log_det=torch.full((3,), 1e4, device=device))
        _assert_matches(inputs[:2], mask)


@pytest.mark.parametrize("compact", [False, True])
def test_strides(device: str, compact: bool) -> None:
    """Tensors of strides of their own, amid NaN, rows expanded, x with the batch innermost."""
    for shape, kind in (((6, 9), "scatter"), ((3, 5, 3, 4), "odd"), ((3, 5, 3, 4), "0")):
        if kind == "0" and compact:
            continue
        mask = _mask(kind, shape[1])
        x, shift, log_scale = _inputs(device, shape, mask, compact)
        for inputs in (
            (_apart(x), shift, _apart(log_scale)),
            (x, _apart(shift), log_scale),
            (x.transpose(0, 1).contiguous().transpose(0, 1), shift, log_scale),
            (x.movedim(0, -1).contiguous().movedim(-1, 0), shift, log_scale),
            (x[:1].expand(shape), shift, log_scale[:1].expand_as(log_scale)),
            (x, shift, log_scale) if len(shape) == 2 else (x, _nhwc(shift), log_scale),
        ):
            _assert_matches(inputs, mask)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("compact", [False, True])
def test_gradients_of_some(device: str, compact: bool, inverse: bool) -> None:
    """Each set of needs, with either incoming gradient absent, and as `sum` hands them on, with strides 0."""
    mask = _mask("half", 5)
    inputs = _inputs(device, (4, 5), mask, compact)
    ones = torch.ones(1, device=device)
    incoming = [
        (ones.expand(4, 5), None),
        (None, ones.expand(4)),
        (torch.randn(5, 4).to(device).T, torch.randn(8)[::2].to(device)),
    ]
    for grads, additive in product(incoming, (False, True)):
        given = inputs[:2] if additive else inputs
        if additive and grads[0] is None:
            expected = [torch.zeros_like(t) for t in given]
        else:
            expected = _by_definition(given, mask, grads, torch.float32, inverse=inverse)[2:]
        for needs in product((False, True), repeat=3):
            found = _backward(given, mask, *grads, inverse=inverse, needs=needs)
            for f, e, needed in zip(found, expected, needs, strict=False):
                assert (f is not None) == needed
                if f is not None:
                    torch.testing.assert_close(f, e)


def test_log_det_is_added_and_only_read(device: str) -> None:
    mask = _mask("half", 4)
    inputs = _inputs(device, (6, 4), mask)
    log_det = torch.randn(12, device=device)[::2]
    before = log_det.clone()
    _, without = _forward(inputs, mask)
    _, total = _forward(inputs, mask, log_det=log_det)
    assert torch.equal(total, log_det + without)
    _, copied = _forward(inputs[:2], mask, log_det=log_det)
    assert torch.equal(copied, before) and copied.data_ptr() != log_det.data_ptr()
    assert torch.equal(log_det, before)


@pytest.mark.parametrize("shape", [(0, 3), (0, 2, 4, 4)])
def test_no_rows(device: str, shape: tuple[int, ...]) -> None:
    mask = _mask("half", shape[1])
    inputs = _inputs(device, shape, mask)
    for given in (inputs, inputs[:2]):
        y, total = _forward(given, mask)
        assert y.shape == shape and total.shape == (0,) and total.dtype == torch.float32
        grads = _backward(given, mask, inputs[0], torch.zeros(0, device=device))
        assert all(g is not None and g.shape == shape for g in grads)


def test_what_passes_through_is_exact(device: str) -> None:
    """Also infinities, and gradients: zero where shift is ignored."""
    mask = _mask("odd", 6)
    x, shift, log_scale = _inputs(device, (4, 6), mask)
    x[0, 0], x[1, 2], x[2, 4] = torch.inf, -0.0, torch.nan
    y, total = _forward((x, shift, log_scale), mask)
    assert torch.equal(y[:, ~mask].view(torch.int32), x[:, ~mask].view(torch.int32)) and total.isfinite().all()
    gx, *rest = _backward((x, shift, log_scale), mask, x, total)
    assert gx is not None and torch.equal(gx[:, ~mask].view(torch.int32), x[:, ~mask].view(torch.int32))
    assert not any(g[:, ~mask].any() for g in rest)


def test_a_nan_stays_in_its_row(device: str) -> None:
    mask = _mask("half", 8)
    x, shift, log_scale = _inputs(device, (9, 8), mask)
    clean_y, clean = _forward((x, shift, log_scale), mask)
    log_scale[4, 1], x[6, 0] = torch.nan, torch.inf
    y, total = _forward((x, shift, log_scale), mask)
    rest = [i for i in range(9) if i not in (4, 6)]
    assert y[4, 1].isnan() and total[4].isnan() and not y[6, 0].isfinite()
    assert torch.equal(y[rest], clean_y[rest]) and torch.equal(total[rest], clean[rest])


@pytest.mark.parametrize("inverse", [False, True])
def test_extreme_log_scales(device: str, inverse: bool) -> None:
    """As the definition: where e^s leaves float32, and where s would be infinite."""
    a = torch.tensor([-1e30, -200.0, -88.0, -60.0, 60.0, 88.0, 200.0, 1e30, torch.inf, -torch.inf], device=device)[:, None]
    inputs, mask = (torch.full_like(a, 0.5), torch.full_like(a, 0.25), a), torch.tensor([True])
    for scale_map in (ScaleMap(), SOFT_CLIP):
        found, expected = (f(inputs, mask, inverse, scale_map) for f in (_forward, _definition))
        for f, e in zip(found, expected, strict=True):
            # A relative error of e^s is one of s, 2^-24 of up to 88.
            torch.testing.assert_close(f, e, rtol=1e-5, atol=0.0, equal_nan=True)
