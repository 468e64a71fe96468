"""Corrected time of stored rows against a plain reckoning, at the ends of time, and what is left unread for it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle.dating_kernel import LEFT_OUT, Dated, corrected_span, date_rows
from lifecycle.planner import Aggregation, Field, Function, Question, Window
from lifecycle.query import HotQueries
from lifecycle.store import Store
from schemas.faults import Fault
from schemas.instants import INT64_MAX, INT64_MIN
from schemas.memory import bytes_at
from streams.corrected_kernel import TO_AUTHORITY, TO_NOTHING
from streams.derive import Derive
from streams.judge import Judge
from streams.windows import By, Doubtful, Frame, WindowDefinition
from tests.core.derive_histories import change, event_value, heartbeat
from tests.core.hot_rows import START_MS, DictionaryStore, Partition, many_rows
from tests.core.judge_oracle import Ledger, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.catalog import Unsealed
    from lifecycle.chunks import Column, Header, Read

S = 1_000_000
START_US = START_MS * 1_000
INSTANTS = st.sampled_from([INT64_MIN, INT64_MAX, -(2**62), 2**62, 2**62 + 1, -1, 0]) | st.integers(-(10**16), 10**16)
ROW = st.tuples(
    INSTANTS,
    st.sampled_from([INT64_MIN, INT64_MAX, 0]) | st.integers(-(10**13), 10**13),
    st.integers(-(2**52), 2**52),
    st.integers(-1, 2**52),
    st.sampled_from([int(Fault.NONE), int(Fault.TRUNCATED)]),
)


def _columns(rows: list[tuple[int, int, int, int, int]]) -> tuple[Any, ...]:
    *numbers, fault = (list(column) for column in zip(*rows, strict=True))
    return (*(np.array(column, np.int64) for column in numbers), np.array(fault, np.uint8))


def _twin(local_us: int, authority_ms: int, offset_us: int, bound_us: int) -> tuple[int, int]:
    """The rule in its own words: time and bound."""
    if bound_us < 0:
        return max(min(authority_ms, INT64_MAX // 1_000), -(INT64_MAX // 1_000)) * 1_000, -1
    return (local_us - offset_us if abs(local_us) <= 2**62 else local_us), bound_us


@given(st.lists(ROW, min_size=1, max_size=20), st.sampled_from([TO_AUTHORITY, TO_NOTHING]))
@example([(2**62, 0, -(2**52), 5, 0), (-(2**62), 0, 2**52, 0, 0)], TO_AUTHORITY)
def test_rows_are_dated_by_the_rule(rows: list[tuple[int, int, int, int, int]], unknown: int) -> None:
    """Local less offset where there is an estimate, else authority time; within 64 bits whatever clocks say."""
    columns = _columns(rows)
    dated = Dated(np.empty(len(rows), np.int64), np.empty(len(rows), np.int64), np.empty(len(rows), np.uint8))
    date_rows(unknown, dated, *columns)
    times = []
    for place, (local_us, authority_ms, offset_us, bound_us, fault) in enumerate(rows):
        left_out = unknown == TO_NOTHING and bound_us < 0 and fault == Fault.NONE
        assert dated.fault[place] == (LEFT_OUT if left_out else fault)
        if fault == Fault.NONE:
            times.append(_twin(local_us, authority_ms, offset_us, bound_us)[0])
            assert (dated.time[place], dated.bound_us[place]) == _twin(local_us, authority_ms, offset_us, bound_us)
    assert corrected_span(*columns) == ((min(times), max(times)) if times else (0, -1))


def test_no_fault_has_the_number_of_what_is_left_out() -> None:
    """Or a row that cannot be read would be taken for one that was left out."""
    assert LEFT_OUT not in set(Fault)


def _skewed(unknown_rows: int = 0) -> Partition:
    """An event each 80 ms of a clock a day ahead, known to 20 ms but in the first rows, under way for 2.01 s."""
    content = many_rows(0, 40_000, sources=[b"day-ahead"], rate_per_s=12.5, spread_s=0.0)
    rows = content.rows
    rows.local_us[:] = rows.authority_ms * 1_000 - 2_010_000 + 86_400 * S
    rows.offset_us[:], rows.bound_us[:] = 86_400 * S, 20_000
    rows.offset_us[:unknown_rows], rows.bound_us[:unknown_rows] = 0, -1
    return content


def test_chunks_outside_of_the_range_are_not_read() -> None:
    """By the least and the greatest corrected time of their headers: their local times are a day away."""
    queries = HotQueries(DictionaryStore({0: _skewed()}))
    question = Question(Frame.CORRECTED, START_US + 1_200 * S, START_US + 1_260 * S)
    explain = queries.aggregate(question, Aggregation()).explain
    assert (explain.chunks_skipped, explain.chunks_statistics, explain.chunks_rows) == (4, 0, 1)
    assert queries.range(question, (Field.SEQUENCE,), 9).explain.chunks_rows == 1
    assert queries.get(b"day-ahead", START_US + 1_200 * S, Frame.CORRECTED).explain.chunks_rows == 1
    assert queries.aggregate(Question(Frame.LOCAL, question.from_us, question.to_us), Aggregation()).count[0] == 0


def test_an_answer_says_how_sure_it_is() -> None:
    """Near an edge of its window, or of the range where there are no windows, within its bound; unknown always."""
    queries = HotQueries(DictionaryStore({0: _skewed(unknown_rows=100)}))
    minutes = queries.aggregate(Question(Frame.CORRECTED, START_US), Aggregation(window=Window(60 * S)))
    # one lies 10 ms before the end; the first hundred are dated by the broker
    assert minutes.doubt["unknown"].tolist()[:2] == [100, 0]
    assert minutes.doubt["near_edge"].tolist()[:3] == [101, 1, 1]
    whole = queries.aggregate(Question(Frame.CORRECTED), Aggregation(By.SOURCE))
    assert (whole.doubt["unknown"].tolist(), whole.doubt["near_edge"].tolist()) == ([100], [0])
    half = queries.aggregate(Question(Frame.CORRECTED, to_us=START_US + 60 * S), Aggregation())
    assert half.doubt["near_edge"].tolist() == [101]
    assert queries.aggregate(Question(Frame.LOCAL), Aggregation()).doubt == {}


def test_what_is_left_out_is_counted() -> None:
    """Where its authority time lies in the range; a range without times lists it, without a corrected time."""
    queries = HotQueries(DictionaryStore({0: _skewed(unknown_rows=100)}, unsealed=50))
    question = Question(Frame.CORRECTED, START_US, START_US + 4 * S, unknown=Doubtful.EXCLUDE)
    answer = queries.aggregate(question, Aggregation())
    assert (answer.explain.rows_left_out, answer.doubt["unknown"].tolist()) == (50, [0])
    longer = replace(question, to_us=START_US + 10 * S)
    first = queries.range(longer, (Field.SEQUENCE,), 1)
    assert first.columns[Field.SEQUENCE].values.tolist() == [101]  # type: ignore[union-attr]
    everything = queries.range(Question(Frame.CORRECTED, unknown=Doubtful.EXCLUDE), (Field.CORRECTED_US,), 40_000)
    _, valid = everything.columns[Field.CORRECTED_US]
    assert valid is not None
    assert (everything.rows, int(valid.sum())) == (40_000, 39_900)


@pytest.mark.parametrize("unsealed", [0, 39_999])
def test_the_last_event_is_the_last_that_happened(unsealed: int) -> None:
    """Not the last that came, and not that of a clock that was ahead until it was set right."""
    content = _skewed()
    content.rows.offset_us[5] = 0  # no estimate would say so: it is a day later than all others
    queries = HotQueries(DictionaryStore({0: content}, unsealed=unsealed))
    found = queries.get(b"day-ahead", None, Frame.CORRECTED, (Field.SEQUENCE,))
    assert found.columns[Field.SEQUENCE].values.tolist() == [6]  # type: ignore[union-attr]
    found = queries.get(b"day-ahead", START_US + 3_600 * S, Frame.CORRECTED, (Field.SEQUENCE,))
    assert found.columns[Field.SEQUENCE].values.tolist() == [40_000]  # type: ignore[union-attr]


class _Unsealed:
    """A partition whose rows are all in no chunk."""

    def __init__(self, ledger: Ledger) -> None:
        judge, self._fold = Judge(), Store()
        judged, self._state = judge.new_state(0), self._fold.new_state(0)
        self._fold.step(self._state, ledger.entries, judge.step(judged, ledger.entries))
        self._fold.publish(self._state)

    def partitions(self) -> list[int]:
        """One."""
        return [0]

    def unsealed(self, _partition: int) -> Unsealed | None:
        """All."""
        return self._fold.unsealed(self._state)

    def headers(self, _partition: int, _first_sequence: int, _most: int) -> list[Header]:
        """None."""
        return []

    def column(self, _partition: int, _first_sequence: int, _column: Column, _rows: int) -> Read:
        """Of no chunk."""
        raise AssertionError

    def archived(self, _partition: int, _first_sequences: NDArray[np.int64]) -> int:
        """None."""
        return 0


@pytest.mark.parametrize("unknown", [Doubtful.AUTHORITY, Doubtful.EXCLUDE])
def test_an_answer_says_what_the_windows_of_that_frame_said(unknown: Doubtful) -> None:
    """Counts, sums and how many lie near an edge, of clocks that are right, ahead, behind and not yet known."""
    definition = WindowDefinition("w", 10 * S, frame=Frame.CORRECTED, by=By.SOURCE, unknown=unknown)
    rng = random.Random(3)
    rows = [change("w", definition)]
    for number in range(900):
        at_us = START_US + number * S // 10
        source, off_s = [("right", 0), ("fast", 20), ("slow", -3)][number % 3]
        sent = event_value(source, f"e{number}", at_us + off_s * S - rng.randrange(400_000), "k", rng.random())
        rows.append(Row(sent, at_us // 1_000))
    rows.append(heartbeat(START_MS + 300_000))
    ledger = Ledger(rows)
    judge, derive = Judge(), Derive()
    found = derive.step(derive.new_state(0), ledger.entries, judge.step(judge.new_state(0), ledger.entries)).aggregates
    places = zip(found[3].tolist(), found[4].tolist(), strict=True)
    records = [json.loads(bytes_at(address, length)) for address, length in places]
    said = {(r["window_start_us"], r["key"]): (r["count"], r["sum"], r["near_edge"]) for r in records if r.get("final")}
    assert len(said) > 20
    answer = HotQueries(_Unsealed(ledger)).aggregate(
        Question(Frame.CORRECTED, unknown=unknown), Aggregation(By.SOURCE, Window(10 * S))
    )
    assert answer.window_start_us is not None
    assert answer.key is not None
    keys = zip(answer.window_start_us.tolist(), (answer.names[key].decode() for key in answer.key), strict=True)
    told = zip(answer.count.tolist(), answer.functions[Function.SUM], answer.doubt["near_edge"].tolist(), strict=True)
    assert dict(zip(keys, told, strict=True)) == {key: pytest.approx(line) for key, line in said.items()}
    assert answer.explain.rows_left_out == (51 if unknown is Doubtful.EXCLUDE else 0)  # of five seconds
