from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from fastgen.flows import MAF, MLP, Bounds, Flow, Standardise

D, F, E = 3, 4, 2
DOUBLE = torch.float64


def maf(**options) -> MAF:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    sizes = {"transforms": 2, "hidden_features": (16,), "context_features": F, "dtype": DOUBLE}
    return MAF(D, **{**sizes, "embedding": {"features": E, "hidden_features": [8]}, **options})


class Counted(nn.Linear):
    """A linear map that counts its calls and the rows they had."""

    calls, rows = 0, 0

    def forward(self, context: Tensor) -> Tensor:
        self.calls += 1
        self.rows += context[..., 0].numel()
        return super().forward(context)


def test_mlp_is_its_layers() -> None:
    network = MLP(F, E, hidden_features=(5, 6), activation="tanh").double()
    x = torch.randn(2, 7, F, dtype=DOUBLE)
    first, second, last = network.layers
    torch.testing.assert_close(network(x), last(second(first(x).tanh()).tanh()))
    twin = MLP(**json.loads(json.dumps(network.config))).double()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(x), network(x))
    assert len(MLP(F, E).layers) == 1


def test_the_flow_sees_what_the_embedding_says() -> None:
    flow = maf()
    assert flow.transform[0].made.context_features == E
    plain = Flow(flow.base, flow.transform)
    x, context = torch.randn(5, D, dtype=DOUBLE), torch.randn(5, F, dtype=DOUBLE)
    torch.testing.assert_close(flow.log_prob(x, context), plain.log_prob(x, flow.embedding(context)))
    for method in ("sample", "rsample", "sample_and_log_prob"):
        torch.manual_seed(1)
        drawn = getattr(flow, method)(2, context)
        torch.manual_seed(1)
        torch.testing.assert_close(drawn, getattr(plain, method)(2, flow.embedding(context)))


def test_the_embedding_trains_with_the_flow() -> None:
    flow = maf(base={"base": "ConditionalDiagonalNormal"})
    x = torch.randn(5, D, dtype=DOUBLE)
    context = torch.randn(5, F, dtype=DOUBLE, requires_grad=True)
    weight = flow.embedding.layers[0].weight
    for value in (flow.log_prob(x, context), flow.rsample(2, context), flow.sample_and_log_prob(2, context)[1]):
        for grad in torch.autograd.grad(value.sum(), (weight, context)):
            assert grad.abs().sum() > 0

    def by_weight(w: Tensor, c: Tensor) -> Tensor:
        return torch.func.functional_call(flow, {"embedding.layers.0.weight": w}, (x, c))

    assert torch.autograd.gradcheck(by_weight, (weight.detach().clone().requires_grad_(), context))


def test_training_with_an_embedding_finds_what_the_context_says() -> None:
    torch.manual_seed(0)
    context = torch.randn(500, F)
    middle = (context[:, :1] * context[:, 1:2]).abs()
    x = middle + 0.1 * torch.randn(500, 1)
    flow = MAF(1, transforms=1, hidden_features=(), context_features=F, embedding={"features": 8, "hidden_features": [32]})
    optimizer = torch.optim.Adam(flow.parameters(), 0.01)
    start = flow(x, context).mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = -flow(x, context).mean()
        loss.backward()
        optimizer.step()
    # Without hidden layers only the embedding can bend the context: a linear map is left with the spread of the product.
    assert -loss.item() > start + 0.5 and -loss.item() > -0.3


def test_it_is_called_once_and_one_context_serves_all_rows() -> None:
    embedding = Counted(F, E).double()
    flow = maf(embedding=embedding)
    embedding.calls = embedding.rows = 0
    context = torch.randn(F, dtype=DOUBLE)
    x = torch.randn(100, D, dtype=DOUBLE)
    log_prob = flow.log_prob(x, context)
    assert (embedding.calls, embedding.rows) == (1, 1)
    torch.testing.assert_close(log_prob, flow.log_prob(x, context.expand(100, F)))
    embedding.calls = embedding.rows = 0
    assert flow.sample(50, context).shape == (50, D) and (embedding.calls, embedding.rows) == (1, 1)
    assert flow.sample_and_log_prob(7, context.expand(3, F))[1].shape == (7, 3)
    assert (embedding.calls, embedding.rows) == (2, 4)


def test_a_standardised_context_comes_before_it() -> None:
    flow = maf()
    context = 10 + 5 * torch.randn(50, F, dtype=DOUBLE)
    flow.fit_standardisation(torch.randn(50, D), context)
    seen = []
    flow.embedding.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    flow.sample(1, context)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(F, dtype=DOUBLE), rtol=0, atol=1e-12)


def test_contexts_of_any_shape_go_through_a_module_of_ones_own() -> None:
    """Images, say: the flow's batch is that of what the module answers."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4, E)).double()
    flow = Flow(maf().base, maf().transform, embedding=network)
    images = torch.randn(5, 1, 4, 4, dtype=DOUBLE)
    x = flow.sample(3, images)
    assert x.shape == (3, 5, D) and flow.log_prob(x, images).shape == (3, 5)


def test_a_module_of_ones_own_keeps_its_state_while_its_width_is_asked() -> None:
    network = nn.Sequential(nn.Linear(F, E), nn.BatchNorm1d(E))
    state = copy.deepcopy(network.state_dict())
    flow = maf(embedding=network)
    assert flow.embedding is network and network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name].to(value.dtype))
    with pytest.raises(TypeError, match="embedding: expected embeddings of MLP, ClassEmbedding for a config, found Sequential"):
        _ = flow.config


def test_config_and_state_dict_with_everything_on() -> None:
    data, context = torch.rand(50, D, dtype=DOUBLE), torch.randn(50, F, dtype=DOUBLE)
    flow = maf(
        order="random",
        hidden_degrees="random",
        residual=True,
        direct=True,
        preprocess=[Bounds([0.0, None, -1.0], [1.0, 2.0, None], D)],
        base={"base": "ConditionalDiagonalNormal", "hidden_features": [6]},
        batch_norm=True,
    )
    flow.fit_standardisation(data, context)
    for _ in range(3):
        flow.log_prob(data, context)
    twin = MAF(**json.loads(json.dumps(flow.config))).double()
    twin.load_state_dict(flow.state_dict())
    flow.eval(), twin.eval()
    assert isinstance(twin.transform[1], Standardise) and twin.config == flow.config
    inside = flow.sample(20, context)
    for x, c in ((data, context), (inside, context)):
        assert torch.equal(twin.log_prob(x, c), flow.log_prob(x, c)) and flow.log_prob(x, c).isfinite().all()


def test_compiles_into_one_graph() -> None:
    flow = maf(dtype=torch.float32)
    flow.fit_standardisation(torch.randn(9, D), torch.randn(9, F))
    x, context = torch.randn(6, D), torch.randn(6, F)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), flow(x, context))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: MLP(0, 1), ValueError, "context_features: expected at least 1, found 0"),
        (lambda: MLP(1, 0), ValueError, "features: expected at least 1, found 0"),
        (lambda: MLP(1, 1, hidden_features=(3, 0)), ValueError, "hidden_features: expected at least 1, found 0"),
        (lambda: MLP(1, 1, activation="cube"), ValueError, "activation: expected one of identity"),
        (lambda: MLP(2, 1)(torch.zeros(4, 3)), ValueError, r"context: expected shape \(..., 2\), found \(4, 3\)"),
        (lambda: maf(embedding="linear"), TypeError, "embedding: expected a module or a dict, found str"),
        (lambda: maf(context_features=0), ValueError, "context_features: expected at least 1, found 0"),
        (
            lambda: maf(standardise_context=True, context_features=0, embedding=None),
            ValueError,
            "features: expected at least 1",
        ),
        (
            lambda: maf().log_prob(torch.zeros(2, D, dtype=DOUBLE)),
            ValueError,
            "context: expected a tensor for the embedding, found None",
        ),
        (
            lambda: maf().log_prob(torch.zeros(4, D, dtype=DOUBLE), torch.zeros(3, F, dtype=DOUBLE)),
            ValueError,
            "context: expected a batch that broadcasts with x's",
        ),
    ],
)
def test_bad_arguments_are_named(build, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        build()
