"""Aggregates on a real broker: listed, merged over partitions, and compared with a recount; a forged one is found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from schemas.clock import SystemTime
from schemas.errors import BadInputError
from schemas.instants import format_us
from streams import aggregates
from streams.aggregates import LateCounts, Result
from streams.aggregates_check import Range, check_partition
from streams.cli.main import main
from streams.control import encode_control
from streams.log import Log, wait_stable
from streams.queries import Ledger
from streams.topics_admin import TopicsAdmin, specs_of
from streams.windows import By, Frame, Function, Kind, Late, WindowDefinition, entry_name
from tests.broker.ledgers import begin, event, names_of, produce, sequence, use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.settings import Settings

S = 1_000_000
PARTITIONS = 2
#: GENESIS, judge, and the windows in order of name.
MINUTES_VERSION = "5"
WINDOWS = (
    WindowDefinition("by_source", 10 * S, functions=tuple(Function)),
    WindowDefinition("hops", 30 * S, Kind.HOPPING, 7 * S, by=By.KIND, late=Late.UPDATE, update_us=20 * S),
    WindowDefinition("minutes", 60 * S, by=By.ALL, whole=True, functions=tuple(Function), early_us=1 * S),
    WindowDefinition("ticks", 5_000, frame=Frame.AUTHORITY, by=By.ALL),
)


def _events(partition: int, count: int) -> list[Any]:
    """Two a second up to now, out of order, some much too late, some sent twice."""
    now_us = SystemTime().now_us()
    made: list[Any] = []
    for n in range(count):
        source, behind_us = f"pump-{n % 3}", (30 * S if n % 50 == 49 else (n * 7 % 5) * 300_000)
        local_us = now_us - (count - n) * S // 2 - behind_us
        value = None if n % 11 == 0 else (n * 37 % 101) / 7 * 10.0 ** (n % 19 - 9)
        made.append((source.encode(), event(source, f"{partition}-{n}", local_us, value), []))
        if n % 23 == 0:
            made.append(made[-1])
    return made


@pytest.fixture(scope="module")
def written(kafka: Any) -> Settings:
    """Two partitions with ten minutes of events each, in runs of their lanes, and heartbeats behind them."""
    prefix = f"agg-{SystemTime().now_us():x}"
    settings = begin(kafka, prefix, partitions=PARTITIONS, windows=WINDOWS, dedupe_horizon=100)
    made = [_events(partition, 1_200) for partition in range(PARTITIONS)]
    for start in range(0, 1_300, 100):
        for partition in range(PARTITIONS):
            produce(settings, settings.input_topic, made[partition][start : start + 100], partition)
        if start % 500 == 0:
            sequence(settings)
    clock = SystemTime()  # late events are reported once the clock has crossed a multiple of ten seconds
    clock.sleep_s((10 * S - clock.now_us() % (10 * S)) / S + 0.1)
    body = {"predecessor_appended_ms": clock.now_us() // 1_000, "input_end_offset": 0, "worker_us": 1}
    heartbeat = encode_control("Heartbeat", body, "test", "test")
    for partition in range(PARTITIONS):
        produce(settings, names_of(settings).control, [(None, heartbeat, [])], partition)
    sequence(settings)
    _settle(settings)
    return settings


def _settle(settings: Settings) -> None:
    assert settings.bootstrap is not None
    log = Log(settings.bootstrap)
    for partition in range(PARTITIONS):
        assert wait_stable(log, names_of(settings).aggregates, partition, 60_000)
    log.close()


@pytest.fixture
def ledger(written: Settings) -> Iterator[Ledger]:
    """Opened."""
    assert written.bootstrap is not None
    with Ledger(written, written.bootstrap) as opened:
        yield opened


@pytest.fixture
def command(
    written: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[dict[str, Any]], str]]:
    """Exit code, rows and what is told on stderr."""
    use(written, monkeypatch)

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        code = main([*arguments, "--output", "jsonl"])
        told = capsys.readouterr()
        return code, [json.loads(line) for line in told.out.splitlines()], told.err

    return run


# ------------------------------------------------------------------------------------------------------------- check


def test_every_result_equals_the_recount(command: Any, ledger: Ledger) -> None:
    """Of each definition and partition: exit code 0, and it says what was compared."""
    code, rows, told = command("check", "aggregates")
    assert (code, told) == (0, "")
    assert [(row["partition"], row["definition"]) for row in rows] == [
        (p, w.name) for p in range(PARTITIONS) for w in WINDOWS
    ]
    for row in rows:
        assert (row["result"], row["differing"], row["gone"]) == ("equal", 0, 0)
        assert row["windows"] >= 8
        assert row["events"] >= 900
        assert 0 < row["sums"] <= row["results"]
    for p in range(PARTITIONS):
        records = list(aggregates.read(ledger, p, 0, ledger.log.bounds(_topic(ledger), p).end))
        of_it = [row for row in rows if row["partition"] == p]
        assert sum(row["results"] for row in of_it) == len([r for r in records if isinstance(r, Result)])
        late = sum(r.late + r.ahead for r in records if isinstance(r, LateCounts))
        assert sum(row["late"] for row in of_it) == late > 0


def test_a_table_is_for_people(written: Settings, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one definition and partition."""
    use(written, monkeypatch)
    assert main(["check", "aggregates", "--window", "minutes", "-p", "1"]) == 0
    assert [line.split()[:4] for line in capsys.readouterr().out.splitlines() if "minutes" in line] == [
        ["1", "minutes", MINUTES_VERSION, "equal"]
    ]


def test_a_range_is_compared_for_the_windows_that_begin_in_it(ledger: Ledger) -> None:
    """Fewer than all; up to the end of the range, and with the definitions that were in force before it."""
    [everything] = check_partition(ledger, 0, Range(), "by_source")
    [part] = check_partition(ledger, 0, Range(1, 800), "by_source")
    assert 0 < part.windows < everything.windows
    assert part.differing == 0
    assert check_partition(ledger, 0, Range(10**9), "by_source") == []
    [ticks] = check_partition(ledger, 0, Range(), "ticks")
    seen: list[tuple[int, int]] = []
    [later] = check_partition(ledger, 0, Range(800), "ticks", lambda done, total: seen.append((done, total)))
    assert 0 < later.windows < ticks.windows
    assert later.differing == 0
    assert seen[-1][0] == seen[-1][1] < 700
    [within] = check_partition(ledger, 0, Range(60), "ticks")  # begins within the dedupe horizon
    assert later.windows < within.windows < ticks.windows
    assert within.differing == 0


def test_a_range_that_is_none_is_refused(command: Any) -> None:
    """With exit code 2."""
    assert command("check", "aggregates", "--from-sequence", "5", "--to-sequence", "4")[0] == 2
    assert command("check", "aggregates", "--from-sequence", "5", "--last", "1h")[0] == 2
    assert command("check", "aggregates", "--last", "soon")[0] == 2
    assert command("check", "aggregates", "--last", "1h")[0] == 0


def test_a_window_that_nobody_defined_is_told(command: Any) -> None:
    """Nothing was compared."""
    code, rows, told = command("check", "aggregates", "--window", "nobody")
    assert (code, rows) == (0, [])
    assert "no definition of a window 'nobody'" in told


def test_a_forged_result_is_found(
    written: Settings, kafka: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a copy of both topics, one sum of which is wrong in its last bit: window, key, field and both values."""
    copied = written.model_copy(update={"ledger": "forged"})
    TopicsAdmin(kafka.bootstrap).create(specs_of(copied))
    log, forged = Log(kafka.bootstrap), {}
    for partition in range(PARTITIONS):
        for source, target in zip(_read_topics(written), _read_topics(copied), strict=True):
            bounds = log.bounds(source, partition)
            messages: list[Any] = [
                (m.key(), m.value(), []) for m in log.scan(source, partition, bounds.start, bounds.stable_end)
            ]
            if target == names_of(copied).aggregates and partition == 1:
                place, record = next(
                    (i, fields)
                    for i, fields in enumerate(orjson.loads(value) for _, value, _ in messages)
                    if fields["definition"] == "by_source" and fields.get("final") and fields["sum"]
                )
                forged = {**record, "sum": record["sum"] * (1 + 2**-52)}
                messages[place] = (messages[place][0], orjson.dumps(forged), [])
            produce(copied, target, messages, partition)
    log.close()
    use(copied, monkeypatch)
    assert main(["check", "aggregates", "--output", "jsonl"]) == 1
    told = capsys.readouterr()
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["definition"] for row in rows if row["result"] == "different"] == ["by_source"]
    [found] = [found for row in rows for found in row["differences"]]
    assert (found["partition"], found["key"], found["field"]) == (1, forged["key"], "sum")
    assert (found["window_start_us"], found["found"]) == (forged["window_start_us"], forged["sum"])
    assert found["expected"] != found["found"]
    assert "window by_source version" in told.err
    assert repr(forged["sum"]) in told.err


def _read_topics(settings: Settings) -> tuple[str, str]:
    names = names_of(settings)
    return names.sequenced, names.aggregates


# ------------------------------------------------------------------------------------------------------------- lists


def test_the_newest_results_are_listed(command: Any) -> None:
    """Of each window the last revision, or every one."""
    code, rows, _ = command("aggregates", "hops", "--last", "200")
    assert code == 0
    windows = [(row["partition"], row["window_start_us"]) for row in rows]
    assert len(set(windows)) == len(windows) > 100
    _, every, _ = command("aggregates", "hops", "--last", "2000", "--all")
    assert max(row["revision"] for row in rows) > 1
    assert len(every) > len(rows)
    assert {(row["partition"], row["window_start_us"]) for row in every} == set(windows)


def test_results_of_one_key_are_listed(command: Any) -> None:
    """Ten unless told otherwise, the newest first."""
    _, rows, _ = command("aggregates", "by_source", "--key", "pump-1", "--final-only")
    assert len(rows) == 10
    assert {(row["definition"], row["key"], row["final"]) for row in rows} == {("by_source", "pump-1", True)}
    ordered = [row["recorded_at_ms"] for row in rows]
    assert ordered == sorted(ordered, reverse=True)
    assert {"50", "99"} == set(rows[0]["percentiles"])


def test_a_range_of_results_is_listed_oldest_first(command: Any, ledger: Ledger) -> None:
    """Everything that is kept, with nothing lost."""
    _, rows, _ = command("aggregates", "--from", "2020-01-01T00:00:00Z", "--all")
    records = [
        r for p in range(PARTITIONS) for r in aggregates.read(ledger, p, 0, ledger.log.bounds(_topic(ledger), p).end)
    ]
    assert len(rows) == len([r for r in records if isinstance(r, Result)])
    ordered = [row["recorded_at_ms"] for row in rows]
    assert ordered == sorted(ordered)
    assert command("aggregates", "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z")[1] == []


def _topic(ledger: Ledger) -> str:
    return ledger.names.aggregates


def test_partitions_are_merged(command: Any) -> None:
    """Complete once both have closed a window; sums are those of the partitions in order."""
    _, parts, _ = command("aggregates", "minutes", "--from", "2020-01-01T00:00:00Z")
    code, rows, _ = command("aggregates", "--whole")
    assert code == 0
    assert {row["definition"] for row in rows} == {"minutes"}
    assert len(rows) >= 8
    for row in rows:
        of_it = sorted(
            (part for part in parts if part["window_start_us"] == row["window_start_us"]), key=lambda p: p["partition"]
        )
        assert row["partitions"] == [part["partition"] for part in of_it]
        assert row["count"] == sum(part["count"] for part in of_it)
        assert row["sum"] == sum(part["sum"] for part in of_it)
        assert row["complete"] is (row["waiting_for"] is None)
    assert [row["complete"] for row in rows][:5] == [True] * 5
    assert command("aggregates", "by_source", "--whole")[1] == []


def test_a_whole_of_one_key_is_complete_where_other_keys_have_closed_it(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source writes to one partition; that the other has closed the window, the other source's result says."""
    sources = WindowDefinition("sources", 10 * S, whole=True)
    settings = begin(kafka, prefix, partitions=PARTITIONS, windows=(sources,))
    use(settings, monkeypatch)
    early_us = SystemTime().now_us() // (10 * S) * (10 * S) - 60 * S
    for partition in range(PARTITIONS):
        key = f"pump-{partition}".encode()
        made = [event(key.decode(), f"{n}", at_us, 1.0) for n, at_us in enumerate((early_us, early_us + 30 * S))]
        produce(settings, settings.input_topic, [(key, value, []) for value in made], partition)
    sequence(settings)
    assert main(["aggregates", "sources", "--whole", "--key", "pump-1", "--output", "jsonl"]) == 0
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["key"], row["partitions"], row["complete"], row["waiting_for"]) == ("pump-1", [1], True, None)


def test_a_whole_is_complete_where_a_silent_partition_says_so_by_its_heartbeats(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """max_behind_ms after the window, and not before."""
    seconds = WindowDefinition("seconds", 10 * S, whole=True)
    settings = begin(kafka, prefix, partitions=PARTITIONS, windows=(seconds,))
    use(settings, monkeypatch)
    early_us = SystemTime().now_us() // (10 * S) * (10 * S) - 120 * S
    made = [event("pump-0", f"{n}", at_us, 1.0) for n, at_us in enumerate((early_us, early_us + 30 * S))]
    produce(settings, settings.input_topic, [(b"pump-0", value, []) for value in made], 0)
    sequence(settings)

    def waiting(*options: str) -> object:
        assert main(["aggregates", "seconds", "--whole", *options, "--output", "jsonl"]) == 0
        [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert (row["window_start_us"], row["complete"]) == (early_us, row["waiting_for"] is None)
        return row["waiting_for"]

    assert waiting() == [1]
    for closes_us, expected in ((-1_000, [1]), (0, None)):
        frontier_ms = (early_us + 10 * S + seconds.max_behind_us + closes_us) // 1_000
        body = {"predecessor_appended_ms": frontier_ms, "input_end_offset": 0, "worker_us": 1}
        produce(settings, names_of(settings).control, [(None, encode_control("Heartbeat", body, "test", ""), [])], 1)
        sequence(settings)
        assert waiting() == expected
    assert waiting("--from", "2020-01-01T00:00:00Z") is None


def test_a_window_resumed_does_not_complete_what_it_has_not_seen(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written again while a window was open: what that held is lost there, so the whole of it stays incomplete."""
    seconds = WindowDefinition("seconds", 10 * S, whole=True, max_ahead_us=0, max_behind_us=1 * S)
    settings = begin(kafka, prefix, partitions=PARTITIONS, windows=(seconds,))
    use(settings, monkeypatch)
    now_us = SystemTime().now_us()
    last_us = now_us // (10 * S) * (10 * S) - 30 * S

    def send(number: int, local_us: int, partition: int) -> None:
        made = event("pump", f"{partition}-{number}", local_us, 1.0)
        produce(settings, settings.input_topic, [(b"pump", made, [])], partition)

    def control(kind: str, partition: int, **body: Any) -> None:
        value = encode_control(kind, body, "test", "")
        produce(settings, names_of(settings).control, [(None, value, [])], partition)

    for partition in range(PARTITIONS):
        send(0, last_us, partition)
    sequence(settings)
    control("Definition", 1, name=entry_name("seconds"), body=seconds.canonical())
    sequence(settings)
    send(1, last_us + 20 * S, 0)
    send(1, last_us, 1)
    for partition in range(PARTITIONS):
        send(2, now_us, partition)
        beat = {"predecessor_appended_ms": now_us // 1_000, "input_end_offset": 0, "worker_us": 1}
        control("Heartbeat", partition, **beat)
    sequence(settings)
    assert main(["aggregates", "seconds", "--whole", "--output", "jsonl"]) == 0
    rows = {row["window_start_us"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    row = rows[last_us]
    assert (row["count"], row["complete"], row["waiting_for"]) == (2, False, [1])


def test_a_whole_of_a_range_has_all_its_parts(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that were appended before it; a window without a result in the range is not listed."""
    seconds = WindowDefinition("seconds", 10 * S, whole=True)
    settings = begin(kafka, prefix, partitions=PARTITIONS, windows=(seconds,))
    use(settings, monkeypatch)
    early_us = SystemTime().now_us() // (10 * S) * (10 * S) - 60 * S
    between_us = 0
    for partition in range(PARTITIONS):
        made = [event("pump", f"{partition}-{n}", early_us + n * 30 * S, 1.0) for n in range(2)]
        produce(settings, settings.input_topic, [(b"pump", value, []) for value in made], partition)
        sequence(settings)
        SystemTime().sleep_s(0.1)
        between_us = between_us or SystemTime().now_us()
        SystemTime().sleep_s(0.1)

    def listed(option: str) -> list[Any]:
        assert main(["aggregates", "--whole", option, format_us(between_us), "--output", "jsonl"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    for option in ("--from", "--to"):
        [row] = listed(option)
        assert (row["count"], row["partitions"], row["complete"]) == (2, [0, 1], True)
    between_us -= 3_600 * S
    assert listed("--to") == []


def test_late_events_are_counted_by_source(command: Any) -> None:
    """As many as there were, of those that have been reported."""
    code, rows, _ = command("aggregates", "by_source", "--late")
    assert code == 0
    assert {(row["definition"], row["partition"]) for row in rows} == {("by_source", p) for p in range(PARTITIONS)}
    assert {row["source"] for row in rows} <= {"pump-0", "pump-1", "pump-2"}
    assert 2 * 20 <= sum(row["late"] for row in rows) <= 2 * 30
    assert [row["late"] for row in rows] == sorted((row["late"] for row in rows), reverse=True)


def test_contradicting_options_are_refused(command: Any) -> None:
    """With exit code 2."""
    for options in (["--whole", "--late"], ["--whole", "-p", "0"], ["--late", "--all"], ["--last", "5", "--to", "9"]):
        assert command("aggregates", *options)[0] == 2


def test_coming_results_are_followed(kafka: Any, prefix: str) -> None:
    """From an offset on, what was there and what comes."""
    settings = begin(kafka, prefix, windows=WINDOWS)
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as opened:
        coming = aggregates.follow(opened, {0: 0}, lambda record: isinstance(record, Result))
        produce(settings, settings.input_topic, _events(0, 300))
        sequence(settings)
        found = [next(coming) for _ in range(20)]
    assert [record.offset for record in found] == sorted(record.offset for record in found)


def test_the_definition_of_a_result_is_in_the_ledger(ledger: Ledger) -> None:
    """At the index that is its version; nowhere else."""
    [record] = aggregates.newest(ledger, 1, lambda record: record.definition == "hops", partition=0)
    assert aggregates.definition_at(ledger, 0, record.version, "hops") == WINDOWS[1]
    assert aggregates.definition_at(ledger, 0, record.version, "minutes") is None
    assert aggregates.definition_at(ledger, 0, record.version + 40, "hops") is None
    assert aggregates.definition_at(ledger, 0, 10**9, "hops") is None
    with pytest.raises(BadInputError):
        aggregates.newest(ledger, 0, lambda _record: True)


def test_a_record_that_is_none_is_skipped(kafka: Any, prefix: str) -> None:
    """And what stands behind it is read."""
    settings = begin(kafka, prefix)
    good = {"definition": "w", "version": 1, "partition": 0, "source": "s", "late": 2, "ahead": 0, "at_index": 7}
    produce(
        settings, names_of(settings).aggregates, [(b"k", b"{}", []), (b"k", None, []), (b"k", orjson.dumps(good), [])]
    )
    with Ledger(settings, kafka.bootstrap) as opened:
        [record] = aggregates.newest(opened, 5, lambda _record: True)
        assert record.at_index == 7
