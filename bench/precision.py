"""The precision of a run: one dtype for every tensor of every candidate, and whether matrix products round to tf32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

TF32 = "tf32"
# By the name that the command line and the rows have.
DTYPES = {
    "float32": torch.float32,
    TF32: torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@contextmanager
def precision(name: str) -> Iterator[None]:
    """New tensors and modules have that dtype; torch's matrix products, and so fastgen's, round to tf32 for "tf32" alone."""
    matmul = torch.backends.cuda.matmul
    before, allowed = torch.get_default_dtype(), matmul.allow_tf32
    torch.set_default_dtype(DTYPES[name])
    matmul.allow_tf32 = name == TF32
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        matmul.allow_tf32 = allowed


def name_of(dtype: torch.dtype, device: str) -> str:
    """What a row calls the precision of its tensors."""
    if device == "cuda" and dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return TF32
    return str(dtype).removeprefix("torch.")


def error_limit(dtype: torch.dtype, device: str) -> float:
    """Room for rounding, relative: of sums over thousands of terms; of float64 four times that, its truth being no more exact.

    Half types accumulate in float32, and round what each of a few layers gives. tf32 keeps ten bits of each factor, as float16
    does.
    """
    if name_of(dtype, device) == TF32:
        return 8 * torch.finfo(torch.float16).eps
    return {2: 8, 4: 64, 8: 256}[dtype.itemsize] * torch.finfo(dtype).eps


def word() -> int:
    """Bytes of a number in the precision in force."""
    return torch.get_default_dtype().itemsize
