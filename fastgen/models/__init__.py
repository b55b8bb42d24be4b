"""Densities and generative models of the field."""

from .autoregressive_density import AutoregressiveDensity
from .bernoulli_made import BernoulliMADE
from .categorical_made import CategoricalMADE
from .conditionals import Bernoulli, Categorical, Conditional, Gaussian, Mixture
from .fvsbn import FVSBN
from .gaussian_autoregressive import GaussianAutoregressive
from .gaussian_made import GaussianMADE
from .iwae import IWAE
from .maf_mog import MAFMoG
from .mixture_made import MixtureMADE
from .vae import VAE

__all__ = [
    "FVSBN",
    "IWAE",
    "VAE",
    "AutoregressiveDensity",
    "Bernoulli",
    "BernoulliMADE",
    "Categorical",
    "CategoricalMADE",
    "Conditional",
    "Gaussian",
    "GaussianAutoregressive",
    "GaussianMADE",
    "MAFMoG",
    "Mixture",
    "MixtureMADE",
]
