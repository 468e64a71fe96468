"""The results of derive, compared with a recount of the raw events by DuckDB, sums bit for bit; forged ones."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.events import ROW_BYTES, SOURCE_BYTES, VALUE_BYTES, EventFactory
from schemas.errors import BadInputError
from schemas.memory import address_of, bytes_at
from streams import recount_windows, sequence
from streams.aggregates import AggregateRecord, LateCounts, Result, parse
from streams.aggregates_check import duration_ms
from streams.comparison import Comparison, DefinitionCheck, Difference
from streams.control import encode_control
from streams.derive import Derive
from streams.judge import Judge
from streams.records import allocate_records
from streams.recount import Recount
from streams.recount_windows import slices
from streams.windows import DEFINITIONS_MAX, By, Doubtful, Frame, Function, Kind, Late, WindowDefinition, entry_name
from tests.core import derive_oracle
from tests.core.derive_histories import SourceClock, heartbeat, history, told
from tests.core.judge_oracle import START_MS, Ledger
from tests.core.test_derive import Told, every, ledger_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.derived import Derived
    from tests.core.derive_histories import Step

PARTITION = 3
S = 1_000_000
START_US = 1_790_000_000 * S
SOURCES = 40
BATCH = 5_000
#: Where an event has its value: the union's branch, eight bytes of number, then the rest of the event.
BRANCH = SOURCE_BYTES + 53
EVERYTHING = tuple(Function)
WINDOWS = (
    WindowDefinition("source_10s", 10 * S, functions=EVERYTHING, percentiles=(50_000, 99_000, 99_900)),
    WindowDefinition("kind_hops", 30 * S, Kind.HOPPING, 7 * S, by=By.KIND, late=Late.UPDATE, lateness_us=1 * S),
    WindowDefinition("all_minutes", 60 * S, frame=Frame.AUTHORITY, by=By.ALL, early_us=20 * S, functions=EVERYTHING),
    WindowDefinition("right_20s", 20 * S, frame=Frame.CORRECTED, red=Doubtful.EXCLUDE, late=Late.UPDATE),
)


def records_of(derived: Derived) -> list[AggregateRecord]:
    """What a step would write."""
    columns = derived.aggregates
    places = zip(columns.value_address.tolist(), columns.value_length.tolist(), strict=True)
    return [parse(bytes_at(address, length), 0, PARTITION, 0) for address, length in places]


@dataclass
class Run:
    """Judge and derive over entries, and the comparison that took the same entries."""

    comparison: Comparison
    records: list[AggregateRecord]

    def checks(self) -> list[DefinitionCheck]:
        """What is found."""
        self.comparison.take_records(self.records)
        return self.comparison.compare()


def stepped(batches: Iterable[Entries]) -> Iterator[tuple[Entries, list[AggregateRecord]]]:
    """Step the folds through: each batch, and what is said of it."""
    judge, derive = Judge(), Derive()
    judged, derived = judge.new_state(PARTITION), derive.new_state(PARTITION)
    for entries in batches:
        yield entries, records_of(derive.step(derived, entries, judge.step(judged, entries)))


def run_over(comparison: Comparison, batches: Iterable[Entries]) -> Run:
    """Step the folds and the comparison through."""
    run = Run(comparison, [])
    for entries, said in stepped(batches):
        run.records += said
        comparison.take_entries(entries)
    return run


def differences(checks: Iterable[DefinitionCheck]) -> list[str]:
    """As they are told."""
    return [str(found) for check in checks for found in check.differences]


def check_all_compared(checks: list[DefinitionCheck], records: list[AggregateRecord]) -> None:
    """Every record had its twin."""
    assert sum(check.results for check in checks) == len([r for r in records if isinstance(r, Result)])
    late = [r for r in records if isinstance(r, LateCounts)]
    assert sum(check.late for check in checks) == sum(r.late + r.ahead + (r.doubtful or 0) for r in late) > 0


# ------------------------------------------------------------------------------------------------------ many events


class _Producer:
    """Events out of order, from clocks that are off, sent again, and with numbers that are none; then as entries."""

    def __init__(self, events: int) -> None:
        self._factory = EventFactory(SOURCES, 1, 8.0)
        self._random = np.random.default_rng(7)
        self._head, self._offset, self._control = sequence.Head(), 0, 0
        self._events = events

    def batches(self, windows: Iterable[WindowDefinition], us_per_event: int) -> Iterator[Entries]:
        """The definitions, then the events in batches, each behind a heartbeat."""
        for window in windows:
            yield self._controls("Definition", START_US, name=entry_name(window.name), body=window.canonical())
        for begin in range(0, self._events, BATCH):
            now_us = START_US + begin * us_per_event
            proved_ms = now_us // 1_000 - 400
            yield self._controls(
                "Heartbeat", now_us, predecessor_appended_ms=proved_ms, input_end_offset=1, worker_us=1
            )
            yield self._data(min(BATCH, self._events - begin), now_us, us_per_event)

    def _controls(self, kind: str, at_us: int, **body: Any) -> Entries:
        value = np.frombuffer(encode_control(kind, body, "test", "test"), np.uint8)
        records = allocate_records(1)
        records.offset[:] = self._control
        records.timestamp_ms[:], records.timestamp_type[:] = at_us // 1_000, 2
        records.value_address[:], records.value_length[:], records.key_length[:] = address_of(value), value.size, -1
        self._control += 1
        self._head, sequenced = sequence.advance(self._head, records, sequence.CONTROL, 1 << 20)
        self._alive: tuple[Any, ...] = (value, records, sequenced)
        return sequenced.entries

    def _data(self, count: int, now_us: int, us_per_event: int) -> Entries:
        step = 50
        rows = np.concatenate(
            [
                self._factory.rows(0, min(step, count - at), now_us + at * us_per_event - self._jitter_us())
                for at in range(0, count, step)
            ]
        )
        lengths = self._spoil(rows)
        again = self._random.random(count) < 0.01
        again[:200] = False
        source = np.where(again, np.arange(count) - self._random.integers(1, 200, count), np.arange(count))
        source = np.where(again[source], np.arange(count), source)  # of a repetition none
        rows, lengths = rows[source], lengths[source]
        records = allocate_records(count)
        records.offset[:] = self._offset + np.arange(count)
        records.timestamp_ms[:] = (now_us + np.arange(count) * us_per_event) // 1_000 + 3
        records.timestamp_type[:] = 2
        records.key_address[:] = address_of(rows) + np.arange(count) * ROW_BYTES
        records.key_length[:] = SOURCE_BYTES
        records.value_address[:] = records.key_address + SOURCE_BYTES
        records.value_length[:] = lengths
        self._offset += count
        self._head, sequenced = sequence.advance(self._head, records, sequence.DATA, 1 << 20)
        self._alive = (rows, records, sequenced)
        return sequenced.entries

    def _jitter_us(self) -> int:
        return int(self._random.choice((0, 0, 0, 350_000, 2_000_000, 7_000_000, -900_000)))

    def _spoil(self, rows: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Numbers of every size and sign, NaN, -0.0, infinity, none at all; returns the length of each value."""
        count = len(rows)
        numbers = self._random.standard_normal(count) * 10.0 ** self._random.integers(-9, 12, count)
        for number, share in ((np.nan, 0.01), (-0.0, 0.01), (0.0, 0.01), (np.inf, 0.002)):
            numbers[self._random.random(count) < share] = number
        rows[:, BRANCH + 1 : BRANCH + 9] = numbers.astype("<f8").view(np.uint8).reshape(count, 8)
        null = self._random.random(count) < 0.02
        rows[null, BRANCH] = 0
        rows[null, BRANCH + 1 : ROW_BYTES - 8] = rows[null, BRANCH + 9 :]
        return np.where(null, VALUE_BYTES - 8, VALUE_BYTES)


@pytest.mark.parametrize("events", [100_000, pytest.param(3_000_000, marks=pytest.mark.soak)])
def test_every_window_of_many_events_equals_the_recount(events: int) -> None:
    """Ten minutes of events out of order: sums, means and variances to the last bit."""
    with Comparison(PARTITION) as comparison:
        run = run_over(comparison, _Producer(events).batches(WINDOWS, 600 * S // events))
        checks = run.checks()
        assert comparison.recount.events == events
        assert len(comparison.recount.sql.execute("FROM repeats").fetchall()) > events // 200
    assert differences(checks) == []
    by_name = {check.definition: check for check in checks}
    assert list(by_name) == sorted(window.name for window in WINDOWS)
    finals = {(r.window) for r in run.records if isinstance(r, Result) and r.final}
    assert sum(check.windows for check in checks) == len(finals) > 2_000
    assert sum(check.sums for check in checks) > 2_000
    check_all_compared(checks, run.records)
    assert by_name["source_10s"].events > 0.8 * events
    assert by_name["kind_hops"].events > 3 * events
    methods = {r.method for r in run.records if isinstance(r, Result)}
    assert methods >= {"exact", "ddsketch"}
    late = [r for r in run.records if not isinstance(r, Result)]
    assert {r.definition for r in late} >= {"source_10s", "kind_hops"}
    updated = [r for r in run.records if isinstance(r, Result) and r.final and r.revision > 1]
    assert {r.definition for r in updated} >= {"kind_hops"}


@dataclass(frozen=True)
class Small:
    """A ledger of a few events, and what derive says of it: for tests that compare it with something else."""

    entries: list[Entries]
    records: list[AggregateRecord]

    def compared(self, records: Iterable[AggregateRecord]) -> list[DefinitionCheck]:
        """Its entries with records."""
        with Comparison(PARTITION) as comparison:
            for entries in self.entries:
                comparison.take_entries(entries)
            return Run(comparison, list(records)).checks()


@pytest.fixture(scope="module")
def small() -> Small:
    """Made once: nobody changes it."""
    steps = list(stepped(_copied(_Producer(10_000).batches(WINDOWS, 20_000))))
    return Small([entries for entries, _ in steps], [record for _, said in steps for record in said])


# -------------------------------------------------------------------------------------------------- strange events


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(s, marks=pytest.mark.soak) for s in range(100, 150))])
def test_invented_ledgers_equal_the_recount(seed: int) -> None:
    """Definitions that come, change and go, clocks that step, times at the ends of int64, poison, sums too large."""
    steps = history(random.Random(seed), 1_200, sources=(1, 5, 40)[seed % 3])
    with Comparison(PARTITION) as comparison:
        run = run_over(comparison, ledger_of(steps).batches(every(97)))
        checks = run.checks()
    assert differences(checks) == []
    assert sum(check.windows for check in checks) > 100
    check_all_compared(checks, run.records)


def judged_clocks(steps: Sequence[Step]) -> Callable[[int], SourceClock]:
    """What judge knows of its source's clock after each entry, by index."""
    judge, found = Judge(), dict[int, SourceClock]()
    state = judge.new_state(PARTITION)
    for entries in ledger_of(steps).batches(every(500)):
        verdicts = judge.step(state, entries).verdicts
        known = zip(verdicts.offset_us.tolist(), verdicts.bound_us.tolist(), strict=True)
        clocks = [SourceClock(*clock) if clock[1] >= 0 else SourceClock(None, None) for clock in known]
        found.update(zip(entries.index.tolist(), clocks, strict=True))
    return found.__getitem__


def test_a_suspended_definition_says_what_it_says_before_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry at which it is suspended still closes windows; told by the plain twin, whose bounds are narrow."""
    monkeypatch.setattr(derive_oracle, "WINDOWS_MAX", 15)
    steps = history(random.Random(12), 1_500, sources=12)
    oracle = told(PARTITION, steps, judged_clocks(steps))
    records = [parse(json.dumps(r).encode(), 0, PARTITION, 0) for _, r in oracle.records]
    with Comparison(PARTITION) as comparison:
        for entries in ledger_of(steps).batches(every(500)):
            comparison.take_entries(entries)
        comparison.take_records(records)
        suspended = [one for one in comparison.recount.in_force() if one.suspended]
        checks = comparison.compare()
    assert len(suspended) > 1
    assert differences(checks) == []
    assert sum(check.windows for check in checks) > 100


def test_what_derive_passes_over_the_recount_passes_over() -> None:
    """One definition too many, and heartbeats that name instants no clock ever showed."""
    by_hand = Told(*(WindowDefinition(f"w{number}", 10 * S) for number in range(DEFINITIONS_MAX + 1)))
    by_hand.rows += [heartbeat(far_ms, START_MS) for far_ms in (-(1 << 63), (1 << 63) - 1)]
    by_hand.event(1)
    by_hand.heartbeat(90)
    with Comparison(PARTITION) as comparison:
        checks = run_over(comparison, Ledger(by_hand.rows).batches(every(100))).checks()
    assert differences(checks) == []
    assert sum(check.windows for check in checks) == DEFINITIONS_MAX


def test_slices_make_no_difference(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of starts, and of keys where one start has more than a slice holds."""
    monkeypatch.setattr(recount_windows, "SLICE_EVENTS", 500)
    with Comparison(PARTITION) as comparison:
        for entries in small.entries:
            comparison.take_entries(entries)
        checks = Run(comparison, small.records).checks()
        one = next(one for one in comparison.recount.in_force() if one.definition.name == "kind_hops")
        comparison.recount.mark(one)
        cut = list(slices(comparison.recount.sql, one.definition))
    assert len(cut) > 50
    assert max(part.parts for part in cut) > 2
    assert differences(checks) == []
    finals = {r.window for r in small.records if isinstance(r, Result) and r.final}
    assert sum(check.windows for check in checks) == len(finals)


def test_a_repeated_event_counts_again_behind_the_horizon() -> None:
    """The first stands; a repetition refreshes nothing; a shorter horizon forgets at once, a longer one not back."""
    rows = [(1, 5), (2, 5), (6, 5), (7, 5), (8, 1), (9, 1), (10, 5), (11, 5)]
    with Recount() as counted:
        for i, (s, horizon) in enumerate(rows, 1):
            counted.sql.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, NULL, true, 's', 'e', 'k', 0, 1.0, NULL, NULL)",
                [i, s, horizon, i * 1_000],
            )
        counted.settle()
        assert counted.sql.execute("FROM repeats ORDER BY s").fetchall() == [(2,), (6,), (8,), (10,), (11,)]


# ------------------------------------------------------------------------------------------------- the check can fail


FORGERIES: dict[str, Callable[[Any], Result]] = {
    "sum": lambda r: replace(r, functions=r.functions | {"sum": np.nextafter(r.functions["sum"], np.inf)}),
    "mean": lambda r: replace(r, functions=r.functions | {"mean": np.nextafter(r.functions["mean"], np.inf)}),
    "variance": lambda r: replace(r, functions=r.functions | {"variance": r.functions["variance"] * (1 + 2**-52)}),
    "min": lambda r: replace(r, functions=r.functions | {"min": None}),
    "max": lambda r: replace(r, functions={k: v for k, v in r.functions.items() if k != "max"}),
    "first": lambda r: replace(r, functions=r.functions | {"first": r.functions["last"]}),
    "count": lambda r: replace(r, count=r.count + 1),
    "values": lambda r: replace(r, values=r.values - 1),
    "end_us": lambda r: replace(r, window_end_us=r.window_end_us + 1),
    "revision": lambda r: replace(r, revision=r.revision + 1),
    "at_index": lambda r: replace(r, at_index=r.at_index - 1),
    "frame": lambda r: replace(r, frame="authority"),
    "method": lambda r: replace(r, method="none"),
    "near_edge": lambda r: replace(r, near_edge=0),
    "percentile 99.9": lambda r: replace(r, percentiles=r.percentiles | {"99.9": r.percentiles["50"]}),
    "version": lambda r: replace(r, version=r.version + 1),
    "result": lambda r: replace(r, key="nobody"),
}


@dataclass(frozen=True)
class Forged:
    """The results that were forged, by forgery, and what is found."""

    victims: dict[str, Result]
    found: list[Difference]

    def of(self, name: str) -> list[Difference]:
        """What is found of the window of a victim."""
        victim = self.victims[name]
        return [d for d in self.found if (d.key, d.window_start_us) == (victim.key, victim.window_start_us)]


@pytest.fixture(scope="module")
def forged(small: Small) -> Forged:
    """Each forgery of a window of its own, in one comparison."""
    victims = [
        (i, r)
        for i, r in enumerate(small.records)
        if isinstance(r, Result) and r.definition == "source_10s" and r.values > 9 and r.revision == 1
    ]
    records = list(small.records)
    chosen: dict[str, Result] = {}
    for (i, victim), (name, forge) in zip(victims, FORGERIES.items(), strict=False):
        chosen[name] = victim
        records[i] = forge(victim)
    return Forged(chosen, [d for check in small.compared(records) for d in check.differences])


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_result_is_found(name: str, forged: Forged) -> None:
    """Whatever field is wrong, by the least that it can be; another revision is another result."""
    assert name.replace("revision", "result") in {d.field for d in forged.of(name)}


def test_only_forged_results_are_found(small: Small, forged: Forged) -> None:
    """No window beside those differs: without a forgery, none at all."""
    windows = {(d.definition, d.key, d.window_start_us) for d in forged.found}
    nobody = ("source_10s", "nobody", forged.victims["result"].window_start_us)
    assert windows == {(r.definition, r.key, r.window_start_us) for r in forged.victims.values()} | {nobody}
    assert differences(small.compared(small.records)) == []


@pytest.mark.parametrize(
    "wanted",
    [
        lambda r: r.definition == "all_minutes" and r.final,
        lambda r: r.definition == "all_minutes" and not r.final,
        lambda r: r.definition == "kind_hops" and r.final and r.revision == 2,
    ],
)
def test_a_missing_result_is_found(small: Small, wanted: Callable[[Result], bool]) -> None:
    """One that is final, or early, or was revised since."""
    missing = next(r for r in small.records if isinstance(r, Result) and wanted(r))
    checks = small.compared(r for r in small.records if r is not missing)
    [found] = [d for check in checks for d in check.differences]
    assert (found.field, found.found) == ("result", None)
    assert found.expected == {
        name: getattr(missing, name) for name in ("count", "values", "revision", "final", "at_index")
    }


def test_a_result_that_stands_too_early_is_found(small: Small) -> None:
    """A window is not final because a record says so, nor open."""
    results = [r for r in small.records if isinstance(r, Result) and r.definition == "all_minutes"]
    chosen = [next(r for r in results if r.final is final) for final in (False, True)]
    checks = small.compared(replace(r, final=not r.final) if r in chosen else r for r in small.records)
    found = [d for check in checks for d in check.differences]
    assert [(d.field, d.expected, d.found) for d in found] == [("final", False, True), ("final", True, False)]


@pytest.mark.parametrize("final", [False, True])
def test_a_result_that_was_revised_since_is_compared_too(small: Small, *, final: bool) -> None:
    """An early one, and one before a late event came, to the last bit."""
    last = {r.window: r for r in small.records if isinstance(r, Result)}
    victim = next(
        r
        for r in small.records
        if isinstance(r, Result) and r.final is final and r.count > 9 and r is not last[r.window]
    )
    forged = FORGERIES["sum"](victim)
    checks = small.compared(forged if r is victim else r for r in small.records)
    assert [(d.field, d.found) for check in checks for d in check.differences] == [("sum", forged.functions["sum"])]


def test_where_windows_are_revised_very_often_only_the_last_is_told_in_full(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the others the count still must be right."""
    monkeypatch.setattr(recount_windows, "REVISED_VALUES", 100)
    last = {r.window: r for r in small.records if isinstance(r, Result)}
    revised = [r for r in small.records if isinstance(r, Result) and r.values > 100 and r is not last[r.window]]
    one, other = revised[0], revised[-1]
    forged = {
        id(one): replace(one, functions=one.functions | {"sum": 0.5}),
        id(other): replace(other, count=other.count + 1),
        id(last[one.window]): replace(last[one.window], functions=last[one.window].functions | {"sum": 0.25}),
    }
    found = [d for check in small.compared(forged.get(id(r), r) for r in small.records) for d in check.differences]
    assert sorted((d.field, d.found) for d in found) == [("count", other.count + 1), ("sum", 0.25)]


@pytest.mark.parametrize("by", [-1, 1, None])
def test_a_count_of_late_events_that_is_wrong_is_found(small: Small, by: int | None) -> None:
    """By one, or not there."""
    victim = next(r for r in small.records if isinstance(r, LateCounts) and r.late)
    forged = [] if by is None else [replace(victim, late=victim.late + by)]
    checks = small.compared([*(r for r in small.records if r is not victim), *forged])
    found = [d for check in checks for d in check.differences]
    assert {(d.key, d.window_start_us) for d in found} == {(victim.source, None)}
    expected = ("late", victim.late, None if by is None else victim.late + by)
    assert (found[0].field.split()[0], found[0].expected, found[0].found) == expected
    assert f"source {victim.source!r}: late at index" in str(found[0])


def test_a_result_that_stands_twice_is_found(small: Small) -> None:
    """The same bytes, of a window with late events."""
    twice = next(r for r in small.records if isinstance(r, Result) and r.final and r.revision > 1)
    found = [d for check in small.compared([*small.records, twice]) for d in check.differences]
    assert [(d.field, d.found - d.expected) for d in found] == [("results", 1)]


@pytest.mark.parametrize(("sketches", "found"), [(20, set()), (2_048, {"method"})])
def test_a_window_may_have_no_percentiles_where_sketches_ran_out(
    sketches: int, found: set[str], small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the definition has more windows that need one than it may have sketches."""
    monkeypatch.setattr("streams.comparison.SKETCHES", sketches)
    sketched = {r.window: r for r in small.records if isinstance(r, Result) and r.final and r.method == "ddsketch"}
    assert 20 < len(sketched) < 2_048
    victim = next(r for r in sketched.values() if r.values <= 1_792)
    without = replace(victim, method="none", percentiles=dict.fromkeys(victim.percentiles))
    checks = small.compared(without if r is victim else r for r in small.records)
    assert {d.field for check in checks for d in check.differences} == found


def test_what_the_topic_no_longer_keeps_is_not_missed(small: Small) -> None:
    """Results of entries up to the first that is still there."""
    with Comparison(PARTITION) as comparison:
        for entries in small.entries:
            comparison.take_entries(entries)
        oldest = small.records[len(small.records) // 2].at_index
        comparison.take_records([r for r in small.records if r.at_index > oldest], oldest)
        checks = comparison.compare()
    assert differences(checks) == []
    assert sum(check.gone for check in checks) > 10
    assert sum(check.windows for check in checks) > 10


@pytest.mark.parametrize(("first_sequence", "taken_from"), [(10_001, 5), (5_001, 6)])
def test_a_range_compares_windows_that_begin_in_it(first_sequence: int, taken_from: int) -> None:
    """Entries are taken from before it on, or from its first event on, with the definitions in force there."""
    entries = list(_copied(_Producer(30_000).batches(WINDOWS, 20_000)))
    definitions = dict(zip((1, 2, 3, 4), WINDOWS, strict=True))
    records = [record for _, said in stepped(entries) for record in said]
    with Comparison(PARTITION, first_sequence=first_sequence) as part:
        for version, definition in definitions.items():
            part.recount.define(version, definition)
        for batch in entries[taken_from:]:
            part.take_entries(batch)
        part.take_records(r for r in records if r.at_index >= int(entries[taken_from].index[0]))
        checks = part.compare()
    assert differences(checks) == []
    assert 0 < sum(check.windows for check in checks) < len([r for r in records if isinstance(r, Result)])
    assert [check.definition for check in checks if check.passed_over] == ["right_20s"]


def _copied(batches: Iterable[Entries]) -> Iterator[Entries]:
    """Entries whose memory is kept."""
    for entries in batches:
        values = [bytes_at(int(a), int(n)) for a, n in zip(entries.value_address, entries.value_length, strict=True)]
        memory = np.frombuffer(b"".join(values), np.uint8)
        _KEPT.append(memory)
        lengths = np.array([len(value) for value in values])
        columns: list[Any] = [column.copy() for column in entries]
        copied = type(entries)(*columns)
        copied.value_address[:] = address_of(memory) + np.cumsum(lengths) - lengths
        yield copied


_KEPT: list[NDArray[np.uint8]] = []


def test_a_definition_that_has_ended_tells_of_no_late_events() -> None:
    """Nor does one count cover for another."""
    with Comparison(PARTITION) as comparison:
        run = run_over(comparison, ledger_of(history(random.Random(0), 1_200, sources=1)).batches(every(97)))
        last_index = comparison.recount.last_index
        one = next(one for one in comparison.recount.in_force() if one.until < last_index)
        name, version = one.definition.name, one.version
        stray = LateCounts(0, PARTITION, 0, name, version, last_index, source="s", late=2, ahead=0)
        checks = Run(comparison, [*run.records, stray]).checks()
    told = f"window {name} version {version}, source 's': late after its end is 2, recomputed None"
    assert len(differences(checks)) == 2
    assert told in differences(checks)[0]


# --------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    "spoil",
    [{"count": "1"}, {"final": 1}, {"partition": 4}, {"sum": "x"}, {"key": 5}, {"version": None}, {"percentiles": 3}],
)
def test_what_is_no_record_of_a_window_is_refused(spoil: dict[str, Any]) -> None:
    """Only lanes write to the topic; whoever else does is not believed."""
    fields = {
        "definition": "w", "version": 1, "partition": PARTITION, "frame": "local", "key": None, "window_start_us": 0,
        "window_end_us": 1, "revision": 1, "final": True, "at_index": 2, "count": 1, "values": 1, "sum": 1.5,
    }  # fmt: skip
    assert isinstance(parse(json.dumps(fields).encode(), 0, PARTITION, 0), Result)
    with pytest.raises(BadInputError, match="Only lanes"):
        parse(json.dumps(fields | spoil).encode(), 0, PARTITION, 0)
    with pytest.raises(BadInputError):
        parse(b"[]", 0, PARTITION, 0)


def test_lengths_of_time_are_read() -> None:
    """And what is none is refused."""
    assert [duration_ms(text) for text in ("90s", "30m", "1h", "7d", "5ms")] == [
        90_000, 1_800_000, 3_600_000, 604_800_000, 5,
    ]  # fmt: skip
    for text in ("", "1", "0s", "-1h", "1w", "1.5h"):
        with pytest.raises(BadInputError):
            duration_ms(text)
