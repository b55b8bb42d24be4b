"""Trained models of other libraries as flows of this one, with the same numbers.

Each function here takes a whole model and gives a `fastgen.flows.Flow` in its training mode, with parameters of its own, of the
model's dtype and device. A flow that has been converted trains, saves and exports as any other. What it computes is what the
model computes in evaluation mode: dropout is left out. Connections that the masks of the other library forbid but degrees allow
hold zeros, and may grow when it is trained further: the flow stays autoregressive.
"""

from __future__ import annotations

from typing import Any

from ...flows import Flow


def from_nflows(model: Any) -> Flow:
    """The flow of an `nflows.flows.Flow` of masked affine autoregressive transforms and affine or additive couplings.

    Between them permutations, batch norm, actnorm and fixed affine maps may stand. Raises TypeError, naming the layer and the
    reason, for what cannot be expressed exactly.
    """
    from .nflows import convert

    return convert(model)


def from_normflows(model: Any) -> Flow:
    """The flow of a `normflows.NormalizingFlow` of masked affine autoregressive flows and affine couplings, reversed or not.

    Between them permutations, actnorm and constant affine maps may stand. Raises TypeError, naming the layer and the reason,
    for what cannot be expressed exactly.
    """
    from .normflows import convert

    return convert(model)


def from_zuko(model: Any) -> Flow:
    """The flow of a `zuko.flows.Flow` of affine masked autoregressive transforms and couplings, as MAF and RealNVP are.

    Raises TypeError, naming the layer and the reason, for what cannot be expressed exactly.
    """
    from .zuko import convert

    return convert(model)


def from_pyro(distribution: Any) -> Flow:
    """The flow of a `TransformedDistribution` of Pyro, or its conditional form, over a diagonal normal.

    Its transforms may be AffineAutoregressive and AffineCoupling, their conditional forms and inverses, Permute and BatchNorm.
    Raises TypeError, naming the layer and the reason, for what cannot be expressed exactly.
    """
    from .pyro import convert

    return convert(distribution)


def from_freia(model: Any) -> Flow:
    """The flow of a FrEIA `SequenceINN`, data to noise, over a standard normal: couplings, with TANH or SIGMOID clamps.

    Raises TypeError, naming the layer and the reason, for what cannot be expressed exactly: FrEIA's own clamp, an arctangent,
    is one of these.
    """
    from .freia import convert

    return convert(model)


__all__ = ["from_freia", "from_nflows", "from_normflows", "from_pyro", "from_zuko"]
