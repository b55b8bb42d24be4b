"""Normalizing flows: invertible transforms with their log-determinants, compositions and base distributions."""

from .autoregressive import MaskedAutoregressiveTransform
from .autoregressive_flow import AutoregressiveFlow
from .base import Distribution, StandardNormal
from .batch_norm import BatchNorm
from .bounds import Bounds
from .coupling import AdditiveCoupling, AffineCoupling, Coupling
from .coupling_flow import CouplingFlow
from .elementwise import Dequantize, Logit, Standardise, UnitInterval, dequantize
from .embedding import EMBEDDINGS, MLP
from .flow import Flow
from .iaf import IAF
from .image import Unflatten
from .labels import ClassEmbedding
from .logistic import StandardLogistic
from .maf import MAF
from .mixture import MixtureOfNormals
from .nice import NICE
from .normal import ConditionalDiagonalNormal, DiagonalNormal
from .permutation import Permutation
from .planar import PlanarFlow, PlanarTransform
from .radial import RadialFlow, RadialTransform
from .realnvp import RealNVP
from .registry import BASES, PREPROCESSING
from .scaling import Scaling
from .transform import Composed, Inverse, Transform
from .truncated import Acceptance, Truncated
from .unconditional import Unconditional
from .uniform import Uniform

__all__ = [
    "BASES",
    "EMBEDDINGS",
    "IAF",
    "MAF",
    "MLP",
    "NICE",
    "PREPROCESSING",
    "Acceptance",
    "AdditiveCoupling",
    "AffineCoupling",
    "AutoregressiveFlow",
    "BatchNorm",
    "Bounds",
    "ClassEmbedding",
    "Composed",
    "ConditionalDiagonalNormal",
    "Coupling",
    "CouplingFlow",
    "Dequantize",
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
    "RealNVP",
    "Scaling",
    "StandardLogistic",
    "StandardNormal",
    "Standardise",
    "Transform",
    "Truncated",
    "Unconditional",
    "Unflatten",
    "Uniform",
    "UnitInterval",
    "dequantize",
]
