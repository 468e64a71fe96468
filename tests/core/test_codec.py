"""Records to bytes and back: framings, limits, the schemas themselves, and what is refused and why."""

from __future__ import annotations

import json
import math
import random
import struct
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.avro_shape import FieldLimit, Shape
from schemas.codec import RECORDS, DecodeError, Framing, decode, encode, single_object_prefix
from schemas.errors import BadInputError
from schemas.event_json import event_from_document, event_from_json
from schemas.faults import Fault
from tests.core import event_generator as make

READING = {
    "sequence": 7, "authority_timestamp": -(1 << 63), "local_timestamp": (1 << 63) - 1, "delta_ms": 86_400_000,
    "severity": "RED", "offset_us": -5, "bound_us": None, "value_ms": 86_400_000,
}  # fmt: skip
SAMPLES: dict[str, dict[str, Any]] = {
    "Event": {
        "event_id": "e-1", "source": "s", "local_timestamp": 1, "kind": "k", "value": 1.5, "payload": b"\xff", "hlc": 3,
        "causes": [{"partition": 1, "sequence": 2}],
        "exchange": {"partition": 1, "offset": 2, "sent_us": 3, "acked_us": 4, "appended_ms": 5},
    },
    "LedgerEntry": {
        "kind": "DATA", "index": 2, "sequence": 1, "input_offset": 0, "control_offset": -1, "input_leader_epoch": 0,
        "authority_timestamp": 1, "authority_kind": "OBSERVED", "value_state": "PRESENT", "value_length": 1,
        "value_hash": bytes(32), "chain_hash": b"c" * 32, "headers": [{"name": b"\xff", "value": None}], "value": b"v",
    },
    "Control": {
        "body": (
            "Heartbeat",
            {"predecessor_appended_ms": None, "input_end_offset": 5, "worker_us": 6, "round_trip": None},
        ),
        "actor": "worker", "reason": "tick",
    },
    "DriftAlert": {
        "alert_id": "0:7", "revision": 1, "state": "OPENED", "partition": 0, "source": "s", "subject": "SOURCE",
        "cause": "UNKNOWN", "severity": "RED", "previous_severity": "GREEN", "first_sequence": 7,
        "last_sequence": 9, "events": 3,
        "skew_ppb": 41_000, "at_open": READING, "worst": READING, "at_close": None, "text": "s is RED",
    },
    "DriftEstimate": {
        "partition": 0, "source": "s", "sequence": 9, "authority_timestamp": 1, "why": "STEP", "method": "ONE_WAY",
        "offset_us": -5, "bound_us": 50_000, "skew_ppb": 41_000, "skew_error_ppb": 900, "samples": 8, "span_ms": 60_000,
        "severity": "GREEN", "coherent_s": 86_400, "disturbances": 1, "step_sequence": 7, "step_us": 2_000_000,
    },
    "Aggregate": {
        "definition": "d", "version": 5, "partition": 0, "frame": "local", "key": "s", "window_start_us": -10,
        "window_end_us": 0, "revision": 1, "final": True, "at_index": 9, "count": 3, "values": 2, "near_edge": 1,
        "sum": 3.5, "min": 1.0, "max": 2.5, "mean": 1.75, "variance": None, "first": None, "last": None,
        "percentiles": {"50": 1.0, "99.9": None}, "method": "exact", "relative_error": 0.0,
    },
    "DeadLetter": {
        "partition": 0, "sequence": 1, "input_offset": 2, "authority_timestamp": 3, "reason": "EMPTY",
        "value_length": 0, "value_hash": bytes(32), "value": b"",
    },
    "Progress": {"fold": "judge", "version": 1, "partitions": [{"partition": 0, "index": 9, "inline": True}]},
    "SnapshotHead": {
        "fold": "judge", "version": 1, "partition": 0, "index": 9, "chain_hash": bytes(32), "chunks": 1, "length": 10,
        "state_hash": bytes(32),
    },
    "Halt": {
        "partition": 0, "code": "INPUT_CUT", "detail": "d", "remedy": "r", "halted_at": 1, "worker": "w",
    },
    "Lock": {
        "partition": 0, "scope": None, "halts": ["sequence", "put"], "index": 9, "authority_timestamp": 1,
        "delta_ms": -4, "actor": "ada", "reason": "r",
    },
}  # fmt: skip
EVENT = {"event_id": "e", "source": "s", "local_timestamp": 1, "kind": "k"}


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """The event in a form in which NaN equals NaN."""
    return {**event, "value": repr(event["value"])}


def crc_64_avro(text: bytes) -> int:
    """CRC-64-AVRO, from the pseudo code of the Avro specification."""
    empty = 0xC15D213AA4D7A795
    fingerprint = empty
    for byte in text:
        fingerprint ^= byte
        for _ in range(8):
            fingerprint = (fingerprint >> 1) ^ (empty & -(fingerprint & 1))
    return fingerprint


def test_the_fingerprint_is_the_one_of_the_specification() -> None:
    """The specification's code over the canonical form written out here, and its bytes little-endian."""
    assert crc_64_avro(b'"int"') == 0x7275D51A3F395C8F
    partition = '{"name":"partition","type":"int"},{"name":"index","type":"long"},{"name":"inline","type":"boolean"}'
    canonical = (
        '{"name":"driftledger.v1.Progress","type":"record","fields":[{"name":"fold","type":"string"},'
        '{"name":"version","type":"int"},{"name":"partitions","type":{"type":"array","items":'
        f'{{"name":"driftledger.v1.PartitionProgress","type":"record","fields":[{partition}]}}}}}}]}}'
    )
    assert single_object_prefix("Progress") == b"\xc3\x01" + struct.pack("<Q", crc_64_avro(canonical.encode()))


def test_every_record_has_a_prefix_of_its_own() -> None:
    """Ten bytes, so one record can never be read as another."""
    prefixes = {single_object_prefix(record) for record in RECORDS}
    assert len(prefixes) == len(RECORDS) == len(SAMPLES)
    assert {len(prefix) for prefix in prefixes} == {10}


@pytest.mark.parametrize("record", RECORDS)
def test_every_record_comes_back_as_it_was_written(record: str) -> None:
    """Plain values: instants are integers at both ends of int64, enums their symbols, unions of records a pair."""
    assert decode(record, encode(record, SAMPLES[record])) == SAMPLES[record]


@pytest.mark.parametrize("record", RECORDS)
def test_every_cut_or_lengthened_record_is_refused(record: str) -> None:
    """Exact consumption: no prefix of a record is a record, nor a record with a byte more."""
    whole = encode(record, SAMPLES[record])
    for length in range(len(whole)):
        with pytest.raises(DecodeError) as caught:
            decode(record, whole[:length])
        assert caught.value.fault in {Fault.TRUNCATED, Fault.EMPTY}
    with pytest.raises(DecodeError, match="TRAILING_BYTES: 1 bytes follow"):
        decode(record, whole + b"\0")


@pytest.mark.parametrize("record", RECORDS)
def test_spoilt_records_of_every_kind_are_read_or_refused_and_nothing_else(record: str) -> None:
    """Hostile bytes raise DecodeError alone; what is read can be written, and reads the same again."""
    rng = random.Random(make.SEED)
    whole = encode(record, SAMPLES[record])
    for _ in range(1_500):
        spoilt = make.mutate(rng, whole)
        try:
            value = decode(record, spoilt)
        except DecodeError:
            continue
        again = decode(record, encode(record, value))
        assert repr(again) == repr(value), f"DRIFTLEDGER_TEST_SEED={make.SEED} {spoilt.hex()}"


@pytest.mark.parametrize(
    "kind",
    [
        ("Genesis", {"cluster_id": "c", "topic": "t", "topic_id": "i", "partition": 0, "partitions": 4, "lanes": 4,
                     "base_offset": 0, "format_version": 1}),
        ("Definition", {"name": "n", "body": "{}"}),
        ("Anchor", {"source": "s", "anchor_timestamp": None}),
        ("Verify", {"source": "s", "client_timestamp": 1 << 62}),
        ("FoldVersion", {"fold": "judge", "version": 2}),
        ("Lock", {"engaged": True, "scope": None, "halts": [], "source": "s", "client_timestamp": 1 << 62}),
    ],
)  # fmt: skip
def test_the_body_of_a_control_record_is_a_pair_of_its_kind_and_its_fields(kind: tuple[str, dict[str, Any]]) -> None:
    """Kinds that look alike stay apart."""
    control = {"body": kind, "actor": "a", "reason": "r"}
    assert decode("Control", encode("Control", control)) == control


def test_fields_with_a_default_may_be_left_out() -> None:
    """An event of its four required fields; of a control record those of its body."""
    beat = {"predecessor_appended_ms": None, "input_end_offset": 5, "worker_us": 6}
    control = {"body": ("Heartbeat", beat), "actor": "a", "reason": "r"}
    assert decode("Control", encode("Control", control))["body"] == ("Heartbeat", {**beat, "round_trip": None})
    assert decode("Event", encode("Event", EVENT)) == {
        **EVENT, "value": None, "payload": b"", "hlc": None, "causes": [], "exchange": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "change", "words"),
    [
        ("Event", {"event_id": None}, "event_id"),
        ("Event", {"local_timestamp": 1 << 63}, "local_timestamp"),
        ("Event", {"local_timestamp": "2023-11-14T22:13:20Z"}, "local_timestamp"),
        ("Event", {"payload": "text"}, "payload"),
        ("Event", {"value": 10**400}, "cannot encode this Event"),
        ("Event", {"colour": "red"}, "colour"),
        ("Event", {"source": "\ud800"}, "surrogates not allowed"),
        ("Event", {"source": ""}, "SOURCE_LENGTH"),
        ("Event", {"source": "s" * 257}, "SOURCE_LENGTH"),
        ("Event", {"event_id": "e" * 1025}, "at most 1024"),
        ("Event", {"causes": [{"partition": 0, "sequence": 0}] * 1025}, "at most 1024"),
        ("DriftAlert", {"severity": "PINK"}, "severity"),
        ("DriftAlert", {"partition": 1 << 31}, "partition"),
        ("Control", {"body": ("Lock", {})}, "body"),
        ("DeadLetter", {"value_hash": b"short"}, "value_hash"),
    ],
)
def test_what_would_not_be_read_back_is_not_written(record: str, change: dict[str, Any], words: str) -> None:
    """BadInputError names the field or the limit."""
    with pytest.raises(BadInputError, match=words):
        encode(record, {**SAMPLES[record], **change})


def test_another_schema_and_another_record_are_told_apart_from_noise() -> None:
    """WRONG_FINGERPRINT says which was found and which is expected; UNKNOWN_FRAMING how the bytes begin."""
    halt = encode("Halt", SAMPLES["Halt"])
    with pytest.raises(DecodeError, match=f"WRONG_FINGERPRINT: written with schema {halt[2:10].hex()}, expected "):
        decode("Event", halt)
    with pytest.raises(DecodeError, match="UNKNOWN_FRAMING: it begins with 7b 22"):
        decode("Event", b'{"event_id": 1}')
    with pytest.raises(BadInputError, match="there is no record 'Nothing'; the records are Event, "):
        decode("Nothing", b"x")


def test_errors_say_where() -> None:
    """The path of the field and the byte."""
    spoilt = encode("Event", EVENT)[:-2] + b"\x01\x02\x00\x00\x00\x00"
    with pytest.raises(DecodeError, match=r"not a valid Event, BAD_LENGTH: a block of Event.causes .* at byte 20"):
        decode("Event", spoilt)


def test_a_type_no_schema_uses_is_a_mistake_in_the_schema() -> None:
    """The shape check does not pass over what it does not know."""
    shape = Shape({"name": "Odd", "type": "record", "fields": [{"name": "f", "type": "float"}]}, {})
    with pytest.raises(TypeError, match="'float', which is not used"):
        shape.check(b"\0\0\0\0", 0)


def test_a_limit_can_bound_items_that_take_no_bytes() -> None:
    """A count of a million nulls is five bytes; the limit stops it before anything is built."""
    schema = {"name": "Odd", "type": "record", "fields": [{"name": "f", "type": {"type": "array", "items": "null"}}]}
    shape = Shape(schema, {"Odd.f": FieldLimit(0, 10, Fault.LIMIT_EXCEEDED)})
    shape.check(make.avro_long(10) + b"\0", 0)
    with pytest.raises(DecodeError, match="has 1000000 items, at most 10"):
        shape.check(make.avro_long(1_000_000) + b"\0", 0)


# ----------------------------------------------------------------------------------------------------------------- JSON


@settings(deadline=None, max_examples=200)
@given(make.events())
@example({**SAMPLES["Event"], "value": math.inf})
@example({**SAMPLES["Event"], "value": -math.inf})
def test_an_event_survives_json(event: dict[str, Any]) -> None:
    """Bytes that are not UTF-8, not-numbers and both ends of int64 included."""
    written = encode("Event", event, Framing.JSON)
    assert comparable(decode("Event", written, Framing.JSON)) == comparable(event)


def test_event_json_is_pinned() -> None:
    """What a tool sees."""
    written = encode(
        "Event", {**SAMPLES["Event"], "payload": b'{"a": 1}', "value": math.nan, "causes": []}, Framing.JSON
    )
    assert written == (
        b'{"event_id":"e-1","source":"s","local_timestamp":1,"kind":"k","value":"NaN","payload":"{\\"a\\": 1}",'
        b'"hlc":3,"causes":[],"exchange":{"partition":1,"offset":2,"sent_us":3,"acked_us":4,"appended_ms":5}}'
    )


def test_alert_json_is_its_fields_in_the_order_of_the_schema() -> None:
    """Whatever the order they were given in, and read back through the same schema."""
    backwards = dict(reversed(SAMPLES["DriftAlert"].items()))
    written = encode("DriftAlert", backwards, Framing.JSON)
    assert list(json.loads(written)) == list(SAMPLES["DriftAlert"])
    assert decode("DriftAlert", written, Framing.JSON) == SAMPLES["DriftAlert"]


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'"\xff"'])
def test_json_that_is_no_alert_is_refused(data: bytes) -> None:
    """With the fault of JSON, whatever is wrong in it."""
    with pytest.raises(DecodeError, match="not a valid DriftAlert, BAD_JSON"):
        decode("DriftAlert", data, Framing.JSON)


def test_the_other_records_have_no_json() -> None:
    """They hold hashes and bytes; tools read them as Avro."""
    for record in ("Progress", "LedgerEntry"):
        with pytest.raises(BadInputError, match="has no json framing"):
            encode(record, SAMPLES[record], Framing.JSON)
        with pytest.raises(BadInputError, match="has no json framing"):
            decode(record, b"{}", Framing.JSON)


@pytest.mark.parametrize(
    ("members", "field", "expected"),
    [
        ('"local_timestamp": "2023-11-14T23:13:20.1234569+01:00"', "local_timestamp", 1_700_000_000_123_456),
        ('"local_timestamp": -9223372036854775808', "local_timestamp", -(1 << 63)),
        ('"value": 3', "value", 3.0),
        ('"value": "-Infinity"', "value", -math.inf),
        ('"value": null', "value", None),
        ('"payload": "é"', "payload", "é".encode()),
        ('"payload": null', "payload", b""),
        ('"payload": {"b": [1, 2.5, null], "a": "x"}', "payload", b'{"b":[1,2.5,null],"a":"x"}'),
        ('"payload": 5', "payload", b"5"),
        ('"payload_base64": "/w=="', "payload", b"\xff"),
        ('"hlc": 5', "hlc", 5),
        ('"exchange": null', "exchange", None),
        ('"causes": [{"sequence": 1, "partition": 0}]', "causes", [{"partition": 0, "sequence": 1}]),
        (
            '"exchange": {"appended_ms": 5, "acked_us": 4, "sent_us": 3, "offset": 2, "partition": 1}',
            "exchange",
            SAMPLES["Event"]["exchange"],
        ),
    ],
)
def test_json_members_are_read_as_documented(members: str, field: str, expected: Any) -> None:
    """Each spelling a producer may use; the order of members does not matter, that of the columns is fixed."""
    base = '{"event_id": "e", "source": "s", "local_timestamp": 1, "kind": "k", '
    event = decode("Event", f"{base}{members}}}".encode(), Framing.JSON)
    assert event[field] == expected
    assert type(event[field]) is type(expected)
    if field == "exchange" and expected:
        assert list(event[field]) == list(make.EXCHANGE)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"event_id": 5}, Fault.BAD_JSON),
        ({"event_id": None}, Fault.BAD_JSON),
        ({"event_id": "e" * 1025}, Fault.LIMIT_EXCEEDED),
        ({"kind": "\ud800"}, Fault.BAD_UTF8),
        ({"kind": "k" * 257}, Fault.LIMIT_EXCEEDED),
        ({"source": ""}, Fault.SOURCE_LENGTH),
        ({"source": "é" * 129}, Fault.SOURCE_LENGTH),
        ({"local_timestamp": 1.5}, Fault.BAD_JSON),
        ({"local_timestamp": True}, Fault.BAD_JSON),
        ({"local_timestamp": 1 << 63}, Fault.BAD_JSON),
        ({"local_timestamp": "yesterday"}, Fault.BAD_JSON),
        ({"value": "1.5"}, Fault.BAD_JSON),
        ({"value": False}, Fault.BAD_JSON),
        ({"value": [1]}, Fault.BAD_JSON),
        ({"payload": "\ud800"}, Fault.BAD_UTF8),
        ({"payload": "a", "payload_base64": ""}, Fault.BAD_JSON),
        ({"payload_base64": "a"}, Fault.BAD_JSON),
        ({"payload_base64": "é"}, Fault.BAD_JSON),
        ({"payload_base64": None}, Fault.BAD_JSON),
        ({"hlc": "1"}, Fault.BAD_JSON),
        ({"causes": None}, Fault.BAD_JSON),
        ({"causes": [1]}, Fault.BAD_JSON),
        ({"causes": [{"partition": 1 << 31, "sequence": 0}]}, Fault.BAD_JSON),
        ({"causes": [{"partition": 0, "sequence": 0}] * 1025}, Fault.LIMIT_EXCEEDED),
        ({"exchange": {"partition": 0}}, Fault.BAD_JSON),
        ({"colour": "red"}, Fault.BAD_JSON),
    ],
)
def test_json_that_is_no_event_has_the_fault_that_fits(change: dict[str, Any], fault: Fault) -> None:
    """The same names as in Avro where the same limit is meant."""
    with pytest.raises(DecodeError) as caught:
        event_from_document({**EVENT, **change})
    assert caught.value.fault == fault


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"{", Fault.BAD_JSON),
        (b"[]", Fault.BAD_JSON),
        (b'{"event_id": "e"}', Fault.BAD_JSON),
        (b'{"event_id": "\xff"}', Fault.BAD_UTF8),
        (b"[" * 100_000, Fault.BAD_JSON),
        (b'{"event_id": NaN}', Fault.BAD_JSON),
    ],
)
def test_bytes_that_are_no_json_are_refused(data: bytes, fault: Fault) -> None:
    """Depth, literals that are not JSON, and bytes that are not text."""
    with pytest.raises(DecodeError) as caught:
        event_from_json(data)
    assert caught.value.fault == fault


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_noise_is_never_an_event_in_json(data: bytes) -> None:
    """And never anything but a DecodeError."""
    with pytest.raises(DecodeError):
        decode("Event", data, Framing.JSON)


@pytest.mark.parametrize("depth", [300, 1_000, 1_020, 100_000])
@pytest.mark.parametrize("member", [*EVENT, "value", "payload", "payload_base64", "causes", "exchange", "unheard_of"])
def test_an_event_that_is_nested_too_deep_is_bad_and_no_more(member: str, depth: int) -> None:
    """Python's own limits end a text, a repr and a writing at other depths each."""
    deep = "[" * depth + "]" * depth
    others = {name: value for name, value in EVENT.items() if name != member}
    with pytest.raises(DecodeError):
        event_from_json(f'{orjson.dumps(others).decode()[:-1]},"{member}":{deep}}}'.encode())
    with pytest.raises(DecodeError):
        event_from_json(deep.encode())
