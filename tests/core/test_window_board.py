"""Which windows are shown to somebody who looks on, and whose events are counted as left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streams import window_board
from streams.window_board import LateSource, WindowBoard, merged

if TYPE_CHECKING:
    import pytest

SECOND_US = 1_000_000


def result(start_s: int = 0, *, partition: int = 0, definition: str = "all_10s", **more: Any) -> dict[str, Any]:
    """As much of a record as a board looks at: a window of ten seconds over all."""
    return {
        "definition": definition, "partition": partition, "version": 4, "key": None, "final": True,
        "window_start_us": start_s * SECOND_US, "window_end_us": (start_s + 10) * SECOND_US, "count": 3, "values": 2,
        "sum": 6.0, "min": 1.0, "max": 5.0, "mean": 3.0, "percentiles": {"50": 1.0, "99.9": None}, **more,
    }  # fmt: skip


def late(source: str, late: int = 0, ahead: int = 0, definition: str = "source_minute") -> dict[str, Any]:
    """Counts since the last such record."""
    return {
        "definition": definition, "partition": 0, "version": 3, "source": source, "late": late, "ahead": ahead
    }  # fmt: skip


def board_of(*records: dict[str, Any]) -> WindowBoard:
    """All of them fresh."""
    board = WindowBoard()
    for record in records:
        board.apply(record, fresh=True)
    return board


def test_the_window_that_closed_last_is_kept_of_each_partition() -> None:
    """With the numbers that say something by themselves; in order of partitions."""
    board = board_of(result(0, partition=1), result(10), result(10, partition=1), result(20, count=7))
    windows = board.closed()
    assert [(w.partition, w.start_us // SECOND_US, w.events) for w in windows] == [(0, 20, 7), (1, 10, 3)]
    assert windows[0].numbers == {"mean": 3.0, "min": 1.0, "max": 5.0, "p50": 1.0, "p99.9": None}


def test_a_late_event_does_not_bring_an_earlier_window_back() -> None:
    """A later revision of the same window replaces it."""
    board = board_of(result(10), result(10, count=4), result(0, count=9))
    assert [(w.start_us // SECOND_US, w.events) for w in board.closed()] == [(10, 4)]


def test_windows_that_are_open_or_of_a_key_are_passed_over() -> None:
    """The first are not the last word, the second are too many."""
    assert board_of(result(final=False), result(key="pump-7")).closed() == []
    assert merged([]) is None


def test_of_several_definitions_the_first_by_name_is_shown() -> None:
    """Always the same one."""
    board = board_of(result(0), result(0, definition="all_1s"))
    assert {w.definition for w in board.closed()} == {"all_10s"}
    assert {w.definition for w in board.closed({"all_1s", "other"})} == {"all_1s"}
    assert board.closed({"other"}) == []


def test_a_window_without_percentiles_has_none() -> None:
    """Nor functions that were not asked for."""
    record = result(percentiles=None)
    del record["mean"]
    assert board_of(record).closed()[0].numbers == {"min": 1.0, "max": 5.0}


def test_partitions_are_merged_where_their_windows_are_the_same() -> None:
    """The mean is that of all values; percentiles stay apart."""
    windows = board_of(
        result(10, partition=0, count=10, values=1, mean=10.0, min=10.0, max=10.0),
        result(10, partition=1, count=5, values=4, mean=20.0, min=-1.0, max=30.0, percentiles={"50": 2.0}),
        result(10, partition=2, count=1, values=0, mean=None, min=None, max=None),
        result(0, partition=3, count=99),
    ).closed()
    whole = merged(windows)
    assert whole is not None
    assert (whole.start_us, whole.partitions, whole.events) == (10 * SECOND_US, 3, 16)
    assert whole.numbers == {"mean": 18.0, "min": -1.0, "max": 30.0}
    assert whole.apart == {"p50": [1.0, 2.0, 1.0]}


def test_nothing_but_missing_values_has_no_mean() -> None:
    """Rather than one of zero."""
    whole = merged(board_of(result(values=0, mean=None, min=None, max=None)).closed())
    assert whole is not None
    assert whole.numbers == {"mean": None, "min": None, "max": None}


def test_late_events_are_added_up_by_source_the_most_first() -> None:
    """Of each definition by itself; what stood there before one looked is not counted."""
    board = board_of(late("slow", 3), late("day-ahead", ahead=9), late("slow", 4), late("slow", 2, definition="z"))
    board.apply(late("slow", 1_000), fresh=False)
    assert board.late_sources() == [
        LateSource("source_minute", "day-ahead", 0, 9, 0),
        LateSource("source_minute", "slow", 7, 0, 0),
        LateSource("z", "slow", 2, 0, 0),
    ]


def test_late_sources_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are known are counted on."""
    monkeypatch.setattr(window_board, "LATE_SOURCES_MAX", 2)
    board = board_of(late("a", 1), late("b", 1), late("c", 1), late("a", 1))
    assert {one.source: one.late for one in board.late_sources()} == {"a": 2, "b": 1}


def test_a_suspended_definition_is_told_until_it_is_put_in_force_again() -> None:
    """A result of the version that was suspended does not lift it, one of a later version does."""
    suspended = {"definition": "all_10s", "partition": 0, "version": 4, "suspended": "too much"}
    board = board_of(suspended, result(0), result(0, partition=1, version=9))
    assert board.suspended() == [("all_10s", 0, "too much")]
    board.apply(result(10, version=9), fresh=True)
    assert board.suspended() == []
