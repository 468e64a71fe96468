"""The alert machine against its table, and the bytes of its records."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import numpy as np
import pytest

from schemas.codec import Framing, decode, encode
from streams.alerts import (
    AT_OPEN,
    EVENTS,
    FIRST,
    LAST,
    REVISION,
    RUN_FIRST,
    RUN_FIRST_MS,
    TRANSITIONS,
    WATCH_COLUMNS,
    WORST,
    AlertState,
    DriftAlert,
    Reading,
    change_record,
    forgotten_record,
    observe,
    settle,
)
from streams.severity import Severity

#: A delta of each severity, in ms.
DELTAS = {Severity.GREEN: 3, Severity.YELLOW: -3_200, Severity.RED: 90_000}

GOLDEN = (
    b'{"alert_id":"3:88119","revision":1,"state":"OPENED","partition":3,"source":"sensor-0042","cause":"UNKNOWN",'
    b'"severity":"YELLOW","previous_severity":"GREEN","first_sequence":88119,"last_sequence":88121,"events":3,'
    b'"at_open":{"sequence":88121,"authority_timestamp":1795252447123,"local_timestamp":1795252450323000,'
    b'"delta_ms":3200,"severity":"YELLOW"},"worst":{"sequence":88120,"authority_timestamp":1795252447100,'
    b'"local_timestamp":1795252450400000,"delta_ms":3300,"severity":"YELLOW"},"at_close":null,'
    b'"text":"sensor-0042 is 3.200 s ahead (YELLOW) since 2026-11-21T09:14:07.000Z, sequence 3:88119"}'
)


class _Watched:
    """One source, event by event."""

    def __init__(self, confirm_events: int) -> None:
        self.watch = np.zeros((1, WATCH_COLUMNS), np.int64)
        self.state = 0
        self.confirm_events = confirm_events
        self.sequence = 0

    def see(self, severity: Severity, delta_ms: int | None = None) -> tuple[int, list[int]]:
        """The record to write (0 for none) and the watch it would be written from."""
        self.sequence += 1
        delta = DELTAS[severity] if delta_ms is None else delta_ms
        self.state, action = observe(
            self.watch, 0, self.state, severity, self.confirm_events, self.sequence, 50, 60, delta
        )
        seen = self.watch[0].tolist()
        if action:
            settle(self.watch, 0, action)
        return action, seen


def test_the_table_has_every_change_of_severity_and_nothing_else() -> None:
    """Six ordered pairs of three severities; the state says whether an alert begins, goes on or ends."""
    assert set(TRANSITIONS) == set(itertools.permutations(Severity, 2))
    for (before, after), state in TRANSITIONS.items():
        assert (state is AlertState.OPENED) == (before is Severity.GREEN)
        assert (state is AlertState.CLOSED) == (after is Severity.GREEN)


@pytest.mark.parametrize("confirm_events", [1, 2, 3, 7])
@pytest.mark.parametrize(("before", "after"), list(itertools.product(Severity, repeat=2)))
def test_the_kernel_does_what_the_table_says(before: Severity, after: Severity, confirm_events: int) -> None:
    """From each severity to each, after exactly confirm_events events and not one earlier."""
    source = _Watched(confirm_events)
    for _ in range(confirm_events if before is not Severity.GREEN else 0):
        source.see(before)
    actions = [source.see(after)[0] for _ in range(confirm_events + 2)]
    expected = [0] * (confirm_events + 2)
    if before is not after:
        expected[confirm_events - 1] = TRANSITIONS[before, after]
    assert actions == expected
    assert source.state & 3 == after


def test_a_run_is_broken_by_the_current_severity_and_by_a_third() -> None:
    """Only consecutive events count."""
    source = _Watched(3)
    green, yellow, red = Severity
    for severity in (yellow, yellow, green, yellow, yellow, red, red, yellow, yellow):
        assert source.see(severity)[0] == 0
    action, watch = source.see(yellow)
    assert action == AlertState.OPENED
    assert (watch[FIRST], watch[LAST], watch[EVENTS], watch[REVISION]) == (8, 10, 3, 1)


def test_the_confirming_run_is_part_of_the_alert_and_the_first_of_equal_worsts_stands() -> None:
    """Events and worst count from the run's first event; at_open is its last."""
    source = _Watched(3)
    for delta in (-4_000, 4_000, 2_000):
        action, watch = source.see(Severity.YELLOW, delta)
    assert action == AlertState.OPENED
    assert watch[WORST : WORST + 4] == [1, 50, 60, -4_000]
    assert watch[AT_OPEN : AT_OPEN + 4] == [3, 50, 60, 2_000]
    source.see(Severity.GREEN, 1)
    source.see(Severity.RED, 6_000)
    for _ in range(3):
        action, watch = source.see(Severity.GREEN, 1)
    assert action == AlertState.CLOSED
    assert watch[WORST : WORST + 4] == [5, 50, 60, 6_000]
    assert (watch[EVENTS], watch[LAST], watch[REVISION], watch[RUN_FIRST]) == (8, 5, 2, 6)


def test_a_closed_alert_leaves_no_trace() -> None:
    """State and watch are as before the first event, so snapshots do not remember what is over."""
    source = _Watched(2)
    for severity in (Severity.RED, Severity.RED, Severity.YELLOW, Severity.GREEN, Severity.GREEN, Severity.YELLOW):
        source.see(severity)
    source.see(Severity.GREEN)
    assert source.state == 0
    assert not source.watch.any()


def _opened() -> DriftAlert:
    watch = [0] * WATCH_COLUMNS
    watch[REVISION], watch[FIRST], watch[LAST], watch[EVENTS] = 1, 88_119, 88_121, 3
    watch[AT_OPEN : AT_OPEN + 4] = 88_121, 1_795_252_447_123, 1_795_252_450_323_000, 3_200
    watch[WORST : WORST + 4] = 88_120, 1_795_252_447_100, 1_795_252_450_400_000, 3_300
    watch[RUN_FIRST], watch[RUN_FIRST_MS] = 88_119, 1_795_252_447_000
    now = Reading.of(*watch[AT_OPEN : AT_OPEN + 4])
    return change_record(3, "sensor-0042", Severity.GREEN, Severity.YELLOW, watch, now)


def test_the_bytes_of_an_alert_are_pinned() -> None:
    """Compact JSON in the order of the schema."""
    assert _opened().encode() == GOLDEN


@pytest.mark.parametrize("closed", [False, True])
def test_an_alert_is_written_as_the_schema_says(closed: bool) -> None:  # noqa: FBT001 - a parameter
    """The fast path for JSON writes what the codec writes, and both framings read back."""
    alert = _opened()
    if closed:
        watch = [0] * WATCH_COLUMNS
        watch[REVISION] = 1
        now = Reading.of(9, 1, 2**63 - 1, 9_223_372_036_854_775)
        alert = change_record(0, "Füllstand", Severity.RED, Severity.GREEN, watch, now)
        assert alert.at_close == now
    for framing in Framing:
        value = alert.encode(framing)
        assert value == encode("DriftAlert", asdict(alert), framing)
        assert decode("DriftAlert", value, framing) == asdict(alert)


def test_a_forgotten_source_ends_its_alert_without_a_closing_event() -> None:
    """The severity stays the last known one: nothing proved otherwise."""
    watch = [0] * WATCH_COLUMNS
    watch[REVISION], watch[FIRST], watch[LAST] = 4, 10, 99
    alert = forgotten_record(1, "s", Severity.RED, watch, 5)
    assert (alert.state, alert.revision, alert.severity, alert.at_close) == ("CLOSED", 5, "RED", None)
    assert alert.alert_id == "1:10"
    assert alert.text.endswith("it was last RED at sequence 1:99")
