from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from support import assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference.philox import philox_normal, philox_words

pytestmark = pytest.mark.usefixtures("cpu_backend")

SEED = torch.tensor(-1234567890123456789)
both = pytest.mark.parametrize("name", ["kl", "log_ratio"])
priors = pytest.mark.parametrize("prior", [False, True], ids=["standard", "prior"])


def inputs(shape: Sequence[int], prior: bool = True, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """mean, log_var and, where there is one, the prior's."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4 if prior else 2)]


def call(module, name: str, samples: int | None = None, seed: Tensor = SEED, **options) -> Callable:  # type: ignore[no-untyped-def]
    if name == "kl":
        return lambda *t: module.gaussian_rsample_kl(*t, samples=samples, seed=seed, **options)
    return lambda *t: module.gaussian_rsample_log_ratio(*t, samples=samples or 1, seed=seed, **options)


def exact_noise(shape: tuple[int, ...]) -> Tensor:
    """The normals of float32, whose u is rounded to it by definition, in float64 from there."""
    a, b, c, d = philox_words(torch.arange((math.prod(shape) + 3) // 4), SEED)
    lengths = [(-2 * ((w.float() + 0.5) * 2.0**-32).double().log()).sqrt() for w in (a, c)]
    turns = [2 * math.pi * (w.double() + 0.5) * 2.0**-32 for w in (b, d)]
    normals = [r * f(t) for r, t in zip(lengths, turns, strict=True) for f in (torch.cos, torch.sin)]
    return torch.stack(normals, -1).flatten()[: math.prod(shape)].view(shape)


def results(function: Callable, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Both outputs and the gradients of all inputs, for gradients that differ from element to element."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    outputs = function(*leaves)
    grads = [torch.linspace(-1, 2, o.numel(), dtype=o.dtype).view_as(o) for o in outputs]
    return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, leaves, grads)]


@both
@priors
@pytest.mark.parametrize("samples", [None, 1, 3, 40])
@pytest.mark.parametrize("shape", [(7, 5), (600, 1), (33, 70), (3, 1100)])
def test_float64_equals_the_reference(
    cpu_variant: str, name: str, prior: bool, samples: int | None, shape: tuple[int, int]
) -> None:
    tensors = inputs(shape, prior)
    found, expected = (results(call(module, name, samples), tensors) for module in (ops, reference))
    # Sums of up to 1100 terms of order 100 in another order.
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)


@both
@priors
@pytest.mark.parametrize(("rows", "features", "samples"), [(2000, 1, 1), (33, 64, 3), (5, 1100, 1), (9, 5, 300)])
def test_float32_is_as_accurate_as_pytorch(
    cpu_variant: str, name: str, prior: bool, rows: int, features: int, samples: int
) -> None:
    tensors = inputs((rows, features), prior, torch.float32)
    noise = exact_noise((samples, rows, features))

    def truth(*t: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = t[:2]
        z = mean + (log_var / 2).exp() * noise
        p, lp = t[2:] if prior else (torch.zeros_like(mean),) * 2
        if name == "kl":
            d = log_var - lp
            return z, 0.5 * (d.expm1() - d + (mean - p).square() * (-lp).exp()).sum(-1)
        return z, 0.5 * ((z - p).square() * (-lp).exp() - noise.square() - (log_var - lp)).sum(-1)

    triples = zip(
        results(call(ops, name, samples), tensors),
        results(call(reference, name, samples), tensors),
        results(truth, [t.double() for t in tensors]),
        strict=True,
    )
    # Elements of short rows may cancel to nothing: the whole is the row.
    for triple in triples:
        assert_as_accurate(*(t.flatten() for t in triple))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(999,), (40, 77), (2, 3000)])
def test_the_noise_is_the_references(cpu_variant: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    zeros = torch.zeros(shape, dtype=dtype)
    z, _ = ops.gaussian_rsample_kl(zeros, zeros, seed=SEED)
    expected = philox_normal(shape, SEED, dtype)
    # Equal words; cosines of float32 angles are off by 2 pi 2^-25 times a length up to 6.7.
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-14)


def test_the_noise_far_out_and_beyond_32_bits(cpu_variant: str) -> None:
    """Samples that start beyond the 2^32nd group of four, by a seed whose words are known."""
    zeros = torch.zeros(1, 4)
    z, _ = ops.gaussian_rsample_kl(zeros, zeros, samples=5, seed=torch.tensor(2**63 - 1))
    again, _ = ops.gaussian_rsample_kl(zeros.expand(5, 4), zeros, seed=torch.tensor(2**63 - 1))
    assert torch.equal(z.flatten(), again.flatten())


def test_kl_is_that_of_torch_distributions() -> None:
    mean, log_var, p, lp = inputs((50, 6))
    # Also where q and p all but agree.
    log_var[:10] = lp[:10] + 1e-6 * torch.randn(10, 6, dtype=torch.float64)
    normal = torch.distributions.Normal
    q, prior = normal(mean, (log_var / 2).exp()), normal(p, (lp / 2).exp())
    expected = torch.distributions.kl_divergence(q, prior).sum(-1)
    torch.testing.assert_close(ops.gaussian_rsample_kl(mean, log_var, p, lp)[1], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_log_variances_lose_no_digits(cpu_variant: str, dtype: torch.dtype) -> None:
    exponents = torch.linspace(-3.5 if dtype == torch.float32 else -7, 0.3, 200, dtype=torch.float64)
    for sign in (-1, 1):
        d = (sign * 10**exponents).to(dtype)[:, None]
        kl = ops.gaussian_rsample_kl(torch.zeros_like(d), d)[1].double()
        exact = d.double()[:, 0]
        # e^d - 1 - d = sum of d^n / n!, in float64: all terms in size, so alternating signs cost little.
        truth = sum(exact**n / float(math.factorial(n)) for n in range(2, 40)) / 2
        torch.testing.assert_close(kl, truth, rtol=16 * torch.finfo(dtype).eps, atol=0)


def test_the_log_ratio_averages_to_the_kl() -> None:
    tensors = inputs((3, 4))
    kl = ops.gaussian_rsample_kl(*tensors)[1]
    _, ratio = ops.gaussian_rsample_log_ratio(*tensors, samples=200_000, seed=SEED)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - kl).abs() < 5 * error).all()


def test_seeds() -> None:
    mean, log_var = inputs((6, 50), prior=False)
    draw = lambda seed: ops.gaussian_rsample_kl(mean, log_var, seed=seed)[0]  # noqa: E731
    torch.manual_seed(1)
    first, second = draw(None), draw(None)
    torch.manual_seed(1)
    assert torch.equal(draw(None), first) and not torch.equal(first, second)
    assert torch.equal(draw(SEED), draw(SEED[None])) and not torch.equal(draw(SEED), draw(SEED + 1))
    zero = torch.zeros(6, 50)
    rows = ops.gaussian_rsample_kl(zero, zero, seed=SEED)[0]
    assert len({tuple(row.tolist()) for row in rows}) == 6


def test_backward_sees_the_noise_of_forward(cpu_variant: str) -> None:
    mean, log_var = (t.requires_grad_() for t in inputs((37, 11), prior=False, dtype=torch.float32))
    z, _ = ops.gaussian_rsample_kl(mean, log_var, samples=3)
    weights = torch.randn_like(z)
    found = torch.autograd.grad(z, log_var, weights)[0]
    # dz / dlog_var = (z - mean) / 2, up to the rounding of z.
    torch.testing.assert_close(found, (weights * (z - mean) / 2).sum(0).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_free_bits(cpu_variant: str, dtype: torch.dtype) -> None:
    tensors = inputs((40, 30), dtype=dtype)
    # Equal to the prior: the divergence is 0, the least there is.
    tensors[0][0], tensors[1][0] = tensors[2][0], tensors[3][0]
    for free_bits in (0.0, 0.3, 5.0):
        found, expected = (results(call(m, "kl", free_bits=free_bits), tensors) for m in (ops, reference))
        tolerance = 1e-4 if dtype == torch.float32 else 1e-11
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert (ops.gaussian_rsample_kl(*tensors, free_bits=5.0)[1] >= 150 * (1 - 1e-6)).all()


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", [1, 5000])
def test_extreme_log_variances(cpu_variant: str, name: str, dtype: torch.dtype, features: int) -> None:
    for log_var, prior_log_var in ((80.0, 0.0), (-80.0, 0.0), (80.0, 80.0), (-80.0, -79.0), (0.0, 80.0)):
        mean = torch.linspace(-2, 3, 2 * features, dtype=dtype).view(2, features)
        tensors = [mean, torch.full_like(mean, log_var), mean / 2, torch.full_like(mean, prior_log_var)]
        found, expected = (results(call(m, name), tensors) for m in (ops, reference))
        # e^40 of float32 is off by 40 units in the last place where its argument is off by half a one.
        rtol = 1e-4 if dtype == torch.float32 else 1e-12
        for i, (f, e) in enumerate(zip(found, expected, strict=True)):
            scale = e[e.isfinite()].abs().max().item()
            # The terms of a log-ratio may cancel: they are of order 1 and more.
            torch.testing.assert_close(f, e, rtol=rtol, atol=rtol * (max(scale, features) if i == 1 else scale))


@both
@pytest.mark.parametrize("which", [0, 1])
def test_one_gradient_comes_in(name: str, which: int) -> None:
    tensors = [t.requires_grad_() for t in inputs((5, 3))]
    pair = []
    for module in (ops, reference):
        output = call(module, name, 2)(*tensors)[which]
        pair.append(torch.autograd.grad(output.square().sum(), tensors, allow_unused=True))
    for f, e in zip(*pair, strict=True):
        torch.testing.assert_close(
            torch.zeros(5, 3).double() if f is None else f, torch.zeros_like(tensors[0]) if e is None else e
        )


def test_no_gradient_of_kl_meets_no_infinity() -> None:
    """z alone is differentiated: an infinite slope of kl must not come in as 0 times infinity."""
    mean, log_var = torch.zeros(2, 3, requires_grad=True), torch.full((2, 3), 100.0, requires_grad=True)
    z, kl = ops.gaussian_rsample_kl(mean, log_var)
    assert kl.isinf().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(z.sum(), (mean, log_var)))


@both
def test_any_strides(cpu_variant: str, name: str) -> None:
    for shape in ((19, 1), (19, 7)):
        tensors = inputs(shape, dtype=torch.float32)
        expected = results(call(ops, name, 2), tensors)
        for i in range(4):
            for strided in strided_like(tensors[i]):
                given = [strided if j == i else t for j, t in enumerate(tensors)]
                assert all(map(torch.equal, results(call(ops, name, 2), given), expected))


@both
def test_any_strides_of_incoming_gradients(cpu_variant: str, name: str) -> None:
    tensors = [t.requires_grad_() for t in inputs((6, 5))]
    z, other = call(ops, name, 3)(*tensors)
    for gz in (torch.ones(()).double().expand(z.shape), torch.randn(5, 6, 3).double().permute(2, 1, 0)):
        for go in (torch.ones(()).double().expand(other.shape), torch.randn(*other.shape, 2).double()[..., 1]):
            given = torch.autograd.grad((z, other), tensors, (gz, go), retain_graph=True)
            plain = torch.autograd.grad((z, other), tensors, (gz.contiguous(), go.contiguous()), retain_graph=True)
            assert all(map(torch.equal, given, plain))


@both
@pytest.mark.parametrize("shape", [(5,), (1, 5), (4, 1), (1,), (), (2, 4, 5)])
def test_log_var_and_prior_broadcast(name: str, shape: tuple[int, ...]) -> None:
    tensors = [torch.randn(2, 4, 5).double(), *(torch.randn(shape).double() for _ in range(3))]
    found, expected = (results(call(m, name, 2), tensors) for m in (ops, reference))
    torch.testing.assert_close(found, expected)


@both
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 3, 4)])
@pytest.mark.parametrize("samples", [None, 2])
def test_leading_dimensions(name: str, shape: tuple[int, ...], samples: int | None) -> None:
    found, expected = (results(call(m, name, samples), inputs(shape)) for m in (ops, reference))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", range(4))
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, bad: float, where: int) -> None:
    tensors = inputs((21, 5), dtype=torch.float32)
    clean = results(call(ops, "kl"), tensors)
    tensors[where][4, 2] = bad
    others = torch.arange(21) != 4
    dirty = results(call(ops, "kl"), tensors)
    assert all(
        torch.equal(d[..., others, :] if d.dim() > 1 else d[others], c[..., others, :] if c.dim() > 1 else c[others])
        for d, c in zip(dirty, clean, strict=True)
    )
    # A prior of infinite variance is far, and its other terms vanish.
    assert not dirty[1][4].isfinite()


@both
@priors
def test_gradcheck(name: str, prior: bool) -> None:
    tensors = [t.requires_grad_() for t in inputs((2, 3), prior)]
    torch.autograd.gradcheck(call(ops, name, 2), tensors)
    torch.autograd.gradgradcheck(call(ops, name, 2), tensors)


@both
@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(name: str, wanted: int) -> None:
    tensors = inputs((5, 3))
    expected = results(call(ops, name), tensors)[2 + wanted]
    tensors[wanted].requires_grad_()
    outputs = call(ops, name)(*tensors)
    grads = [torch.linspace(-1, 2, o.numel(), dtype=o.dtype).view_as(o) for o in outputs]
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
    outputs, grads = zip(*pairs, strict=True)
    assert torch.equal(torch.autograd.grad(outputs, tensors[wanted], grads)[0], expected)


def test_the_thread_count_does_not_change_a_bit() -> None:
    tensors = inputs((700, 64), dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(results(call(ops, "kl"), tensors) + results(call(ops, "log_ratio", 3), tensors))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@both
def test_compile(name: str) -> None:
    def loss(*tensors: Tensor) -> Tensor:
        z, other = call(ops, name, 2)(*tensors)
        return z.square().sum() + other.square().sum()

    tensors = [t.requires_grad_() for t in inputs((5, 3))]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), loss(*tensors))
    torch.testing.assert_close(*(torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss)))


def test_compile_draws_a_seed() -> None:
    mean, log_var = inputs((5, 3), prior=False)
    compiled = torch.compile(lambda m, v: ops.gaussian_rsample_kl(m, v)[0], fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(mean, log_var), compiled(mean, log_var))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    tensors, seed = inputs((5, 3), dtype=dtype), torch.tensor(3)
    gz, g, gr = torch.randn(2, 5, 3, dtype=dtype), torch.randn(5, dtype=dtype), torch.randn(2, 5, dtype=dtype)
    library = torch.ops.fastgen
    torch.library.opcheck(library.gaussian_rsample_kl, (*tensors, 2, 0.1, seed))
    torch.library.opcheck(library.gaussian_rsample_kl, (*tensors[:2], None, None, 1, 0.0, seed))
    torch.library.opcheck(library.gaussian_rsample_log_ratio, (*tensors, 2, seed))
    for needs in ([True] * 4, [False, True, False, False]):
        torch.library.opcheck(library.gaussian_rsample_kl_backward, (gz, g, *tensors, 2, 0.1, seed, needs))
        torch.library.opcheck(library.gaussian_rsample_log_ratio_backward, (gz, gr, *tensors, 2, seed, needs))


def test_autocast_computes_in_float32() -> None:
    halves = [t.bfloat16().requires_grad_() for t in inputs((5, 3), prior=False)]
    with torch.autocast("cpu", torch.bfloat16):
        z, kl = ops.gaussian_rsample_kl(*halves, seed=SEED)
    assert z.dtype == kl.dtype == torch.float32
    torch.testing.assert_close(
        (z, kl), reference.gaussian_rsample_kl(*(t.float() for t in halves), seed=SEED), rtol=1e-5, atol=1e-5
    )
    assert [g.dtype for g in torch.autograd.grad(kl.sum(), halves)] == [torch.bfloat16] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_run_on_the_reference(dtype: torch.dtype) -> None:
    tensors = inputs((5, 3), dtype=dtype)
    with backends.use("auto"):
        z, kl = ops.gaussian_rsample_kl(*tensors, seed=SEED)
    assert z.dtype == dtype and kl.dtype == torch.float32


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mean": X.long()}, TypeError, "mean: expected a floating dtype, found torch.int64"),
        ({"mean": torch.zeros(4, 0)}, ValueError, r"mean: expected shape \(\.\.\., at least 1\)"),
        ({"log_var": X.double()}, TypeError, "log_var: expected mean's dtype"),
        ({"log_var": None}, TypeError, "log_var: expected a tensor, found NoneType"),
        ({"log_var": torch.zeros(2, 3)}, ValueError, "log_var: expected a shape broadcastable to mean's"),
        ({"prior_mean": X}, ValueError, "expected both or neither, found prior_mean alone"),
        ({"prior_log_var": X}, ValueError, "expected both or neither, found prior_log_var alone"),
        ({"prior_mean": torch.zeros(5), "prior_log_var": X}, ValueError, "prior_mean: expected a shape"),
        ({"samples": 0}, ValueError, "samples: expected at least 1, found 0"),
        ({"free_bits": -0.1}, ValueError, "free_bits: expected at least 0, found -0.1"),
        ({"free_bits": math.nan}, ValueError, "free_bits: expected at least 0, found nan"),
        ({"seed": 3}, TypeError, "seed: expected an int64 tensor, found int"),
        ({"seed": torch.zeros(())}, TypeError, "seed: expected an int64 tensor, found torch.float32"),
        ({"seed": torch.zeros(2).long()}, ValueError, r"seed: expected one number, found shape \(2,\)"),
        ({"seed": torch.zeros(()).long().to("meta")}, ValueError, "seed: expected mean's device cpu, found meta"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.gaussian_rsample_kl(**{"mean": X, "log_var": X, **arguments})


@pytest.mark.parametrize("position", [0, 1, 2, 3, 6, 7, 8])
def test_the_compiled_forward_checks_every_tensor(position: int) -> None:
    arguments = [X, X, X, X, 2, 0.0, SEED, torch.zeros(2, 4, 3), torch.zeros(4)]
    backends.compiled().gaussian_rsample_kl_forward(*arguments)
    for wrong in (torch.zeros(7, 2, 2), torch.zeros(5), torch.zeros(4, 3).double(), torch.zeros(0).long()):
        with pytest.raises((ValueError, TypeError), match="expected"):
            backends.compiled().gaussian_rsample_kl_forward(*(wrong if i == position else a for i, a in enumerate(arguments)))


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12])
def test_the_compiled_backward_checks_every_tensor(position: int) -> None:
    arguments = [torch.zeros(2, 4, 3), torch.zeros(4), X, X, X, X, 2, 0.0, SEED, *(torch.zeros(4, 3) for _ in range(4))]
    backends.compiled().gaussian_rsample_kl_backward(*arguments)
    for wrong in (torch.zeros(7, 2, 2), torch.zeros(5), torch.zeros(3, 3).double(), torch.zeros(0).long()):
        with pytest.raises((ValueError, TypeError), match="expected"):
            backends.compiled().gaussian_rsample_kl_backward(*(wrong if i == position else a for i, a in enumerate(arguments)))


def test_the_compiled_log_ratio_checks_its_outputs() -> None:
    for z, ratio in ((torch.zeros(2, 4, 2), torch.zeros(2, 4)), (torch.zeros(2, 4, 3), torch.zeros(4))):
        with pytest.raises(ValueError, match="expected shape"):
            backends.compiled().gaussian_rsample_log_ratio_forward(X, X, X, X, 2, SEED, z, ratio)
    with pytest.raises(ValueError, match="grad_log_ratio: expected shape"):
        backends.compiled().gaussian_rsample_log_ratio_backward(
            torch.zeros(2, 4, 3), torch.zeros(4, 2), X, X, X, X, 2, SEED, None, None, None, None
        )
