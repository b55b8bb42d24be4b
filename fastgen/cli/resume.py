"""What may change when a run goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..train import RunFolder
from ..train.loop import resumable
from .config import RunConfig, build_config
from .errors import UserError
from .keys import shown
from .settings import Settings, flat, read_json


def begun(run: RunFolder) -> Settings:
    """The settings that a run began with. Raises FileError, naming the file."""
    return read_json(run.config)


def continued(run: RunFolder, wanted: RunConfig) -> RunConfig:
    """The config to go on with: `wanted`, on the threads and the device of the run where it names none.

    Raises UserError, naming the key, for a change that would lead the run elsewhere than it went without.
    """
    before = build_config(begun(run))
    wanted = replace(wanted, threads=wanted.threads or before.threads, device=wanted.device or before.device)
    old, new = _values(before), _values(wanted)
    free = {f"training.{name}" for name in resumable(before.training)}
    for key in sorted((old.keys() | new.keys()) - free):
        if old.get(key) != new.get(key):
            expected = f"expected {old.get(key)!r}, with which the run in {run.folder} began, found {new.get(key)!r}"
            raise UserError(f"--resume: {shown(key)}: {expected}")
    return wanted


def _values(config: RunConfig) -> dict[str, Any]:
    return {key: setting.value for key, setting in flat(config.to_json(), "").items()}
