"""The judge's state as bytes: the body of its snapshots.

All integers little-endian. Sources stand in order of number, locks in order of index, dedupe rows in order of sequence,
so equal histories have equal bytes. JSON is compact; worker is empty while its clock is right. No checksum and no
compression: a snapshot has its own.

    magic "DLJ" and version, 4 | partition i32 | written_by i32 | last_sequence i64 | last_number i64
    settings bytes u32 | locks bytes u32 | sources u32 | names bytes u32 | watched u32 | points u32 | dedupe rows u32
    settings, canonical JSON
    locks, JSON: [worker, [[scope, [halts], index, authority_ms, delta_ms, actor, reason], ...]]
    37 x i64                                        what is known of the authority, see authority_kernel
    32 x i64                                        what is known of the worker's clock, see guardian_kernel
    each source: number i64                         one column after another
    each source: sequence of its last event i64
    each source: alert state i64                    see alert_kernel
    each source: length of its name u16
    names, end to end
    watched: 60 x i64                               the watch of each source whose alert state is not 0
    each source: 32 x i64                           what is known of its clock, see clock_columns
    each point of each source: 4 x i32              in the order of the sources, as many of each as its clock says
    dedupe rows: 4 x i64                            the last min(horizon, last_sequence) sequences, see dedupe

GUARANTEE load refuses bytes whose length or counts do not fit, whose partition or version is another, or whose
settings are invalid, with FoldError; it reads nothing outside them.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import numpy as np
import orjson

from schemas.errors import BadInputError
from schemas.faults import MAX_SOURCE_BYTES
from streams.alert_kernel import WATCH_COLUMNS
from streams.authority_kernel import AUTHORITY_COLUMNS
from streams.clock_columns import CLOCK_COLUMNS, POINT_COLUMNS, POINTS, POINTS_MAX, SAMPLES, STRETCH_MS
from streams.dedupe import RING_COLUMNS, Memory, remembered, restored
from streams.definitions import JudgeSettings
from streams.fold import FoldError
from streams.guardian import Guard
from streams.guardian_kernel import GUARD_COLUMNS, GUARD_STATE
from streams.locks import Lock
from streams.sources import (
    ARENA_USED,
    COUNT,
    HOT_COLUMNS,
    LAST_NUMBER,
    LAST_SEQUENCE,
    NUMBER,
    STATE,
    Sources,
    Watched,
    lengths_of,
    rebuilt,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from streams.locks import Locks

#: Of the judge's rules and of this layout.
VERSION: Final = 1
#: Of the first release: it wrote what stands before any FOLD_VERSION entry.
FIRST_VERSION: Final = 1

_MAGIC: Final = b"DLJ" + bytes([VERSION])
_HEAD: Final = struct.Struct("<4siiqqIIIIIII")
_LONG: Final = 8
_INT: Final = 4
_SHORT: Final = 2
#: Of the machine, for a question whose row is in use: an episode without an alert, or one that is YELLOW or RED.
_GUARD_STATES: Final = (0, 4, 5, 6)


class Image(NamedTuple):
    """All of a judge's state."""

    partition: int
    last_sequence: int
    written_by: int
    settings: JudgeSettings
    sources: Sources
    memory: Memory
    authority: NDArray[np.int64]
    guard: Guard
    locks: Locks


def dump(image: Image) -> bytes:
    """The canonical bytes."""
    table = image.sources
    count, names = int(table.used[COUNT]), int(table.used[ARENA_USED])
    settings = image.settings.canonical().encode()
    locks = _locks_of(image)
    states = table.hot[:count, STATE]
    watched = table.watch[:count][states != 0]
    clocks = table.clocks[:count]
    points = table.points[:count][np.arange(POINTS_MAX) < clocks[:, POINTS, None]]
    rows = remembered(image.memory, image.settings.dedupe_horizon, image.last_sequence)
    head = _HEAD.pack(
        _MAGIC, image.partition, image.written_by, image.last_sequence, int(table.used[LAST_NUMBER]),
        len(settings), len(locks), count, names, len(watched), len(points), len(rows),
    )  # fmt: skip
    return b"".join(
        (
            head,
            settings,
            locks,
            image.authority.tobytes(),
            image.guard.columns.tobytes(),
            table.hot[:count, NUMBER].tobytes(),
            table.hot[:count, LAST_SEQUENCE].tobytes(),
            states.tobytes(),
            lengths_of(table).astype("<u2").tobytes(),
            table.arena[:names].tobytes(),
            *(column.data.cast("B") for column in (watched, clocks, points, rows) if column.size),
        )
    )


def load(partition: int, data: bytes) -> Image:
    """The state that was dumped."""
    if len(data) < _HEAD.size:
        _refuse(partition, f"it has {len(data)} bytes, fewer than its head")
    magic, of, written_by, last_sequence, last_number, *sizes = _HEAD.unpack_from(data)
    settings_bytes, locks_bytes, count, names, watched, used, rows = sizes
    if magic != _MAGIC:
        _refuse(partition, f"it begins with {magic!r}, not {_MAGIC!r}")
    if of != partition:
        _refuse(partition, f"it is of partition {of}")
    lengths = (
        settings_bytes, locks_bytes, AUTHORITY_COLUMNS * _LONG, GUARD_COLUMNS * _LONG, *(count * _LONG,) * 3,
        count * _SHORT, names, watched * WATCH_COLUMNS * _LONG, count * CLOCK_COLUMNS * _LONG,
        used * POINT_COLUMNS * _INT, rows * RING_COLUMNS * _LONG,
    )  # fmt: skip
    if _HEAD.size + sum(lengths) != len(data):
        _refuse(partition, f"it has {len(data)} bytes where its head says {_HEAD.size + sum(lengths)}")
    ends = np.cumsum((_HEAD.size, *lengths)).tolist()
    parts = [data[start:end] for start, end in itertools.pairwise(ends)]
    try:
        settings = JudgeSettings.parse(parts[0].decode())
    except (UnicodeDecodeError, BadInputError) as error:
        _refuse(partition, f"its settings cannot be read: {error}")
    if rows != min(settings.dedupe_horizon, last_sequence):
        _refuse(partition, f"it remembers {rows} sequences under a horizon of {settings.dedupe_horizon}")
    hot = np.zeros((count, HOT_COLUMNS), np.int64)
    for column, part in zip((NUMBER, LAST_SEQUENCE, STATE), parts[4:7], strict=True):
        hot[:, column] = np.frombuffer(part, np.int64)
    name_lengths = np.frombuffer(parts[7], "<u2").astype(np.int64)
    if name_lengths.sum() != names or (count and not 1 <= name_lengths.min() <= name_lengths.max() <= MAX_SOURCE_BYTES):
        _refuse(partition, "its names do not have the lengths it says")
    alive = hot[:, STATE] != 0
    if np.count_nonzero(alive) != watched:
        _refuse(partition, "its watches do not belong to its sources")
    watch = np.zeros((count, WATCH_COLUMNS), np.int64)
    watch[alive] = _matrix(parts[9], WATCH_COLUMNS)
    clocks, points = _clocks_in(partition, parts[10], parts[11])
    watches = Watched(watch, clocks, points)
    table = rebuilt(hot, watches, name_lengths, np.frombuffer(parts[8], np.uint8), last_number)
    memory = restored(_matrix(parts[12], RING_COLUMNS), settings.dedupe_horizon, last_sequence)
    authority = np.frombuffer(parts[2], np.int64).copy()
    guard, locks = _guard_and_locks(partition, parts[1], np.frombuffer(parts[3], np.int64).copy())
    return Image(partition, last_sequence, written_by, settings, table, memory, authority, guard, locks)


def _locks_of(image: Image) -> bytes:
    """Who is watched, and what is locked, as JSON; a lock's partition is the state's."""
    return _json_of(image.guard.worker, image.locks.values())


def _json_of(worker: str, locks: Iterable[Lock]) -> bytes:
    return orjson.dumps([worker, [lock[1:] for lock in locks]])


def _guard_and_locks(partition: int, text: bytes, columns: NDArray[np.int64]) -> tuple[Guard, Locks]:
    try:
        worker, rows = orjson.loads(text)
        locks = [Lock(partition, scope, tuple(halts), *rest) for scope, halts, *rest in rows]
        whole = all(map(_is_lock, locks)) and _json_of(worker, locks) == text
    except (ValueError, TypeError):
        _refuse(partition, "its locks cannot be read")
    if not whole or type(worker) is not str or int(columns[GUARD_STATE]) not in _GUARD_STATES:
        _refuse(partition, "its locks, or what it knows of the worker, are none")
    return Guard(worker, columns), {lock.scope: lock for lock in locks}


def _clocks_in(partition: int, columns: bytes, kept: bytes) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Clocks, and their points at their places."""
    clocks = _matrix(columns, CLOCK_COLUMNS)
    used = clocks[:, POINTS]
    if np.any((used < 0) | (used > POINTS_MAX)) or used.sum() * POINT_COLUMNS * _INT != len(kept):
        _refuse(partition, "its points do not belong to its sources")
    if np.any((clocks[:, SAMPLES] > 0) & (clocks[:, STRETCH_MS] <= 0)):
        _refuse(partition, "a clock of it has stretches of no length")
    points = np.zeros((len(clocks), POINTS_MAX, POINT_COLUMNS), np.int32)
    points[np.arange(POINTS_MAX) < used[:, None]] = np.frombuffer(kept, "<i4").reshape(-1, POINT_COLUMNS)
    return clocks, points


def _is_lock(lock: Lock) -> bool:
    """Whether each field has its type."""
    texts = (lock.actor, lock.reason, *lock.halts, *(() if lock.scope is None else (lock.scope,)))
    numbers = (lock.index, lock.authority_ms, lock.delta_ms)
    return all(type(text) is str for text in texts) and all(type(number) is int for number in numbers)


def _matrix(part: bytes, columns: int) -> NDArray[np.int64]:
    return np.frombuffer(part, np.int64).reshape(-1, columns)


def _refuse(partition: int, reason: str) -> NoReturn:
    raise FoldError(f"not a dump of judge for partition {partition}: {reason}. Drop it and fold from an earlier one")
