"""The drift log, warnings and alerts on a real broker: asked, written, and answered from the ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from schemas.clock import SystemTime
from schemas.errors import BadInputError
from schemas.topics import partition_for
from streams.alert_log import ends, follow
from streams.cli.main import main
from streams.drift_entries import Reading
from streams.drift_log import DriftLog, NotBegunError, NotSequencedError
from streams.drift_warnings import last_warnings, warnings_between
from streams.queries import Ledger
from streams.severity import Severity
from streams.snapshots import read_snapshots
from tests.broker.ledgers import begin, event, names_of, produce, records, running, sequence, use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.settings import Settings

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
            sent = messages(first, last, source, offset_us)
            if first:
                sent += sent[:5]  # sent again: no warning of these
            produce(settings, settings.input_topic, [*sent, (None, b"?", [])], partition_of(source))
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
    keys = [(entry.order_ms, entry.partition, entry.index) for entry in entries]
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
    [(0, "GREEN"), (-3_000_000, "YELLOW"), (9_000_000, "RED"), (-(2**62), "RED"), (2**62, "RED")],
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
        given = "now" if off_us == 0 else str(SystemTime().now_us() + off_us)  # a command begins within a second
        assert main(["drift", "verify", "--source", "wrist", "--output", "jsonl", "--", given]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["severity"] == severity
    assert set(row) == {"id", "server_time", "server_time_ms", "delta_ms", "severity", "phase_lock_hash"}
    if given == "now":
        assert abs(row["delta_ms"]) < 400  # read as the record leaves: connecting takes longer than that
    else:
        assert abs(row["delta_ms"] - off_us / 1_000) < 900
    with Ledger(settings, kafka.bootstrap) as ledger:
        (entry,) = DriftLog(ledger).newest(1, source="wrist")
    assert (entry.id, entry.drift_delta_ms, entry.reading) == (row["id"], row["delta_ms"], Reading.VERIFY)
    assert entry.phase_lock_hash.hex() == row["phase_lock_hash"]


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
        with pytest.raises(NotSequencedError) as raised:
            DriftLog(ledger).verify_drift(0, timeout_s=0)
    assert raised.value.written.offset == 3


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
    """In order of sequence, with what S1.4 asks for."""
    for source in ("ahead", "lost"):
        partition = partition_of(source)
        found = list(warnings_between(ledger, partition, 1, source=source))
        assert [warning.event_id for warning in found] == [f"{source}-{n}" for n in range(60)]
        assert [warning.sequence for warning in found] == sorted(warning.sequence for warning in found)
    for source in ("steady", "late", "nobody"):
        assert [w for p in range(PARTITIONS) for w in warnings_between(ledger, p, 1, source=source)] == []


def test_a_warning_says_how_far_with_three_decimals(ledger: Ledger) -> None:
    """Without a sign; logged when the authority dated the event."""
    (first, *_) = last_warnings(ledger, partition_of("lost"), 1, source="lost")
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
        assert last_warnings(ledger, partition, most) == everything[-most:]


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
    assert "late is 3." in out
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


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_the_command_follows_until_it_is_interrupted(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """What there is, oldest first, then what comes, a line each as it comes; exit code 130."""
    settings = begin(kafka, prefix)
    produce(settings, settings.input_topic, messages(0, 5, "early", 9_000_000))
    sequence(settings)
    use(settings, monkeypatch)
    command = [sys.executable, "-c", "from streams.cli.main import run; run()", "drift", "alerts", "--follow"]
    following = subprocess.Popen([*command, "--output", output], stdout=subprocess.PIPE, text=True)
    try:
        assert following.stdout is not None
        assert "early is " in following.stdout.readline()
        produce(settings, settings.input_topic, messages(0, 5, "later", 2_000_000))
        sequence(settings)
        assert "later is " in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130
    finally:
        following.kill()
        following.communicate()
