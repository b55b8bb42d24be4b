"""fastgen: fast exact kernels for normalizing flows and VAEs in PyTorch."""

import importlib
import pkgutil
from typing import Any

# kernels/ and bench/ are installed inside the package: found also where a checkout stands first on the path.
__path__ = pkgutil.extend_path(__path__, __name__)

from . import backends, flows, models, nn, ops

__version__ = "0.1.0"
__all__ = ["accelerate", "accelerate_report", "backends", "flows", "models", "nn", "ops", "restore"]


def __getattr__(name: str) -> Any:
    # What concerns other libraries is imported when it is asked for.
    if name in ("accelerate", "accelerate_report", "restore"):
        return getattr(importlib.import_module(".interop", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
