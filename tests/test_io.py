from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tracemalloc

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from fastgen import io

TENSORS = {
    "plain": torch.arange(6.0).view(2, 3),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "whole": torch.tensor([1, 2**40]),
    "none": torch.empty(0, 4, dtype=torch.float64),
    "scalar": torch.tensor(float("nan")),
    "bytes": torch.tensor([[1, 2, 255]], dtype=torch.uint8),
    "flag": torch.tensor(True),
    "expanded": torch.tensor([1.0, 2.0], dtype=torch.float16).expand(3, 2),
}
DESCRIPTION = {"model": {"name": "maf", "config": {"features": 3, "hidden_features": [4, 4]}}, "note": "Ångström"}


def test_round_trip_keeps_every_bit_and_the_description(tmp_path):
    path = tmp_path / "deep" / "er" / "x.safetensors"
    io.save(path, TENSORS, DESCRIPTION)
    tensors, description = io.load(path)
    assert description == DESCRIPTION
    assert tensors.keys() == TENSORS.keys()
    for name, t in TENSORS.items():
        torch.testing.assert_close(tensors[name], t, rtol=0, atol=0, equal_nan=True)


def test_others_read_what_is_written(tmp_path):
    io.save(tmp_path / "x", TENSORS, {"a": 1})
    with safe_open(tmp_path / "x", "pt") as file:
        assert json.loads(file.metadata()["fastgen"]) == {"a": 1}
        for name, t in TENSORS.items():
            torch.testing.assert_close(file.get_tensor(name), t, rtol=0, atol=0, equal_nan=True)


def test_a_dtype_without_a_name_in_the_format_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"z: expected a tensor .* of 1 to 8 bytes, found torch\.complex64"):
        io.save(tmp_path / "x", {"z": torch.zeros(1, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []


def test_large_tensors_are_not_copied(tmp_path):
    large = torch.zeros(1 << 22)
    tracemalloc.start()
    io.save(tmp_path / "x", {"a": large}, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.nbytes / 8


def test_tensors_that_share_memory_are_stored_one_by_one(tmp_path):
    shared = torch.arange(4.0)
    io.save(tmp_path / "x", {"a": shared, "b": shared, "tail": shared[2:]}, {})
    tensors, _ = io.load(tmp_path / "x")
    assert torch.equal(tensors["a"], tensors["b"]) and torch.equal(tensors["tail"], shared[2:])


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    io.save(path, {"a": torch.zeros(3)}, {"version": 1})

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(io.FileError, match=r"x\.safetensors: cannot be written: No space left"):
        io.save(path, {"a": torch.ones(3)}, {"version": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    tensors, description = io.load(path)
    assert description == {"version": 1} and torch.equal(tensors["a"], torch.zeros(3))


_KILLED = """
import os, sys
from fastgen import io

def hang(descriptor):
    print(flush=True)
    sys.stdin.read()

os.fsync = hang
io.write_atomically(sys.argv[1], b"new")
"""


def test_a_killed_writer_leaves_the_old_file_and_its_rest_goes_with_the_next_write(tmp_path):
    path = tmp_path / "x[1].json"
    io.write_atomically(path, b"old")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _KILLED, path], **pipes) as writer:
        writer.stdout.readline()
        # What a writer that lives holds stays.
        io.write_atomically(path, b"other")
        assert len(list(tmp_path.iterdir())) == 2
        writer.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"other" and len(list(tmp_path.iterdir())) == 2
    io.write_atomically(path, b"newest")
    assert path.read_bytes() == b"newest" and list(tmp_path.iterdir()) == [path]


_LIMITED = """
import resource, sys, torch
from fastgen import io

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    io.save(sys.argv[1], {"a": torch.ones(100000)}, {"version": 2})
except io.FileError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_leaves_the_old_one(tmp_path):
    path = tmp_path / "x.safetensors"
    io.save(path, {"a": torch.zeros(3)}, {"version": 1})
    out = subprocess.run([sys.executable, "-c", _LIMITED, path], capture_output=True, text=True, check=True).stdout
    assert out == f"{path}: cannot be written: File too large\n"
    assert io.load(path)[1] == {"version": 1} and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path, monkeypatch):
    path = tmp_path / "x"
    io.write_atomically(path, b"old")
    real = open
    # What is written goes to a device that is full, so that the error is the system's own.
    monkeypatch.setattr("builtins.open", lambda file, mode="r": real("/dev/full" if mode == "wb" else file, mode))
    with pytest.raises(io.FileError, match="x: cannot be written: No space left on device"):
        io.write_atomically(path, b"new" * 10000)
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(io.FileError, match="x: cannot be written: Permission denied"):
        io.write_atomically(tmp_path / "x", b"")


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(io.FileError, match="x: cannot be written: Read-only file system"):
        io.write_atomically(tmp_path / "x", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_description_that_is_not_json_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        io.save(tmp_path / "x", {}, {"loss": float("nan")})
    with pytest.raises(TypeError):
        io.save(tmp_path / "x", {}, {"t": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(io.FileError, match="file/x: cannot be written"):
        io.write_atomically(tmp_path / "file" / "x", b"")


def _bad_files(tmp_path):
    io.save(tmp_path / "whole", TENSORS, DESCRIPTION)
    content = (tmp_path / "whole").read_bytes()
    return {
        "empty": b"",
        "text": b"not a checkpoint at all",
        "cut": content[:-1],
        "half": content[: len(content) // 2],
        "huge header": (2**62).to_bytes(8, "little") + content[8:],
        "undescribed": to_bytes({"a": torch.zeros(1)}),
        "broken description": to_bytes({"a": torch.zeros(1)}, metadata={"fastgen": "{"}),
        "listed description": to_bytes({"a": torch.zeros(1)}, metadata={"fastgen": "[1]"}),
        # A pickled checkpoint is refused, not unpickled.
        "pickled": _pickled(),
        "nested description": to_bytes({"a": torch.zeros(1)}, metadata={"fastgen": "[" * 100000}),
        "nested header": struct.pack("<Q", 100000) + b"[" * 100000,
        "large": _crafted([2**62, 4], [0, 16]),
        "without end": _crafted([0, 2**63 - 1, 2**63 - 1], [0, 0]),
        "negative": _crafted([-1, 4], [0, 16]),
        "undigested": to_bytes({"a": torch.zeros(1)}, metadata={"fastgen": "{}"}),
    }


def _crafted(shape, offsets):
    header = json.dumps({"__metadata__": {"fastgen": "{}"}, "a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(16)


def _pickled() -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    return buffer.getvalue()


BAD = [
    *("empty", "text", "cut", "half", "huge header", "undescribed", "broken description", "listed description", "pickled"),
    *("nested description", "nested header", "large", "without end", "negative", "undigested"),
]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named(tmp_path, name):
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(_bad_files(tmp_path)[name])
    with pytest.raises(io.FileError, match=f"{name}.safetensors: expected ") as caught:
        io.load(path)
    assert "\n" not in str(caught.value)


def test_every_altered_byte_of_the_numbers_and_of_the_description_is_found(tmp_path):
    io.save(tmp_path / "x", {"a": torch.arange(3.0), "b": torch.tensor([True])}, {"note": "abc"})
    content = (tmp_path / "x").read_bytes()
    for place in [*range(len(content) - 13, len(content)), content.index(b"abc")]:
        altered = bytearray(content)
        altered[place] ^= 1
        (tmp_path / "y").write_bytes(altered)
        with pytest.raises(
            io.FileError, match=r"y: expected the numbers that were written, found others \(altered or damaged\)"
        ):
            io.load(tmp_path / "y")


def _whole(tmp_path):
    io.save(tmp_path / "whole", TENSORS, DESCRIPTION)
    return (tmp_path / "whole").read_bytes()


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_other_bytes_is_the_same_file_or_refused(tmp_path, data):
    content = bytearray(_whole(tmp_path))
    # Half of them in the header, where they mean most.
    for place in data.draw(st.lists(st.integers(0, 700) | st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.none() | st.integers(0, len(content)))] + data.draw(st.binary(max_size=4))
    (tmp_path / "x").write_bytes(content)
    tracemalloc.start()
    try:
        tensors, _ = io.load(tmp_path / "x")
    except io.FileError as error:
        assert str(error).startswith(f"{tmp_path / 'x'}: expected ") and "\n" not in str(error)
    else:
        assert all(torch.equal(t.nan_to_num(), TENSORS[name].nan_to_num()) for name, t in tensors.items())
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(io.FileError, match="gone: expected a checkpoint, found no such file"):
        io.load(tmp_path / "gone")
    with pytest.raises(io.FileError, match="expected a checkpoint, found a folder"):
        io.load(tmp_path)


def test_write_json(tmp_path):
    io.write_json(tmp_path / "x.json", DESCRIPTION)
    assert json.loads((tmp_path / "x.json").read_text()) == DESCRIPTION
