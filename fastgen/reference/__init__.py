"""What each operation is: plain PyTorch, a few lines, the definition every kernel is checked against."""

from .activations import ACTIVATIONS, activation_name
from .affine_autoregressive import affine_autoregressive
from .autoregressive_inverse import autoregressive_inverse
from .autoregressive_sample import autoregressive_sample
from .conditional_sampler import ConditionalSampler
from .coupling import Checkerboard, additive_coupling, affine_coupling
from .gaussian_log_prob import gaussian_log_prob
from .masked_linear import degree_mask, masked_linear
from .masked_mlp import MaskedLayer, MaskedNetwork, masked_mlp
from .scale_map import ScaleMap

__all__ = [
    "ACTIVATIONS",
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
    "degree_mask",
    "gaussian_log_prob",
    "masked_linear",
    "masked_mlp",
]
