"""What `fastgen train` is told to train: a config file, a config that comes with the package, or a model by its name."""

from __future__ import annotations

import os
from pathlib import Path

from ..data import DATASETS
from ..train.models import MODELS
from .errors import UserError
from .keys import known, nearest
from .settings import Setting, Settings, read_toml

CONFIGS = {path.stem: path for path in sorted((Path(__file__).parent / "configs").glob("*.toml"))}
DATA = "digits"
# The sets of two-dimensional points share their configs.
POINTS = ("moons", "rings", "spirals", "pinwheel")


def named(what: str, data: str | None) -> Settings:
    """The settings of a config or a model, on `data` where it is given. Raises UserError or FileError, naming what is wrong."""
    if what in MODELS:
        return recipe(what, data or DATA)
    path = CONFIGS.get(what, Path(what))
    if what not in CONFIGS and path.suffix != ".toml" and not os.path.isfile(what):
        raise UserError(f"{what}: unknown config or model{nearest(what, [*CONFIGS, *MODELS])}")
    settings = read_toml(path)
    return settings if data is None else {**settings, "data.source": Setting(data, "--data")}


def recipe(model: str, data: str) -> Settings:
    """The settings that suit a model and a data set: the config of both, else that of the data set, less other models' options.

    For a file of the user's they are the defaults of the model and of training.
    """
    name = "points" if data in POINTS else data
    path = next((CONFIGS[c] for c in (f"{model}-{name}", name) if data in DATASETS and c in CONFIGS), None)
    suited = {} if path is None else read_toml(path)
    keys = known(model)
    kept = {key: setting for key, setting in suited.items() if key in keys}
    return {**kept, "model.name": Setting(model, "MODEL"), "data.source": Setting(data, "--data")}
