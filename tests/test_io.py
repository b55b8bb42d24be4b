from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save as to_bytes

from fastgen import io

TENSORS = {
    "plain": torch.arange(6.0).view(2, 3),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "whole": torch.tensor([1, 2**40]),
    "none": torch.empty(0, 4, dtype=torch.float64),
    "scalar": torch.tensor(float("nan")),
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
    }


def _pickled() -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    ["empty", "text", "cut", "half", "huge header", "undescribed", "broken description", "listed description", "pickled"],
)
def test_a_bad_file_is_named(tmp_path, name):
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(_bad_files(tmp_path)[name])
    with pytest.raises(io.FileError, match=f"{name}.safetensors: expected "):
        io.load(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(io.FileError, match="gone: expected a checkpoint, found no such file"):
        io.load(tmp_path / "gone")
    with pytest.raises(io.FileError, match="expected a checkpoint, found a folder"):
        io.load(tmp_path)


def test_write_json(tmp_path):
    io.write_json(tmp_path / "x.json", DESCRIPTION)
    assert json.loads((tmp_path / "x.json").read_text()) == DESCRIPTION
