"""Whatever a producer can send: it is sequenced, judged or a dead letter, and the worker lives."""

from __future__ import annotations

import hashlib
import math
import random
import re
import urllib.request
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from schemas.canonical import ValueState
from schemas.codec import decode, single_object_prefix
from schemas.columns import Fault
from streams.judge import Judge
from streams.judge_kernel import Flag
from streams.ledger_reader import read_entries, read_tail
from streams.severity import Severity
from tests.broker.harness import Ledger, Worker, check_exactly_once, event_value, states_of, time

if TYPE_CHECKING:
    from collections.abc import Sequence
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


def _send(ledger: Ledger, records: Sequence[tuple[bytes | None, bytes | None]], partition: int = 0) -> None:
    """Keys and values to one partition, in order, each in a transaction of nobody; sizes only the broker limits."""
    refused: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": ledger.bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "message.max.bytes": 64_000_000,
            "log_level": 0,
        }
    )
    for key, value in records:
        producer.produce(
            ledger.names.input, value, key, partition, on_delivery=lambda e, _: refused.append(str(e)) if e else None
        )
        producer.flush(30)
    assert not refused


def _run(ledger: Ledger) -> str:
    """Let a worker bring the ledger level; it stays healthy. Returns its metrics."""
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        worker.wait_live(ledger.settings.lanes)
        status, facts = worker.health()
        assert status == 200, facts
        metrics = _metrics(worker)
        worker.stop()
    assert "lane_failed" not in worker.output
    return metrics


def _metrics(worker: Worker) -> str:
    address = re.search(r"metrics=(http://\S+)", worker.output)
    assert address is not None
    with urllib.request.urlopen(address[1], timeout=5) as answer:  # noqa: S310 - its own loopback
        text: str = answer.read().decode()
    return text


def _metric(metrics: str, name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(name))


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
    sent: list[tuple[bytes | None, bytes | None]] = []
    for number, (value, _) in enumerate(spoilt, start=1):
        sent += [(b"key" if number % 2 else None, value), (b"pump", _good(number))]
    _send(ledger, sent)
    metrics = _run(ledger)
    assert check_exactly_once(ledger) == len(sent)
    letters = _dead_letters(ledger)
    assert [letter["reason"] for letter in letters] == [fault.name for _, fault in spoilt]
    for number, (letter, (value, _)) in enumerate(zip(letters, spoilt, strict=True)):
        assert letter["value"] == value
        assert letter["value_length"] == (-1 if value is None else len(value))
        assert letter["value_hash"] == (bytes(32) if value is None else hashlib.sha256(value).digest())
        assert (letter["input_offset"], letter["sequence"]) == (2 * number, 2 * number + 1)
        assert letter["key"] == sent[2 * number][0]
    assert _metric(metrics, "driftledger_dead_letters_total") == len(spoilt)
    assert _metric(metrics, "driftledger_severity_total") == len(spoilt)


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
        _send(ledger, [(None, values[0]), *((b"pump", value) for value in values[1:])])
        metrics = _run(ledger)
        assert check_exactly_once(ledger) == len(values)
        omitted = [ValueState.OMITTED] * 2
        assert states_of(ledger, 0) == [ValueState.PRESENT, *omitted, ValueState.PRESENT, ValueState.PRESENT]
        letters = _dead_letters(ledger)
        assert [(letter["reason"], letter["value"]) for letter in letters] == [("OMITTED", None)] * 2
        assert [letter["value_length"] for letter in letters] == [limit + 1, 8_000_000]
        assert [letter["value_hash"] for letter in letters] == [hashlib.sha256(v).digest() for v in values[1:3]]
        # Three can be read, two of them under one event id with other content.
        assert _metric(metrics, "driftledger_severity_total") + _metric(metrics, "driftledger_conflicts_total") == 3


def test_numbers_that_are_none_and_instants_out_of_this_world_are_judged(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """NaN and infinities are judged and counted; instants up to the ends of int64 are RED and warned."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1}).create()
    now_us = time.now_us()
    strange = [math.nan, math.inf, -math.inf]
    instants = [
        YEAR_1_US, YEAR_9999_US, INT64_MIN, INT64_MAX, INT64_MIN + 1, INT64_MAX - 1,
        now_us + 25 * DAY_US, now_us - 25 * DAY_US, now_us + 116 * DAY_US, now_us - 116 * DAY_US,
    ]  # fmt: skip
    values = [event_value(f"n{i}", f"sane-{i}", time.now_us(), value) for i, value in enumerate(strange)]
    values += [event_value(f"t{i}", f"lost-{i}", local_us) for i, local_us in enumerate(instants)]
    values += [event_value(f"u{i}", "lost", local_us) for i, local_us in enumerate(instants)]
    values.append(_good(1))
    _send(ledger, [(b"pump", value) for value in values])
    metrics = _run(ledger)
    assert check_exactly_once(ledger) == len(values)
    assert _dead_letters(ledger) == []
    assert _metric(metrics, "driftledger_not_finite_total") == len(strange)
    assert _metric(metrics, 'driftledger_severity_total{severity="RED"}') == 2 * len(instants)
    assert _metric(metrics, 'driftledger_severity_total{severity="GREEN"}') == len(strange) + 1
    assert _metric(metrics, "driftledger_drift_warnings_total") == 2 * len(instants)

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
    green, red = (int(Severity.GREEN), 0), (int(Severity.RED), int(Flag.WARNED))
    assert verdicts == [green] * len(strange) + [red] * 2 * len(instants) + [green]
    # One source was beyond for ten events in a row: an alert, whose numbers no instant has overflowed.
    [(key, alert)] = [(record.key(), record.value()) for record in ledger.records(ledger.names.drift_alerts, 0)]
    assert key == b"lost"
    assert alert is not None
    assert b'"severity":"RED"' in alert
