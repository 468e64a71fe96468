"""Sliding windows against their plain twin, and against themselves however a ledger is cut and a state stored."""

from __future__ import annotations

import hashlib
import math
import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import EntryKind
from schemas.columns import Fault, allocate_entries, allocate_events
from schemas.memory import JIT, address_of
from streams import sliding_kernel
from streams.derive import Derive, DeriveState
from streams.derive_kernel import NEVER
from streams.derived import Gathered
from streams.fold import FoldError
from streams.judge import Judge
from streams.sliding_run import SlidingRun, no_events
from streams.sliding_table import EVENTS_MAX, HELD, KEY_EVENTS_MAX, LIVE, PENDING, PENDING_MAX, WORK, WORK_MAX
from streams.sources import no_names
from streams.window_run import first_numbers
from streams.windows import By, Function, Kind, Late, WindowDefinition
from tests.core.derive_histories import history
from tests.core.derive_oracle import percentiles_of
from tests.core.event_generator import SEED
from tests.core.interpreted import interpreted
from tests.core.judge_oracle import START_MS, Ledger
from tests.core.test_derive import (
    MANY,
    PARTITION,
    START_US,
    Run,
    S,
    Told,
    check_against_oracle,
    check_splits,
    every,
    ledger_of,
    ragged,
    run,
    window,
)

if TYPE_CHECKING:
    from schemas.columns import Entries
    from streams.derived import Derived
    from streams.judge import Outputs

SLIDING = (Kind.SLIDING,)


def sliding(name: str = "w", size_us: int = 10 * S, **fields: Any) -> WindowDefinition:
    """Over all, of counts and sums, without lateness, unless said otherwise."""
    return window(name, size_us, kind=Kind.SLIDING, **({"lateness_us": 0} | fields))


def results_of(found: Run) -> list[tuple[float, int, float | None, int]]:
    """The second of the event that a window ends with, count, sum and the entry that closed it, of each result."""
    return [
        ((r["window_end_us"] - 1 - START_US) / S, r["count"], r["sum"], r["at_index"])
        for r in found.results()
        if "window_end_us" in r
    ]


# ------------------------------------------------------------------------------------------------- against the twin


@pytest.mark.parametrize("seed", range(8))
def test_sliding_windows_are_those_of_the_plain_twin(seed: int) -> None:
    """Over invented ledgers with definitions that come, change and go, and everything that can be late."""
    check_against_oracle(
        history(random.Random(seed), 800 if JIT else 300, sources=(1, 5, 40)[seed % 3], kinds=SLIDING), 97
    )


@pytest.mark.parametrize("ledgers", [1, pytest.param(40, marks=pytest.mark.soak)])
def test_other_ledgers_in_each_run_agree_with_the_twin(ledgers: int) -> None:
    """Windows of all kinds beside each other."""
    length = 2_000 if JIT else 500
    sys.stdout.write(f"DRIFTLEDGER_TEST_SEED={SEED} repeats this run\n")
    rng = random.Random(SEED)
    for _ in range(ledgers):
        seed, sources, size = rng.getrandbits(32), rng.choice((1, 3, 20, 80)), rng.choice((1, 97, 5_000))
        sys.stdout.write(f"history(Random({seed}), {length}, sources={sources}), {size}\n")
        check_against_oracle(history(random.Random(seed), length, sources=sources), size)


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 4))
@settings(max_examples=40 if JIT else 20)
def test_any_small_ledger_agrees_with_the_twin(rng: random.Random, length: int, sources: int) -> None:
    """Small enough to shrink."""
    steps = history(rng, length, sources=sources, kinds=SLIDING)
    check_against_oracle(steps, 1 + length // 3)
    check_splits(Derive(), ledger_of(steps), sizes=(1, 7))


def test_many_values_go_to_a_sketch() -> None:
    """Percentiles: exact of few values, then of a sketch, then, where they spread over everything, none."""
    percentiles = (1_000, 50_000, 99_900)
    by_hand = Told(sliding(size_us=3_600 * S, percentiles=percentiles))
    rng = random.Random(3)
    values: list[float] = []
    expected = []
    for second, count in enumerate((256, 1, 100, 3_000)):
        wide = second == 3
        more = [rng.choice((-1, 1)) * math.ldexp(1 + rng.random(), rng.randint(-60, 60) * wide) for _ in range(count)]
        for value in more:
            by_hand.event(second, value=value)
        values += more
        expected.append(percentiles_of(values, percentiles))
    by_hand.event(10)
    found = check_splits(Derive(), Ledger(by_hand.rows), sizes=(500,)).results()
    assert [{name: r[name] for name in expected[0]} for r in found] == expected
    assert [r["method"] for r in found] == ["exact", "ddsketch", "ddsketch", "none"]


@pytest.mark.parametrize("seed", [11, 12])
def test_batches_make_no_difference(seed: int) -> None:
    """In batches of 1, 7, 500, at random, through dumps: records, letters, counts and final state byte for byte."""
    check_splits(Derive(), ledger_of(history(random.Random(seed), 1_500 if JIT else 300)))


def test_a_state_goes_on_from_its_dump_at_every_entry() -> None:
    """Dumped and loaded before each."""
    ledger = ledger_of(history(random.Random(17), 400 if JIT else 150))
    whole = run(Derive(), ledger, every(400))
    assert run(Derive(), ledger, every(1), reload=lambda: True).records == whole.records


def test_growth_of_the_tables_makes_no_difference() -> None:
    """Keys come and are forgotten by the thousand, some go before others that came earlier."""
    told_by_hand = Told(
        sliding("short", 300_000, by=By.SOURCE, percentiles=(50_000,)),
        sliding("long", 60 * S, by=By.SOURCE, lateness_us=S),
    )
    rng = random.Random(4)
    for i in range(MANY):
        source = "steady" if i % 50 == 0 else f"source-{i // 3 + rng.randrange(200)}"
        told_by_hand.event(i / 100, i / 100 - rng.random() / 10, source, rng.random())
    check_splits(Derive(), Ledger(told_by_hand.rows), sizes=(500,))


def test_keys_without_events_are_forgotten_unseen() -> None:
    """Ten times the keys that the table begins with, each for a second."""
    windows = [sliding(late, S, by=By.SOURCE, late=late) for late in (Late.DROP, Late.SIDE)]
    check_against_oracle(history(random.Random(6), MANY, sources=3_000, windows=windows), 200)


# ------------------------------------------------------------------------------------------------------ single rules


def test_each_event_time_has_one_result_with_what_came_within_a_size_before_it() -> None:
    """Half-open at the far end: what is a whole size older is out. The next later event closes it."""
    by_hand = Told(sliding())
    for at_s, local_s in ((1, 1), (5, 5), (5, 5), (11, 11), (12, 11.000001), (30, 30)):
        by_hand.event(at_s, local_s, value=int(local_s))
    found = by_hand.found()
    assert results_of(found) == [(1, 1, 1.0, 3), (5, 3, 11.0, 5), (11, 3, 21.0, 6), (11.000001, 4, 32.0, 7)]
    assert {(r["window_end_us"] - r["window_start_us"], r["revision"], r["final"]) for r in found.results()} == {
        (10 * S, 1, True)
    }


def test_an_event_that_comes_later_belongs_to_the_windows_that_wait() -> None:
    """In sequence order: the sum is that of adding up as they came."""
    by_hand = Told(sliding(lateness_us=5 * S, functions=(Function.SUM, Function.FIRST, Function.LAST)))
    for at_s, local_s, value in ((10, 10, 1e16), (11, 8, 1.0), (12, 9, -1e16), (20, 20, 0.0)):
        by_hand.event(at_s, local_s, value=value)
    found = by_hand.found()
    assert results_of(found) == [(8, 1, 1.0, 5), (9, 2, 1.0 - 1e16, 5), (10, 3, 0.0, 5)]
    assert [(r["first"], r["last"]) for r in found.results()] == [(1.0, 1.0), (1.0, -1e16), (1e16, -1e16)]


def test_results_of_one_time_stand_in_the_order_of_their_keys_first_events() -> None:
    """And each key has one, though their events alternate."""
    by_hand = Told(sliding(by=By.SOURCE, lateness_us=S))
    for source in ("b", "a", "b", "a", "c", "b"):
        by_hand.event(1, source=source)
    by_hand.event(3, source="z")
    found = by_hand.found().results()
    assert [(r["key"], r["count"]) for r in found] == [("b", 3), ("a", 2), ("c", 1)]


def test_late_events_are_counted_and_change_nothing() -> None:
    """With side they go to the dead letters; so do those too far ahead."""
    by_hand = Told(sliding(late=Late.SIDE, max_ahead_us=S))
    for at_s, local_s in ((1, 1), (5, 5), (6, 4.999999), (7, 8.000001), (8, 8)):
        by_hand.event(at_s, local_s)
    by_hand.heartbeat(70)
    found = by_hand.found()
    assert found.letters == [(4, "LATE w"), (5, "AHEAD w")]
    assert [(at, count) for at, count, *_ in results_of(found)] == [(1, 1), (5, 2), (8, 3)]
    assert [(r["late"], r["ahead"]) for r in found.results() if "late" in r] == [(1, 1)]
    assert found.counts == {"w": [3, 1, 1, 0, 3]}


def test_what_is_no_finite_value_counts_as_an_event_only() -> None:
    """Null, NaN and infinities; -0.0 is 0.0."""
    by_hand = Told(sliding(functions=tuple(Function), percentiles=(50_000,)))
    for value in (None, float("nan"), float("inf"), -float("inf")):
        by_hand.event(1, value=value)
    by_hand.event(2, value=-0.0)
    by_hand.event(30)
    nothing, some = by_hand.found().results()
    assert (nothing["count"], nothing["values"], nothing["method"]) == (4, 0, "exact")
    assert {nothing[str(f)] for f in Function if f is not Function.COUNT} | {nothing["percentiles"]["50"]} == {None}
    assert (some["count"], some["values"], str(some["min"]), some["percentiles"]) == (5, 1, "0.0", {"50": 0.0})


def test_events_that_no_result_needs_are_freed() -> None:
    """Those a whole size behind the watermark; of a minute at one event a second sixty stay."""
    by_hand = Told(sliding(size_us=60 * S))
    for second in range(600):
        by_hand.event(second)
    derive, judge = Derive(), Judge()
    state, judged = derive.new_state(PARTITION), judge.new_state(PARTITION)
    for entries in Ledger(by_hand.rows).batches(every(50)):
        derive.step(state, entries, judge.step(judged, entries))
    one = state.running["w"]
    assert isinstance(one, SlidingRun)
    assert one.kept.used[[LIVE, PENDING]].tolist() == [60, 1]
    assert one.kept.times.size < 600


def _million(sources: int, events: int, wave: int | None = None) -> tuple[SlidingRun, Gathered]:
    """A run after so many events of one second, laid out without making a value of each.

    Each wave of so many is a millisecond later, and gives the one before it its results; without, none has a result.
    """
    entries, judged_events = allocate_entries(events), allocate_events(events)
    judged = Judge().step(Judge().new_state(PARTITION), allocate_entries(0))
    names = np.frombuffer(b"".join(b"%08d" % number for number in range(sources)), np.uint8)
    entries.kind[:] = EntryKind.DATA
    entries.index[:] = entries.sequence[:] = np.arange(2, events + 2)
    entries.authority_ms[:] = START_MS + (0 if wave is None else np.arange(events) // wave)
    judged_events.fault[:] = Fault.NONE
    judged_events.source_address[:] = address_of(names) + 8 * (np.arange(events) % sources)
    judged_events.source_length[:] = 8
    judged_events.local_us[:] = START_US - np.arange(events) % S if wave is None else entries.authority_ms * 1_000
    judged_events.has_value[:] = 0
    verdicts = judged.verdicts._replace(flags=np.zeros(events, np.uint8))
    definition = sliding(by=By.SOURCE, lateness_us=5 * S if wave is None else 0)
    one = SlidingRun(PARTITION, definition, 1, first_numbers(np.full(2, NEVER, np.int64)))
    gathered = Gathered()
    frontier_us = np.full(events, NEVER, np.int64)
    one.step(entries, judged._replace(events=judged_events, verdicts=verdicts), frontier_us, gathered)
    return one, gathered


def test_a_definition_that_keeps_too_many_events_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very event that is one too many, with a record; all it had is given up."""
    most = EVENTS_MAX if JIT else EVENTS_MAX // 100  # interpreted, a million events take minutes
    monkeypatch.setattr(sliding_kernel, "EVENTS_MAX", most)
    one, gathered = _million(most // 20, most, most // 5)
    assert (one.suspended, one.kept.used[LIVE]) == (None, most)
    assert one.kept.used[PENDING] <= PENDING_MAX
    one, gathered = _million(most // 20, most + 1, most // 5)
    assert one.suspended is not None
    assert one.kept.used[LIVE] == 0
    assert gathered.suspended == ["w"]
    assert gathered.all().aggregates.at_index.tolist()[-1] == most + 2
    derive = Derive()
    image = derive.dump(DeriveState(PARTITION, running={"w": one}))
    assert derive.dump(derive.load(PARTITION, image)) == image


def test_too_many_events_that_one_entry_may_close_suspend_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction would not live as long: what it may cost is bounded, in results and in events that they read."""
    most = PENDING_MAX if JIT else PENDING_MAX // 100
    monkeypatch.setattr(sliding_kernel, "PENDING_MAX", most)
    one, _ = _million(most // 20, most)
    assert (one.suspended, one.kept.used[PENDING]) == (None, most)
    one, _ = _million(most // 20, most + 1)
    assert one.suspended is not None
    each = 5_000 if JIT else 50
    keys = WORK_MAX // each**2 if JIT else 3
    monkeypatch.setattr(sliding_kernel, "WORK_MAX", keys * each**2)
    one, _ = _million(keys, keys * each)
    assert (one.suspended, one.kept.used[WORK]) == (None, keys * each**2)
    one, _ = _million(keys, keys * each + 1)
    assert one.suspended is not None


def test_a_key_that_keeps_too_many_events_suspends_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed events do not count."""
    most = KEY_EVENTS_MAX if JIT else 100  # what is compiled has the number in it
    monkeypatch.setattr(sliding_kernel, "KEY_EVENTS_MAX", most)
    for events, suspended in ((3 * most, False), (3 * most + 1, True)):
        one, _ = _million(3, events)
        assert (one.suspended is not None) == suspended
    by_hand = Told(sliding(size_us=20 * S, by=By.KIND, lateness_us=S))
    for i in range(most + 200):
        by_hand.event(i, i, "source", i)
    derive = Derive()
    kept = derive.load(PARTITION, run(derive, Ledger(by_hand.rows), every(500)).dump).running["w"]
    assert isinstance(kept, SlidingRun)
    assert kept.suspended is None
    assert kept.kept.lists[:, HELD].max() == kept.kept.used[LIVE] < most
    assert kept.kept.used[WORK] == kept.kept.used[LIVE] ** 2


# ------------------------------------------------------------------------------------------------------------ dumps


def test_the_dump_of_a_ledger_is_always_these_bytes() -> None:
    """Golden: snapshots outlive a release."""
    by_hand = Told(sliding("kinds", by=By.KIND, lateness_us=S), sliding("sources", by=By.SOURCE, late=Late.SIDE))
    for i in range(300):
        by_hand.event(i / 10, i / 10 - (i * 7 % 11 == 0) * 0.5, f"source-{i % 7}", None if i % 17 == 0 else i / 8 - 9)
    found = run(Derive(), Ledger(by_hand.rows), every(100))
    assert hashlib.sha256(found.dump).hexdigest() == GOLDEN_DUMP


GOLDEN_DUMP = "c4d31290c55990838aa72699e5a153b96241a909f7fa5afda4076dd4d986bd18"


def _long(number: int) -> bytes:
    return number.to_bytes(8, "little")


@pytest.mark.parametrize("spoil", ["short", "long", "sequence", "time", "value", "key", "name"])
def test_a_dump_that_is_not_one_is_refused(spoil: str) -> None:
    """With FoldError, and nothing outside it is read."""
    by_hand = Told(sliding(by=By.SOURCE, size_us=100 * S))
    for second in range(50):
        by_hand.event(second, source=f"s{second % 3}", value=second / 7)
    derive = Derive()
    dump = run(derive, Ledger(by_hand.rows), every(100)).dump

    lengths = bytes([2, 0, 2, 0, 2, 0])
    found, other = {
        "short": (b"s2", b"s"),
        "long": (b"s2", b"s2\0"),
        "sequence": (_long(20) + _long(21), _long(21) + _long(20)),
        "time": (_long(START_US + 20 * S), _long(START_US - 60 * S)),
        "value": (np.float64(20 / 7).tobytes(), np.float64(np.inf).tobytes()),
        "key": (_long(1)[:4] + lengths, _long(3)[:4] + lengths),
        "name": (b"s0s1s2", b"s0s1s1"),
    }[spoil]
    assert dump.count(found) == 1
    with pytest.raises(FoldError):
        derive.load(PARTITION, dump.replace(found, other))


# ------------------------------------------------------------------------------------------- the checks can fail


class _ForgetsEvents(Derive):
    """Known-bad twin: windows do not reach back into earlier batches."""

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        for one in state.running.values():
            assert isinstance(one, SlidingRun)
            one.kept, one.keys = no_events(), no_names()
        return super().step(state, entries, judged)


def test_a_fold_that_depends_on_batches_is_caught() -> None:
    """The very check that Derive passes refuses the known-bad twin."""
    ledger = ledger_of(history(random.Random(11), 600, kinds=SLIDING))
    with pytest.raises(AssertionError):
        check_splits(_ForgetsEvents(), ledger)


# -------------------------------------------------------------------------------------------------- interpreted


def fingerprint(seed: int, length: int) -> str:
    """A digest of all that a run shows; the subprocess below prints it."""
    again = random.Random(seed)
    ledger = ledger_of(history(again, length, kinds=SLIDING))
    with np.errstate(over="ignore", invalid="ignore"):  # compiled, doubles overflow without a warning
        shown = run(Derive(), ledger, ragged(seed), reload=lambda: again.random() < 0.2)
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def test_interpreted_kernels_do_the_same() -> None:
    """With NUMBA_DISABLE_JIT=1 the same sources run as plain Python."""
    assert interpreted("tests.core.test_sliding", "fingerprint(21, 300)") == fingerprint(21, 300).encode()
