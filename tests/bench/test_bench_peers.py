"""Other libraries: fastgen's flow has their weights, and what differs gets no time."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Distribution

from fastgen.bench import measure as measuring
from fastgen.bench.beside import density, samples
from fastgen.bench.case import OURS, Setting
from fastgen.bench.networks import Sizes
from fastgen.bench.peers import LIBRARIES, installed
from fastgen.bench.peers.masked import MaskedPeer, same_flow
from fastgen.bench.steps import EVALUATION

SIZES = Sizes(16, 5, 12, transforms=3)
QUICK = Setting(quick=True)
MASKED = [(f"{name} {kind}", build) for kind in ("maf", "maf_as_shipped", "iaf") for name, build in installed(kind)]
pytestmark = pytest.mark.skipif(not MASKED, reason="none of the other libraries is installed")


@pytest.mark.parametrize("build", [build for _, build in MASKED], ids=[name for name, _ in MASKED])
def test_densities_gradients_and_samples_are_those_of_the_library(build) -> None:
    torch.manual_seed(0)
    peer: MaskedPeer = build(SIZES)
    with torch.no_grad():
        for parameter in peer.parameters:
            parameter.add_(0.2 * torch.randn_like(parameter))
    *cases, drawn = *density("MAF", "peer", peer, SIZES, QUICK), samples("MAF", "peer", peer, SIZES, QUICK, None)
    assert len(cases) == 3
    for case in (*cases, drawn):
        assert {name: error() <= case.error_limit for name, error in case.errors.items()} == {OURS: True, "peer": True}


def test_a_library_whose_results_differ_gets_no_time(quickly: None) -> None:
    name, build = MASKED[0]
    peer: MaskedPeer = build(SIZES)
    [case] = density("MAF", name, peer, SIZES, QUICK, {EVALUATION: (1.5, None)}, modes=(EVALUATION,))
    with torch.no_grad():
        peer.blocks[-1].layers[-1].bias.add_(0.1)
    ours, other = measuring.measure(case, quick=True)
    assert ours.value > 0 and not ours.note
    assert other.note.startswith("results differ: relative error") and other.error > case.error_limit
    assert other.value != other.value and other.ratio is None and other.reached is None


@pytest.mark.parametrize("build", [build for _, build in MASKED], ids=[name for name, _ in MASKED])
def test_nothing_is_remembered_from_one_call_to_the_next(build) -> None:
    peer, x = build(SIZES), torch.randn(4, SIZES.features)
    with torch.no_grad():
        before = peer.log_prob(peer.model, x)
        for parameter in peer.parameters:
            parameter.add_(0.1)
        assert not torch.equal(peer.log_prob(peer.model, x), before)


def test_masks_that_are_no_staircase_are_refused() -> None:
    _, build = MASKED[0]
    peer: MaskedPeer = build(SIZES)
    layer = peer.blocks[0].layers[1]
    layer.mask[layer.mask.nonzero()[0].unbind()] = 0
    with pytest.raises(ValueError, match="masks: expected those of an autoregressive network"):
        same_flow(peer, SIZES.features)


def test_importing_a_library_leaves_torch_as_it_was() -> None:
    before = Distribution._validate_args
    for _, build in MASKED:
        peer = build(SIZES)
        peer.log_prob(peer.model, torch.randn(2, SIZES.features))
    assert Distribution._validate_args == before


def test_those_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(installed("maf")) == [] and set(LIBRARIES) >= {"nflows", "zuko"}
