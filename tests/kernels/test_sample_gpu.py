"""The CUDA C++ kernels of autoregressive_sample on a device."""

from __future__ import annotations

import pytest
import torch
from compare import NEEDS_GPU
from samples import NETWORKS, SAMPLERS, case, extremes, network_for

from fastgen import backends, ops, reference
from fastgen.reference import ConditionalSampler

BUILT = backends.choose_for("autoregressive_sample", "cuda", torch.float32)
pytestmark = [*NEEDS_GPU, pytest.mark.skipif(BUILT.backend != "cuda", reason=f"needs the CUDA kernels: {BUILT.reason}")]
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@every_sampler
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rows", [0, 1, 70])
def test_float64_equals_the_reference(name: str, kind: str, rows: int) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS[kind])
    noise, terms, values, params = case(sampler, net, rows)
    noise, terms, values, *params = (t.cuda() for t in (noise, terms, values, *params))
    for known in (0, values.shape[1] // 2, values.shape[1]):
        options = {"sampler": sampler, "context_terms": terms, "given": values, "known": known}
        with backends.use("cuda"):
            found = ops.autoregressive_sample(noise, net, params, **options)
        expected = reference.autoregressive_sample(noise, net, params, **options)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@every_sampler
@pytest.mark.parametrize(("hidden", "rows"), [((512, 512), 40), ((512, 512), 3000), ((9000,), 40)])
def test_the_network_makes_the_same_choices_of_the_prefix(name: str, hidden: tuple[int, ...], rows: int) -> None:
    """Every height of a tile, and a state beyond shared memory."""
    sampler = SAMPLERS[name]
    net = network_for(sampler, range(1, 33), hidden)
    noise, _, _, params = case(sampler, net, rows)
    noise, *params = (t.cuda() for t in (noise, *params))
    x = ops.autoregressive_sample(noise, net, params, sampler=sampler)
    outputs = ops.masked_mlp(sampler.encode(x, x.dtype), net, params)
    torch.testing.assert_close(x, sampler(outputs, noise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["bernoulli", "categorical", "mixture"])
def test_extreme_logits_and_noise(kind: str) -> None:
    sampler = ConditionalSampler(kind, 1 if kind == "bernoulli" else 4)
    net, (weight, _), logits, noise = extremes(sampler, torch.float32)
    given = noise.cuda(), net, [weight.cuda(), None]
    options = {"sampler": sampler, "context_terms": logits.cuda()}
    assert torch.equal(ops.autoregressive_sample(*given, **options), reference.autoregressive_sample(*given, **options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_sampled_in_float32(dtype: torch.dtype) -> None:
    sampler = SAMPLERS["categorical"]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, _, _, params = case(sampler, net, 64, dtype=torch.float32)
    half = [p.to("cuda", dtype) for p in params]
    found = ops.autoregressive_sample(noise.cuda(), net, half, sampler=sampler)
    assert torch.equal(found, ops.autoregressive_sample(noise.cuda(), net, [p.float() for p in half], sampler=sampler))
