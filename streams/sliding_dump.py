"""The kept events of a definition of sliding windows as bytes: its part of a dump of derive, see `derive_dump`.

    events u32 | keys u32
    each event: sequence i64, time us i64, value f64 (NaN for none)    one column after another, in sequence order
    each event: number u32 of its key                                  none by all
    each key: length of its name u16; names, end to end                in the order of their first events

Kept are the events whose time is after the watermark less the size. What else the state holds follows from them: the
times that have no result yet are those from the watermark on.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from streams import sources
from streams.derive_kernel import TIME_MIN_US
from streams.dump_reader import names_at, written_names
from streams.sliding_table import BLOCK, EVENTS_MAX, KEY, LIVE, SEQUENCE, Kept, kept_places, restored
from streams.windows import By

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.dump_reader import DumpReader
    from streams.sliding_run import SlidingRun
    from streams.windows import WindowDefinition

_HEAD: Final = struct.Struct("<II")


def dump_events(run: SlidingRun) -> list[bytes]:
    """The canonical bytes."""
    kept = run.kept
    order = np.empty(int(kept.used[LIVE]), np.int64)
    kept_places(kept, order)
    order = order[np.argsort(kept.links[order, SEQUENCE])]
    values = kept.values[order]
    keys: list[bytes] = []
    count = 0
    if run.definition.by is not By.ALL:
        slots, first, which = np.unique(kept.blocks[order // BLOCK, KEY], return_index=True, return_inverse=True)
        by_first = np.argsort(first)
        number = np.argsort(by_first)
        count = slots.size
        keys = [number[which].astype("<u4").tobytes(), *written_names(run.keys, slots[by_first])]
    return [
        _HEAD.pack(order.size, count),
        kept.links[order, SEQUENCE].tobytes(),
        kept.times[order].tobytes(),
        np.where(np.isnan(values), np.nan, values).tobytes(),
        *keys,
    ]


def load_events(reader: DumpReader, definition: WindowDefinition, watermark_us: int) -> tuple[sources.Sources, Kept]:
    """The keys and events that were dumped."""
    count, key_count = _HEAD.unpack(reader.take(_HEAD.size))
    sequences, times_us = (reader.integers("<i8", count) for _ in range(2))
    values = reader.doubles(count)
    numbers, keys = np.zeros(count, np.int64), sources.no_names()
    if definition.by is not By.ALL:
        numbers = reader.integers("<u4", count)
        keys = names_at(reader, key_count)
    earliest_us = max(TIME_MIN_US, watermark_us - definition.size_us + 1)
    if (
        count > EVENTS_MAX
        or np.any(sequences[1:] <= sequences[:-1])
        or np.any(times_us < earliest_us)
        or np.any(np.isinf(values))
    ):
        reader.refuse("its kept events are out of order, or none that a result needs")
    if definition.by is not By.ALL and not _in_order(numbers, key_count):
        reader.refuse("its kept events are not of the keys that they say")
    return keys, restored(sequences, times_us, values, numbers, keys.hot.shape[0], watermark_us)


def _in_order(numbers: NDArray[np.int64], keys: int) -> bool:
    """Whether keys are numbered as they come, all of them."""
    greatest = np.maximum.accumulate(np.concatenate([[-1], numbers]))
    return bool(np.all(numbers <= greatest[:-1] + 1) and greatest[-1] == keys - 1)
