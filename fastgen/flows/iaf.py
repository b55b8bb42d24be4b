"""The inverse autoregressive flow."""

from __future__ import annotations

from .autoregressive import MaskedAutoregressiveTransform
from .autoregressive_flow import AutoregressiveFlow
from .transform import Inverse, Transform


class IAF(AutoregressiveFlow):
    """An inverse autoregressive flow: each transform reads the noise, x_i = (z_i - mu_i(z_<i)) e^{-s_i(z_<i)}.

    Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow". Arguments: those of
    `AutoregressiveFlow`. A sample and its log_prob are one pass of every network; the log_prob of data goes through
    `fastgen.ops.autoregressive_inverse`, with gradients, so that it trains by maximum likelihood as well.
    """

    def directed(self, block: MaskedAutoregressiveTransform) -> Transform:
        return Inverse(block)
