from __future__ import annotations

import json

import pytest
import torch

from fastgen.data import Dataset, Part
from fastgen.flows import MAF, MLP, ClassEmbedding, RealNVP, Standardise
from fastgen.train.models import build

DOUBLE = torch.float64


def flow(**options) -> RealNVP:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    embedding = {"embedding": "ClassEmbedding", "classes": 3, "features": 4}
    sizes = {"transforms": 2, "hidden_features": (8,), "context_features": 1, "embedding": embedding, "dtype": DOUBLE}
    return RealNVP(**{"features": 2, **sizes, **options})


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16, torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("batch", [(), (0,), (5,), (2, 3)])
def test_each_class_has_its_vector(dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    embedding = ClassEmbedding(3, 4)
    labels = torch.randint(0, 3, batch)
    answer = embedding(labels[..., None].to(dtype))
    assert answer.shape == (*batch, 4) and torch.equal(answer, embedding.weight[labels])


@pytest.mark.parametrize(("dtype", "classes"), [(torch.uint8, 300), (torch.int8, 300), (torch.float16, 70_000)])
def test_more_classes_than_a_dtype_counts(dtype: torch.dtype, classes: int) -> None:
    embedding = ClassEmbedding(classes, 1)
    labels = torch.tensor([[0], [100]])
    assert torch.equal(embedding(labels.to(dtype)), embedding.weight[labels[:, 0]])


def test_a_label_is_not_rounded_to_the_last_class() -> None:
    with pytest.raises(ValueError, match="context: expected labels from 0 to 298, found 300"):
        ClassEmbedding(299, 1)(torch.tensor([[300.0]], dtype=torch.bfloat16))


def test_gradients_go_to_the_classes_that_were_seen() -> None:
    embedding = ClassEmbedding(3, 2, dtype=DOUBLE)
    labels = torch.tensor([[0.0], [2.0], [2.0]])
    embedding(labels).sum().backward()
    assert embedding.weight.grad.tolist() == [[1, 1], [0, 0], [2, 2]]


@pytest.mark.parametrize("label", [-1.0, 3.0, 0.5, torch.nan, torch.inf])
def test_what_is_no_label_is_named(label: float) -> None:
    context = torch.tensor([[1.0], [label]])
    embedding = ClassEmbedding(3, 2)
    with pytest.raises(ValueError, match=f"context: expected labels from 0 to 2, found {label:.9g}"):
        embedding(context)
    compiled = torch.compile(embedding, fullgraph=True, backend="aot_eager")
    answer = compiled(context)
    assert answer[1].isnan().all() and torch.equal(answer[0], embedding.weight[1])


def test_flows_see_labels() -> None:
    model = flow()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    x, labels = torch.randn(6, 2, dtype=DOUBLE), torch.tensor([[0], [1], [2], [0], [1], [2]])
    log_prob = model.log_prob(x, labels)
    torch.testing.assert_close(log_prob, model.log_prob(x, labels.double()))
    for i, label in enumerate(labels):
        torch.testing.assert_close(model.log_prob(x[i], label), log_prob[i])
    grid = model.log_prob(x, torch.arange(3)[:, None, None])
    assert grid.shape == (3, 6)
    torch.testing.assert_close(grid[labels[:, 0], torch.arange(6)], log_prob)
    assert model.sample(5, torch.arange(3)[:, None]).shape == (5, 3, 2)


@pytest.mark.parametrize("kind", [RealNVP, MAF])
def test_config_and_state_dict(kind: type[RealNVP | MAF]) -> None:
    embedding = ClassEmbedding(3, 4)
    model = kind(2, transforms=2, hidden_features=(8,), context_features=1, embedding=embedding)
    assert model.embedding is embedding
    twin = kind(**json.loads(json.dumps(model.config)))
    twin.load_state_dict(model.state_dict())
    x, labels = torch.randn(3, 2), torch.arange(3)[:, None]
    assert isinstance(twin.embedding, ClassEmbedding) and torch.equal(twin.log_prob(x, labels), model.log_prob(x, labels))


def test_a_description_without_a_name_is_of_an_mlp() -> None:
    named = flow(embedding={"embedding": "MLP", "features": 3})
    assert type(named.embedding) is MLP is type(flow(embedding={"features": 3}).embedding)
    assert named.config["embedding"]["embedding"] == "MLP"


def test_labels_are_not_standardised() -> None:
    model = flow()
    model.fit_standardisation(3 * torch.randn(20, 2, dtype=DOUBLE), torch.arange(20)[:, None] % 3)
    assert model.standardise_context is None and isinstance(model.transform[0], Standardise)
    with pytest.raises(ValueError, match="standardise_context: expected False with a ClassEmbedding"):
        flow(standardise_context=True)


def test_models_built_for_data_see_labels_as_they_are() -> None:
    rows = torch.randn(30, 2).numpy()
    labels = (torch.arange(30)[:, None] % 3).float().numpy()
    part = Part(rows, labels)
    options = {"transforms": 1, "hidden_features": [4]}
    embedding = {"embedding": "ClassEmbedding", "classes": 3, "features": 2}
    model = build("maf", Dataset("rows", 0, part, part, part), embedding=embedding, **options)
    assert model.standardise_context is None
    assert build("maf", Dataset("rows", 0, part, part, part), **options).standardise_context is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassEmbedding(0, 1), "classes: expected at least 1, found 0"),
        (lambda: ClassEmbedding(1, 0), "features: expected at least 1, found 0"),
        (lambda: ClassEmbedding(2, 1)(torch.zeros(3, 2)), r"context: expected shape \(..., 1\), found \(3, 2\)"),
        (lambda: flow(context_features=2), "context_features: expected 1, the label, for a ClassEmbedding, found 2"),
        (lambda: flow(embedding={"embedding": "Words"}), "embedding: expected 'embedding' to be one of MLP, ClassEmbedding"),
    ],
)
def test_bad_arguments_are_named(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
