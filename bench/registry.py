"""What can be measured: one file for each operation and for each model, and the names it is called by."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .case import Case, MemoryCase, Setting
from .precision import DTYPES, TF32


class UsageError(ValueError):
    """What was asked for is not there; the message is one line."""


class Entry(NamedTuple):
    """A file of cases: its function `cases(setting)` gives them, and it says what work they are counted as.

    measures: the operations of `fastgen.backends`, or the classes, that its cases are of.
    dtypes: the precisions it is measured in.
    devices: where it is measured.
    """

    name: str
    folder: str
    measures: tuple[str, ...]
    dtypes: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu", "cuda")

    def cases(self, setting: Setting) -> Iterator[Case | MemoryCase]:
        yield from importlib.import_module(f"fastgen.bench.{self.folder}.{self.name}").cases(setting)


def _operation(name: str, *measures: str) -> Entry:
    return Entry(name, "ops", measures or (name,), tuple(DTYPES))


def _model(name: str, *measures: str) -> Entry:
    """Other libraries' models, and half of the formulas of plain ones, are of these."""
    return Entry(name, "models", measures, ("float32", TF32, "float64"))


OPERATIONS = (
    _operation("masked_linear"),
    _operation("masked_mlp"),
    _operation(
        "masked_autoregressive",
        "masked_autoregressive",
        "masked_autoregressive_log_prob",
        "masked_autoregressive_stack",
        "masked_autoregressive_stack_log_prob",
    ),
    _operation("affine_autoregressive"),
    _operation("coupling", "affine_coupling", "additive_coupling"),
    _operation("gaussian_log_prob"),
    _operation("gaussian_mixture_log_prob"),
    _operation("gaussian_rsample_kl", "gaussian_rsample_kl", "gaussian_rsample_log_ratio"),
    _operation("likelihoods", "bernoulli_log_prob", "categorical_log_prob", "discretized_logistic_log_prob"),
    _operation("autoregressive_inverse"),
    _operation("autoregressive_sample"),
    _operation("planar", "planar", "planar_inverse"),
    _operation("radial", "radial", "radial_inverse"),
)
MODELS = (
    _model("maf", "MAF"),
    _model("iaf", "IAF"),
    _model("nice", "NICE"),
    _model("realnvp", "RealNVP"),
    _model("planar_flow", "PlanarFlow"),
    _model("radial_flow", "RadialFlow"),
    _model("gaussian_made", "GaussianMADE"),
    _model("mixture_made", "MixtureMADE"),
    _model("bernoulli_made", "BernoulliMADE"),
    _model("categorical_made", "CategoricalMADE"),
    _model("maf_mog", "MAFMoG"),
    _model("gaussian_autoregressive", "GaussianAutoregressive"),
    _model("fvsbn", "FVSBN"),
    _model("vae", "VAE"),
    _model("iwae", "IWAE"),
    _model("reversible", "reversible"),
    _model("accelerate", "accelerate"),
    # Its cost is Python's, and its modules need more than torch and Triton.
    _model("training", "training")._replace(devices=("cpu",)),
    _model("calls", "calls")._replace(dtypes=("float32",), devices=("cpu",)),
)
# Names for many.
GROUPS = {"operations": OPERATIONS, "models": MODELS}


def chosen(names: Sequence[str]) -> list[Entry]:
    """The entries of these names, each once; without names all. An operation or a class is a name of its entry as well.

    Raises UsageError, naming what is most like it, for a name that is nothing's.
    """
    found = [entry for name in names or GROUPS for entry in _named(name)]
    return list(dict.fromkeys(found))


def _named(name: str) -> Sequence[Entry]:
    entries = [*OPERATIONS, *MODELS]
    known = {word.lower(): [entry] for entry in entries for word in entry.measures}
    known |= {entry.name: [entry] for entry in entries}
    known |= {group: list(members) for group, members in GROUPS.items()}
    if (found := known.get(name.lower())) is not None:
        return found
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    raise UsageError(f"{name}: nothing of that name is measured; {hint}")
