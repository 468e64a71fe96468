"""CSV that a program reads back, and that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.csv_text import csv_line

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(), TEXTS), min_size=2, max_size=4)))
def test_rows_are_read_back(rows: list[list[Any]]) -> None:
    """Texts but for the apostrophe that keeps them from being formulas."""
    written = "".join(csv_line(row) for row in rows)
    found = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    assert len(found) == len(rows)
    for row, cells in zip(rows, found, strict=True):
        for value, cell in zip(row, cells, strict=True):
            if isinstance(value, str) and value.startswith(FORMULA):
                assert cell == f"'{value}"
            else:
                assert cell == ("" if value is None else str(value))


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")', "\uff1d1+1"]
)
def test_a_formula_is_text(name: str) -> None:
    """A source chose it."""
    line = csv_line([name, 1])
    assert line.startswith("\"'")
    assert next(csv.reader(io.StringIO(line, newline="")))[0] == f"'{name}"


def test_numbers_stay_numbers() -> None:
    """A negative one is no formula."""
    assert csv_line([-5, -0.5, True, False, None, "a,b", 'say "x"']) == '-5,-0.5,true,false,,"a,b","say ""x"""\r\n'
