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
    """The name of a data set, or the absolute path of a file that is read as `file` says; split by `seed`.

    dir: where the files of a data set known by name are, as an absolute path.
    with_labels: whether the labels among those are context.
    """

    source: str
    seed: int = 0
    dir: str | None = None
    with_labels: bool = False
    file: FileOptions = field(default_factory=FileOptions)

    def load(self) -> Dataset:
        """The data set. Raises DataError, naming the file and the place in it."""
        return load(self.source, seed=self.seed, **self._options())

    def describe(self) -> Description:
        """The data set in figures. Raises DataError likewise."""
        return describe(self.source, seed=self.seed, **self._options())

    def _options(self) -> dict[str, Any]:
        """What is not as it is anyway: a set that is known by name refuses what it has no use for."""
        standard = DataConfig(self.source, self.seed).to_json()
        return {key: value for key, value in self.to_json().items() if value != standard[key]}

    def to_json(self) -> dict[str, Any]:
        """The table [data]."""
        table = {"source": self.source, "seed": self.seed, "dir": self.dir, **asdict(self.file)}
        return {**table, "labels": True} if self.with_labels else table

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
    folder = options.pop("dir", None)
    with_labels = isinstance(options.get("labels"), bool) and options.pop("labels")
    file = checks.made(FileOptions, settings, "data", **options)
    if file.labels is not None:
        file = replace(file, labels=os.path.abspath(file.labels))
    is_file = source not in DATASETS and os.path.exists(source)
    return DataConfig(
        os.path.abspath(source) if is_file else source,
        seed,
        None if folder is None else os.path.abspath(folder),
        with_labels,
        file,
    )


def data_of(description: Mapping[str, Any], origin: str, changed: Settings | None = None) -> DataConfig:
    """The data that a checkpoint's description names, but for what is `changed`. Raises UserError."""
    settings = {**flat({"data": description.get("data")}, origin), **(changed or {})}
    if changed and "data.source" in changed and "data.dir" not in changed:
        settings.pop("data.dir", None)
    return data_config(checks.checked(settings, data_keys()))
