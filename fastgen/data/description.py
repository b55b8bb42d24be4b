"""What a model would be trained on, in figures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .assemble import Assembled
from .dataset import PARTS, Dataset
from .mapped import MappedPart, as_rows
from .survey import Survey

# Columns that are told one by one; of more, what they have in common.
SHOWN = 20


@dataclass(frozen=True)
class Column:
    """One column over all rows without a missing value.

    role: "feature", "context" or "weight".
    std: the population's standard deviation.
    missing: missing values, nan and inf.
    """

    name: str
    role: str
    minimum: float
    maximum: float
    mean: float
    std: float
    missing: int

    @property
    def constant(self) -> bool:
        return self.minimum == self.maximum


@dataclass(frozen=True)
class Description:
    """A data set in figures.

    source: the file, or the name of a set that is known by one.
    folder: where the files of a set that is known by name are; None for a shipped set, and for a file.
    file_bytes: the size of the file; None for a set that is known by name.
    dtype: of the rows once in memory.
    mapped: whether the rows stay in the file until they are needed.
    rows: how many train, valid and test have.
    dropped: rows with a missing value, nan or inf, which none of these have.
    problem: the place of the first of those, where training would stop at it; None where it would not.
    classes: the classes that are appended to the context, one-hot.
    """

    source: str
    folder: str | None
    file_bytes: int | None
    dtype: str
    mapped: bool
    rows: dict[str, int]
    features: int
    context_features: int
    weighted: bool
    classes: int
    levels: int | None
    image_shape: tuple[int, int] | None
    columns: tuple[Column, ...]
    dropped: int
    problem: str | None

    @property
    def constant(self) -> tuple[str, ...]:
        """The names of constant columns, which have nothing to learn from."""
        return tuple(column.name for column in self.columns if column.constant)

    def lines(self) -> list[str]:
        """All of it as text, with one line per column where they are few."""
        return [*self._whole(), *self._columns()]

    def _whole(self) -> Iterator[str]:
        where = "shipped" if self.folder is None else f"in {self.folder}"
        yield f"source: {self.source} ({where if self.file_bytes is None else f'{self.file_bytes:,} bytes'})"
        yield "rows: " + ", ".join(f"{count:,} {name}" for name, count in self.rows.items())
        context = f", {self.context_features} of context" if self.context_features else ""
        classes = f", of which {self.classes} are classes, one-hot" if self.classes else ""
        yield f"features: {self.features}{context}{classes}{', weighted' if self.weighted else ''}"
        yield f"numbers: {self.dtype}{', left in the file until needed' if self.mapped else ''}"
        if self.levels is not None:
            yield f"levels: {self.levels}"
        if self.image_shape is not None:
            yield f"images: {self.image_shape[0]}x{self.image_shape[1]}"
        if self.dropped:
            yield f"rows with missing values, nan or inf, not counted above: {self.dropped:,}"
        if self.problem is not None:
            yield f"training would stop: {self.problem}"
        if self.constant:
            more = f" and {len(self.constant) - SHOWN} more" if len(self.constant) > SHOWN else ""
            yield f"constant columns: {len(self.constant)} ({', '.join(self.constant[:SHOWN])}{more})"

    def _columns(self) -> Iterator[str]:
        if len(self.columns) > SHOWN:
            low, high = min(c.minimum for c in self.columns), max(c.maximum for c in self.columns)
            stds = sorted(c.std for c in self.columns)
            yield f"{len(self.columns)} columns: from {low:.6g} to {high:.6g}, std {stds[0]:.4g} to {stds[-1]:.4g}"
            return
        for c in self.columns:
            missing = f", {c.missing:,} missing" if c.missing else ""
            yield f"{c.role} {c.name}: {c.minimum:.6g} to {c.maximum:.6g}, mean {c.mean:.6g}, std {c.std:.6g}{missing}"


def describe_file(path: Path, found: Assembled, problem: str | None) -> Description:
    """What the pass over a file found; `problem` as in Description."""
    table, survey = found.tables[0], Survey(len(found.tables[0].labels))
    for checked in found.checked:
        survey.merge(checked.survey)
    roles = {**dict.fromkeys(table.context, "context"), **dict.fromkeys(table.weight, "weight")}
    return _description(
        found.data,
        str(path),
        os.stat(path).st_size,
        _columns(survey, table.called, [roles.get(i, "feature") for i in range(len(table.called))]),
        classes=table.classes.count if table.classes else 0,
        dropped=sum(len(checked.dropped) for checked in found.checked),
        problem=problem,
    )


def describe_named(data: Dataset, folder: str | os.PathLike[str] | None) -> Description:
    """What a set that is known by name holds, out of the files in a folder or shipped."""
    context = data.context_columns or ()
    width = data.features + data.context_features + data.train.weighted
    survey = Survey(width)
    for name in PARTS:
        for part in getattr(data, name).chunks():
            survey.add(as_rows(part))
    names = [f"column {i}" for i in range(width - len(context))] + list(context)
    roles = ["feature"] * data.features + ["context"] * len(context)
    where = None if folder is None else str(folder)
    return _description(data, data.name, None, _columns(survey, names, roles), folder=where)


def _columns(survey: Survey, names: Sequence[str], roles: list[str]) -> tuple[Column, ...]:
    figures = (survey.minimum, survey.maximum, survey.mean, survey.std, survey.missing)
    return tuple(map(Column, names, roles, *(figure.tolist() for figure in figures)))


def _description(
    data: Dataset,
    source: str,
    file_bytes: int | None,
    columns: tuple[Column, ...],
    *,
    folder: str | None = None,
    classes: int = 0,
    dropped: int = 0,
    problem: str | None = None,
) -> Description:
    return Description(
        source=source,
        folder=folder,
        file_bytes=file_bytes,
        dtype=str(data.train.dtype),
        mapped=isinstance(data.train, MappedPart),
        rows={name: len(getattr(data, name)) for name in PARTS},
        features=data.features,
        context_features=data.context_features,
        weighted=data.train.weighted,
        classes=classes,
        levels=data.levels,
        image_shape=data.image_shape,
        columns=columns,
        dropped=dropped,
        problem=problem,
    )
