"""Whatever a producer can send: it is sequenced, judged or a dead letter, and the worker lives."""

from __future__ import annotations

import hashlib
import json
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Producer

from schemas.canonical import ValueState, canonical_headers
from schemas.codec import decode, single_object_prefix
from schemas.columns import Fault
from streams.judge import Judge
from streams.judge_kernel import Flag
from streams.ledger_reader import read_entries, read_tail
from streams.severity import Severity
from tests.broker.harness import (
    LABELS_BYTES_MAX,
    Ledger,
    check_exactly_once,
    event_value,
    read_ledger,
    states_of,
    time,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DAY_US = 86_400_000_000
#: 0001-01-01 and 9999-12-31T23:59:59.999999, in microseconds since 1970.
YEAR_1_US, YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_999_999
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


def _good(number: int, source: str = "pump") -> bytes:
    return event_value(f"good-{number}", source, time.now_us())


def _spoilt() -> list[tuple[bytes | None, Fault]]:
    """Values that cannot be read, and why."""
    good = _good(0)
    body = good[10:]
    bad_text = single_object_prefix("Event") + b"\x04\xff\xfe" + body[1 + len("good-0") :]
    return [
        (good[:-3], Fault.TRUNCATED),
        (good[:12], Fault.TRUNCATED),
        (good[:7], Fault.TRUNCATED),
        (good + b"\0", Fault.TRAILING_BYTES),
        (good[:2] + bytes(8) + good[10:], Fault.WRONG_FINGERPRINT),
        (b'{"event_id": "json"}', Fault.UNKNOWN_FRAMING),
        (b"\x00\x00\x00\x00\x01" + body, Fault.UNKNOWN_FRAMING),
        (b"", Fault.EMPTY),
        (None, Fault.NULL_VALUE),
        (bad_text, Fault.BAD_UTF8),
    ]


def _severity(behind_us: int) -> Severity:
    """Of an event whose instant is so far before its authority's."""
    return Severity.GREEN if behind_us < 999_500 else Severity.YELLOW if behind_us < 4_999_500 else Severity.RED


class _Sent(NamedTuple):
    """A record of the input."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def _send(ledger: Ledger, records: Iterable[_Sent], partition: int = 0, compression: str = "lz4") -> None:
    """Records to one partition, in order, each in a request of its own; sizes only the broker limits."""
    refused: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": ledger.bootstrap,
            "enable.idempotence": True,
            "compression.type": compression,
            "message.max.bytes": 64_000_000,
            "log_level": 0,
        }
    )
    for key, value, headers in records:
        producer.produce(
            ledger.names.input,
            value,
            key,
            partition,
            headers=list(headers),
            on_delivery=lambda e, _: refused.append(str(e)) if e else None,
        )
        producer.flush(30)
    assert not refused


def _run(ledger: Ledger, *metrics: str) -> list[float]:
    """Let a worker bring the ledger level; it stays healthy. Returns the metrics asked for."""
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        worker.wait_live(ledger.settings.lanes)
        status, facts = worker.health()
        assert status == 200, facts
        events = sum(_sequence(ledger, partition) for partition in ledger.partitions)
        wait_for(lambda: worker.metric("driftledger_events_total") == events, "all are counted")
        values = [worker.metric(f"driftledger_{name}") for name in metrics]
        worker.stop()
    assert "lane_failed" not in worker.output
    return values


def _sequence(ledger: Ledger, partition: int) -> int:
    head = ledger.head(partition)
    return 0 if head is None else head.sequence


def _dead_letters(ledger: Ledger, partition: int = 0) -> list[dict[str, Any]]:
    letters = []
    for record in ledger.records(ledger.names.dead_letters, partition):
        value = record.value()
        assert value is not None
        letters.append(decode("DeadLetter", value) | {"key": record.key()})
    return letters


def test_an_undecodable_record_becomes_one_dead_letter_each(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """With its reason, its place and its bytes; what stands between them is judged."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1}).create()
    spoilt = _spoilt()
    sent: list[_Sent] = []
    for number, (value, _) in enumerate(spoilt, start=1):
        sent += [_Sent(b"key" if number % 2 else None, value), _Sent(b"pump", _good(number))]
    _send(ledger, sent)
    dead, judged = _run(ledger, "dead_letters_total", "severity_total")
    assert check_exactly_once(ledger) == len(sent)
    letters = _dead_letters(ledger)
    assert [letter["reason"] for letter in letters] == [fault.name for _, fault in spoilt]
    for number, (letter, (value, _)) in enumerate(zip(letters, spoilt, strict=True)):
        assert letter["value"] == value
        assert letter["value_length"] == (-1 if value is None else len(value))
        assert letter["value_hash"] == (bytes(32) if value is None else hashlib.sha256(value).digest())
        assert (letter["input_offset"], letter["sequence"]) == (2 * number, 2 * number + 1)
        assert letter["key"] == sent[2 * number].key
    assert (dead, judged) == (len(spoilt), len(spoilt))


def test_a_value_over_the_limit_is_omitted_and_one_at_the_limit_is_not(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Also 8 MB that compress, which the input topic takes; and an event without a key is an event."""
    random_bytes = random.Random(1).randbytes

    def of_size(size: int, fill: bytes | None = None) -> bytes:
        """An event whose value has so many bytes."""
        length = size - 64
        while True:
            payload = random_bytes(length) if fill is None else fill * length
            value = event_value("x" * 10, "pump", time.now_us(), payload=payload)
            if len(value) == size:
                return value
            length += size - len(value)

    for limit in (1_048_576, 300_000):
        options = {"partitions": 1, "max_value_bytes": limit}
        ledger = Ledger(kafka.bootstrap, f"{prefix}-{limit}", tmp_path, options).create()
        values = [of_size(limit), of_size(limit + 1), of_size(8_000_000, b"\0"), _good(1), of_size(limit - 1)]
        _send(ledger, [_Sent(None, values[0]), *(_Sent(b"pump", value) for value in values[1:])])
        judged, conflicts = _run(ledger, "severity_total", "conflicts_total")
        assert check_exactly_once(ledger) == len(values)
        omitted = [ValueState.OMITTED] * 2
        assert states_of(ledger, 0) == [ValueState.PRESENT, *omitted, ValueState.PRESENT, ValueState.PRESENT]
        letters = _dead_letters(ledger)
        assert [(letter["reason"], letter["value"]) for letter in letters] == [("OMITTED", None)] * 2
        assert [letter["value_length"] for letter in letters] == [limit + 1, 8_000_000]
        assert [letter["value_hash"] for letter in letters] == [hashlib.sha256(v).digest() for v in values[1:3]]
        # Three can be read, two of them under one event id with other content.
        assert judged + conflicts == 3


def test_numbers_that_are_none_and_instants_out_of_this_world_are_judged(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """NaN and infinities are judged and counted; instants up to the ends of int64 are RED and warned.

    What the others are depends on how long a busy machine took to send them.
    """
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1}).create()
    now_us = time.now_us()
    strange = [math.nan, math.inf, -math.inf]
    instants = [
        YEAR_1_US, YEAR_9999_US, INT64_MIN, INT64_MAX, INT64_MIN + 1, INT64_MAX - 1,
        now_us + 25 * DAY_US, now_us - 25 * DAY_US, now_us + 116 * DAY_US, now_us - 116 * DAY_US,
    ]  # fmt: skip
    values = [event_value(f"n{i}", f"sane-{i}", now_us, value) for i, value in enumerate(strange)]
    values += [event_value(f"t{i}", f"lost-{i}", local_us) for i, local_us in enumerate(instants)]
    values += [event_value(f"u{i}", "lost", local_us) for i, local_us in enumerate(instants)]
    values.append(event_value("last", "pump", now_us))
    _send(ledger, [_Sent(b"pump", value) for value in values])
    by_severity = [f'severity_total{{severity="{severity.name}"}}' for severity in Severity]
    not_finite, warnings, *counts = _run(ledger, "not_finite_total", "drift_warnings_total", *by_severity)
    assert check_exactly_once(ledger) == len(values)
    assert _dead_letters(ledger) == []
    assert not_finite == len(strange)

    judge = Judge()
    with ledger.log() as log:
        tail = read_tail(log, ledger.names.sequenced, 0)
    assert tail is not None
    state = judge.new_state(0)
    verdicts: list[tuple[int, int]] = []
    for batch in read_entries(ledger.bootstrap, ledger.names.sequenced, 0, 0, tail.offset + 1):
        data = batch.entries.kind == 0
        outputs = judge.step(state, batch.entries)
        severities, flags = outputs.verdicts.severity[data], outputs.verdicts.flags[data] & Flag.WARNED
        verdicts += zip(severities.tolist(), flags.tolist(), strict=True)
    lost = (int(Severity.RED), int(Flag.WARNED))
    behind_us = [row.appended_ms * 1_000 - now_us for row in read_ledger(ledger, 0).data]
    assert verdicts == [
        lost if len(strange) <= row < len(values) - 1 else (_severity(us), Flag.WARNED if us > 5_000_000 else 0)
        for row, us in enumerate(behind_us)
    ]
    assert counts == [sum(severity == one for severity, _ in verdicts) for one in Severity]
    assert warnings == sum(flags == Flag.WARNED for _, flags in verdicts)
    # One source was beyond for ten events in a row: an alert, whose numbers no instant has overflowed.
    [(key, alert)] = [(record.key(), record.value()) for record in ledger.records(ledger.names.drift_alerts, 0)]
    assert key == b"lost"
    assert alert is not None
    assert b'"severity":"RED"' in alert


def test_headers_of_any_kind_are_in_the_ledger_as_they_came(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Many, large, of one name, without a name or a value, not ASCII; of an event and of what is none."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1}).create()
    kinds: list[list[tuple[str, bytes | None]]] = [
        [(f"h{number}", b"%d" % number) for number in range(5_000)],
        [("large", random.Random(2).randbytes(900_000))],
        [("same", b"1"), ("same", b"2"), ("same", b"1"), ("same", None), ("same", b"")],
        [("", None), ("", b""), ("none", None), ("empty", b""), ("zeros", bytes(9))],
        [("größe", "größe".encode()), ("名前", b"\xff\xfe"), ("n" * 30_000, b"long name")],
        [],
    ]
    sent = []
    for number, headers in enumerate(kinds):
        sent.append(_Sent(b"pump", _good(number), headers))
        sent.append(_Sent(None if number % 2 else b"", b"no event" if number % 2 else None, headers))
    _send(ledger, sent)
    dead, judged = _run(ledger, "dead_letters_total", "severity_total")
    assert check_exactly_once(ledger) == len(sent)
    assert [row.headers for row in read_ledger(ledger, 0).data] == [canonical_headers(one.headers) for one in sent]
    assert (dead, judged) == (len(kinds), len(kinds))


def test_too_large_a_key_and_headers_are_omitted_and_what_fits_is_not(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """A batch is limited as it was compressed, so an input with the default limit holds megabytes of them.

    The entry keeps the value, and in place of key and headers their hash: the event is judged, the worker lives.
    """
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1}).create()
    digits = bytes(random.Random(3).choices(b"01", k=6_000_000))
    overhead = len(canonical_headers([("h", b"")]))
    at_limit = bytes(LABELS_BYTES_MAX - overhead - len(b"pump"))
    whole = [
        _Sent(b"pump", _good(1)),
        _Sent(b"pump", _good(2), [("h", at_limit)]),
        _Sent(bytes(LABELS_BYTES_MAX), _good(3)),
    ]
    cut = [
        _Sent(b"pump", _good(4), [("digits", digits), ("null", None)]),
        _Sent(b"k" * 2 * LABELS_BYTES_MAX, _good(5)),
        _Sent(b"pump", _good(6), [("h", at_limit + b"\0")]),
        _Sent(None, _good(7), [("h", at_limit), ("h", b"12345")]),
        _Sent(b"k" * 2 * LABELS_BYTES_MAX, None),
        _Sent(b"k" * 2 * LABELS_BYTES_MAX, b"no event"),
    ]
    sent = [whole[0], cut[0], whole[1], *cut[1:3], whole[2], *cut[3:], _Sent(b"pump", _good(8))]
    _send(ledger, sent, compression="gzip")
    dead, judged = _run(ledger, "dead_letters_total", "severity_total")
    assert check_exactly_once(ledger) == len(sent)
    assert (dead, judged) == (2, len(sent) - 2)
    assert [letter["key"] for letter in _dead_letters(ledger)] == [None, None]
    for one, row in zip(sent, read_ledger(ledger, 0).data, strict=True):
        if one in cut:
            assert row.key is None
            assert row.headers[:-32] == canonical_headers([("driftledger-omitted", bytes(32))])[:-32]
        else:
            assert (row.key, row.headers) == (one.key, canonical_headers(one.headers))


def _json(**members: Any) -> bytes:
    event = {"event_id": "e", "source": "pump", "local_timestamp": time.now_us(), "kind": "k", "value": 1.5}
    return json.dumps(event | members).encode()


def test_json_of_any_kind_is_judged_or_a_dead_letter(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Broken, deep, not an object, numbers that JSON cannot spell; an event in another framing than the ledger's."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1, "framing": "json"}).create()
    event = _json()
    deep = [event[:-1] + b', "payload": ' + b"[" * depth + b"]" * depth + b"}" for depth in (300, 1_000, 100_000)]
    spoilt: list[tuple[bytes | None, Fault]] = [
        (event[:-1], Fault.BAD_JSON),
        (event + b"}", Fault.BAD_JSON),
        (b"\xef\xbb\xbf" + event, Fault.BAD_JSON),
        (event.replace(b"pump", b"pum\xff"), Fault.BAD_UTF8),
        (event.replace(b"pump", b"\\ud800"), Fault.BAD_JSON),
        *((value, Fault.BAD_JSON) for value in (b"[1]", b"1", b"null", b'"text"', b" ", b"{}", b"[" * 100_000)),
        *((event.replace(b"1.5", number), Fault.BAD_JSON) for number in (b"NaN", b"-Infinity", b"1e999", b'"nan"')),
        *((value, Fault.BAD_JSON) for value in deep),
        (_json(source=""), Fault.SOURCE_LENGTH),
        (_json(kind="k" * 1_000), Fault.LIMIT_EXCEEDED),
        (_json(misspelt=1), Fault.BAD_JSON),
        (_json(payload_base64="?"), Fault.BAD_JSON),
        (b"", Fault.EMPTY),
        (None, Fault.NULL_VALUE),
        (b'\xc3\x01{"event_id": 1}', Fault.BAD_UTF8),
        (_good(0), Fault.BAD_UTF8),
    ]
    strange = [_json(event_id=f"s{n}", value=value) for n, value in enumerate(("NaN", "Infinity", "-Infinity"))]
    fine = [_json(event_id=f"f{n}", payload=[[{"a": None}]], causes=[]) for n in range(len(spoilt))]
    sent: list[bytes | None] = [*strange]
    for (value, _), between in zip(spoilt, fine, strict=True):
        sent += [value, between]
    _send(ledger, [_Sent(b"pump", value) for value in sent])
    dead, judged, not_finite = _run(ledger, "dead_letters_total", "severity_total", "not_finite_total")
    assert check_exactly_once(ledger) == len(sent)
    letters = _dead_letters(ledger)
    assert [letter["reason"] for letter in letters] == [fault.name for _, fault in spoilt]
    assert [letter["value"] for letter in letters] == [value for value, _ in spoilt]
    assert (dead, judged, not_finite) == (len(spoilt), len(fine) + len(strange), len(strange))
