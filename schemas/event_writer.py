"""Events to bytes, many a second: the body of one record written field by field.

Problem: codec.encode walks the schema twice for each record, once to check it and once to write it: ten times what the
event is worth. An event that event_json has taken is checked already, so only the writing is left.

GUARANTEE for every event that event_json accepts, the bytes are those of codec.encode, in both framings.
HAZARD nothing is checked here: what did not come from event_json goes through codec.encode.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from .codec import Framing, single_object_prefix
from .event_json import event_to_json

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTINUES = 0x80
_SEVEN_BITS = 0x7F
_INT64_MASK = 0xFFFF_FFFF_FFFF_FFFF
_NULL, _PRESENT = b"\0", b"\2"
_END_OF_ARRAY = b"\0"
_CAUSE = ("partition", "sequence")
_EXCHANGE = ("partition", "offset", "sent_us", "acked_us", "appended_ms")
_double = struct.Struct("<d").pack


def write_long(value: int) -> bytes:
    """Avro's int and long: zigzag, then seven bits a byte, the lowest first."""
    rest = (value << 1 ^ value >> 63) & _INT64_MASK
    if rest <= _SEVEN_BITS:
        return _ONE_BYTE[rest]
    written = bytearray()
    while rest > _SEVEN_BITS:
        written.append(rest & _SEVEN_BITS | _CONTINUES)
        rest >>= 7
    written.append(rest)
    return bytes(written)


_ONE_BYTE = [bytes([rest]) for rest in range(_SEVEN_BITS + 1)]


def writer(framing: Framing) -> Callable[[dict[str, Any]], bytes]:
    """What writes the value of a record, for events as event_json gives them."""
    if framing is Framing.JSON:
        return event_to_json
    prefix = single_object_prefix("Event")

    def write(event: dict[str, Any]) -> bytes:
        return prefix + _body(event)

    return write


def _body(event: dict[str, Any]) -> bytes:
    value, payload, hlc, exchange = event["value"], event["payload"], event["hlc"], event["exchange"]
    event_id, source, kind = event["event_id"].encode(), event["source"].encode(), event["kind"].encode()
    return b"".join(
        (
            write_long(len(event_id)),
            event_id,
            write_long(len(source)),
            source,
            write_long(event["local_timestamp"]),
            write_long(len(kind)),
            kind,
            _NULL if value is None else _PRESENT + _double(value),
            write_long(len(payload)),
            payload,
            _NULL if hlc is None else _PRESENT + write_long(hlc),
            _causes(event["causes"]),
            _NULL if exchange is None else _PRESENT + b"".join([write_long(exchange[name]) for name in _EXCHANGE]),
        )
    )


def _causes(causes: list[dict[str, int]]) -> bytes:
    if not causes:
        return _END_OF_ARRAY
    items = b"".join([write_long(cause[name]) for cause in causes for name in _CAUSE])
    return write_long(len(causes)) + items + _END_OF_ARRAY
