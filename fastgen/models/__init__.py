"""Densities and generative models of the field."""

from .autoregressive_density import AutoregressiveDensity
from .bernoulli_made import BernoulliMADE
from .categorical_made import CategoricalMADE
from .conditionals import Bernoulli, Categorical, Conditional, Gaussian, Mixture
from .gaussian_made import GaussianMADE
from .maf_mog import MAFMoG
from .mixture_made import MixtureMADE

__all__ = [
    "AutoregressiveDensity",
    "Bernoulli",
    "BernoulliMADE",
    "Categorical",
    "CategoricalMADE",
    "Conditional",
    "Gaussian",
    "GaussianMADE",
    "MAFMoG",
    "Mixture",
    "MixtureMADE",
]
