"""Records to bytes and back: the general path, one record at a time.

The hot path is columns.py. Here is everything else: control records, alerts, dead letters, what a producer publishes
and what a tool reads. The schemas are the .avsc files of this package, and nothing else defines a record.

Framings (a setting of each topic, never guessed from the bytes):

    single_object   +----+----+---------------------+------------------+
                    | C3 | 01 | fingerprint, 8 LE   | Avro binary body |    Avro specification, "single-object encoding"
                    +----+----+---------------------+------------------+
                    the fingerprint is CRC-64-AVRO of the schema's parsing canonical form; of a Control that of the
                    schema as it was when its kind came to it, so that kinds that come later change no bytes of others
    json            UTF-8 JSON. Event: see event_json.py. DriftAlert and Aggregate: their fields in the order of the
                    schema, enums as their symbols, instants as integers in the unit of the schema; fields with a
                    default may be absent.

Values are plain: a record is a dict, an instant an int in the schema's unit (never a datetime, which ends at the year
9999 while our instants do not), an enum its symbol, and the body of a Control a pair (name of its kind, dict).

GUARANTEE decode accepts exactly one record, no byte more, within the limits of faults.py, or raises DecodeError with
the fault. GUARANTEE encode writes nothing that decode would not read back.
NaN and the infinities are values of a double like any other in Avro; JSON has no spelling for them, see event_json.py.
"""

from __future__ import annotations

import enum
import io
import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, cast

import fastavro
import orjson
from fastavro.schema import fingerprint, to_parsing_canonical_form
from fastavro.validation import ValidationError, validate

from .avro_shape import FieldLimit, Shape
from .errors import BadInputError
from .event_json import event_from_json, event_to_json
from .faults import MAX_CAUSES, MAX_EVENT_ID_BYTES, MAX_KIND_BYTES, MAX_SOURCE_BYTES, DecodeError, Fault

__all__ = ["RECORDS", "DecodeError", "Framing", "decode", "encode", "single_object_prefix"]

#: Every record of the wire contract and the resource that defines it.
RECORDS = {
    "Event": "event.v1.avsc",
    "LedgerEntry": "ledger_entry.v1.avsc",
    "Control": "control.v1.avsc",
    "DriftAlert": "drift_alert.v1.avsc",
    "DriftEstimate": "drift_estimate.v1.avsc",
    "Aggregate": "aggregate.v1.avsc",
    "DeadLetter": "dead_letter.v1.avsc",
    "Progress": "progress.v1.avsc",
    "SnapshotHead": "snapshot_head.v1.avsc",
    "Halt": "halt.v1.avsc",
    "Lock": "lock.v1.avsc",
}

#: Records whose JSON is the fields of their schema.
_PLAIN_JSON = frozenset({"DriftAlert", "DriftEstimate", "Aggregate"})

#: Kinds that a Control had at first; each that came since has the fingerprint of the schema up to it.
_FIRST_KINDS = 7

_MARKER = b"\xc3\x01"
_PREFIX_BYTES = 10
_NAMESPACE = "driftledger.v1."

_LIMITS = {
    "Event.event_id": FieldLimit(0, MAX_EVENT_ID_BYTES, Fault.LIMIT_EXCEEDED),
    "Event.source": FieldLimit(1, MAX_SOURCE_BYTES, Fault.SOURCE_LENGTH),
    "Event.kind": FieldLimit(0, MAX_KIND_BYTES, Fault.LIMIT_EXCEEDED),
    "Event.causes": FieldLimit(0, MAX_CAUSES, Fault.LIMIT_EXCEEDED),
}


class Framing(enum.StrEnum):
    """How a record lies in a Kafka value."""

    SINGLE_OBJECT = "single_object"
    JSON = "json"


class _Codec(NamedTuple):
    """What is needed to read and write one record."""

    schema: Any  # as fastavro parses it, without logical types
    prefix: bytes
    later: dict[int, bytes]  # of a Control: prefixes of kinds that came later, by branch
    shape: Shape
    defaults: dict[str, Any]
    body_defaults: dict[str, dict[str, Any]]  # of a Control: those of each kind

    def prefix_of(self, data: bytes) -> bytes:
        """What the bytes of a record begin with. data: with room for a prefix, whatever stands there."""
        if not self.later:
            return self.prefix
        # A branch is a zigzag varint, and of one byte.
        return self.later.get(data[_PREFIX_BYTES] >> 1 if len(data) > _PREFIX_BYTES else 0, self.prefix)


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_logical_types(part) for key, part in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(part) for part in schema]
    return schema


@cache
def _codec(record: str) -> _Codec:
    if record not in RECORDS:
        raise BadInputError(f"there is no record {record!r}; the records are {', '.join(RECORDS)}")
    written = json.loads(resources.files(__package__).joinpath(RECORDS[record]).read_bytes())
    plain = _without_logical_types(written)
    branches = plain["fields"][0]["type"] if record == "Control" else []
    return _Codec(
        schema=fastavro.parse_schema(plain),
        prefix=_prefix(written, _FIRST_KINDS if branches else None),
        later={branch: _prefix(written, branch + 1) for branch in range(_FIRST_KINDS, len(branches))},
        shape=Shape(plain, _LIMITS),
        defaults=_defaults(plain),
        body_defaults={branch["name"]: _defaults(branch) for branch in branches},
    )


def _prefix(written: Any, branches: int | None) -> bytes:
    """branches: how many of the first field's there are, None for all."""
    if branches is not None:
        first, *others = written["fields"]
        written = {**written, "fields": [{**first, "type": first["type"][:branches]}, *others]}
    return _MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(written), "CRC-64-AVRO"))


def _defaults(plain: Any) -> dict[str, Any]:
    return {
        field["name"]: field["default"].encode("latin-1") if field["type"] == "bytes" else field["default"]
        for field in plain["fields"]
        if "default" in field
    }


def single_object_prefix(record: str) -> bytes:
    """C3 01 and the fingerprint: the ten bytes that every value of the record begins with, but for later kinds."""
    return _codec(record).prefix


def encode(record: str, value: dict[str, Any], framing: Framing = Framing.SINGLE_OBJECT) -> bytes:
    """The bytes of a record.

    Fields that have a default in the schema may be left out. Raises BadInputError for a field that is missing, unknown,
    of the wrong type or out of its limits.
    """
    codec = _codec(record)
    written = _encode_body(codec, record, value)
    if framing is Framing.SINGLE_OBJECT:
        return written
    # JSON is made from what the Avro says: complete, in the order of the schema, with Python's own numbers.
    plain = _decode_body(codec, record, written)
    if record == "Event":
        return event_to_json(plain)
    if record in _PLAIN_JSON:
        return orjson.dumps(plain)
    raise _no_json(record)


def _no_json(record: str) -> BadInputError:
    return BadInputError(f"{record} has no json framing; only Event, {' and '.join(sorted(_PLAIN_JSON))} have")


def _encode_body(codec: _Codec, record: str, value: dict[str, Any]) -> bytes:
    full = {**codec.defaults, **value}
    if record == "Control" and isinstance(full.get("body"), tuple):
        name, body = full["body"]
        full["body"] = (_NAMESPACE + name, {**codec.body_defaults.get(name, {}), **body})
    target = io.BytesIO(codec.prefix)
    target.seek(_PREFIX_BYTES)
    try:
        validate(full, codec.schema, strict=True)
        fastavro.schemaless_writer(target, codec.schema, full, strict=True)
    except (ValidationError, ValueError, OverflowError) as error:
        raise BadInputError(f"cannot encode this {record}: {error}") from error
    written = target.getvalue()
    if codec.later:
        written = codec.prefix_of(written) + written[_PREFIX_BYTES:]
    codec.shape.check(written, _PREFIX_BYTES)
    return written


def decode(record: str, data: bytes, framing: Framing = Framing.SINGLE_OBJECT) -> dict[str, Any]:
    """The record in the bytes. Raises DecodeError, whose fault says why there is none."""
    if not data:
        raise DecodeError(record, Fault.EMPTY, "the value has no bytes")
    if framing is Framing.SINGLE_OBJECT:
        return _decode_body(_codec(record), record, data)
    if record == "Event":
        return event_from_json(data)
    if record in _PLAIN_JSON:
        return _decode_plain_json(record, data)
    raise _no_json(record)


def _decode_body(codec: _Codec, record: str, data: bytes) -> dict[str, Any]:
    if data[:2] != _MARKER[: len(data)]:
        raise DecodeError(record, Fault.UNKNOWN_FRAMING, f"it begins with {data[:2].hex(' ')}, not with c3 01")
    if len(data) < _PREFIX_BYTES:
        raise DecodeError(record, Fault.TRUNCATED, f"{len(data)} bytes are fewer than the prefix has")
    prefix = codec.prefix_of(data)
    if data[:_PREFIX_BYTES] != prefix:
        found, expected = data[2:_PREFIX_BYTES].hex(), prefix[2:].hex()
        raise DecodeError(record, Fault.WRONG_FINGERPRINT, f"written with schema {found}, expected {expected}")
    codec.shape.check(data, _PREFIX_BYTES)
    source = io.BytesIO(data)
    source.seek(_PREFIX_BYTES)
    read = fastavro.schemaless_reader(
        source, codec.schema, None, return_record_name=True, return_record_name_override=True
    )
    value = cast("dict[str, Any]", read)
    if record == "Control":
        name, body = value["body"]
        value["body"] = (name.removeprefix(_NAMESPACE), body)
    return value


def _decode_plain_json(record: str, data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DecodeError(record, Fault.BAD_JSON, str(error)) from None
    codec = _codec(record)
    try:
        _encode_body(codec, record, value if isinstance(value, dict) else {})
    except BadInputError as error:
        raise DecodeError(record, Fault.BAD_JSON, str(error)) from None
    fields: dict[str, Any] = value
    return fields
