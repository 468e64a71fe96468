"""The worker's log of warnings: every line has its fields, each source has its own, and what is left out is said."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.instants import NS_PER_S
from streams.judge import Judge, JudgeState
from streams.warning_lines import CHOSEN_MAX, LINES_PER_SECOND
from streams.warning_log import Step, WarningLog, warnings_of
from tests.core.judge_oracle import START_MS, Ledger, Row, event


class Worker:
    """Partitions that are judged as a lane does it, and the log."""

    def __init__(self) -> None:
        self.log = WarningLog()
        self._parts: dict[int, tuple[JudgeState, int]] = {}
        self._ids = 0

    def commit(self, now_ns: int, *batches: tuple[int, list[tuple[str, int]]]) -> None:
        """One transaction: partitions, and their events: whose, and by how much its clock is off in ms."""
        ledgers, steps = [], []
        for partition, events in batches:
            state, count = self._parts.get(partition, (Judge().new_state(partition), 0))
            rows = []
            for source, offset_ms in events:
                self._ids += 1
                at_ms = START_MS + self._ids
                rows.append(Row(event(source, f"e{self._ids}", (at_ms + offset_ms) * 1_000), at_ms))
            ledger = Ledger(rows)
            ledger.entries.index[:] += count
            ledger.entries.sequence[:] += count
            ledgers.append(ledger)
            steps.append(Step(partition, ledger.entries, Judge().step(state, ledger.entries)))
            self._parts[partition] = state, count + len(rows)
        self.log.take(0, steps, now_ns)

    def written(self, now_ns: int) -> list[dict[str, Any]]:
        """The lines that are written then."""
        with capture_logs() as lines:
            self.log.write(now_ns)
        return [dict(line) for line in lines]


def test_a_warning_carries_the_event_both_times_and_the_drift() -> None:
    """The event, both times, the drift, and where it stands in the ledger; of a step's first event of the source."""
    worker = Worker()
    worker.commit(0, (3, [("steady", 20), ("sensor-0042", 5_001), ("sensor-0042", 5_002), ("steady", -5_000)]))
    [line] = worker.written(0)
    assert line["event"] == "clock_drift_detected"
    assert line["log_level"] == "warning"
    assert (line["id"], line["event_id"], line["source"], line["sequence"]) == ("3:2", "e2", "sensor-0042", 2)
    assert line["authority_timestamp"] == "2026-11-18T11:06:40.002Z"
    assert line["local_timestamp"] == "2026-11-18T11:06:45.003000Z"
    assert line["drift_seconds"] == "5.001"
    assert (line["cause"], line["offset_ms"], line["bound_ms"]) == ("AHEAD", None, None)
    assert (line["left_out_before"], line["left_out_of_others"]) == (0, 0)


def test_a_loud_source_does_not_hide_a_slow_one() -> None:
    """A day ahead at a hundred events a second, and 7 s slow once in ten: both have lines, and their own counts."""
    worker = Worker()
    lines = []
    for second in range(30):
        loud = [("day-ahead", 86_400_000)] * 100
        worker.commit(second * NS_PER_S, (0, loud + [("slow", -7_000)] * (second % 10 == 9)))
        lines += worker.written(second * NS_PER_S)
    assert [(line["source"], line["left_out_before"]) for line in lines] == [
        ("day-ahead", 0), ("slow", 0), ("day-ahead", 999), ("slow", 0), ("day-ahead", 999), ("slow", 0)
    ]  # fmt: skip
    assert {line["left_out_of_others"] for line in lines} == {0}


def test_sources_are_told_apart_by_their_partitions() -> None:
    """Each batch of a transaction is looked at; events of the right partition stand in the lines."""
    worker = Worker()
    batches = [(partition, [("steady", 0), ("a", 6_000), ("b", 7_000), ("a", 6_000)]) for partition in (0, 4, 4)]
    worker.commit(0, *batches)
    lines = worker.written(0)
    assert [(line["id"], line["source"], line["event_id"]) for line in lines] == [
        ("0:2", "a", "e2"), ("0:3", "b", "e3"), ("4:2", "a", "e6"), ("4:3", "b", "e7")
    ]  # fmt: skip
    worker.commit(10 * NS_PER_S, *batches[1:2])
    assert [(line["source"], line["left_out_before"]) for line in worker.written(10 * NS_PER_S)] == [("a", 3), ("b", 1)]


@pytest.mark.parametrize("sources", [CHOSEN_MAX, 3_000])
def test_what_a_transaction_makes_is_bounded(sources: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of sources a few are made into records; the rest is counted."""
    made: list[int] = []

    def counted(*asked: Any) -> Any:
        made.append(len(asked[-1]))
        return warnings_of(*asked)

    monkeypatch.setattr("streams.warning_log.warnings_of", counted)
    worker = Worker()
    worker.commit(0, (0, [(f"s{number}", 9_000) for number in range(sources)]))
    assert sum(made) == CHOSEN_MAX
    lines = worker.written(0)
    assert len(lines) == LINES_PER_SECOND
    assert worker.written(NS_PER_S - 1) == []
    assert lines[0]["left_out_of_others"] == sources - CHOSEN_MAX
    assert len(worker.written(NS_PER_S)) == CHOSEN_MAX - LINES_PER_SECOND


def test_nothing_beyond_the_threshold_is_no_line() -> None:
    """And a transaction without events neither."""
    worker = Worker()
    worker.commit(0, (0, [("steady", 0), ("late", -4_999)]))
    worker.commit(0)
    assert worker.written(0) == []
