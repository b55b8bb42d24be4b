from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastgen.flows import IAF, MAF, Logit, Standardise, UnitInterval
from fastgen.models import GaussianMADE, MAFMoG
from fastgen.train import Distillation, NonFiniteLoss, Observer, RunFolder, distill, student_of, train
from fastgen.train.checkpoint import load_checkpoint
from fastgen.train.config import TrainConfig
from fastgen.train.distill import distillation_noise, divergence

SMALL = {"transforms": 2, "hidden_features": (16,), "activation": "tanh"}


def teacher(features: int = 3, std: float = 0.3, kind: type[MAF] = MAF, **options) -> MAF:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    flow = kind(features, **{**SMALL, **options})
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=std)
    return flow.eval()


def student(of: MAF, **options) -> IAF:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    return student_of(of, **{**SMALL, **options})


def normal(mean: list[float], log_scale: list[float], kind: type = MAF):  # type: ignore[no-untyped-def]
    """A flow whose samples are normal with this mean and, feature by feature, this scale."""
    flow = kind(2, transforms=1, hidden_features=(), scale_map={"kind": "identity"}).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
        (bias,) = (p for name, p in flow.named_parameters() if name.endswith("bias"))
        # A MAF's network gives mean and log-scale of the data, an IAF's those of the noise.
        sign = 1 if kind is MAF else -1
        mean = [sign * m * (1 if kind is MAF else math.exp(-s)) for m, s in zip(mean, log_scale, strict=True)]
        bias.copy_(torch.tensor([[m, sign * s] for m, s in zip(mean, log_scale, strict=True)]).flatten())
    return flow


def test_the_loss_is_the_divergence_of_two_normals() -> None:
    mean, log_scale, other_mean, other_scale = [0.3, -1.0], [0.2, -0.1], [0.0, -0.5], [0.5, 0.0]
    model = Distillation(normal(mean, log_scale, IAF), normal(other_mean, other_scale))
    p, q = (
        torch.distributions.Normal(torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64).exp())
        for m, s in ((other_mean, other_scale), (mean, log_scale))
    )
    truth = torch.distributions.kl_divergence(q, p).sum().item()
    found = divergence(model, distillation_noise(model))
    assert found.standard_error < 0.01
    assert -found.mean == pytest.approx(truth, abs=5 * found.standard_error)


@pytest.mark.parametrize("preprocess", [(), (UnitInterval(4), Logit(0.05), Standardise(3))], ids=["", "preprocess"])
def test_log_prob_is_the_ratio_of_densities_at_the_samples(preprocess) -> None:  # type: ignore[no-untyped-def]
    of = teacher(preprocess=preprocess).double()
    model = Distillation(student(of).double(), of)
    z = torch.randn(20, 3, dtype=torch.float64)
    with torch.no_grad():
        x = model.student.transform.inverse(z)[0]
        expected = of.log_prob(x) - model.student.log_prob(x)
        torch.testing.assert_close(model.log_prob(z), expected, rtol=1e-6, atol=1e-6)


def test_its_gradient_goes_through_the_samples_to_the_student_alone() -> None:
    of = teacher().double()
    model = Distillation(student(of).double(), of)
    z = torch.randn(50, 3, dtype=torch.float64)
    model.log_prob(z).mean().backward()
    assert all(p.grad is None for p in of.parameters()) and all(p.grad is None for p in model.teacher.parameters())
    name, parameter = next((n, p) for n, p in model.student.named_parameters() if n.endswith("weight"))
    assert parameter.grad is not None

    def mean_at(step: float) -> float:
        with torch.no_grad():
            parameter.view(-1)[0] += step
            value = model.log_prob(z).mean().item()
            parameter.view(-1)[0] -= step
        return value

    slope = (mean_at(1e-5) - mean_at(-1e-5)) / 2e-5
    assert parameter.grad.view(-1)[0].item() == pytest.approx(slope, rel=1e-6), name


def test_a_student_with_the_teachers_own_weights_has_no_divergence() -> None:
    of = teacher(kind=IAF)
    twin = IAF(3, **SMALL)
    twin.load_state_dict(of.state_dict())
    # Two orders of rounding of the same numbers in float32.
    assert Distillation(twin, of).log_prob(torch.randn(100, 3)).abs().max() < 1e-4


def test_a_student_comes_close_to_its_teacher() -> None:
    of = teacher()
    own = student(of, hidden_features=(32, 32))
    model = Distillation(own, of)
    before = -divergence(model, distillation_noise(model)).mean
    records = distill(own, of, rows=2048, epochs=12, batch_size=64, learning_rate=1e-2, schedule="cosine")
    after = -3 * max(r.valid for r in records)
    assert 0 < after < 0.02 < 0.2 < before
    with torch.no_grad():
        x, log_prob = own.sample_and_log_prob(4000)
        # A log-ratio of this divergence deviates by about sqrt(2 KL) = 0.2: the mean of 4000 by 0.003.
        assert (log_prob - of.log_prob(x)).mean().item() == pytest.approx(after, abs=0.015)


@pytest.mark.parametrize("base", ["DiagonalNormal", "mog"])
def test_teachers_with_other_bases(base: str) -> None:
    of = teacher(kind=MAFMoG, components=3) if base == "mog" else teacher(base={"base": base})
    model = Distillation(student(of), of)
    z = torch.randn(10, 3)
    with torch.no_grad():
        x = model.student.transform.inverse(z)[0]
        torch.testing.assert_close(model.log_prob(z), of.log_prob(x) - model.student.log_prob(x), rtol=1e-4, atol=1e-4)


class Crash(Exception):
    pass


class CrashAt(Observer):
    def __init__(self, step: int) -> None:
        self.left = step

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash


def _bits(records):  # type: ignore[no-untyped-def]
    return [(r.epoch, r.step, r.train, r.valid) for r in records]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path, ema: float | None) -> None:
    of = teacher(preprocess=[Standardise(3)])
    settings = {"rows": 200, "epochs": 3, "batch_size": 64, "save_every": 0.0, "ema": ema}
    whole = student(of)
    records = distill(whole, of, run=tmp_path / "whole", **settings)
    with pytest.raises(Crash):
        distill(student(of), of, run=tmp_path / "parts", observers=[CrashAt(6)], **settings)
    again = student(of)
    assert _bits(distill(again, of, run=tmp_path / "parts", resume=True, **settings)) == _bits(records)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_the_checkpoint_is_the_student(tmp_path: Path) -> None:
    of = teacher(preprocess=[UnitInterval(4), Logit(0.05), Standardise(3)])
    own = student(of)
    distill(own, of, rows=100, epochs=2, run=tmp_path)
    again, description = load_checkpoint(RunFolder(tmp_path).checkpoint)
    assert type(again) is IAF and description["model"]["name"] == "iaf"
    x = of.sample(5)
    assert torch.equal(again.log_prob(x), own.eval().log_prob(x))


def test_another_teacher_is_refused_on_resuming(tmp_path: Path) -> None:
    of = teacher()
    distill(student(of), of, rows=100, epochs=1, run=tmp_path)
    with pytest.raises(ValueError, match="data: expected that of the run that is resumed"):
        distill(student(of), teacher(std=0.31), rows=100, epochs=1, run=tmp_path, resume=True)


def test_the_teacher_stays_as_it_is() -> None:
    of = teacher(batch_norm=True)
    before = {name: t.clone() for name, t in of.state_dict().items()}
    distill(student(of), of, rows=100, epochs=2)
    assert all(torch.equal(t, before[name]) for name, t in of.state_dict().items())
    assert all(p.requires_grad for p in of.parameters())


def test_a_step_that_is_not_finite_is_named() -> None:
    of = teacher()
    with pytest.raises(NonFiniteLoss, match=r"step \d+ \(epoch 1\)"):
        distill(student(of), of, rows=256, epochs=2, batch_size=32, learning_rate=1e38)


def test_accumulation_changes_nothing_but_rounding() -> None:
    of = teacher()

    def trained(accumulate: int) -> dict[str, Tensor]:
        model = Distillation(student(of), of)
        config = TrainConfig(epochs=1, batch_size=64, accumulate=accumulate)
        train(model, distillation_noise(model, 256), config)
        return model.state_dict()

    one, parts = trained(1), trained(3)
    for name, value in one.items():
        # Adam's steps are of about the learning rate, 1e-3, whatever the gradient: its rounding is that of their direction.
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-4)


BAD = [
    (lambda: Distillation(student(teacher()), GaussianMADE(3)), "teacher: expected a flow such as a MAF, found GaussianMADE"),
    (lambda: student_of(MAF(3, context_features=2)), "teacher: expected a flow without a context, found one of 2 features"),
    (lambda: Distillation(IAF(4), teacher()), "student: expected 3 features, as the teacher has, found 4"),
    (
        lambda: Distillation(IAF(3, base={"base": "DiagonalNormal"}), teacher()),
        "student: expected a standard normal base, found DiagonalNormal",
    ),
    (lambda: Distillation(IAF(3, batch_norm=True), teacher()), "student: expected no batch normalisation"),
    (lambda: Distillation(IAF(3), teacher(preprocess=[Standardise(3)])), "student: expected the preprocessing of the teacher"),
    (lambda: distill(student(teacher()), teacher(), rows=0), "rows: expected at least 1, found 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_fit_is_named(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_another_standardisation_is_another_preprocessing() -> None:
    of = teacher(preprocess=[Standardise(3)])
    own = student(of)
    own.transform[0].mean.add_(1)  # type: ignore[operator,union-attr]
    with pytest.raises(ValueError, match="student: expected the preprocessing of the teacher"):
        Distillation(own, of)
