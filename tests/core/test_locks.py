"""Locks as state of the ledger, in words, and on the progress topic."""

from __future__ import annotations

from typing import Any, cast

import pytest

from schemas.codec import decode
from schemas.errors import BadInputError, HaltCode, HaltError
from streams import lock_log, status
from streams.control import decode_said
from streams.drift_entries import DriftEntry, Reading
from streams.folds import Stepped
from streams.gate import Gate, LockedError, closed_by
from streams.judge import Judge, JudgeState, Outputs
from streams.lock_log import What
from streams.locks import (
    LOCKS_MAX,
    Halts,
    Lock,
    LockChange,
    Locks,
    change_of,
    fields_of,
    halts_in,
    key_of,
    lock_body,
    lock_from,
    lock_of,
    message_of,
)
from streams.progress import LaneNotes, LaneState
from streams.publish import Accepted, Rejected
from streams.severity import Severity
from streams.status import LaneStanding, PartitionStatus
from tests.core.judge_oracle import START_MS, Ledger, Row, lock

PARTITION = 2
WHOLE = Lock(PARTITION, None, ("sequence", "put"), 9, START_MS, -40, "ada", "clocks are set")
PUMP = WHOLE._replace(scope="pump-7", halts=("put",), index=10)


def stepped(rows: list[Row]) -> tuple[JudgeState, Outputs]:
    """State and outputs after a ledger."""
    judge, ledger = Judge(), Ledger(rows)
    state = judge.new_state(PARTITION)
    return state, judge.step(state, ledger.entries)


def test_a_lock_says_who_when_why_and_how_far_his_clock_was_off() -> None:
    """Of a partition and of a source, each released by itself."""
    rows = [lock(None, off_us=-40_000), lock("pump-7"), lock(None, engaged=False)]
    state, outputs = stepped(rows)
    whole = Lock(PARTITION, None, ("sequence", "put"), 1, START_MS, -40, "ada", "test")
    pump = Lock(PARTITION, "pump-7", ("sequence", "put"), 2, START_MS, 0, "ada", "test")
    assert state.locks == {"pump-7": pump}
    assert outputs.locks == (
        LockChange(PARTITION, None, whole),
        LockChange(PARTITION, "pump-7", pump),
        LockChange(PARTITION, None, None),
    )
    assert outputs.counts.refused_locks == 0


def test_locking_what_is_locked_and_releasing_what_is_not_changes_nothing() -> None:
    """The first lock stands, with who and why."""
    state, outputs = stepped([lock("a", engaged=False), lock("a", actor="ada"), lock("a", actor="bob")])
    assert [change.lock and change.lock.actor for change in outputs.locks] == ["ada"]
    assert [entry.actor for entry in state.locks.values()] == ["ada"]


def test_one_lock_too_many_is_refused_and_counted() -> None:
    """As is one whose scope is no source; a release makes room."""
    rows = [lock(f"s{number}") for number in range(LOCKS_MAX)]
    state, outputs = stepped([*rows, lock("more"), lock("x" * 257), lock(""), lock("s0", engaged=False), lock("last")])
    assert outputs.counts.refused_locks == 3
    assert len(state.locks) == LOCKS_MAX
    assert "last" in state.locks
    assert "more" not in state.locks
    data = Judge().dump(state)
    assert Judge().dump(Judge().load(PARTITION, data)) == data


def test_who_and_why_are_kept_in_bounds() -> None:
    """The entry has them whole."""
    row = lock("a", actor="x" * 1_000)
    assert row.value is not None
    kept = lock_of(PARTITION, 1, START_MS, decode_said(row.value)._replace(reason="y" * 5_000))
    assert (len(kept.actor), len(kept.reason)) == (256, 1_024)


def test_a_lock_in_words() -> None:
    """What, since when, by whom, why, and how it ends."""
    since = "locked since 2026-11-18T11:06:40.000Z by ada because clocks are set"
    assert str(LockedError(WHOLE)) == (
        f"partition 2 is {since}. Once that is mended, run `driftledger lock release --partition 2 --reason TEXT`"
    )
    assert str(LockedError(PUMP)) == (
        f"source pump-7 is {since}. Once that is mended, run `driftledger lock release --source pump-7 --reason TEXT`"
    )
    assert WHOLE.row()["id"] == "2:9"
    assert WHOLE._replace(delta_ms=-7_000).row()["severity"] == "RED"


def test_a_lock_halts_what_it_says_and_a_source_is_kept_from_puts_alone() -> None:
    """The setting names them."""
    assert [halts_in(text) for text in ("sequence,put", "sequence", "put")] == [
        ("sequence", "put"), ("sequence",), ("put",),
    ]  # fmt: skip
    assert WHOLE.does(Halts.SEQUENCE)
    assert not WHOLE._replace(halts=("put",)).does(Halts.SEQUENCE)
    assert not PUMP._replace(halts=("sequence", "put")).does(Halts.SEQUENCE)
    assert PUMP.does(Halts.PUT)
    assert lock_body(None, ("put",), "CLI", 5, engaged=False)["halts"] == []


@pytest.mark.parametrize("one", [WHOLE, PUMP])
def test_what_is_told_on_the_progress_topic_is_read_back(one: Lock) -> None:
    """Under a key of its own; a release is a null value."""
    key, value = message_of(LockChange(PARTITION, one.scope, one))
    assert key == key_of(PARTITION, one.scope) == (b"lock/2" if one.scope is None else b"lock/2/pump-7")
    assert value is not None
    assert decode("Lock", value) == fields_of(one)
    assert lock_from(fields_of(one)) == one
    assert message_of(LockChange(PARTITION, one.scope, None)) == (key, None)


def test_the_lane_writes_what_changed() -> None:
    """In the transaction of the entries, like alerts."""
    _, outputs = stepped([lock(None), lock(None), lock(None, engaged=False)])
    spoken = Stepped(outputs, None)
    assert spoken.any()
    assert [(key, value is None) for key, value in spoken.locks()] == [(b"lock/2", False), (b"lock/2", True)]
    assert Stepped(None, None).locks() == []


def test_a_change_is_refused_with_its_reason() -> None:
    """And leaves what is locked as it was."""
    locks = {f"s{number}": WHOLE for number in range(LOCKS_MAX)}
    with pytest.raises(BadInputError, match="1000 sources of the partition are locked already"):
        change_of(cast("Any", locks), PUMP, engaged=True)
    assert len(locks) == LOCKS_MAX


def test_the_partition_itself_can_always_be_locked() -> None:
    """It is what who has locked too many sources is told to do, and what the guardian does."""
    rows = [lock(f"s{number}") for number in range(LOCKS_MAX)]
    state, outputs = stepped([*rows, lock("more"), lock(None), lock("more")])
    assert outputs.counts.refused_locks == 2
    assert list(state.locks)[-1] is None
    state, outputs = stepped([lock(None), *rows, lock("more")])
    assert (outputs.counts.refused_locks, len(state.locks)) == (1, LOCKS_MAX + 1)


@pytest.mark.parametrize(("scope", "halts"), [(None, ()), ("pump-7", ("sequence",))])
def test_a_lock_that_would_halt_nothing_is_refused(scope: str | None, halts: tuple[str, ...]) -> None:
    """It would say that something is locked that goes on; a release needs no such word."""
    locks: Locks = {scope: WHOLE._replace(scope=scope)}
    asked = WHOLE._replace(scope=scope, halts=halts)
    with pytest.raises(BadInputError, match="would halt nothing"):
        change_of({}, asked, engaged=True)
    assert change_of(locks, asked, engaged=False) == LockChange(PARTITION, scope, None)


def test_a_remedy_can_be_pasted_whatever_the_name_of_the_source() -> None:
    """A shell takes the name as one word, and runs nothing of it."""
    assert "--source 'a b; $(halt)' --reason" in PUMP._replace(scope="a b; $(halt)").remedy


ENTRY = DriftEntry(PARTITION, 9, 7, Reading.LOCK, START_MS, START_MS * 1_000, -40, Severity.GREEN, "CLI", b"hash")


@pytest.mark.parametrize(
    ("stands", "full", "what"),
    [
        (WHOLE, False, What.ENGAGED),
        (WHOLE._replace(index=3), False, What.STOOD),
        (None, True, What.REFUSED),
        (None, False, What.GONE),
    ],
)
def test_what_became_of_a_lock(stands: Lock | None, full: bool, what: What) -> None:  # noqa: FBT001
    """Where it is not there, somebody may have released it already: that is no lack of room."""
    found = lock_log._Found(PARTITION, ENTRY, stands, full=full)
    assert lock_log._engaged(found) is what
    row = found.outcome(None, what).row()
    assert (row["lock"], row["id"], row["after_sequence"]) == (what, "2:9", 7)


# -------------------------------------------------------------------------------------------------------------- gate


def _state(*locks: Lock, halts: dict[int, HaltError] | None = None) -> LaneState:
    return LaneState({}, halts or {}, {}, list(locks))


HALT = HaltError(1, HaltCode.INPUT_CUT, "records are gone", "Restore them")


def test_what_stands_in_the_way_is_told_for_each_source() -> None:
    """A halt before a lock, the lock of a partition before that of a source; nothing elsewhere."""
    closed = closed_by(1, [_state(WHOLE._replace(partition=0, scope="b")), _state()])
    assert closed
    assert closed.refusal("a") is None
    assert "source b is locked since" in (closed.refusal("b") or "")
    both = closed_by(1, [_state(WHOLE._replace(partition=0), WHOLE._replace(partition=0, scope="b"))])
    assert "partition 0 is locked since" in (both.refusal("b") or "")
    halted = closed_by(2, [_state(WHOLE._replace(partition=1), halts={1: HALT})])
    assert halted.error_of(1) is HALT
    assert halted.error_of(0) is None
    assert not closed_by(1, [_state()])


def test_a_lock_that_halts_the_sequence_alone_keeps_nobody_from_putting() -> None:
    """It waits in the input."""
    assert not closed_by(1, [_state(WHOLE._replace(partition=0, halts=("sequence",)))])


class _Notes:
    """A lane whose state changes, and how often it was read."""

    def __init__(self) -> None:
        self.state, self.reads = _state(), 0

    def read(self, _log: object) -> LaneState:
        """As it is."""
        self.reads += 1
        return self.state


def test_the_gate_reads_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is closed for as long as a lock stands; lines are refused with the reason."""
    gate, notes = Gate("127.0.0.1:1", "progress", 1, 1), _Notes()
    gate._notes = [cast("LaneNotes", notes)]
    lines: list[Accepted | Rejected] = [
        Accepted(1, {"source": "a"}),
        Rejected(2, "no JSON"),
        Accepted(3, {"source": "b"}),
    ]
    assert list(gate.passed(lines)) == lines
    gate.check(0)
    assert notes.reads == 1
    notes.state = _state(WHOLE._replace(partition=0, scope="b"))
    monkeypatch.setattr("streams.gate.MAX_AGE_S", 0.0)
    passed = list(gate.passed(lines))
    assert passed[:2] == lines[:2]
    assert isinstance(passed[2], Rejected)
    assert "source b is locked since" in passed[2].reason
    gate.check(0)
    notes.state = _state(WHOLE._replace(partition=0))
    with pytest.raises(LockedError, match="partition 0 is locked since"):
        gate.check(0)
    gate.close()


# ------------------------------------------------------------------------------------------------------------ status


def test_a_locked_partition_is_told_as_such() -> None:
    """With who, when, why and what to do; not where it is halted, and not for a source."""
    live = PartitionStatus(PARTITION, 0, LaneStanding.LIVE, 8, 9, 5, 1)
    told = status._locked(live, (WHOLE, PUMP)).row()
    assert (told["state"], told["locks"], told["input_lag_offsets"]) == ("locked", 2, 5)
    assert told["detail"].startswith(
        "partition 2 is locked since 2026-11-18T11:06:40.000Z by ada because clocks are set"
    )
    assert told["remedy"].endswith("run `driftledger lock release --partition 2 --reason TEXT`")
    told = status._locked(live, (PUMP,)).row()
    assert (told["state"], told["locks"]) == ("live", 1)
    assert "source pump-7 is locked" in told["detail"]
    halted = live._replace(standing=LaneStanding.HALTED, broken=HALT)
    assert status._locked(halted, (WHOLE,)).row()["detail"] == "records are gone"
    assert status._locked(live, ()) == live
