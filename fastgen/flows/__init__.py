"""Normalizing flows: invertible transforms with their log-determinants, compositions and base distributions."""

from .autoregressive import MaskedAutoregressiveTransform
from .base import Distribution, StandardNormal
from .elementwise import Logit, Standardise, UnitInterval, dequantise
from .flow import Flow
from .maf import MAF
from .permutation import Permutation
from .transform import Composed, Inverse, Transform

__all__ = [
    "MAF",
    "Composed",
    "Distribution",
    "Flow",
    "Inverse",
    "Logit",
    "MaskedAutoregressiveTransform",
    "Permutation",
    "StandardNormal",
    "Standardise",
    "Transform",
    "UnitInterval",
    "dequantise",
]
