"""Files made or damaged to do harm: each is a data set, or one line that names it, in memory that its size justifies."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastgen.data import DataError, describe, load
from fastgen.data.files import csv

FUZZ = settings(max_examples=250, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# What reading takes whatever the file: blocks, buffers, and the messages.
FLOOR = 24 << 20
# float64 of single digits and their separators, copies of which are converted and split.
PER_BYTE = 40


def attempt(path, content, per_byte=PER_BYTE, **options):
    """Reads the content; what DataError said of it, or None."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        load(path, **options)
        describe(path, **options)
    except DataError as error:
        said = str(error)
        assert str(path) in said and "\n" not in said and len(said) < 1000
        return said
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < FLOOR + per_byte * len(content)
    return None


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_header(text, version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode("latin-1")


def npz(compressed=True, **arrays):
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def parquet(rows):
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"a": rows[:, 0], "b": rows[:, 1]}), buffer)
    return buffer.getvalue()


def damaged(content):
    """Bytes of the content with some changed, mostly at its start and end, where headers are; cut; extended."""

    @st.composite
    def damage(draw):
        changed = bytearray(content)
        place = st.integers(0, min(150, len(content) - 1)) | st.integers(max(0, len(content) - 150), len(content) - 1)
        for at in draw(st.lists(place | st.integers(0, len(content) - 1), max_size=5)):
            changed[at] = draw(st.integers(0, 255) | st.sampled_from([0, 1, 127, 128, 255]))
        end = draw(st.just(len(changed)) | st.integers(0, len(changed)))
        return bytes(changed[:end]) + draw(st.just(b"") | st.binary(max_size=20))

    return damage()


PIXELS = np.arange(60 * 4, dtype=np.uint8).reshape(60, 2, 2)
REALS = np.arange(120, dtype=np.float32).reshape(60, 2) / 7
TEXT = ("first,second\n" + "".join(f"{a},{b}\n" for a, b in REALS.tolist())).encode()


@FUZZ
@given(content=damaged(npy(REALS)))
def test_damaged_npy(tmp_path, content):
    attempt(tmp_path / "x.npy", content)


@FUZZ
@given(content=damaged(npy(REALS)))
def test_damaged_npy_left_in_the_file(tmp_path, content):
    attempt(tmp_path / "x.npy", content, mapped=True)


@FUZZ
@given(content=damaged(npz(train=REALS, valid=REALS, test=REALS, train_weight=REALS[:, 0])) | damaged(npz(False, x=REALS)))
def test_damaged_npz(tmp_path, content):
    attempt(tmp_path / "x.npz", content)


@FUZZ
@given(content=damaged(idx(PIXELS)) | damaged(gzip.compress(idx(PIXELS), mtime=0)))
def test_damaged_idx(tmp_path, content):
    attempt(tmp_path / "x-idx3-ubyte", content)


@FUZZ
@given(content=damaged(gzip.compress(idx(PIXELS[:, 0, 0]), mtime=0)) | damaged(idx(PIXELS[:, 0, 0])))
def test_damaged_labels(tmp_path, content):
    (tmp_path / "labels-idx1-ubyte").write_bytes(content)
    np.save(tmp_path / "x.npy", REALS)
    try:
        load(tmp_path / "x.npy", labels=tmp_path / "labels-idx1-ubyte")
    except DataError as error:
        assert "labels-idx1-ubyte: expected" in str(error) and "\n" not in str(error)


@FUZZ
@given(content=damaged(TEXT) | st.binary(max_size=200))
@example(content=b"\0" * 100)
@example(content=b'"' * 1001)
@example(content=b'a,b\n"' + b"1,2\n" * 1000)
@example(content=b"\xef\xbb\xbf")
@example(content=b"," * 100)
@example(content=b"a,b\n" + b"9" * 5000 + b",1\n")
@example(content=b"a,b\n" + b"0" * 5000 + b"16777217,1\n")
def test_damaged_csv(tmp_path, content):
    attempt(tmp_path / "x.csv", content)


@FUZZ
@given(text=st.text(alphabet='0123456789eE+-.,;\t\n\r "naif_\0é\u2028', max_size=200))
def test_random_csv(tmp_path, text):
    attempt(tmp_path / "x.csv", text.encode())
    attempt(tmp_path / "x.csv", text.encode(), missing="drop")


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_damaged_parquet(tmp_path, data):
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    attempt(tmp_path / "x.parquet", data.draw(damaged(parquet(REALS))))


SIZES = st.integers(-(2**70), 2**70) | st.sampled_from([0, -1, 1, 2**31, 2**32, 2**62, 2**63, 2**64])
SHAPES = st.lists(SIZES, max_size=5).map(tuple)
DTYPES = st.sampled_from(["<f4", ">f8", "|u1", "|b1", "<f16", "|O", "<U9", "<c8", "<M8[s]", "|V4", "<f99999999999", "", "x"])


@FUZZ
@given(shape=SHAPES, dtype=DTYPES, fortran=st.booleans(), version=st.integers(1, 2))
def test_npy_headers_that_declare_anything(tmp_path, shape, dtype, fortran, version):
    text = repr({"descr": dtype, "fortran_order": fortran, "shape": shape}) + "\n"
    attempt(tmp_path / "x.npy", npy_header(text, version) + bytes(64))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4000,
        "-" * 4000,
        "[" * 4000 + "]" * 4000,
        "{'descr': " * 500,
        "9" * 4090,
        "__import__('os').system('true')",
        "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': 2, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 8)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 4}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': {}, 'fortran_order': False, 'shape': (16,)}",
        "\0",
        "",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3, 9])
def test_npy_headers_that_are_no_headers(tmp_path, text, version):
    said = attempt(tmp_path / "x.npy", npy_header(text, version) + bytes(64))
    assert said is None or "expected a" in said or "bytes of numbers" in said


def test_an_npy_header_longer_than_the_file(tmp_path):
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{"
    assert "expected an npy file" in attempt(tmp_path / "x.npy", content)


@FUZZ
@given(
    magic=st.binary(min_size=4, max_size=4)
    | st.tuples(st.sampled_from([8, 9, 11, 12, 13, 14]), st.integers(0, 255)).map(lambda kind: bytes([0, 0, *kind])),
    rest=st.binary(max_size=80)
    | st.lists(st.sampled_from([0, 1, 2, 4, 2**31, 2**32 - 1]), max_size=5).map(
        lambda axes: struct.pack(f">{len(axes)}I", *axes) + bytes(16)
    ),
    packed=st.booleans(),
)
def test_idx_headers_that_declare_anything(tmp_path, magic, rest, packed):
    attempt(tmp_path / "x.idx", gzip.compress(magic + rest) if packed else magic + rest)


def test_packed_files_do_not_grow_beyond_what_they_declare_or_deflate_can(tmp_path):
    # 64 MiB of zeros behind a header that declares 16 bytes, and a header that declares a terabyte of them.
    behind = gzip.compress(idx(np.zeros(16, np.uint8)) + bytes(64 << 20))
    assert "expected 16 bytes of numbers for shape (16,), found more" in attempt(tmp_path / "x.idx", behind)
    declared = gzip.compress(struct.pack(">BBBBII", 0, 0, 8, 2, 2**20, 2**20) + bytes(1 << 20))
    assert "expected at most" in attempt(tmp_path / "x.idx", declared)


def _zip(content, name="x.npy", **changes):
    """An archive whose directory says what the changes say."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for key, value in changes.items():
            setattr(archive.filelist[0], key, value)
    return buffer.getvalue()


def test_members_that_declare_more_than_they_hold(tmp_path):
    header = npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824, 256)}")
    whole = len(header) + 2**40
    bomb = zlib.compress(bytes(1 << 20))
    cases = {
        "declared": (_zip(header + bytes(1 << 20)), "expected 1099511627776 bytes of numbers"),
        "agreed": (_zip(header + bytes(1 << 20), file_size=whole), "expected at most|expected an npz file"),
        "packed": (
            _zip(header + bytes(1 << 20), file_size=whole, compress_size=2**31),
            "within the file's|expected an npz file",
        ),
        "pickled": (_zip(npy(np.array([{}], object))), "expected an array of real numbers, found dtype object"),
        "text": (_zip(b"no array at all"), "expected an npy file"),
        "bomb": (
            _zip(npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (64,)}") + bomb * 50),
            "64 bytes of numbers",
        ),
        "folder": (_zip(b"", name="x/"), "expected an npy file"),
        "outside": (_zip(npy(REALS), name="../../x.npy"), None),
    }
    for name, (content, expected) in cases.items():
        said = attempt(tmp_path / "x.npz", content)
        assert (said is None) if expected is None else any(part in said for part in expected.split("|")), (name, said)


def test_members_that_lie_over_each_other(tmp_path):
    """One member's bytes under many names, each of which would unpack on its own."""
    content = bytearray(npz(train=REALS, valid=REALS, test=REALS))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first, *others = archive.filelist
    directory = content.index(b"PK\x01\x02")
    for _ in others:
        directory = content.index(b"PK\x01\x02", directory + 4)
        content[directory + 42 : directory + 46] = struct.pack("<I", first.header_offset)
    assert "expected an npz file" in attempt(tmp_path / "x.npz", bytes(content))


def test_constant_data_that_packs_very_well_is_read(tmp_path):
    rows = np.zeros((200000, 4), np.uint8)
    content = npz(x=rows)
    assert rows.nbytes > 500 * len(content)
    assert attempt(tmp_path / "x.npz", content, per_byte=1032 * PER_BYTE) is None
    content = gzip.compress(idx(rows))
    assert attempt(tmp_path / "x-idx2-ubyte.gz", content, per_byte=1032 * PER_BYTE) is None


def test_csv_with_a_million_columns(tmp_path):
    # Text of a line's cells takes 60 bytes for each.
    some = ",".join(["1.5"] * 10**5)
    assert attempt(tmp_path / "x.csv", "\n".join([some] * 3).encode(), per_byte=100, valid=0.3, test=0.3) is None
    many = ",".join(["1"] * 10**6)
    said = attempt(tmp_path / "x.csv", f"{many}\n{many},1".encode(), per_byte=200)
    assert "expected 1000000 columns, found 1000001 (line 2)" in said


def test_a_line_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "LINE_CHARACTERS", 10000)
    said = attempt(tmp_path / "x.csv", b"a,b\n" + b"1," * 10**6)
    assert "expected lines of at most 10000 characters, found more (line 2)" in said


def test_classes_that_are_no_classes(tmp_path):
    np.save(tmp_path / "x.npy", REALS)
    np.save(tmp_path / "labels.npy", np.full(60, 2**40))
    with pytest.raises(DataError, match=r"labels\.npy: expected classes from 0 to 999, found 1099511627776 \(row 0\)"):
        load(tmp_path / "x.npy", labels=tmp_path / "labels.npy")


def test_parquet_of_very_long_runs(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    rows = 1 << 25
    column = pyarrow.array(np.zeros(rows, np.int8))
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"a": column}), buffer)
    assert rows * 4 > 1032 * len(buffer.getvalue())
    said = attempt(tmp_path / "x.parquet", buffer.getvalue())
    assert f"bytes can hold, found {rows} rows of 1 columns" in said


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to limit the memory of a process")
def test_small_files_that_ask_for_much_are_refused_in_little_memory(tmp_path):
    import subprocess

    (tmp_path / "x.npy").write_bytes(npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2147483648,)}"))
    (tmp_path / "y.idx").write_bytes(struct.pack(">BBBBI", 0, 0, 14, 1, 2**32 - 1))
    code = """
import resource, sys
from fastgen.data import DataError, load

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        load(path)
    except DataError as error:
        print("refused", error)
"""
    paths = [str(tmp_path / "x.npy"), str(tmp_path / "y.idx")]
    out = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True).stdout
    assert out.count("refused") == 2
