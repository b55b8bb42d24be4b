"""Densities and generative models of the field."""

from .bernoulli_made import BernoulliMADE
from .gaussian_made import GaussianMADE

__all__ = ["BernoulliMADE", "GaussianMADE"]
