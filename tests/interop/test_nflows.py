"""Models of nflows: the same numbers, and what is left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_agrees, assert_as_accurate_after_training, assert_same
from torch import Tensor, nn

import fastgen
from fastgen.interop import network

pytest.importorskip("nflows", reason="nflows is not installed")

from nflows import distributions, transforms
from nflows.flows import Flow
from nflows.nn.nde.made import MADE as NDEMADE
from nflows.nn.nde.made import MixtureOfGaussiansMADE
from nflows.nn.nets import ResidualNet

D, B, C = 5, 7, 3
DTYPES = [torch.float32, torch.float64]
AFFINE = ("CompositeTransform", "MaskedAffineAutoregressiveTransform", "MADE", "MaskedLinear", "StandardNormal")


def maf(features: int = D, hidden: int = 12, count: int = 2, **options: Any) -> Flow:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(transforms.ReversePermutation(features))
        layers.append(transforms.MaskedAffineAutoregressiveTransform(features, hidden, **options))
    return Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([features]))


def both_directions(rows: int = B, features: int = D, context_features: int = 0) -> Callable[[Any], list[Tensor]]:
    """log_prob of data, and data of noise with the log-det."""
    generator = torch.Generator().manual_seed(3)
    x, z = torch.randn(2, rows, features, generator=generator, dtype=torch.float64)
    c = torch.randn(rows, context_features, generator=generator, dtype=torch.float64) if context_features else None

    def evaluate(flow: Any) -> list[Tensor]:
        dtype = next(flow.parameters()).dtype
        context = None if c is None else c.to(dtype)
        leaf = x.to(dtype).requires_grad_()
        log_prob = flow.log_prob(leaf, context)
        (score,) = torch.autograd.grad(log_prob.sum(), leaf, create_graph=True)
        back, log_det = flow._transform.inverse(z.to(dtype), context)
        return [log_prob, score.detach(), back, log_det]

    return evaluate


MAFS = {
    "feed-forward": {"use_residual_blocks": False},
    "residual": {"use_residual_blocks": True},
    "no blocks": {"num_blocks": 0},
    "context": {"use_residual_blocks": False, "context_features": C},
    "tanh": {"use_residual_blocks": False, "activation": torch.tanh},
    "module": {"use_residual_blocks": False, "activation": nn.ELU()},
    "random masks": {"use_residual_blocks": False, "random_mask": True},
    "wide": {"use_residual_blocks": False, "hidden": 200, "num_blocks": 1},
    "one feature": {"use_residual_blocks": False, "features": 1},
    "two features": {"use_residual_blocks": True, "features": 2},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", MAFS.values(), ids=MAFS)
@pytest.mark.parametrize("is_sorted", [False, True])
def test_autoregressive_flows_agree_in_both_directions(
    is_sorted: bool, options: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threshold in ("SORTED_FROM", "CHAIN_SORTED_FROM"):
        monkeypatch.setattr(network, threshold, 0 if is_sorted else float("inf"))
    flow = maf(**options)
    evaluate = both_directions(features=options.get("features", D), context_features=options.get("context_features") or 0)
    assert_agrees(flow, evaluate, AFFINE, dtype)


def row_of_transforms(context_features: int | None = None) -> Flow:
    """Permutations before, between and after transforms, and two transforms side by side."""
    torch.manual_seed(1)
    kinds = "pmmppmp"
    options: dict[str, Any] = {"context_features": context_features, "use_residual_blocks": False}

    def layer(kind: str) -> nn.Module:
        if kind == "p":
            return transforms.RandomPermutation(D)
        return transforms.MaskedAffineAutoregressiveTransform(D, 12, **options)

    return Flow(transforms.CompositeTransform(map(layer, kinds)), distributions.StandardNormal([D]))


def nodes_of(t: Tensor) -> list[str]:
    """The names of all nodes of a graph but those of leaves."""
    seen, left = {}, [t.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen[node] = node.name()
            left += [before for before, _ in node.next_functions]
    return [name for name in seen.values() if "AccumulateGrad" not in name]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("context_features", [0, C])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_transforms_in_a_row_are_one_node(
    is_sorted: bool, context_features: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "CHAIN_SORTED_FROM", 0 if is_sorted else float("inf"))
    flow = row_of_transforms(context_features or None)
    fast = assert_agrees(flow, both_directions(context_features=context_features), AFFINE, dtype)
    context = torch.randn(B, C, dtype=dtype) if context_features else None
    names = nodes_of(fast._transform(torch.randn(B, D, dtype=dtype), context)[0])
    assert names.count("_ChainBackward") == 1
    assert not any("IndexSelect" in name for name in names)


def test_a_row_of_transforms_gives_the_gradients_that_are_asked_for() -> None:
    flow = row_of_transforms()
    fast, x = fastgen.accelerate(copy.deepcopy(flow)), torch.randn(B, D)

    def gradients(m: Any, places: slice, result: int, of_x: bool) -> list[Tensor]:
        for parameter in m.parameters():
            parameter.requires_grad_(False)
        wanted: list[Tensor] = [p.requires_grad_() for p in list(m.parameters())[places]]
        leaf = x.clone().requires_grad_(of_x)
        found = m._transform(leaf)[result]
        return list(torch.autograd.grad(found.sin().sum(), [*wanted, leaf] if of_x else wanted))

    for places in (slice(0, 1), slice(9, 12), slice(-1, None), slice(0, 0)):
        for result in (0, 1):
            of_x = places == slice(0, 0) or result == 0
            assert_same(gradients(fast, places, result, of_x), gradients(flow, places, result, of_x))


def test_permutations_in_a_row_of_transforms_are_read_at_the_call() -> None:
    flow, other = row_of_transforms(), row_of_transforms()
    fast = fastgen.accelerate(copy.deepcopy(flow))
    x = torch.randn(B, D)
    fast.log_prob(x)
    for place in (0, 3, 6):
        other._transform._transforms[place]._permutation.copy_(torch.randperm(D))
    fast.load_state_dict(other.state_dict())
    assert_same([fast.log_prob(x)], [other.log_prob(x)])
    for m in (fast, other):
        m._transform._transforms[3]._permutation.copy_(torch.tensor([0, 0, 1, 2, 2]))
    assert_same([fast.log_prob(x)], [other.log_prob(x)])
    calls: list[nn.Module] = []
    fast._transform._transforms[4].register_forward_hook(lambda module, args, output: calls.append(module))
    assert_same([fast.log_prob(x)], [other.log_prob(x)])
    assert len(calls) == 1


def test_samples_come_from_the_same_noise() -> None:
    flow = maf(use_residual_blocks=False, context_features=C)
    context = torch.randn(2, C)
    assert_agrees(flow, lambda m: [m.sample(4, context), *m.sample_and_log_prob(3, context)], AFFINE, torch.float32)


def test_after_training_errors_are_no_larger() -> None:
    x = torch.randn(200, D) @ torch.randn(D, D)
    flow = maf(hidden=20, use_residual_blocks=False)
    z = torch.randn(300, D)

    def evaluate(m: Any) -> list[Tensor]:
        dtype = next(m.parameters()).dtype
        return [m.log_prob(x.to(dtype)), *m._transform.inverse(z.to(dtype))]

    assert_as_accurate_after_training(flow, lambda m: -m.log_prob(x).mean(), evaluate)


def test_few_rows_of_a_network_alone_run_the_library_s_code_with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "GRADIENTS_FROM", float("inf"))
    made = transforms.made.MADE(D, 12, use_residual_blocks=False)
    fast, x = fastgen.accelerate(copy.deepcopy(made)), torch.randn(B, D)
    assert_same([fast(x)], [made(x)], 0)
    assert type(fast(x).grad_fn) is type(made(x).grad_fn)
    with torch.no_grad():
        assert_same([fast(x)], [made(x)])


def test_no_rows_and_one_row() -> None:
    flow = maf(use_residual_blocks=False)
    for rows in (0, 1):
        assert_agrees(flow, both_directions(rows=rows), AFFINE, torch.float32)


def test_masks_of_no_degrees_multiply_the_weights() -> None:
    flow = maf(use_residual_blocks=False)
    for module in flow.modules():
        if isinstance(module, transforms.made.MaskedLinear):
            # Holes in the staircase, still autoregressive.
            module.mask *= torch.rand(module.mask.shape) < 0.7
    fast = assert_agrees(flow, both_directions(), AFFINE[:3] + AFFINE[4:], torch.float64)
    reasons = {entry.reason for entry in fastgen.accelerate_report(fast).left if entry.kind.endswith("MaskedLinear")}
    assert reasons == {"its mask is not that of degrees"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["affine", "additive"])
@pytest.mark.parametrize("mask", [[1, 0, 1, 0, 1], [0, 0, 1, 1, 1]])
def test_couplings_of_vectors_agree(mask: list[int], kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cls = {"affine": transforms.AffineCouplingTransform, "additive": transforms.AdditiveCouplingTransform}[kind]

    def network(inputs: int, outputs: int) -> nn.Module:
        return ResidualNet(inputs, outputs, 8, context_features=C)

    layers = [cls(mask, network), cls([1 - m for m in mask], network)]
    flow = Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([D]))
    replaced = (cls.__name__, "StandardNormal")
    assert_agrees(flow, both_directions(context_features=C), replaced, dtype)


class Convolution(nn.Conv2d):
    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("cls", [transforms.AffineCouplingTransform, transforms.AdditiveCouplingTransform])
def test_couplings_of_images_agree(cls: type) -> None:
    torch.manual_seed(0)
    layer = cls([1, 0, 1], lambda inputs, outputs: Convolution(inputs, outputs, 3, padding=1))
    x = torch.randn(2, 3, 4, 6)
    assert_agrees(layer, lambda m: [*m(x), *m.inverse(x)], (cls.__name__,), torch.float32)


@pytest.mark.parametrize("cls", [NDEMADE, MixtureOfGaussiansMADE])
@pytest.mark.parametrize("residual", [True, False])
def test_the_networks_of_nde_agree(residual: bool, cls: type) -> None:
    torch.manual_seed(0)
    made = cls(D, 12, use_residual_blocks=residual)
    x = torch.randn(B, D)
    fast = assert_agrees(made, lambda m: [m(x)], (cls.__name__, "MaskedLinear"), torch.float32)
    if cls is MixtureOfGaussiansMADE:
        assert_same([fast.log_prob(x)], [made.log_prob(x)])


def test_bases_agree() -> None:
    base = distributions.normal.DiagonalNormal([D])
    nn.init.normal_(base.mean_)
    nn.init.normal_(base.log_std_)
    x = torch.randn(B, D)
    assert_agrees(base, lambda m: [m.log_prob(x)], ("DiagonalNormal",), torch.float32)


def test_spline_transforms_keep_their_map_and_get_the_network() -> None:
    torch.manual_seed(0)
    layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(D, 12, tails="linear", num_blocks=1)
    x = torch.randn(B, D)
    assert_agrees(layer, lambda m: [*m(x), *m.inverse(x)], ("MADE", "MaskedLinear"), torch.float32)


LEFT = {
    "batch-norm": ({"use_batch_norm": True}, "batch-norm between its layers"),
    "activation": ({"activation": lambda x: F.relu(x)}, "an activation that fastgen does not know"),
    "module with options": ({"activation": nn.LeakyReLU(0.3)}, "an activation that fastgen does not know"),
    "context in blocks": ({"context_features": C}, "a context inside its residual blocks"),
}


@pytest.mark.parametrize(("options", "reason"), LEFT.values(), ids=LEFT)
def test_what_would_change_results_is_left_with_a_reason(options: dict[str, Any], reason: str) -> None:
    flow = maf(**options)
    features = options.get("context_features", 0)
    fast = assert_agrees(flow, both_directions(context_features=features), ("MaskedLinear", "StandardNormal"), torch.float32)
    left = {entry.kind.rpartition(".")[2]: entry.reason for entry in fastgen.accelerate_report(fast).left}
    assert left["MADE"] == reason
    assert left["MaskedAffineAutoregressiveTransform"] == f"its network is left: {reason}"


def test_dropout_runs_the_library_s_code_in_training_alone() -> None:
    flow = maf(use_residual_blocks=False, dropout_probability=0.5)
    assert_agrees(flow, both_directions(), AFFINE, torch.float32)  # the same dropout, of the same generator
    fast = assert_agrees(flow.eval(), both_directions(), AFFINE, torch.float32)
    x = torch.randn(B, D)
    assert_same([fast.log_prob(x)], [fast.log_prob(x)])


def test_batch_norm_between_transforms_stays_as_it_is() -> None:
    torch.manual_seed(0)
    layers = [transforms.MaskedAffineAutoregressiveTransform(D, 12), transforms.BatchNorm(D)]
    flow = Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([D]))
    x = torch.randn(B, D)
    fast = assert_agrees(flow, lambda m: [m.log_prob(x)], AFFINE, torch.float32)
    assert "BatchNorm" in {entry.kind.rpartition(".")[2] for entry in fastgen.accelerate_report(fast).left}


class OwnMADE(transforms.made.MADE):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        return 2 * super().forward(inputs, context)


def test_classes_derived_from_covered_ones_are_left() -> None:
    made = OwnMADE(D, 12)
    x = torch.randn(B, D)
    fast = assert_agrees(made, lambda m: [m(x)], ("MaskedLinear",), torch.float32)
    (left,) = [entry for entry in fastgen.accelerate_report(fast).left if entry.name == ""]
    assert left.reason == "a class of its own, derived from nflows.transforms.made.MADE"


def test_errors_stay_the_library_s() -> None:
    flow = maf(use_residual_blocks=False, context_features=C)
    fast = fastgen.accelerate(copy.deepcopy(flow))
    calls: list[Callable[[Any], Any]] = [
        lambda m: m.log_prob(torch.randn(B, D + 1)),
        lambda m: m.log_prob(torch.randn(B, D).double()),
        lambda m: m.log_prob(torch.randn(B, D), torch.randn(B + 1, C)),
        lambda m: m.log_prob(torch.randn(B, D), torch.randn(B, C + 1)),
        lambda m: m._transform.inverse(torch.randn(B, D + 1)),
    ]
    for call in calls:
        with pytest.raises(Exception) as expected:
            call(flow)
        with pytest.raises(type(expected.value)) as found:
            call(fast)
        assert str(found.value) == str(expected.value)
