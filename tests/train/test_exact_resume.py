from __future__ import annotations

import os
import random
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from density import Diagonal, shifted
from torch import nn

from fastgen.data import Dataset, Part
from fastgen.flows import MAF
from fastgen.io import FileError
from fastgen.train import CsvLog, Interrupted, Observer, RunFolder, TrainConfig, train
from fastgen.train.checkpoint import Checkpointer, load_checkpoint

CONFIG = TrainConfig(epochs=4, batch_size=64, save_every=0.0, learning_rate=0.01)


class Crash(Exception):
    pass


class CrashAt(Observer):
    """Leaves training after a step as a crash would: nothing is written any more."""

    def __init__(self, step: int) -> None:
        self.left = step

    def step(self):
        self.left -= 1
        if self.left == 0:
            raise Crash


class Dropping(Diagonal):
    """Draws from every generator there is."""

    def log_prob(self, x):
        noise = torch.rand(()) + random.random() + np.random.rand() if self.training else 1.0
        return super().log_prob(x) * noise


def _flow(**options):
    torch.manual_seed(3)
    return MAF(3, transforms=2, hidden_features=(16,), **options)


def _bits(records):
    return [(r.epoch, r.step, r.train, r.valid, r.rate, r.skipped) for r in records]


def _weighted() -> Dataset:
    data, rng = shifted(), np.random.default_rng(1)

    def dress(part):
        context = rng.standard_normal((len(part), 2)).astype(np.float32)
        return Part(part.rows, context, rng.random(len(part)).astype(np.float32))

    return replace(data, train=dress(data.train), valid=dress(data.valid), test=dress(data.test))


def _levels() -> Dataset:
    data = shifted()
    return replace(data, train=Part(np.rint(data.train.rows).clip(0, 4)), levels=5)


CASES = {
    "plain": (CONFIG, shifted, _flow),
    "average and cosine": (replace(CONFIG, ema=0.9, schedule="cosine", warmup_steps=3, epochs=3), shifted, _flow),
    "plateau": (replace(CONFIG, schedule="plateau", plateau_patience=1, learning_rate=0.5), shifted, _flow),
    "accumulated, weighted, with a context": (replace(CONFIG, accumulate=3), _weighted, lambda: _flow(context_features=2)),
    "levels": (CONFIG, _levels, _flow),
    "random numbers": (CONFIG, shifted, lambda: Dropping(3)),
}


def _run(case: str, folder, *observers: Observer, resume: bool = False, **changes):
    config, data, model = CASES[case]
    model, run = model(), RunFolder(folder)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    return train(model, data(), replace(config, **changes), observers, run=run, resume=resume), model


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_run_that_was_not_stopped(case, tmp_path):
    whole, model = _run(case, tmp_path / "whole")
    # Within the second epoch and, for that, from the third step's state after the first crash.
    for step in (3, 5):
        with pytest.raises(Crash):
            _run(case, tmp_path / "parts", CrashAt(step), resume=step == 5)
    records, again = _run(case, tmp_path / "parts", resume=True)
    assert _bits(records) == _bits(whole)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_resuming_a_finished_run_trains_on_where_more_epochs_are_wanted(tmp_path):
    longer, _ = _run("plain", tmp_path / "longer", epochs=6)
    short, _ = _run("plain", tmp_path / "run")
    again, _ = _run("plain", tmp_path / "run", resume=True)
    assert _bits(again) == _bits(short)
    more, _ = _run("plain", tmp_path / "run", resume=True, epochs=6)
    assert _bits(more) == _bits(longer)


def test_a_state_is_written_at_the_end_and_the_newest_are_kept(tmp_path):
    _run("plain", tmp_path, keep=3)
    steps = [path.name for path in RunFolder(tmp_path).states()]
    assert steps == [f"state-{step:09d}.safetensors" for step in (20, 19, 18)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_with_a_state(number, tmp_path):
    class Signal(Observer):
        count = 0

        def step(self):
            self.count += 1
            if self.count == 7:
                os.kill(os.getpid(), number)

    whole, _ = _run("plain", tmp_path / "whole")
    watch, before = Signal(), signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        _run("plain", tmp_path / "run", watch, save_every=1000.0)
    assert (caught.value.signal, caught.value.step, caught.value.saved, watch.count) == (number, 7, True, 7)
    assert signal.getsignal(number) is before
    records, _ = _run("plain", tmp_path / "run", resume=True, save_every=1000.0)
    assert _bits(records) == _bits(whole)


def test_a_signal_during_validation_stops_too(tmp_path):
    class Signal(Diagonal):
        def log_prob(self, x):
            # More than the look before training takes.
            if not self.training and len(x) > 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().log_prob(x)

    with pytest.raises(Interrupted):
        train(Signal(3), shifted(), replace(CONFIG, ema=0.9, save_every=1000.0), run=RunFolder(tmp_path))
    states = RunFolder(tmp_path).states()
    assert [path.stem for path in states] == ["state-000000005"]


def test_a_signal_without_a_run_folder_leaves_the_best_weights():
    class Signal(Observer):
        def epoch(self, record, best):
            if record.epoch == 2:
                self.state = {k: v.clone() for k, v in best.state.items()}
                os.kill(os.getpid(), signal.SIGINT)

    model, watch = Diagonal(3), Signal()
    with pytest.raises(KeyboardInterrupt) as caught:
        train(model, shifted(), CONFIG, [watch])
    assert not caught.value.saved
    assert all(torch.equal(v, watch.state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("change", [{"batch_size": 32}, {"learning_rate": 0.02}, {"ema": 0.9}, {"seed": 1}])
def test_other_settings_are_refused(change, tmp_path):
    _run("plain", tmp_path)
    (name, value) = next(iter(change.items()))
    expected = getattr(CONFIG, name)
    with pytest.raises(ValueError, match=f"{name}: expected {expected!r}, with which the run began, found {value!r}"):
        _run("plain", tmp_path, resume=True, **change)


def test_a_cosine_keeps_its_epochs(tmp_path):
    _run("average and cosine", tmp_path)
    with pytest.raises(ValueError, match="epochs: expected 3, with which the run began, found 4"):
        _run("average and cosine", tmp_path, resume=True, epochs=4)


def test_other_data_is_refused(tmp_path):
    _run("plain", tmp_path)
    with pytest.raises(ValueError, match="data: expected that of the run that is resumed"):
        train(_flow(), shifted(rows=301), CONFIG, run=RunFolder(tmp_path), resume=True)
    same_shape = shifted()
    other = replace(same_shape, train=Part(same_shape.train.rows[::-1].copy()))
    with pytest.raises(ValueError, match="data: expected that of the run that is resumed"):
        train(_flow(), other, CONFIG, run=RunFolder(tmp_path), resume=True)


def test_another_model_is_refused(tmp_path):
    _run("plain", tmp_path)
    with pytest.raises(FileError, match="expected a state of this model, found"):
        train(Diagonal(3), shifted(), CONFIG, run=RunFolder(tmp_path), resume=True)


def test_without_a_state_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(FileError, match=r"expected a state to resume from \(state-\*.safetensors\), found none"):
        _run("plain", tmp_path, resume=True)


def _damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("harm", [_damage, _cut], ids=["altered", "truncated"])
def test_a_damaged_state_gives_way_to_the_one_before(harm, tmp_path):
    whole, _ = _run("plain", tmp_path / "whole")
    with pytest.raises(Crash):
        _run("plain", tmp_path / "run", CrashAt(9))
    newest, before = RunFolder(tmp_path / "run").states()
    harm(newest)
    with pytest.warns(UserWarning, match=f"{newest.name}: expected .*; the state before it is resumed"):
        records, _ = _run("plain", tmp_path / "run", resume=True)
    assert _bits(records) == _bits(whole)
    for path in RunFolder(tmp_path / "run").states():
        harm(path)
    with pytest.raises(FileError, match=r"state-000000020\.safetensors: expected"):
        _run("plain", tmp_path / "run", resume=True)
    assert before.name == "state-000000007.safetensors"


def test_the_log_and_the_checkpoint_go_on(tmp_path):
    run = RunFolder(tmp_path)

    def observers(model: nn.Module):
        what = {"model": {"name": "maf", "config": model.config}}
        return [CsvLog(run.log), Checkpointer(run.checkpoint, what, interval=1000)]

    model = _flow()
    with pytest.raises(Crash):
        train(model, shifted(), CONFIG, [*observers(model), CrashAt(12)], run=run)
    lines = run.log.read_text().splitlines()
    # What a crash cut off, and a line of an epoch that the newest state has not seen.
    run.log.write_text("\n".join(lines) + "\n9,99,0")
    model = _flow()
    records = train(model, shifted(), CONFIG, observers(model), run=run, resume=True)
    written = [line.split(",") for line in run.log.read_text().splitlines()[1:]]
    assert [(int(e), int(s), float(t), float(v)) for e, s, t, v, *_ in written] == [r[:4] for r in records]
    again, description = load_checkpoint(run.checkpoint)
    assert description["best"]["valid"] == max(r.valid for r in records)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())


def _in_a_child(work) -> int:
    """Starts `work` in a process of its own, whose id is returned."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def _kill_at_random(child: int, folder, rng: random.Random) -> bool:  # type: ignore[no-untyped-def]
    """Kills the process some moment after a step drawn at random; whether it was still at work."""
    step, done = rng.randrange(14), 0
    while done < step and os.waitpid(child, os.WNOHANG) == (0, 0):
        done = max((int(path.stem[-9:]) for path in RunFolder(folder).states()), default=0)
    # A step with its write takes a few milliseconds.
    time.sleep(rng.uniform(0, 0.01))
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    try:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    except ChildProcessError:
        return False


def test_twenty_kills_at_random_moments(tmp_path):
    # A state is written after every step: most moments lie within a write.
    whole, model = _run("average and cosine", tmp_path / "whole")
    rng, killed = random.Random(0), 0
    for i in range(100):
        folder = tmp_path / f"run{i}"
        child = _in_a_child(lambda folder=folder: _run("average and cosine", folder))
        if not _kill_at_random(child, folder, rng):
            continue
        records, again = _run("average and cosine", folder, resume=bool(RunFolder(folder).states()))
        assert _bits(records) == _bits(whole)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
        assert not list(folder.glob("*.tmp")), "what the killed process left half-written"
        killed += 1
        if killed == 20:
            break
    assert killed == 20
