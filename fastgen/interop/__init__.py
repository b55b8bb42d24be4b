"""Other libraries: their trained models as flows of this one, and flows where distributions of PyTorch are expected."""

from .convert import from_freia, from_nflows, from_normflows, from_pyro, from_zuko
from .distributions import FlowDistribution, FlowTransform, as_distribution, as_transform

__all__ = [
    "FlowDistribution",
    "FlowTransform",
    "as_distribution",
    "as_transform",
    "from_freia",
    "from_nflows",
    "from_normflows",
    "from_pyro",
    "from_zuko",
]
