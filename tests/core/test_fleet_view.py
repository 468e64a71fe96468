"""The list of a page against a plain one: dictionaries, sorted and searched row by row."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.board_kernel import note_rows
from streams.boards import Board, make_board, no_events, with_room
from streams.causes import Cause
from streams.fleet_view import ROWS_MAX, Fleet, FleetQuestion, Sort
from streams.judge import Judge
from streams.severity import Severity
from tests.core.judge_histories import history, leader_steps
from tests.core.judge_oracle import Ledger, Row


@cache
def _fleet() -> Fleet:
    """Three partitions: clocks of which little is known, clocks that are known well, and one source."""
    return Fleet([_made(2, _odd(2, 40, 700)), _made(0, leader_steps(7, 0, exchanges=True)), _made(7, _odd(7, 1, 20))])


def _odd(seed: int, sources: int, length: int) -> list[Row]:
    return history(seed, length, sources=sources, changes=0, poison=0)


def _made(partition: int, rows: list[Row]) -> Board:
    ledger, judge = Ledger(rows), Judge()
    state = judge.new_state(partition)
    judged = judge.step(state, ledger.entries)
    seen = with_room(no_events(), state.sources)
    v, half = judged.verdicts, len(rows) // 2  # of some sources no event is seen
    note_rows(
        v.source[half:], v.severity[half:], v.flags[half:], v.delta_ms[half:], v.cause[half:],
        ledger.entries.authority_ms[half:], seen,
    )  # fmt: skip
    return make_board(partition, len(rows), state, int(ledger.entries.authority_ms[-1]), seen, None)


def _key(row: dict[str, Any], sort: Sort) -> list[Any] | None:
    """By what a row is sorted, None where that is not known."""
    severities = [severity.name for severity in Severity]
    offset = abs(row["offset_ms"]) if row["offset_ms"] is not None else 0
    causes = [cause.name for cause in Cause]
    found: dict[Sort, Any] = {
        Sort.STATE: [severities.index(row["state"]), offset],
        Sort.SOURCE: [row["source"]],
        Sort.CAUSE: None if row["cause"] is None else [causes.index(row["cause"]), offset],
        Sort.OFFSET: None if row["offset_ms"] is None else [offset],
        Sort.BOUND: None if row["bound_ms"] is None else [row["bound_ms"]],
        Sort.SKEW: None if row["skew_ppm"] is None else [abs(row["skew_ppm"])],
        Sort.SAMPLES: [row["samples"]],
        Sort.DELTA: None if row["delta_ms"] is None else [abs(row["delta_ms"])],
        Sort.LAST: None if row["last_ms"] is None else [row["last_ms"]],
        Sort.SEQUENCE: [row["sequence"]],
        Sort.PARTITION: [row["partition"]],
    }
    key: list[Any] | None = found[sort]
    return key


def _plain(rows: list[dict[str, Any]], asked: FleetQuestion) -> list[dict[str, Any]]:
    wanted = [
        row
        for row in rows
        if (not asked.severities or Severity[row["state"]] in asked.severities)
        and (not asked.causes or (row["cause"] is not None and Cause[row["cause"]] in asked.causes))
        and (not asked.partitions or row["partition"] in asked.partitions)
        and asked.search.casefold() in row["source"].casefold()
    ]
    wanted.sort(key=lambda row: (row["partition"], row["number"]))
    known = [row for row in wanted if _key(row, asked.sort) is not None]
    unknown = [row for row in wanted if _key(row, asked.sort) is None]
    if asked.descending:  # stable, so that equals keep their order
        ranks = sorted({tuple(_key(row, asked.sort) or ()) for row in known}, reverse=True)
        known.sort(key=lambda row: ranks.index(tuple(_key(row, asked.sort) or ())))
    else:
        known.sort(key=lambda row: _key(row, asked.sort) or [])
    return known + unknown


@given(
    st.builds(
        FleetQuestion,
        sort=st.sampled_from(Sort),
        descending=st.booleans(),
        search=st.sampled_from(("", "s", "SENSOR", "füll", "00", "x" * 30, "nobody")),
        severities=st.frozensets(st.sampled_from(Severity)),
        causes=st.frozensets(st.sampled_from([cause for cause in Cause if cause is not Cause.NONE])),
        partitions=st.frozensets(st.sampled_from((0, 2, 7, 9))),
        offset=st.integers(0, 80),
        limit=st.integers(1, 300),
    )
)
def test_a_page_is_what_a_plain_list_has(asked: FleetQuestion) -> None:
    """Rows, their order, and how many there are."""
    fleet = _fleet()
    every = fleet.rows(fleet.select(FleetQuestion()))
    plain = _plain(every, asked)
    view = fleet.view(asked)
    page = plain[asked.offset : asked.offset + min(asked.limit, ROWS_MAX)]
    assert [view.rows[key] for key in view.order] == page
    assert view.facts["found"] == len(plain)


def test_the_counts_are_of_all() -> None:
    """Whatever is asked for."""
    fleet = _fleet()
    rows = fleet.rows(fleet.select(FleetQuestion()))
    facts = fleet.view(FleetQuestion(search="nobody")).facts
    assert facts["sources"] == len(rows)
    assert facts["severities"] == {s.name: sum(row["state"] == s.name for row in rows) for s in Severity}
    assert facts["causes"] == {
        c.name: sum(row["cause"] == c.name for row in rows) for c in Cause if c is not Cause.NONE
    }
    assert fleet.at_ms == max(board.at_ms for board in fleet.boards)


def test_a_fleet_of_nothing_is_a_list_of_nothing() -> None:
    """A worker without a lane, and one whose partitions have no source."""
    assert Fleet([]).view(FleetQuestion()).order == ()
    assert Fleet([]).at_ms is None
    empty = make_board(0, 0, Judge().new_state(0), None, no_events(), None)
    view = Fleet([empty]).view(FleetQuestion(sort=Sort.SOURCE))
    assert (view.order, view.facts["found"]) == ((), 0)
