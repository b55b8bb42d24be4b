"""Log-probabilities of what decoders put out, as operations."""

from __future__ import annotations

from ..reference import bernoulli_log_prob, categorical_log_prob, discretized_logistic_log_prob

__all__ = ["bernoulli_log_prob", "categorical_log_prob", "discretized_logistic_log_prob"]
