"""Clocks that are wrong, and logs that are: what they do to the windows of everybody else. That is nothing.

The histories are those of docs/clock_faults.py, from which the pictures of docs/windows.md are drawn.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from docs.clock_faults import (
    DEFINITION,
    HONEST,
    MINUTE,
    all_slow,
    all_slow_patient,
    backlog,
    cases,
    day_ahead,
    half_minute_ahead,
    measure,
    silent,
    slow,
)
from docs.histories import FIRST_INDEX, SECOND, START_MS, Beat, Event, beats, entries_of, fold, plain, read
from streams.windows import By, Frame
from tests.core.derive_oracle import Change, Data, DeriveOracle, Heartbeat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docs.clock_faults import Case
    from docs.histories import Run, Step
    from streams.windows import WindowDefinition

CASES = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)


def _end_ms(result: dict[str, Any]) -> int:
    return int(result["window_end_us"]) // 1_000 - START_MS


def _aggregates(case: Case, run: Run) -> dict[tuple[str, int], dict[str, Any]]:
    """What the windows of honest sources hold, by key and end; which entry closed them is left out."""
    return {
        (result["key"], _end_ms(result)): {k: v for k, v in result.items() if k not in ("at_index", "step")}
        for result in run.results
        if result["key"] in case.honest and _end_ms(result) <= case.until_ms
    }


def _told(steps: Sequence[Step], definition: WindowDefinition) -> list[dict[str, Any]]:
    """What the plain twin of derive says."""
    oracle = DeriveOracle(0)
    oracle.take(Change(1, definition.name, definition))
    for index, (_, said) in enumerate(steps, FIRST_INDEX):
        if isinstance(said, Event):
            at_ms, local_us = START_MS + said.at_ms, (START_MS + said.local_ms) * 1_000
            oracle.take(Data(index, at_ms, True, local_us, said.source, "pressure", said.value))  # noqa: FBT003
        else:
            oracle.take(Heartbeat(index, None if said.proved_ms is None else START_MS + said.proved_ms))
    return [record for _, record in oracle.records]


# ------------------------------------------------------------------------------------------------------- each of them


@CASES
def test_no_event_of_an_honest_source_is_late(case: Case) -> None:
    """Nor ahead, by the dead letters and by the reports."""
    run = case.here()
    assert [number for number in run.aside if case.is_honest(number)] == []
    assert {report["source"] for report in run.late}.isdisjoint(case.honest)


@CASES
def test_every_window_closes_once_at_the_entry_whose_watermark_reaches_its_end(case: Case) -> None:
    """And not at the entry before."""
    run = case.here()
    assert measure(case).open_here == 0
    assert {(result["final"], result["revision"]) for result in run.results} == {(True, 1)}
    windows = [(result["key"], result["window_start_us"]) for result in run.results]
    assert len(set(windows)) == len(windows)
    for result in run.results:
        number = result["step"]
        assert result["at_index"] == number + FIRST_INDEX
        before, after = run.watermark_ms[number - 1], run.watermark_ms[number]
        assert after is not None
        assert _end_ms(result) <= after
        assert before is None or before < _end_ms(result)


@CASES
def test_the_aggregates_of_honest_sources_are_those_without_the_fault(case: Case) -> None:
    """All numbers of all windows."""
    faulty, sound = (_aggregates(case, run) for run in (case.here(), case.sound_here()))
    assert faulty == sound
    counted = sum(window["count"] for window in faulty.values())
    assert counted == len(case.events(honest=True))


@CASES
def test_late_events_are_counted_by_source(case: Case) -> None:
    """The reports together are the dead letters."""
    run = case.here()
    found = Counter[tuple[str, str]]()
    for report in run.late:
        found[report["source"], "LATE"] += report["late"]
        found[report["source"], "AHEAD"] += report["ahead"]
    events = {number: step.said for number, step in enumerate(case.steps) if isinstance(step.said, Event)}
    assert +found == Counter((events[number].source, reason) for number, reason in run.aside.items())


@CASES
def test_the_histories_are_read_as_the_plain_twin_reads_them(case: Case) -> None:
    """Every record, in order."""
    run = case.here()
    ours = sorted([*run.late, *run.results], key=lambda record: int(record["step"]))
    assert [{k: v for k, v in record.items() if k != "step"} for record in ours] == _told(case.steps, case.definition)


@CASES
def test_a_heartbeat_stands_behind_all_that_it_vouches_for(case: Case) -> None:
    """As lanes let them in, whatever is held up."""
    seen = 0
    for _, said in case.steps:
        if isinstance(said, Event):
            seen += 1
        elif said.proved_ms is not None:
            proved = [s for _, s in case.steps if isinstance(s, Event) and s.at_ms < said.proved_ms]
            assert len(proved) <= said.input_end <= seen


# ----------------------------------------------------------------------------------------------------------- each fault


def test_a_source_a_day_ahead_is_in_no_window() -> None:
    """Each of its events is AHEAD and moves nothing; windows over all sources do not have them either."""
    case = day_ahead()
    run = case.here()
    assert set(run.aside.values()) == {"AHEAD"}
    assert sorted(run.aside) == case.events(honest=False)
    assert all(run.watermark_ms[number] == run.watermark_ms[number - 1] for number in run.aside)
    everybody = replace(DEFINITION, by=By.ALL)
    with_it, without = fold(case.steps, everybody), fold(case.sound, everybody)
    counts = [[(r["window_start_us"], r["count"], r["sum"]) for r in one.results] for one in (with_it, without)]
    assert counts[0] == counts[1]


def test_a_source_half_a_minute_ahead_drags_no_watermark() -> None:
    """Its events are taken, and the watermark is never past authority time less the lateness."""
    case = half_minute_ahead()
    run = case.here()
    assert run.aside == {}
    assert "ahead" in {result["key"] for result in run.results}
    at_ms = 0
    for (_, said), watermark_ms in zip(case.steps, run.watermark_ms, strict=True):
        at_ms = max(at_ms, said.at_ms)
        assert watermark_ms is None or watermark_ms <= at_ms - 5 * SECOND


def test_a_slow_source_is_late_where_its_windows_have_closed() -> None:
    """As by the plain rule, event by event: a slow clock moves neither watermark."""
    case = slow()
    assert list(case.here().aside) == case.elsewhere().late
    assert 0 < len(case.here().aside) < len(case.events(honest=False))


def test_an_hour_of_backlog_is_read_as_if_it_had_been_read_live() -> None:
    """The order differs: heartbeats wait for what they vouch for."""
    case = backlog()
    assert case.steps != case.sound
    assert sorted(step.said for step in case.steps if isinstance(step.said, Event)) == sorted(
        step.said for step in case.sound if isinstance(step.said, Event)
    )
    held = [step for step in case.steps if step.read_ms - step.said.at_ms > 10 * MINUTE]
    assert len(held) > len(case.steps) // 2


def test_heartbeats_that_do_not_wait_would_make_a_backlog_late() -> None:
    """Known-bad twin: each is let in at its own time."""
    case = backlog()
    unheld = sorted(case.steps, key=lambda step: step.said.at_ms if isinstance(step.said, Beat) else step.read_ms)
    assert len(fold(unheld, case.definition).aside) > len(case.events(honest=True)) // 2


def test_a_silent_partition_is_closed_by_the_first_heartbeat_that_may() -> None:
    """That whose frontier is max_behind past the last window's end; by the plain rule nothing does."""
    case = silent()
    last = case.here().results[-1]
    closing, before = case.steps[last["step"]].said, case.steps[last["step"] - 1].said
    assert isinstance(closing, Beat)
    assert isinstance(before, Beat)
    assert closing.proved_ms is not None
    assert before.proved_ms is not None
    assert before.proved_ms < _end_ms(last) + MINUTE <= closing.proved_ms
    unclosed = {(source, 20 * SECOND) for source in HONEST}
    assert set(case.elsewhere().unclosed) == unclosed
    closed_by_it = {(r["key"], r["window_start_us"] // 1_000 - START_MS) for r in case.here().results[-4:]}
    assert closed_by_it == unclosed


def test_all_sources_slow_freeze_nothing_and_are_late_by_default() -> None:
    """From the first heartbeat on that proves anything; before it their own times move the watermark."""
    case = all_slow()
    proving = next(n for n, (_, said) in enumerate(case.steps) if isinstance(said, Beat) and said.proved_ms is not None)
    assert list(case.here().aside) == [number for number in case.events(honest=False) if number > proving]
    assert set(case.here().aside.values()) == {"LATE"}


def test_all_sources_slow_are_taken_by_a_patient_frontier_or_in_frame_authority() -> None:
    """Ten minutes behind, where a quarter of an hour is waited for; and the broker's clock is not slow."""
    case = all_slow_patient()
    assert case.here().aside == {}
    events = len(case.events(honest=False))
    assert sum(result["count"] for result in case.here().results) == events
    broker = replace(DEFINITION, frame=Frame.AUTHORITY, lateness_us=0, max_behind_us=0, max_ahead_us=0)
    assert sum(result["count"] for result in fold(case.steps, broker).results) == events


# ------------------------------------------------------------------------------------------------------- the plain rule


def test_the_plain_rule_is_the_largest_event_time_less_the_lateness() -> None:
    """By hand: windows of 10 s, lateness 5 s; 9 s comes while the window is open, 8 s after it has closed."""
    events = [
        Event(at, local, "s", 1.0) for at, local in ((1, 2_000), (2, 14_999), (3, 9_000), (4, 15_000), (5, 8_000))
    ]
    found = plain(read(events, []), DEFINITION)
    assert found.watermark_ms == [-3_000, 9_999, 9_999, 10_000, 10_000]
    assert found.late == [4]
    assert found.closed == {3: [("s", 0)]}
    assert found.unclosed == [("s", 10_000)]


def test_the_plain_rule_with_a_timer_follows_the_clock_of_the_reader() -> None:
    """Ten seconds behind it: the heartbeat of 20 s closes the window up to 10 s."""
    events = [Event(1_000, 1_000, "s", 1.0)]
    steps = read(events, beats(events, 30 * SECOND, 10 * SECOND))
    found = plain(steps, DEFINITION, 10 * SECOND)
    assert [steps[number].said.at_ms for number in found.closed] == [20 * SECOND]
    assert found.unclosed == []


def test_the_entries_are_numbered_as_a_ledger_numbers_them() -> None:
    """Index contiguous from 1; sequence counts events."""
    entries, _ = entries_of(slow().steps, DEFINITION)
    assert entries.index.tolist() == list(range(1, len(slow().steps) + FIRST_INDEX))
    assert entries.sequence[-1] == sum(isinstance(step.said, Event) for step in slow().steps)
