"""A step counted without data is the step that runs: the tensors it keeps, the work of its products, its depth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastgen import flows, models
from fastgen.bench.plain import mask_of
from fastgen.bench.step_count import StepCount, count_step
from fastgen.bench.swept_models import MODELS, Sizes
from fastgen.nn import MADE

SIZES = (Sizes(features=6, width=16, depth=2, batch=32), Sizes(features=17, width=40, depth=3, batch=9))


def really_saved(model: nn.Module, rows: Tensor) -> int:
    """Bytes of what autograd is given to keep, beyond rows, parameters and buffers."""
    own = {t.untyped_storage().data_ptr() for t in (rows, *model.parameters(), *model.buffers())}
    found: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            found[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = -model(rows).mean()
    size = sum(t.untyped_storage().nbytes() for t in found.values())
    assert loss.requires_grad
    return size


@pytest.mark.parametrize("sizes", SIZES, ids=("small", "odd"))
@pytest.mark.parametrize("name", MODELS)
def test_what_is_counted_as_saved_is_what_is_saved(name: str, sizes: Sizes) -> None:
    counted = count_step(MODELS[name].build(sizes, device="meta"), sizes.batch, sizes.features)
    saved = really_saved(MODELS[name].build(sizes), MODELS[name].rows(sizes))
    # The count has the loss and log-densities of the last step as well.
    assert saved <= counted.saved <= saved + 8 * sizes.batch


def products(count: StepCount) -> tuple[float, float]:
    return sum(work.flops for work in count.forward), sum(work.flops for work in count.backward)


def test_the_products_of_a_flow_are_those_of_its_masks() -> None:
    flow = flows.MAF(9, transforms=3, hidden_features=(20, 12), device="meta")
    networks = [module.network for module in flow.modules() if isinstance(module, MADE)]
    allowed = [[int(mask_of(layer).sum()) for layer in network.layers] for network in networks]
    every, first = sum(map(sum, allowed)), allowed[0][0]
    # Nobody asks for the gradient of the data, which the first layer of the first network would give.
    assert products(count_step(flow, 7, 9)) == (14 * every, 28 * every - 14 * first)


def test_the_products_of_couplings_are_those_of_their_layers() -> None:
    flow = flows.RealNVP(8, transforms=4, hidden_features=(16, 16), device="meta")
    layers = [module.weight.numel() for module in flow.modules() if isinstance(module, nn.Linear)]
    assert products(count_step(flow, 5, 8)) == (10 * sum(layers), 20 * sum(layers) - 10 * layers[0])


def test_an_inverse_trains_at_the_price_of_three_passes_back() -> None:
    forward, backward = products(count_step(flows.IAF(8, transforms=2, hidden_features=(16, 16), device="meta"), 5, 8))
    assert backward == 3 * forward > 0


@pytest.mark.parametrize("reversible", [False, True])
def test_a_reversible_stack_keeps_the_same_at_any_depth(reversible: bool) -> None:
    def saved(depth: int) -> int:
        flow = flows.RealNVP(8, transforms=depth, hidden_features=(16,), reversible=reversible, device="meta")
        return count_step(flow, 64, 8).saved

    assert (saved(12) == saved(4)) == reversible


@pytest.mark.parametrize(
    "build",
    [
        lambda: models.VAE(6, hidden_features=(8,), posterior="iaf", device="meta"),
        lambda: models.VAE(6, hidden_features=(8,), posterior="planar", likelihood="gaussian", device="meta"),
        lambda: models.IWAE(6, hidden_features=(8,), doubly_reparameterised=True, device="meta"),
        lambda: models.CategoricalMADE(6, categories=3, hidden_features=(8,), device="meta"),
        lambda: models.MAFMoG(6, hidden_features=(8,), device="meta"),
        lambda: flows.RealNVP(shape=(2, 3, 1), hidden_features=(4,), device="meta"),
        lambda: flows.MAF(6, hidden_features=(8,), batch_norm=True, device="meta"),
    ],
)
def test_other_models_are_counted_too(build: Callable[[], nn.Module]) -> None:
    count = count_step(build(), 10, 6)
    assert count.peak >= count.parameters > 0 and count.saved > 0 and min(products(count)) > 0


def test_no_memory_is_taken() -> None:
    # 30 GB of parameters.
    flow = flows.RealNVP(20_000, transforms=4, hidden_features=(50_000, 20_000), device="meta")
    count = count_step(flow, 1_000_000, 20_000)
    assert count.parameters == 4 * sum(p.numel() for p in flow.parameters()) > 3e10
    assert count.saved > 4 * 1_000_000 * 70_000
