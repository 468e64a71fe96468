"""The judge against its plain twin, and against itself under every way of cutting, storing and interpreting."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import sys
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import EntryKind, ValueState
from schemas.codec import Framing, decode
from schemas.columns import Entries, Fault
from schemas.errors import BadInputError
from schemas.memory import JIT, bytes_at
from streams import dedupe, sources
from streams.causes import Cause
from streams.definitions import JudgeSettings
from streams.fold import FoldError, Target
from streams.guardian import alarm_of
from streams.judge import Judge, JudgeState, Outputs
from streams.judge_kernel import NO_SEVERITY, Flag, Verdicts
from tests.core.event_generator import SEED
from tests.core.interpreted import interpreted
from tests.core.judge_histories import history, leader_steps
from tests.core.judge_oracle import (
    START_MS,
    Ledger,
    Oracle,
    Row,
    Verdict,
    control,
    definition,
    event,
    heartbeat,
    read_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


PARTITION = 3


class Run(NamedTuple):
    """All that a fold showed over a ledger."""

    records: list[tuple[str, int, bytes | None, bytes]]
    verdicts: bytes
    warned: list[int]
    counts: dict[str, int]
    dump: bytes


def _told(outputs: Outputs) -> list[tuple[str, int, bytes | None, bytes]]:
    """All records of a step by entry, of one entry the estimate first; its bytes are those of `json.dumps`."""
    estimates: list[tuple[str, int, bytes | None, bytes]] = []
    for at_index, key, key_length, value, value_length in zip(
        *(column.tolist() for column in outputs.estimates[:5]), strict=True
    ):
        record = bytes_at(value, value_length)
        assert json.dumps(json.loads(record), ensure_ascii=False, separators=(",", ":")).encode() == record
        estimates.append(("drift.estimates", at_index, bytes_at(key, key_length), record))
    records = [(str(r.target), r.at_index, r.key, r.value) for r in outputs.records]
    return sorted([*estimates, *records], key=itemgetter(1))


def _gather(total: dict[str, int], outputs: Outputs) -> None:
    for name, count in outputs.counts._asdict().items():
        for key, number in count.items() if isinstance(count, dict) else [(name, count)]:
            total[str(key)] = total.get(str(key), 0) + number


def run(judge: Judge, ledger: Ledger, sizes: Iterator[int], *, reload: Callable[[], bool] = lambda: False) -> Run:
    """Step a ledger through; reload says, before each batch, whether the state goes through its dump."""
    state = judge.new_state(PARTITION)
    found = Run([], b"", [], {}, b"")
    columns: list[list[bytes]] = [[] for _ in Verdicts._fields]
    at = 0
    for entries in ledger.batches(sizes):
        if reload():
            state = judge.load(PARTITION, judge.dump(state))
        outputs = judge.step(state, entries)
        found.records.extend(_told(outputs))
        for column, name in zip(columns, Verdicts._fields, strict=True):
            column.append(getattr(outputs.verdicts, name).tobytes())
        found.warned.extend((outputs.warned + at).tolist())
        _gather(found.counts, outputs)
        at += entries.kind.size
    verdicts = b"".join(b"".join(column) for column in columns)
    return found._replace(verdicts=verdicts, dump=judge.dump(state))


def every(size: int) -> Iterator[int]:
    """Batches of one size."""
    return itertools.repeat(size)


def ragged(seed: int) -> Iterator[int]:
    """Batches of 0 to 300 entries."""
    rng = random.Random(seed)
    while True:
        yield rng.choice((0, 1, 2, rng.randrange(300)))


def check_splits(judge: Judge, ledger: Ledger, *, sizes: Sequence[int] = (1, 7, 500), seed: int = 5) -> None:
    """The same ledger in one batch and in many: nothing that the fold shows may differ."""
    whole = run(judge, ledger, every(max(1, len(ledger.rows))))
    for cut in (*map(every, sizes), ragged(seed)):
        assert run(judge, ledger, cut) == whole
    assert run(judge, ledger, ragged(seed + 1), reload=lambda: random.random() < 0.3) == whole


def check_against_oracle(rows: list[Row], size: int) -> None:
    """Every verdict, record and count as the plain twin has them."""
    oracle, ledger = Oracle(PARTITION), Ledger(rows)
    for index, row in enumerate(rows, 1):
        oracle.take(index, row)
    judge, records = Judge(), []
    verdicts: list[Verdict] = []
    counts: dict[str, int] = {}
    state = judge.new_state(PARTITION)
    for entries in ledger.batches(every(size)):
        outputs = judge.step(state, entries)
        columns = [column.tolist() for column in outputs.verdicts]
        columns[0] = [Fault(fault).name for fault in columns[0]]
        columns[-1] = [Cause(cause).name for cause in columns[-1]]
        verdicts += map(Verdict, *columns)
        records += [(target, index, key, read_record(target, value)) for target, index, key, value in _told(outputs)]
        _gather(counts, outputs)
    for i, (ours, plain) in enumerate(zip(verdicts, oracle.verdicts, strict=True)):
        assert ours == plain, (i, rows[i])
    assert records == sorted(oracle.records, key=lambda record: (record[1], record[0] != "drift.estimates"))
    locks = {scope: (*lock[2:],) for scope, lock in state.locks.items()}
    assert locks == oracle.guardian.locks
    assert list(locks) == list(oracle.guardian.locks)
    assert (alarm_of(PARTITION, state.guard, state.locks) is not None) == oracle.guardian.alarms()
    assert counts["refused_locks"] == oracle.guardian.refused
    judged = [v for v in oracle.verdicts if v.fault == "NONE" and not v.flags & (Flag.DUPLICATE | Flag.CONFLICT)]
    assert [counts[name] for name in ("green", "yellow", "red")] == [
        sum(v.severity == severity for v in judged) for severity in range(3)
    ]
    for name, flag in zip(("warned", "duplicates", "conflicts", "not_finite"), Flag, strict=True):
        assert counts[name] == sum(bool(v.flags & flag) for v in oracle.verdicts)
    assert counts["evicted_sources"] == oracle.evicted
    faults = {str(fault): counts.get(str(fault), 0) for fault in Fault if fault > Fault.CONTROL_ENTRY}
    assert faults == {fault: sum(v.fault == Fault(int(fault)).name for v in oracle.verdicts) for fault in faults}
    kinds = ("green", "yellow", "red", "duplicates", "conflicts")
    assert counts["events"] == sum(counts[kind] for kind in kinds) + sum(faults.values())


def step_once(rows: list[Row], state: JudgeState | None = None, partition: int = 0) -> Outputs:
    """The outputs of rows in one batch, as the first of a ledger; they outlive its memory but for the events."""
    judge, ledger = Judge(), Ledger(rows)
    return judge.step(state or judge.new_state(partition), ledger.entries)


def readings(source: str, offsets_us: Sequence[int], start: int = 0) -> list[Row]:
    """Events of one source, a second apart, each that far off."""
    times = range(START_MS + start * 1000, START_MS + (start + len(offsets_us)) * 1000, 1000)
    return [
        Row(event(source, f"{source}{now}", now * 1000 + off), now) for now, off in zip(times, offsets_us, strict=True)
    ]


def alerts_of(rows: list[Row], judge: Judge | None = None) -> list[dict[str, Any]]:
    """The fields of the alert records of a ledger."""
    found = run(judge or Judge(), Ledger(rows), every(1000)).records
    return [read_record(target, value) for target, _, _, value in found if target == "drift.alerts"]


# ------------------------------------------------------------------------------------------------- against the twin


@pytest.mark.parametrize("seed", range(6))
def test_judge_says_what_its_plain_twin_says(seed: int) -> None:
    """Over invented ledgers with poison, retries, forgeries, control entries and changing settings and caps."""
    check_against_oracle(history(seed, 2_000 if JIT else 500, changes=(0.0, 0.003, 0.02)[seed % 3]), 97)


@pytest.mark.parametrize(
    ("ledgers", "entries"), [(1, 15_000), pytest.param(20, 50_000, marks=pytest.mark.soak)], ids=["short", "long"]
)
def test_long_ledgers_agree_with_the_twin(ledgers: int, entries: int) -> None:
    """15,000 entries, interpreted 3,000, other ones in each run, and in the long form a million.

    Of few sources or many, settings that are steady or not, in batches small and large.
    """
    sys.stdout.write(f"DRIFTLEDGER_TEST_SEED={SEED} repeats this run\n")
    rng = random.Random(SEED)
    length = entries if JIT else 3_000
    for _ in range(ledgers):
        seed, size = rng.getrandbits(32), rng.choice((97, 2_000, 50_000))
        fleet, changes = rng.choice((60, 500, 5_000)), rng.choice((0.0, 0.0005, 0.02))
        sys.stdout.write(f"history({seed}, {length}, sources={fleet}, changes={changes}, poison=0.02), {size}\n")
        check_against_oracle(history(seed, length, sources=fleet, changes=changes, poison=0.02), size)


@given(st.integers(0, 2**32), st.integers(1, 120), st.sampled_from([0.0, 0.05, 0.3]), st.integers(1, 12))
@settings(max_examples=60 if JIT else 15)
def test_any_small_ledger_agrees_with_the_twin(seed: int, length: int, changes: float, sources_count: int) -> None:
    """Small enough to shrink, with settings that change all the time."""
    rows = history(seed, length, sources=sources_count, changes=changes, poison=0.1)
    check_against_oracle(rows, 1 + seed % 50)
    check_splits(Judge(), Ledger(rows), sizes=(1, 7))


@pytest.mark.parametrize("seed", [11, 12])
def test_batches_make_no_difference(seed: int) -> None:
    """In batches of 1, 7, 500, at random, through dumps: records, verdicts, counts and final state byte for byte."""
    check_splits(Judge(), Ledger(history(seed, 3_000 if JIT else 500, changes=0.01)))


def test_growth_of_the_tables_makes_no_difference() -> None:
    """Several thousand sources, so that the tables grow in mid-batch, and an eviction of many."""
    length = 6_000 if JIT else 2_400
    rows = history(13, length, sources=5_000, changes=0, poison=0)
    evict_at = length * 2 // 3
    rows[evict_at:evict_at] = [definition(replace(JudgeSettings(), sources_max=900))]
    check_splits(Judge(), Ledger(rows), sizes=(500,))
    check_against_oracle(rows, 1_000)


# ------------------------------------------------------------------------------------------- the checks can fail


class _ForgetsRuns(Judge):
    """Known-bad twin: a run of events ends with the batch."""

    def step(self, state: JudgeState, entries: Entries) -> Outputs:
        state.sources.hot[:, sources.STATE] &= 3
        state.sources.watch[:, 12:] = 0
        return super().step(state, entries)


class _ForgetsKeys(Judge):
    """Known-bad twin: duplicates are recognised within a batch only."""

    def step(self, state: JudgeState, entries: Entries) -> Outputs:
        state.memory = dedupe.empty_memory(state.settings.dedupe_horizon)
        return super().step(state, entries)


class _DefinesPerBatch(Judge):
    """Known-bad twin: a threshold holds for the whole batch that its definition stands in."""

    def step(self, state: JudgeState, entries: Entries) -> Outputs:
        for row in np.flatnonzero(entries.kind == EntryKind.CONTROL).tolist():
            with contextlib.suppress(BadInputError):
                found = self._settings_in(state, entries, row)
                if found is not None:
                    state.settings = replace(state.settings, threshold_us=found.threshold_us)
        return super().step(state, entries)


@pytest.mark.parametrize("bad", [_ForgetsRuns, _ForgetsKeys, _DefinesPerBatch])
def test_a_fold_that_depends_on_batches_is_caught(bad: type[Judge]) -> None:
    """The very check that Judge passes refuses each known-bad twin."""
    ledger = Ledger(history(14, 600, changes=0.02))
    with pytest.raises(AssertionError):
        check_splits(bad(), ledger)


# -------------------------------------------------------------------------------------------------- interpreted


def fingerprint(seed: int, length: int) -> str:
    """A digest of all that a run shows; the subprocess below prints it."""
    again = random.Random(seed)
    ledger = Ledger(history(seed, length, changes=0.02))
    shown = run(Judge(), ledger, ragged(seed), reload=lambda: again.random() < 0.2)
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def test_interpreted_kernels_do_the_same() -> None:
    """With NUMBA_DISABLE_JIT=1 the same sources run as plain Python."""
    assert interpreted("tests.core.test_judge", "fingerprint(21, 1500)") == fingerprint(21, 1500).encode()


# ------------------------------------------------------------------------------------------------------ single rules


def test_a_drifting_clock_opens_changes_and_closes_one_alert() -> None:
    """Three events, and five to close; the same alert id, revisions from 1, numbers at open, worst and close."""
    off = [0, 2_000_000, 3_000_000, 2_500_000, 9_000_000, 7_000_000, 8_000_000, 0, 1_000, -5, 0, 0]
    opened, changed, closed = alerts_of([definition(JudgeSettings(hold_ms=0)), *readings("s", off)])
    assert [a["state"] for a in (opened, changed, closed)] == ["OPENED", "CHANGED", "CLOSED"]
    assert [a["revision"] for a in (opened, changed, closed)] == [1, 2, 3]
    assert {a["alert_id"] for a in (opened, changed, closed)} == {"3:2:clock"}
    assert [a["worst"]["sequence"] for a in (opened, changed, closed)] == [3, 5, 5]
    assert [a["events"] for a in (opened, changed, closed)] == [3, 6, 11]
    assert [a["last_sequence"] for a in (opened, changed, closed)] == [4, 7, 7]
    assert [a["at_open"]["sequence"] for a in (opened, changed, closed)] == [4, 4, 4]
    assert closed["at_close"]["sequence"] == 12
    assert opened["text"] == "s is 2.500 s ahead at least (YELLOW) since 2026-11-18T11:06:41.000Z, sequence 3:2"


@pytest.mark.parametrize("by_ms", [2_000, -2_000, 7_000])
@pytest.mark.parametrize("exchanges", [False, True])
def test_a_leader_whose_clock_steps_is_one_alert_and_none_of_its_sources(by_ms: int, *, exchanges: bool) -> None:
    """Right clocks, and some that are wrong all the time; back again a minute later. The twin says the same."""
    rows = leader_steps(31, by_ms, exchanges=exchanges)
    check_against_oracle(rows, 97)
    of_leader = [alert for alert in alerts_of(rows) if alert["cause"] == "AUTHORITY"]
    assert [(alert["state"], alert["source"]) for alert in of_leader] == [
        ("OPENED", "broker of partition 3"), ("CLOSED", "broker of partition 3"),
    ]  # fmt: skip
    assert abs(of_leader[0]["at_open"]["value_ms"] - by_ms) < 50
    assert {alert["source"] for alert in alerts_of(rows)} == {"broker of partition 3", "wrong 0", "wrong 1"}


def _at_one_second(names: Iterable[str], seconds: range, wrong_ms: Callable[[int], int]) -> list[Row]:
    """Events of right clocks, one each second and source, under a leader that is so much ahead in each second."""
    rows = []
    for second in seconds:
        for name in names:
            made_ms = START_MS + second * 1_000
            rows.append(Row(event(name, f"{name} {second}", made_ms * 1_000), made_ms + 3 + wrong_ms(second)))
    return rows


@pytest.mark.parametrize("sources", [3, 12])
def test_an_hour_that_a_leader_was_ahead_is_over_when_its_clock_is_right_again(sources: int) -> None:
    """Alerts close and estimates are right within a minute, not when its clock comes to where it was once."""
    names = [f"s {n}" for n in range(sources)]
    rows = _at_one_second(names, range(300), lambda second: 3_600_000 if 60 <= second < 120 else 0)
    check_against_oracle(rows, 97)
    alerts = alerts_of(rows)
    assert alerts
    last = {alert["alert_id"]: alert for alert in alerts}.values()
    assert {alert["state"] for alert in last} == {"CLOSED"}
    assert max(alert["at_close"]["sequence"] for alert in last) < 190 * sources
    verdicts = step_once(rows).verdicts
    assert np.abs(verdicts.offset_us[200 * sources :]).max() < 60_000
    assert 0 < verdicts.bound_us[200 * sources :].max() < 200_000


def test_a_leader_is_heard_where_most_sources_are_long_gone() -> None:
    """Twenty speak of three hundred that are known: it is found in time, and what is taken off is given back."""
    gone = _at_one_second([f"gone {n}" for n in range(300)], range(1), lambda _: 0)
    rows = gone + _at_one_second(
        [f"live {n}" for n in range(20)],
        range(3_600, 3_960),
        lambda second: min(max(0, 2_000 - 10 * (second - 3_720)), 2_000) if second >= 3_660 else 0,
    )
    check_against_oracle(rows, 97)
    alerts = alerts_of(rows)
    of_leader = [alert for alert in alerts if alert["cause"] == "AUTHORITY"]
    assert [alert["state"] for alert in of_leader] == ["OPENED", "CLOSED"]
    assert alerts[0] == of_leader[0]
    assert {alert["state"] for alert in {alert["alert_id"]: alert for alert in alerts}.values()} == {"CLOSED"}


def test_a_clock_that_only_its_estimate_calls_ahead_waits_as_others_do() -> None:
    """955 ms ahead, all that an event proves is below the limit; the estimate adds what the way takes."""
    rows = readings("s", [953_000] * 30)
    check_against_oracle(rows, 97)
    (opened,) = alerts_of(rows)
    assert (opened["cause"], opened["at_open"]["delta_ms"]) == ("AHEAD", 953)
    waited_ms = opened["at_open"]["authority_timestamp"] - (START_MS + (opened["first_sequence"] - 1) * 1_000)
    assert waited_ms >= JudgeSettings().fleet_hold_ms


def test_what_two_causes_explain_in_turn_is_not_told_for_ever() -> None:
    """A clock that gains 1 % steps and is ahead, by the rules, in turn; for an hour."""
    draw = random.Random(1)
    rows = readings("s", [10_000 * second - draw.randrange(2_000, 30_000) for second in range(3_600)])
    check_against_oracle(rows[:500], 97)
    alerts = alerts_of(rows)
    assert {alert["alert_id"] for alert in alerts} == {alerts[0]["alert_id"]}
    assert {alert["cause"] for alert in alerts} == {"STEP", "AHEAD"}
    assert len(alerts) < 12


@pytest.mark.parametrize("name", ["broker of partition 3", "worker of partition 3"])
def test_a_source_that_calls_itself_a_broker_or_a_worker_is_a_source(name: str) -> None:
    """Its name and the text are its own; the subject is not, nor the ending of the alert's name."""
    (alert,) = alerts_of(readings(name, [9_000_000] * 3))
    assert (alert["source"], alert["subject"], alert["alert_id"]) == (name, "SOURCE", "3:1:clock")
    leader = [alert for alert in alerts_of(leader_steps(31, 2_000, exchanges=False)) if alert["cause"] == "AUTHORITY"]
    assert {alert["subject"] for alert in leader} == {"BROKER"}


@pytest.mark.parametrize("wrong", [False, True])
def test_alerts_of_sources_do_not_know_of_control_entries(*, wrong: bool) -> None:
    """Heartbeats between any two events leave every byte of them as it was; those of a right clock all of the state."""
    rows = [r for r in history(31, 1_500, changes=0, poison=0) if r.kind is EntryKind.DATA]
    quiet = run(Judge(), Ledger(rows), every(100))
    with_beats: list[Row] = []
    for row in rows:
        beat = heartbeat(row.authority_ms * 1_000 + (9_000_000 if wrong else -2_000), row.authority_ms)
        with_beats += [beat, row, beat]
    noisy = run(Judge(), Ledger(with_beats), every(100))
    values = [
        [(key, value) for _, _, key, value in found.records if key != b"worker of partition 3"]
        for found in (quiet, noisy)
    ]
    assert values[0] == values[1]
    assert values[0]
    assert (quiet.dump == noisy.dump) is not wrong
    assert (len(quiet.records) < len(noisy.records)) is wrong


def test_duplicates_and_conflicts_take_no_part_in_alerts_and_warnings() -> None:
    """A retry a minute late is far off because of the network, not of the clock; it is still given its severity."""
    first = event("s", "a", START_MS * 1000)
    late = START_MS + 60_000
    rows = [Row(first, START_MS), Row(first, late), Row(event("s", "a", START_MS * 1000, 1.0), late), Row(first, late)]
    outputs = step_once(rows)
    assert outputs.verdicts.flags.tolist() == [0, Flag.DUPLICATE, Flag.CONFLICT, Flag.DUPLICATE]
    assert outputs.verdicts.severity.tolist() == [0, 2, 2, 2]
    assert outputs.verdicts.delta_ms.tolist() == [0, -60_000, -60_000, -60_000]
    assert outputs.records == []
    assert outputs.warned.size == 0
    assert (outputs.counts.duplicates, outputs.counts.conflicts, outputs.counts.red) == (2, 1, 0)


@pytest.mark.parametrize(("between", "flag"), [(9, Flag.DUPLICATE), (10, 0)])
def test_a_duplicate_is_known_up_to_the_horizon_and_no_further(between: int, flag: int) -> None:
    """Poison counts as sequences; a duplicate does not refresh the first."""
    again = Row(event("s", "a", 0))
    rows = [definition(replace(JudgeSettings(), dedupe_horizon=10)), again, *[Row(b"x")] * (between - 1), again]
    rows.insert(5, again)
    outputs = step_once(rows)
    assert outputs.verdicts.flags[-1] & ~Flag.WARNED == flag


def test_the_same_event_id_of_another_source_is_another_event() -> None:
    """Nor can the border between source and event id be moved."""
    names = [("s", "a"), ("t", "a"), ("sa", ""), ("s", "aa"), ("sa", "a")]
    outputs = step_once([Row(event(s, e, START_MS * 1000)) for s, e in names])
    assert outputs.counts.duplicates == outputs.counts.conflicts == 0


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (Row(None, key=b"k"), Fault.NULL_VALUE),
        (Row(b""), Fault.EMPTY),
        (Row(b"\x00abc", key=b""), Fault.UNKNOWN_FRAMING),
        (Row(b"\xc3\x01abcdefgh"), Fault.WRONG_FINGERPRINT),
        (Row(event("s", "e", 0)[:-1]), Fault.TRUNCATED),
        (Row(event("s", "e", 0) + b"x"), Fault.TRAILING_BYTES),
        (Row(event("sss", "e", 0).replace(b"sss", b"s\xffs")), Fault.BAD_UTF8),
        (Row(event("s", "e", 0), state=ValueState.OMITTED), Fault.OMITTED),
    ],
)
def test_what_cannot_be_read_becomes_one_dead_letter(row: Row, fault: Fault) -> None:
    """With reason, position, hash and the original bytes under the original key; its neighbours are judged."""
    good = Row(event("s", "good", START_MS * 1000))
    outputs = step_once([good, row, good], partition=7)
    ((target, at_index, key, value),) = outputs.records
    letter = decode("DeadLetter", value)
    assert (target, at_index, key) == (Target.DEAD_LETTERS, 2, row.key)
    assert (letter["partition"], letter["sequence"], letter["input_offset"]) == (7, 2, 3)
    assert (letter["reason"], letter["authority_timestamp"]) == (fault.name, START_MS)
    assert letter["value"] == (None if fault in {Fault.NULL_VALUE, Fault.OMITTED} else row.value)
    assert letter["value_hash"] == (hashlib.sha256(row.value).digest() if row.value is not None else bytes(32))
    assert letter["value_length"] == (-1 if row.value is None else len(row.value))
    assert outputs.counts.unreadable == {fault: 1}
    assert outputs.verdicts.severity.tolist() == [0, NO_SEVERITY, 0]
    assert outputs.messages(Target.DEAD_LETTERS) == [(row.key, value)]
    assert outputs.messages(Target.DRIFT_ALERTS) == []


def test_an_erased_value_is_counted_and_nothing_else() -> None:
    """Its bytes are gone on purpose."""
    outputs = step_once([Row(event("s", "e", 0), state=ValueState.ERASED)])
    assert outputs.records == []
    assert outputs.counts.unreadable == {Fault.ERASED: 1}


def test_values_that_are_no_number_and_instants_at_the_ends_of_time_are_judged() -> None:
    """NaN and infinite are flagged; both ends of int64 are RED and warned."""
    values = [float("nan"), float("inf"), float("-inf"), None, 1.0, 2.0]
    times = [START_MS * 1000] * 4 + [2**63 - 1, -(2**63)]
    rows = [Row(event("s", f"{i}", t, v)) for i, (t, v) in enumerate(zip(times, values, strict=True))]
    outputs = step_once(rows)
    assert outputs.verdicts.flags.tolist() == [Flag.NOT_FINITE] * 3 + [0, Flag.WARNED, Flag.WARNED]
    assert outputs.verdicts.severity.tolist() == [0, 0, 0, 0, 2, 2]
    assert outputs.warned.tolist() == [4, 5]
    assert outputs.counts.not_finite == 3


def test_a_definition_takes_effect_at_its_own_entry() -> None:
    """Framing and threshold change in mid-batch; the rows before are judged as before."""
    json_value = event("s", "b", START_MS * 1000 + 100, framing=Framing.JSON)
    rows = [
        Row(event("s", "a", START_MS * 1000 + 100)),
        Row(json_value),
        definition(JudgeSettings(framing=Framing.JSON, threshold_us=99)),
        Row(json_value),
    ]
    judge, ledger = Judge(), Ledger(rows)
    state = judge.new_state(0)
    outputs = judge.step(state, ledger.entries)
    assert outputs.verdicts.fault.tolist() == [0, Fault.UNKNOWN_FRAMING, Fault.CONTROL_ENTRY, 0]
    assert outputs.verdicts.flags.tolist() == [0, 0, 0, Flag.WARNED]
    name = bytes_at(int(outputs.events.source_address[3]), int(outputs.events.source_length[3]))
    assert name == b"s"
    assert state.settings.framing is Framing.JSON


def test_a_definition_that_cannot_be_read_changes_nothing_and_is_counted() -> None:
    """Nobody could ever mend the entry, so it must not stop the partition."""
    state = Judge().new_state(0)
    bad = [control("Definition", name="judge", body="{}"), Row(b"judge", kind=EntryKind.CONTROL)]
    outputs = step_once([*bad, control("Definition", name="other", body="judge")], state)
    assert outputs.counts.refused_definitions == 2
    assert state.settings == JudgeSettings()


def test_a_ledger_that_a_newer_judge_wrote_is_refused() -> None:
    """Its own version and older ones are not; nor are other folds' versions."""
    ours = Judge().version
    fine = [control("FoldVersion", fold="judge", version=ours), control("FoldVersion", fold="judge-2", version=9)]
    step_once(fine)
    with pytest.raises(FoldError, match=f"judge {ours + 1}"):
        step_once([control("FoldVersion", fold="judge", version=ours + 1)])


def test_who_wrote_the_ledger_is_part_of_the_state() -> None:
    """Of each partition: one that was halted while the others went on to a new version still has to say it."""

    class Second(Judge):
        @property
        def version(self) -> int:
            return 2

    judge = Second()
    ledger = Ledger([control("FoldVersion", fold="judge", version=2), control("FoldVersion", fold="other", version=9)])
    state = judge.new_state(PARTITION)
    assert state.written_by == 1
    judge.step(state, ledger.entries)
    assert judge.load(PARTITION, judge.dump(state)).written_by == 2


def test_a_gap_in_the_sequence_is_refused() -> None:
    """Judging on would be judging another ledger."""
    judge, ledger = Judge(), Ledger([Row(event("s", f"{i}", 0)) for i in range(5)])
    state = judge.new_state(0)
    batches = list(ledger.batches(every(2)))
    judge.step(state, batches[0])
    with pytest.raises(FoldError, match="sequence 5 after 2"):
        judge.step(state, batches[2])


def test_one_source_too_many_ends_the_longest_open_alert_when_all_have_one() -> None:
    """The record says so and has no closing event; it comes before what the new source causes."""
    late = [9_000_000] * 3
    rows = [definition(JudgeSettings(sources_max=2)), *readings("a", late), *readings("b", late, 3)]
    alerts = alerts_of([*rows, *readings("c", late, 6), *readings("a", [0], 9)])
    assert [(a["source"], a["state"]) for a in alerts[:4]] == [
        ("a", "OPENED"), ("b", "OPENED"), ("a", "CLOSED"), ("c", "OPENED"),
    ]  # fmt: skip
    assert (alerts[2]["at_close"], alerts[2]["severity"], alerts[2]["revision"]) == (None, "RED", 2)
    assert (alerts[4]["source"], alerts[4]["state"]) == ("b", "CLOSED")


# ------------------------------------------------------------------------------------------------------------- dumps


def _state(seed: int) -> tuple[Judge, JudgeState]:
    judge = Judge()
    state = judge.new_state(PARTITION)
    step_once(history(seed, 800, changes=0.005), state)
    return judge, state


def test_a_dump_of_the_beginning_is_small_and_comes_back() -> None:
    """A new state has no sources and remembers nothing."""
    judge = Judge()
    data = judge.dump(judge.new_state(5))
    assert len(data) < 1_000
    assert judge.dump(judge.load(5, data)) == data


@pytest.mark.parametrize("seed", range(40, 46))
def test_a_dump_comes_back_to_the_same_bytes(seed: int) -> None:
    """Whatever the settings in force."""
    judge, state = _state(seed)
    data = judge.dump(state)
    assert judge.dump(judge.load(PARTITION, data)) == data


def test_a_dump_that_is_not_whole_is_refused() -> None:
    """Cut anywhere, longer, of another partition or version: FoldError, never a wrong state."""
    judge, state = _state(40)
    data = judge.dump(state)
    for length in (0, 1, 43, 44, 45, 200, len(data) - 1):
        with pytest.raises(FoldError):
            judge.load(PARTITION, data[:length])
    with pytest.raises(FoldError, match="bytes where its head says"):
        judge.load(PARTITION, data + b"x")
    with pytest.raises(FoldError, match="of partition 3"):
        judge.load(PARTITION + 1, data)
    with pytest.raises(FoldError, match="begins with"):
        judge.load(PARTITION, b"DLJ" + bytes([judge.version + 1]) + data[4:])


def test_flipped_bytes_of_a_dump_never_crash() -> None:
    """The snapshot's checksum finds them first; without it, still a state or a FoldError."""
    judge, state = _state(41)
    data, rng, refused = judge.dump(state), random.Random(4), 0
    for _ in range(300):
        place = rng.randrange(400) if rng.random() < 0.7 else rng.randrange(len(data))
        bad = bytearray(data)
        bad[place] ^= 1 << rng.randrange(8)
        try:
            judge.load(PARTITION, bytes(bad))
        except FoldError:
            refused += 1
    assert refused > 50


def test_a_step_of_nothing_changes_nothing() -> None:
    """An empty batch is a batch."""
    judge, state = _state(42)
    before = judge.dump(state)
    outputs = step_once([], state)
    assert outputs.records == []
    assert outputs.counts.events == 0
    assert np.array_equal(outputs.verdicts.severity, [])
    assert judge.dump(state) == before
