"""The benchmark's own arithmetic, its events, its check of a ledger, and what it prints."""

from __future__ import annotations

import hashlib
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest
from rich.console import Console

from benchmarks import run
from benchmarks.__main__ import main
from benchmarks.asked import AskedFigures
from benchmarks.bars import bars
from benchmarks.cases import SOURCES_MAX, Asked, Case, Name, Paced, Preloaded, Subject, plan
from benchmarks.events import ROW_BYTES, SOURCE_BYTES, VALUE_BYTES, EventFactory
from benchmarks.figures import BUCKET_US, Arrivals, Latencies, NoFigureError, rates, slope
from benchmarks.ledger_check import CheckFailedError, PartitionCheck
from benchmarks.paced import PacedFigures
from benchmarks.preloaded import PreloadedFigures
from benchmarks.report import Measured, line, ratios, tables
from schemas.codec import decode
from schemas.errors import BadInputError, UnreachableError
from schemas.memory import address_of
from schemas.topics import partition_for
from streams import sequence
from streams.records import allocate_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from schemas.columns import Entries

NOW_US = 1_780_000_000_123_456
PARTITIONS = 4


def figures(per_s: float) -> PreloadedFigures:
    """Of a preloaded case at that rate."""
    return PreloadedFigures(
        events=3_000_000,
        per_s=per_s,
        first_half_per_s=per_s,
        second_half_per_s=per_s,
        entries_per_transaction=4_990.5,
        client_us=2.125,
        broker_us=None,
        others_percent=3.0,
        rss_peak_mb=300.0,
        green_percent=None,
        load_s=9.0,
    )


def case(name: Name, batch_events: int = 5_000) -> Preloaded:
    """A preloaded case of that name."""
    return Preloaded(str(name), Subject.WORKER, judged=True, sources=1_000, batch_events=batch_events, events=3_000_000)


PACED_FIGURES = PacedFigures(
    measured=1_500_000,
    rate=50_000.0,
    p50_ms=15.0,
    p95_ms=25.0,
    p99_ms=42.0,
    p99_9_ms=64.0,
    backlog_mean=800.0,
    backlog_slope_per_s=0.5,
    lag_flat=True,
    entries_per_transaction=95.0,
    client_us=9.0,
    broker_us=15.0,
    others_percent=20.0,
    rss_peak_mb=310.0,
    rss_slope_mb_per_min=None,
)
PACED = Measured(Paced("paced", 50_000, 30, 60), PACED_FIGURES)


# -------------------------------------------------------------------------------------------------------------- events


def test_events_are_valid_avro_of_a_fixed_length() -> None:
    """What is loaded is what a producer of ours would send: the general decoder reads every field back."""
    rows = EventFactory(1_000, PARTITIONS, off_percent=0).rows(2, 50, NOW_US)
    assert rows.shape == (50, ROW_BYTES)
    for row in rows:
        key, value = row[:SOURCE_BYTES].tobytes(), row[SOURCE_BYTES:].tobytes()
        assert len(value) == VALUE_BYTES
        event = decode("Event", value)
        assert event["source"].encode() == key
        assert event["local_timestamp"] == NOW_US
        assert event["kind"] == "temp"
        assert 0 <= event["value"] < 100
        assert len(event["payload"]) == 14
        assert (event["hlc"], event["causes"], event["exchange"]) == (None, [], None)


def test_no_event_id_comes_twice_in_a_run() -> None:
    """A duplicate would be left out of the judge's work and so make it look cheaper."""
    factory = EventFactory(100, PARTITIONS, off_percent=0)
    rows = np.concatenate([factory.rows(partition, 500, NOW_US) for partition in (0, 1, 0)])
    ids = [decode("Event", row[SOURCE_BYTES:].tobytes())["event_id"] for row in rows]
    assert len(set(ids)) == len(ids) == 1_500


def test_every_source_is_used_and_keeps_to_the_partition_of_its_key() -> None:
    """As with the producer helper; all names are there."""
    factory = EventFactory(40, PARTITIONS, off_percent=0)
    seen = set()
    for partition in range(PARTITIONS):
        keys = {row[:SOURCE_BYTES].tobytes() for row in factory.rows(partition, 400, NOW_US)}
        assert {partition_for(key, PARTITIONS) for key in keys} == {partition}
        seen |= keys
    assert len(seen) == 40


def test_the_wanted_share_of_clocks_is_off_by_more_than_green_allows() -> None:
    """Half of them YELLOW, half RED, in both directions."""
    rows = EventFactory(100, PARTITIONS, off_percent=5).rows(0, 20_000, NOW_US)
    local_us = np.array([decode("Event", row[SOURCE_BYTES:].tobytes())["local_timestamp"] for row in rows[:4_000]])
    away_s = (local_us - NOW_US) / 1e6
    assert np.count_nonzero(away_s) == pytest.approx(200, abs=60)
    assert np.abs(away_s[away_s != 0]).min() >= 1.5
    assert away_s.max() > 5
    assert away_s.min() < -5


# ------------------------------------------------------------------------------------------------------------- figures


def test_a_rate_counts_from_the_first_append_to_the_last() -> None:
    """The batch that opens the window took time nobody saw; order does not matter."""
    found = rates([1_300, 1_000, 1_100, 1_200, 1_100], [100, 999, 60, 100, 40])
    assert (found.first_ms, found.last_ms) == (1_000, 1_300)
    assert found.per_s == pytest.approx(300 / 0.3)


def test_the_halves_of_a_rate_show_a_warm_up() -> None:
    """Half of the events in three times the time."""
    found = rates([0, 300, 400], [1, 100, 100])
    assert found.first_half_per_s == pytest.approx(100 / 0.3)
    assert found.second_half_per_s == pytest.approx(100 / 0.1)


def test_there_is_no_rate_of_a_single_moment() -> None:
    """Better none than an infinite one."""
    with pytest.raises(NoFigureError, match="more events"):
        rates([5, 5, 6], [1, 1, 1])


def test_percentiles_are_those_of_the_sorted_values_to_a_bucket() -> None:
    """Added in pieces, against the whole array sorted."""
    values = np.random.default_rng(7).lognormal(9.5, 1, 40_000).astype(np.int64)
    latencies = Latencies()
    for piece in np.array_split(values, 17):
        latencies.add(piece)
    assert latencies.count == values.size
    for percent in (50.0, 95.0, 99.0, 99.9, 100.0):
        exact_us = np.sort(values)[int(np.ceil(values.size * percent / 100)) - 1]
        assert 0 < latencies.percentile_ms(percent) * 1_000 - exact_us <= BUCKET_US


def test_a_latency_below_zero_or_beyond_the_scale_counts_at_its_ends() -> None:
    """A stepped clock breaks nothing, and an hour is not forgotten."""
    latencies = Latencies()
    latencies.add(np.array([-5_000_000, 3_600_000_000]))
    assert latencies.percentile_ms(50) == 0.1
    assert latencies.percentile_ms(100) > 60_000


def test_no_latency_makes_no_percentile() -> None:
    """An empty histogram has none."""
    with pytest.raises(NoFigureError):
        Latencies().percentile_ms(50)


def arrivals(rate: int, seconds: int, delay_us: list[int]) -> Arrivals:
    """Events at a rate, those of each tenth of a second seen together after its delay."""
    found = Arrivals(NOW_US)
    for tenth in range(seconds * 10):
        begin_us = NOW_US + tenth * 100_000
        produced = begin_us + np.arange(rate // 10) * (1_000_000 // rate)
        found.add(produced, np.full_like(produced, begin_us + 99_999 + delay_us[tenth % len(delay_us)]))
    return found


def test_a_steady_delay_is_a_flat_backlog_of_its_size() -> None:
    """Half a second at a thousand a second is five hundred waiting."""
    backlog = arrivals(1_000, 20, [500_000]).backlog(2, 18)
    assert backlog.mean == pytest.approx(500, abs=1)
    assert backlog.slope_per_s == pytest.approx(0, abs=0.1)
    assert backlog.flat


def test_a_delay_that_grows_is_no_flat_backlog() -> None:
    """One event in ten is left behind: after the run that is more than a tenth of a second's worth."""
    backlog = arrivals(1_000, 20, [10_000 * tenth for tenth in range(200)]).backlog(2, 18)
    assert backlog.slope_per_s > 50
    assert not backlog.flat


def test_nothing_measured_makes_no_backlog() -> None:
    """An empty window is refused."""
    with pytest.raises(NoFigureError):
        arrivals(1_000, 2, [0]).backlog(5, 6)


def test_a_slope_is_that_of_the_least_squares_line() -> None:
    """Against numpy's."""
    x = np.array([1_780_000_000.0, 1_780_000_060.0, 1_780_000_180.0])
    y = np.array([300.0, 301.0, 299.0])
    assert slope(x, y) == pytest.approx(np.polyfit(x - x[0], y, 1)[0])
    with pytest.raises(NoFigureError):
        slope([1], [1])


# --------------------------------------------------------------------------------------------------------------- check


def begun() -> tuple[PartitionCheck, sequence.Head]:
    """A check that has taken GENESIS, and the head after it."""
    records = allocate_records(1)
    records.value_length[:] = records.key_length[:] = -1
    head, made = sequence.advance(sequence.Head(), records, sequence.CONTROL, 1_000_000)
    checker = PartitionCheck(0)
    checker.take(made.entries)
    return checker, head


def sequenced(head: sequence.Head, rows: NDArray[np.uint8], offsets: Sequence[int]) -> Entries:
    """The ledger entries that a sequencer makes of events at those offsets; `rows` must stay alive."""
    records = allocate_records(len(rows))
    records.offset[:] = offsets
    records.timestamp_ms[:] = NOW_US // 1_000
    records.key_address[:] = address_of(rows) + ROW_BYTES * np.arange(len(rows))
    records.key_length[:] = SOURCE_BYTES
    records.value_address[:] = records.key_address + SOURCE_BYTES
    records.value_length[:] = VALUE_BYTES
    _, made = sequence.advance(head, records, sequence.DATA, 1_000_000)
    return made.entries


def events(count: int) -> tuple[NDArray[np.uint8], str]:
    """Some events, and the SHA-256 that a loader knows them by."""
    rows = EventFactory(10, 1, off_percent=0).rows(0, count, NOW_US)
    return rows, hashlib.sha256(rows.tobytes()).hexdigest()


def test_a_whole_ledger_passes() -> None:
    """Every record once, in order, byte for byte."""
    rows, digest = events(20)
    checker, head = begun()
    checker.take(sequenced(head, rows, range(20)))
    checker.finish(20, digest)


def test_a_record_left_out_is_found() -> None:
    """The ledger is contiguous and chained; what is wrong is which offsets are in it."""
    rows, _ = events(20)
    checker, head = begun()
    with pytest.raises(CheckFailedError, match="sequence 6 is input offset 6, not 5"):
        checker.take(sequenced(head, rows, [*range(5), *range(6, 21)]))


def test_a_tampered_entry_is_found() -> None:
    """The chain does not fit the fields."""
    rows, _ = events(20)
    checker, head = begun()
    entries = sequenced(head, rows, range(20))
    entries.authority_ms[7] += 1
    with pytest.raises(CheckFailedError, match=r"entry 9 .*CHAIN"):
        checker.take(entries)


def test_events_that_are_missing_at_the_end_are_found() -> None:
    """Count against what was loaded."""
    rows, digest = events(20)
    checker, head = begun()
    checker.take(sequenced(head, rows, range(20)))
    with pytest.raises(CheckFailedError, match="holds 20 events, 21 were loaded"):
        checker.finish(21, digest)


def test_another_value_than_the_one_loaded_is_found() -> None:
    """A sequencer that altered a value before hashing would pass every other check."""
    rows, digest = events(20)
    rows[3, -1 - 14] ^= 1
    checker, head = begun()
    checker.take(sequenced(head, rows, range(20)))
    with pytest.raises(CheckFailedError, match="not those that were loaded"):
        checker.finish(20, digest)


def test_an_empty_ledger_is_no_whole_one() -> None:
    """Nothing read is nothing proved."""
    with pytest.raises(CheckFailedError, match="holds 0 events"):
        PartitionCheck(0).finish(1, "")


# -------------------------------------------------------------------------------------------------------- plan, report


_PRELOADED = ("sequence", "lanes", "worker", "sources", "whole", "whole-sources", "backfill")


def chosen(names: list[Name], *, events: int = 200_000, memory_minutes: int = 0, spread_s: int = 0) -> list[Case]:
    """A plan over two batch sizes."""
    return plan(
        names,
        events=events,
        batches=[2_000, 5_000],
        rate=50_000,
        seconds=30,
        warm_s=60,
        memory_minutes=memory_minutes,
        spread_s=spread_s,
    )


def test_all_cases_are_planned_for_every_batch_size() -> None:
    """Memory only where its length is given."""
    assert [c.name for c in chosen([])] == [
        *(n for n in _PRELOADED for _ in "ab"),
        "paced",
        "closings",
        "queries",
        "put",
    ]
    assert chosen([], memory_minutes=10)[-1] == Paced("memory", 50_000, 600, 60, window_ms=1_000)


def test_only_the_named_cases_are_planned() -> None:
    """In the order of the list, not of the options."""
    found = chosen([Name.PACED, Name.SOURCES])
    assert [c.name for c in found] == ["sources", "sources", "paced"]
    assert [c.sources for c in found if not isinstance(c, Asked)] == [SOURCES_MAX, SOURCES_MAX, 1_000]
    assert found[-1].events == 50_000 * 90


@pytest.mark.parametrize(("spread_s", "together"), [(0, 1), (600, 3), (700, 2), (800, 1)])
def test_inputs_that_take_long_to_fill_are_filled_side_by_side(spread_s: int, together: int) -> None:
    """As many as can be measured before the first gate opens by itself, and none of another kind among them."""
    cases = chosen([], spread_s=spread_s)
    groups = run.filled_together(cases)
    assert [case for group in groups for case in group] == cases
    spread = [len(group) for group in groups if isinstance(group[0], Preloaded) and group[0].spread_s]
    assert spread == ([] if not spread_s else [together] * (6 // together))
    assert all(len(group) == 1 for group in groups if not isinstance(group[0], Preloaded) or not group[0].spread_s)


def test_what_cannot_be_measured_is_refused_with_the_remedy() -> None:
    """Before anything is started."""
    with pytest.raises(BadInputError, match="--memory-minutes"):
        chosen([Name.MEMORY])
    with pytest.raises(BadInputError, match="--events 10 "):
        chosen([], events=10)


def test_usage_errors_end_with_exit_code_2_and_say_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing on stdout, one line on stderr."""
    for arguments, what in (
        (["--events", "10"], "Give 100000 or more"),
        (["--case", "memory"], "--memory-minutes"),
        (["--quick", "--output", str(tmp_path / "no" / "such")], "No such file"),
        (["--quick", "--data-dir", str(tmp_path / "none")], "No such file"),
        (["--case", "nothing"], "nothing"),
    ):
        assert main(arguments) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert what in shown.err


def test_a_failed_check_ends_with_exit_code_1_and_no_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away is 3."""

    def fails(error: Exception) -> object:
        def failing(*_: object, **__: object) -> None:
            raise error

        return failing

    for error, code in (
        (CheckFailedError("the ledger's partition 0 is wrong"), 1),
        (UnreachableError("no Kafka answers"), 3),
    ):
        monkeypatch.setattr(run, "run", fails(error))
        assert main(["--quick"]) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == f"benchmarks: {error}\n"


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """And ends well."""
    assert main(["--help"]) == 0
    assert "python -m benchmarks --quick" in capsys.readouterr().out


def test_a_table_shows_each_case_of_its_kind() -> None:
    """A dash for what is not known."""
    out = StringIO()
    console = Console(file=out, width=200)
    for table in tables([Measured(case(Name.WORKER), figures(512_345.6)), PACED]):
        console.print(table)
    shown = out.getvalue()
    assert "512,346" in shown
    assert "2.12" in shown
    assert "15.0" in shown
    assert " - " in shown
    assert len(tables([PACED])) == 1


def test_ratios_compare_cases_of_the_same_batch_size() -> None:
    """And leave out what was not measured."""
    measured = [
        Measured(case(Name.WORKER, 2_000), figures(400_000)),
        Measured(case(Name.WORKER, 5_000), figures(500_000)),
        Measured(case(Name.SOURCES, 5_000), figures(350_000)),
        Measured(case(Name.SEQUENCE, 5_000), figures(600_000)),
        PACED,
    ]
    assert ratios(measured) == ["worker, 100,000 sources against 1,000, batches of 5,000: 0.70"]


def test_a_json_line_holds_case_figures_and_machine() -> None:
    """One line each, readable by anything."""
    text = line(Measured(case(Name.WORKER), figures(500_000)), {"cores": 2}, "2026-11-21T00:00:00Z")
    assert text.endswith(b"\n")
    found = orjson.loads(text)
    assert found["case"]["batch_events"] == 5_000
    assert found["case"]["subject"] == "worker"
    assert found["figures"]["client_us"] == 2.125
    assert found["figures"]["broker_us"] is None
    assert (found["machine"], found["at"]) == ({"cores": 2}, "2026-11-21T00:00:00Z")


# ---------------------------------------------------------------------------------------------------------------- bars


def measured(name: Name, per_s: float, client_us: float = 2.0, batch_events: int = 5_000) -> Measured:
    """A preloaded case with the figures that bars look at."""
    return Measured(case(name, batch_events), figures(per_s)._replace(client_us=client_us))


def test_a_bar_that_is_missed_says_so() -> None:
    """Rates are lower limits, costs and times upper ones."""
    found = {bar.what: bar for bar in bars([measured(Name.SEQUENCE, 399_999, 2.9), PACED])}
    assert not found["sequence, events/s"].reached
    assert str(found["sequence, events/s"]) == "MISSED   sequence, events/s: 399,999.00, at least 400,000"
    assert found["sequence, client us/event"].reached
    assert not found["paced, seconds"].reached
    assert found["paced, events/s"].reached


def test_a_slow_sender_or_a_short_run_reaches_no_bar() -> None:
    """Latency at a tenth of the rate, and growth that could not be told, are no figures."""
    slow = Measured(PACED.case, PACED_FIGURES._replace(rate=5_000.0))
    short = Measured(Paced("memory", 50_000, 30, 60), PACED_FIGURES)
    missed = {bar.what for bar in bars([slow, short]) if not bar.reached}
    assert missed == {"paced, events/s", "paced, seconds", "memory, MB/min"}


def test_closings_questions_and_puts_have_bars() -> None:
    """Closings also count how many there were; of the puts the better size counts."""
    closings = Measured(
        Paced("closings", 50_000, 120, 60, window_ms=1_000, closings=True), PACED_FIGURES._replace(measured=399)
    )
    queries = Measured(Asked("queries", 2_000_000), AskedFigures({"one source, 1 %": 1.5, "100 k rows": 5.0}, 300.0))
    put = Measured(Asked("put", 2_000_000), AskedFigures({"put, 1,000 a request": 1.0, "put, 5,000": 26_000.0}, 1.0))
    found = bars([closings, queries, put])
    assert {bar.what for bar in found if not bar.reached} == {"closings, closings", "one source, 1 %, ms"}
    assert "put, events/s" in {bar.what for bar in found}
    assert len(tables([queries, put])) == 1


def test_sources_are_compared_at_the_batch_size_of_the_bars() -> None:
    """Other sizes are figures, not bars."""
    rows = [measured(Name.WORKER, 400_000), measured(Name.SOURCES, 200_000), measured(Name.SOURCES, 1, 1.0, 2_000)]
    [ratio] = [bar for bar in bars(rows) if "100,000" in bar.what]
    assert (ratio.figure, ratio.reached) == (0.5, False)
