"""gaussian_rsample_kl and gaussian_rsample_log_ratio against the lines of PyTorch they stand for, with torch's own normals.

Bytes forward: mean and log_var read, z and one number per row written, of each sample. Backward reads the two and both incoming
gradients and writes two gradients; noise is made and never stored. There is no matrix product. torch's normals are others than
fastgen's, so that what is checked of PyTorch and its compiler is their formula with the definition's noise given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastgen import ops
from fastgen.reference.philox import philox_normal

from ..case import OURS, Case, Function, Setting, Work, leaves, passes
from ..precision import word
from ..providers import compiled

OPERATION = "gaussian_rsample_kl"
TARGETS = {
    (16384, 256): {"forward": {"PyTorch": 6.0}, "forward+backward": {"PyTorch": 6.0}},
    (65536, 256): {
        "forward": {"PyTorch": 5.0, "compiled": 5.0},
        "forward+backward": {"PyTorch": 4.0, "compiled": 4.0},
    },
}


# Samples of each row, as an importance-weighted bound takes them.
SAMPLES = 5


def given(mean: Tensor, log_var: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z = mean + torch.exp(0.5 * log_var) * noise
    return z, 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)


def plain(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    return given(mean, log_var, torch.randn_like(mean))


def ratio_given(mean: Tensor, log_var: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z = mean + torch.exp(0.5 * log_var) * noise
    return z, 0.5 * (z.square() - noise.square() - log_var).sum(-1)


def plain_ratio(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    return ratio_given(mean, log_var, torch.randn(SAMPLES, *mean.shape, dtype=mean.dtype, device=mean.device))


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features in ((256, 64),) if setting.quick else ((256, 64), (16384, 256), (65536, 256)):
        yield from _kl(batch, features, setting)
    for batch, features in ((256, 20),) if setting.quick else ((256, 20), (4096, 64)):
        yield from _log_ratio(batch, features, setting)


def _kl(batch: int, features: int, setting: Setting) -> Iterator[Case]:
    seed = torch.tensor(7, device=setting.device)
    inputs = _inputs(batch, features, setting)
    candidates = {
        OURS: lambda mean, log_var: ops.gaussian_rsample_kl(mean, log_var, seed=seed),
        "PyTorch": plain,
        **compiled(plain, setting),
    }
    work = Work(0, word() * batch * (3 * features + 1)), Work(0, word() * batch * (5 * features + 1))
    truth, checked = _checks(given, seed, (batch, features), setting)
    shape, targets = f"{batch} x {features}", TARGETS.get((batch, features))
    yield from passes(OPERATION, shape, candidates, truth, inputs, work, targets, checked=checked)


def _log_ratio(batch: int, features: int, setting: Setting) -> Iterator[Case]:
    seed = torch.tensor(7, device=setting.device)
    inputs = _inputs(batch, features, setting)
    candidates = {
        OURS: lambda mean, log_var: ops.gaussian_rsample_log_ratio(mean, log_var, samples=SAMPLES, seed=seed),
        "PyTorch": plain_ratio,
        **compiled(plain_ratio, setting),
    }
    read, made = 2 * batch * features, SAMPLES * batch * (features + 1)
    work = Work(0, word() * (read + made)), Work(0, word() * (2 * read + made))
    truth, checked = _checks(ratio_given, seed, (SAMPLES, batch, features), setting)
    shape = f"{SAMPLES} of {batch} x {features}"
    yield from passes("gaussian_rsample_log_ratio", shape, candidates, truth, inputs, work, checked=checked)


def _inputs(batch: int, features: int, setting: Setting) -> list[Tensor]:
    return leaves(*(torch.randn(batch, features, device=setting.device) for _ in range(2)))


def _checks(
    formula: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], seed: Tensor, shape: tuple[int, ...], setting: Setting
) -> tuple[Function, dict[str, Function]]:
    """The formula with fastgen's noise, which is the truth, and what stands for the candidates that draw their own.

    In float64 the noise is rounded elsewhere: the truth is of the noise in the precision of the run.
    """
    noise = philox_normal(shape, seed, torch.get_default_dtype())

    def with_noise(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        return formula(mean, log_var, noise.to(mean.dtype))

    return with_noise, {"PyTorch": with_noise, **compiled(with_noise, setting)}
