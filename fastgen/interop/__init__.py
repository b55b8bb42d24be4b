"""Other libraries: their trained models as flows of this one, and flows where distributions of PyTorch are expected."""

from .convert import from_freia, from_nflows, from_normflows, from_pyro, from_zuko

__all__ = ["from_freia", "from_nflows", "from_normflows", "from_pyro", "from_zuko"]
