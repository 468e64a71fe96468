"""The sequencer: input records in, ledger entries out, each with its rank and its link in the chain.

Problem: prove the order of events whose clocks lie. So every readable input record becomes exactly one DATA entry,
every control record one CONTROL entry, numbered without gaps and chained by hash. The sequencer decodes nothing: no
payload and no bug in analysis can stop it or change the order.

GUARANTEE `advance` is a pure function of the head and the records: the same input gives the same bytes, however it
was cut into batches. `verify` accepts exactly what `advance` makes.
HAZARD the interleaving of DATA and CONTROL entries is decided by the lane when it writes; it is recorded, not
derivable.

How: one kernel pass a batch. The canonical bytes of an entry have fixed places up to the headers, so they are kept
in one template and only the payloads are stored anew; the previous chain hash stands in front of them, so that one
SHA-256 over consecutive memory makes the link. Layouts: schemas/canonical.py, schemas/ledger_entry.v1.avsc,
docs/formats.md.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.canonical import AuthorityKind, EntryKind, ValueState
from schemas.codec import single_object_prefix
from schemas.columns import Entries, allocate_entries
from schemas.memory import (
    SHA256_CONTEXT_BYTES,
    address_of,
    copy,
    kernel,
    load_u8,
    sha256_final,
    sha256_init,
    sha256_update,
    store_u8,
)
from streams.records import Records, bound_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA, CONTROL = int(EntryKind.DATA), int(EntryKind.CONTROL)
PRESENT, NULL, OMITTED, ERASED = (int(state) for state in ValueState)
HASH_BYTES = 32
#: The chain starts from this before genesis.
ZERO_HASH = bytes(HASH_BYTES)
APPENDED = int(AuthorityKind.APPENDED)

#: Widths of the canonical fields 1 to 11 (schemas/canonical.py); 12 is the headers, 13 the key.
_WIDTHS = (1, 8, 8, 8, 8, 4, 8, 1, 1, 8, HASH_BYTES)
_FIELD_OVERHEAD = 5  # tag and length


def _places() -> tuple[int, ...]:
    """Where each payload starts, counted from the previous chain hash; the last is the headers'."""
    place = HASH_BYTES + _FIELD_OVERHEAD
    places = [place]
    for width in _WIDTHS:
        place += width + _FIELD_OVERHEAD
        places.append(place)
    return tuple(places)


(P_KIND, P_INDEX, P_SEQUENCE, P_INPUT, P_CONTROL, P_EPOCH, P_AUTHORITY, P_AUTHORITY_KIND, P_STATE, P_LENGTH, P_HASH,
 P_HEADERS) = _places()  # fmt: skip
#: Keys up to this length are hashed from the template; longer ones where they lie.
_KEY_INLINE_BYTES = 512
_KEY_TAG = 13
#: Room an encoded entry needs beside value and headers: 10 of framing, 2 enums each 1, 5 longs each <= 10,
#: epoch <= 5, authority kind and state 2, length <= 10, two hashes 64, headers' count and end <= 11, union and
#: length <= 11.
_ENTRY_OVERHEAD_BYTES = 180
#: A canonical header takes 9 bytes beside its name and value, in Avro at most 11.
_HEADERS_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Head:
    """Where a ledger partition stands: the last entry's numbers, -1 for offsets before the first."""

    index: int = 0
    sequence: int = 0
    input_offset: int = -1
    control_offset: int = -1
    chain_hash: bytes = ZERO_HASH


class Sequenced(NamedTuple):
    """New entries and their encoded bytes: entry i is encoded[starts[i]:starts[i + 1]].

    memory: what entries point into beside the records.
    """

    entries: Entries
    encoded: NDArray[np.uint8]
    starts: NDArray[np.int64]
    memory: NDArray[np.uint8] | None


def _template() -> NDArray[np.uint8]:
    template = np.zeros(P_HEADERS + _FIELD_OVERHEAD + _KEY_INLINE_BYTES, np.uint8)
    for tag, (payload, width) in enumerate(zip(_places(), (*_WIDTHS, 0), strict=True), start=1):
        template[payload - _FIELD_OVERHEAD] = tag
        template[payload - 4 : payload] = np.frombuffer(width.to_bytes(4, "big"), np.uint8)
    return template


_TEMPLATE = _template()


@kernel
def _put_be(target: int, value: int, width: int) -> None:
    for i in range(width):
        store_u8(target + i, value >> (8 * (width - 1 - i)))


@kernel
def _put_be8(target: int, value: int) -> None:
    store_u8(target, value >> 56)
    store_u8(target + 1, value >> 48)
    store_u8(target + 2, value >> 40)
    store_u8(target + 3, value >> 32)
    store_u8(target + 4, value >> 24)
    store_u8(target + 5, value >> 16)
    store_u8(target + 6, value >> 8)
    store_u8(target + 7, value)


@kernel
def put_long(target: int, value: int) -> int:
    """Avro's zigzag varint; returns the address after it."""
    rest = (value << 1) ^ (value >> 63)
    while True:
        low = rest & 0x7F
        rest = (rest >> 7) & 0x01FF_FFFF_FFFF_FFFF
        if rest == 0:
            store_u8(target, low)
            return target + 1
        store_u8(target, low | 0x80)
        target += 1


@kernel
def _read_be4(source: int) -> int:
    value: int = (
        (load_u8(source) << 24) | (load_u8(source + 1) << 16) | (load_u8(source + 2) << 8) | load_u8(source + 3)
    )
    return value


@kernel
def _put_headers(target: int, headers: int, length: int) -> int:
    """Canonical headers to an Avro array; returns the address after it."""
    if length:
        count = _read_be4(headers)
        target = put_long(target, count)
        source = headers + 4
        for _ in range(count):
            size = _read_be4(source)
            target = put_long(target, size)
            copy(target, source + 4, size)
            target += size
            source += 4 + size
            present = load_u8(source)
            source += 1
            store_u8(target, 2 * present)
            target += 1
            if present:
                size = _read_be4(source)
                target = put_long(target, size)
                copy(target, source + 4, size)
                target += size
                source += 4 + size
    store_u8(target, 0)
    return target + 1


@kernel
def _link(entries: Entries, row: int, template: int, context: int, digest: int) -> None:
    """Chain hash of a row into digest; the previous hash stands at the template's start."""
    store_u8(template + P_KIND, entries.kind[row])
    _put_be8(template + P_INDEX, entries.index[row])
    _put_be8(template + P_SEQUENCE, entries.sequence[row])
    _put_be8(template + P_INPUT, entries.input_offset[row])
    _put_be8(template + P_CONTROL, entries.control_offset[row])
    _put_be(template + P_EPOCH, int(entries.leader_epoch[row]), 4)
    _put_be8(template + P_AUTHORITY, entries.authority_ms[row])
    store_u8(template + P_AUTHORITY_KIND, entries.authority_kind[row])
    state = entries.value_state[row]
    store_u8(template + P_STATE, PRESENT if state == ERASED else state)
    _put_be8(template + P_LENGTH, entries.value_length[row])
    for i in range(HASH_BYTES):
        store_u8(template + P_HASH + i, entries.value_hash[row, i])
    headers_length = entries.headers_length[row]
    key_length = entries.key_length[row]
    _put_be(template + P_HEADERS - 4, headers_length, 4)
    sha256_init(context)
    used = P_HEADERS
    if headers_length:
        sha256_update(context, template, used)
        sha256_update(context, entries.headers_address[row], headers_length)
        used = 0
    if key_length >= 0:
        at = template + P_HEADERS
        store_u8(at, _KEY_TAG)
        _put_be(at + 1, key_length, 4)
        if key_length <= _KEY_INLINE_BYTES:
            copy(at + _FIELD_OVERHEAD, entries.key_address[row], key_length)
            if used:
                sha256_update(context, template, P_HEADERS + _FIELD_OVERHEAD + key_length)
            else:
                sha256_update(context, at, _FIELD_OVERHEAD + key_length)
        else:
            if used:
                sha256_update(context, template, P_HEADERS + _FIELD_OVERHEAD)
            else:
                sha256_update(context, at, _FIELD_OVERHEAD)
            sha256_update(context, entries.key_address[row], key_length)
    elif used:
        sha256_update(context, template, used)
    sha256_final(digest, context)


@kernel
def _put_entry(at: int, entries: Entries, row: int, value_hashes: int, chain_hashes: int, frame: int) -> int:
    """An entry as it stands in the ledger topic; returns the address after it."""
    state = entries.value_state[row]
    copy(at, frame, 10)
    at += 10
    store_u8(at, entries.kind[row] * 2)
    at = put_long(at + 1, entries.index[row])
    at = put_long(at, entries.sequence[row])
    at = put_long(at, entries.input_offset[row])
    at = put_long(at, entries.control_offset[row])
    at = put_long(at, int(entries.leader_epoch[row]))
    at = put_long(at, entries.authority_ms[row])
    store_u8(at, entries.authority_kind[row] * 2)
    store_u8(at + 1, state * 2)
    at = put_long(at + 2, entries.value_length[row])
    copy(at, value_hashes + row * HASH_BYTES, HASH_BYTES)
    copy(at + HASH_BYTES, chain_hashes + row * HASH_BYTES, HASH_BYTES)
    at = _put_headers(at + 2 * HASH_BYTES, entries.headers_address[row], entries.headers_length[row])
    if state != PRESENT:
        store_u8(at, 0)
        return at + 1
    length = entries.value_length[row]
    store_u8(at, 2)
    at = put_long(at + 1, length)
    copy(at, entries.value_address[row], length)
    return int(at + length)


@kernel
def _advance(
    records: Records,
    kind: int,
    numbers: NDArray[np.int64],
    value_bytes_max: int,
    entries: Entries,
    value_hashes: int,
    chain_hashes: int,
    template: int,
    context: int,
    frame: int,
    encoded: int,
    starts: NDArray[np.int64],
) -> None:
    index, sequence, input_offset, control_offset = numbers[0], numbers[1], numbers[2], numbers[3]
    at = encoded
    for row in range(records.offset.size):
        index += 1
        if kind == DATA:
            sequence += 1
            input_offset = records.offset[row]
        else:
            control_offset = records.offset[row]
        length = records.value_length[row]
        state = PRESENT
        if length < 0:
            state = NULL
        elif length > value_bytes_max:
            state = OMITTED
        entries.kind[row] = kind
        entries.index[row] = index
        entries.sequence[row] = sequence
        entries.input_offset[row] = input_offset
        entries.control_offset[row] = control_offset
        entries.leader_epoch[row] = records.leader_epoch[row] if kind == DATA else -1
        entries.authority_ms[row] = records.timestamp_ms[row]
        entries.authority_kind[row] = APPENDED
        entries.value_state[row] = state
        entries.value_address[row] = records.value_address[row] if state == PRESENT else 0
        entries.value_length[row] = length
        entries.key_address[row] = records.key_address[row]
        entries.key_length[row] = records.key_length[row]
        entries.headers_address[row] = records.headers_address[row]
        entries.headers_length[row] = records.headers_length[row]
        if length >= 0:
            sha256_init(context)
            sha256_update(context, records.value_address[row], length)
            sha256_final(value_hashes + row * HASH_BYTES, context)
        _link(entries, row, template, context, chain_hashes + row * HASH_BYTES)
        copy(template, chain_hashes + row * HASH_BYTES, HASH_BYTES)
        starts[row] = at - encoded
        at = _put_entry(at, entries, row, value_hashes, chain_hashes, frame)
    starts[records.offset.size] = at - encoded
    numbers[0], numbers[1], numbers[2], numbers[3] = index, sequence, input_offset, control_offset


_FRAME = np.frombuffer(single_object_prefix("LedgerEntry"), np.uint8).copy()


def advance(head: Head, records: Records, kind: int, value_bytes_max: int) -> tuple[Head, Sequenced]:
    """Sequence records of one partition, all DATA or all CONTROL, in the order given.

    A value over value_bytes_max becomes OMITTED: hash and length stand, the bytes stay where they came from; too large
    a key and headers likewise (bound_labels). The entries point into the records' memory (values, keys, headers), so
    they live as long as the batch.
    """
    records, memory = bound_labels(records)
    rows = records.offset.size
    entries = allocate_entries(rows)
    kept = np.where(records.value_length > value_bytes_max, 0, records.value_length)
    room = int(kept.sum() + _HEADERS_FACTOR * records.headers_length.sum()) + rows * _ENTRY_OVERHEAD_BYTES
    encoded = np.empty(room, np.uint8)
    starts = np.empty(rows + 1, np.int64)
    numbers = np.array([head.index, head.sequence, head.input_offset, head.control_offset], np.int64)
    template = _TEMPLATE.copy()
    template[:HASH_BYTES] = np.frombuffer(head.chain_hash, np.uint8)
    context = np.empty(SHA256_CONTEXT_BYTES, np.uint8)
    _advance(
        records,
        kind,
        numbers,
        value_bytes_max,
        entries,
        address_of(entries.value_hash),
        address_of(entries.chain_hash),
        address_of(template),
        address_of(context),
        address_of(_FRAME),
        address_of(encoded),
        starts,
    )
    index, sequence, input_offset, control_offset = numbers.tolist()
    chain_hash = template[:HASH_BYTES].tobytes()
    return Head(index, sequence, input_offset, control_offset, chain_hash), Sequenced(entries, encoded, starts, memory)


@kernel
def _relink(entries: Entries, value_hashes: int, chain_hashes: int, template: int, context: int) -> None:
    for row in range(entries.index.size):
        if entries.value_state[row] == PRESENT:
            sha256_init(context)
            sha256_update(context, entries.value_address[row], entries.value_length[row])
            sha256_final(value_hashes + row * HASH_BYTES, context)
        _link(entries, row, template, context, chain_hashes + row * HASH_BYTES)
        copy(template, chain_hashes + row * HASH_BYTES, HASH_BYTES)


def relink(before: bytes, entries: Entries) -> bytes:
    """Fill in the hashes of entries that come from elsewhere than the ledger; returns the chain hash of the last.

    before: the chain hash that they follow. value_hash is filled in where the value is there, chain_hash in all.
    """
    template = _TEMPLATE.copy()
    template[:HASH_BYTES] = np.frombuffer(before, np.uint8)
    context = np.empty(SHA256_CONTEXT_BYTES, np.uint8)
    hashes = (address_of(entries.value_hash), address_of(entries.chain_hash))
    _relink(entries, *hashes, address_of(template), address_of(context))
    return template[:HASH_BYTES].tobytes()


@kernel
def _encode(
    entries: Entries, value_hashes: int, chain_hashes: int, frame: int, encoded: int, starts: NDArray[np.int64]
) -> None:
    at = encoded
    for row in range(entries.index.size):
        starts[row] = at - encoded
        at = _put_entry(at, entries, row, value_hashes, chain_hashes, frame)
    starts[entries.index.size] = at - encoded


def encode(entries: Entries) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Entries as they stand in the ledger topic: entry i is encoded[starts[i]:starts[i + 1]]."""
    rows = entries.index.size
    values = np.where(entries.value_state == PRESENT, entries.value_length, 0)
    room = int(values.sum() + _HEADERS_FACTOR * entries.headers_length.sum()) + rows * _ENTRY_OVERHEAD_BYTES
    encoded, starts = np.empty(room, np.uint8), np.empty(rows + 1, np.int64)
    hashes = (address_of(entries.value_hash), address_of(entries.chain_hash))
    _encode(entries, *hashes, address_of(_FRAME), address_of(encoded), starts)
    return encoded, starts


class Break(enum.IntEnum):
    """What `verify` found wrong with an entry."""

    NONE = 0
    INDEX = 1
    SEQUENCE = 2
    OFFSET = 3
    VALUE_HASH = 4
    CHAIN = 5


@kernel
def _verify(
    entries: Entries, numbers: NDArray[np.int64], template: int, context: int, digest: NDArray[np.uint8], digest_at: int
) -> int:
    """0 where all is whole, else row * 8 + Break."""
    for row in range(entries.index.size):
        data = entries.kind[row] == DATA
        if entries.index[row] != numbers[0] + 1:
            return row * 8 + 1
        if entries.sequence[row] != numbers[1] + (1 if data else 0):
            return row * 8 + 2
        moved, still = (2, 3) if data else (3, 2)
        offsets = (entries.input_offset[row], entries.control_offset[row])
        if offsets[moved - 2] <= numbers[moved] or offsets[still - 2] != numbers[still]:
            return row * 8 + 3
        length = entries.value_length[row]
        if entries.value_state[row] == PRESENT:
            sha256_init(context)
            sha256_update(context, entries.value_address[row], length)
            sha256_final(digest_at, context)
            for i in range(HASH_BYTES):
                if digest[i] != entries.value_hash[row, i]:
                    return row * 8 + 4
        _link(entries, row, template, context, digest_at)
        for i in range(HASH_BYTES):
            if digest[i] != entries.chain_hash[row, i]:
                return row * 8 + 5
        copy(template, digest_at, HASH_BYTES)
        numbers[0], numbers[1] = entries.index[row], entries.sequence[row]
        numbers[2], numbers[3] = offsets
    return 0


def verify(head: Head, entries: Entries) -> tuple[Head, int, Break]:
    """Check that entries follow the head: contiguous numbers, rising offsets, value hashes and the chain.

    Returns the head after the last whole entry, the first bad row (-1 for none) and what is wrong with it.
    """
    numbers = np.array([head.index, head.sequence, head.input_offset, head.control_offset], np.int64)
    template = _TEMPLATE.copy()
    template[:HASH_BYTES] = np.frombuffer(head.chain_hash, np.uint8)
    context = np.empty(SHA256_CONTEXT_BYTES, np.uint8)
    digest = np.empty(HASH_BYTES, np.uint8)
    found = int(_verify(entries, numbers, address_of(template), address_of(context), digest, address_of(digest)))
    index, sequence, input_offset, control_offset = numbers.tolist()
    after = Head(index, sequence, input_offset, control_offset, template[:HASH_BYTES].tobytes())
    return after, (found // 8 if found else -1), Break(found % 8)


def head_of(entries: Entries, row: int) -> Head:
    """The head that stands after that row."""
    return Head(
        int(entries.index[row]),
        int(entries.sequence[row]),
        int(entries.input_offset[row]),
        int(entries.control_offset[row]),
        entries.chain_hash[row].tobytes(),
    )
