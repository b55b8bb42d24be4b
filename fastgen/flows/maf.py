"""The masked autoregressive flow."""

from __future__ import annotations

from .autoregressive import MaskedAutoregressiveTransform
from .autoregressive_flow import AutoregressiveFlow
from .transform import Transform


class MAF(AutoregressiveFlow):
    """A masked autoregressive flow: each transform reads the data, z_i = (x_i - mu_i(x_<i)) e^{-s_i(x_<i)}.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation". Arguments: those of `AutoregressiveFlow`.
    A log_prob is one pass of every network, and a sample costs about the same (`fastgen.ops.autoregressive_inverse`).
    """

    def directed(self, block: MaskedAutoregressiveTransform) -> Transform:
        return block
