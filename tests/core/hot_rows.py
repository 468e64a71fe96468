"""Rows and chunks of a hot tier out of a seed, at any size, and a store of them that is a dictionary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lifecycle.catalog import Unsealed
from lifecycle.chunk_codec import encode_column, read_section
from lifecycle.chunks import NO_LOCAL, Column, Header, Read, Rows, Stats
from lifecycle.packing import Texts, texts_of
from schemas.faults import Fault
from schemas.instants import INT64_MIN
from streams.causes import Cause
from streams.judge_kernel import NO_SEVERITY, Flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: 2026-11-21T09:00:00Z.
START_MS = 1_795_251_600_000
_HOUR_MS = 3_600_000


class Partition(NamedTuple):
    """All rows of a partition from sequence 1 on; source and kind are places in these names."""

    rows: Rows
    sources: tuple[bytes, ...]
    kinds: tuple[bytes, ...]


def many_rows(
    partition: int,
    count: int,
    *,
    sources: Sequence[bytes],
    kinds: Sequence[bytes] = (b"temperature", b"pressure"),
    rate_per_s: float = 500.0,
    spread_s: float = 2.0,
    seed: int = 1,
) -> Partition:
    """Ordinary rows: all readable and counted, local times within spread_s of authority, values about 20.

    Texts are short and hashes zero: what is measured with them is not about them.
    """
    rng = np.random.default_rng((seed, partition))
    authority_ms = START_MS + (np.arange(count) * (1_000 / rate_per_s)).astype(np.int64)
    local_us = authority_ms * 1_000 + rng.integers(-int(spread_s * 1e6), int(spread_s * 1e6) + 1, count)
    sequence = np.arange(1, count + 1)
    texts = Texts(np.arange(count + 1, dtype=np.int32), np.full(count, ord("x"), np.uint8))
    rows = Rows(
        sequence=sequence,
        index=sequence + sequence // 1_000 + 2,
        input_offset=sequence - 1,
        authority_ms=authority_ms,
        local_us=local_us,
        value=np.round(rng.normal(20.0, 5.0, count), 3),
        has_value=np.ones(count, np.uint8),
        severity=np.zeros(count, np.uint8),
        flags=np.zeros(count, np.uint8),
        fault=np.zeros(count, np.uint8),
        source=rng.integers(0, len(sources), count).astype(np.int32),
        kind=rng.integers(0, len(kinds), count).astype(np.int32),
        event_id=texts,
        payload=texts,
        chain_hash=np.zeros((count, 32), np.uint8),
        hlc=np.zeros(count, np.int64),
        has_hlc=np.zeros(count, np.uint8),
        cause=np.zeros(count, np.uint8),
        offset_us=rng.integers(-200, 201, count),
        bound_us=rng.integers(1, 60, count),
    )
    return Partition(rows, tuple(sources), tuple(kinds))


def two_million(partitions: int = 4, sources: int = 50, **options: Any) -> DictionaryStore:
    """The tier that figures are about; `options` as of many_rows."""
    names = [b"sensor-%04d" % number for number in range(sources)]
    rows = 2_000_000 // partitions
    return DictionaryStore({p: many_rows(p, rows, sources=names[p::partitions], **options) for p in range(partitions)})


def odd_rows(partition: int, count: int, seed: int) -> Partition:
    """Rows with all that can be the matter with a row, few names, and times that seldom move."""
    rng = np.random.default_rng((seed, partition, count))
    sources = (b"s0", b"s1", "Füllstand".encode(), b"late")
    kinds = (b"t", b"p", b"")
    authority_ms = START_MS + _HOUR_MS - 200_000 + rng.integers(-40_000, 60_000, count) + 7_000 * np.arange(count)
    local_us = authority_ms * 1_000 + rng.integers(-90_000_000, 90_000_000, count)
    whole = rng.random(count) < 0.3
    local_us[whole] -= local_us[whole] % 60_000_000  # on the edges of minutes
    far = rng.random(count) < 0.02
    local_us[far] = rng.choice(np.array([-(2**63), 2**63 - 1, -1, 0]), int(far.sum()))
    value = rng.normal(0.0, 1.0, count) * 10.0 ** rng.integers(-3, 4, count)
    odd = rng.random(count)
    for least, number in (
        (0.97, 1e300),
        (0.95, -1e300),
        (0.93, 5e-324),
        (0.91, -0.0),
        (0.89, math.nan),
        (0.87, math.inf),
    ):
        value[(odd >= least) & (odd < least + 0.02)] = number
    has_value = (rng.random(count) < 0.9).astype(np.uint8)
    fault = np.where(rng.random(count) < 0.08, int(Fault.TRUNCATED), 0).astype(np.uint8)
    flags = np.where(rng.random(count) < 0.1, rng.choice([int(Flag.DUPLICATE), int(Flag.CONFLICT)], count), 0)
    bad = fault != 0
    known = ~bad & (rng.random(count) < 0.8)
    wide = rng.random(count) < 0.05
    sequence = np.arange(1, count + 1)
    ids = [b"" if bad[i] else b"e%d-%d" % (partition, i) for i in range(count)]
    payloads = [b"" if bad[i] else bytes(rng.integers(0, 256, int(rng.integers(0, 9)), np.uint8)) for i in range(count)]
    rows = Rows(
        sequence=sequence,
        index=sequence + np.cumsum(rng.random(count) < 0.1),
        input_offset=sequence * 2,
        authority_ms=authority_ms,
        local_us=np.where(bad, 0, local_us),
        value=np.where(bad | (has_value == 0), np.nan, value),
        has_value=np.where(bad, 0, has_value).astype(np.uint8),
        severity=np.where(bad, NO_SEVERITY, rng.integers(0, 3, count)).astype(np.uint8),
        flags=np.where(bad, 0, flags).astype(np.uint8),
        fault=fault,
        source=np.where(bad, -1, rng.integers(0, len(sources), count)).astype(np.int32),
        kind=np.where(bad, -1, rng.integers(0, len(kinds), count)).astype(np.int32),
        event_id=texts_of(ids),
        payload=texts_of(payloads),
        chain_hash=rng.integers(0, 256, (count, 32), np.uint8),
        hlc=np.where(bad, 0, rng.integers(0, 2**62, count)),
        has_hlc=np.where(bad, 0, rng.integers(0, 2, count)).astype(np.uint8),
        cause=np.where(bad, Cause.NONE, rng.integers(0, len(Cause), count)).astype(np.uint8),
        offset_us=np.where(known, np.where(wide, 2**16, 1) * rng.integers(-(2**24), 2**24, count), 0),
        bound_us=np.where(known, np.where(wide, 2**20, 1) * rng.integers(0, 2**20, count), -1),
    )
    return Partition(rows, sources, kinds)


def sliced(rows: Rows, start: int, stop: int) -> Rows:
    """Rows start to stop - 1."""
    columns: list[Any] = []
    for column in rows:
        if isinstance(column, Texts):
            low, high = column.offsets[start], column.offsets[stop]
            columns.append(Texts(column.offsets[start : stop + 1] - low, column.content[low:high]))
        else:
            columns.append(column[start:stop])
    return Rows(*columns)


def counted(rows: Rows) -> NDArray[np.bool_]:
    """Which rows aggregates are of."""
    mask: NDArray[np.bool_] = (rows.fault == Fault.NONE) & (rows.flags & (Flag.DUPLICATE | Flag.CONFLICT) == 0)
    return mask


def corrected_us(rows: Rows, i: int) -> int | None:
    """When a row was by its source's clock put right, or by the broker where no estimate is known; None: unreadable."""
    if rows.fault[i] != Fault.NONE:
        return None
    if rows.bound_us[i] < 0:
        return int(rows.authority_ms[i]) * 1_000
    local_us = int(rows.local_us[i])
    return local_us - int(rows.offset_us[i]) if abs(local_us) <= 2**62 else local_us


def stats_of(rows: Rows) -> Stats:
    """Lines of a chunk's counted rows, each sum as fsum finds it and what it leaves."""
    of = np.flatnonzero(counted(rows))
    keys = np.stack(
        [rows.source[of], rows.kind[of], rows.local_us[of] // 60_000_000, rows.authority_ms[of] // 60_000], axis=1
    ).astype(np.int64)
    if not of.size:
        empty = np.zeros(0, np.int64)
        return Stats(
            *(np.zeros(0, np.int32),) * 2, *(empty,) * 4, *(np.zeros(0),) * 2, np.zeros((0, 3)), np.zeros(0, np.uint8)
        )
    order = np.lexsort(keys.T[::-1])
    keys, values = keys[order], rows.value[of][order] + 0.0
    starts = np.flatnonzero(np.concatenate([[True], np.any(keys[1:] != keys[:-1], axis=1)]))
    ends = np.concatenate([starts[1:], [of.size]])
    lines = [_line(values[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    numbers, minimum, maximum, sums, exact = zip(*lines, strict=True)
    return Stats(
        keys[starts, 0].astype(np.int32),
        keys[starts, 1].astype(np.int32),
        keys[starts, 2],
        keys[starts, 3],
        ends - starts,
        np.array(numbers, np.int64),
        np.array(minimum),
        np.array(maximum),
        np.array(sums).reshape(-1, 3),
        np.array(exact, np.uint8),
    )


def _line(values: NDArray[np.float64]) -> tuple[int, float, float, tuple[float, float, float], bool]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0, math.nan, math.nan, (0.0, 0.0, 0.0), True
    rest = finite.tolist()
    parts = []
    try:
        for _ in range(3):
            parts.append(math.fsum(rest))
            rest.append(-parts[-1])
        exact = math.fsum(rest) == 0.0
    except OverflowError:
        exact = False
    if not exact:
        parts = [0.0, 0.0, 0.0]
    return finite.size, float(finite.min()), float(finite.max()), (parts[0], parts[1], parts[2]), exact


class DictionaryStore:
    """Chunks of partitions as the hot tier cuts them, or smaller; the last `unsealed` rows of each are in none."""

    def __init__(self, partitions: dict[int, Partition], *, chunk_rows: int = 8192, unsealed: int = 0) -> None:
        self.contents = partitions
        self._headers: dict[int, list[Header]] = {}
        self._rows: dict[tuple[int, int], Rows] = {}
        self._sections: dict[tuple[int, int, Column], bytes] = {}
        self._unsealed: dict[int, Unsealed] = {}
        self._chunk_rows = chunk_rows
        for partition in partitions:
            self._headers[partition] = []
            self.seal(partition, unsealed)

    def partitions(self) -> list[int]:
        """All of them."""
        return sorted(self.contents)

    def unsealed(self, partition: int) -> Unsealed | None:
        """What is in no chunk."""
        return self._unsealed.get(partition)

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """The next ones."""
        return [header for header in self._headers[partition] if header.first_sequence >= first_sequence][:most]

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """Of a chunk."""
        section = self.section(partition, first_sequence, column)
        return read_section(partition, first_sequence, column, rows, section)

    def archived(self, _partition: int, _first_sequences: NDArray[np.int64]) -> int:
        """None."""
        return 0

    def section(self, partition: int, first_sequence: int, column: Column) -> bytes:
        """A section, encoded when it is first asked for."""
        key = partition, first_sequence, column
        if key not in self._sections:
            values = getattr(self._rows[partition, first_sequence], column.name.lower())
            self._sections[key] = encode_column(partition, first_sequence, column, values)
        return self._sections[key]

    def seal(self, partition: int, unsealed: int) -> None:
        """Put the rows that are in no chunk into chunks, but for the last so many."""
        content = self.contents[partition]
        count, chunks = content.rows.sequence.size, self._headers[partition]
        sealed = max(count - unsealed, 0)
        highest = np.maximum.accumulate(content.rows.authority_ms)
        hours = highest // _HOUR_MS
        start = chunks[-1].last_sequence if chunks else 0
        for at in range(start + 1, sealed + 1):
            if at == sealed or at % self._chunk_rows == 0 or hours[at] != hours[at - 1]:
                order_ms = int(highest[start - 1]) if start else INT64_MIN
                self._seal(partition, content, start, at, order_ms)
                start = at
        self.keep_unsealed(partition, count - sealed)

    def keep_unsealed(self, partition: int, rows: int) -> None:
        """The last so many rows are unsealed, whether they are in chunks or not."""
        content = self.contents[partition]
        count = content.rows.sequence.size
        self._unsealed.pop(partition, None)
        if rows:
            before = int(content.rows.index[count - rows - 1]) if count > rows else 0
            self._unsealed[partition] = Unsealed(
                sliced(content.rows, count - rows, count), content.sources, content.kinds, before_index=before
            )

    def _seal(self, partition: int, content: Partition, start: int, stop: int, order_ms: int) -> None:
        rows = sliced(content.rows, start, stop)
        source, sources = _own(rows.source, content.sources)
        kind, kinds = _own(rows.kind, content.kinds)
        rows = rows._replace(source=source, kind=kind)
        local = rows.local_us[rows.fault == Fault.NONE]
        dated = [at_us for i in range(stop - start) if (at_us := corrected_us(rows, i)) is not None]
        header = Header(
            partition=partition,
            first_sequence=int(rows.sequence[0]),
            last_sequence=int(rows.sequence[-1]),
            first_index=int(rows.index[0]),
            last_index=int(rows.index[-1]),
            rows=stop - start,
            counted=int(counted(rows).sum()),
            warned=int((rows.flags & Flag.WARNED != 0).sum()),
            readings=0,
            authority_ms_min=int(rows.authority_ms.min()),
            authority_ms_max=int(rows.authority_ms.max()),
            order_ms=order_ms,
            local_us_min=int(local.min()) if local.size else NO_LOCAL[0],
            local_us_max=int(local.max()) if local.size else NO_LOCAL[1],
            corrected_us_min=min(dated, default=NO_LOCAL[0]),
            corrected_us_max=max(dated, default=NO_LOCAL[1]),
            sources=sources,
            kinds=kinds,
            stats=stats_of(rows),
        )
        self._headers[partition].append(header)
        self._rows[partition, header.first_sequence] = rows


def _own(codes: NDArray[np.int32], names: tuple[bytes, ...]) -> tuple[NDArray[np.int32], tuple[bytes, ...]]:
    """Codes in order of appearance within a chunk, and what they mean."""
    used, first = np.unique(codes[codes >= 0], return_index=True)
    ordered = used[np.argsort(first)]
    places = np.full(len(names) + 1, -1, np.int32)
    places[ordered] = np.arange(ordered.size)
    return places[codes], tuple(names[code] for code in ordered.tolist())
