"""Boards are what judge knows, row for row; the last events are those that were seen."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.memory import JIT
from streams.alert_kernel import CAUSE, Question, severity_in
from streams.board_kernel import (
    B_ALERT,
    B_CAUSE,
    B_ESTIMATE,
    B_LAST_CAUSE,
    B_LAST_DELTA_MS,
    B_LAST_MS,
    B_LAST_SEVERITY,
    B_LATE,
    B_NUMBER,
    B_SEQUENCE,
    B_STATE,
    SEEN_COLUMNS,
    SEEN_NUMBER,
    note_rows,
)
from streams.boards import Board, Names, clock_of, events_of, make_board, no_events, with_room
from streams.causes import Cause
from streams.estimate import estimate_of
from streams.judge import Judge, JudgeState
from streams.judge_kernel import NO_SEVERITY, Flag
from streams.sources import COUNT, LAST_SEQUENCE, STATE, name_of
from tests.core.judge_histories import history, leader_steps
from tests.core.judge_oracle import Ledger, Row

REPEATED = int(Flag.DUPLICATE | Flag.CONFLICT)
Seen = dict[int, tuple[int, int, int, int]]


def _board(rows: list[Row], size: int) -> tuple[Board, JudgeState, Seen]:
    """After batches of that size; and the last event of each source, noted row by row."""
    ledger, judge = Ledger(rows), Judge()
    state, seen, plain = judge.new_state(3), no_events(), Seen()
    for start in range(0, len(rows), size):
        entries = next(ledger.batches(iter([min(size, len(rows) - start)]), start))
        judged = judge.step(state, entries)
        seen = with_room(seen, state.sources)
        v = judged.verdicts
        note_rows(v.source, v.severity, v.flags, v.delta_ms, v.cause, entries.authority_ms, seen)
        for row in range(v.source.size):
            if v.source[row] > 0 and not v.flags[row] & REPEATED:
                plain[int(v.source[row])] = (
                    int(entries.authority_ms[row]), int(v.delta_ms[row]), int(v.severity[row]), int(v.cause[row]),
                )  # fmt: skip
    return make_board(3, len(rows), state, int(ledger.entries.authority_ms[-1]), seen, None), state, plain


def _histories() -> list[list[Row]]:
    length = 900 if JIT else 200
    return [history(5, length), history(6, length, sources=4, changes=0), leader_steps(7, 2_500, exchanges=True)]


@pytest.mark.parametrize("number", range(3 if JIT else 2))
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_board_is_what_judge_knows(number: int, size: int) -> None:
    """Each row against the tables themselves, read one by one."""
    board, state, plain = _board(_histories()[number], size)
    table = state.sources
    assert len(board.rows) == int(table.used[COUNT]) == len(board.names.texts)
    for slot, row in enumerate(board.rows.tolist()):
        bits = int(table.hot[slot, STATE])
        alert, late = severity_in(bits, Question.CLOCK), severity_in(bits, Question.DELAY)
        cause = int(table.watch[slot, CAUSE]) if alert else int(Cause.NONE)
        assert (row[B_STATE], row[B_ALERT], row[B_LATE]) == (max(alert, late), alert, late)
        assert row[B_CAUSE] == (cause if alert >= late else int(Cause.BACKLOG))
        assert row[B_SEQUENCE] == int(table.hot[slot, LAST_SEQUENCE])
        assert tuple(row[B_ESTIMATE:]) == tuple(estimate_of(table.clocks, slot, board.at_ms))
        last = (row[B_LAST_MS], row[B_LAST_DELTA_MS], row[B_LAST_SEVERITY], row[B_LAST_CAUSE])
        assert last == plain.get(row[B_NUMBER], (0, 0, -1, int(Cause.NONE)))
        assert board.names.texts[slot] == name_of(table, slot).decode()
        assert clock_of(board, slot).estimate == estimate_of(table.clocks, slot, board.at_ms)


def test_a_board_does_not_change_with_the_state() -> None:
    """Its rows and names are copies."""
    rows = history(9, 400, changes=0, poison=0)
    ledger, judge = Ledger(rows), Judge()
    state = judge.new_state(0)
    batches = ledger.batches(iter([200, 200]))
    judge.step(state, next(batches))
    board = make_board(0, 200, state, None, no_events(), None)
    before = board.rows.copy(), list(board.names.texts)
    judge.step(state, next(batches))
    state.sources.arena[:] = 0
    assert np.array_equal(board.rows, before[0])
    assert Names.texts.func(board.names) == before[1]  # type: ignore[attr-defined] # read again


def test_names_are_kept_where_they_are_the_same() -> None:
    """They are made into text once."""
    rows = history(9, 400, changes=0, poison=0, sources=3)
    ledger, judge = Ledger(rows), Judge()
    state = judge.new_state(0)
    batches = ledger.batches(iter([200, 200]))
    judge.step(state, next(batches))
    first = make_board(0, 200, state, None, no_events(), None)
    judge.step(state, next(batches))
    second = make_board(0, 400, state, None, no_events(), first.names)
    assert (second.names is first.names) == (len(first.rows) == len(second.rows))
    assert second.names.places == {text: row for row, text in enumerate(second.names.texts)}


def test_what_was_seen_survives_growth_and_the_latest_of_two_at_one_place_stands() -> None:
    """Numbers are places modulo the rows."""
    seen = no_events()
    size = seen.shape[0]
    columns = [np.zeros(3, np.uint8) for _ in range(3)]
    for number in (5, 6, 5 + size):
        source = np.array([number, -1, 0])
        note_rows(source, columns[0], columns[1], source * 10, columns[2], source * 100, seen)
    assert sorted(seen[seen[:, SEEN_NUMBER] > 0, SEEN_NUMBER].tolist()) == [6, 5 + size]
    state = Judge().new_state(0)
    state.sources.used[COUNT] = size
    larger = with_room(seen, state.sources)
    assert larger.shape == (2 * size, SEEN_COLUMNS)
    assert larger[5 + size].tolist()[:3] == [5 + size, 100 * (5 + size), 10 * (5 + size)]
    assert with_room(larger, state.sources) is larger


@pytest.mark.parametrize("most", [1, 5, 1_000])
def test_events_of_a_source_are_its_rows(most: int) -> None:
    """With repeats, which are told as such; the last ones where there are too many."""
    rows = history(11, 500, sources=3)
    ledger, judge = Ledger(rows), Judge()
    judged = judge.step(judge.new_state(0), ledger.entries)
    v = judged.verdicts
    plain = [row for row in range(len(rows)) if v.source[row] == 2 and v.severity[row] != NO_SEVERITY]
    found = events_of(2, ledger.entries, judged, most)
    assert [event.sequence for event in found] == [int(ledger.entries.sequence[row]) for row in plain[-most:]]
    for event, row in zip(found, plain[-most:], strict=True):
        shown = event.row()
        known = int(v.bound_us[row]) >= 0
        assert shown["delta_ms"] == int(v.delta_ms[row])
        assert shown["repeated"] == bool(v.flags[row] & REPEATED)
        assert (shown["offset_ms"] is not None) == known
        assert shown["offset_ms"] == (int(v.offset_us[row]) / 1_000 if known else None)
