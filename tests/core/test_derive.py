"""Derive against its plain twin, and against itself under every way of cutting, storing and interpreting."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import EntryKind
from schemas.codec import decode
from schemas.instants import INT64_MAX, INT64_MIN, parse_us
from schemas.memory import JIT, bytes_at
from streams import window_room
from streams.derive import Derive, DeriveState
from streams.derive_kernel import N_WATERMARK, NEVER, TIME_MIN_US
from streams.derived import WindowCounts
from streams.fold import FoldError
from streams.judge import Judge, Outputs
from streams.window_notices import no_tally
from streams.window_table import WINDOWS_MAX
from streams.windows import DEFINITIONS_MAX, By, Doubtful, Frame, Function, Kind, Late, WindowDefinition, entry_name
from tests.core.derive_histories import (
    VALUES,
    Step,
    change,
    event_value,
    heartbeat,
    history,
    invented_clock,
    random_window,
    told,
)
from tests.core.derive_oracle import Change, Data
from tests.core.event_generator import SEED
from tests.core.interpreted import interpreted
from tests.core.judge_oracle import START_MS, Ledger, Row, control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from schemas.columns import Entries
    from streams.derived import Derived

PARTITION = 3
S = 1_000_000
START_US = START_MS * 1000
#: Windows that hop and tumble; sliding ones have their own kernel.
STEADY = (Kind.TUMBLING, Kind.HOPPING)
#: Enough for tables to grow several times; interpreted kernels take long.
MANY = 4_000 if JIT else 600


class Run(NamedTuple):
    """All that a fold showed over a ledger: (index, key, value) of records and (index, reason) of dead letters."""

    records: list[tuple[int, bytes, bytes]]
    letters: list[tuple[int, str]]
    counts: dict[str, list[int]]
    refused: int
    dump: bytes

    def results(self) -> list[dict[str, Any]]:
        """The records as objects."""
        return [json.loads(value) for _, _, value in self.records]


def _records_of(derived: Derived) -> list[tuple[int, bytes, bytes]]:
    index, *places = (column.tolist() for column in derived.aggregates[:5])
    return [
        (at, bytes_at(key, key_length), bytes_at(value, value_length))
        for at, key, key_length, value, value_length in zip(index, *places, strict=True)
    ]


def run(derive: Derive, ledger: Ledger, sizes: Iterator[int], *, reload: Callable[[], bool] = lambda: False) -> Run:
    """Step a ledger through; reload says, before each batch, whether the state goes through its dump."""
    judge, state = Judge(), derive.new_state(PARTITION)
    judged = judge.new_state(PARTITION)
    found = Run([], [], {}, 0, b"")
    for entries in ledger.batches(sizes):
        if reload():
            image = derive.dump(state)
            state = derive.load(PARTITION, image)
            assert derive.dump(state) == image
        derived = derive.step(state, entries, with_invented_clocks(entries, judge.step(judged, entries)))
        found.records.extend(_records_of(derived))
        found.letters.extend((r.at_index, decode("DeadLetter", r.value)["reason"]) for r in derived.letters)
        for name, counts in derived.counts.items():
            total = found.counts.setdefault(name, [0] * len(counts))
            found.counts[name] = [a + b for a, b in zip(total, counts, strict=True)]
        found = found._replace(refused=found.refused + derived.refused)
    return found._replace(dump=derive.dump(state))


def with_invented_clocks(entries: Entries, judged: Outputs) -> Outputs:
    """What judge says, but of the sources' clocks."""
    clocks = [invented_clock(index) for index in entries.index.tolist()]
    offset_us = np.array([clock.offset_us or 0 for clock in clocks], np.int64)
    bound_us = np.array([-1 if clock.bound_us is None else clock.bound_us for clock in clocks], np.int64)
    return judged._replace(verdicts=judged.verdicts._replace(offset_us=offset_us, bound_us=bound_us))


def every(size: int) -> Iterator[int]:
    """Batches of one size."""
    return itertools.repeat(size)


def ragged(seed: int) -> Iterator[int]:
    """Batches of 0 to 300 entries."""
    rng = random.Random(seed)
    while True:
        yield rng.choice((0, 1, 2, rng.randrange(300)))


def ledger_of(steps: Sequence[Step]) -> Ledger:
    """The entries of a history."""
    return Ledger([step.row for step in steps])


def check_splits(derive: Derive, ledger: Ledger, *, sizes: Sequence[int] = (1, 7, 500), seed: int = 5) -> Run:
    """The same ledger in one batch and in many: nothing that the fold shows may differ."""
    whole = run(derive, ledger, every(max(1, len(ledger.rows))))
    for cut in (*map(every, sizes), ragged(seed)):
        assert _shown(run(derive, ledger, cut)) == _shown(whole)
    rng = random.Random(seed)
    assert _shown(run(derive, ledger, ragged(seed + 1), reload=lambda: rng.random() < 0.3)) == _shown(whole)
    return whole


def _shown(found: Run) -> Run:
    """Counts without definitions of which nothing was seen: a batch may end at their very entry."""
    return found._replace(counts={name: counts for name, counts in found.counts.items() if any(counts)})


def check_against_oracle(steps: Sequence[Step], size: int) -> Run:
    """Every record and dead letter as the plain twin has them, the values byte for byte as json.dumps writes them."""
    oracle = told(PARTITION, steps, invented_clock)
    found = run(Derive(), ledger_of(steps), every(size))
    plain = [(record["at_index"], key, record) for key, record in oracle.records]
    for i, (ours, theirs) in enumerate(itertools.zip_longest(found.records, plain)):
        assert ours is not None, (i, theirs)
        assert theirs is not None, (i, ours)
        assert ours[:2] == (theirs[0], theirs[1].encode()), i
        assert _without_reason(ours[2]) == json.dumps(theirs[2], ensure_ascii=False, separators=(",", ":")), i
    assert found.letters == oracle.letters
    counted = {name: WindowCounts(*counts)._asdict() for name, counts in _shown(found).counts.items()}
    none = dict.fromkeys(WindowCounts._fields, 0)
    assert counted == {name: none | counts for name, counts in oracle.counts.items() if counts}
    return found


def _without_reason(value: bytes) -> str:
    if b'"suspended":' not in value:
        return value.decode()
    return json.dumps(json.loads(value) | {"suspended": ""}, separators=(",", ":"))


def window(name: str = "w", size_us: int = 10 * S, **fields: Any) -> WindowDefinition:
    """Over all, of counts and sums, unless said otherwise."""
    plain: dict[str, Any] = {"by": By.ALL, "functions": (Function.COUNT, Function.SUM), "percentiles": ()}
    return WindowDefinition(name, size_us, **(plain | fields))


class Told:
    """A ledger written by hand; seconds are of authority, from START_MS on."""

    def __init__(self, *definitions: WindowDefinition) -> None:
        self.rows = [change(definition.name, definition) for definition in definitions]
        self._events = 0

    def event(self, at_s: float, local_s: float | None = None, source: str = "s", value: float | None = 1.0) -> None:
        """An event that was appended at a second, and says that it is of another."""
        self._events += 1
        local_us = START_US + round((at_s if local_s is None else local_s) * S)
        encoded = event_value(source, f"e{self._events}", local_us, "k", value)
        self.rows.append(Row(encoded, START_MS + round(at_s * 1000)))

    def heartbeat(self, proved_s: float) -> None:
        """It proves that all that was appended before a second stands before it."""
        self.rows.append(heartbeat(START_MS + round(proved_s * 1000)))

    def found(self) -> Run:
        """What the fold shows."""
        return check_splits(Derive(), Ledger(self.rows), sizes=(1,))

    def results(self) -> list[tuple[float, int, float | None, bool]]:
        """Start in seconds, count, sum, final of each result."""
        return [
            ((r["window_start_us"] - START_US) / S, r["count"], r["sum"], r["final"])
            for r in self.found().results()
            if "window_start_us" in r
        ]


# ------------------------------------------------------------------------------------------------- against the twin


@pytest.mark.parametrize("seed", range(8))
def test_derive_says_what_its_plain_twin_says(seed: int) -> None:
    """Over invented ledgers with windows that come, change and go, and everything that can be late."""
    check_against_oracle(
        history(random.Random(seed), 1_500 if JIT else 400, sources=(1, 5, 40)[seed % 3], kinds=STEADY), 97
    )


@pytest.mark.parametrize("ledgers", [1, pytest.param(40, marks=pytest.mark.soak)])
def test_other_ledgers_in_each_run_agree_with_the_twin(ledgers: int) -> None:
    """3,000 entries each, interpreted 500."""
    length = 3_000 if JIT else 500
    sys.stdout.write(f"DRIFTLEDGER_TEST_SEED={SEED} repeats this run\n")
    rng = random.Random(SEED)
    for _ in range(ledgers):
        seed, sources, size = rng.getrandbits(32), rng.choice((1, 3, 20, 80)), rng.choice((1, 97, 3_000))
        sys.stdout.write(f"history(Random({seed}), {length}, sources={sources}), {size}\n")
        check_against_oracle(history(random.Random(seed), length, sources=sources, kinds=STEADY), size)


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 4))
@settings(max_examples=30 if JIT else 20)
def test_any_small_ledger_agrees_with_the_twin(rng: random.Random, length: int, sources: int) -> None:
    """Small enough to shrink."""
    steps = history(rng, length, sources=sources, kinds=STEADY)
    check_against_oracle(steps, 1 + length // 3)
    check_splits(Derive(), ledger_of(steps), sizes=(1, 7))


@pytest.mark.parametrize("kind", Kind)
def test_any_event_time_may_follow_any_other(kind: Kind) -> None:
    """Also the last instant there is the first, in one batch and alone."""
    times_us = (INT64_MIN, TIME_MIN_US - 1, TIME_MIN_US, -1, 0, START_US, START_US + 10 * S, INT64_MAX)
    slide: dict[str, Any] = {"slide_us": 3 * S} if kind is Kind.HOPPING else {}
    definition = window(kind=kind, by=By.SOURCE, **slide)
    steps = [Step(change("w", definition), Change(1, "w", definition))]
    for pair in itertools.product(times_us, repeat=2):
        for local_us in pair:
            name, index = f"e{len(steps)}", len(steps) + 1
            fact = Data(index, START_MS, counted=True, local_us=local_us, source="s", kind="k", value=1.0)
            steps.append(Step(Row(event_value("s", name, local_us, "k", 1.0), START_MS), fact))
    check_against_oracle(steps, len(steps))
    check_against_oracle(steps, 1)


@pytest.mark.parametrize("values", [(), VALUES])
def test_many_values_go_to_a_sketch(values: tuple[float | None, ...]) -> None:
    """Percentiles of one window: exact, then of a sketch, then, where they spread over everything, none."""
    length, early_s = (4_000, 5) if JIT else (3_000, 30)
    hour = window(size_us=3_600 * S, percentiles=(1_000, 50_000, 99_900), early_us=early_s * S, lateness_us=0)
    steps = history(random.Random(3), length, windows=[hour], values=values)
    methods = [r["method"] for r in check_against_oracle(steps, 500).results() if "method" in r]
    expected = ["exact", "ddsketch"] + ["none"] * (not values)
    assert [method for method, _ in itertools.groupby(methods)][: len(expected)] == expected
    check_splits(Derive(), ledger_of(steps), sizes=(333,))


def test_keys_without_windows_are_forgotten_unseen() -> None:
    """Three times the keys that the table begins with, each now and then for a second."""
    definitions = [window(late, S, by=By.SOURCE, late=late, lateness_us=0) for late in Late]
    check_against_oracle(history(random.Random(6), MANY, sources=3_000, windows=definitions), 200)


@pytest.mark.parametrize("seed", [11, 12])
def test_batches_make_no_difference(seed: int) -> None:
    """In batches of 1, 7, 500, at random, through dumps: records, letters, counts and final state byte for byte."""
    check_splits(Derive(), ledger_of(history(random.Random(seed), 1_500 if JIT else 300, kinds=STEADY)))


def test_a_state_goes_on_from_its_dump_at_every_entry() -> None:
    """Dumped and loaded before each."""
    ledger = ledger_of(history(random.Random(17), 400 if JIT else 150, kinds=STEADY))
    whole = run(Derive(), ledger, every(400))
    assert run(Derive(), ledger, every(1), reload=lambda: True).records == whole.records


def test_growth_of_the_tables_makes_no_difference() -> None:
    """Keys come and are forgotten by the thousand, windows open by the ten thousand."""
    hops = window("hops", S, kind=Kind.HOPPING, slide_us=50_000, by=By.SOURCE, percentiles=(50_000,), lateness_us=0)
    minutes = window("minutes", 60 * S, by=By.SOURCE, late=Late.UPDATE)
    told_by_hand = Told(hops, minutes)
    rng = random.Random(4)
    for i in range(MANY):
        told_by_hand.event(i / 100, i / 100 - rng.random(), f"source-{i // 3 + rng.randrange(200)}", rng.random())
    check_splits(Derive(), Ledger(told_by_hand.rows), sizes=(500,))


def golden_rows() -> list[Row]:
    """Of every part of a dump some: kept values, a sketch, late events, windows that were updated, a report due."""
    by_hand = Told(
        window("hops", 20 * S, kind=Kind.HOPPING, slide_us=10 * S, by=By.KIND, early_us=3 * S),
        window("many", 3_600 * S, functions=tuple(Function), percentiles=(50_000, 99_900)),
        window("sources", by=By.SOURCE, percentiles=(50_000,), late=Late.UPDATE, lateness_us=0),
    )
    for i in range(300):
        by_hand.event(i / 10, i / 10 - (i * 7 % 11 == 0) * 12, f"source-{i % 3}", None if i % 17 == 0 else i / 8 - 9)
    by_hand.event(31, 500, "ahead", float("nan"))
    return by_hand.rows


def test_the_dump_of_a_ledger_is_always_these_bytes() -> None:
    """Golden: snapshots outlive a release."""
    found = run(Derive(), Ledger(golden_rows()), every(100))
    assert hashlib.sha256(found.dump).hexdigest() == GOLDEN_DUMP
    assert hashlib.sha256(b"".join(value for _, _, value in found.records)).hexdigest() == GOLDEN_RECORDS


GOLDEN_DUMP = "5b7999ed6814afa22818e36d1daadcd218368a6440d75bce27ac77471b8aea18"
GOLDEN_RECORDS = "f77d72d77d4f66059eff158701184e3010bc636c750464c4ff1f606f8802413b"


@pytest.mark.parametrize("spoil", ["magic", "partition", "short", "long", "window"])
def test_a_dump_that_is_not_one_is_refused(spoil: str) -> None:
    """With FoldError."""
    derive = Derive()
    dump = run(derive, ledger_of(history(random.Random(2), 300, kinds=STEADY)), every(100)).dump
    bad = {
        "magic": b"DLX" + dump[3:],
        "partition": dump,
        "short": dump[:-1],
        "long": dump + b"\0",
        "window": dump.replace(b'"size_us":', b'"siye_us":', 1),
    }[spoil]
    with pytest.raises(FoldError):
        derive.load(PARTITION + (spoil == "partition"), bad)


# ------------------------------------------------------------------------------------------- the checks can fail


class _ForgetsWatermarks(Derive):
    """Known-bad twin: the watermark is that of the batch."""

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        for one in state.running.values():
            one.numbers[N_WATERMARK] = NEVER
        return super().step(state, entries, judged)


class _ForgetsLateEvents(Derive):
    """Known-bad twin: late events are counted within a batch only."""

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        for one in state.running.values():
            one.tally = no_tally()
        return super().step(state, entries, judged)


class _ForgetsTheClock(Derive):
    """Known-bad twin: a new definition knows nothing of the heartbeats before its batch."""

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        state.clock[:] = NEVER
        return super().step(state, entries, judged)


@pytest.mark.parametrize("bad", [_ForgetsWatermarks, _ForgetsLateEvents, _ForgetsTheClock])
def test_a_fold_that_depends_on_batches_is_caught(bad: type[Derive]) -> None:
    """The very check that Derive passes refuses each known-bad twin."""
    ledger = ledger_of(history(random.Random(11), 600, kinds=STEADY))
    with pytest.raises(AssertionError):
        check_splits(bad(), ledger)


# -------------------------------------------------------------------------------------------------- interpreted


def fingerprint(seed: int, length: int) -> str:
    """A digest of all that a run shows; the subprocess below prints it."""
    again = random.Random(seed)
    ledger = ledger_of(history(again, length, kinds=STEADY))
    with np.errstate(over="ignore", invalid="ignore"):  # compiled, doubles overflow without a warning
        shown = run(Derive(), ledger, ragged(seed), reload=lambda: again.random() < 0.2)
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def test_interpreted_kernels_do_the_same() -> None:
    """With NUMBA_DISABLE_JIT=1 the same sources run as plain Python."""
    assert interpreted("tests.core.test_derive", "fingerprint(21, 400)") == fingerprint(21, 400).encode()


# ----------------------------------------------------------------------------------------------------- published cases


@pytest.mark.cases
@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ("tumble_10min_sum_price", {}),
        ("hop_size_10min_slide_5min_sum_price", {"kind": Kind.HOPPING, "slide_us": 300 * S}),
    ],
)
@pytest.mark.parametrize("frame", [Frame.LOCAL, Frame.AUTHORITY])
def test_windows_are_those_of_flink(cases: Path, rows: str, fields: dict[str, Any], frame: Frame) -> None:
    """flink_windows.json: sums of the bids of each window; an order of arrival is not given, so in order of time."""
    published = json.loads((cases / "windows" / "flink_windows.json").read_text(encoding="utf-8"))

    def instant_us(minute: str) -> int:
        return parse_us(f"{published['day']}T{minute}:00Z")

    definition = window(size_us=600 * S, frame=frame, **fields)
    ledger_rows = [change("w", definition)]
    for number, (at, price, item) in enumerate(published["bids"]["rows"]):
        encoded = event_value("bids", f"{number}", instant_us(at), item, price)
        ledger_rows.append(Row(encoded, instant_us(at) // 1000))
    ledger_rows.append(heartbeat(instant_us("10:00") // 1000))
    results = run(Derive(), Ledger(ledger_rows), every(3)).results()
    expected = [(instant_us(start), instant_us(end), total) for start, end, total in published[rows]]
    found = [(r["window_start_us"], r["window_end_us"], r["sum"]) for r in results]
    assert found == expected
    assert sum(r["count"] for r in results) == len(published["bids"]["rows"]) * definition.windows_per_event


# ------------------------------------------------------------------------------------------------------- single rules


def _corrected(ledger: Ledger) -> list[dict[str, Any]]:
    """What judge and derive say of a ledger, with the clocks that judge finds."""
    judge, derive = Judge(), Derive()
    judged, derived = judge.new_state(PARTITION), derive.new_state(PARTITION)
    found = []
    for entries in ledger.batches(every(7)):
        found += _records_of(derive.step(derived, entries, judge.step(judged, entries)))
    return [json.loads(value) for _, _, value in found]


def _of_two_clocks(definition: WindowDefinition) -> list[dict[str, Any]]:
    """A source that is 20 s ahead and a right one, an event of each a second for a minute, in windows of ten."""
    by_hand = Told(definition)
    for second in range(60):
        by_hand.event(second + 0.5, second + 20.4, "fast")
        by_hand.event(second + 0.5, second + 0.4, "right")
    by_hand.heartbeat(200)
    return [record for record in _corrected(Ledger(by_hand.rows)) if "late" not in record]


def test_corrected_windows_hold_what_happened_in_them() -> None:
    """Ten events of each of the two sources, once their clocks are known; by local time one of them is elsewhere."""
    records = _of_two_clocks(window(frame=Frame.CORRECTED))
    counts = {(r["window_start_us"] - START_US) // S: (r["count"], r["near_edge"]) for r in records}
    assert [counts[start][0] for start in range(10, 60, 10)] == [20] * 5
    assert counts[0] == (20, counts[0][1])
    assert counts[0][1] >= 10  # of those that are dated by the broker nobody knows
    assert all(near <= 2 for start, (_, near) in counts.items() if start >= 10)
    local = _of_two_clocks(window(max_ahead_us=60 * S))
    assert [r["count"] for r in local] == [10, 10, 20, 20, 20, 20, 10, 10]
    assert not any("near_edge" in record for record in local)


def test_an_event_within_its_bound_of_an_edge_is_near_it() -> None:
    """One half a second inside is not, for its clock is known to some 50 ms; one a few milliseconds inside is."""
    by_hand = Told(window(frame=Frame.CORRECTED))
    for second in range(20):
        by_hand.event(second + 0.5, second + 0.5)
    for at_s in (20.06, 20.5, 25.0, 29.5, 29.999):
        by_hand.event(at_s, at_s)
    by_hand.heartbeat(200)
    last = [r for r in _corrected(Ledger(by_hand.rows)) if r["window_start_us"] == START_US + 20 * S]
    assert [(r["count"], r["near_edge"]) for r in last] == [(5, 2)]


@pytest.mark.parametrize("way", ["exclude", "side"])
def test_a_red_clock_may_be_left_out(way: str) -> None:
    """It is counted by source, and moves no watermark."""
    by_hand = Told(window(frame=Frame.CORRECTED, red=Doubtful(way), unknown=Doubtful.EXCLUDE))
    for second in range(60):
        by_hand.event(second + 0.5, second + 20.4, "fast")
        by_hand.event(second + 0.5, second + 0.4, "right")
    by_hand.heartbeat(200)
    records = _corrected(Ledger(by_hand.rows))
    results = [r for r in records if "count" in r]
    assert [r["count"] for r in results] == [5, 10, 10, 10, 10, 10]  # of the first five seconds no clock is known
    left_out = dict.fromkeys(("fast", "right"), 0)
    for record in records:
        if "doubtful" in record:
            assert (record["late"], record["ahead"]) == (0, 0)
            left_out[record["source"]] += record["doubtful"]
    assert left_out == {"fast": 60, "right": 5}


def test_a_window_closes_at_the_entry_whose_watermark_reaches_its_end() -> None:
    """Five seconds of lateness: the window up to 10 s closes with the event of 15 s, and not a microsecond before."""
    by_hand = Told(window())
    for at_s in (1, 9, 14.999999, 12, 15, 15):
        by_hand.event(max(at_s, 14), at_s)
    found = by_hand.found().results()
    assert [(r["count"], r["final"], r["at_index"], r["revision"]) for r in found] == [(2, True, 6, 1)]
    assert (found[0]["window_start_us"], found[0]["window_end_us"]) == (START_US, START_US + 10 * S)


def test_a_source_a_day_ahead_makes_nobody_late() -> None:
    """Its events are in no window and counted as ahead; each window of the others is whole."""
    by_hand = Told(window(by=By.SOURCE))
    for second in range(60):
        by_hand.event(second, source="honest")
        by_hand.event(second, second + 86_400, source="ahead")
    by_hand.heartbeat(130)
    found = by_hand.found()
    results = [r for r in found.results() if "window_start_us" in r]
    assert [(r["key"], r["count"]) for r in results] == [("honest", 10)] * 6
    counts = [(r["source"], r["late"], r["ahead"]) for r in found.results() if "source" in r]
    assert counts == [("ahead", 0, 10)] * 6


def test_a_slow_source_is_late_alone_and_holds_nobody_back() -> None:
    """Ten seconds behind, where five are waited for: what it says of a window that has closed is late."""
    by_hand = Told(window(by=By.SOURCE, late=Late.SIDE))
    for second in range(60):
        by_hand.event(second, source="honest")
        by_hand.event(second, second - 10, source="slow")
    by_hand.heartbeat(140)
    found = by_hand.found()
    honest = [r for r in found.results() if r.get("key") == "honest"]
    assert [r["count"] for r in honest] == [10] * 6
    slow = [r["count"] for r in found.results() if r.get("key") == "slow"]
    late = sum(r["late"] for r in found.results() if r.get("source") == "slow")
    assert (sum(slow), late) == (30, 30)
    assert {reason for _, reason in found.letters} == {"LATE w"}
    assert len(found.letters) == late


def test_a_backlog_is_not_late() -> None:
    """Events are appended long before they are read; the frontier says nothing until they are."""
    by_hand = Told(window())
    by_hand.heartbeat(0)
    for second in range(600):
        by_hand.event(second)
    by_hand.heartbeat(700)
    assert [(count, final) for _, count, _, final in by_hand.results()] == [(10, True)] * 60


def test_heartbeats_close_the_windows_of_a_silent_partition() -> None:
    """At the frontier less max_behind, also where no event ever comes after."""
    by_hand = Told(window(max_behind_us=60 * S))
    by_hand.event(3)
    by_hand.heartbeat(69.999)
    assert by_hand.results() == []
    by_hand.heartbeat(70)
    assert by_hand.results() == [(0, 1, 1.0, True)]


def test_all_sources_slow_do_not_freeze_a_window() -> None:
    """Every clock an hour behind: windows close by their time, and none is late."""
    by_hand = Told(window())
    for second in range(100):
        by_hand.event(second, second - 3_600)
    assert by_hand.results() == [(-3_600 + 10 * i, 10, 10.0, True) for i in range(9)]


def test_early_results_come_on_the_grid_of_authority_time() -> None:
    """Each time the clock crosses a multiple, of what changed since; then the final one, revisions rising."""
    start_s = -(START_US % (2 * S)) / S
    by_hand = Told(window(early_us=2 * S, lateness_us=0))
    for at_s in (0, 1.9, 2, 3, 6.5, 7, 10):
        by_hand.event(start_s + at_s, at_s)
    by_hand.heartbeat(start_s + 30)
    found = [r for r in by_hand.found().results() if r["window_start_us"] == START_US]
    assert [(r["count"], r["final"], r["revision"]) for r in found] == [
        (2, False, 1),
        (4, False, 2),
        (6, False, 3),
        (6, True, 4),
    ]


def test_late_events_update_a_window_for_a_while() -> None:
    """A new final result each, until update_us after its end; then they are counted and refused."""
    by_hand = Told(window(late=Late.UPDATE, update_us=5 * S, lateness_us=0))
    for at_s, local_s in ((1, 1), (10, 10), (11, 2), (14.999, 14.999), (15, 3), (15, 15), (16, 4)):
        by_hand.event(at_s, local_s)
    found = [r for r in by_hand.found().results() if r.get("window_start_us") == START_US]
    assert [(r["count"], r["revision"], r["final"], r["at_index"]) for r in found] == [
        (1, 1, True, 3),
        (2, 2, True, 4),
        (3, 3, True, 6),
    ]


def test_an_event_late_for_one_of_its_windows_is_in_the_others() -> None:
    """And counts as late once."""
    by_hand = Told(window(kind=Kind.HOPPING, slide_us=5 * S, lateness_us=0, late=Late.SIDE))
    for at_s, local_s in ((1, 1), (12, 12), (13, 8), (40, 40)):
        by_hand.event(at_s, local_s)
    found = by_hand.found()
    assert found.letters == [(4, "LATE w")]
    results = {(r["window_start_us"] - START_US) // S: r["count"] for r in found.results() if "window_start_us" in r}
    assert results == {-5: 1, 0: 1, 5: 2, 10: 1}


def test_what_is_no_finite_value_counts_as_an_event_only() -> None:
    """Null, NaN and infinities; a window without values has no numbers; -0.0 is 0.0."""
    everything = window(functions=tuple(Function), percentiles=(50_000,))
    by_hand = Told(everything)
    for value in (None, float("nan"), float("inf"), -float("inf")):
        by_hand.event(1, value=value)
    for value in (-0.0, None, 3.0, 1.0):
        by_hand.event(11, value=value)
    by_hand.event(30)
    nothing, some = by_hand.found().results()
    assert (nothing["count"], nothing["values"]) == (4, 0)
    assert {nothing[str(f)] for f in Function if f is not Function.COUNT} | {nothing["percentiles"]["50"]} == {None}
    names = ("count", "values", "sum", "min", "max", "mean", "first", "last")
    assert [some[name] for name in names] == [4, 3, 4.0, 0.0, 3.0, 4 / 3, 0.0, 1.0]
    assert str(some["first"]) == "0.0"
    assert some["variance"] == pytest.approx(14 / 9)
    assert (some["percentiles"], some["method"], some["relative_error"]) == ({"50": 1.0}, "exact", 0)


def test_sums_that_doubles_do_not_hold_are_null() -> None:
    """The other numbers are there."""
    by_hand = Told(window(functions=(Function.SUM, Function.MAX)))
    by_hand.event(1, value=1.7e308)
    by_hand.event(2, value=1.7e308)
    by_hand.event(30)
    (found,) = by_hand.found().results()
    assert (found["sum"], found["max"]) == (None, 1.7e308)


def test_duplicates_conflicts_and_poison_are_in_no_window() -> None:
    """They do move authority time."""
    by_hand = Told(window())
    by_hand.event(1)
    again = by_hand.rows[-1]
    conflict = event_value("s", "e1", START_US, "k", 5.0)
    by_hand.rows += [again, Row(conflict, again.authority_ms), Row(b"?", START_MS + 3_000), Row(None)]
    by_hand.event(30)
    assert by_hand.results() == [(0, 1, 1.0, True)]


def test_a_definition_is_in_force_from_its_own_index_on() -> None:
    """One that comes again, changed or not, begins anew and gives up what was open; null withdraws it."""
    definition = window(lateness_us=0)
    by_hand = Told(definition)
    by_hand.event(1)
    by_hand.rows.append(change("w", definition))
    by_hand.event(2)
    by_hand.event(11)
    by_hand.rows.append(change("w", None))
    by_hand.event(30)
    found = by_hand.found().results()
    assert [(r["version"], r["count"], r["at_index"]) for r in found] == [(3, 1, 5)]


def test_a_definition_that_cannot_be_read_changes_nothing() -> None:
    """And is counted."""
    by_hand = Told(window(lateness_us=0))
    by_hand.event(1)
    by_hand.rows += [
        control("Definition", name="window/w", body="{}"),
        control("Definition", name="window/other", body=window().canonical()),
        control("Definition", name="judge", body="{}"),
    ]
    by_hand.event(10)
    assert by_hand.results() == [(0, 1, 1.0, True)]
    assert by_hand.found().refused == 2


def test_definitions_do_not_know_of_each_other() -> None:
    """What one gives alone it gives beside others."""
    rng = random.Random(8)
    definitions = [random_window(rng, name, STEADY) for name in "abcd"]
    steps = history(random.Random(9), 1_000 if JIT else 300, windows=definitions)
    together = run(Derive(), ledger_of(steps), every(100)).records
    for definition in definitions:
        others = {entry_name(other.name).encode() for other in definitions if other is not definition}
        rows = [replace(s.row, value=None) if _names(s.row, others) else s.row for s in steps]
        alone = run(Derive(), Ledger(rows), every(100)).records
        assert alone == [record for record in together if record[1].startswith(f"{definition.name}/".encode())]


def _names(row: Row, names: set[bytes]) -> bool:
    return row.kind is EntryKind.CONTROL and any(name in (row.value or b"") for name in names)


def test_windows_before_1970_begin_at_multiples_too() -> None:
    """Floor, not towards zero."""
    early = window(lateness_us=0, max_behind_us=0, max_ahead_us=0)
    rows = [change("w", early)]
    for number, local_us in enumerate((-15 * S, -10 * S - 1, -10 * S, -1, 0)):
        rows.append(Row(event_value("s", f"{number}", local_us, "k", 1.0), START_MS))
    found = run(Derive(), Ledger(rows), every(2)).results()
    assert [(r["window_start_us"] // S, r["count"]) for r in found] == [(-20, 2), (-10, 2)]


def test_a_definition_that_outgrows_its_bounds_is_suspended_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand windows an event: at one key too many it goes, with a record; till defined again."""
    most = WINDOWS_MAX if JIT else WINDOWS_MAX // 25
    monkeypatch.setattr(window_room, "WINDOWS_MAX", most)
    dense = window("dense", S, kind=Kind.HOPPING, slide_us=1_000, by=By.SOURCE, functions=())
    by_hand = Told(dense, window("plain"))
    fit = most // dense.windows_per_event
    for number in range(fit + 3):
        by_hand.event(1, source=f"s{number}")
    by_hand.rows.append(change("dense", replace(dense, slide_us=500_000)))
    by_hand.event(2)
    by_hand.event(30)
    derive, ledger = Derive(), Ledger(by_hand.rows)
    found = run(derive, ledger, every(400))
    suspended = [r for r in found.results() if "suspended" in r]
    assert [(r["definition"], r["version"], r["at_index"]) for r in suspended] == [("dense", 1, fit + 3)]
    assert [key for _, key, _ in found.records].count(b"dense/suspended") == 1
    counts = [(r["definition"], r["version"], r["count"]) for r in found.results() if "count" in r]
    assert counts == [("dense", fit + 6, 1), ("dense", fit + 6, 1), ("plain", 2, fit + 4)]


def test_the_more_windows_an_event_is_in_the_fewer_events_make_a_step() -> None:
    """So the results of one stay within what may be open at once, and what its events open."""
    derive, judge = Derive(), Judge()
    state = derive.new_state(PARTITION)
    assert derive.rows_max(state) == WINDOWS_MAX
    hops = window("hops", S, kind=Kind.HOPPING, slide_us=1_000, by=By.SOURCE, lateness_us=0)
    by_hand = Told(hops, window("plain"))
    entries = Ledger(by_hand.rows).entries
    derive.step(state, entries, judge.step(judge.new_state(PARTITION), entries))
    assert derive.rows_max(state) == WINDOWS_MAX // 1_001


def test_late_events_are_told_when_their_definition_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed, withdrawn or suspended before the clock's grid: nothing that was counted is lost."""
    most = WINDOWS_MAX if JIT else WINDOWS_MAX // 25
    monkeypatch.setattr(window_room, "WINDOWS_MAX", most)
    names, dense = ("changed", "withdrawn"), window("dense", S, kind=Kind.HOPPING, slide_us=1_000, by=By.SOURCE)
    by_hand = Told(*(window(name, S) for name in names), dense)
    by_hand.event(61)
    by_hand.event(62, 1, source="slow")
    by_hand.rows += [change("changed", window("changed", 2 * S)), change("withdrawn", None)]
    for number in range(most // dense.windows_per_event + 1):
        by_hand.event(62, source=f"s{number}")
    found = [r for r in by_hand.found().results() if "late" in r or "suspended" in r]
    last = 7 + most // dense.windows_per_event
    assert [(r["definition"], r["version"], r.get("source"), r.get("late"), r["at_index"]) for r in found] == [
        ("changed", 1, "slow", 1, 6),
        ("withdrawn", 2, "slow", 1, 7),
        ("dense", 3, "slow", 1, last),
        ("dense", 3, None, None, last),
    ]


def test_a_heartbeat_that_speaks_of_the_future_proves_no_more_than_its_own_instant() -> None:
    """Whoever may write to the control topic cannot close the windows of others."""
    ledger = Ledger(
        [change("w", WindowDefinition("w", 10_000_000)), heartbeat((1 << 63) - 1, START_MS), heartbeat(-(1 << 63))]
    )
    entries = ledger.entries
    judge, derive = Judge(), Derive()
    state = derive.new_state(0)
    derive.step(state, entries, judge.step(judge.new_state(0), entries))
    assert state.clock[1] == START_MS * 1_000


def test_definitions_beyond_the_most_are_passed_over_and_counted() -> None:
    """Whoever may write to the control topic cannot have a partition go through its batches for ever."""
    rows = [change(f"w{number}", WindowDefinition(f"w{number}", 1_000_000)) for number in range(DEFINITIONS_MAX + 1)]
    rows.append(change("w0", WindowDefinition("w0", 2_000_000)))
    ledger = Ledger(rows)
    entries = ledger.entries
    derive = Derive()
    state = derive.new_state(0)
    derived = derive.step(state, entries, Judge().step(Judge().new_state(0), entries))
    assert (derived.refused, len(state.running)) == (1, DEFINITIONS_MAX)
    assert state.running["w0"].definition.size_us == 2_000_000
