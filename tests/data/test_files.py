from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest

from fastgen import data
from fastgen.data import DataError, FileOptions, describe, load
from fastgen.data.dataset import PARTS

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((200, 3))


def everything(dataset, what="rows"):
    return np.concatenate([getattr(getattr(dataset, part).read(), what) for part in PARTS])


def same_rows(one, other):
    return sorted(map(tuple, one.tolist())) == sorted(map(tuple, other.tolist()))


def idx(array, code=0x08):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()


# npy and npz


@pytest.mark.parametrize(
    "dtype", ["<f2", "<f4", ">f4", "<f8", ">f8", "i1", "<i2", ">i4", "<i8", "u1", "<u2", "<u8", "?", np.longdouble]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_real_dtype(tmp_path, dtype, order):
    rows = np.asarray(RNG.integers(0, 100, (50, 4)).astype(dtype), order=order)
    np.save(tmp_path / "x.npy", rows)
    dataset = load(tmp_path / "x.npy")
    assert dataset.train.dtype == np.float32 and dataset.name == "x"
    assert [len(getattr(dataset, part)) for part in PARTS] == [40, 5, 5]
    assert same_rows(everything(dataset), rows.astype(np.float32))
    assert load(tmp_path / "x.npy", dtype="float64").train.dtype == np.float64


def test_a_split_is_the_seeds(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    one, again, other = (load(tmp_path / "x.npy", seed=seed, valid=0.25, test=0.5) for seed in (1, 1, 2))
    assert [len(getattr(one, part)) for part in PARTS] == [50, 50, 100]
    assert np.array_equal(one.train.rows, again.train.rows) and not np.array_equal(one.train.rows, other.train.rows)


def test_one_axis_is_one_feature_and_three_are_images(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(50.0))
    assert load(tmp_path / "x.npy").features == 1
    np.save(tmp_path / "x.npy", np.arange(50 * 6, dtype=np.uint8).reshape(50, 2, 3))
    images = load(tmp_path / "x.npy")
    assert (images.features, images.image_shape, images.levels, images.grey_level) == (6, (2, 3), 256, 1.0)
    assert load(tmp_path / "x.npy", columns=[0, 1]).image_shape is None


@pytest.mark.parametrize("compressed", [True, False])
def test_npz_that_comes_split(tmp_path, compressed):
    parts = {"train": ROWS[:10], "valid": ROWS[10:13], "test": ROWS[13:20]}
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **parts)
    dataset = load(tmp_path / "x.npz", dtype="float64")
    for part in PARTS:
        assert np.array_equal(getattr(dataset, part).rows, parts[part])


def test_npz_with_context_weight_and_labels(tmp_path):
    arrays = {}
    for part, rows in (("train", 10), ("valid", 4), ("test", 5)):
        arrays[part] = ROWS[:rows]
        arrays[f"{part}_context"] = ROWS[:rows, :2] + 1
        arrays[f"{part}_weight"] = np.arange(rows) + 1
        arrays[f"{part}_labels"] = np.arange(rows) % 3 if part != "valid" else np.zeros(rows, int)
    np.savez(tmp_path / "x.npz", **arrays)
    dataset = load(tmp_path / "x.npz", dtype="float64")
    assert dataset.context_features == 5 and dataset.train.weighted
    assert np.array_equal(dataset.train.context[:, :2], arrays["train_context"])
    assert np.array_equal(dataset.train.context[:, 2:], np.eye(3)[arrays["train_labels"]])
    # As many classes as any part has.
    assert np.array_equal(dataset.valid.context[:, 2:], np.eye(3)[[0, 0, 0, 0]])
    assert np.array_equal(dataset.test.weight, [1, 2, 3, 4, 5])
    del arrays["valid_context"]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=r"x\.npz: valid: expected context 2 as train has, found 0"):
        load(tmp_path / "x.npz")


def test_npz_of_one_array_is_split_with_what_belongs_to_it(tmp_path):
    np.savez(tmp_path / "x.npz", points=ROWS, points_context=ROWS.sum(axis=1))
    dataset = load(tmp_path / "x.npz", dtype="float64")
    assert np.array_equal(dataset.train.context[:, 0], dataset.train.rows.sum(axis=1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected arrays train, valid and test, or one array, found none"),
        ({"train": ROWS, "test": ROWS}, "expected arrays train, valid and test, or one array, found train, test"),
        (
            {"train": ROWS, "valid": ROWS, "test": ROWS, "other": ROWS},
            "expected train, valid, test and .*, found 'other' as well",
        ),
        ({"x": ROWS, "x_weight": ROWS}, r"x_weight: expected weights of one axis, found shape \(200, 3\)"),
        ({"x": ROWS, "x_context": ROWS[1:]}, "x_context: expected 200 rows as .*x has, found 199"),
        ({"x": ROWS, "x_labels": ROWS[:, 0]}, "x_labels: expected classes as whole numbers of one axis, found float64"),
        ({"x": ROWS, "x_labels": np.arange(200) - 1}, r"x_labels: expected classes from 0 to 999, found -1 \(row 0\)"),
        (
            {"x": ROWS, "x_weight": -(ROWS[:, 0] ** 2)},
            r"expected weights of at least 0, found -.* \(row 0, column 0 of .*x_weight\)",
        ),
        ({"x": ROWS, "x_weight": np.zeros(200)}, "x: expected weights that are not all 0 in train, valid and test"),
        ({"train": ROWS, "valid": ROWS[:, :2], "test": ROWS}, "valid: expected features 3 as train has, found 2"),
        ({"x": np.array([{}], object)}, "x: expected an array of real numbers, found dtype object|expected an npy file"),
        ({"x": ROWS + 1j}, "x: expected an array of real numbers, found dtype complex128"),
        ({"x": np.array(["a"])}, "x: expected an array of real numbers, found dtype <U1"),
        ({"x": np.zeros((5, 0))}, r"x: expected rows .*, found shape \(5, 0\)"),
        ({"x": np.zeros((5, 1, 1, 1))}, r"x: expected rows .*, found shape \(5, 1, 1, 1\)"),
        ({"x": np.zeros((2, 2))}, "x: expected a row at least in each of train, valid and test, found 2, 0, 0"),
    ],
)
def test_arrays_that_are_not_as_they_should(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.npz")


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("unpickled",))

    np.save(tmp_path / "x.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy: expected an array of real numbers, found dtype object"):
        load(tmp_path / "x.npy")


# Numbers


@pytest.mark.parametrize(("value", "found"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_what_is_not_finite_is_named_or_dropped(tmp_path, value, found):
    rows = ROWS.copy()
    rows[[7, 150], [2, 0]] = value
    np.save(tmp_path / "x.npy", rows)
    with pytest.raises(DataError, match=rf"x\.npy: expected finite numbers, found {found} \(row 7, column 2\)"):
        load(tmp_path / "x.npy")
    left = load(tmp_path / "x.npy", missing="drop", dtype="float64")
    assert same_rows(everything(left), np.delete(rows, [7, 150], axis=0))


@pytest.mark.parametrize(
    ("rows", "dtype", "message"),
    [
        (np.full((50, 2), 2**24 + 1), "float32", "expected whole numbers that float32 holds exactly, found 16777217"),
        (
            np.full((50, 2), 2**63 - 1),
            "float64",
            "expected whole numbers that float64 holds exactly, found 9223372036854775807",
        ),
        (np.full((50, 2), 2**64 - 1, np.uint64), "float32", "found 18446744073709551615"),
        (np.full((50, 2), 1e39), "float32", r"expected numbers in the range of float32, found 1e\+39"),
    ],
)
def test_numbers_that_are_not_kept_are_named(tmp_path, rows, dtype, message):
    rows[:30] = 1
    np.save(tmp_path / "x.npy", rows)
    with pytest.raises(DataError, match=rf"{message}.* \(row 30, column 0\)"):
        load(tmp_path / "x.npy", dtype=dtype)


def test_large_whole_numbers_that_are_exact_are_kept(tmp_path):
    rows = np.array([[2**40], [-(2**63)], [2**24]] * 10)
    np.save(tmp_path / "x.npy", rows)
    assert same_rows(everything(load(tmp_path / "x.npy")), rows.astype(np.float32))


# Options


def test_columns_get_their_roles(tmp_path):
    rows = np.abs(RNG.standard_normal((100, 5)))
    np.save(tmp_path / "x.npy", rows)
    dataset = load(tmp_path / "x.npy", context=[-1, 0], weight=2, dtype="float64")
    whole = np.concatenate(
        [everything(dataset), everything(dataset, "context"), everything(dataset, "weight")[:, None]], axis=1
    )
    assert same_rows(whole, rows[:, [1, 3, 4, 0, 2]])
    chosen = load(tmp_path / "x.npy", columns=[4, 1], dtype="float64")
    assert same_rows(everything(chosen), rows[:, [4, 1]]) and chosen.context_features == 0
    assert load(tmp_path / "x.npy", context=1, columns=[0]).train.rows.flags.c_contiguous


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": ["aeg"]}, "expected a column 'aeg' for context, found none; did you mean 'age'"),
        ({"context": [3]}, "expected an index from -3 to 2 for context, found 3"),
        ({"context": ["age", -3]}, "expected each column once, found column 'age' twice in context"),
        ({"context": ["age"], "weight": "0"}, "expected each column once, found column 'age' twice in context and weight"),
        ({"context": ["age", 1, 2]}, "expected at least one feature column, found none beside 3"),
        ({"context": 1.5}, "context: expected names or indices of columns, found 1.5"),
        ({"columns": []}, r"columns: expected at least one column, found \(\)"),
        ({"weight": True}, "weight: expected a column's name or index, found True"),
        ({"dtype": "float16"}, "dtype: expected float32 or float64, found 'float16'"),
        ({"missing": "keep"}, "missing: expected error or drop, found 'keep'"),
        ({"valid": 0}, "valid: expected a fraction between 0 and 1, found 0"),
        ({"valid": 0.6, "test": 0.5}, r"valid \+ test: expected less than 1, found 1.1"),
        ({"levels": 1}, "levels: expected at least 2, found 1"),
        ({"levels": 60}, r"expected whole numbers from 0 to 59, found 60 \(line 62, column 'age'\)"),
        ({"image_shape": 4}, "image_shape: expected a height and a width, found 4"),
        ({"image_shape": (2, 2)}, "expected 2x2 pixels a row, found 3 features"),
        ({"mapped": "yes"}, "mapped: expected true or false, found 'yes'"),
        ({"labels": "none.npy"}, "none.npy: cannot be read: No such file"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    (tmp_path / "x.csv").write_text("age,height,weight\n" + "".join(f"{i},1,2\n" for i in range(100)))
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.csv", **options)


def test_an_option_that_does_not_exist(tmp_path):
    with pytest.raises(TypeError, match=r"expected an option among context, .*, found 'colums'; did you mean 'columns'"):
        load(tmp_path / "x.csv", colums=[1])


def test_options_survive_json():
    assert FileOptions(context=["a", 1], image_shape=[2, 3]) == FileOptions(context=("a", 1), image_shape=(2, 3))


@pytest.mark.parametrize(
    ("rows", "options", "levels"),
    [
        (np.array([[0, 1], [1, 1]] * 20, np.uint8), {}, 2),
        (np.array([[0.0, 1.0], [1.0, 1.0]] * 20), {}, 2),
        (np.array([[0, 3], [1, 1]] * 20, np.uint8), {}, 256),
        (np.array([[0, 3], [1, 1]] * 20, np.uint8), {"levels": 4}, 4),
        (np.array([[0, 3], [1, 1]] * 20), {}, None),
        (np.array([[0.5, 1.0], [1.0, 1.0]] * 20), {}, None),
    ],
)
def test_levels(tmp_path, rows, options, levels):
    np.save(tmp_path / "x.npy", rows)
    assert load(tmp_path / "x.npy", **options).levels == levels


def test_levels_concern_features_only(tmp_path):
    np.save(tmp_path / "x.npy", np.stack([np.arange(40) % 2, np.arange(40) / 7], axis=1))
    assert load(tmp_path / "x.npy", context=1).levels == 2


# csv


def csv(tmp_path, text, **options):
    (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(tmp_path / "x.csv", valid=0.25, test=0.25, **options)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n5,6\n7,8\n",
        "a;b\r\n1;2\r\n3;4\r\n5;6\r\n7;8",
        "a\tb\n1\t2\n\n3\t4\n5\t6\n7\t8\n\n",
        '"a","b"\n"1","2"\n3, 4\n 5,6 \n+7,8e0\n',
        "\ufeffa,b\n1,2\r3,4\r5,6\r7,8\r",
    ],
)
def test_csv_in_many_hands(tmp_path, text):
    dataset = csv(tmp_path, text)
    assert dataset.columns == ("a", "b")
    assert same_rows(everything(dataset), np.arange(1.0, 9.0).reshape(4, 2))


def test_csv_without_a_header(tmp_path):
    dataset = csv(tmp_path, "1,2\n3,4\n5,6\n7,8\n")
    assert dataset.columns is None and same_rows(everything(dataset), np.arange(1.0, 9.0).reshape(4, 2))


def test_csv_names_go_with_their_columns(tmp_path):
    dataset = csv(tmp_path, "name,b,c,d\n" + "x,1,2,3\n" * 8, columns=["d", "b"], context="c")
    assert dataset.columns == ("d", "b") and dataset.context_columns == ("c",)
    assert dataset.train.rows[0].tolist() == [3, 1] and dataset.train.context[0].tolist() == [2]


@pytest.mark.parametrize("missing", ["", "NA", "nan", "n/a", "null", " ", "?"])
def test_csv_with_missing_values(tmp_path, missing):
    text = f"a,b\n1,2\n3,4\n\n5,{missing}\n7,8\n9,10\n11,12\n"
    with pytest.raises(DataError, match=r"x\.csv: expected finite numbers, found a missing value \(line 5, column 'b'\)"):
        csv(tmp_path, text)
    assert same_rows(everything(csv(tmp_path, text, missing="drop")), np.array([[1, 2], [3, 4], [7, 8], [9, 10], [11, 12.0]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected lines of numbers, found none"),
        ("\n\n", "expected lines of numbers, found none"),
        ("a,b\n", "expected lines of numbers, found a header only"),
        ("a,b\n1,2\n1,x\n", r"expected a number, found 'x' \(line 3, column 'b'\)"),
        ("1,2\n1,1_000\n", r"expected a number, found '1_000' \(line 2, column 1\)"),
        ("a,b\n1,\0\n", r"expected a number, found '\\x00' \(line 2, column 'b'\)"),
        ("a,b\n1,2\n\n1,2,3\n", r"expected 2 columns, found 3 \(line 4\)"),
        ('a,b\n1,2\n"1,2\n3,4\n', r"expected cells with their quotes closed, found: .* \(line 3\)"),
        ("é,b\n1,2\n".encode("latin-1"), r"expected text in UTF-8, found byte 0xe9 \(line 1\)"),
        ("a,b\n1,2\n".encode("utf-16"), r"expected text in UTF-8, found byte 0xff \(line 1\)"),
        ("a,b\n1,inf\n", r"expected finite numbers, found inf \(line 2, column 'b'\)"),
        ("a,b\n1,1e39\n", r"expected numbers in the range of float32, found 1e\+39 \(line 2, column 'b'\)"),
        ("a,b\n1,2\n16777217,2\n", r"expected whole numbers that float32 holds exactly, found 16777217 \(line 3, column 'a'\)"),
        ("a,a\n1,2\n", "expected one column 'a' for context, found 2; use its index"),
    ],
)
def test_csv_that_is_not_as_it_should(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"x\.csv: {message}"):
        csv(tmp_path, text, **({"context": "a"} if "a,a" in str(text) else {}))


def test_csv_of_many_lines_names_the_right_one(tmp_path):
    lines = [f"{i},{i / 2},-1" for i in range(70000)]
    lines[50000] = "1,oops,2"
    with pytest.raises(DataError, match=r"found 'oops' \(line 50002, column 'b'\)"):
        csv(tmp_path, "\n".join(["a,b,c", *lines]))
    lines[50000] = "1,1e999,2"
    with pytest.raises(DataError, match=r"found inf \(line 50002, column 'b'\)"):
        csv(tmp_path, "\n".join(["a,b,c", *lines]))


def test_large_fractions_and_powers_of_ten_are_no_whole_numbers_to_keep(tmp_path):
    dataset = csv(tmp_path, "123456789.25,1e20\n" * 4)
    assert dataset.train.rows[0].tolist() == [np.float32(123456789.25), np.float32(1e20)]


# IDX


@pytest.mark.parametrize(
    ("dtype", "code"), [(">u1", 0x08), (">i1", 0x09), (">i2", 0x0B), (">i4", 0x0C), (">f4", 0x0D), (">f8", 0x0E)]
)
@pytest.mark.parametrize("packed", [True, False])
def test_idx(tmp_path, dtype, code, packed):
    images = RNG.integers(0, 100, (30, 2, 3)).astype(dtype)
    content = idx(images, code)
    path = tmp_path / ("x-idx3-ubyte.gz" if packed else "x.idx3-ubyte")
    path.write_bytes(gzip.compress(content) if packed else content)
    dataset = load(path)
    assert same_rows(everything(dataset), images.reshape(30, 6).astype(np.float32))
    assert dataset.image_shape == (2, 3) and dataset.levels == (256 if code == 0x08 else None)


def test_labels_are_one_hot_context(tmp_path):
    rows = np.arange(60, dtype=np.int16).reshape(30, 2) % 50
    np.save(tmp_path / "x.npy", rows)
    labels = (rows[:, 0] % 4 // 2).astype(np.uint8)
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(labels))
    for name in ("labels.npy", "labels-idx1-ubyte"):
        dataset = load(tmp_path / "x.npy", labels=tmp_path / name, missing="drop", context=[1])
        assert dataset.context_columns == ("column 1", "class=0", "class=1")
        expected = np.eye(2)[dataset.train.rows[:, 0].astype(int) % 4 // 2]
        assert np.array_equal(dataset.train.context[:, 1:], expected)
    np.save(tmp_path / "labels.npy", labels[1:])
    with pytest.raises(DataError, match=r"labels\.npy: expected 30 rows as .*x\.npy has, found 29"):
        load(tmp_path / "x.npy", labels=tmp_path / "labels.npy")


# Parquet


@pytest.fixture
def parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    import pyarrow
    from pyarrow import parquet

    def write(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
        return tmp_path / "x.parquet"

    return write


def test_parquet(parquet):
    path = parquet(a=ROWS[:, 0], b=np.arange(200), c=np.arange(200) % 2 == 0, name=["x"] * 200)
    dataset = load(path, columns=["c", "a"], context="b", dtype="float64")
    assert dataset.columns == ("c", "a") and dataset.context_columns == ("b",)
    order = everything(dataset, "context")[:, 0].astype(int)
    assert np.array_equal(everything(dataset), np.stack([order % 2 == 0, ROWS[order, 0]], axis=1))


def test_parquet_that_is_not_as_it_should(parquet, tmp_path):
    with pytest.raises(DataError, match=r"x\.parquet: expected numbers, found string \(column 'name'\)"):
        load(parquet(a=np.arange(20), name=["x"] * 20))
    with pytest.raises(DataError, match=r"expected finite numbers, found nan \(row 1, column 'a'\)"):
        load(parquet(a=[1, None, 3] * 10))
    assert len(everything(load(parquet(a=[1, None, 3] * 10), missing="drop"))) == 20
    with pytest.raises(DataError, match=r"that float32 holds exactly, found 16777217 \(row 70000, column 'a'\)"):
        load(parquet(a=np.r_[np.zeros(70000, int), 2**24 + 1]))
    (tmp_path / "y.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"y\.parquet: expected a Parquet file, found: "):
        load(tmp_path / "y.parquet")


def test_without_pyarrow_its_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"x\.parquet: .*pip install fastgen\[parquet\]"):
        load(tmp_path / "x.parquet")


# Files as such


def test_files_that_are_not_there_or_of_no_known_kind(tmp_path):
    (tmp_path / "x.xlsx").write_bytes(b"")
    for path, found in (
        (tmp_path / "x.npy", "found none"),
        (tmp_path, "found a folder"),
        (tmp_path / "x.xlsx", "found 'x.xlsx'"),
    ):
        with pytest.raises(DataError, match=found):
            load(path)


# Descriptions


def test_a_description_tells_columns_apart(tmp_path):
    rows = [f"{i % 7},{i},2,1" for i in range(40)]
    rows[9] = ",1,2,1"
    (tmp_path / "x.csv").write_text("\n".join(["a,b,same,w", *rows]))
    found = describe(tmp_path / "x.csv", context="b", weight="w")
    whole = np.delete(np.arange(40), 9)
    assert [(c.name, c.role, c.missing) for c in found.columns] == [
        ("a", "feature", 1),
        ("same", "feature", 0),
        ("b", "context", 0),
        ("w", "weight", 0),
    ]
    b = found.columns[2]
    assert (b.minimum, b.maximum) == (0, 39) and b.mean == pytest.approx(whole.mean()) and b.std == pytest.approx(whole.std())
    assert found.constant == ("same", "w") and found.dropped == 1 and found.rows == {"train": 31, "valid": 4, "test": 4}
    assert found.problem.endswith("x.csv: expected finite numbers, found a missing value (line 11, column 'a')")
    text = "\n".join(found.lines())
    assert "feature a: 0 to 6" in text and "constant columns: 2 (same, w)" in text and "training would stop" in text
    assert describe(tmp_path / "x.csv", missing="drop").problem is None


def test_moments_are_merged_over_blocks_and_parts(tmp_path):
    rows = (1e6 + RNG.standard_normal((90000, 3))).astype(np.float64)
    np.savez(tmp_path / "x.npz", train=rows[:70000], valid=rows[70000:80000], test=rows[80000:])
    found = describe(tmp_path / "x.npz", dtype="float64")
    # One part in 1e12 of the mean per pass of float64, over a standard deviation a million times smaller.
    np.testing.assert_allclose([c.std for c in found.columns], rows.std(axis=0), rtol=1e-8)
    np.testing.assert_allclose([c.mean for c in found.columns], rows.mean(axis=0), rtol=1e-13)


def test_a_shipped_set_is_described():
    found = describe("digits")
    assert (found.features, found.levels, found.image_shape, found.file_bytes) == (64, 17, (8, 8), None)
    assert found.rows == {"train": 1258, "valid": 180, "test": 359} and len(found.constant) == 3
    assert found.lines()[0] == "source: digits (shipped)"


# Real files


@pytest.mark.parametrize(
    ("name", "features", "rows"),
    [("mushrooms", 112, [2000, 500, 5624]), ("nips", 500, [400, 100, 1240]), ("dna", 180, [1600, 400, 1186])],
)
def test_binary_sets(real, name, features, rows):
    dataset = load(real(f"debd/{name}.npz"))
    assert (dataset.features, dataset.levels, dataset.image_shape) == (features, 2, None)
    assert [len(getattr(dataset, part)) for part in PARTS] == rows


def test_mnist(real):
    images, labels = real("mnist/t10k-images-idx3-ubyte.gz"), real("mnist/t10k-labels-idx1-ubyte.gz")
    dataset = load(images, labels=labels)
    assert (dataset.features, dataset.levels, dataset.image_shape, dataset.grey_level) == (784, 256, (28, 28), 1.0)
    assert [len(getattr(dataset, part)) for part in PARTS] == [8000, 1000, 1000]
    context = everything(dataset, "context")
    assert context.shape == (10000, 10) and np.array_equal(context.sum(axis=1), np.ones(10000))
    # Ones are the darkest digits, zeros the brightest.
    brightness = [everything(dataset)[context[:, digit] == 1].mean() for digit in range(10)]
    assert np.argmin(brightness) == 1 and np.argmax(brightness) == 0
    assert data.describe(images).rows == {"train": 8000, "valid": 1000, "test": 1000}
