"""The state of derive as bytes: the body of its snapshots.

All integers little-endian. Definitions stand in order of name, windows in order of (start, first sequence), late
sources in order of name, so equal histories have equal bytes. No checksum and no compression: a snapshot has its own.

    magic "DLW" and version, 4 | partition i32 | written_by i32 | authority us i64 | frontier us i64 | definitions u32
    each definition:
        version i64 | body bytes u32 | suspended bytes u32 | late sources u32
        body, canonical JSON; why it is suspended, nothing while it works
        watermark, early due, report due: i64 each
        each late source: late i64, ahead i64, doubtful i64, length of its name u16; names, end to end
        of sliding windows: their kept events, see `sliding_dump`; of others:
        windows u32 | names bytes u32 | values u32 | bins u32
        each window: 6 x i64    start, first sequence, count, values, revision, state    one column after another; state
                                is also how many events lie near an edge, see window_table
        each window: 7 x f64    sum, min, max, first, last, mean, m2                      one column after another
        each window: length of its key u16; keys, end to end (none by all)
        each window: kept u32   values kept one by one, or bins of its sketch
        values f64              of the exact windows, in sequence order
        bins: bin i64, count i64

GUARANTEE load refuses bytes whose length or counts do not fit, whose partition or version is another, or whose
definitions are invalid, with FoldError; it reads nothing outside them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.errors import BadInputError
from schemas.memory import address_of, kernel
from streams import sliding_dump, sources
from streams.derive_kernel import N_EARLY_DUE, N_REPORT_DUE, N_WATERMARK, TALLY_COLUMNS, Tally
from streams.dump_reader import DumpReader, names_at, written_names
from streams.quantiles import SKETCH_SLOTS, sketch_add, sketch_sorted
from streams.sliding_run import SlidingRun
from streams.sources import add, find, hash_of
from streams.window_room import with_room
from streams.window_run import WindowRun, first_numbers
from streams.window_table import (
    BLOCK_VALUES,
    CHANGED,
    CLOSED,
    COUNT,
    END_PANE,
    EXACT_VALUES,
    FIRST,
    FIRST_PANE,
    FIRST_SEQUENCE,
    FRESH_ROW,
    KEPT,
    KEY,
    LAST,
    LIVE,
    LIVE_SKETCHES,
    M2,
    MAX,
    MEAN,
    MIN,
    NEAR_BITS,
    NEXT,
    ONE_NEAR,
    PANE_CLOSED,
    PANE_HEAD,
    REVISION,
    SKETCHED,
    START,
    STATE,
    SUM,
    UNKEPT,
    VALUES,
    append_to_pane,
    enter,
    keep_value,
    kept_values,
    pane_from,
    take_sketch,
    window_hash,
)
from streams.windows import By, Kind, WindowDefinition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.window_table import Windows

#: Of the rules of derive and of this layout.
VERSION: Final = 1
#: Of the first release: it wrote what stands before any FOLD_VERSION entry.
FIRST_VERSION: Final = 1

_MAGIC: Final = b"DLW" + bytes([VERSION])
_HEAD: Final = struct.Struct("<4siiqqI")
_PART: Final = struct.Struct("<qIII")
_WINDOWS: Final = struct.Struct("<IIII")
_NUMBERS: Final = (N_WATERMARK, N_EARLY_DUE, N_REPORT_DUE)
_INTS: Final = (START, FIRST_SEQUENCE, COUNT, VALUES, REVISION, STATE)
_REALS: Final = (SUM, MIN, MAX, FIRST, LAST, MEAN, M2)
_KNOWN_STATE: Final = CHANGED | CLOSED | SKETCHED | UNKEPT


class Image(NamedTuple):
    """All of a derive state. running: in order of name."""

    partition: int
    written_by: int
    clock: NDArray[np.int64]
    running: list[WindowRun | SlidingRun]


@kernel
def _rows_in_order(windows: Windows, order: NDArray[np.int64]) -> None:
    rows, panes, used = windows.rows, windows.panes, windows.used
    at = 0
    for pane in range(used[FIRST_PANE], used[END_PANE]):
        row = panes[pane, PANE_HEAD]
        while row >= 0:
            order[at] = row
            at += 1
            row = rows[row, NEXT]


@kernel
def _write_kept(
    windows: Windows,
    order: NDArray[np.int64],
    kept: NDArray[np.int64],
    values: NDArray[np.float64],
    bins: NDArray[np.int64],
    scratch: NDArray[np.int64],
) -> None:
    """Values and bins of all windows, end to end; kept[i]: how many of window i."""
    rows = windows.rows
    at, at_bin = 0, 0
    for i in range(order.size):
        row = int(order[i])
        if rows[row, STATE] & SKETCHED:
            count = sketch_sorted(windows.sketches[rows[row, KEPT] - 1], scratch[0], scratch[1])
            for place in range(count):
                bins[at_bin + place, 0] = scratch[0, place]
                bins[at_bin + place, 1] = scratch[1, place]
            at_bin += count
        elif rows[row, KEPT] > 0:
            count = kept_values(windows, row, values[at:])
            at += count
        else:
            count = 0
        kept[i] = count


@kernel
def _read_sketch(windows: Windows, row: int, bins: NDArray[np.int64]) -> bool:
    """Put bins into a sketch of the row; False where they are not those of its values."""
    sketch = take_sketch(windows)
    windows.rows[row, KEPT] = sketch + 1
    total = 0
    for place in range(bins.shape[0]):
        total += bins[place, 1]
        if bins[place, 1] < 1 or not sketch_add(windows.sketches[sketch], bins[place, 0], bins[place, 1]):
            return False
    return bool(total == windows.rows[row, VALUES])


@kernel
def _read_values(windows: Windows, row: int, values: NDArray[np.float64]) -> bool:
    """Put values into blocks of the row; False where they are not all that it has."""
    rows = windows.rows
    if values.size != rows[row, VALUES] or values.size > EXACT_VALUES:
        return False
    for place in range(values.size):
        rows[row, VALUES] = place
        keep_value(windows, row, values[place])
    rows[row, VALUES] = values.size
    return True


@kernel
def _read_windows(
    windows: Windows,
    keys: sources.Sources,
    arena: int,
    names: int,
    lengths: NDArray[np.int64],
    kept: NDArray[np.int64],
    values: NDArray[np.float64],
    bins: NDArray[np.int64],
) -> bool:
    """Put the first rows into panes, keys, blocks and sketches; False where they contradict one another."""
    rows, panes = windows.rows, windows.panes
    at, at_value, at_bin = names, 0, 0
    for row in range(kept.size):
        slot = 0
        if lengths.size > 0:
            length = int(lengths[row])
            digest = hash_of(at, length)
            slot = find(keys.places, keys.hot, keys.arena, at, length, digest)
            if slot < 0:
                slot = add(keys, arena, at, length, digest)
            at += length
        rows[row, KEY] = slot
        rows[row, NEXT] = -1
        rows[row, KEPT] = 0
        append_to_pane(windows, row)
        pane = pane_from(windows, int(rows[row, START]))
        panes[pane, PANE_CLOSED] = 1 if rows[row, STATE] & CLOSED else 0
        enter(windows.table, row, window_hash(slot, int(rows[row, START])))
        if rows[row, STATE] & SKETCHED:
            if not _read_sketch(windows, row, bins[at_bin : at_bin + kept[row]]):
                return False
            at_bin += kept[row]
        elif kept[row] > 0:
            if not _read_values(windows, row, values[at_value : at_value + kept[row]]):
                return False
            at_value += kept[row]
    return True


def dump(image: Image) -> bytes:
    """The canonical bytes."""
    authority_us, frontier_us = image.clock.tolist()
    head = _HEAD.pack(_MAGIC, image.partition, image.written_by, authority_us, frontier_us, len(image.running))
    return b"".join([head, *(part for run in image.running for part in _dump_run(run))])


def _dump_run(run: WindowRun | SlidingRun) -> list[bytes]:
    tally = run.tally
    late = sorted((sources.name_of(tally.names, s), s) for s in range(int(tally.names.used[sources.COUNT])))
    slots = np.array([slot for _, slot in late], np.int64)
    body, suspended = run.definition.canonical().encode(), (run.suspended or "").encode()
    return [
        _PART.pack(run.version, len(body), len(suspended), len(late)),
        body,
        suspended,
        run.numbers[list(_NUMBERS)].tobytes(),
        *(tally.counts[slots, column].tobytes() for column in range(TALLY_COLUMNS)),
        *written_names(tally.names, slots),
        *(sliding_dump.dump_events(run) if isinstance(run, SlidingRun) else _dump_windows(run)),
    ]


def _dump_windows(run: WindowRun) -> list[bytes]:
    windows = run.windows
    order = np.empty(int(windows.used[LIVE]), np.int64)
    _rows_in_order(windows, order)
    exact = windows.rows[order, VALUES][(windows.rows[order, STATE] & SKETCHED == 0) & (windows.rows[order, KEPT] > 0)]
    values = np.empty(int(exact.sum()) + EXACT_VALUES)
    bins = np.empty((int(windows.used[LIVE_SKETCHES]) * SKETCH_SLOTS, 2), np.int64)
    kept = np.zeros(order.size, np.int64)
    scratch = np.empty((2, SKETCH_SLOTS), np.int64)
    _write_kept(windows, order, kept, values, bins, scratch)
    sketched = windows.rows[order, STATE] & SKETCHED != 0
    values, bins = values[: int(kept[~sketched].sum())], bins[: int(kept[sketched].sum())]
    by_all = run.definition.by is By.ALL
    lengths, names = (b"", b"") if by_all else written_names(run.keys, windows.rows[order, KEY])
    return [
        _WINDOWS.pack(order.size, len(names), values.size, len(bins)),
        *(windows.rows[order, column].tobytes() for column in _INTS),
        *(windows.reals[order, column].tobytes() for column in _REALS),
        lengths,
        names,
        kept.astype("<u4").tobytes(),
        values.tobytes(),
        bins.tobytes(),
    ]


def load(partition: int, data: bytes) -> Image:
    """The state that was dumped."""
    reader = DumpReader(partition, data)
    magic, of, written_by, authority_us, frontier_us, count = _HEAD.unpack(reader.take(_HEAD.size))
    if magic != _MAGIC:
        reader.refuse(f"it begins with {magic!r}, not {_MAGIC!r}")
    if of != partition:
        reader.refuse(f"it is of partition {of}")
    clock = np.array([authority_us, frontier_us], np.int64)
    running = [_load_run(partition, reader, clock) for _ in range(count)]
    reader.end()
    names = [run.definition.name for run in running]
    if names != sorted(set(names)):
        reader.refuse("its definitions are out of order")
    return Image(partition, written_by, clock, running)


def _load_run(partition: int, reader: DumpReader, clock: NDArray[np.int64]) -> WindowRun | SlidingRun:
    version, body_bytes, suspended_bytes, late = _PART.unpack(reader.take(_PART.size))
    try:
        definition = WindowDefinition.parse(reader.text(body_bytes))
    except BadInputError as error:
        reader.refuse(f"a definition of it cannot be read: {error}")
    suspended = reader.text(suspended_bytes) or None
    numbers = first_numbers(clock)
    numbers[list(_NUMBERS)] = reader.integers("<i8", len(_NUMBERS))
    tally = _load_tally(reader, late)
    if definition.kind is Kind.SLIDING:
        keys, kept = sliding_dump.load_events(reader, definition, int(numbers[N_WATERMARK]))
        return SlidingRun(partition, definition, version, numbers, keys, kept, tally, suspended)
    keys, windows = _load_windows(reader, definition)
    return WindowRun(partition, definition, version, numbers, keys, windows, tally, suspended)


def _load_windows(reader: DumpReader, definition: WindowDefinition) -> tuple[sources.Sources, Windows]:
    count, names_bytes, values_count, bins_count = _WINDOWS.unpack(reader.take(_WINDOWS.size))
    ints = [reader.integers("<i8", count) for _ in _INTS]
    reals = [reader.doubles(count) for _ in _REALS]
    lengths = reader.integers("<u2", 0 if definition.by is By.ALL else count)
    names = np.frombuffer(reader.take(names_bytes) + b"\0", np.uint8)
    kept = reader.integers("<u4", count)
    values = reader.doubles(values_count)
    bins = reader.integers("<i8", 2 * bins_count).reshape(-1, 2)
    sketched = ints[_INTS.index(STATE)] & SKETCHED != 0
    wanted = (int(lengths.sum()), int(kept[~sketched].sum()), int(kept[sketched].sum()))
    states, counts = ints[_INTS.index(STATE)], ints[_INTS.index(COUNT)]
    near = states >> NEAR_BITS
    unknown = (states & (ONE_NEAR - 1) & ~_KNOWN_STATE != 0) | (near < 0) | (near > counts)
    if wanted != (names_bytes, values_count, bins_count) or np.any(unknown):
        reader.refuse("its windows do not have the keys and values that they say")
    blocks = int(np.sum((kept[~sketched] + BLOCK_VALUES - 1) // BLOCK_VALUES))
    windows = with_room(count, len(np.unique(ints[0])), blocks, int(np.count_nonzero(sketched)))
    for column, part in zip(_INTS, ints, strict=True):
        windows.rows[:count, column] = part
    for column, real in zip(_REALS, reals, strict=True):
        windows.reals[:count, column] = real
    windows.used[LIVE] = windows.used[FRESH_ROW] = count
    keys = sources.with_names(count, names_bytes)
    if not _read_windows(windows, keys, address_of(keys.arena), address_of(names), lengths, kept, values, bins):
        reader.refuse("its windows contradict what they keep")
    return keys, windows


def _load_tally(reader: DumpReader, count: int) -> Tally:
    counts = np.stack([reader.integers("<i8", count) for _ in range(TALLY_COLUMNS)], axis=1)
    names = names_at(reader, count)
    rows = np.zeros((names.hot.shape[0], TALLY_COLUMNS), np.int64)
    rows[:count] = counts
    return Tally(names, rows)
