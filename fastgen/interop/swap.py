"""A model of another library on fastgen's operations, and back."""

from __future__ import annotations

import warnings
from typing import TypeVar

from .accelerated import Accelerated, swap, swap_back
from .registry import fast_class
from .report import accelerate_report
from .walk import modules

Model = TypeVar("Model")


def accelerate(model: Model) -> Model:
    """Lets the hot parts of a model run on fastgen, in place: the same parameters, the same numbers.

    Masked linear layers, masked networks, autoregressive transforms in both directions, couplings and what else the page
    docs/accelerate.md lists are given a class of fastgen's that is derived from their own; parameters, buffers and their names
    stay what they are, so that optimisers, checkpoints and wrappers made before keep working. What would change results is
    left alone. Nothing outside the model is touched. A second call changes nothing.

    Args:
        model: a torch.nn.Module, a list of them, or a distribution or transform of torch.distributions, made with a library
            of `fastgen.interop` or plain PyTorch.

    Returns:
        The model itself. A warning says why where nothing of it could be replaced.

    Raises:
        TypeError: an object that is no model.
    """
    found = modules(model)
    # Those inside first: a transform is replaced where its network is.
    for _, module in reversed(found):
        fast = fast_class(module)
        if fast is not None:
            swap(module, fast)
    if not any(isinstance(module, Accelerated) for _, module in found):
        warnings.warn(
            f"accelerate: nothing was replaced in {type(model).__qualname__}: {accelerate_report(model)}", stacklevel=2
        )
    return model


def restore(model: Model) -> Model:
    """Undoes `accelerate`: every module is of its library's class again. Returns the model itself.

    Raises:
        TypeError: an object that is no model.
    """
    for _, module in modules(model):
        if isinstance(module, Accelerated):
            swap_back(module)
    return model
