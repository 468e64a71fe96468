"""A board: what is known of the sources of one partition after one entry, for whoever watches. Immutable.

GUARANTEE a board is of one state, that after the entry `index`; nothing of it changes afterwards.
HAZARD the last event of a source is known from when somebody began to watch; before it sends again it is not.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from schemas.instants import US_PER_MS, format_us
from streams.authority_kernel import SHIFT_MS, true_ms_of
from streams.board_kernel import (
    B_ALERT,
    B_ALERT_CAUSE,
    B_ESTIMATE,
    B_GOOD_MS,
    B_LATE,
    B_SEQUENCE,
    BOARD_COLUMNS,
    SEEN_COLUMNS,
    SEEN_NUMBER,
    board_rows,
)
from streams.causes import Cause
from streams.clock_columns import GOOD_MS
from streams.estimate import Estimate, Method
from streams.judge_kernel import NO_SEVERITY, Flag
from streams.severity import Severity
from streams.source_clock import SourceClock
from streams.sources import ARENA_USED, COUNT, LAST_NUMBER, lengths_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.judge import JudgeState, Outputs
    from streams.sources import Sources

#: Rows of seen at least, and for each source at least.
_SEEN_MIN: Final = 1_024
_SEEN_A_SOURCE: Final = 2


class Names:
    """The names of a table's sources, in order of number; read when they are asked for.

    state: sources kept, last number given, bytes of names: two tables of one partition that agree in it have the same.
    """

    def __init__(self, sources: Sources) -> None:
        self.state = _state_of(sources)
        self._arena = sources.arena[: self.state[ARENA_USED]].tobytes()
        self._ends = np.cumsum(lengths_of(sources))

    @cached_property
    def texts(self) -> list[str]:
        """As text."""
        ends = self._ends.tolist()
        return [self._arena[a:b].decode(errors="replace") for a, b in zip([0, *ends], ends, strict=False)]

    @cached_property
    def folded(self) -> list[str]:
        """For a search that does not tell capitals."""
        return [text.casefold() for text in self.texts]

    @cached_property
    def places(self) -> dict[str, int]:
        """Row of each name."""
        return {text: row for row, text in enumerate(self.texts)}


class Board(NamedTuple):
    """Of one partition. rows: int64[sources, BOARD_COLUMNS], see `board_kernel`; at_ms: when their estimates are for.

    broker_ms: how far the partition's broker is known to be ahead, which is left out of the estimates.
    """

    partition: int
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks a board for
    at_ms: int
    broker_ms: int
    rows: NDArray[np.int64]
    names: Names


class SeenEvent(NamedTuple):
    """An event of a source that is looked at, as judge saw it. bound_us: -1 where nothing was known of its clock."""

    sequence: int
    authority_ms: int
    local_us: int
    delta_ms: int
    severity: Severity
    cause: Cause
    offset_us: int
    bound_us: int
    repeated: bool

    def row(self) -> dict[str, Any]:
        """For a page; instants of sources as text, for they may be any of 64 bits."""
        known = self.bound_us >= 0
        return {
            "sequence": self.sequence,
            "authority_ms": self.authority_ms,
            "local": format_us(self.local_us),
            "delta_ms": self.delta_ms,
            "severity": self.severity.name,
            "cause": None if self.cause is Cause.NONE else self.cause.name,
            "offset_ms": self.offset_us / US_PER_MS if known else None,
            "bound_ms": self.bound_us / US_PER_MS if known else None,
            "repeated": self.repeated,
        }


def no_events() -> NDArray[np.int64]:
    """Nothing seen yet."""
    return np.zeros((_SEEN_MIN, SEEN_COLUMNS), np.int64)


def with_room(seen: NDArray[np.int64], sources: Sources) -> NDArray[np.int64]:
    """The same events seen, with room for so many sources."""
    wanted = _SEEN_A_SOURCE * int(sources.used[COUNT])
    if wanted <= seen.shape[0]:
        return seen
    larger = np.zeros((1 << (wanted - 1).bit_length(), SEEN_COLUMNS), np.int64)
    known = seen[seen[:, SEEN_NUMBER] > 0]
    larger[known[:, SEEN_NUMBER] & (larger.shape[0] - 1)] = known
    return larger


def make_board(
    partition: int, index: int, state: JudgeState, authority_ms: int | None, seen: NDArray[np.int64],
    before: Names | None,
) -> Board:  # fmt: skip
    """The board of a judge's state, after the entry of that index.

    authority_ms: of that entry; where it is not known, the newest reading that an estimate rests on stands for it.
    before: names of an earlier board of the partition, which are kept where they are the same.
    """
    sources = state.sources
    count = int(sources.used[COUNT])
    if authority_ms is None:
        authority_ms = int(sources.clocks[:count, GOOD_MS].max(initial=0))
    broker_ms = int(state.authority[SHIFT_MS])
    at_ms = int(true_ms_of(authority_ms, broker_ms))
    rows = np.empty((count, BOARD_COLUMNS), np.int64)
    board_rows(sources.hot, sources.watch, sources.clocks, seen, at_ms, rows)
    names = before if before is not None and before.state == _state_of(sources) else Names(sources)
    return Board(partition, index, at_ms, broker_ms, rows, names)


def clock_of(board: Board, row: int) -> SourceClock:
    """What is known of one source, as `driftledger drift sources` tells it."""
    columns = board.rows[row].tolist()
    method, offset_us, bound_us, skew_ppb, error_ppb, samples, span_ms, severity, *rest = columns[B_ESTIMATE:]
    return SourceClock(
        partition=board.partition,
        source=board.names.texts[row],
        last_sequence=columns[B_SEQUENCE],
        alert=Severity(columns[B_ALERT]),
        cause=Cause(columns[B_ALERT_CAUSE]),
        late=Severity(columns[B_LATE]),
        at_ms=board.at_ms,
        good_ms=columns[B_GOOD_MS],
        broker_ms=board.broker_ms,
        estimate=Estimate(
            Method(method), offset_us, bound_us, skew_ppb, error_ppb, samples, span_ms, Severity(severity), *rest
        ),
    )


def _state_of(sources: Sources) -> tuple[int, int, int]:
    used = sources.used.tolist()
    return used[COUNT], used[LAST_NUMBER], used[ARENA_USED]


def events_of(number: int, entries: Entries, judged: Outputs, most: int) -> list[SeenEvent]:
    """The last events of a source in a batch, at most so many, in order."""
    verdicts = judged.verdicts
    rows = np.flatnonzero((verdicts.source == number) & (verdicts.severity != NO_SEVERITY))[-most:]
    repeated = int(Flag.DUPLICATE | Flag.CONFLICT)
    return [
        SeenEvent(
            int(entries.sequence[row]),
            int(entries.authority_ms[row]),
            int(judged.events.local_us[row]),
            int(verdicts.delta_ms[row]),
            Severity(int(verdicts.severity[row])),
            Cause(int(verdicts.cause[row])),
            int(verdicts.offset_us[row]),
            int(verdicts.bound_us[row]),
            bool(verdicts.flags[row] & repeated),
        )
        for row in rows.tolist()
    ]
