"""Training: the loop, what watches it, Gaussian baselines and the picture of the result."""

from .baselines import Gaussian, fit_gaussians
from .config import TrainConfig
from .log import CsvLog
from .loop import NonFiniteLoss, adam, mean_log_prob, train
from .observer import Best, Epoch, Observer
from .progress import progress

__all__ = [
    "Best",
    "CsvLog",
    "Epoch",
    "Gaussian",
    "NonFiniteLoss",
    "Observer",
    "TrainConfig",
    "adam",
    "fit_gaussians",
    "mean_log_prob",
    "progress",
    "train",
]
