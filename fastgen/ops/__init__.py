"""How each operation is called: validation, registered kernels and one autograd Function per operation."""

from ..reference import AutoregressiveBlock, Checkerboard, ConditionalSampler, MaskedLayer, MaskedNetwork, ScaleMap
from ._coupling_plan import CouplingPlan, make_coupling_plan
from ._plan import LinearPlan, NetworkPlan, make_network_plan, make_plan
from .affine_autoregressive import affine_autoregressive
from .autoregressive_inverse import autoregressive_inverse
from .autoregressive_sample import autoregressive_sample
from .coupling import additive_coupling, affine_coupling
from .gaussian_log_prob import gaussian_log_prob
from .gaussian_mixture_log_prob import gaussian_mixture_log_prob
from .gaussian_rsample_kl import gaussian_rsample_kl, gaussian_rsample_log_ratio
from .iwae_bound import iwae_bound
from .likelihoods import bernoulli_log_prob, categorical_log_prob, discretized_logistic_log_prob
from .masked_autoregressive import (
    masked_autoregressive,
    masked_autoregressive_log_prob,
    masked_autoregressive_stack,
    masked_autoregressive_stack_log_prob,
)
from .masked_linear import masked_linear
from .masked_mlp import masked_mlp
from .planar import planar, planar_inverse
from .radial import radial, radial_inverse

__all__ = [
    "AutoregressiveBlock",
    "Checkerboard",
    "ConditionalSampler",
    "CouplingPlan",
    "LinearPlan",
    "MaskedLayer",
    "MaskedNetwork",
    "NetworkPlan",
    "ScaleMap",
    "additive_coupling",
    "affine_autoregressive",
    "affine_coupling",
    "autoregressive_inverse",
    "autoregressive_sample",
    "bernoulli_log_prob",
    "categorical_log_prob",
    "discretized_logistic_log_prob",
    "gaussian_log_prob",
    "gaussian_mixture_log_prob",
    "gaussian_rsample_kl",
    "gaussian_rsample_log_ratio",
    "iwae_bound",
    "make_coupling_plan",
    "make_network_plan",
    "make_plan",
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
