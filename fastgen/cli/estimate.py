"""`fastgen estimate`: what a training step would take on machines that are not at hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn

from ..train.models import MODELS
from . import checks, options
from .errors import UserError
from .estimate_tables import assumptions, memory_table, time_table
from .keys import known
from .settings import Setting, Settings, parse

if TYPE_CHECKING:
    from ..bench.estimate import Device  # type: ignore[import-not-found]
    from ..bench.step_count import StepCount  # type: ignore[import-not-found]

DTYPES = ("float32", "float64", "bfloat16", "float16")
_GIGA, _TERA = 1e9, 1e12


def _widths(text: str | None) -> str | None:
    if text is not None and not all(part.strip().isdigit() and int(part) for part in text.split(",")):
        raise typer.BadParameter(f"expected whole numbers of at least 1, such as 512,512, found {text!r}")
    return text


_MODEL = typer.Argument(callback=options.one_of(tuple(MODELS)), help=f"One of {', '.join(MODELS)}.", show_default=False)
_ROW = options.at_least(1)


def estimate(
    model: Annotated[str, _MODEL],
    gpus: Annotated[int, typer.Option(callback=_ROW, help="GPUs, each with the whole model and rows of its own.")] = 1,
    features: Annotated[int, typer.Option(callback=_ROW, help="Features of a row.")] = 64,
    hidden: Annotated[
        str | None, typer.Option(callback=_widths, help="Widths of hidden layers, such as 512,512.  [default: the model's]")
    ] = None,
    transforms: Annotated[int | None, typer.Option(callback=_ROW, help="Transforms.  [default: the model's]")] = None,
    levels: Annotated[int, typer.Option(callback=options.at_least(2), help="Levels of categorical-made.")] = 256,
    assign: options.Assign = None,
    batch: Annotated[int, typer.Option(callback=_ROW, help="Rows of a step on each GPU.")] = 1024,
    dtype: Annotated[str, typer.Option(callback=options.one_of(DTYPES), help=f"{', '.join(DTYPES)}.")] = "float32",
    device_rate: Annotated[
        float | None, typer.Option(callback=options.above_zero, help="TFLOP/s of its matrix products.", show_default=False)
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(callback=options.above_zero, help="GB/s of its memory.", show_default=False)
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(callback=options.above_zero, help="Share of that roof reached.  [default: that of --like, or 1]"),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="Results of `fastgen.bench`: their ceilings and shares.  [default: ceilings of this machine]"),
    ] = None,
    link: Annotated[float, typer.Option(callback=options.above_zero, help="GB/s from each GPU to the next.")] = 50.0,
) -> None:
    """Estimate memory and time of a training step on GPUs that need not be here."""
    from ..bench.estimate import estimate as estimated
    from ..bench.step_count import count_step

    if (device_rate is None) != (bandwidth is None):
        missing = "--bandwidth" if bandwidth is None else "--device-rate"
        raise UserError(f"{missing}: expected together with the other ceiling, found none")
    widths = None if hidden is None else [int(part) for part in hidden.split(",")]
    given = {
        "model.hidden_features": Setting(widths, "--hidden"),
        "model.transforms": Setting(transforms, "--transforms"),
    }
    ceilings = None if device_rate is None or bandwidth is None else (device_rate, bandwidth)
    built, features = _build(model, features, levels, {k: s for k, s in given.items() if s.value is not None}, assign or [])
    name = type(built).__name__
    count = count_step(built, batch, features)
    device, reasons = _device(name, count, dtype, ceilings, share, like)
    found = estimated(count, batch, features, device, gpus=gpus, link=_GIGA * link, itemsize=getattr(torch, dtype).itemsize)
    console = Console()
    heading = f"{name}, {features} features, {count.parameters / 4:,.0f} parameters, {dtype}; {gpus} x {batch} rows a step"
    console.print(heading, highlight=False)
    console.print(memory_table(found, gpus))
    console.print(time_table(found, count, gpus))
    for line in (*reasons, *assumptions(gpus, link)):
        console.print(f"- {line}", highlight=False, soft_wrap=True, markup=False)


def _build(name: str, features: int, levels: int, given: Settings, assign: list[str]) -> tuple[nn.Module, int]:
    """The model without numbers, and the features of its rows. Raises UserError."""
    keys = {key: hint for key, hint in known(name).items() if key.startswith("model.")}
    settings = checks.checked({**given, **parse(assign, keys)}, keys)
    values = {**checks.table(settings, "model"), "device": "meta"}
    if name == "categorical-made":
        values["categories"] = levels
    if values.get("shape") is not None:
        features = math.prod(values["shape"])

    def make(**values: Any) -> nn.Module:
        return MODELS[name](features, **values)

    return checks.made(make, settings, "model", **values), features


def _device(
    model: str,
    count: StepCount,
    dtype: str,
    given: tuple[float, float] | None,
    share: float | None,
    like: Path | None,
) -> tuple[Device, list[str]]:
    """What the step runs on, and where its figures come from; given: TFLOP/s and GB/s. Raises UserError."""
    from ..bench.estimate import measured_share
    from ..bench.report import read  # type: ignore[import-not-found]

    try:
        run, rows = ({}, []) if like is None else read(like)
        device, reason = _ceilings(run, dtype, given, like)
        if share is not None:
            return device._replace(share=share), [reason, f"share of the roof: {share:.2g}, as given"]
        if like is None:
            return device, [reason, "share of the roof: 1, the least times there can be; --like or --share say more"]
        roof = 1e3 * device.seconds([*count.forward, *count.backward, count.optimizer])
        found, row = measured_share(rows, model, roof)
    except (OSError, ValueError) as error:
        raise UserError(f"--like: {like}: {str(error).removeprefix(f'{like}: ')}") from error
    nearest = f"{row.operation} {row.mode}, {row.shape}, the measured step whose roof is nearest"
    return device._replace(share=found), [reason, f"share of the roof: {found:.2g}, that of {nearest}"]


def _ceilings(run: dict[str, Any], dtype: str, given: tuple[float, float] | None, like: Path | None) -> tuple[Device, str]:
    """As given, else of the run, else of this machine. Raises ValueError where the run has none."""
    from ..bench.estimate import Device, device_of, measured_ceilings

    if given is not None:
        rate, bandwidth = given
        return Device(_TERA * rate, {1: _GIGA * bandwidth}), "ceilings: as given"
    if like is not None:
        return device_of(run.get("ceilings") or {}, dtype), f"ceilings: of {run.get('processor')}, {like}"
    where = "cuda" if torch.cuda.is_available() else "cpu"
    return device_of(measured_ceilings(where, getattr(torch, dtype)), dtype), f"ceilings: measured here, on {where}"
