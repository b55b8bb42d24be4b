"""Training: the loop, what watches it, what it leaves and goes on from, and the picture of the result."""

from .baselines import baselines
from .config import TrainConfig
from .distill import Distillation, distill, student_of
from .evaluate import LogLikelihood, log_likelihood
from .fit import fit
from .interrupt import Interrupted
from .log import CsvLog, read_log
from .loop import train
from .nonfinite import NonFiniteLoss
from .observer import Best, Epoch, Observer, Plan
from .progress import progress
from .run import RunFolder
from .step import adam
from .tensorboard import TensorBoard

__all__ = [
    "Best",
    "CsvLog",
    "Distillation",
    "Epoch",
    "Interrupted",
    "LogLikelihood",
    "NonFiniteLoss",
    "Observer",
    "Plan",
    "RunFolder",
    "TensorBoard",
    "TrainConfig",
    "adam",
    "baselines",
    "distill",
    "fit",
    "log_likelihood",
    "progress",
    "read_log",
    "student_of",
    "train",
]
