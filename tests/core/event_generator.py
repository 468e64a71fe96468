"""Generated events and ledger entries, whole and spoilt, shared by the tests of the schemas and of the folds.

Two forms. Hypothesis strategies, which shrink: for properties of single values. Seeded generators, which are fast: for
tens of thousands of records in one kernel call. Values come from the edges as often as from the middle: both ends of
int64, NaN and infinities, empty and longest texts, every width of UTF-8, arrays in blocks of both kinds.

The bytes are written by a few lines of Avro of their own, so that they share no code with what they test.
"""

from __future__ import annotations

import math
import os
import random
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from schemas.canonical import EntryKind, ValueState, value_hash
from schemas.codec import Framing, single_object_prefix
from schemas.columns import (
    Entries,
    Events,
    Fault,
    Scratch,
    allocate_entries,
    allocate_events,
    decode_entries,
    decode_events,
)
from schemas.memory import address_of, bytes_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
EXCHANGE = ("partition", "offset", "sent_us", "acked_us", "appended_ms")
_CHARACTERS = "aZ09-_\x00\x7f\x80é߿ࠀ퟿\ue000\uffff\U00010000\U0010ffff"
_FLOATS = (0.0, -0.0, 1.5, -2.25e300, 5e-324, math.nan, math.inf, -math.inf)

#: Fresh in each run; set the variable to repeat one.
SEED = int(os.environ.get("DRIFTLEDGER_TEST_SEED") or random.SystemRandom().getrandbits(32))


# ---------------------------------------------------------------------------------------------------------- hypothesis


def _texts(most_bytes: int, least: int = 0) -> st.SearchStrategy[str]:
    text = st.text(st.characters(codec="utf-8"), min_size=least, max_size=most_bytes)
    return text.filter(lambda value: len(value.encode()) <= most_bytes)


def events() -> st.SearchStrategy[dict[str, Any]]:
    """Complete Events as codec.encode takes them and codec.decode gives them."""
    long, integer = st.integers(INT64_MIN, INT64_MAX), st.integers(INT32_MIN, INT32_MAX)
    return st.fixed_dictionaries(
        {
            "event_id": _texts(40),
            "source": _texts(256, least=1),
            "local_timestamp": long,
            "kind": _texts(40),
            "value": st.none() | st.floats(),
            "payload": st.binary(max_size=200) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "ignore")),
            "hlc": st.none() | long,
            "causes": st.lists(st.fixed_dictionaries({"partition": integer, "sequence": long}), max_size=5),
            "exchange": st.none()
            | st.fixed_dictionaries({name: integer if name == "partition" else long for name in EXCHANGE}),
        }
    )


# -------------------------------------------------------------------------------------------------------- Avro, by hand


def avro_long(value: int) -> bytes:
    """A zigzag varint, in its shortest spelling."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def avro_bytes(value: bytes) -> bytes:
    """Length, content."""
    return avro_long(len(value)) + value


def avro_array(rng: random.Random, items: Sequence[bytes]) -> bytes:
    """Items in random blocks, with and without their size in bytes."""
    out, rest = b"", list(items)
    while rest:
        count = rng.randint(1, len(rest))
        block, rest = b"".join(rest[:count]), rest[count:]
        out += avro_long(count) if rng.random() < 0.5 else avro_long(-count) + avro_long(len(block))
        out += block
    return out + b"\0"


def event_value(rng: random.Random, event: dict[str, Any]) -> bytes:
    """The single-object bytes of an event."""
    value, hlc, exchange = event["value"], event["hlc"], event["exchange"]
    causes = [avro_long(cause["partition"]) + avro_long(cause["sequence"]) for cause in event["causes"]]
    return b"".join(
        [
            single_object_prefix("Event"),
            avro_bytes(event["event_id"].encode()),
            avro_bytes(event["source"].encode()),
            avro_long(event["local_timestamp"]),
            avro_bytes(event["kind"].encode()),
            b"\0" if value is None else b"\2" + struct.pack("<d", value),
            avro_bytes(event["payload"]),
            b"\0" if hlc is None else b"\2" + avro_long(hlc),
            avro_array(rng, causes),
            b"\0" if exchange is None else b"\2" + b"".join(avro_long(exchange[name]) for name in EXCHANGE),
        ]
    )


def entry_value(rng: random.Random, entry: dict[str, Any]) -> bytes:
    """The single-object bytes of a ledger entry; enums as their numbers."""
    headers = [
        avro_bytes(name) + (b"\0" if value is None else b"\2" + avro_bytes(value)) for name, value in entry["headers"]
    ]
    numbers = ("kind", "index", "sequence", "input_offset", "control_offset", "input_leader_epoch",
               "authority_timestamp", "authority_kind", "value_state", "value_length")  # fmt: skip
    return b"".join(
        [
            single_object_prefix("LedgerEntry"),
            *(avro_long(entry[name]) for name in numbers),
            entry["value_hash"],
            entry["chain_hash"],
            avro_array(rng, headers),
            b"\0" if entry["value"] is None else b"\2" + avro_bytes(entry["value"]),
        ]
    )


# --------------------------------------------------------------------------------------------------------------- seeded


def _long(rng: random.Random, least: int = INT64_MIN, most: int = INT64_MAX) -> int:
    edges = [edge for edge in (least, most, 0, -1, 1, 63, 64, -64, -65) if least <= edge <= most]
    return rng.choice(edges) if rng.random() < 0.3 else rng.randint(least, most) >> rng.randint(0, 62)


def _text(rng: random.Random, most_bytes: int, least: int = 0) -> str:
    if rng.random() < 0.02:
        return "x" * most_bytes
    text = "".join(rng.choices(_CHARACTERS if rng.random() < 0.3 else "abcdefgh-0123", k=rng.randint(least, 24)))
    while len(text.encode()) > most_bytes:
        text = text[:-1]
    return text


def random_event(rng: random.Random) -> dict[str, Any]:
    """An Event whose optional parts are there about half the time."""

    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.5 else None

    return {
        "event_id": _text(rng, 1024),
        "source": _text(rng, 256, least=1),
        "local_timestamp": _long(rng),
        "kind": _text(rng, 256),
        "value": maybe(rng.choice(_FLOATS)),
        "payload": rng.randbytes(rng.choice((0, 1, 7, 63, 64, 300))),
        "hlc": maybe(_long(rng)),
        "causes": [
            {"partition": _long(rng, INT32_MIN, INT32_MAX), "sequence": _long(rng)}
            for _ in range(rng.choice((0, 0, 1, 2, 70)))
        ],
        "exchange": maybe(
            {name: _long(rng, INT32_MIN, INT32_MAX) if name == "partition" else _long(rng) for name in EXCHANGE}
        ),
    }


def random_entry(rng: random.Random, value: bytes) -> dict[str, Any]:
    """A LedgerEntry that holds the value, or another state of it; enums as numbers, headers as pairs."""
    state = rng.choice((ValueState.PRESENT, ValueState.PRESENT, *ValueState))
    null = state == ValueState.NULL
    return {
        "kind": rng.choice(list(EntryKind)),
        "index": _long(rng),
        "sequence": _long(rng),
        "input_offset": _long(rng),
        "control_offset": _long(rng),
        "input_leader_epoch": _long(rng, INT32_MIN, INT32_MAX),
        "authority_timestamp": _long(rng),
        "authority_kind": rng.choice((0, 1)),
        "value_state": state,
        "value_length": -1 if null else len(value),
        "value_hash": value_hash(None if null else value),
        "chain_hash": rng.randbytes(32),
        "headers": [
            (rng.randbytes(rng.randint(0, 9)), rng.choice((None, b"", rng.randbytes(70))))
            for _ in range(rng.choice((0, 0, 0, 1, 3)))
        ],
        "value": value if state == ValueState.PRESENT else None,
    }


def mutate(rng: random.Random, value: bytes) -> bytes:
    """The value with one to three injuries, most of them behind the prefix so that they reach the body."""
    data = bytearray(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randint(0 if rng.random() < 0.1 else min(10, len(data)), len(data))
        match rng.randrange(8):
            case 0:
                del data[at:]
            case 1:
                data += rng.randbytes(rng.randint(1, 12))
            case 2 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 3 if at < len(data):
                data[at] = rng.choice((0, 1, 2, 3, 0x7F, 0x80, 0xC0, 0xED, 0xF4, 0xFF))
            case 4:
                data[at:at] = data[rng.randint(0, len(data)) :][: rng.randint(1, 20)]
            case 5:  # a varint that does not end, or ends one byte or one bit too late
                data[at : at + 1] = b"\xff" * rng.choice((4, 8, 9, 10, 11)) + rng.choice((b"", b"\0", b"\1", b"\2"))
            case 6:  # a huge length or count, positive or negative
                data[at : at + 1] = avro_long(rng.choice((INT64_MIN, INT64_MAX, -1, 1 << 31, 1 << 40, 1025, -1025)))
            case 7:
                del data[at : at + rng.randint(1, 8)]
    return bytes(data)


# -------------------------------------------------------------------------------------------------------------- columns


def lay_out(values: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The values one after another in a buffer: (buffer to keep alive, addresses, lengths)."""
    buffer = np.frombuffer(b"".join(values) + b"\0", np.uint8)
    lengths = np.array([len(value) for value in values], np.int64)
    return buffer, address_of(buffer) + np.cumsum(lengths) - lengths, lengths


def entries_of(values: Sequence[bytes]) -> tuple[Entries, NDArray[np.uint8]]:
    """DATA entries with these values PRESENT, and what must be kept alive."""
    buffer, addresses, lengths = lay_out(values)
    entries = allocate_entries(len(values))
    entries.value_address[:] = addresses
    entries.value_length[:] = lengths
    entries.key_length[:] = -1
    entries.index[:] = entries.sequence[:] = np.arange(1, len(values) + 1)
    return entries, buffer


def event_at(row: int, columns: Events) -> dict[str, Any]:
    """What a row without fault says, as a dict; the causes as the bytes from where they begin to the next field."""

    def content(name: str) -> bytes:
        return bytes_at(int(getattr(columns, f"{name}_address")[row]), int(getattr(columns, f"{name}_length")[row]))

    exchange = dict(zip(EXCHANGE, map(int, columns.exchange[row]), strict=True))
    return {
        "event_id": content("event_id").decode(),
        "source": content("source").decode(),
        "local_timestamp": int(columns.local_us[row]),
        "kind": content("kind").decode(),
        "value": float(columns.value[row]) if columns.has_value[row] else None,
        "payload": content("payload"),
        "hlc": int(columns.hlc[row]) if columns.has_hlc[row] else None,
        "causes": _causes_at(int(columns.causes_address[row]), int(columns.causes_count[row])),
        "exchange": exchange if columns.has_exchange[row] else None,
    }


def _causes_at(address: int, count: int) -> list[dict[str, int]]:
    def number() -> int:
        nonlocal address
        raw = shift = 0
        while True:
            byte = bytes_at(address, 1)[0]
            address += 1
            raw |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (raw >> 1) ^ -(raw & 1)

    causes: list[dict[str, int]] = []
    while len(causes) < count:
        block = number()
        if block < 0:
            number()
        causes += [{"partition": number(), "sequence": number()} for _ in range(abs(block))]
    return causes


def dump_columns(seed: int, records: int) -> bytes:
    """Every column of both decoders over generated records, whole and spoilt, addresses relative to their buffers.

    The same bytes in every process, compiled or interpreted.
    """
    rng = random.Random(seed)
    values = [event_value(rng, random_event(rng)) for _ in range(records)]
    values = [mutate(rng, value) if rng.random() < 0.6 else value for value in values]
    entries, events_buffer = entries_of(values)
    entries.kind[0] = EntryKind.CONTROL
    entries.value_state[1:4] = [ValueState.NULL, ValueState.OMITTED, ValueState.ERASED]
    entries.value_length[4:8] = [0, 1, 9, 10]
    columns = allocate_events(records)
    decode_events(entries, columns, Framing.SINGLE_OBJECT)

    ledger = [entry_value(rng, random_entry(rng, value)) for value in values]
    ledger_buffer, addresses, lengths = lay_out(ledger)
    nulls = np.full(records, -1)
    read, scratch = allocate_entries(records), Scratch()
    if decode_entries(addresses, lengths, nulls, nulls, read, scratch) != -1:
        raise AssertionError("a whole entry was refused")
    headers = scratch.reserve(0)

    def relative(column: NDArray[np.int64], base: int) -> bytes:
        return np.where(column == 0, 0, column - base).tobytes()

    spoilt = [mutate(rng, value) for value in ledger]
    spoilt_buffer, spoilt_addresses, spoilt_lengths = lay_out(spoilt)
    verdicts = bytes(
        decode_entries(spoilt_addresses[i : i + 1], spoilt_lengths[i : i + 1], nulls[:1], nulls[:1], *_one()) == -1
        for i in range(records)
    )
    del spoilt_buffer
    dump = [verdicts, bytes_at(headers, int(read.headers_length.sum()))]
    for table, buffer in ((columns, events_buffer), (read, ledger_buffer)):
        for name in table._fields:
            column = getattr(table, name)
            base = headers if name == "headers_address" else address_of(buffer)
            dump.append(relative(column, base) if name.endswith("_address") else column.tobytes())
    return b"".join(dump)


def _one() -> tuple[Entries, Scratch]:
    return allocate_entries(1), Scratch()


def count_faults(columns: Events) -> dict[Fault, int]:
    """How many rows have each fault."""
    faults, counts = np.unique(columns.fault, return_counts=True)
    return {Fault(fault): int(count) for fault, count in zip(faults, counts, strict=True)}
