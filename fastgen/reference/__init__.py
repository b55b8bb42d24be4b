"""What each operation is: plain PyTorch, a few lines, the definition every kernel is checked against."""

from .activations import ACTIVATIONS, activation_name
from .affine_autoregressive import affine_autoregressive
from .autoregressive_inverse import autoregressive_inverse
from .autoregressive_sample import autoregressive_sample
from .conditional_sampler import ConditionalSampler
from .coupling import Checkerboard, additive_coupling, affine_coupling
from .gaussian_log_prob import gaussian_log_prob
from .gaussian_mixture_log_prob import gaussian_mixture_log_prob
from .gaussian_rsample_kl import gaussian_rsample_kl, gaussian_rsample_log_ratio
from .iwae_bound import iwae_bound
from .likelihoods import bernoulli_log_prob, categorical_log_prob, discretized_logistic_log_prob
from .masked_autoregressive import (
    AutoregressiveBlock,
    masked_autoregressive,
    masked_autoregressive_log_prob,
    masked_autoregressive_stack,
    masked_autoregressive_stack_log_prob,
)
from .masked_linear import degree_mask, masked_linear
from .masked_mlp import MaskedLayer, MaskedNetwork, masked_mlp
from .planar import planar, planar_inverse
from .radial import radial, radial_inverse
from .scale_map import ScaleMap

__all__ = [
    "ACTIVATIONS",
    "AutoregressiveBlock",
    "Checkerboard",
    "ConditionalSampler",
    "MaskedLayer",
    "MaskedNetwork",
    "ScaleMap",
    "activation_name",
    "additive_coupling",
    "affine_autoregressive",
    "affine_coupling",
    "autoregressive_inverse",
    "autoregressive_sample",
    "bernoulli_log_prob",
    "categorical_log_prob",
    "degree_mask",
    "discretized_logistic_log_prob",
    "gaussian_log_prob",
    "gaussian_mixture_log_prob",
    "gaussian_rsample_kl",
    "gaussian_rsample_log_ratio",
    "iwae_bound",
    "masked_autoregressive",
    "masked_autoregressive_log_prob",
    "masked_autoregressive_stack",
    "masked_autoregressive_stack_log_prob",
    "masked_linear",
    "masked_mlp",
    "planar",
    "planar_inverse",
    "radial",
    "radial_inverse",
]
