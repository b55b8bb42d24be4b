from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from fastgen.flows import (
    MAF,
    Bounds,
    Flow,
    Logit,
    MaskedAutoregressiveTransform,
    MixtureOfNormals,
    Permutation,
    Standardise,
    StandardNormal,
    UnitInterval,
    moments,
)

DOUBLE = torch.float64
SCALE, MIDDLE = torch.tensor([1e-3, 7.0, 0.0]), torch.tensor([5.0, -2e3, 0.1])


def rows(n: int = 1000, dtype: torch.dtype = DOUBLE) -> Tensor:
    return (torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) * SCALE + MIDDLE).to(dtype)


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [300, 0, 400, 300], [1] * 20 + [980]])
def test_parts_give_the_moments_of_the_whole(sizes: list[int]) -> None:
    x = rows()
    fitted = Standardise.fit(iter(x.split(sizes)))
    torch.testing.assert_close(fitted.mean, x.mean(0), rtol=1e-14, atol=0)
    # The deviations are 2e-4 and 3e-3 of their means: that many digits of float64 are lost.
    torch.testing.assert_close(fitted.std[:2], x.std(0, correction=0)[:2], rtol=1e-11, atol=0)
    assert fitted.std[2] == 1 and fitted.mean.dtype == DOUBLE


def test_large_chunks_go_through_in_parts(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    whole = Standardise.fit(rows())
    monkeypatch.setattr(moments, "ROWS", 64)
    parts = Standardise.fit(rows().view(10, 100, 3))
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(parts.std, whole.std, rtol=1e-11, atol=0)


def test_the_sums_are_in_float64() -> None:
    x = 1e4 + torch.randn(200000, 1, generator=torch.Generator().manual_seed(0))
    fitted = Standardise.fit(x.split(50000))
    torch.testing.assert_close(fitted.mean.double(), x.double().mean(0), rtol=6e-8, atol=0)
    torch.testing.assert_close(fitted.std.double(), x.double().std(0, correction=0), rtol=1e-7, atol=0)
    assert fitted.mean.dtype == torch.float32


def test_a_constant_in_every_part_is_no_constant() -> None:
    fitted = Standardise.fit([torch.zeros(5, 1), torch.ones(5, 1)])
    assert fitted.mean == 0.5 and fitted.std == 0.5


def test_data_larger_than_memory_passes_through() -> None:
    def chunks() -> Iterator[Tensor]:
        for i in range(50):
            yield torch.from_numpy(np.full((20000, 10), i, dtype=np.float32))

    tracemalloc.start()
    fitted = Standardise.fit(chunks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(fitted.mean, torch.full((10,), 24.5))
    # One chunk of 0.8 MB and the next, of 40 MB in all.
    assert peak < 4e6


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([], ValueError, "x: expected at least one row of finite values, found none"),
        ([torch.zeros(0, 2)], ValueError, "x: expected at least one row of finite values, found none"),
        ([torch.zeros(2, 2), torch.full((1, 2), torch.nan)], ValueError, "x: expected at least one row of finite values"),
        ([torch.zeros(2, 2), torch.zeros(2, 3)], ValueError, r"x: expected shape \(..., 2\), found \(2, 3\)"),
        ([torch.zeros(2, 2, dtype=torch.int64)], TypeError, "x: expected a floating dtype, found torch.int64"),
        ([[1.0, 2.0]], TypeError, "x: expected a tensor, found list"),
    ],
)
def test_bad_data_is_named(x, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        Standardise.fit(x)


def maf(**options) -> MAF:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return MAF(3, **{"transforms": 2, "hidden_features": (16,), "dtype": DOUBLE, **options})


def test_fit_standardisation_has_its_jacobian_in_log_prob() -> None:
    flow = maf(context_features=2)
    plain = copy.deepcopy(flow)
    x, context = rows(), 5 + 3 * torch.randn(1000, 2, dtype=DOUBLE)
    flow.fit_standardisation(x, context)
    y, c = Standardise.fit(x), Standardise.fit(context)
    expected = plain.log_prob(y(x)[0], c(context)[0]) - y.std.log().sum()
    torch.testing.assert_close(flow.log_prob(x, context), expected, rtol=1e-12, atol=1e-12)
    samples, log_prob = flow.sample_and_log_prob(4, context)
    torch.testing.assert_close(flow.log_prob(samples, context), log_prob, rtol=1e-8, atol=1e-8)
    # Data that were off by thousands look like the base's.
    assert float((flow.log_prob(x, context) + y.std.log().sum()).mean().detach()) > -6


def test_fitting_again_replaces_what_was_fitted() -> None:
    flow = maf(preprocess=[Permutation.reverse(3)])
    flow.fit_standardisation(torch.randn(9, 3))
    assert [type(t) for t in flow.transform][:2] == [Standardise, Permutation] and len(flow.transform) == 4
    flow.fit_standardisation(iter(rows().split(100)))
    assert [type(t) for t in flow.transform][:2] == [Standardise, Permutation] and len(flow.transform) == 4
    torch.testing.assert_close(flow.transform[0].mean, rows().mean(0))
    assert flow.standardise_context is None and flow.transform[0].mean.dtype == DOUBLE


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_transforms_to_all_real_numbers_come_first(dtype: torch.dtype) -> None:
    before = [UnitInterval(16), Logit(0.01)]
    x = 16 * torch.rand(500, 3, dtype=dtype)
    flow = maf(preprocess=before)
    for data in (x[:5], iter(x.split(100))):
        flow.fit_standardisation(data)
    assert [type(t) for t in flow.transform][:3] == [UnitInterval, Logit, Standardise] and len(flow.transform) == 5
    z = before[1](before[0](x)[0])[0]
    torch.testing.assert_close(flow.transform[2].mean, z.double().mean(0), rtol=1e-5, atol=1e-6)
    bounded = maf(preprocess=[Bounds(0.0, 20.0, 3)])
    bounded.fit_standardisation(x)
    assert [type(t) for t in bounded.transform][:2] == [Bounds, Standardise]
    with pytest.raises(ValueError, match="x: expected values inside the bounds of Bounds, found some outside"):
        bounded.fit_standardisation(x + 10)


def test_any_flow_can_be_fitted() -> None:
    flow = Flow(StandardNormal(3), MaskedAutoregressiveTransform(3, hidden_features=(8,)))
    flow.fit_standardisation(rows(), torch.randn(10, 2))
    # In the dtype of the flow, whatever that of the data.
    assert flow.transform[0].mean.dtype == torch.float32 == flow.standardise_context.mean.dtype
    with pytest.raises(ValueError, match="x: expected 3 features, found 2"):
        flow.fit_standardisation(torch.randn(9, 2))


def test_config_and_state_dict_round_trip() -> None:
    flow = maf(context_features=2, base=MixtureOfNormals(3, 2).double(), embedding={"features": 4})
    x, context = rows(), torch.randn(1000, 2, dtype=DOUBLE)
    flow.fit_standardisation(x, context)
    config = json.loads(json.dumps(flow.config))
    assert config["standardise_context"] is True and config["preprocess"] == [{"transform": "Standardise", "features": 3}]
    twin = MAF(**config).double()
    twin.load_state_dict(flow.state_dict())
    assert twin.config == flow.config and torch.equal(twin.log_prob(x, context), flow.log_prob(x, context))
    with pytest.raises(ValueError, match=r"context: expected shape \(..., 2\), found None"):
        twin.log_prob(x)
