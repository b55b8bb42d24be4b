from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fastgen.flows import AdditiveCoupling, AffineCoupling, Composed, Coupling, Inverse, Transform, Unflatten
from fastgen.flows.transform import Retraced
from fastgen.nn import MLP, ConvNet
from fastgen.ops import Checkerboard, ScaleMap

DOUBLE = torch.float64
SHAPE = (2, 4, 4)
MASKS = {
    "last": [False, False, True, True, True],
    "first": [True, True, False, False, False],
    "middle": [True, False, False, False, True],
    "odd": [False, True, False, True, False],
    "irregular": [True, True, False, True, False],
    "all but one": [True, True, True, False, True],
    "one": [False, False, True, False, False],
}
IMAGE_MASKS = {"channel": [False, True], "even": Checkerboard(0), "odd": Checkerboard(1)}
KINDS = {"additive": AdditiveCoupling, "affine": AffineCoupling}

kinds = pytest.mark.parametrize("kind", KINDS)


def mlp(context_features: int = 0) -> Callable[[int, int], nn.Module]:
    return partial(MLP, hidden_features=(7,), context_features=context_features, activation="tanh")


def conv(context_features: int = 0) -> Callable[[int, int], nn.Module]:
    return partial(ConvNet, hidden_channels=3, blocks=1, context_features=context_features, activation="tanh")


def of_rows(coupling: Coupling) -> Transform:
    """A coupling of images as a transform of rows."""
    return Composed([Unflatten(SHAPE), coupling, Inverse(Unflatten(SHAPE))])


@kinds
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("context_features", [0, 2])
def test_vectors(kind: str, mask: str, context_features: int, randomised, check_transform) -> None:  # type: ignore[no-untyped-def]
    coupling = randomised(KINDS[kind](5, MASKS[mask], mlp(context_features)))
    context = torch.randn(3, 2, dtype=DOUBLE) if context_features else None
    check_transform(coupling, torch.randn(3, 5, dtype=DOUBLE), context)


@kinds
@pytest.mark.parametrize("mask", IMAGE_MASKS)
@pytest.mark.parametrize("context_features", [0, 2])
def test_images(kind: str, mask: str, context_features: int, randomised, check_transform) -> None:  # type: ignore[no-untyped-def]
    coupling = randomised(KINDS[kind](SHAPE, IMAGE_MASKS[mask], conv(context_features)))
    context = torch.randn(2, 2, dtype=DOUBLE) if context_features else None
    check_transform(of_rows(coupling), torch.randn(2, 32, dtype=DOUBLE), context)


@pytest.mark.parametrize("mask", MASKS)
def test_affine_is_its_formula(mask: str, randomised) -> None:  # type: ignore[no-untyped-def]
    coupling = randomised(AffineCoupling(5, MASKS[mask], mlp(), scale_map=ScaleMap("tanh", c=1.5)))
    chosen = torch.tensor(MASKS[mask])
    x = torch.randn(6, 5, dtype=DOUBLE)
    shift, raw = coupling.conditioner(x[:, ~chosen]).chunk(2, -1)
    log_scale = 1.5 * (raw / 1.5).tanh()
    truth = x.clone()
    truth[:, chosen] = x[:, chosen] * log_scale.exp() + shift
    z, log_det = coupling(x)
    torch.testing.assert_close(z, truth)
    torch.testing.assert_close(log_det, log_scale.sum(-1))


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboards_hide_what_they_transform(parity: int, randomised) -> None:  # type: ignore[no-untyped-def]
    coupling = randomised(AffineCoupling(SHAPE, Checkerboard(parity), conv(), scale_map=ScaleMap()))
    x = torch.randn(3, *SHAPE, dtype=DOUBLE)
    chosen = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == parity
    shift, log_scale = coupling.conditioner(x * ~chosen).chunk(2, -3)
    z, log_det = coupling(x)
    torch.testing.assert_close(z, torch.where(chosen, x * log_scale.exp() + shift, x))
    torch.testing.assert_close(log_det, (log_scale * chosen).sum((-3, -2, -1)))
    x[0, 0, 0, parity] = torch.nan
    assert coupling(x)[0][0].isnan().sum() == 1


def test_halves_are_read_without_a_copy() -> None:
    seen: list[Tensor] = []

    def network(inputs: int, outputs: int) -> nn.Module:
        module = nn.Linear(inputs, outputs)
        module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        return module

    x = torch.randn(4, 6)
    for mask in ([True] * 3 + [False] * 3, [False] * 3 + [True] * 3, [False, True] * 3):
        AffineCoupling(6, mask, network)(x)
        assert seen[-1].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


@kinds
def test_any_network_serves(kind: str, randomised, check_transform) -> None:  # type: ignore[no-untyped-def]
    outputs = 3 * (1 + (kind == "affine"))
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, outputs))
    coupling = randomised(KINDS[kind](5, MASKS["last"], network))
    assert coupling.conditioner is network
    check_transform(coupling, torch.randn(3, 5, dtype=DOUBLE))


def both_ways(coupling: Coupling, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of input, context and parameters through the step itself, and through what retraces it."""
    wanted = [*([] if context is None else [context]), *coupling.parameters()]
    x = x.clone().requires_grad_()
    output, log_det = (coupling.inverse if inverse else coupling)(x, context)
    weights = torch.randn_like(output), torch.randn_like(log_det)

    def loss(output: Tensor, log_det: Tensor) -> Tensor:
        return (output * weights[0]).sum() + (log_det * weights[1]).sum()

    truth = torch.autograd.grad(loss(output, log_det), [x, *wanted])
    again = coupling.retrace(output.detach(), context, inverse=inverse)
    assert isinstance(again, Retraced)
    torch.testing.assert_close(again.leaves[0], x.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(again.output, output, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(again.log_det, log_det, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(loss(again.output, again.log_det), [*again.leaves, *wanted])
    n = len(again.leaves)
    return list(truth), [sum(found[:n]), *found[n:]]  # type: ignore[list-item]


@kinds
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("context_features", [0, 2])
@pytest.mark.parametrize("mask", ["irregular", "last", "checkerboard"])
def test_a_step_retraced_has_the_same_gradients(kind: str, inverse: bool, context_features: int, mask: str, randomised) -> None:  # type: ignore[no-untyped-def]
    if mask == "checkerboard":
        coupling = KINDS[kind](SHAPE, Checkerboard(0), conv(context_features))
        x = torch.randn(3, *SHAPE, dtype=DOUBLE)
    else:
        coupling = KINDS[kind](5, MASKS[mask], mlp(context_features))
        x = torch.randn(3, 5, dtype=DOUBLE)
    context = torch.randn(3, 2, dtype=DOUBLE, requires_grad=True) if context_features else None
    truth, found = both_ways(randomised(coupling), x, context, inverse)
    for grad, expected in zip(found, truth, strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-9)


def test_a_step_retraced_evaluates_its_network_once(randomised) -> None:  # type: ignore[no-untyped-def]
    coupling = randomised(AffineCoupling(5, MASKS["last"], mlp()))
    calls = []
    coupling.conditioner.register_forward_hook(lambda *_: calls.append(1))
    coupling.retrace(torch.randn(3, 5, dtype=DOUBLE))
    assert len(calls) == 1


@kinds
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_batches_and_dtypes(kind: str, batch: tuple[int, ...]) -> None:
    for shape, mask, network in ((5, MASKS["last"], mlp(2)), (SHAPE, Checkerboard(0), conv(2))):
        coupling = KINDS[kind](shape, mask, network)
        event = (shape,) if isinstance(shape, int) else shape
        for dtype in (DOUBLE, torch.float32, torch.bfloat16):
            x = torch.randn(*batch, *event, dtype=dtype)
            z, log_det = coupling.to(dtype)(x, torch.randn(2, dtype=dtype))
            assert z.shape == x.shape and z.dtype == dtype
            assert log_det.shape == batch and log_det.dtype == (DOUBLE if dtype == DOUBLE else torch.float32)


def test_autocast() -> None:
    coupling = AffineCoupling(5, MASKS["last"], mlp())
    x = torch.randn(6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = coupling(x)
    assert z.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(z, coupling(x)[0], rtol=0, atol=0.05)


@kinds
def test_strides(kind: str, randomised) -> None:  # type: ignore[no-untyped-def]
    coupling = randomised(KINDS[kind](5, MASKS["irregular"], mlp()))
    x = torch.randn(4, 5, dtype=DOUBLE)
    truth = coupling(x)
    for other in (x.t().contiguous().t(), torch.stack([x, x], -1)[..., 0]):
        for found, expected in zip(coupling(other), truth, strict=True):
            torch.testing.assert_close(found, expected)
    expanded = x[:1].expand(4, 5)
    torch.testing.assert_close(coupling(expanded)[0], truth[0][:1].expand(4, 5))
    images = randomised(KINDS[kind](SHAPE, Checkerboard(1), conv()))
    x = torch.randn(3, *SHAPE, dtype=DOUBLE)
    torch.testing.assert_close(images(x.to(memory_format=torch.channels_last))[0], images(x)[0])


@pytest.mark.parametrize("mask", ["irregular", "last", "checkerboard"])
def test_the_mask_is_configuration(mask: str) -> None:
    def build() -> Coupling:
        if mask == "checkerboard":
            return AffineCoupling(SHAPE, Checkerboard(1), conv())
        return AffineCoupling(5, MASKS[mask], mlp())

    coupling = build()
    assert all(name.startswith("conditioner.") for name in coupling.state_dict())
    x = torch.randn(2, *coupling.shape)
    truth = coupling(x)
    twin = build()
    twin.load_state_dict(coupling.state_dict())
    copies = (copy.deepcopy(coupling), pickle.loads(pickle.dumps(coupling)), twin, copy.deepcopy(coupling).double().float())
    for other in copies:
        for found, expected in zip(other(x), truth, strict=True):
            assert torch.equal(found, expected)


def test_a_mask_given_is_copied() -> None:
    mask = torch.tensor(MASKS["last"])
    coupling = AffineCoupling(5, mask, mlp())
    mask[:] = ~mask
    assert coupling.mask.tolist() == MASKS["last"]


@pytest.mark.parametrize("mask", ["irregular", "last", "checkerboard"])
def test_compiles_into_one_graph(mask: str) -> None:
    if mask == "checkerboard":
        coupling: Coupling = AffineCoupling(SHAPE, Checkerboard(1), conv())
    else:
        coupling = AffineCoupling(5, MASKS[mask], mlp())
    x = torch.randn(3, *coupling.shape)
    compiled = torch.compile(coupling, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(x), coupling(x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AffineCoupling(0, [], mlp()), ValueError, "features: expected at least 1, found 0"),
        (lambda: AffineCoupling(2, [True], mlp()), ValueError, r"mask: expected shape \(2,\), found \(1,\)"),
        (lambda: AffineCoupling(2, [1, 0], mlp()), TypeError, "mask: expected bools or, for images, a Checkerboard"),
        (lambda: AffineCoupling(2, [True, True], mlp()), ValueError, "mask: expected True and False entries, found True"),
        (lambda: AffineCoupling(1, [False], mlp()), ValueError, "mask: expected True and False entries, found False"),
        (lambda: AffineCoupling(2, Checkerboard(0), mlp()), ValueError, "mask: expected images of at least two pixels"),
        (lambda: AffineCoupling((3, 1, 1), Checkerboard(0), conv()), ValueError, "mask: expected images of at least two"),
        (lambda: AffineCoupling((3, 2), Checkerboard(0), conv()), ValueError, r"shape: expected \(C, H, W\)"),
        (lambda: AffineCoupling(2, [True, False], mlp(), scale_map={"kind": "cube"}), ValueError, "kind: expected one of"),
        (
            lambda: AffineCoupling(3, [True, False, True], nn.Linear(1, 3))(torch.zeros(2, 3)),
            ValueError,
            r"conditioner: expected 4 features, found shape \(2, 3\)",
        ),
        (
            lambda: AffineCoupling(2, [True, False], mlp())(torch.zeros(2, 3)),
            ValueError,
            r"x: expected shape \(..., 2\), found \(2, 3\)",
        ),
        (
            lambda: AffineCoupling(SHAPE, Checkerboard(0), conv())(torch.zeros(4, 4)),
            ValueError,
            r"x: expected shape \(..., 2, 4, 4\), found \(4, 4\)",
        ),
        (
            lambda: AffineCoupling(2, [True, False], mlp())(torch.zeros(2, 2, dtype=torch.int64)),
            TypeError,
            "x: expected a floating dtype, found torch.int64",
        ),
    ],
)
def test_bad_arguments_are_named(build, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        build()
