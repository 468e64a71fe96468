"""The guardian: what a heartbeat proves of its worker's clock, when there is an alert, and when it locks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import EntryKind
from schemas.codec import DecodeError, decode
from schemas.instants import INT64_MAX, INT64_MIN
from streams.authority_kernel import AUTHORITY_COLUMNS, SHIFT_MS, SHIFTED_MS
from streams.definitions import JudgeSettings
from streams.guardian import alarm_of, beats_in, worker_of
from streams.guardian_kernel import worker_off_ms
from streams.judge import Judge, JudgeState
from tests.core.guardian_oracle import Beat, off_ms
from tests.core.judge_oracle import (
    START_MS,
    Ledger,
    Row,
    control_by,
    definition,
    event,
    heartbeat,
    lock,
    read_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PARTITION = 3
PROMPT = definition(JudgeSettings(hold_ms=0, fleet_hold_ms=0))


def beats(off_us: Sequence[int], start_s: int = 0, worker: str = "host-1") -> list[Row]:
    """A heartbeat a second, each of a clock so far off, with the round trip of the one before; both take 3 ms."""
    rows = []
    for second, off in enumerate(off_us, start_s):
        at_ms = START_MS + second * 1_000
        trip = (at_ms - 1_000, (at_ms - 1_000 + 3) * 1_000 + off) if second > start_s else None
        rows.append(heartbeat((at_ms - 3) * 1_000 + off, at_ms, trip, worker))
    return rows


def stepped(rows: Iterable[Row]) -> tuple[JudgeState, list[dict[str, Any]]]:
    """The state after a ledger, and its alerts."""
    judge = Judge()
    state, ledger = judge.new_state(PARTITION), Ledger(list(rows))
    outputs = judge.step(state, ledger.entries)
    return state, [read_record(record.target, record.value) for record in outputs.records]


_US = st.one_of(st.integers(INT64_MIN, INT64_MAX), st.integers(-(10**8), 10**8))
_MS = st.one_of(st.integers(INT64_MIN, INT64_MAX), st.integers(-(10**5), 10**5))


@given(_US, _MS, st.one_of(st.none(), st.tuples(_MS, _US)), st.integers(-(10**6), 10**6), st.integers(0, 10**5))
def test_what_a_heartbeat_proves_is_what_the_plain_twin_says(
    worker_us: int, authority_ms: int, trip: tuple[int, int] | None, shift_ms: int, shifted_ms: int
) -> None:
    """Of any instants, without an overflow; the twin has no bounds, so only where the kernel reckons in full."""
    authority = np.zeros(AUTHORITY_COLUMNS, np.int64)
    authority[SHIFT_MS], authority[SHIFTED_MS] = shift_ms, shifted_ms
    ledger = Ledger([heartbeat(worker_us, 0, trip)])
    found = int(worker_off_ms(beats_in(ledger.entries, 1), 0, authority_ms, authority))
    instants = (authority_ms, *([] if trip is None else trip[:1]))
    if all(abs(instant) < 2**53 for instant in instants):
        assert found == off_ms(Beat(1, authority_ms, "w", worker_us, trip), shift_ms, shifted_ms)


@pytest.mark.parametrize(("worker_ms", "shift_ms", "found_ms"), [
    (0, 6_000, 0), (0, -6_000, 0), (10_000, 6_000, 10_000), (10_000, -6_000, 4_000), (-10_000, 6_000, -4_000),
])  # fmt: skip
def test_a_worker_is_off_by_what_holds_whichever_broker_stamped_its_heartbeat(
    worker_ms: int, shift_ms: int, found_ms: int
) -> None:
    """The input's leader is shifted; that of the control topic is another, and right."""
    authority = np.zeros(AUTHORITY_COLUMNS, np.int64)
    authority[SHIFT_MS] = shift_ms
    trip = START_MS, (START_MS + worker_ms) * 1_000
    beats = beats_in(Ledger([heartbeat((START_MS + worker_ms) * 1_000, START_MS, trip)]).entries, 1)
    assert worker_off_ms(beats, 0, START_MS, authority) == found_ms


def _read(rows: list[Row]) -> list[tuple[int, str, int, tuple[int, int] | None]]:
    """Row, worker, its clock, and round trip of the heartbeats that the kernel finds."""
    ledger = Ledger(rows)
    found = beats_in(ledger.entries, len(rows))
    return [
        (row, worker_of(found, beat), worker_us, (appended_ms, acked_us) if trip else None)
        for beat, (row, worker_us, trip, appended_ms, acked_us) in enumerate(found[:, :5].tolist())
    ]


def _decoded(rows: list[Row]) -> list[tuple[int, str, int, tuple[int, int] | None]]:
    """The same by the codec."""
    found: list[tuple[int, str, int, tuple[int, int] | None]] = []
    for row, one in enumerate(rows):
        try:
            record = decode("Control", one.value or b"")
        except DecodeError:
            continue
        kind, body = record["body"]
        if kind == "Heartbeat" and one.kind is EntryKind.CONTROL:
            trip = body["round_trip"]
            told = None if trip is None else (trip["appended_ms"], trip["acked_us"])
            found.append((row, record["actor"], body["worker_us"], told))
    return found


_BODY = st.fixed_dictionaries(
    {
        "predecessor_appended_ms": st.one_of(st.none(), st.integers(INT64_MIN, INT64_MAX)),
        "input_end_offset": st.integers(INT64_MIN, INT64_MAX),
        "worker_us": st.integers(INT64_MIN, INT64_MAX),
        "round_trip": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {"appended_ms": st.integers(INT64_MIN, INT64_MAX), "acked_us": st.integers(INT64_MIN, INT64_MAX)}
            ),
        ),
    }
)
_BEATS = st.builds(lambda body, actor: control_by(actor, "Heartbeat", 0, body), _BODY, st.text(max_size=20))
_OTHERS = st.sampled_from(
    [lock("s"), lock(None), PROMPT, Row(event("s", "e", 0)), Row(None, kind=EntryKind.CONTROL), heartbeat(5, 5, (1, 2))]
)


@given(st.lists(st.one_of(_BEATS, _OTHERS), max_size=6))
def test_heartbeats_are_read_as_the_codec_reads_them(rows: list[Row]) -> None:
    """And nothing else is."""
    assert _read(rows) == _decoded(rows)


@given(_BEATS, st.data())
def test_what_the_codec_refuses_is_no_heartbeat(row: Row, data: st.DataObject) -> None:
    """Cut anywhere, longer, with any byte changed: the kernel reads exactly what the codec does."""
    value = bytearray(row.value or b"")
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    rows = [replace(row, value=bytes(value)), replace(row, value=bytes(value[:place])), replace(row, value=b"")]
    rows.append(replace(row, value=(row.value or b"") + b"x"))
    assert _read(rows) == _decoded(rows)


def test_a_clock_that_is_ahead_opens_an_alert_that_names_the_worker() -> None:
    """RED where three of five heartbeats prove it; closed by five that do not."""
    state, alerts = stepped([PROMPT, *beats([6_000_000] * 4 + [0] * 5)])
    opened, closed = alerts
    assert (opened["state"], opened["severity"], opened["cause"]) == ("OPENED", "RED", "AHEAD")
    assert (opened["source"], opened["alert_id"]) == ("worker of partition 3", "3:2:worker")
    assert (opened["subject"], closed["subject"]) == ("WORKER", "WORKER")
    since = "since 2026-11-18T11:06:40.000Z, index 3:2"
    clock = "the clock of worker host-1 of partition 3"
    assert opened["text"] == f"{clock} is 5.997 s ahead at least (RED) {since}"
    assert (opened["first_sequence"], opened["last_sequence"], opened["events"]) == (2, 4, 3)
    assert opened["skew_ppb"] is None
    assert closed["text"].startswith(f"{clock} is within 1 s again since 2026-11-18T11:06:44.000Z, index 3:6; at worst")
    assert closed["at_close"]["sequence"] == 10
    assert (state.guard.worker, int(state.guard.columns.any())) == ("", 0)


def test_a_clock_that_is_behind_is_proved_by_round_trips_alone() -> None:
    """A heartbeat that was long under way looks the same, and proves nothing."""
    _, alerts = stepped([PROMPT, *beats([-6_000_000] * 4)])
    assert [(alert["state"], alert["cause"], alert["severity"]) for alert in alerts] == [("OPENED", "BEHIND", "RED")]
    assert alerts[0]["text"].startswith("the clock of worker host-1 of partition 3 is 5.997 s behind at least (RED)")
    slow = [heartbeat((START_MS + s * 1_000 - 60_000) * 1_000, START_MS + s * 1_000) for s in range(9)]
    told = START_MS - 60_000, START_MS * 1_000
    queued = [heartbeat((START_MS + s * 1_000 - 60_000) * 1_000, START_MS + s * 1_000, told) for s in range(9)]
    for rows in (slow, queued):
        state, alerts = stepped([PROMPT, *rows])
        assert (alerts, state.guard.worker) == ([], "")


def test_an_alert_waits_for_what_may_be_the_brokers_fault() -> None:
    """fleet_hold_ms from the first heartbeat on, though being ahead is proved."""
    _, alerts = stepped(beats([6_000_000] * 5))
    assert alerts == []
    _, alerts = stepped(beats([6_000_000] * 6))
    assert [(alert["state"], alert["events"]) for alert in alerts] == [("OPENED", 6)]


def test_another_worker_begins_anew_and_ends_the_alert_without_proof() -> None:
    """It was about another clock."""
    _, alerts = stepped([PROMPT, *beats([6_000_000] * 3), *beats([0, 0], 3, "host-2")])
    assert [(alert["state"], alert["severity"], alert["at_close"]) for alert in alerts][1] == ("CLOSED", "RED", None)
    assert alerts[1]["text"] == (
        "partition 3 is written by worker host-2 now; the clock of worker host-1 was last RED at index 3:4"
    )
    assert alerts[1]["revision"] == 2
    turns = [row for pair in zip(beats([6_000_000] * 9), beats([0] * 9, worker="host-2"), strict=True) for row in pair]
    assert stepped([PROMPT, *turns])[1] == []


def test_heartbeats_of_an_idle_partition_have_an_alert_each_time() -> None:
    """No event has a sequence there; the alerts are named by the heartbeats' indexes."""
    off = ([6_000_000] * 3 + [0] * 5) * 2
    _, alerts = stepped([PROMPT, *beats(off)])
    assert [alert["state"] for alert in alerts] == ["OPENED", "CLOSED"] * 2
    assert [alert["alert_id"] for alert in alerts] == ["3:2:worker"] * 2 + ["3:10:worker"] * 2


def test_the_guardian_answers_an_alarm_once() -> None:
    """RED alone, not where the partition is locked, and not again for the same alert once it was released."""
    rows = [PROMPT, *beats([2_000_000] * 3)]
    state, _ = stepped(rows)
    assert alarm_of(PARTITION, state.guard, state.locks) is None
    rows = [PROMPT, *beats([6_000_000] * 3)]
    state, _ = stepped(rows)
    alarm = alarm_of(PARTITION, state.guard, state.locks)
    assert alarm is not None
    assert alarm == (
        "host-1",
        2,
        (
            "the clock of worker host-1 of partition 3 is 5.997 s ahead at least (RED) since 2026-11-18T11:06:40.000Z, "
            "index 3:2"
        ),
    )
    at_ms = START_MS + 3_000
    for locks in ([lock(None, at_ms)], [lock(None, at_ms, "guardian")]):
        state, _ = stepped([*rows, *locks])
        assert alarm_of(PARTITION, state.guard, state.locks) is None
    again = [*beats([6_000_000] * 3, 4)]
    by_hand, _ = stepped([*rows, lock(None, at_ms), lock(None, at_ms, engaged=False), *again])
    assert alarm_of(PARTITION, by_hand.guard, by_hand.locks) is not None
    by_guardian, _ = stepped([*rows, lock(None, at_ms, "guardian"), lock(None, at_ms, engaged=False), *again])
    assert alarm_of(PARTITION, by_guardian.guard, by_guardian.locks) is None
    closed, _ = stepped([*rows, lock(None, at_ms, "guardian"), *beats([0] * 5 + [6_000_000] * 3, 4)])
    assert closed.guard.columns[-1] == 0
    assert alarm_of(PARTITION, closed.guard, closed.locks) is None  # it is locked still
    assert alarm_of(PARTITION, closed.guard, {}) is not None


@pytest.mark.parametrize("cut", range(8))
def test_what_is_known_of_a_worker_outlives_a_snapshot(cut: int) -> None:
    """Wherever it was taken: the same records, the same state."""
    rows = [
        PROMPT,
        *beats([6_000_000] * 3),
        lock("s"),
        lock(None, actor="guardian"),
        Row(event("s", "e", 0)),
        lock("t"),
    ]
    judge, ledger = Judge(), Ledger(rows)
    whole = judge.new_state(PARTITION)
    told = judge.step(whole, ledger.entries).records
    state, parts = judge.new_state(PARTITION), []
    for entries in ledger.batches(iter([cut, 100])):
        parts += judge.step(state, entries).records
        state = judge.load(PARTITION, judge.dump(state))
    assert parts == told
    assert judge.dump(state) == judge.dump(whole)
    assert list(state.locks.values()) == list(whole.locks.values())
