"""Lists on stdout: for people, for programs."""

from __future__ import annotations

import csv
import enum
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from streams.cli.output import Output, emit, emit_lines

if TYPE_CHECKING:
    from collections.abc import Iterator


class Colour(enum.StrEnum):
    """A closed set."""

    RED = "RED"


ROWS: list[dict[str, Any]] = [
    {"id": "0:1", "delta_ms": -5, "hash": b"\x00\xff", "colour": Colour.RED, "held": True, "unseen": 1},
    {"id": 'a,"b"\n', "delta_ms": None, "hash": None, "colour": None, "held": False},
]
COLUMNS = ("id", "delta_ms", "hash", "colour", "held")


def test_json_lines_hold_the_named_columns_and_null(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, bytes as hex."""
    emit(ROWS, COLUMNS, Output.JSONL)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"id": "0:1", "delta_ms": -5, "hash": "00ff", "colour": "RED", "held": True},
        {"id": 'a,"b"\n', "delta_ms": None, "hash": None, "colour": None, "held": False},
    ]


def test_csv_reads_back_whatever_the_values_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Quotes, commas and line ends included; None is empty."""
    emit(ROWS, COLUMNS, Output.CSV)
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        list(COLUMNS),
        ["0:1", "-5", "00ff", "RED", "true"],
        ['a,"b"\n', "", "", "", "false"],
    ]


def test_a_table_spares_columns_that_no_row_fills(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that may be spared, and in a table alone: a program finds every column, always."""
    rows = [{"a": 1, "b": None, "c": None, "d": 0}, {"a": 2, "d": None}]
    assert emit(iter(rows), ("a", "b", "c", "d"), Output.TABLE, sparing={"b", "d"}) == 2
    assert capsys.readouterr().out.split("\n")[1].split() == ["a", "c", "d"]
    emit(iter(rows), ("a", "b", "c", "d"), Output.CSV, sparing={"b", "d"})
    assert capsys.readouterr().out.startswith("a,b,c,d\n")


def test_what_is_nested_is_json_in_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """In csv and in a table; no spelling of Python's."""
    rows = [{"a": {"b": None, "c": [True, "x", b"\x01"], "d": Colour.RED}}]
    assert emit(rows, ("a",), Output.CSV) == 1
    shown = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1][0]
    assert shown == '{"b":null,"c":[true,"x","01"],"d":"RED"}'
    assert emit(rows, ("a",), Output.TABLE) == 1
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("output", list(Output))
def test_the_rows_written_are_counted(capsys: pytest.CaptureFixture[str], output: Output) -> None:
    """So that a command may say why there is none."""
    assert emit(ROWS, COLUMNS, output) == len(ROWS)
    assert emit([], COLUMNS, output) == 0
    capsys.readouterr()


def test_a_table_shows_a_dash_for_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """And does not cut a hash or read markup in a value."""
    emit([{"id": "[red]x", "hash": "f" * 64, "delta_ms": None}], ("id", "hash", "delta_ms"), Output.TABLE)
    out = capsys.readouterr().out
    assert "delta ms" in out
    assert out.splitlines()[-2].split() == ["[red]x", "f" * 64, "-"]


def test_a_table_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Producers choose the names in it; nor do they write rows of their own."""
    emit([{"source": "a\x1b[2J\nb"}], ("source",), Output.TABLE)
    assert capsys.readouterr().out.splitlines()[-2].split() == ["a\ufffd[2J\ufffdb"]


@pytest.mark.parametrize("output", [Output.JSONL, Output.CSV])
def test_each_row_is_out_before_the_next_is_asked_for(capsys: pytest.CaptureFixture[str], output: Output) -> None:
    """A list without an end can be followed, in the memory of one row."""

    def rows() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        assert "1" in capsys.readouterr().out
        yield {"n": 2}

    emit(rows(), ("n",), output)
    assert "2" in capsys.readouterr().out


def test_lines_that_come_for_ever_are_as_wide_as_the_widest_up_to_now(capsys: pytest.CaptureFixture[str]) -> None:
    """Each at once, without what would steer a terminal; programs get their form."""
    rows: list[dict[str, Any]] = [{"a": "1", "b": None}, {"a": "long", "b": "\x1b[2J"}, {"a": "2", "b": "x"}]
    emit_lines(rows, ("a", "b"), ("b",), Output.TABLE)
    assert capsys.readouterr().out == "1  -\nlong  \ufffd[2J\n2     x\n"
    emit_lines(rows[:1], ("a", "b"), ("b",), Output.JSONL)
    assert capsys.readouterr().out == '{"b":null}\n'
