"""What a ledger answers about its sequences on a real broker, through the API and the command."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from schemas.clock import SystemTime
from schemas.codec import encode
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import format_us
from streams.cli.main import main
from streams.ledger_reader import find_offset
from streams.queries import MISSING_MAX, Ledger
from tests.broker.ledgers import begin, copy_with, event, names_of, produce, records, sequence, use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.settings import Settings

EVENTS = 60
LOCAL_US = 1_790_000_000_000_000


@pytest.fixture(scope="module")
def written(kafka: Any) -> Settings:
    """Two partitions: the first with events and some that are none, the second empty but for its beginning."""
    settings = begin(kafka, f"ask-{SystemTime().now_us():x}", partitions=2, batch_events_max=7)
    made: list[Any] = [
        (f"pump-{n % 3}".encode(), event(f"pump-{n % 3}", f"e{n}", LOCAL_US + n, n / 2), []) for n in range(1, EVENTS)
    ]
    made[9] = (b"\xff\xfe", event("pump-0", "e10", LOCAL_US, float("nan"), b"\x80\x81"), [])
    made[19] = (None, b"\x00\xff", [])
    made[29] = (b"k", None, [])
    made.append((b"pump-1", event("pump-1", "last", LOCAL_US, None, b'{"a": 1}'), []))
    produce(settings, settings.input_topic, made)
    sequence(settings)
    return settings


@pytest.fixture
def ledger(written: Settings) -> Iterator[Ledger]:
    """Opened."""
    assert written.bootstrap is not None
    with Ledger(written, written.bootstrap) as opened:
        yield opened


def test_the_maximum_is_the_last_sequence_and_0_where_there_is_none(ledger: Ledger) -> None:
    """Control entries do not count."""
    assert [ledger.get_max_sequence(partition) for partition in (0, 1)] == [EVENTS, 0]


def test_a_range_holds_both_its_ends_in_order(ledger: Ledger) -> None:
    """With the events as they were sent and the broker's times."""
    rows = list(ledger.get_events_by_sequence_range(0, 2, 59))
    assert [row["sequence"] for row in rows] == list(range(2, 60))
    assert [row["input_offset"] for row in rows] == list(range(1, 59))
    assert [row["index"] for row in rows] == list(range(4, 62))
    assert [row.get("event_id") for row in rows[:3]] == ["e2", "e3", "e4"]
    assert (rows[0]["source"], rows[0]["value"], rows[0]["local_timestamp"]) == ("pump-2", 1.0, format_us(LOCAL_US + 2))


def test_events_can_be_followed(kafka: Any, prefix: str) -> None:
    """From a sequence on: what there is, then what comes, also into a partition that had none."""
    settings = begin(kafka, prefix)
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as opened:
        coming = opened.follow_events(0, 2)
        for first in (0, 3):
            sent: list[Any] = [(b"s", event("s", f"e{n}", LOCAL_US), []) for n in range(first, first + 3)]
            produce(settings, settings.input_topic, sent)
            sequence(settings)
            expected = range(max(first, 1), first + 3)
            assert [next(coming)["event_id"] for _ in expected] == [f"e{n}" for n in expected]
        with pytest.raises(BadInputError):
            opened.follow_events(0, 0)


def test_a_range_that_reaches_beyond_the_end_gives_what_there_is(ledger: Ledger) -> None:
    """And an empty partition gives nothing."""
    assert [row["sequence"] for row in ledger.get_events_by_sequence_range(0, EVENTS - 1, 10**9)] == [
        EVENTS - 1,
        EVENTS,
    ]
    assert list(ledger.get_events_by_sequence_range(0, EVENTS + 1, EVENTS + 9)) == []
    assert list(ledger.get_events_by_sequence_range(1, 1, 10)) == []


@pytest.mark.parametrize(("partition", "start", "end"), [(0, 0, 5), (0, 6, 5), (0, -3, -1), (2, 1, 5), (-1, 1, 5)])
def test_a_range_that_is_none_is_refused_at_once(ledger: Ledger, partition: int, start: int, end: int) -> None:
    """By both questions that take one."""
    with pytest.raises(BadInputError):
        ledger.get_events_by_sequence_range(partition, start, end)
    with pytest.raises(BadInputError):
        ledger.verify_sequence_continuity(partition, start, end)


def test_an_event_that_cannot_be_read_is_shown_with_its_fault(ledger: Ledger) -> None:
    """And with its bytes, in base64 where they are no text."""
    rows = {row["sequence"]: row for row in ledger.get_events_by_sequence_range(0, 1, EVENTS)}
    assert rows[20]["fault"] == "UNKNOWN_FRAMING"
    assert base64.b64decode(rows[20]["raw_base64"]) == b"\x00\xff"
    assert "key" not in rows[20]
    assert (rows[30]["fault"], rows[30]["value_length"], rows[30]["key"]) == ("NULL_VALUE", -1, "k")
    assert "raw" not in rows[30]
    assert (rows[10]["value"], base64.b64decode(rows[10]["payload_base64"])) == ("NaN", b"\x80\x81")
    assert base64.b64decode(rows[10]["key_base64"]) == b"\xff\xfe"
    assert (rows[60]["value"], rows[60]["payload"]) == (None, '{"a": 1}')
    assert not any("fault" in row for number, row in rows.items() if number not in (20, 30))


def test_a_whole_range_is_continuous(ledger: Ledger) -> None:
    """Nothing is missing."""
    assert ledger.verify_sequence_continuity(0, 1, EVENTS) == (True, [])
    assert ledger.verify_sequence_continuity(0, 33, 33) == (True, [])


def test_what_lies_beyond_the_end_is_missing(ledger: Ledger) -> None:
    """All of it, in an empty partition."""
    assert ledger.verify_sequence_continuity(0, EVENTS, EVENTS + 2) == (False, [EVENTS + 1, EVENTS + 2])
    assert ledger.verify_sequence_continuity(1, 3, 5) == (False, [3, 4, 5])
    with pytest.raises(BadInputError, match="Give a narrower range"):
        ledger.verify_sequence_continuity(0, 1, EVENTS + MISSING_MAX + 1)


def test_missing_sequences_are_named_in_order(written: Settings) -> None:
    """As many as were taken out, wherever."""
    gone = {4, 5, 6, 17, EVENTS}
    copied = copy_with(
        written,
        "with-gaps",
        lambda found: [(k, e) for k, e in found if e["kind"] == "CONTROL" or e["sequence"] not in gone],
    )
    assert copied.bootstrap is not None
    with Ledger(copied, copied.bootstrap) as opened:
        assert opened.verify_sequence_continuity(0, 1, EVENTS) == (False, sorted(gone))
        assert opened.verify_sequence_continuity(0, 5, 16) == (False, [5, 6])
        assert opened.verify_sequence_continuity(0, 7, 16) == (True, [])


def test_a_sequence_that_stands_twice_is_not_continuous(written: Settings) -> None:
    """Although none is missing."""
    copied = copy_with(written, "with-a-double", lambda found: [*found[:20], *found[19:]])
    assert copied.bootstrap is not None
    with Ledger(copied, copied.bootstrap) as opened:
        assert opened.verify_sequence_continuity(0, 1, EVENTS) == (False, [])


def test_every_number_is_found_where_it_stands(written: Settings) -> None:
    """Among the markers of transactions, and where a long run of control entries repeats one sequence."""

    def idle_for_long(found: list[Any]) -> list[Any]:
        key, last = found[-1]
        idle = [
            (key, {**last, "kind": "CONTROL", "index": last["index"] + n, "control_offset": last["control_offset"] + n})
            for n in range(1, 400)
        ]
        return [*found, *idle]

    copied = copy_with(written, "idle", idle_for_long)
    assert copied.bootstrap is not None
    for settings in (written, copied):
        with Ledger(settings, settings.bootstrap or "") as opened:
            tail = opened.tail(0)
            assert tail is not None
            topic = names_of(settings).sequenced
            bounds = opened.log.bounds(topic, 0)
            placed = [
                (message.offset(), record[1])
                for message, record in zip(
                    list(opened.log.scan(topic, 0, bounds.start, bounds.stable_end)), records(settings), strict=True
                )
            ]
            for field in ("sequence", "index", "control_offset"):
                for wanted in sorted({entry[field] for _, entry in placed})[-70:]:
                    expected = next(offset for offset, entry in placed if entry[field] >= wanted)
                    assert find_offset(opened.log, topic, 0, tail, field, wanted) == expected


def test_the_framing_is_that_of_the_ledger_not_of_whoever_asks(kafka: Any, prefix: str) -> None:
    """The first DEFINITION says it."""
    settings = begin(kafka, prefix, framing="json")
    produce(
        settings,
        settings.input_topic,
        [(None, b'{"event_id": "j", "source": "s", "local_timestamp": 5, "kind": "k"}', [])],
    )
    sequence(settings)
    asking = settings.model_copy(update={"framing": "single_object"})
    with Ledger(asking, kafka.bootstrap) as opened:
        (row,) = opened.get_events_by_sequence_range(0, 1, 1)
    assert (row["event_id"], row["local_timestamp_us"]) == ("j", 5)


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def _command(written: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    use(written, monkeypatch)


@pytest.mark.usefixtures("_command")
def test_max_prints_each_partition_and_a_total_last(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs one object a partition, without the total."""
    assert main(["sequence", "max"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[-3:] == [["0", str(EVENTS)], ["1", "0"], ["total", str(EVENTS)]]
    assert main(["sequence", "max", "--output", "jsonl"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"partition": 0, "max_sequence": EVENTS},
        {"partition": 1, "max_sequence": 0},
    ]
    assert main(["sequence", "max", "--partition", "1", "--output", "csv"]) == 0
    assert capsys.readouterr().out == "partition,max_sequence\n1,0\n"


def test_a_partition_whose_end_is_no_entry_does_not_hide_the_others(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no maximum, and no total has it; exit code 1."""
    settings = begin(kafka, prefix, partitions=2)
    produce(settings, settings.input_topic, [(b"s", event("s", "e", LOCAL_US), [])], partition=1)
    sequence(settings)
    produce(settings, names_of(settings).sequenced, [(None, b"no entry", [])])
    use(settings, monkeypatch)
    assert main(["sequence", "max", "--output", "csv"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "partition,max_sequence\n0,\n1,1\n"
    assert "partition 0 broken, LEDGER_BROKEN: a ledger record does not decode" in printed.err
    assert main(["sequence", "max"]) == 1
    assert capsys.readouterr().out.split()[-2:] == ["total", "-"]


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], range(EVENTS - 9, EVENTS + 1)),
        (["--last", "3"], range(EVENTS - 2, EVENTS + 1)),
        (["--last", "1000"], range(1, EVENTS + 1)),
        (["--from", "58"], range(58, EVENTS + 1)),
        (["--to", "4"], range(1, 5)),
        (["--from", "10", "--to", "12"], range(10, 13)),
    ],
)
def test_range_lists_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], options: list[str], expected: range
) -> None:
    """In order of sequence, whatever was asked for."""
    assert main(["sequence", "range", "--partition", "0", *options, "--output", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["sequence"]) for row in rows] == list(expected)


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-p", "0", "--from", "99999999"], f"partition 0 has the sequences 1 to {EVENTS}"),
        (["-p", "0", "--from", "99999998", "--to", "99999999"], f"partition 0 has the sequences 1 to {EVENTS}"),
        (["-p", "1"], "partition 1 is empty"),
    ],
)
def test_a_range_with_nothing_in_it_says_what_there_is(
    capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    """On stderr; it is no fault."""
    assert main(["sequence", "range", *options, "--output", "jsonl"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err


@pytest.mark.usefixtures("_command")
def test_range_shows_people_what_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A fault in place of an event; an empty partition is an empty table."""
    assert main(["sequence", "range", "--partition", "0", "--from", "19", "--to", "20"]) == 0
    out = capsys.readouterr().out
    assert "e19" in out
    assert "UNKNOWN_FRAMING" in out
    assert main(["sequence", "range", "--partition", "1"]) == 0


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sequence", "range"], "Give --partition 0 to 1"),
        (["sequence", "range", "-p", "0", "--last", "5", "--from", "1"], "one or the other"),
        (["sequence", "range", "-p", "0", "--last", "0"], "--last"),
        (["sequence", "range", "-p", "0", "--to", "9", "--follow"], "one or the other"),
        (["sequence", "range", "-p", "0", "--from", "0"], "they begin at 1"),
        (["sequence", "range", "-p", "0", "--from", "9", "--to", "8"], "9 to 8 is no range"),
        (["sequence", "max", "-p", "9"], "there is no partition 9"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    """Exit code 2 and nothing on stdout."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""


def test_without_topics_it_says_how_to_make_them(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3."""
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("DRIFTLEDGER_PREFIX", prefix)
    assert main(["sequence", "max"]) == 3
    assert "Run `driftledger topics create`" in capsys.readouterr().err


def test_a_ledger_that_is_not_there_is_no_outage(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kafka is up, and says that it has no such topic; also where stores are asked before the ledger."""
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("DRIFTLEDGER_PREFIX", prefix)
    assert main(["--ledger", "nosuch", "get", "pump-7"]) == 3
    told = capsys.readouterr().err
    assert f"topic {prefix}.nosuch.sequenced does not exist" in told
    assert "topics create` with the same --ledger" in told
    assert "Is it up?" not in told


def test_a_broker_that_goes_away_is_an_error_not_a_wait_without_end(written: Settings) -> None:
    """Nothing listens there."""
    with pytest.raises(UnreachableError):
        Ledger(written, "127.0.0.1:1")


def test_a_definition_that_cannot_be_read_is_passed_over(kafka: Any, prefix: str) -> None:
    """As judge does: the framing before it stays in force."""
    settings = begin(kafka, prefix)
    sequence(settings)
    bad = encode("Control", {"body": ("Definition", {"name": "judge", "body": "{}"}), "actor": "a", "reason": "r"})
    produce(settings, names_of(settings).control, [(None, bad, []), (None, b"no control record", [])])
    produce(settings, settings.input_topic, [(None, event("s", "e", 1), [])])
    sequence(settings)
    with Ledger(settings, kafka.bootstrap) as opened:
        (row,) = opened.get_events_by_sequence_range(0, 1, 1)
    assert row["event_id"] == "e"
