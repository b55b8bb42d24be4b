"""Models as folders: what is saved comes back equal, whatever the class, and what does not fit is named in one line."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastgen import flows, io, models
from fastgen.nn import MADE, MLP, ConvNet, Joined, ResidualMLP, network_of_masks
from fastgen.nn.pretrained import Pretrained
from fastgen.ops import Checkerboard, MaskedNetwork

SMALL: dict[str, Any] = {"hidden_features": (6, 6)}
MADE_TO_SAVE: dict[str, Any] = {
    "maf": partial(flows.MAF, 4, transforms=2, batch_norm=True, context_features=2, standardise_context=True, **SMALL),
    "maf, divide": partial(flows.MAF, 4, transforms=2, form="divide", order="random", hidden_degrees="random", **SMALL),
    "iaf": partial(flows.IAF, 4, transforms=2, base={"base": "MixtureOfNormals", "components": 3}, **SMALL),
    "nice": partial(flows.NICE, 4, transforms=2, embedding={"features": 3}, context_features=2, **SMALL),
    "realnvp": partial(flows.RealNVP, shape=(1, 4, 4), transforms=3, reversible=True, **SMALL),
    "planar": partial(flows.PlanarFlow, 4, transforms=40),
    "radial": partial(flows.RadialFlow, 4, transforms=3, preprocess=[flows.Logit(0.05)]),
    "maf mog": partial(models.MAFMoG, 4, transforms=2, components=2, **SMALL),
    "gaussian autoregressive": partial(models.GaussianAutoregressive, 4),
    "gaussian made": partial(models.GaussianMADE, 4, masks=3, order="random", **SMALL),
    "mixture made": partial(models.MixtureMADE, 4, components=2, **SMALL),
    "bernoulli made": partial(models.BernoulliMADE, 4, **SMALL),
    "categorical made": partial(models.CategoricalMADE, 4, categories=3, **SMALL),
    "fvsbn": partial(models.FVSBN, 4),
    "vae": partial(models.VAE, 4, latent_features=2, hidden_features=(6,)),
    "vae, planar": partial(models.VAE, 4, latent_features=2, hidden_features=(6,), posterior="planar", transforms=50),
    "iwae": partial(models.IWAE, 4, latent_features=2, hidden_features=(6,), posterior="iaf"),
}


def perturbed(model: nn.Module) -> nn.Module:
    """Numbers that no initialisation gives, so that those that come back were read."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", MADE_TO_SAVE)
def test_every_model_comes_back_equal(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = perturbed(MADE_TO_SAVE[name]())
    model.save_pretrained(tmp_path / "folder" / "model")
    state = torch.get_rng_state()
    again = Pretrained.from_pretrained(tmp_path / "folder" / "model")
    assert type(again) is type(model) and again.config == model.config and not again.training
    assert {key: t.tolist() for key, t in again.state_dict().items()} == {k: t.tolist() for k, t in model.state_dict().items()}
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(os.listdir(tmp_path / "folder" / "model")) == ["config.json", "model.safetensors"]
    context = (torch.randn(2),) if model.config.get("context_features") else ()
    drawn = []
    for each in (model, again):
        torch.manual_seed(1)
        drawn.append(each.sample(3, *context))
    assert torch.equal(*drawn)


def foreign_network() -> MaskedNetwork:
    """Of 4 features and 3 hidden units."""
    masks = [torch.ones(3, 4).tril(), torch.ones(4, 3).tril(-1).repeat_interleave(2, 0)]
    return network_of_masks(masks, activations=["tanh", "identity"])


def composed() -> flows.Flow:
    """A flow of everything that a description can name, put together by hand."""
    network = foreign_network()
    pair = [MLP(2, 2, context_features=3), MLP(2, 2, context_features=3)]
    own: list[flows.Transform] = [
        flows.Standardise(4),
        flows.Permutation.reverse(4),
        flows.MaskedAutoregressiveTransform(
            4, network=network, form="divide", context_features=3, context_activation="tanh", scale_map={"kind": "softplus"}
        ),
        flows.Inverse(flows.MaskedAutoregressiveTransform(4, context_features=3, order=(2, 1, 4, 3), **SMALL)),
        flows.BatchNorm(4, momentum=0.2),
        flows.Scaling(4, shift=True),
        flows.AffineCoupling(4, [True, False, False, True], Joined(pair)),
        flows.Inverse(flows.AdditiveCoupling(4, [False, True, True, True], ResidualMLP(1, 3, context_features=3, **SMALL))),
        flows.PlanarTransform(4, 2),
        flows.Inverse(flows.RadialTransform(4)),
        flows.Unflatten((1, 2, 2)),
        flows.AffineCoupling((1, 2, 2), Checkerboard(1), ConvNet(1, 2, hidden_channels=2, blocks=1, context_features=3)),
        flows.Inverse(flows.Unflatten((1, 2, 2))),
    ]
    flow = flows.Flow(flows.ConditionalDiagonalNormal(4, 3), flows.Composed(own), flows.MLP(2, 3))
    flow.standardise_context = flows.Standardise(2)
    return flow


def test_a_flow_put_together_by_hand_comes_back_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    flow = perturbed(composed())
    assert isinstance(flow, flows.Flow)
    flow.save_pretrained(tmp_path)
    again = flows.Flow.from_pretrained(tmp_path)
    assert type(again) is flows.Flow and again.config == flow.config == json.loads(json.dumps(flow.config))
    x, context = torch.randn(5, 4), torch.randn(5, 2)
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))


def test_the_class_asked_for_is_the_class_that_comes(tmp_path: Path) -> None:
    flows.MAF(3, transforms=1, **SMALL).save_pretrained(tmp_path)
    assert type(flows.AutoregressiveFlow.from_pretrained(tmp_path)) is flows.MAF
    with pytest.raises(io.FileError, match=r"model\.safetensors: expected a model of the class IAF .*, found 'MAF'"):
        flows.IAF.from_pretrained(tmp_path)


def test_dtype_and_file_alone(tmp_path: Path) -> None:
    flow = flows.MAF(3, transforms=1, dtype=torch.float64, **SMALL)
    flow.save_pretrained(tmp_path)
    x = torch.randn(4, 3, dtype=torch.float64)
    alone = flows.Flow.from_pretrained(tmp_path / "model.safetensors")
    assert torch.equal(alone.log_prob(x), flow.log_prob(x))
    single = flows.Flow.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(single.log_prob(x.float()), flow.log_prob(x).float(), rtol=1e-5, atol=1e-5)
    assert single.sample(2).dtype == torch.float32
    with pytest.raises(TypeError, match="dtype: expected a floating one"):
        flows.Flow.from_pretrained(tmp_path, dtype=torch.int64)


def rewritten(folder: Path, **changes: Any) -> None:
    """The folder with another description in both of its files."""
    state, description = io.load(folder / "model.safetensors")
    description = {**description, **changes}
    io.save(folder / "model.safetensors", state, description)
    io.write_json(folder / "config.json", description)


def altered(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def more_numbers(folder: Path) -> None:
    state, description = io.load(folder / "model.safetensors")
    io.save(folder / "model.safetensors", {**state, "more": torch.zeros(2)}, description)


BROKEN: dict[str, tuple[Any, str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: .* no such file"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: expected the model's config, found: No such file"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json: expected JSON, found"),
    "another config": (lambda f: (f / "config.json").write_text("{}"), r"config\.json: expected the config that model"),
    "altered": (altered, r"model\.safetensors: expected the numbers that were written, found others"),
    "more numbers": (more_numbers, "the config of a MAF, found: .*Unexpected key.*more"),
    "newer": (lambda f: rewritten(f, format=3), "expected a checkpoint of format 2, found 3, which a newer fastgen wrote"),
    "unknown": (lambda f: rewritten(f, model={"name": "GAN", "config": {}}), "class Flow or one derived from it, found 'GAN'"),
    "code": (lambda f: rewritten(f, model={"name": "os.system", "config": {}}), "derived from it, found 'os.system'"),
    "another class": (
        lambda f: rewritten(f, model={"name": "IAF", "config": {"features": 3}}),
        "the config of a IAF",
    ),
    "no object": (lambda f: rewritten(f, model={"name": "MAF", "config": [1]}), "config: expected an object, found list"),
    "no model": (lambda f: rewritten(f, model=3), "class Flow or one derived from it, found None"),
    "huge": (lambda f: rewritten(f, model={"name": "MAF", "config": {"features": 10**12}}), "features: expected a size"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_does_not_fit_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    flows.MAF(3, transforms=1, **SMALL).save_pretrained(tmp_path)
    change, message = BROKEN[name]
    change(tmp_path)
    with pytest.raises(io.FileError, match=message) as caught:
        flows.Flow.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_description_names_transforms_and_nothing_else(tmp_path: Path) -> None:
    flow = flows.Flow(flows.StandardNormal(2), flows.Scaling(2))
    flow.save_pretrained(tmp_path)
    for kind in ("Module", "system", ["Scaling"]):
        config = {**flow.config, "transform": {"kind": kind, "features": 2}}
        rewritten(tmp_path, model={"name": "Flow", "config": config})
        with pytest.raises(io.FileError, match="expected the numbers and the config of a Flow"):
            flows.Flow.from_pretrained(tmp_path)


def test_what_a_config_cannot_describe_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class WithoutConfig(flows.Transform):
        def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
            raise NotImplementedError

    scaling = type("Scaling", (flows.Scaling,), {})(2)
    parts = [
        (
            flows.StandardNormal(2),
            scaling,
            None,
            "transform: expected a class whose name no other transform has, found Scaling",
        ),
        (flows.StandardNormal(2), WithoutConfig(), None, "expected one that has a config, found WithoutConfig"),
        (flows.StandardNormal(2), flows.AffineCoupling(2, [True, False], nn.Linear(1, 2)), None, "network: expected .* Linear"),
        (flows.StandardNormal(2), flows.Scaling(2), nn.Linear(1, 2), "embedding: expected .* found Linear"),
        (flows.Distribution(), flows.Scaling(2), None, "base: expected .* found Distribution"),
    ]
    for base, transform, embedding, message in parts:
        with pytest.raises(TypeError, match=message):
            flows.Flow(base, transform, embedding).save_pretrained(tmp_path / "model")
    MAF = type("MAF", (flows.MAF,), {})
    with pytest.raises(TypeError, match="MAF: expected a class whose name no other model has"):
        MAF(2, **SMALL).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_write_that_fails_leaves_the_numbers_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = flows.MAF(2, transforms=1, **SMALL), flows.MAF(2, transforms=1, **SMALL)
    first.save_pretrained(tmp_path)

    def fail(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(io.FileError, match=r"model\.safetensors: cannot be written: No space left"):
        second.save_pretrained(tmp_path)
    monkeypatch.undo()
    x = torch.randn(3, 2)
    assert torch.equal(flows.Flow.from_pretrained(tmp_path).log_prob(x), first.log_prob(x))
    (tmp_path / "file").write_text("")
    with pytest.raises(io.FileError, match="file"):
        first.save_pretrained(tmp_path / "file")


def test_a_network_that_is_no_autoregressive_one_is_refused() -> None:
    network = foreign_network()
    with pytest.raises(ValueError, match="network: expected 3 inputs and one mask, found 4 with masks=1"):
        MADE(3, network=network)
    with pytest.raises(ValueError, match="network: expected 1 outputs of each feature's degree"):
        MADE(4, outputs=1, network=network)
    with pytest.raises(ValueError, match="form: expected one of multiply, divide, found 'add'"):
        flows.MaskedAutoregressiveTransform(4, form="add")
