"""Lists on stdout: for people, for programs."""

from __future__ import annotations

import csv
import enum
import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from streams.cli.output import Output, emit, emit_lines, fitting

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
    """And does not read markup in a value."""
    emit([{"id": "[red]x", "hash": "f" * 64, "delta_ms": None}], ("id", "hash", "delta_ms"), Output.TABLE)
    out = capsys.readouterr().out
    assert "delta ms" in out
    assert out.splitlines()[-2].split() == ["[red]x", "f" * 12 + "...", "-"]


@pytest.mark.parametrize("digest", [b"\xab" * 32, "ab" * 32])
def test_only_a_table_shortens_a_hash(capsys: pytest.CaptureFixture[str], digest: bytes | str) -> None:
    """To 12 digits; a program finds all 64, and what only looks like a hash is whole everywhere."""
    rows = [{"hash": digest, "other": "ab" * 31, "upper": "AB" * 32}]
    emit(rows, ("hash", "other", "upper"), Output.TABLE)
    assert capsys.readouterr().out.splitlines()[-2].split() == ["ab" * 6 + "...", "ab" * 31, "AB" * 32]
    for output in (Output.JSONL, Output.CSV):
        emit(rows, ("hash",), output)
        assert "ab" * 32 in capsys.readouterr().out


_INSTANT = "2026-11-22T14:09:11.123Z"
_TEXT = f"a pump is 98188312.040 s ahead (RED) since {_INSTANT}, sequence 3:1, and so on"
_ALERT = {"recorded_at": _INSTANT, "state": "OPENED", "source": "valve-2", "worst_ms": 98188312040, "alert_id": "7:1"}


def _shown(
    row: dict[str, Any], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """A table of two rows on a terminal so wide, without its colours; and what stderr says."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert emit([row, row], tuple(row), Output.TABLE) == 2
    printed = capsys.readouterr()
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.out), printed.err


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_a_terminal_breaks_no_instant_and_leaves_out_whole_columns(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text is folded; what there is no room for is named on stderr, with where it is."""
    out, err = _shown({**_ALERT, "text": _TEXT}, columns, monkeypatch, capsys)
    assert all(len(line) <= columns for line in out.splitlines())
    titles = re.split(" {2,}", out.splitlines()[1].strip())
    for name, value in _ALERT.items():
        shown = name.replace("_", " ") in titles
        assert len(re.findall(rf"^.* {value} ", out, re.MULTILINE)) == (2 if shown else 0)
        assert (name.replace("_", " ") in err) != shown
    assert titles[-1] == "text"
    assert f"{_INSTANT}, " in out
    assert ("--output jsonl has all" in err) == (columns < 100)


def test_a_pipe_has_room_for_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each row, however long."""
    emit([{"source": "a b" * 100, "text": _TEXT * 3}], ("source", "text"), Output.TABLE)
    printed = capsys.readouterr()
    assert f" {'a b' * 100}   {_TEXT * 3} " in printed.out
    assert printed.err == ""


def test_the_columns_that_fit_are_those_that_matter() -> None:
    """Texts first, then from the left whatever still has room, what is secondary last; at least one."""
    widths = {"a": 10, "kind": 5, "b": 30, "c": 5, "text": 90}
    assert fitting(widths, 2 + 10 + 3 + 5 + 3 + 25) == ["a", "c", "text"]
    assert fitting(widths, 2 + 10 + 3 + 5 + 3 + 5 + 3 + 25) == ["a", "kind", "c", "text"]
    assert fitting(widths, 2 + 10 + 3 + 30 + 3 + 5 + 3 + 25) == ["a", "b", "c", "text"]
    assert fitting(widths, 10) == ["text"]
    assert fitting({"a": 20}, 5) == ["a"]


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
    """Each at once, below their names, without what would steer a terminal; programs get their form."""
    rows: list[dict[str, Any]] = [{"a": "1", "b": None}, {"a": "long", "b": "\x1b[2J"}, {"a": "2", "b": "x"}]
    emit_lines([{**row, "b_us": row["b"]} for row in rows], ("a", "b_us"), ("b",), Output.TABLE)
    assert capsys.readouterr().out == "a  b us\n1  -\nlong  \ufffd[2J\n2     x\n"
    emit_lines(rows[:1], ("a", "b"), ("b",), Output.JSONL)
    assert capsys.readouterr().out == '{"b":null}\n'
