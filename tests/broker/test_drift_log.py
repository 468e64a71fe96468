"""The drift log, warnings and alerts on a real broker: asked, written, and answered from the ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from structlog.testing import capture_logs

from schemas.clock import SystemTime
from schemas.codec import encode
from schemas.errors import BadInputError, HaltCode, HaltError
from schemas.instants import INT64_MAX, format_ms
from schemas.topics import partition_for
from streams import judged_log
from streams.alert_log import alerts_between, ends, follow, newest_alerts, open_alerts
from streams.causes import Cause
from streams.cli.drift import Which, coming_alerts, coming_entries, coming_warnings
from streams.cli.main import main
from streams.cli.ranges import Span
from streams.drift_entries import Reading
from streams.drift_log import DriftLog, NotBegunError, NotSequencedError
from streams.drift_warnings import follow_warnings, newest_warnings, warnings_between
from streams.fold import FoldError
from streams.judge_states import snapshots_of
from streams.progress import lift_halt, record_halt
from streams.queries import Ledger
from streams.severity import Severity
from streams.snapshots import read_snapshots
from streams.topics_admin import TopicsAdmin, specs_of
from streams.up import AlertFeed
from tests.broker.ledgers import begin, event, names_of, produce, records, running, sequence, use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.settings import Settings
    from tests.broker.ledgers import Message

#: How far each source's clock is off, and what that makes of it.
CLOCKS_US = {"steady": 0, "late": -3_000_000, "ahead": 86_400_000_000, "lost": -(2**62)}
SEVERITIES = {"steady": "GREEN", "late": "YELLOW", "ahead": "RED", "lost": "RED"}
PARTITIONS = 3


def messages(first: int, last: int, source: str, offset_us: int) -> list[Any]:
    """Events first to last - 1 of a source, stamped now by its clock."""
    now_us = SystemTime().now_us()
    return [(source.encode(), event(source, f"{source}-{n}", now_us + offset_us), []) for n in range(first, last)]


@pytest.fixture(scope="module")
def written(kafka: Any) -> Settings:
    """Four sources on three partitions, in two runs of the lanes, with duplicates, unreadable values, snapshots."""
    settings = begin(
        kafka, f"drift-{SystemTime().now_us():x}", partitions=PARTITIONS, lanes=2, batch_events_max=20,
        snapshot_interval_ms=0,
    )  # fmt: skip
    for first, last in ((0, 40), (40, 60)):
        for source, offset_us in CLOCKS_US.items():
            # First what has no instant: a partition's first record can take a busy broker a second.
            produce(settings, settings.input_topic, [(None, b"?", [])], partition_of(source))
            sent = messages(first, last, source, offset_us)
            if first:
                sent += sent[:5]  # sent again: no warning of these
            produce(settings, settings.input_topic, sent, partition_of(source))
        sequence(settings)
    return settings


def partition_of(source: str) -> int:
    """Where a source's events are."""
    return partition_for(source.encode(), PARTITIONS)


@pytest.fixture
def ledger(written: Settings) -> Iterator[Ledger]:
    """Opened."""
    assert written.bootstrap is not None
    with Ledger(written, written.bootstrap) as opened:
        yield opened


@pytest.fixture
def _command(written: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    use(written, monkeypatch)


# ------------------------------------------------------------------------------------------------------------- the log


def test_the_newest_entries_come_first_with_their_verdicts(ledger: Ledger) -> None:
    """As many as asked for; what cannot be read has none."""
    entries = DriftLog(ledger).newest(1_000)
    assert len(entries) == 4 * 65
    assert {(entry.source, entry.severity.name) for entry in entries} == set(SEVERITIES.items())
    keys = [(entry.created_at_ms, entry.partition, entry.index) for entry in entries]
    assert keys == sorted(keys, reverse=True)
    assert DriftLog(ledger).newest(7) == entries[:7]
    assert len(DriftLog(ledger).newest()) == 50


def test_an_entry_says_what_the_ledger_entry_says(written: Settings, ledger: Ledger) -> None:
    """Id, instants, delta and the chain hash as phase lock."""
    partition = partition_of("late")
    by_index = {entry["index"]: entry for _, entry in records(written, partition)}
    found = DriftLog(ledger).newest(10, source="late", partition=partition)
    assert len(found) == 10
    for entry in found:
        fields = by_index[entry.index]
        assert entry.id == f"{partition}:{entry.index}"
        assert (entry.sequence, entry.created_at_ms) == (fields["sequence"], fields["authority_timestamp"])
        assert entry.phase_lock_hash == fields["chain_hash"]
        assert entry.drift_delta_ms is not None
        assert abs(entry.drift_delta_ms - (entry.anchor_timestamp_us / 1_000 - entry.created_at_ms)) <= 0.5
        assert entry.reading is Reading.DATA


def test_the_log_says_what_judge_said_wherever_it_begins(ledger: Ledger) -> None:
    """The same from a snapshot as from the beginning; of anchors and the like judge says nothing."""
    every = {entry.id: entry for entry in DriftLog(ledger).between(0, 2**62)}
    assert {entry.cause for entry in every.values() if entry.source == "ahead"} >= {Cause.AHEAD}
    assert any(packed.partition == partition_of("ahead") for packed in snapshots_of(ledger, partition_of("ahead")))
    for most in (1, 5, 40, 1_000):
        newest = DriftLog(ledger).newest(most)
        assert newest == [every[entry.id] for entry in newest]
    for entry in list(every.values())[::17]:
        found = DriftLog(ledger).between(entry.created_at_ms, 2**62, source=entry.source)
        assert all(every[later.id] == later for later in found)


def _refuse(*_: object) -> NoReturn:
    raise FoldError("judge 9 wrote on")


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize("why", ["far", "newer"])
def test_where_judge_cannot_be_had_the_log_says_so_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    """And says nothing of why, rather than something wrong: too far from a snapshot, or folded on by a newer judge."""
    known = [entry._replace(cause=Cause.NONE, offset_us=0, bound_us=-1) for entry in DriftLog(ledger).newest(100)]
    if why == "far":
        monkeypatch.setattr(judged_log, "REFOLD_MAX", 0)
        monkeypatch.setattr(judged_log, "snapshots_of", lambda *_: [])
    else:
        monkeypatch.setattr(judged_log, "restore", _refuse)
    told: list[str] = []
    assert DriftLog(ledger, told.append).newest(100) == known
    assert told
    assert len({text.split(" are left out")[0] for text in told}) == len(told)
    expected = "entries lie between" if why == "far" else "judge 9 wrote on"
    assert all(expected in text for text in told)
    assert main(["drift", "log", "--last", "100", "--from-ledger", "--output", "jsonl"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == told
    assert {json.loads(line)["cause"] for line in captured.out.splitlines()} == {None}


def test_the_log_can_be_asked_for_one_source(ledger: Ledger) -> None:
    """Looked for as far back as needed, also where it is not."""
    found = DriftLog(ledger).newest(65, source="ahead")
    assert {entry.source for entry in found} == {"ahead"}
    assert len(found) == 65
    assert DriftLog(ledger).newest(5, source="nobody") == []
    assert DriftLog(ledger).newest(5, source="ahea") == []
    with pytest.raises(BadInputError):
        DriftLog(ledger).newest(0)


@pytest.mark.usefixtures("_command")
def test_the_command_lists_ten_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Instants as text and as integers for programs."""
    assert main(["drift", "log", "--output", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 10
    assert set(rows[0]) >= {"id", "created_at", "anchor_timestamp_us", "drift_delta_ms", "phase_lock_hash", "severity"}
    assert main(["drift", "log", "--last", "2", "--source", "lost"]) == 0
    out = capsys.readouterr().out
    assert out.count(" lost ") == 2
    assert "-1441" in out  # the year of an instant far before any calendar


@pytest.mark.usefixtures("_command")
def test_instants_bound_what_is_listed(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ends included: of the drift log, the warnings and the alerts."""

    def listed(command: str, *options: str) -> list[Any]:
        assert main(["drift", command, *options, "--output", "jsonl"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    for command, field in (("log", "created_at"), ("warnings", "authority_timestamp"), ("alerts", "recorded_at")):
        everything = listed(command, "--last", "1000")
        times = sorted({row[f"{field}_ms"] for row in everything})
        first_ms, last_ms = times[len(times) // 3], times[len(times) // 3 * 2]
        found = listed(command, "--from", format_ms(first_ms), "--to", format_ms(last_ms))
        expected = [row for row in everything if first_ms <= row[f"{field}_ms"] <= last_ms]
        assert found
        assert sorted(map(str, found)) == sorted(map(str, expected))
        assert len(listed(command, "--from", format_ms(times[0]))) == len(everything)
        assert listed(command, "--from", format_ms(times[-1] + 1)) == []
        assert listed(command, "--to", format_ms(times[0] - 1)) == []
    in_order = [entry.index for entry in DriftLog(ledger).between(0, 2**62, partition=0)]
    assert in_order == sorted(in_order)


# ------------------------------------------------------------------------------------------------- anchors and verdicts


def test_an_anchor_becomes_an_entry_that_carries_the_chain(kafka: Any, prefix: str) -> None:
    """GREEN, without delta, dated by the broker, in the partition of its source."""
    settings = begin(kafka, prefix, partitions=PARTITIONS)
    sequence(settings)
    with running(settings), Ledger(settings, kafka.bootstrap) as ledger:
        log = DriftLog(ledger)
        entry = log.record_anchor("nightly", 1_234_567, actor="ada", reason="test")
        assert (entry.partition, entry.source) == (partition_of("nightly"), "nightly")
        assert (entry.drift_delta_ms, entry.severity, entry.anchor_timestamp_us) == (None, Severity.GREEN, 1_234_567)
        default = log.record_anchor()
        assert (default.source, default.anchor_timestamp_us) == ("System", default.created_at_ms * 1_000)
        assert log.newest(1, source="System") == [default]
    by_index = {fields["index"]: fields for _, fields in records(settings, entry.partition)}
    assert by_index[entry.index]["chain_hash"] == entry.phase_lock_hash
    assert by_index[entry.index]["kind"] == "CONTROL"


@pytest.mark.parametrize(
    ("off_us", "severity"),
    [(-3_000_000, "YELLOW"), (9_000_000, "RED"), (-(2**62), "RED"), (2**62, "RED")],
)
def test_a_verification_is_judged_by_the_authority(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], off_us: int,
    severity: str,
) -> None:  # fmt: skip
    """However far the clock is off; exit code 0: the severity is the answer."""
    settings = begin(kafka, prefix)
    sequence(settings)
    use(settings, monkeypatch)
    with running(settings):
        begun_us = SystemTime().now_us()
        given_us = begun_us + off_us
        assert main(["drift", "verify", "--source", "wrist", "--output", "jsonl", "--", str(given_us)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert begun_us // 1_000 <= row["server_time_ms"] <= SystemTime().now_us() // 1_000
    assert row["severity"] == severity
    assert set(row) == {"id", "server_time", "server_time_ms", "delta_ms", "severity", "phase_lock_hash"}
    assert abs(row["delta_ms"] - (given_us / 1_000 - row["server_time_ms"])) <= 1
    with Ledger(settings, kafka.bootstrap) as ledger:
        (entry,) = DriftLog(ledger).newest(1, source="wrist")
    assert (entry.id, entry.drift_delta_ms, entry.reading) == (row["id"], row["delta_ms"], Reading.VERIFY)
    assert entry.phase_lock_hash.hex() == row["phase_lock_hash"]


def test_now_is_read_as_the_record_leaves(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read before it connects, which takes half a second, the clock would look slow every time."""
    settings = begin(kafka, prefix)
    sequence(settings)
    use(settings, monkeypatch)
    deltas_ms: list[float] = []
    with running(settings):
        while len(deltas_ms) < 5 and not any(abs(delta) < 400 for delta in deltas_ms):
            assert main(["drift", "verify", "--source", "wrist", "--output", "jsonl", "--", "now"]) == 0
            deltas_ms.append(json.loads(capsys.readouterr().out)["delta_ms"])
    assert abs(deltas_ms[-1]) < 400


def test_without_a_lane_the_record_is_written_and_sequenced_later(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3 says where it stands; the next worker takes it."""
    settings = begin(kafka, prefix)
    sequence(settings)
    use(settings, monkeypatch)
    assert main(["drift", "anchor", "--timeout", "0.1"]) == 3
    told = capsys.readouterr()
    assert f"{names_of(settings).control}[0]@2" in told.err
    assert "driftledger worker" in told.err
    assert told.out == ""
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as ledger:
        (entry,) = DriftLog(ledger).newest(1)
        assert (entry.source, entry.reading) == ("CLI", Reading.ANCHOR)
        assert b"guardian" in records(settings)[-1][1]["value"]
        with pytest.raises(NotSequencedError) as raised:
            DriftLog(ledger).verify_drift(0, timeout_s=0)
    assert raised.value.written.offset == 3


def test_a_halt_is_named_at_once(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, not a wait for a worker that may not go on; the record waits for the lift."""
    settings = begin(kafka, prefix)
    sequence(settings)
    error = HaltError(0, HaltCode.INPUT_CUT, "records 5 to 9 are gone", "Restore the input")
    record_halt(kafka.bootstrap, names_of(settings).progress, 0, error, "worker-1")
    use(settings, monkeypatch)
    begun = SystemTime().create_checkpoint()
    for command in (["anchor"], ["verify", "now"]):
        assert main(["drift", *command, "--timeout", "60"]) == 1
        err = capsys.readouterr().err
        assert "partition 0 halted, INPUT_CUT: records 5 to 9 are gone. Restore the input" in err
        assert "halts lift 0" in err
    assert begun.elapsed_ns(SystemTime().create_checkpoint()) < 50_000_000_000
    lift_halt(kafka.bootstrap, names_of(settings).progress, 0, 0)
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as ledger:
        assert [entry.reading for entry in DriftLog(ledger).newest()] == [Reading.VERIFY, Reading.ANCHOR]


def test_nothing_is_written_to_a_ledger_that_has_not_begun(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands before GENESIS would belong to no ledger."""
    settings = begin(kafka, prefix)
    use(settings, monkeypatch)
    assert main(["drift", "verify", "now"]) == 3
    assert "nothing was written" in capsys.readouterr().err
    with Ledger(settings, kafka.bootstrap) as ledger:
        with pytest.raises(NotBegunError):
            DriftLog(ledger).record_anchor()
        assert ledger.log.bounds(names_of(settings).control, 0).end == 0


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["drift", "anchor", "--source", ""], "give it 1 to 256"),
        (["drift", "anchor", "--source", "é" * 129], "source has 258 bytes"),
        (["drift", "anchor", "--source", "\udcff"], "is not UTF-8"),
        (["drift", "anchor", "--timestamp", "yesterday"], "is not an instant"),
        (["drift", "verify", "noon"], "is not an instant"),
        (["drift", "log", "--last", "0"], "--last"),
        (["drift", "log", "--partition", "3"], "there is no partition 3"),
        (["drift", "warnings", "--from", "9", "--to", "3"], "9 to 3 is no range"),
        (["drift", "warnings", "--last", "9", "--to", "3"], "one or the other"),
        (["drift", "alerts", "--state", "shut"], "--state"),
        (["drift", "alerts", "--from", "yesterday"], "is not an instant"),
        (["drift", "log", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], "the earlier instant"),
        (["drift", "log", "--last", "2", "--from", "2026-01-02T00:00:00Z"], "one or the other"),
        (["drift", "warnings", "--follow", "--to", "9"], "one or the other"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    written: Settings, ledger: Ledger, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    """Exit code 2."""
    control = names_of(written).control
    before = ledger.log.ends(control, range(PARTITIONS))
    assert main(arguments) == 2
    assert told in capsys.readouterr().err
    assert ledger.log.ends(control, range(PARTITIONS)) == before


# ------------------------------------------------------------------------------------------------------------ warnings


def test_warnings_are_those_beyond_the_threshold_without_duplicates(ledger: Ledger) -> None:
    """In order of sequence."""
    for source in ("ahead", "lost"):
        partition = partition_of(source)
        found = list(warnings_between(ledger, partition, 1, source=source))
        assert [warning.event_id for warning in found] == [f"{source}-{n}" for n in range(60)]
        assert [warning.sequence for warning in found] == sorted(warning.sequence for warning in found)
    for source in ("steady", "late", "nobody"):
        assert [w for p in range(PARTITIONS) for w in warnings_between(ledger, p, 1, source=source)] == []


def test_a_warning_says_how_far_with_three_decimals(ledger: Ledger) -> None:
    """Without a sign; logged when the authority dated the event."""
    (first,) = newest_warnings(ledger, 1, source="lost")
    row = first.row()
    distance_ms = first.authority_timestamp_ms * 1_000 - first.local_timestamp_us
    assert row["drift_seconds"] == f"{round(distance_ms / 1_000) // 1_000}.{round(distance_ms / 1_000) % 1_000:03d}"
    assert row["logged_at"] == row["authority_timestamp"]
    assert row["id"] == f"{first.partition}:{first.index}"


def test_a_range_of_warnings_is_the_same_from_a_snapshot_as_from_the_beginning(
    written: Settings, ledger: Ledger
) -> None:
    """Judge's state decides, wherever it came from."""
    partition = partition_of("ahead")
    snapshots = [
        snapshot
        for snapshot in read_snapshots(ledger.log, names_of(written).snapshots, partition % 2)
        if snapshot.partition == partition
    ]
    assert snapshots
    everything = list(warnings_between(ledger, partition, 1))
    top = ledger.get_max_sequence(partition)
    for first in (2, 41, 50, top - 3, top):
        for last in (first, first + 9, None):
            expected = [w for w in everything if first <= w.sequence <= (last or top)]
            assert list(warnings_between(ledger, partition, first, last)) == expected
    for most in (1, 7, 60, 10_000):
        assert newest_warnings(ledger, most, partition=partition) == everything[-most:][::-1]


@pytest.mark.usefixtures("_command")
def test_the_command_lists_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """The newest first by default, a range in order of sequence."""
    assert main(["drift", "warnings", "--last", "70", "--source", "ahead", "--output", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["event_id"] for row in rows] == [f"ahead-{n}" for n in reversed(range(60))]
    partition = str(partition_of("ahead"))
    command = ["drift", "warnings", "--from", "1", "--source", "ahead", "-p", partition, "--output", "jsonl"]
    assert main(command) == 0
    assert [json.loads(line)["event_id"] for line in capsys.readouterr().out.splitlines()][:2] == ["ahead-0", "ahead-1"]
    assert main(["drift", "warnings"]) == 0
    assert capsys.readouterr().out.count("Z ") >= 20


# --------------------------------------------------------------------------------------------- order across partitions

#: Authority time of each event by partition, in seconds; the broker's clock stepped back in both.
STEPPED_BACK_S = ([10, 30, 20, 40, 25], [15, 30, 35, 5])
#: (partition, sequence) by the running maximum of authority time, partition and index.
IN_ORDER = [(0, 1), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4), (0, 4), (0, 5)]
CONTROLS_BEFORE = 2  # GENESIS and DEFINITION


@pytest.fixture(scope="module")
def stepped(kafka: Any) -> tuple[Settings, int]:
    """A ledger with those authority times, every event a warning, and the instant from which they count in ms."""
    begun_ms = SystemTime().now_us() // 1_000 - 100_000
    honest = begin(kafka, f"stepped-{begun_ms:x}", partitions=len(STEPPED_BACK_S))
    for p, times in enumerate(STEPPED_BACK_S):
        produce(honest, honest.input_topic, messages(0, len(times), f"source-{p}", 86_400_000_000), p)
    sequence(honest)
    copied = honest.model_copy(update={"ledger": "stepped"})
    TopicsAdmin(kafka.bootstrap).create(specs_of(copied))
    for p, times in enumerate(STEPPED_BACK_S):
        found = records(honest, p)
        assert [entry["kind"] for _, entry in found] == ["CONTROL"] * CONTROLS_BEFORE + ["DATA"] * len(times)
        at_ms = [begun_ms] * CONTROLS_BEFORE + [begun_ms + 1_000 * s for s in times]
        changed: list[Message] = [
            (key, encode("LedgerEntry", {**entry, "authority_timestamp": ms}), [])
            for (key, entry), ms in zip(found, at_ms, strict=True)
        ]
        produce(copied, names_of(copied).sequenced, changed, p)
    return copied, begun_ms


#: Options of a list and what it shows: what it does not show has no say in its order. {20}: the instant of second 20.
BY_INSTANT: list[tuple[list[str], list[tuple[int, int]]]] = [
    ([], IN_ORDER[::-1]),
    (["--last", "3"], IN_ORDER[:-4:-1]),
    (["--partition", "0"], [(0, 5), (0, 4), (0, 3), (0, 2), (0, 1)]),
    (["--from", "{0}"], IN_ORDER),
    (["--from", "{0}", "--partition", "1"], [(1, 1), (1, 2), (1, 3), (1, 4)]),
    (["--from", "{0}", "--source", "source-0"], [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]),
    (["--from", "{20}", "--to", "{30}"], [(0, 2), (0, 3), (0, 5), (1, 2)]),
    (["--to", "{20}"], [(0, 1), (1, 1), (1, 4), (0, 3)]),
]
BY_SEQUENCE = [
    (["--from", "1"], IN_ORDER),
    (["--from", "2", "--to", "4"], [(0, 2), (0, 3), (1, 2), (1, 3), (1, 4), (0, 4)]),
    (["--from", "1", "--to", "2", "--partition", "0"], [(0, 1), (0, 2)]),
]


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        *(("log", *case) for case in BY_INSTANT),
        *(("warnings", *case) for case in BY_INSTANT + BY_SEQUENCE),
    ],
)
def test_partitions_are_listed_as_one_though_a_clock_stepped_back(
    stepped: tuple[Settings, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str,
    options: list[str], expected: list[tuple[int, int]],
) -> None:  # fmt: skip
    """By authority time, and never against the sequence of a partition."""
    settings, begun_ms = stepped
    use(settings, monkeypatch)
    given = [
        format_ms(begun_ms + 1_000 * int(option.strip("{}"))) if option.startswith("{") else option
        for option in options
    ]
    assert main(["drift", command, *given, "--output", "jsonl"]) == 0
    found = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert found == [f"{partition}:{sequence + CONTROLS_BEFORE}" for partition, sequence in expected]


def test_what_is_followed_begins_in_the_same_order(stepped: tuple[Settings, int]) -> None:
    """The last ones, or a range, before what comes."""
    settings, begun_ms = stepped
    with Ledger(settings, str(settings.bootstrap)) as ledger:
        for span in (None, Span(begun_ms, INT64_MAX)):
            entries = islice(coming_entries(ledger, None, None, None, span), len(IN_ORDER))
            assert [(entry.partition, entry.sequence) for entry in entries] == IN_ORDER
        for first in (None, "1", format_ms(begun_ms)):
            warned = islice(coming_warnings(ledger, None, None, None, first), len(IN_ORDER))
            assert [(warning.partition, warning.sequence) for warning in warned] == IN_ORDER
        last = islice(coming_entries(ledger, None, None, 2, None), 2)
        assert [(entry.partition, entry.sequence) for entry in last] == IN_ORDER[-2:]


# -------------------------------------------------------------------------------------------------------------- alerts


@pytest.mark.usefixtures("_command")
def test_alerts_are_listed_newest_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its whole record; one source on request."""
    assert main(["drift", "alerts", "--output", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["source"]: row["severity"] for row in rows} == {k: v for k, v in SEVERITIES.items() if v != "GREEN"}
    recorded = [row["recorded_at_ms"] for row in rows]
    assert recorded == sorted(recorded, reverse=True)
    assert rows[0]["at_open"]["sequence"] >= 1
    assert main(["drift", "alerts", "--source", "late"]) == 0
    out = capsys.readouterr().out
    assert "late's events are stamped 3." in out
    assert "ahead" not in out


def test_an_alert_that_was_closed_is_not_open(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the others the last record counts."""
    settings = begin(kafka, prefix)
    for source, offsets in {"mended": (9_000_000, 0), "worse": (2_000_000, 9_000_000)}.items():
        for turn, offset_us in enumerate(offsets):
            produce(settings, settings.input_topic, messages(turn * 5, turn * 5 + 5, source, offset_us))
    sequence(settings)
    use(settings, monkeypatch)
    assert main(["drift", "alerts", "--state", "open", "--output", "jsonl"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["source"], row["state"], row["severity"], row["revision"]) == ("worse", "CHANGED", "RED", 2)
    assert main(["drift", "alerts", "--output", "jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_alerts_can_be_followed(kafka: Any, prefix: str) -> None:
    """Each as it is committed, none twice, only those of the source asked for."""
    settings = begin(kafka, prefix)
    produce(settings, settings.input_topic, messages(0, 5, "early", 9_000_000))
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as ledger:
        positions = ends(ledger)
        produce(settings, settings.input_topic, messages(0, 5, "other", 9_000_000))
        produce(settings, settings.input_topic, messages(0, 5, "later", 2_000_000))
        writer = threading.Thread(target=sequence, args=(settings,))
        writer.start()
        coming = follow(ledger, positions, source="later")
        record = next(record for record in coming if record is not None)
        writer.join()
        assert (record.alert["source"], record.alert["state"]) == ("later", "OPENED")
        assert next(coming) is None


def test_a_foreign_record_among_the_alerts_is_skipped_and_named(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every reader of the topic, also the one of `up`."""
    settings = begin(kafka, prefix)
    topic = names_of(settings).drift_alerts
    produce(settings, topic, [(None, b"no alert", [])])
    produce(settings, settings.input_topic, messages(0, 5, "early", 9_000_000))
    sequence(settings)
    use(settings, monkeypatch)
    feed = AlertFeed(kafka.bootstrap, topic, 1)
    with Ledger(settings, kafka.bootstrap) as ledger, closing(feed), capture_logs() as lines:
        assert [record.alert["source"] for record in newest_alerts(ledger, 5)] == ["early"]
        assert [record.alert["source"] for record in open_alerts(ledger)] == ["early"]
        assert [record.alert["source"] for record in alerts_between(ledger, 0, 2**62)] == ["early"]
        assert next(record for record in follow(ledger, {0: 0}) if record).alert["source"] == "early"
        news: list[Any] = []
        while not news:
            news = feed.poll(1)
        assert [one.alert["source"] for one in news] == ["early"]
    expected = {"event": "alert_not_readable", "topic": topic, "partition": 0, "offset": 0}
    assert len(lines) == 5
    assert all(expected.items() <= line.items() for line in lines)


def test_the_log_and_the_warnings_can_be_followed(kafka: Any, prefix: str) -> None:
    """What comes behind the tail, none twice, only that of the source asked for; duplicates are no warnings."""
    settings = begin(kafka, prefix, snapshot_interval_ms=0, batch_events_max=5)
    early = messages(0, 5, "early", 9_000_000)
    produce(settings, settings.input_topic, early)
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as ledger:
        entries = DriftLog(ledger).coming({0: ledger.tail(0)}, source="early")
        warned = follow_warnings(ledger, {0: ledger.tail(0)}, source="early")
        produce(settings, settings.input_topic, [*early, *messages(0, 5, "other", 9_000_000)])
        produce(settings, settings.input_topic, messages(5, 8, "early", 9_000_000))
        writer = threading.Thread(target=sequence, args=(settings,))
        writer.start()
        followed = [next(entries) for _ in range(8)]
        assert [entry.sequence for entry in followed] == [6, 7, 8, 9, 10, 16, 17, 18]
        assert [entry.cause for entry in followed] == [Cause.NONE] * 5 + [Cause.AHEAD] * 3  # five were there before
        assert [next(warned).event_id for _ in range(3)] == ["early-5", "early-6", "early-7"]
        writer.join()


def test_following_what_is_open_leaves_out_what_closes(kafka: Any, prefix: str) -> None:
    """Whoever asks for all is told that, too."""
    settings = begin(kafka, prefix)
    for turn, offset_us in enumerate((9_000_000, 0, 9_000_000)):
        produce(settings, settings.input_topic, messages(turn * 5, turn * 5 + 5, "s", offset_us))
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as ledger:
        for which, states in ((Which.ALL, ["OPENED", "CLOSED"]), (Which.OPEN, ["OPENED", "OPENED"])):
            coming = coming_alerts(ledger, {0: 0}, None, which)
            assert [next(coming).alert["state"] for _ in states] == states


@pytest.mark.parametrize(
    ("words", "output"),
    [("alerts", "table"), ("alerts", "jsonl"), ("log", "table"), ("warnings", "csv")],
)
def test_the_command_follows_until_it_is_interrupted(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, words: str, output: str
) -> None:
    """What there is, oldest first, then what comes, a line each as it comes; exit code 130."""
    settings = begin(kafka, prefix)
    produce(settings, settings.input_topic, messages(0, 5, "early", 9_000_000))
    sequence(settings)
    use(settings, monkeypatch)
    command = [sys.executable, "-c", "from streams.cli.main import run; run()", "drift", words, "--follow"]
    count = 1 if words == "alerts" else 5
    following = subprocess.Popen([*command, "--output", output], stdout=subprocess.PIPE, text=True)
    try:
        assert following.stdout is not None
        if output != "jsonl":
            assert following.stdout.readline().startswith("id," if output == "csv" else ("recorded at ", "created at "))
        assert all("early" in following.stdout.readline() for _ in range(count))
        produce(settings, settings.input_topic, messages(0, 5, "later", 7_000_000))
        sequence(settings)
        assert all("later" in following.stdout.readline() for _ in range(count))
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130
    finally:
        following.kill()
        following.communicate()
