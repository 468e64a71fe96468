"""What is said of a chunk beside its rows: its header with statistics by source, kind and minute, and its readings.

Both follow from the entries and what judge made of them, whoever has these in hand: the fold, as a chunk ends, or who
makes the index of an archive again. How they are laid out, `chunks` says.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lifecycle.chunks import HASH_BYTES, NO_LOCAL, ROWS, Header, ReadingCode, Readings, Stats
from lifecycle.dating_kernel import corrected_span
from lifecycle.exact_sum import PARTS
from lifecycle.packing import texts_of
from lifecycle.store_kernel import Groups, summarise
from schemas.columns import Fault
from schemas.instants import INT64_MAX, INT64_MIN, US_PER_MS
from streams.control import control_values, is_heartbeat, read_control

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lifecycle.chunks import Applied, Rows
    from schemas.columns import Entries

#: Of the table in which the lines of a header are found.
_PLACES: Final = 2 * ROWS


class Reading(NamedTuple):
    """An ANCHOR, VERIFY or LOCK entry; see `chunks.Readings`."""

    index: int  # type: ignore[assignment] # as in Rows
    sequence: int
    authority_ms: int
    asserted_us: int
    reading: int
    source: bytes
    chain_hash: bytes


def header_of(
    partition: int,
    before: Applied,
    rows: Rows,
    readings: int,
    last_index: int,
    sources: tuple[bytes, ...] = (),
    kinds: tuple[bytes, ...] = (),
) -> Header:
    """The header of a chunk of rows, and so many readings, that ends with the entry of that index.

    before: of the chunk before; how many there were is of no matter.
    """
    stats, counted, warned = _stats_of(rows)
    local_us = rows.local_us[rows.fault == Fault.NONE]
    count = rows.index.size
    authority_ms = rows.authority_ms if count else np.zeros(1, np.int64)
    dated = corrected_span(rows.local_us, rows.authority_ms, rows.offset_us, rows.bound_us, rows.fault)
    return Header(
        partition=partition,
        first_sequence=before.sequence + 1,
        last_sequence=before.sequence + count,
        first_index=before.index + 1,
        last_index=last_index,
        rows=count,
        counted=counted,
        warned=warned,
        readings=readings,
        authority_ms_min=int(authority_ms.min()),
        authority_ms_max=int(authority_ms.max()),
        order_ms=before.order_ms,
        local_us_min=int(local_us.min()) if local_us.size else NO_LOCAL[0],
        local_us_max=int(local_us.max()) if local_us.size else NO_LOCAL[1],
        corrected_us_min=int(dated[0]),
        corrected_us_max=int(dated[1]),
        sources=sources,
        kinds=kinds,
        stats=stats,
    )


def _stats_of(rows: Rows) -> tuple[Stats, int, int]:
    """Statistics, counted rows, warned rows."""
    most = rows.fault.size
    groups = Groups(
        keys=np.empty((most, 4), np.int64),
        count=np.zeros(most, np.int64),
        values=np.zeros(most, np.int64),
        minimum=np.empty(most, np.float64),
        maximum=np.empty(most, np.float64),
        sum=np.zeros((most, PARTS), np.float64),
        exact=np.empty(most, np.uint8),
        places=np.zeros(_PLACES, np.int32),
    )
    lines, counted, warned = summarise(
        rows.source, rows.kind, rows.local_us, rows.authority_ms, rows.value, rows.has_value, rows.flags, rows.fault,
        groups,
    )  # fmt: skip
    source, kind, local_minute, authority_minute = groups.keys[:lines].T
    order = _ascending(source, kind, local_minute, authority_minute)
    codes = [source[order].astype(np.int32), kind[order].astype(np.int32)]
    rest: list[Any] = [
        local_minute[order],
        authority_minute[order],
        *(column[:lines][order] for column in groups[1:-1]),
    ]
    return Stats(*codes, *rest), counted, warned


def _ascending(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of lines in ascending order; no two are equal."""
    if not columns[0].size:
        return np.zeros(0, np.int64)
    lows = [int(column.min()) for column in columns]
    spans = [int(column.max()) - low + 1 for column, low in zip(columns, lows, strict=True)]
    if math.prod(spans) > INT64_MAX:
        return np.lexsort(columns[::-1])
    key = columns[0] - lows[0]  # one number of them all is sorted several times as fast
    for column, low, span in zip(columns[1:], lows[1:], spans[1:], strict=True):
        key = key * span + (column - low)
    return np.argsort(key)


def readings_in(entries: Entries, start: int) -> list[tuple[int, Reading]]:
    """ANCHOR, VERIFY and LOCK entries from a row on, each behind its row; the sequence is the caller's to say."""
    found = []
    for row, value in control_values(entries, start):
        kind, body = ("", {}) if is_heartbeat(value) else read_control(value)
        code = _code_of(kind, body)
        if code is None:
            continue
        authority_ms = int(entries.authority_ms[row])
        asserted_us = body["anchor_timestamp"] if code is ReadingCode.ANCHOR else body["client_timestamp"]
        if asserted_us is None:
            asserted_us = min(max(authority_ms * US_PER_MS, INT64_MIN), INT64_MAX)
        reading = Reading(
            int(entries.index[row]), 0, authority_ms, asserted_us, code, body["source"].encode(),
            entries.chain_hash[row].tobytes(),
        )  # fmt: skip
        found.append((row, reading))
    return found


def _code_of(kind: str, body: Mapping[str, Any]) -> ReadingCode | None:
    match kind:
        case "Anchor":
            return ReadingCode.ANCHOR
        case "Verify":
            return ReadingCode.VERIFY
        case "Lock":
            return ReadingCode.LOCK if body["engaged"] else ReadingCode.RELEASE
        case _:
            return None


def columns_of(readings: Sequence[Reading]) -> Readings:
    """Readings as a chunk has them."""
    index, sequence, authority_ms, asserted_us, code = (
        np.array([reading[:5] for reading in readings], np.int64).reshape(-1, 5).T.copy()
    )
    hashes = b"".join(reading.chain_hash for reading in readings)
    return Readings(
        index,
        sequence,
        authority_ms,
        asserted_us,
        code.astype(np.uint8),
        texts_of([reading.source for reading in readings]),
        np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES),
    )
