"""Event as JSON: for producers and tools that have no Avro.

    {
      "event_id": "...",                   text
      "source": "...",                     text, 1 to 256 bytes of UTF-8
      "local_timestamp": 1700000000000000  integer microseconds, or RFC 3339 text ("2023-11-14T22:13:20.5+01:00")
      "kind": "...",                       text
      "value": 1.5,                        number or null; "NaN", "Infinity", "-Infinity" as text
      "payload": ...,                      text: its UTF-8 bytes; null: no bytes; any other JSON value: its compact text
      "payload_base64": "...",             instead of payload, for bytes that are not UTF-8
      "hlc": 1,                            integer or null
      "causes": [{"partition": 0, "sequence": 1}],
      "exchange": {"partition": 0, "offset": 1, "sent_us": 1, "acked_us": 1, "appended_ms": 1}    or null
    }

event_id, source, local_timestamp and kind are required. A member that is not listed is refused: a misspelt name would
otherwise lose its value without a word. Written JSON has all members but payload_base64, which stands in place of
payload where the bytes are not UTF-8, so bytes to JSON to bytes is exact.

How the text of an instant is read is said in instants.py. NaN and the infinities, which JSON cannot spell, are text.
HAZARD an integer beyond 64 bits is read as floating point: it is refused where an integer is due, and rounded in value
and within payload. The last of several members of one name counts, as in nearly every JSON reader.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import orjson

from .errors import BadInputError
from .faults import MAX_CAUSES, MAX_EVENT_ID_BYTES, MAX_KIND_BYTES, MAX_SOURCE_BYTES, DecodeError, Fault
from .instants import parse_us

_INT64 = range(-(1 << 63), 1 << 63)
_INT32 = range(-(1 << 31), 1 << 31)
_REQUIRED = ("event_id", "source", "local_timestamp", "kind")
_MEMBERS = frozenset({*_REQUIRED, "value", "payload", "payload_base64", "hlc", "causes", "exchange"})
_CAUSE = ("partition", "sequence")
_EXCHANGE = ("partition", "offset", "sent_us", "acked_us", "appended_ms")
_NOT_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _error(fault: Fault, found: str) -> DecodeError:
    return DecodeError("Event", fault, found)


def _shown(value: Any) -> str:
    """For a message. What is nested is only named: how deep it goes has no limit here, but repr's has."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return f"{value!r:.80}"


def _text(member: str, value: Any, most: int, fault: Fault, least: int = 0) -> str:
    if not isinstance(value, str):
        raise _error(Fault.BAD_JSON, f"{member} is {_shown(value)}, it must be text")
    try:
        length = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise _error(Fault.BAD_UTF8, f"{member} has half a surrogate pair") from None
    if not least <= length <= most:
        raise _error(fault, f"{member} has {length} bytes; {least} to {most} are allowed")
    return value


def _integer(member: str, value: Any, bounds: range) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in bounds:
        raise _error(
            Fault.BAD_JSON, f"{member} is {_shown(value)}, it must be an integer of {bounds.stop.bit_length()} bits"
        )
    return value


def _instant(value: Any) -> int:
    if isinstance(value, str):
        try:
            return parse_us(value)
        except BadInputError as error:
            raise _error(Fault.BAD_JSON, f"local_timestamp: {error}") from None
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT64:
        raise _error(
            Fault.BAD_JSON,
            f"local_timestamp is {_shown(value)}, it must be RFC 3339 text or an integer of microseconds in 64 bits",
        )
    return value


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return None if value is None else float(value)
    if isinstance(value, str) and value in _NOT_NUMBERS:
        return _NOT_NUMBERS[value]
    raise _error(
        Fault.BAD_JSON, f'value is {_shown(value)}, it must be a number, null, "NaN", "Infinity" or "-Infinity"'
    )


def _payload(document: dict[str, Any]) -> bytes:
    payload = document.get("payload")
    if "payload_base64" in document:
        if "payload" in document:
            raise _error(Fault.BAD_JSON, "payload and payload_base64 exclude each other")
        encoded = document["payload_base64"]
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise _error(Fault.BAD_JSON, f"payload_base64 is {_shown(encoded)}, which is not base64") from None
    if payload is None:
        return b""
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError:
            raise _error(Fault.BAD_UTF8, "payload has half a surrogate pair") from None
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:
        raise _error(Fault.BAD_JSON, "payload is nested too deep to be written again") from None


def _integers(member: str, value: Any, names: tuple[str, ...]) -> dict[str, int]:
    if not isinstance(value, dict):
        raise _error(Fault.BAD_JSON, f"{member} is {_shown(value)}, it must be an object of {', '.join(names)}")
    for name in names:
        if name not in value:
            raise _error(Fault.BAD_JSON, f"{member}.{name} is missing")
    unknown = next((name for name in value if name not in names), None)
    if unknown is not None:
        raise _error(Fault.BAD_JSON, f"{member}: unknown member {unknown!r:.80}; the members are {', '.join(names)}")
    return {
        name: _integer(f"{member}.{name}", value[name], _INT32 if name == "partition" else _INT64) for name in names
    }


def event_from_document(document: Any) -> dict[str, Any]:
    """The Event, as codec.encode takes it, in a JSON value that has been parsed already. Raises DecodeError."""
    if not isinstance(document, dict):
        raise _error(Fault.BAD_JSON, f"it is {_shown(document)}, it must be an object")
    if not document.keys() <= _MEMBERS:
        unknown = sorted(map(str, document.keys() - _MEMBERS))
        raise _error(
            Fault.BAD_JSON, f"unknown member {_shown(unknown[0])}; the members are {', '.join(sorted(_MEMBERS))}"
        )
    missing = [name for name in _REQUIRED if name not in document]
    if missing:
        raise _error(Fault.BAD_JSON, f"{missing[0]} is missing")
    hlc, causes, exchange = document.get("hlc"), document.get("causes", []), document.get("exchange")
    event: dict[str, Any] = {
        "event_id": _text("event_id", document["event_id"], MAX_EVENT_ID_BYTES, Fault.LIMIT_EXCEEDED),
        "source": _text("source", document["source"], MAX_SOURCE_BYTES, Fault.SOURCE_LENGTH, least=1),
        "local_timestamp": _instant(document["local_timestamp"]),
        "kind": _text("kind", document["kind"], MAX_KIND_BYTES, Fault.LIMIT_EXCEEDED),
        "value": _number(document.get("value")),
        "payload": _payload(document),
        "hlc": None if hlc is None else _integer("hlc", hlc, _INT64),
    }
    if not isinstance(causes, list):
        raise _error(Fault.BAD_JSON, f"causes is {_shown(causes)}, it must be a list")
    if len(causes) > MAX_CAUSES:
        raise _error(Fault.LIMIT_EXCEEDED, f"causes has {len(causes)} items, at most {MAX_CAUSES} are allowed")
    event["causes"] = [_integers(f"causes[{at}]", cause, _CAUSE) for at, cause in enumerate(causes)]
    event["exchange"] = None if exchange is None else _integers("exchange", exchange, _EXCHANGE)
    return event


def event_from_json(data: bytes) -> dict[str, Any]:
    """The Event in JSON bytes. Raises DecodeError: BAD_UTF8, BAD_JSON, or the fault of a limit."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            data.decode()
        except UnicodeDecodeError:
            raise _error(Fault.BAD_UTF8, "the value is not UTF-8") from None
        raise _error(Fault.BAD_JSON, str(error)) from None
    return event_from_document(document)


def event_to_json(event: dict[str, Any]) -> bytes:
    """The JSON bytes of a complete and valid Event, members in the order of its fields."""
    value, payload = event["value"], event["payload"]
    if value is not None and not math.isfinite(value):
        value = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    try:
        content = ("payload", payload.decode())
    except UnicodeDecodeError:
        content = ("payload_base64", base64.b64encode(payload).decode())
    return orjson.dumps(
        dict([content if name == "payload" else (name, value if name == "value" else event[name]) for name in event])
    )
