"""The sequencer's plain twin: one record at a time, over schemas/canonical.py and fastavro."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.canonical import (
    AuthorityKind,
    EntryFields,
    EntryKind,
    ValueState,
    canonical_headers,
    chain_hash,
    value_hash,
)
from schemas.memory import address_of
from streams.records import allocate_records
from streams.sequence import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.records import Records


class Given(NamedTuple):
    """One record as it lies in Kafka."""

    offset: int
    timestamp_ms: int
    leader_epoch: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str | bytes, bytes | None], ...]


class Expected(NamedTuple):
    """The entry it must become."""

    fields: EntryFields
    chain_hash: bytes
    value: bytes | None


def columns_of(given: Sequence[Given]) -> tuple[Records, NDArray[np.uint8]]:
    """The records as columns, and the memory they point into."""
    records = allocate_records(len(given))
    parts: list[bytes] = []
    used = 0
    memory_plan: list[tuple[int, str, int]] = []
    for row, record in enumerate(given):
        headers = canonical_headers(record.headers) if record.headers else None
        for name, part in (("value", record.value), ("key", record.key), ("headers", headers)):
            if part is None:
                continue
            memory_plan.append((row, name, used))
            parts.append(part)
            used += len(part)
    memory = np.frombuffer(b"".join(parts) + b"\0", np.uint8).copy()
    base = address_of(memory)
    records.value_length[:] = -1
    records.key_length[:] = -1
    for (row, name, place), part in zip(memory_plan, parts, strict=True):
        getattr(records, f"{name}_address")[row] = base + place
        getattr(records, f"{name}_length")[row] = len(part)
    for row, record in enumerate(given):
        records.offset[row] = record.offset
        records.timestamp_ms[row] = record.timestamp_ms
        records.timestamp_type[row] = 2
        records.leader_epoch[row] = record.leader_epoch
    return records, memory


def _labels(record: Given) -> tuple[tuple[tuple[str | bytes, bytes | None], ...], bytes | None]:
    """Headers and key of the entry: those of the record, or one header with the hash of both where they are too large.

    The tag, length and payload of fields 12 and 13 are spelled out here from the documentation.
    """
    headers = canonical_headers(record.headers)
    if len(headers) + len(record.key or b"") <= 1024 * 1024:
        return record.headers, record.key
    labels = b"\x0c" + len(headers).to_bytes(4, "big") + headers
    if record.key is not None:
        labels += b"\x0d" + len(record.key).to_bytes(4, "big") + record.key
    return (("driftledger-omitted", sha256(labels).digest()),), None


def advance_plainly(
    head: Head, given: Sequence[Given], kind: EntryKind, value_bytes_max: int
) -> tuple[Head, list[Expected]]:
    """What streams.sequence.advance must make of the records."""
    expected = []
    for record in given:
        data = kind is EntryKind.DATA
        if record.value is None:
            state = ValueState.NULL
        elif len(record.value) > value_bytes_max:
            state = ValueState.OMITTED
        else:
            state = ValueState.PRESENT
        headers, key = _labels(record)
        fields = EntryFields(
            kind=kind,
            index=head.index + 1,
            sequence=head.sequence + data,
            input_offset=record.offset if data else head.input_offset,
            control_offset=head.control_offset if data else record.offset,
            input_leader_epoch=record.leader_epoch if data else -1,
            authority_timestamp_ms=record.timestamp_ms,
            authority_kind=AuthorityKind.APPENDED,
            value_state=state,
            value_length=-1 if record.value is None else len(record.value),
            value_hash=value_hash(record.value),
            headers=headers,
            key=key,
        )
        link = chain_hash(head.chain_hash, fields)
        expected.append(Expected(fields, link, record.value if state is ValueState.PRESENT else None))
        head = Head(fields.index, fields.sequence, fields.input_offset, fields.control_offset, link)
    return head, expected


def as_read(expected: Expected) -> dict[str, object]:
    """The entry as the codec reads it."""
    fields = expected.fields
    names = (name if isinstance(name, bytes) else name.encode() for name, _ in fields.headers)
    return {
        "kind": EntryKind(fields.kind).name,
        "index": fields.index,
        "sequence": fields.sequence,
        "input_offset": fields.input_offset,
        "control_offset": fields.control_offset,
        "input_leader_epoch": fields.input_leader_epoch,
        "authority_timestamp": fields.authority_timestamp_ms,
        "authority_kind": "APPENDED",
        "value_state": fields.value_state.name,
        "value_length": fields.value_length,
        "value_hash": fields.value_hash,
        "chain_hash": expected.chain_hash,
        "headers": [{"name": name, "value": value} for name, (_, value) in zip(names, fields.headers, strict=True)],
        "value": expected.value,
    }
