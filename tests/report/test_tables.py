"""Plain-text tables: alignment, missing values, wrong rows."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred.errors import ShapeError
from ssmred.report import table


def test_numbers_stand_right_and_words_left():
    text = table([["a", 1, "1.5 ms"], ["long name", 100, "20 us"]], ["layer", "states", "time"])
    assert text.splitlines() == [
        "layer      states    time",
        "---------  ------  ------",
        "a               1  1.5 ms",
        "long name     100   20 us",
    ]


def test_integers_of_any_kind_keep_every_digit_and_floats_four():
    text = table([[np.int64(1234567), 1234567, np.float32(0.123456), True]], list("abcd"))
    assert text.splitlines()[-1].split() == ["1234567", "1234567", "0.1235", "True"]


def test_none_is_a_dash_and_extreme_floats_are_shown():
    text = table([[None, float("inf"), 1e-13]], list("abc"))
    assert text.splitlines()[-1].split() == ["-", "inf", "1e-13"]


def test_no_rows_give_the_titles():
    assert table([], ["a", "bc"]).splitlines() == ["a  bc", "-  --"]


def test_no_line_ends_with_a_blank():
    text = table([["a", ""], ["b", "c"]], ["x", "a long title"])
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ShapeError, match=r"row 1 .* expected 2 cells, got 3"):
        table([[1, 2], [1, 2, 3]], ["a", "b"])
