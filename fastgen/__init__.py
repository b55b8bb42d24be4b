"""fastgen: fast exact kernels for normalizing flows and VAEs in PyTorch."""

import pkgutil

# kernels/ and bench/ are installed inside the package: found also where a checkout stands first on the path.
__path__ = pkgutil.extend_path(__path__, __name__)

from . import backends, flows, models, nn, ops

__version__ = "0.1.0"
__all__ = ["backends", "flows", "models", "nn", "ops"]
