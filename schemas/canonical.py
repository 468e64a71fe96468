"""The canonical bytes of a ledger entry and the chain over them.

Problem: two implementations, years apart, must come to the same hash for the same entry, and a value must be erasable
(by law, by retention) without breaking the proof that nothing else was touched. So the hash is not taken over the
bytes on the wire but over a canonical form that has one spelling only and holds the value through its hash.

    chain_hash = SHA-256( chain_hash of the entry before (32 bytes; zeros before the first) || canonical bytes )

Canonical bytes are the fields in the order of their tags, each one

    +-----+-----------+-----------------+
    | tag | length    | payload         |
    | u8  | u32 BE    | length bytes    |
    +-----+-----------+-----------------+

    tag  field                 length   payload (integers big-endian, two's complement)
      1  kind                       1   0 DATA, 1 CONTROL
      2  index                      8
      3  sequence                   8
      4  input_offset               8
      5  control_offset             8
      6  input_leader_epoch         4
      7  authority_timestamp        8   milliseconds
      8  authority_kind             1   0 APPENDED, 1 OBSERVED
      9  value_state                1   0 PRESENT, 1 NULL, 2 OMITTED; ERASED is written as PRESENT
     10  value_length               8   -1 for NULL
     11  value_hash                32   SHA-256 of the value, 32 zero bytes for NULL
     12  headers                 0, n   empty when there are none, else as below
     13  key                        n   left out when the key is null

    headers: u32 BE count, then each, in the order received, duplicates kept:
    +-------------+------+---------+-------------------------------+
    | name length | name | present | only when present is 1:       |
    | u32 BE      |      | u8 0/1  | u32 BE value length, value    |
    +-------------+------+---------+-------------------------------+

Key and canonical headers together are the labels of a record. Kafka limits the size of a batch as it was compressed, so
they can be larger than any request takes. A record with more than LABELS_BYTES_MAX of them has an entry without key,
whose only header, OMITTED_LABELS, holds the SHA-256 of fields 12 and 13 as they would have been written; the value is
treated like any other.

GUARANTEE two entries that differ in any field but the value's presence (PRESENT or ERASED) have different canonical
bytes: every field is tagged, its length stands before it, and there is one order.
HAZARD an ERASED entry proves the hash of what was erased, not that the hash was of anything in particular.
HAZARD Kafka does not check that header names are UTF-8, so names are bytes here; one given as text is its UTF-8 bytes,
with Python's surrogateescape for what is not.

This module is plain Python on the standard library, so that an observer can run it alone; it is also the oracle of the
sequencer's kernel, which writes the same bytes natively.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What stands before the first entry of a partition.
CHAIN_START = bytes(32)

#: value_hash of an entry whose value is NULL.
NULL_VALUE_HASH = bytes(32)

HASH_BYTES = 32

#: An entry holds no more of key and canonical headers than this.
LABELS_BYTES_MAX = 1 << 20
#: Name of the header that stands for larger ones.
OMITTED_LABELS = b"driftledger-omitted"
_HEADERS_TAG, _KEY_TAG = 12, 13


class EntryKind(enum.IntEnum):
    """What an entry is; the numbers are those of the Avro enum and of the canonical bytes."""

    DATA = 0
    CONTROL = 1


class AuthorityKind(enum.IntEnum):
    """Whose reading authority_timestamp is: the broker's append time, or the lane's at arrival."""

    APPENDED = 0
    OBSERVED = 1


class ValueState(enum.IntEnum):
    """Where the value is."""

    PRESENT = 0
    NULL = 1
    OMITTED = 2
    ERASED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFields:
    """What the chain covers of one entry: every field but chain_hash, the value through its hash, and the key."""

    kind: EntryKind
    index: int
    sequence: int
    input_offset: int
    control_offset: int
    input_leader_epoch: int
    authority_timestamp_ms: int
    authority_kind: AuthorityKind
    value_state: ValueState
    value_length: int
    value_hash: bytes
    headers: Sequence[tuple[str | bytes, bytes | None]]
    key: bytes | None


def value_hash(value: bytes | None) -> bytes:
    """SHA-256 of the value, 32 zero bytes for a null one."""
    return NULL_VALUE_HASH if value is None else hashlib.sha256(value).digest()


def canonical_headers(headers: Sequence[tuple[str | bytes, bytes | None]]) -> bytes:
    """The payload of field 12; empty for no headers."""
    if not headers:
        return b""
    parts = [struct.pack(">I", len(headers))]
    for name, value in headers:
        name_bytes = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
        parts.append(struct.pack(">I", len(name_bytes)) + name_bytes)
        parts.append(b"\x00" if value is None else b"\x01" + struct.pack(">I", len(value)) + value)
    return b"".join(parts)


def omitted_labels(headers: bytes, key: bytes | None) -> bytes:
    """The canonical headers of an entry whose record has too large labels. headers: the record's, canonical."""
    labels = hashlib.sha256(struct.pack(">BI", _HEADERS_TAG, len(headers)) + headers)
    if key is not None:
        labels.update(struct.pack(">BI", _KEY_TAG, len(key)) + key)
    return canonical_headers([(OMITTED_LABELS, labels.digest())])


def canonical_bytes(entry: EntryFields) -> bytes:
    """The bytes the chain is computed over.

    Raises ValueError for a value_hash that is not 32 bytes, struct.error for an integer that does not fit its field.
    """
    if len(entry.value_hash) != HASH_BYTES:
        message = f"value_hash has {len(entry.value_hash)} bytes; it must have {HASH_BYTES}"
        raise ValueError(message)
    state = ValueState.PRESENT if entry.value_state == ValueState.ERASED else entry.value_state
    payloads = [
        struct.pack(">B", entry.kind),
        struct.pack(">q", entry.index),
        struct.pack(">q", entry.sequence),
        struct.pack(">q", entry.input_offset),
        struct.pack(">q", entry.control_offset),
        struct.pack(">i", entry.input_leader_epoch),
        struct.pack(">q", entry.authority_timestamp_ms),
        struct.pack(">B", entry.authority_kind),
        struct.pack(">B", state),
        struct.pack(">q", entry.value_length),
        entry.value_hash,
        canonical_headers(entry.headers),
    ]
    if entry.key is not None:
        payloads.append(entry.key)
    return b"".join(struct.pack(">BI", tag, len(payload)) + payload for tag, payload in enumerate(payloads, start=1))


def chain_hash(previous: bytes, entry: EntryFields) -> bytes:
    """The chain hash of an entry that follows the one whose chain hash is `previous` (CHAIN_START for the first)."""
    if len(previous) != HASH_BYTES:
        message = f"the previous chain hash has {len(previous)} bytes; it must have {HASH_BYTES}"
        raise ValueError(message)
    return hashlib.sha256(previous + canonical_bytes(entry)).digest()
