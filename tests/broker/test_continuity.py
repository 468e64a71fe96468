"""`driftledger sequence check` on a real broker: a whole ledger is whole, and what is wrong is found where it is."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.clock import SystemTime
from schemas.errors import BadInputError
from streams.cli.main import main
from streams.continuity import FINDINGS_MAX, Wrong, check_partition
from streams.queries import Ledger
from tests.broker.ledgers import Message, Record, begin, copy_with, event, produce, rechained, sequence, use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streams.continuity import PartitionCheck
    from streams.settings import Settings

EVENTS = 120
#: GENESIS and DEFINITION come first, so sequence n stands at this + n.
CONTROLS = 2


def messages() -> list[Message]:
    """Events of every shape the sequencer takes: keys, headers, nulls, too long, not events at all."""
    now_us = SystemTime().now_us()
    made: list[Message] = []
    for n in range(1, EVENTS + 1):
        value: bytes | None = event(f"pump-{n % 5}", f"e{n}", now_us + n)
        headers: list[tuple[str, str | bytes | None]] = []
        key: bytes | None = f"pump-{n % 5}".encode()
        match n % 10:
            case 1:
                key = None
            case 2:
                headers = [("trace", b"\x00\xff"), ("trace", None), ("", b"")]
            case 3:
                value = None
            case 4:
                value = b"not an event"
            case 5:
                value = event("pump-0", f"e{n}", now_us, payload=b"x" * 3_000)
            case 6:
                key = b"k" * 700
        made.append((key, value, headers))
    return made


@pytest.fixture(scope="module")
def written(kafka: Any) -> Settings:
    """A ledger of one partition; values over 2,000 bytes are omitted."""
    prefix = f"whole-{SystemTime().now_us():x}"
    settings = begin(kafka, prefix, max_value_bytes=2_000, batch_events_max=50)
    produce(settings, settings.input_topic, messages())
    sequence(settings)
    return settings


def check(settings: Settings, start: int = 1) -> PartitionCheck:
    """Of partition 0."""
    assert settings.bootstrap is not None
    with Ledger(settings, settings.bootstrap) as ledger:
        return check_partition(ledger, 0, start)


def places(found: PartitionCheck) -> list[tuple[Wrong, int]]:
    """What and at which index."""
    return [(finding.wrong, finding.index) for finding in found.findings]


def test_a_ledger_that_a_lane_wrote_is_whole(written: Settings) -> None:
    """Every entry checked, every event compared with its input record."""
    found = check(written)
    assert found.findings == []
    assert (found.entries, found.first_index, found.compared, found.gone) == (EVENTS + CONTROLS, 1, EVENTS, 0)
    assert found.head is not None
    assert (found.head.index, found.head.sequence) == (EVENTS + CONTROLS, EVENTS)


@pytest.mark.parametrize("start", [2, 57, EVENTS])
def test_a_check_may_begin_at_a_sequence(written: Settings, start: int) -> None:
    """It takes the entry before for granted and compares what follows."""
    found = check(written, start)
    assert found.findings == []
    assert (found.first_index, found.compared) == (start + CONTROLS, EVENTS - start + 1)


@pytest.mark.parametrize("start", [0, -1, EVENTS + 1])
def test_a_sequence_that_is_not_there_is_refused(written: Settings, start: int) -> None:
    """Rather than called whole."""
    with pytest.raises(BadInputError, match=f"has the sequences 1 to {EVENTS}"):
        check(written, start)


def test_the_command_says_whole_and_exits_with_0(
    written: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object a partition; nothing on stderr."""
    use(written, monkeypatch)
    assert main(["sequence", "check", "--output", "jsonl"]) == 0
    told = capsys.readouterr()
    row = json.loads(told.out)
    assert (row["result"], row["entries"], row["compared_with_input"], row["findings"]) == ("whole", 122, 120, [])
    assert told.err == ""


def entry(records: list[Record], sequence_number: int) -> dict[str, Any]:
    """The DATA entry of a sequence."""
    return records[sequence_number + CONTROLS - 1][1]


def flipped_value(records: list[Record]) -> list[Record]:
    """One bit of a value."""
    changed = entry(records, 17)
    changed["value"] = bytes([changed["value"][0] ^ 1]) + changed["value"][1:]
    return records


def flipped_chain(records: list[Record]) -> list[Record]:
    """One bit of a chain hash."""
    changed = entry(records, 17)
    changed["chain_hash"] = bytes([changed["chain_hash"][0] ^ 1]) + changed["chain_hash"][1:]
    return records


def moved_time(records: list[Record]) -> list[Record]:
    """An append time one millisecond later."""
    entry(records, 17)["authority_timestamp"] += 1
    return records


def other_value(records: list[Record]) -> list[Record]:
    """A value with its own hash."""
    changed = entry(records, 17)
    changed["value"] = changed["value"][:-1] + b"?"
    changed["value_hash"] = hashlib.sha256(changed["value"]).digest()
    return records


def renumbered(records: list[Record]) -> list[Record]:
    """A sequence left out, the index not."""
    entry(records, 17)["sequence"] += 1
    return records


def moved_back(records: list[Record]) -> list[Record]:
    """An input offset that was there before."""
    entry(records, 17)["input_offset"] -= 1
    return records


def missing(records: list[Record]) -> list[Record]:
    """An entry taken out."""
    del records[17 + CONTROLS - 1]
    return records


def swapped(records: list[Record]) -> list[Record]:
    """Two neighbours exchanged."""
    at = 17 + CONTROLS - 1
    records[at], records[at + 1] = records[at + 1], records[at]
    return records


def doubled(records: list[Record]) -> list[Record]:
    """An entry written twice."""
    at = 17 + CONTROLS - 1
    return [*records[: at + 1], *records[at:]]


def headless(records: list[Record]) -> list[Record]:
    """The first ten entries deleted."""
    return records[10:]


def hidden_removal(records: list[Record]) -> Iterable[Record]:
    """An event taken out and everything behind it written anew."""
    return rechained(missing(records))


def hidden_change(records: list[Record]) -> Iterable[Record]:
    """A value changed and everything behind it written anew."""
    return rechained(other_value(records))


def hidden_key(records: list[Record]) -> Iterable[Record]:
    """A key changed and everything behind it written anew."""
    at = 17 + CONTROLS - 1
    records[at] = (b"other", records[at][1])
    return rechained(records)


def hidden_headers(records: list[Record]) -> Iterable[Record]:
    """Headers taken off and everything behind it written anew."""
    entry(records, 12)["headers"].pop()
    return rechained(records)


def hidden_time(records: list[Record]) -> Iterable[Record]:
    """An append time changed and everything behind it written anew."""
    return rechained(moved_time(records))


def invented(records: list[Record]) -> Iterable[Record]:
    """An event that nobody sent, at the end."""
    key, last = records[-1]
    return rechained([*records, (key, {**last, "input_offset": last["input_offset"] + 1})])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (flipped_value, [(Wrong.VALUE_HASH, 19)]),
        (flipped_chain, [(Wrong.CHAIN, 19), (Wrong.CHAIN, 20)]),
        (moved_time, [(Wrong.CHAIN, 19), (Wrong.INPUT_TIME, 19)]),
        (other_value, [(Wrong.CHAIN, 19), (Wrong.INPUT_VALUE, 19)]),
        (renumbered, [(Wrong.SEQUENCE, 19), (Wrong.SEQUENCE, 20), (Wrong.INPUT_RANK, 19)]),
        (moved_back, [(Wrong.OFFSET, 19), (Wrong.INPUT_NO_RECORD, 19)]),
        (missing, [(Wrong.INDEX, 20), (Wrong.INPUT_HOLE, 20)]),
        (swapped, [(Wrong.INDEX, 20), (Wrong.INDEX, 19), (Wrong.INDEX, 21)]),
        (doubled, [(Wrong.INDEX, 19)]),
        (headless, [(Wrong.START_LOST, 11), (Wrong.INDEX, 11)]),
        (hidden_removal, [(Wrong.INPUT_HOLE, 19)]),
        (hidden_change, [(Wrong.INPUT_VALUE, 19)]),
        (hidden_key, [(Wrong.INPUT_KEY, 19)]),
        (hidden_headers, [(Wrong.INPUT_HEADERS, 14)]),
        (hidden_time, [(Wrong.INPUT_TIME, 19)]),
        (invented, [(Wrong.INPUT_NO_RECORD, EVENTS + CONTROLS + 1)]),
    ],
)
def test_what_was_changed_is_found_where_it_is(
    written: Settings, change: Callable[[list[Record]], Iterable[Record]], expected: list[tuple[Wrong, int]]
) -> None:
    """By the numbers and the chain; where the chain was written anew, by the input."""
    found = places(check(copy_with(written, change.__name__, change)))
    assert [place for place in found if not place[0].startswith("INPUT")] == [
        place for place in expected if not place[0].startswith("INPUT")
    ]
    assert set(expected) <= set(found)
    if all(wrong.startswith("INPUT") for wrong, _ in expected):
        assert found == expected


def test_a_check_that_begins_behind_a_missing_entry_says_so(written: Settings, prefix: str) -> None:
    """Although the entries from there on follow one another."""
    copied = copy_with(written, f"behind-{prefix}", missing)
    assert places(check(copied, 18)) == [(Wrong.INDEX, 20)]
    assert places(check(copied, 19)) == []


def test_a_record_that_is_no_entry_ends_the_check_there(written: Settings) -> None:
    """What stands before it was checked."""
    copied = copy_with(written, "garbage", lambda records: [*records[:40], b"no entry", *records[40:]])
    found = check(copied)
    assert places(found) == [(Wrong.MALFORMED, 41)]
    assert (found.entries, found.findings[0].ledger_offset) == (40, 40)


def test_a_ledger_whose_end_is_no_entry_cannot_be_checked(written: Settings) -> None:
    """Which is a finding, not an error."""
    found = check(copy_with(written, "garbage-end", lambda records: [*records, b"no entry"]))
    assert places(found) == [(Wrong.MALFORMED, 0)]


def test_a_ledger_that_is_wrong_everywhere_is_not_read_to_its_end(written: Settings) -> None:
    """The list of findings has a limit."""

    def unchained(records: list[Record]) -> list[Record]:
        return [(key, {**fields, "chain_hash": bytes(32)}) for key, fields in records]

    assert len(check(copy_with(written, "unchained", unchained)).findings) == FINDINGS_MAX


def test_another_input_of_the_same_name_is_not_compared(kafka: Any, prefix: str, written: Settings) -> None:
    """It is a finding of its own: the ledger's numbers mean the old topic."""
    other = begin(kafka, prefix)
    produce(other, other.input_topic, messages())
    copied = copy_with(
        written.model_copy(update={"input_topic": other.input_topic}), f"over-{prefix}", lambda records: records
    )
    found = check(copied)
    assert places(found) == [(Wrong.INPUT_RECREATED, 1)]
    assert (found.compared, found.entries) == (0, EVENTS + CONTROLS)


def test_without_its_input_the_chain_is_checked_all_the_same(written: Settings, prefix: str) -> None:
    """And it is said that nothing was compared."""
    copied = copy_with(written, f"alone-{prefix}", lambda records: records)
    found = check(copied.model_copy(update={"input_topic": f"{prefix}.nowhere"}))
    assert (found.findings, found.compared, found.entries) == ([], 0, EVENTS + CONTROLS)
    assert "does not exist" in found.note


def test_the_command_says_where_what_and_what_to_do(
    written: Settings, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; the finding on stderr, and for programs in the object of its partition."""
    use(copy_with(written, f"told-{prefix}", flipped_value), monkeypatch)
    assert main(["sequence", "check", "--output", "jsonl"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("partition 0, index 19, sequence 17 (ledger offset 18): VALUE_HASH, ")
    assert "Restore the ledger topic from a copy" in told.err
    (finding,) = json.loads(told.out)["findings"]
    assert (finding["wrong"], finding["index"], finding["sequence"]) == ("VALUE_HASH", 19, 17)
    assert main(["sequence", "check"]) == 1
    assert "broken" in capsys.readouterr().out


def test_an_empty_ledger_has_nothing_wrong(
    kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But no sequence to begin at either."""
    use(begin(kafka, prefix, partitions=2), monkeypatch)
    assert main(["sequence", "check"]) == 0
    assert capsys.readouterr().out.count("empty") == 2
    assert main(["sequence", "check", "--partition", "1", "--from", "5"]) == 2
    assert "partition 1 is empty" in capsys.readouterr().err


def test_a_partition_that_is_not_there_is_a_usage_error(
    written: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Naming those that are."""
    use(written, monkeypatch)
    assert main(["sequence", "check", "--partition", "7"]) == 2
    assert "there is no partition 7" in capsys.readouterr().err


def test_what_retention_removed_from_the_input_is_counted_and_not_compared(kafka: Any, prefix: str) -> None:
    """The rest is, with its rank taken from the ledger."""
    settings = begin(kafka, prefix, max_value_bytes=2_000)
    produce(settings, settings.input_topic, messages())
    sequence(settings)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.delete_records([TopicPartition(settings.input_topic, 0, 50)]).values():
        future.result()
    found = check(settings)
    assert (found.findings, found.gone, found.compared) == ([], 50, EVENTS - 50)
