"""What the kernels of derive have in common: how they see a definition, its numbers, and events that are late.

Problem: watermarks, closings and early results must be functions of the entries, at a hundred nanoseconds an event, for
hundreds of thousands of keys. So one kernel goes through the columns without the GIL; it comes back at a row that it
has not finished, where Python must act first (`Stop`), and is called again from there. See `window_kernel`.

What happens at an entry, in this order; each part may be repeated from where it stood, so a stop loses nothing:

 1. the running maximum of authority time (DATA), or the frontier (HEARTBEAT), moves
 2. where their maximum, the clock, crosses a multiple of REPORT_US, late events are reported; where it crosses one of
    early_us, open windows that changed give a result that is not final
 3. the watermark moves; windows that end at or before it give their final result
 4. the event goes into its windows
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.canonical import EntryKind
from schemas.memory import kernel
from streams.sources import COUNT as KEYS_COUNT
from streams.sources import add, find, hash_of
from streams.sources import has_room as has_key_room

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries, Events
    from streams.sources import Sources
    from streams.window_kernel import Batch


class Stop(enum.IntEnum):
    """Why a kernel came back."""

    DONE = 0
    #: The results are full: take them.
    RESULTS = 1
    #: The keys are full: make room.
    KEYS = 2
    #: The windows are full: grow them.
    WINDOWS = 3
    #: The late sources are full: grow them.
    TALLY = 4
    #: Late events are to be reported.
    REPORT = 5
    #: More windows, or values, than a definition may have.
    SUSPEND = 6


class Aside(enum.IntEnum):
    """Why an event is not in all of its windows."""

    NONE = 0
    LATE = 1
    AHEAD = 2
    #: In frame corrected: its source's clock is RED, or not known, and the definition leaves it out for that.
    RED = 3
    UNKNOWN = 4


class Plan(NamedTuple):
    """What the kernels know of a definition. All int64.

    frame: 0 local, 1 authority, 2 corrected. by: 0 source, 1 kind, 2 all. red, unknown: see `corrected_kernel`. wide:
    whether first, last or variance are asked. percentiles: in thousandths of a percent. per_event: the windows that
    hold one instant, at most.
    """

    size_us: int
    slide_us: int
    frame: int
    by: int
    lateness_us: int
    max_behind_us: int
    max_ahead_us: int
    update_us: int
    early_us: int
    red: int
    unknown: int
    wide: int
    per_event: int
    percentiles: NDArray[np.int64]


class Tally(NamedTuple):
    """Late, AHEAD and doubtful events by source since the last report: names, and int64[slots, TALLY_COLUMNS]."""

    names: Sources
    counts: NDArray[np.int64]


#: No instant yet.
NEVER: Final = -(1 << 63)
LATEST: Final = (1 << 63) - 1
#: Instants before it belong to no window: 146,000 years before 1970. Sums of instants and lengths stay in int64.
TIME_MIN_US: Final = -(1 << 62)
#: The clock's grid on which late events are reported.
REPORT_US: Final = 10_000_000
#: Results between two returns of the kernel.
RESULTS_MAX: Final = 1_024
#: Late sources between two reports; one more has them reported at once. A rule of derive, as REPORT_US is: see `fold`.
TALLY_MAX: Final = 100_000

# Numbers of a definition: running maximum of authority time, frontier, watermark.
N_AUTHORITY: Final = 0
N_FRONTIER: Final = 1
N_WATERMARK: Final = 2
#: The watermark at which windows are next to be closed or dropped.
N_CLOSE_DUE: Final = 3
#: Instants of the clock at which early results, and a report of late events, are due.
N_EARLY_DUE: Final = 4
N_REPORT_DUE: Final = 5
#: Results in the buffer; then events taken, late and ahead, for metrics.
N_RESULTS: Final = 6
N_TAKEN: Final = 7
N_LATE: Final = 8
N_AHEAD: Final = 9
#: Where early results go on that did not fit into the buffer: pane, and row + 1; 0 for the beginning.
N_EARLY_PANE: Final = 10
N_EARLY_ROW: Final = 11
#: Events left out for their source's clock, for metrics.
N_DOUBTFUL: Final = 12
NUMBERS: Final = 13

#: Columns of a tally.
LATE, AHEAD, DOUBTFUL = 0, 1, 2
TALLY_COLUMNS: Final = 3

IN_LOCAL, IN_AUTHORITY, IN_CORRECTED = 0, 1, 2
BY_SOURCE, BY_KIND, BY_ALL = 0, 1, 2

_DATA: Final = int(EntryKind.DATA)
_US_PER_MS: Final = 1_000


def frontier_clock(entries: Entries, frontier_us: NDArray[np.int64], clock: NDArray[np.int64]) -> None:
    """Move clock (int64[2]: running maximum of authority time, frontier) over the entries."""
    _move_clock(entries.kind, entries.authority_ms, frontier_us, clock)


@kernel
def _move_clock(
    kinds: NDArray[np.uint8], authority_ms: NDArray[np.int64], frontier_us: NDArray[np.int64], clock: NDArray[np.int64]
) -> None:
    for row in range(kinds.size):
        if kinds[row] == _DATA:
            clock[0] = max(clock[0], authority_ms[row] * _US_PER_MS)
        else:
            clock[1] = max(clock[1], frontier_us[row])


@kernel
def slot_of(keys: Sources, arena: int, address: int, length: int, digest: int) -> int:
    """Slot of a key that was not there when the batch began, -1 where it does not fit."""
    slot = find(keys.places, keys.hot, keys.arena, address, length, digest)
    if slot < 0 and has_key_room(keys):
        slot = add(keys, arena, address, length, digest)
    return slot


@kernel
def has_tally_room(tally: Tally) -> bool:
    """Whether any further late source fits."""
    used = tally.names.used[KEYS_COUNT]
    return bool(used < TALLY_MAX and used < tally.counts.shape[0] and has_key_room(tally.names))


@kernel
def count_aside(tally: Tally, arena: int, events: Events | Batch, row: int, column: int) -> None:
    """Count an event in a column of the tally, for its source; there is room."""
    names = tally.names
    address, length = int(events.source_address[row]), int(events.source_length[row])
    digest = hash_of(address, length)
    slot = find(names.places, names.hot, names.arena, address, length, digest)
    if slot < 0:
        slot = add(names, arena, address, length, digest)
        for each in range(TALLY_COLUMNS):
            tally.counts[slot, each] = 0
    tally.counts[slot, column] += 1
