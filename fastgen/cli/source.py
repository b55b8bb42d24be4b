"""Where the rows of a run come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..data import DATASETS, Dataset, Description, FileOptions, describe, load
from . import checks
from .errors import UserError
from .keys import data_keys
from .settings import Settings, flat

# What torch and numpy take as a seed.
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class DataConfig:
    """The name of a data set, or the absolute path of a file that is read as `file` says; split by `seed`."""

    source: str
    seed: int = 0
    file: FileOptions = field(default_factory=FileOptions)

    def load(self) -> Dataset:
        """The data set. Raises DataError, naming the file and the place in it."""
        return load(self.source, seed=self.seed, **self._options())

    def describe(self) -> Description:
        """The data set in figures. Raises DataError likewise."""
        return describe(self.source, seed=self.seed, **self._options())

    def _options(self) -> dict[str, Any]:
        """What is not as it is anyway: a set that is shipped refuses all options."""
        standard = asdict(FileOptions())
        return {key: value for key, value in asdict(self.file).items() if value != standard[key]}

    def to_json(self) -> dict[str, Any]:
        """The table [data]."""
        return {"source": self.source, "seed": self.seed, **asdict(self.file)}

    @property
    def gone(self) -> bool:
        return self.source not in DATASETS and not os.path.exists(self.source)


def data_config(settings: Settings, seed: int = 0) -> DataConfig:
    """The [data] of checked settings, split by `seed` where they set none. Raises UserError."""
    options = checks.table(settings, "data")
    source = options.pop("source", None)
    if source is None:
        raise UserError(f"--data: expected a file or one of {', '.join(DATASETS)}, found none")
    checks.in_range(settings, "data.seed", 0, LARGEST_SEED)
    seed = options.pop("seed", seed)
    file = checks.made(FileOptions, settings, "data", **options)
    if file.labels is not None:
        file = replace(file, labels=os.path.abspath(file.labels))
    is_file = source not in DATASETS and os.path.exists(source)
    return DataConfig(os.path.abspath(source) if is_file else source, seed, file)


def data_of(description: Mapping[str, Any], origin: str, changed: Settings | None = None) -> DataConfig:
    """The data that a checkpoint's description names, but for what is `changed`. Raises UserError."""
    settings = {**flat({"data": description.get("data")}, origin), **(changed or {})}
    return data_config(checks.checked(settings, data_keys()))
