from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from torch import Tensor

from fastgen.cli.values import Mismatch, convert, expected

FITS: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (float, 3, 3.0),
    (float, 0.5, 0.5),
    (bool, True, True),
    (str, "a", "a"),
    (str | None, "none", None),
    (float | None, None, None),
    (float | None, 2, 2.0),
    (str | int | None, 4, 4),
    (tuple[str | int, ...], ["a", 2], ("a", 2)),
    (tuple[int, int] | None, [8, 8], (8, 8)),
    (Sequence[int], [], ()),
    (Sequence[int], 8, (8,)),
    (tuple[str | int, ...] | None, "a", ("a",)),
    (str | Sequence[int] | Tensor, [2, 1], (2, 1)),
    (Literal["a", "b"], "b", "b"),
    (Mapping[str, Any] | Tensor, {"a": 1}, {"a": 1}),
    (Any, [1], [1]),
]


@pytest.mark.parametrize(("hint", "value", "converted"), FITS, ids=str)
def test_what_fits_is_converted(hint, value, converted):
    found = convert(value, hint)
    assert found == converted and type(found) is type(converted)


MISFITS = [
    (int, True, "expected a whole number, found True"),
    (int, 3.0, "expected a whole number, found 3.0"),
    (float, "0.1", "expected a finite number, found '0.1'"),
    (float, float("nan"), "expected a finite number, found nan"),
    (float, 10**400, "expected a finite number, found 1000"),
    (float | None, "None", "expected \"none\" or a finite number, found 'None'"),
    (bool, 1, "expected true or false, found 1"),
    (str, None, "expected a string, found None"),
    (tuple[int, int], [8], "expected a list of 2 values, each a whole number, found [8]"),
    (Sequence[int], ["a"], "expected a list, each of it a whole number, found ['a']"),
    (Sequence[int], 8.5, "expected a list, each of it a whole number, found 8.5"),
    (tuple[int, int], 8, "expected a list of 2 values, each a whole number, found 8"),
    (str | Sequence[int] | Tensor, 1.5, "expected a string or a list, each of it a whole number, found 1.5"),
    (Literal["a", "b"], "c", "expected one of a, b, found 'c'"),
    (Mapping[str, Any] | Tensor, 1, "expected a table, found 1"),
    (Mapping[str, Any], {"c": float("inf")}, "expected a table, found {'c': inf}"),
    (Mapping[str, Any], {"c": datetime.date(2000, 1, 1)}, "expected a table, found {'c': datetime"),
]


@pytest.mark.parametrize(("hint", "value", "message"), MISFITS, ids=str)
def test_what_does_not_fit_is_named(hint, value, message):
    with pytest.raises(Mismatch) as caught:
        convert(value, hint)
    assert str(caught.value).startswith(message)


def test_classes_that_no_file_can_hold_are_not_offered():
    assert expected(str | Tensor) == "a string"
