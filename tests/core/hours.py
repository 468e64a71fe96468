"""A ledger over some hours, with the chunks that the hot tier has of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lifecycle.chunk_codec import decode_header
from lifecycle.chunks import ChunkBytes
from lifecycle.store import Store
from lifecycle.tiers import MS_PER_HOUR, Grain, period_of
from schemas.canonical import EntryKind, ValueState
from schemas.columns import slice_rows
from schemas.memory import address_of
from streams.judge import Judge
from streams.sequence import ZERO_HASH, relink
from tests.core.judge_histories import history
from tests.core.judge_oracle import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.chunks import Header
    from schemas.columns import Entries

#: 2026-01-30 22:00 UTC: two hours before the end of a day, which is the last but one of its month.
BEGIN_MS = 1_769_810_400_000


class Hour(NamedTuple):
    """The chunks of an hour, in order."""

    period: str
    chunks: list[ChunkBytes]
    headers: list[Header]


class Hours(NamedTuple):
    """A ledger. memory: what its entries point into."""

    partition: int
    entries: Entries
    hours: list[Hour]
    memory: object

    def batches(self, first_index: int, rows: int) -> Iterator[Entries]:
        """The entries from an index on, as a reader gives them."""
        for start in range(first_index - 1, self.entries.index.size, rows):
            yield slice_rows(self.entries, start, min(start + rows, self.entries.index.size))


def over_hours(seed: int, length: int, hours: int, partition: int = 3, spoiled: bytes = b"") -> Hours:
    """So many entries, spread over so many hours and one that has not ended.

    spoiled: in place of every value that is there, all at one place in memory.
    """
    rows = history(seed, length)
    if spoiled:
        rows = [replace(row, value=b"") if row.kind is EntryKind.DATA else row for row in rows]
    ledger = Ledger(rows)
    entries = ledger.entries
    memory = np.frombuffer(spoiled + b"\0", np.uint8)
    if spoiled:
        there = (entries.kind == EntryKind.DATA) & (entries.value_state == ValueState.PRESENT)
        entries.value_address[there], entries.value_length[there] = address_of(memory), len(spoiled)
    entries.authority_ms[:] = BEGIN_MS + np.arange(length, dtype=np.int64) * ((hours + 1) * MS_PER_HOUR) // length
    relink(ZERO_HASH, entries)
    judge, fold = Judge(), Store()
    state = fold.new_state(partition)
    found: dict[str, Hour] = {}
    for chunk in fold.step(state, entries, judge.step(judge.new_state(partition), entries)):
        header = decode_header(partition, chunk.first_sequence, chunk.header)
        period = period_of(max(header.order_ms, header.authority_ms_max), Grain.HOURLY)
        hour = found.setdefault(period, Hour(period, [], []))
        hour.chunks.append(ChunkBytes(chunk.first_sequence, chunk.header, chunk.sections))
        hour.headers.append(header)
    return Hours(partition, entries, list(found.values()), (ledger, memory))
