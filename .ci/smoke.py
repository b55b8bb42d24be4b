"""What an installed fastgen must do at the least. Argument: the folder that it must have come from."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch

import fastgen
from fastgen import backends, flows

where = Path(fastgen.__file__).resolve()
if not where.is_relative_to(Path(sys.argv[1]).resolve()):
    sys.exit(f"fastgen: expected one installed in {sys.argv[1]}, found {where}")
for name in ("_C", "bench", "kernels", "cli"):
    importlib.import_module(f"fastgen.{name}")
if backends.choose_for("masked_mlp", "cpu", torch.float32).backend != "cpu":
    sys.exit("fastgen._C: expected to be used on CPU tensors")
flow = flows.MAF(5, hidden_features=(16,))
x = torch.randn(7, 5)
fused = flow.log_prob(x)
with backends.use("reference"):
    torch.testing.assert_close(fused, flow.log_prob(x))
