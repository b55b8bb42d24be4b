"""The states of all random generators a model could draw from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_states(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Those of torch, on the CPU and on `device`, as tensors; those of Python and numpy as JSON knows them."""
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    legacy: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = legacy
    return tensors, {"python": random.getstate(), "numpy": [kind, keys.tolist(), *rest]}


def restore_random_states(device: torch.device, tensors: dict[str, Tensor], others: dict[str, Any]) -> None:
    """Puts back what `random_states` gave. Raises KeyError, TypeError, ValueError or RuntimeError for anything else."""
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)
    version, keys, following = others["python"]
    random.setstate((version, tuple(keys), following))
    kind, keys, *rest = others["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
