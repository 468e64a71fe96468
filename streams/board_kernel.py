"""What is known of a partition's sources, copied out of judge's tables for somebody who watches, compiled.

Judge's tables belong to the thread of a lane and change with every batch. A watcher gets a copy instead: a row for each
source, in the columns below, made in one pass. The last event of a source stands in no table of judge, so it is noted
while somebody watches, in `seen`: a row for each source at its number modulo the rows, which are a power of two. Where
two sources meet there, what came last stands, and of the other nothing is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.memory import kernel
from streams.alert_kernel import CAUSE, Question, severity_in
from streams.causes import Cause
from streams.clock_columns import GOOD_MS
from streams.estimate import ESTIMATE_COLUMNS, describe
from streams.judge_kernel import Flag
from streams.severity import GREEN
from streams.sources import LAST_SEQUENCE, NUMBER, STATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Columns of a board. STATE: severity of the worse open alert, GREEN without; CAUSE: of that one. ALERT, ALERT_CAUSE: of
# the one about the clock; LATE: of the one about the way of its events. LAST_*: of the last event, with severity -1
# where none was seen. The fields of Estimate stand from ESTIMATE on.
B_NUMBER: Final = 0
B_SEQUENCE: Final = 1
B_STATE: Final = 2
B_CAUSE: Final = 3
B_ALERT: Final = 4
B_LATE: Final = 5
B_ALERT_CAUSE: Final = 6
B_GOOD_MS: Final = 7
B_LAST_MS: Final = 8
B_LAST_DELTA_MS: Final = 9
B_LAST_SEVERITY: Final = 10
B_LAST_CAUSE: Final = 11
B_ESTIMATE: Final = 12
BOARD_COLUMNS: Final = B_ESTIMATE + ESTIMATE_COLUMNS

# Columns of seen: number of the source, 0 for none, and what its last event said.
SEEN_NUMBER: Final = 0
SEEN_MS: Final = 1
SEEN_DELTA_MS: Final = 2
SEEN_SEVERITY: Final = 3
SEEN_CAUSE: Final = 4
SEEN_COLUMNS: Final = 5

_CLOCK, _DELAY = int(Question.CLOCK), int(Question.DELAY)
_BACKLOG: Final = int(Cause.BACKLOG)
_NONE: Final = int(Cause.NONE)
#: Repeats say when they were first sent, not where the clock is.
_REPEATED: Final = int(Flag.DUPLICATE | Flag.CONFLICT)
_UNSEEN: Final = -1


@kernel
def note_rows(
    source: NDArray[np.int64], severity: NDArray[np.uint8], flags: NDArray[np.uint8], delta_ms: NDArray[np.int64],
    cause: NDArray[np.uint8], authority_ms: NDArray[np.int64], seen: NDArray[np.int64],
) -> None:  # fmt: skip
    """Note the last event of each source in a batch: columns of judge's verdicts, and when the broker appended it."""
    mask = seen.shape[0] - 1
    for row in range(source.size):
        if source[row] <= 0 or flags[row] & _REPEATED:
            continue
        place = source[row] & mask
        seen[place, SEEN_NUMBER] = source[row]
        seen[place, SEEN_MS] = authority_ms[row]
        seen[place, SEEN_DELTA_MS] = delta_ms[row]
        seen[place, SEEN_SEVERITY] = severity[row]
        seen[place, SEEN_CAUSE] = cause[row]


@kernel
def board_rows(
    hot: NDArray[np.int64], watch: NDArray[np.int64], clocks: NDArray[np.int64], seen: NDArray[np.int64], at_ms: int,
    rows: NDArray[np.int64],
) -> None:  # fmt: skip
    """Fill a row for each of the first sources, in order of number. at_ms: when their estimates are wanted for."""
    mask = seen.shape[0] - 1
    for slot in range(rows.shape[0]):
        number, state = hot[slot, NUMBER], hot[slot, STATE]
        alert, late = severity_in(state, _CLOCK), severity_in(state, _DELAY)
        rows[slot, B_NUMBER] = number
        rows[slot, B_SEQUENCE] = hot[slot, LAST_SEQUENCE]
        rows[slot, B_STATE] = max(alert, late)
        rows[slot, B_ALERT_CAUSE] = watch[slot, CAUSE] if alert != GREEN else _NONE
        rows[slot, B_CAUSE] = _BACKLOG if late > alert else rows[slot, B_ALERT_CAUSE]
        rows[slot, B_ALERT] = alert
        rows[slot, B_LATE] = late
        rows[slot, B_GOOD_MS] = clocks[slot, GOOD_MS]
        place = number & mask
        if seen[place, SEEN_NUMBER] == number:
            rows[slot, B_LAST_MS] = seen[place, SEEN_MS]
            rows[slot, B_LAST_DELTA_MS] = seen[place, SEEN_DELTA_MS]
            rows[slot, B_LAST_SEVERITY] = seen[place, SEEN_SEVERITY]
            rows[slot, B_LAST_CAUSE] = seen[place, SEEN_CAUSE]
        else:
            rows[slot, B_LAST_MS] = rows[slot, B_LAST_DELTA_MS] = 0
            rows[slot, B_LAST_SEVERITY] = _UNSEEN
            rows[slot, B_LAST_CAUSE] = _NONE
        describe(clocks, slot, at_ms, rows, slot, B_ESTIMATE)
