from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.autograd import forward_ad
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm
from torch.testing._internal.distributed.fake_pg import FakeStore

from fastgen.flows import (
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    Composed,
    Dequantize,
    Flow,
    Inverse,
    Logit,
    MaskedAutoregressiveTransform,
    Permutation,
    RealNVP,
    Scaling,
    Standardise,
    StandardNormal,
    Transform,
    Unflatten,
    UnitInterval,
)
from fastgen.nn import MLP
from fastgen.ops import Checkerboard

FEATURES, CONTEXT, ROWS = 6, 3, 16
FIRST, SECOND, SPREAD = ([c in chosen for c in range(FEATURES)] for chosen in ((0, 1, 2), (3, 4, 5), (0, 1, 4)))


class TwiceEvaluated(AffineCoupling):
    """With the retrace that transforms have by default."""

    retrace = Transform.retrace


def network(inputs: int, outputs: int) -> nn.Module:
    return MLP(inputs, outputs, hidden_features=(32,), activation="tanh")


def with_context(inputs: int, outputs: int) -> nn.Module:
    return MLP(inputs, outputs, hidden_features=(32,), activation="tanh", context_features=CONTEXT)


def with_dropout(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, outputs))


def with_batch_norm(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, outputs))


def with_power_iteration(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Linear(inputs, outputs))


def image_network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, outputs, 3, padding=1))


def couplings(conditioner: Callable[[int, int], nn.Module] = network, kind: type = AffineCoupling) -> list[Transform]:
    return [kind(FEATURES, mask, conditioner) for mask in (FIRST, SECOND, SPREAD, FIRST)]


def image_couplings() -> list[Transform]:
    shape = (1, 3, 2)
    masked = [AffineCoupling(shape, Checkerboard(i % 2), image_network) for i in range(3)]
    return [Unflatten(shape), *masked, Inverse(Unflatten(shape))]


def block(**options: Any) -> MaskedAutoregressiveTransform:
    return MaskedAutoregressiveTransform(FEATURES, hidden_features=(32, 32), activation="tanh", **options)


def scaling() -> Scaling:
    scaled = Scaling(FEATURES)
    nn.init.normal_(scaled.log_scale)
    return scaled


def standardise() -> Standardise:
    return Standardise.fit(3 * torch.randn(50, FEATURES) + 1)


def batch_norm() -> BatchNorm:
    norm = BatchNorm(FEATURES)
    with torch.no_grad():
        norm.log_scale.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2)
    return norm.eval()


STACKS: dict[str, Callable[[], list[Transform]]] = {
    "couplings": couplings,
    "couplings, evaluated twice": lambda: couplings(kind=TwiceEvaluated),
    "couplings, context": lambda: couplings(with_context),
    "couplings, dropout": lambda: couplings(with_dropout),
    "couplings, dropout, evaluated twice": lambda: couplings(with_dropout, TwiceEvaluated),
    "inverse couplings": lambda: [t for c in couplings() for t in (Inverse(c), Permutation.random(FEATURES))],
    "additive couplings": lambda: [*couplings(kind=AdditiveCoupling), scaling()],
    "images": image_couplings,
    "blocks": lambda: [block(order="natural"), block(order="reversed"), block(order="natural")],
    "blocks, context": lambda: [block(context_features=CONTEXT), block(context_features=CONTEXT, order="reversed")],
    "inverse blocks": lambda: [Inverse(block()), Inverse(block(order="reversed"))],
    "batch-norm": lambda: [block(), batch_norm(), Inverse(batch_norm()), *couplings()],
    "elementwise": lambda: [UnitInterval(4), Logit(0.05), standardise(), Inverse(standardise()), *couplings()],
    "one": lambda: couplings()[:1],
    "fixed": lambda: [UnitInterval(4), Permutation.reverse(FEATURES)],
}


def build(name: str, dtype: torch.dtype) -> list[Transform]:
    torch.manual_seed(0)
    return [t.to(dtype) for t in STACKS[name]()]


def inputs(name: str, dtype: torch.dtype, rows: tuple[int, ...] = (ROWS,)) -> tuple[Tensor, Tensor | None, Tensor]:
    """x inside (0, 4), a context for those who need one, and a log_det."""
    torch.manual_seed(1)
    x = (0.2 + 3.6 * torch.rand(*rows, FEATURES, dtype=torch.float64)).to(dtype)
    context = torch.randn(*rows, CONTEXT, dtype=torch.float64).to(dtype) if "context" in name else None
    return x, context, torch.randn(rows, dtype=torch.float64).to(dtype)


def results(call: Callable[..., Any], transform: Transform, given: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """The outputs, then the gradients of all that is given and of the parameters, for gradients that differ everywhere."""
    torch.manual_seed(2)
    x, context, log_det = leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    outputs = call(x, context, log_det=log_det)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
    wanted = [t for t in (*leaves, *transform.parameters()) if t is not None]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, wanted, grads, allow_unused=True)]


def assert_same(found: list[Tensor | None], expected: list[Tensor | None], tolerance: float) -> None:
    """Equal to `tolerance` of each tensor's largest entry."""
    for f, e in zip(found, expected, strict=True):
        assert (f is None) == (e is None)
        if f is not None and e is not None and e.numel():
            assert f.shape == e.shape and f.dtype == e.dtype
            assert (f - e).abs().max() <= tolerance * e.abs().max(), f"{(f - e).abs().max() / e.abs().max():.3g}"


def compare(
    transforms: list[Transform], given: tuple[Tensor | None, ...], tolerance: float, direction: str = "forward", **options: Any
) -> None:
    plain, rebuilt = Composed(copy.deepcopy(transforms)), Composed(transforms, reversible=True, **options)
    expected = results(getattr(plain, direction), plain, given)
    assert_same(results(getattr(rebuilt, direction), rebuilt, given), expected, tolerance)


@pytest.mark.parametrize("anchor_every", [None, 1, 3])
@pytest.mark.parametrize("direction", ["forward", "inverse", "normal_log_prob"])
@pytest.mark.parametrize("name", STACKS)
def test_results_are_those_of_autograd(name: str, direction: str, anchor_every: int | None) -> None:
    # What is rebuilt differs from what was by a few roundings for each transform.
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        transforms = build(name, dtype)
        x, context, log_det = inputs(name, dtype)
        if direction == "inverse":
            with torch.no_grad():
                x, _ = Composed(transforms)(x, context)
        compare(transforms, (x, context, log_det), tolerance, direction, anchor_every=anchor_every)


@pytest.mark.parametrize("anchor_every", [None, 8])
def test_forty_eight_couplings(anchor_every: int | None) -> None:
    torch.manual_seed(0)
    transforms = [t for _ in range(12) for t in couplings()]
    x, _, log_det = inputs("", torch.float64)
    compare([copy.deepcopy(t).double() for t in transforms], (x, None, log_det), 1e-10, anchor_every=anchor_every)
    for transform in transforms:
        # Near the identity, where flows start: far from it plain autograd in float32 is off by 1e-5 itself.
        nn.init.normal_(transform.conditioner.layers[-1].weight, std=0.02)
    compare(transforms, (x.float(), None, log_det.float()), 1e-5, anchor_every=anchor_every)


@pytest.mark.parametrize("name", ["couplings, context", "blocks"])
@pytest.mark.parametrize("rows", [(), (0,), (1,), (2, 3)])
def test_any_number_of_rows(name: str, rows: tuple[int, ...]) -> None:
    compare(build(name, torch.float64), inputs(name, torch.float64, rows), 1e-10)


def test_expanded_inputs_and_one_context_for_all_rows() -> None:
    x, context, log_det = inputs("couplings, context", torch.float64)
    assert context is not None
    transforms = build("couplings, context", torch.float64)
    compare(transforms, (x[:1].expand_as(x), context[0], log_det[:1].expand_as(log_det)), 1e-10)


def test_a_parameter_of_two_transforms_gets_both_gradients() -> None:
    shared = network(3, 6)
    tied = [AffineCoupling(FEATURES, mask, shared).double() for mask in (FIRST, SECOND)]
    compare([*tied, tied[0]], inputs("", torch.float64), 1e-10)


def test_rows_that_are_not_finite_stay_what_they_are() -> None:
    x, _, log_det = inputs("", torch.float64)
    x[1, 2], x[2, 0], x[3, 5] = torch.nan, torch.inf, -torch.inf
    rebuilt = reversible(couplings()).double()
    found, expected = [], []
    for call, into in ((rebuilt, found), (Composed(list(rebuilt)), expected)):
        leaf = x.clone().requires_grad_()
        z, total = call(leaf, log_det=log_det)
        into.extend([z, total, *torch.autograd.grad([z[4:].sum(), total[4:].sum()], leaf)])
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f[4:], e[4:], rtol=1e-10, atol=1e-10)
        assert torch.equal(f[:4].isfinite(), e[:4].isfinite()) or f is found[2]


def reversible(transforms: list[Transform], **options: Any) -> Composed:
    return Composed(transforms, reversible=True, **options)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def saved_bytes(transform: Composed, x: Tensor) -> int:
    """What is kept for the gradients of the parameters, the parameters and buffers themselves excepted."""
    own = {t.untyped_storage().data_ptr() for t in (*transform.parameters(), *transform.buffers())}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs = transform(x), transform.normal_log_prob(x)
    assert outputs
    return sum(kept.values())


def test_what_is_kept_does_not_grow_with_depth() -> None:
    x = normal(256, FEATURES)
    shallow, deep = (saved_bytes(reversible(couplings() * (depth // 4)), x) for depth in (4, 48))
    assert deep <= 1.01 * shallow
    plain = [saved_bytes(Composed(couplings() * (depth // 4)), x) for depth in (4, 48)]
    assert plain[1] > 8 * plain[0] and plain[0] > 2 * shallow
    anchored = saved_bytes(reversible(couplings() * 12, anchor_every=4), x)
    # The inputs of transforms 4, 8, ..., 44 of both calls.
    assert anchored - deep == 22 * x.nbytes


def test_nothing_is_kept_without_gradients() -> None:
    x = normal(8, FEATURES)
    stack = reversible(couplings())
    with torch.no_grad():
        assert saved_bytes(stack, x) == 0
        z, log_det = stack(x)
    assert z.grad_fn is None
    assert saved_bytes(stack.requires_grad_(False), x) == 0
    torch.testing.assert_close((z, log_det), Composed(list(stack))(x), rtol=0, atol=0)


@pytest.mark.parametrize("conditioner", [network, with_dropout])
def test_a_network_is_evaluated_once_more(conditioner: Callable[[int, int], nn.Module]) -> None:
    stack = reversible(couplings(conditioner))
    seen: list[int] = []
    for i, transform in enumerate(stack):
        transform.conditioner.register_forward_hook(lambda *_, i=i: seen.append(i))
    z, log_det = stack(normal(8, FEATURES))
    assert seen == [0, 1, 2, 3]
    (z.sum() + log_det.sum()).backward()
    assert seen == [0, 1, 2, 3, 3, 2, 1, 0]


def test_gradients_that_nobody_asks_for_are_not_computed() -> None:
    stack = reversible([*couplings(), *couplings()])
    for transform in [*stack][:5]:
        transform.requires_grad_(False)
    stack[6].conditioner.layers[0].requires_grad_(False)
    seen: list[int] = []
    for i, transform in enumerate(stack):
        transform.conditioner.register_forward_hook(lambda *_, i=i: seen.append(i))
    sum(y.sum() for y in stack(normal(8, FEATURES))).backward()
    # The walk back ends at the first transform that learns.
    assert seen == [*range(8), 7, 6, 5]
    found = {name for name, parameter in stack.named_parameters() if parameter.grad is not None}
    assert found == {name for name, parameter in stack.named_parameters() if parameter.requires_grad}


def test_gradients_of_one_output_alone() -> None:
    stack = reversible(couplings()).double()
    plain = Composed(copy.deepcopy(list(stack)))
    for output in (0, 1):
        x = inputs("", torch.float64)[0].requires_grad_()
        found, expected = (torch.autograd.grad(t(x)[output].square().sum(), (x, *t.parameters())) for t in (stack, plain))
        assert_same(list(found), list(expected), 1e-10)


def test_backward_twice_over_a_retained_graph() -> None:
    stack = reversible(couplings(with_dropout))
    loss = stack.normal_log_prob(normal(8, FEATURES)).sum()
    first = torch.autograd.grad(loss, list(stack.parameters()), retain_graph=True)
    torch.rand(5)
    assert_same(list(torch.autograd.grad(loss, list(stack.parameters()))), list(first), 0)


@pytest.mark.parametrize("kind", [AffineCoupling, TwiceEvaluated])
def test_dropout_is_replayed_and_leaves_the_generator_alone(kind: type) -> None:
    stack = reversible(couplings(with_dropout, kind))
    z, log_det = stack(normal(8, FEATURES))
    before = torch.get_rng_state()
    (z.sum() + log_det.sum()).backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_hook_on_a_parameter_meets_its_gradient_once() -> None:
    stack = reversible(couplings())
    parameter = next(stack.parameters())
    (expected,) = torch.autograd.grad(stack.normal_log_prob(normal(8, FEATURES)).sum(), parameter)
    parameter.register_hook(lambda grad: 2 * grad)
    stack.normal_log_prob(normal(8, FEATURES)).sum().backward()
    torch.testing.assert_close(parameter.grad, 2 * expected)


def test_gradients_are_those_at_the_parameters_of_the_call() -> None:
    stack, x = reversible(couplings()).double(), inputs("", torch.float64)[0]
    others = {name: torch.randn_like(p, requires_grad=True) for name, p in stack.named_parameters()}
    z, log_det = torch.func.functional_call(stack, others, (x,))
    before = {name: p.detach().clone() for name, p in stack.named_parameters()}
    found = torch.autograd.grad(z.sum() + log_det.sum(), list(others.values()))
    assert all(torch.equal(p, before[name]) and p.is_leaf for name, p in stack.named_parameters())
    plain = Composed(copy.deepcopy(list(stack)))
    plain.load_state_dict(others)
    assert_same(list(found), list(torch.autograd.grad(sum(y.sum() for y in plain(x)), list(plain.parameters()))), 1e-10)


@pytest.mark.parametrize("kind", [AffineCoupling, TwiceEvaluated])
def test_statistics_of_a_batch_count_once(kind: type) -> None:
    torch.manual_seed(0)
    stack = reversible(couplings(with_batch_norm, kind)).double()
    plain = Composed(copy.deepcopy(list(stack)))
    given = inputs("", torch.float64)
    assert_same(results(stack, stack, given), results(plain, plain, given), 1e-10)
    for found, expected in zip(stack.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


CHANGES: dict[str, tuple[Callable[[Composed, Tensor], object], str]] = {
    "parameter": (lambda stack, _: stack[0].log_scale.detach().zero_(), "modified by an inplace operation"),
    "output": (lambda _, z: z.detach().zero_(), "modified by an inplace operation"),
    "buffer": (
        lambda stack, _: stack[1].mean.fill_(2),
        "expected buffers and modes that stay until backward, found Standardise",
    ),
    "mode": (lambda stack, _: stack.eval(), "expected buffers and modes that stay until backward, found Scaling changed"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_may_be_written_to_between_a_call_and_its_gradients(what: str) -> None:
    change, message = CHANGES[what]
    stack = reversible([Scaling(FEATURES), Standardise(FEATURES), Scaling(FEATURES)])
    z, log_det = stack(normal(8, FEATURES))
    change(stack, z)
    with pytest.raises(RuntimeError, match=message):
        (z.sum() + log_det.sum()).backward()


@pytest.mark.parametrize("kind", [AffineCoupling, TwiceEvaluated])
def test_autocast_is_that_of_the_call(kind: type) -> None:
    torch.manual_seed(0)
    stack = reversible(couplings(kind=kind))
    plain = Composed(copy.deepcopy(list(stack)))
    x = normal(8, FEATURES)
    found = []
    for transform in (plain, stack):
        with torch.autocast("cpu", torch.bfloat16):
            # Outside the stack, so that a weight cast there is not taken for the one inside.
            z, log_det = transform(transform[0](x)[0])
            loss = z.sum() + log_det.sum()
        assert z.dtype == torch.float32
        found.append(torch.autograd.grad(loss, list(transform.parameters())))
    # bfloat16 products of inputs that differ in the last bit of a float32: some round to the next bfloat16.
    assert_same(list(found[1]), list(found[0]), 2 * torch.finfo(torch.bfloat16).eps)
    with torch.autocast("cpu", torch.bfloat16):
        z, _ = stack(x.bfloat16())
        assert z.dtype == torch.float32


def test_backward_under_autocast_is_that_of_a_call_without() -> None:
    torch.manual_seed(0)
    stack, x = reversible(couplings()), normal(8, FEATURES)
    expected = torch.autograd.grad(stack.normal_log_prob(x).sum(), list(stack.parameters()))
    loss = stack.normal_log_prob(x).sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(loss, list(stack.parameters()))
    # The last transform is plain autograd's, whose gradients follow the autocast around backward.
    assert_same(list(found)[: len(found) - 4], list(expected)[: len(expected) - 4], 2 * torch.finfo(torch.bfloat16).eps)


def test_compiled_with_a_break_in_the_graph() -> None:
    torch.manual_seed(0)
    stack, x = reversible(couplings()), normal(8, FEATURES)
    parameters = list(stack.parameters())
    expected = torch.autograd.grad(stack.normal_log_prob(x).sum(), parameters)
    torch._dynamo.reset()
    compiled = torch.compile(lambda t: stack.normal_log_prob(2 * t), backend="aot_eager")
    assert_same(list(torch.autograd.grad(compiled(x / 2).sum(), parameters)), list(expected), 1e-5)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"torch\.compiler\.disable"):
        torch.compile(stack.normal_log_prob, backend="aot_eager", fullgraph=True)(x)
    with torch.no_grad():
        torch.compile(stack.normal_log_prob, backend="aot_eager", fullgraph=True)(x)


def test_distributed_data_parallel() -> None:
    torch.manual_seed(0)
    flow = Flow(StandardNormal(FEATURES), reversible(couplings()))
    x = normal(8, FEATURES)
    expected = torch.autograd.grad(flow(x).mean(), list(flow.parameters()))
    # Without the sockets and threads of a real one: a single process has nobody to talk to.
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(flow)
        reduced: list[int] = []

        def hook(_, bucket):  # type: ignore[no-untyped-def]
            reduced.extend(g.numel() for g in bucket.gradients())
            future: torch.futures.Future[Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        parallel.register_comm_hook(None, hook)
        parallel(x).mean().backward()
    finally:
        distributed.destroy_process_group()
    assert sorted(reduced) == sorted(p.numel() for p in flow.parameters())
    assert_same([p.grad for p in flow.parameters()], list(expected), 1e-5)


def test_samples_have_gradients() -> None:
    torch.manual_seed(0)
    flow = RealNVP(FEATURES, transforms=4, hidden_features=(16,), context_features=CONTEXT, dtype=torch.float64)
    twin = RealNVP(
        FEATURES, transforms=4, hidden_features=(16,), context_features=CONTEXT, dtype=torch.float64, reversible=True
    )
    for parameter, other in zip(flow.parameters(), twin.parameters(), strict=True):
        with torch.no_grad():
            other.copy_(parameter.normal_(std=0.3))
    context = inputs("context", torch.float64)[1]
    found = []
    for model in (flow, twin):
        torch.manual_seed(5)
        x, log_prob = model.sample_and_log_prob(4, context)
        found.append([x, log_prob, *torch.autograd.grad(x.square().sum() + log_prob.sum(), list(model.parameters()))])
    assert_same(found[1], found[0], 1e-10)


def test_compositions_inside_one_another() -> None:
    inner = reversible(couplings(), anchor_every=2)
    outer = Composed([Permutation.reverse(FEATURES), inner, Composed([scaling()])])
    assert [type(t) for t in outer] == [Permutation, Composed, Scaling] and outer[1] is inner
    flattened = reversible([inner, Permutation.reverse(FEATURES)])
    assert len(flattened) == 5 and flattened.anchor_every is None
    again = inner.like(couplings()[:2])
    assert again.reversible and again.anchor_every == 2 and len(again) == 2
    compare(list(outer), inputs("", torch.float32), 1e-5)


def test_fitting_a_standardisation_keeps_a_flow_reversible() -> None:
    flow = Flow(StandardNormal(FEATURES), reversible(couplings(), anchor_every=3))
    flow.fit_standardisation(3 * normal(20, FEATURES) + 1)
    assert isinstance(flow.transform, Composed) and isinstance(flow.transform[0], Standardise)
    assert flow.transform.reversible and flow.transform.anchor_every == 3


def test_reconstruction_error_tells_how_far_rebuilt_inputs_are_off() -> None:
    torch.manual_seed(0)
    lossy = [Standardise(FEATURES), *couplings(with_dropout), Standardise(FEATURES), Permutation.reverse(FEATURES)]
    with torch.no_grad():
        lossy[0].mean.fill_(1e4)
    x = normal(ROWS, FEATURES) + 1e4
    stack = reversible(lossy)
    errors = stack.reconstruction_error(x)
    assert errors.shape == (7,) and errors.dtype == torch.float32
    assert errors[-1] == 0 and 0 < errors[1] < 1e-5
    with torch.no_grad():
        hidden = [x]
        for transform in stack:
            hidden.append(transform.eval()(hidden[-1])[0])
        z = hidden[-1]
        for i in reversed(range(7)):
            z, _ = stack[i].inverse(z)
            truth = ((z - hidden[i]).abs().amax(-1) / hidden[i].abs().amax(-1)).max()
            torch.testing.assert_close(stack.reconstruction_error(x)[i], truth, rtol=1e-5, atol=1e-8)
    assert Composed(lossy).reconstruction_error(x[:0]).tolist() == [0] * 7


def test_anchors_end_the_growth_of_reconstruction_errors() -> None:
    torch.manual_seed(0)
    transforms = couplings() * 12
    x = normal(ROWS, FEATURES)
    free = reversible(transforms).reconstruction_error(x)
    anchored = reversible(transforms, anchor_every=4).reconstruction_error(x)
    every = reversible(transforms, anchor_every=1).reconstruction_error(x)
    assert free.argmax() < 12 and anchored.max() < free.max() and every.max() < anchored.max()
    # A coupling and its inverse: a handful of roundings.
    assert every.max() < 8 * torch.finfo(torch.float32).eps


class Rounding(Transform):
    exact_inverse = False

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise AssertionError("reached")


class Halved(Scaling):
    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, total = super().forward(x, context, log_det=log_det)
        return z.half(), total


X = torch.ones(4, FEATURES)
REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Composed(couplings(), anchor_every=2), ValueError, "anchor_every: expected None with reversible=False, found 2"),
    (lambda: reversible(couplings(), anchor_every=0), ValueError, "anchor_every: expected at least 1, found 0"),
    (lambda: reversible(couplings())(X.bfloat16()), TypeError, "x: expected float32 or float64 .* found torch.bfloat16"),
    (lambda: reversible(couplings()).inverse(X.half()), TypeError, "z: expected float32 or float64 .* found torch.float16"),
    (lambda: reversible(couplings())(X.long()), TypeError, "x: expected float32 or float64 .* found torch.int64"),
    (
        lambda: reversible([*couplings(), BatchNorm(FEATURES)])(X),
        RuntimeError,
        r"expected transforms with an exact inverse, found BatchNorm in training mode as transforms\[4\]",
    ),
    (
        lambda: reversible([Inverse(Rounding()), scaling()])(X),
        RuntimeError,
        r"expected transforms with an exact inverse, found Inverse in training mode as transforms\[0\]",
    ),
    (lambda: reversible([Rounding()]).reconstruction_error(X), RuntimeError, "exact inverse, found Rounding"),
    (lambda: reversible([Dequantize(), scaling()])(X), RuntimeError, "exact inverse, found Dequantize"),
    (
        lambda: reversible(couplings(with_power_iteration))(X),
        RuntimeError,
        "expected transforms that write to no buffer, found AffineCoupling changed",
    ),
    (lambda: reversible([Halved(FEATURES)])(X), TypeError, "expected torch.float32 out of Halved, found torch.float16"),
    (
        lambda: torch.func.grad(lambda x: reversible(couplings()).normal_log_prob(x).sum())(X),
        RuntimeError,
        "reversible: expected False for gradients of gradients and torch.func transforms",
    ),
    (
        lambda: torch.func.vmap(reversible(couplings()))(X),
        RuntimeError,
        "reversible: expected False for gradients of gradients and torch.func transforms",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_cannot_be_is_refused(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_gradients_of_gradients_are_refused() -> None:
    stack = reversible(couplings())
    x = normal(4, FEATURES).requires_grad_()
    with pytest.raises(RuntimeError, match="reversible: expected False for gradients of gradients"):
        torch.autograd.grad(stack(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="forward mode AD"), forward_ad.dual_level():
        stack(forward_ad.make_dual(x.detach(), torch.ones_like(x)))
