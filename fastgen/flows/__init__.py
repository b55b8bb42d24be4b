"""Normalizing flows: invertible transforms with their log-determinants, compositions and base distributions."""

from .autoregressive import MaskedAutoregressiveTransform
from .autoregressive_flow import AutoregressiveFlow
from .base import Distribution, StandardNormal
from .batch_norm import BatchNorm
from .bounds import Bounds
from .elementwise import Logit, Standardise, UnitInterval, dequantise
from .embedding import MLP
from .flow import Flow
from .iaf import IAF
from .maf import MAF
from .mixture import MixtureOfNormals
from .normal import ConditionalDiagonalNormal, DiagonalNormal
from .permutation import Permutation
from .planar import PlanarFlow, PlanarTransform, RadialFlow, RadialTransform
from .registry import BASES, PREPROCESSING
from .transform import Composed, Inverse, Transform
from .truncated import Acceptance, Truncated
from .uniform import Uniform

__all__ = [
    "BASES",
    "IAF",
    "MAF",
    "MLP",
    "PREPROCESSING",
    "Acceptance",
    "AutoregressiveFlow",
    "BatchNorm",
    "Bounds",
    "Composed",
    "ConditionalDiagonalNormal",
    "DiagonalNormal",
    "Distribution",
    "Flow",
    "Inverse",
    "Logit",
    "MaskedAutoregressiveTransform",
    "MixtureOfNormals",
    "Permutation",
    "PlanarFlow",
    "PlanarTransform",
    "RadialFlow",
    "RadialTransform",
    "StandardNormal",
    "Standardise",
    "Transform",
    "Truncated",
    "Uniform",
    "UnitInterval",
    "dequantise",
]
