"""Between lanes, which know, and pages, which watch: boards and events of the sources that are looked at.

Problem: judge's tables are a lane's own and change with every batch, and a lane must not wait for a page. So a lane
makes a board itself, between two batches, at most every BOARD_MS, and only while somebody watches; what it publishes is
immutable, and replaced as a whole.

GUARANTEE nothing is shown that was not committed: what a step saw is published after the commit. GUARANTEE while nobody
watches a lane does nothing but look at `watched`. GUARANTEE memory is bounded: a board for each owned partition, and of
each source that is looked at EVENTS_MAX events.
GUARANTEE no error of this reaches a lane: it is logged, the partition has no board meanwhile, `missing` says why, and
it is tried again, later each time.
HAZARD `watched` stays true for a while after the last page has gone, for it may only have lost its connection.

`step`, `commit` and `drop` are called by a lane's thread, each partition by one; everything else by any thread.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from schemas.clock import source as time_source
from schemas.instants import NS_PER_MS, NS_PER_S
from streams.board_kernel import note_rows
from streams.boards import events_of, make_board, no_events, with_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.boards import Board, SeenEvent
    from streams.judge import JudgeState, Outputs

#: Between two boards of a partition.
BOARD_MS: Final = 500
#: Of a source that is looked at: a few minutes of an ordinary one, some seconds of one that sends all there is.
EVENTS_MAX: Final = 200
#: Until what failed is tried again, by how often it has failed since there was a board.
_RETRY_S: Final = (1, 2, 5, 10, 30, 60)
_logger = structlog.get_logger()


@dataclass(slots=True)
class _Seen:
    """What a lane's thread keeps of a partition between boards. epoch: since somebody watches without a break."""

    epoch: int
    events: NDArray[np.int64] = field(default_factory=no_events)
    authority_ms: int | None = None
    made_ns: int | None = None
    made_index: int = -1
    #: By number of a source: what the steps since the last commit saw.
    pending: dict[int, list[SeenEvent]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a partition has no board. due_ns: when it is tried again; count: how often it has failed since it had one."""

    error: str
    due_ns: int
    count: int


class LiveBoards:
    """Of one worker. on_news: called after each board, and after events of a source that is looked at."""

    def __init__(self) -> None:
        self.watched = False
        #: Rises with everything that is published.
        self.version = 0
        self.on_news: Callable[[], None] = lambda: None
        self._epoch = 0
        self._seen: dict[int, _Seen] = {}
        self._boards: dict[int, Board] = {}
        self._failed: dict[int, _Failed] = {}
        self._lock = threading.Lock()
        self._followers: Counter[tuple[int, int]] = Counter()
        #: By partition the numbers of sources that are looked at; replaced as a whole.
        self._followed: dict[int, tuple[int, ...]] = {}
        self._events: dict[tuple[int, int], tuple[SeenEvent, ...]] = {}

    # ----------------------------------------------------------------------------------------------- a lane's thread

    def step(self, partition: int, state: JudgeState, entries: Entries, judged: Outputs) -> None:
        """Note what a batch said; state: after it."""
        if self._rests(partition):
            return
        try:
            self._step(partition, state, entries, judged)
        except Exception as error:  # noqa: BLE001 - whatever it is, the lane goes on without
            self._fail(partition, error)

    def commit(self, partition: int, state: JudgeState, index: int) -> None:
        """Publish what was noted, and a board where one is due. index: of the last entry that is committed."""
        if self._rests(partition):
            return
        try:
            self._commit(partition, state, index)
        except Exception as error:  # noqa: BLE001 - as in step
            self._fail(partition, error)

    def _step(self, partition: int, state: JudgeState, entries: Entries, judged: Outputs) -> None:
        seen = self._of(partition)
        if entries.authority_ms.size:
            seen.authority_ms = int(entries.authority_ms[-1])
        verdicts = judged.verdicts
        seen.events = with_room(seen.events, state.sources)
        note_rows(
            verdicts.source, verdicts.severity, verdicts.flags, verdicts.delta_ms, verdicts.cause,
            entries.authority_ms, seen.events,
        )  # fmt: skip
        for number in self._followed.get(partition, ()):
            found = events_of(number, entries, judged, EVENTS_MAX)
            if found:
                seen.pending[number] = [*seen.pending.get(number, ()), *found][-EVENTS_MAX:]

    def _commit(self, partition: int, state: JudgeState, index: int) -> None:
        seen = self._of(partition)
        news = bool(seen.pending)
        with self._lock:  # else one that leaves meanwhile would find its events again
            for number, events in seen.pending.items():
                before = self._events.get((partition, number))
                if before is not None:
                    self._events[partition, number] = (*before, *events)[-EVENTS_MAX:]
        seen.pending = {}
        now_ns = time_source().monotonic_ns()
        due = seen.made_ns is None or now_ns - seen.made_ns >= BOARD_MS * NS_PER_MS
        if due and index != seen.made_index:
            before_board = self._boards.get(partition)
            names = None if before_board is None else before_board.names
            board = make_board(partition, index, state, seen.authority_ms, seen.events, names)
            seen.made_ns, seen.made_index = now_ns, index
            with self._lock:
                if self.watched and seen.epoch == self._epoch:
                    self._boards[partition] = board
                    self._failed.pop(partition, None)
            news = True
        if news:
            self._tell()

    def _rests(self, partition: int) -> bool:
        """Whether it failed and is not tried again yet."""
        failed = self._failed.get(partition)
        return failed is not None and time_source().monotonic_ns() < failed.due_ns

    def _fail(self, partition: int, error: Exception) -> None:
        """Show the partition no more; what was seen of it may be in part."""
        before = self._failed.get(partition)
        count = 0 if before is None else before.count
        retry_s = _RETRY_S[min(count, len(_RETRY_S) - 1)]
        failed = _Failed(repr(error), time_source().monotonic_ns() + retry_s * NS_PER_S, count + 1)
        with self._lock:
            self._failed[partition] = failed
            self._seen.pop(partition, None)
            self._boards.pop(partition, None)
        _logger.error(
            "board_failed",
            partition=partition,
            error=failed.error,
            retry_s=retry_s,
            trace="".join(traceback.format_exception(error)),
        )
        self._tell()

    def drop(self, partitions: Iterable[int]) -> None:
        """Of a lane that closes: others may show its partitions now."""
        with self._lock:
            for partition in partitions:
                self._seen.pop(partition, None)
                self._boards.pop(partition, None)
                self._failed.pop(partition, None)
        if self.watched:
            self._tell()

    def _tell(self) -> None:
        with self._lock:  # of two lanes that publish at once neither is passed over
            self.version += 1
        try:
            self.on_news()
        except Exception as error:  # noqa: BLE001 - as in step
            _logger.error("board_news_failed", error=repr(error))  # noqa: TRY400 - without locals: they are large

    def _of(self, partition: int) -> _Seen:
        seen = self._seen.get(partition)
        if seen is None or seen.epoch != self._epoch:
            seen = self._seen[partition] = _Seen(self._epoch)
        return seen

    # ------------------------------------------------------------------------------------------------------- watchers

    def watch(self) -> None:
        """From now on lanes make boards."""
        with self._lock:
            self.watched = True

    def unwatch(self) -> None:
        """Lanes make none any more, and what was published goes."""
        with self._lock:
            self.watched = False
            self._epoch += 1
            self._boards = {}
            self._seen = {}
            self._failed = {}
            self.version += 1

    def boards(self) -> Mapping[int, Board]:
        """The newest board of each partition that has one."""
        return dict(self._boards)

    def missing(self) -> Mapping[int, str]:
        """Why a partition has no board, of each whose board could not be made."""
        return {partition: failed.error for partition, failed in sorted(self._failed.copy().items())}

    def follow(self, partition: int, number: int) -> None:
        """Collect the events of a source until `leave`."""
        with self._lock:
            self._followers[partition, number] += 1
            self._events.setdefault((partition, number), ())
            self._share(partition)

    def leave(self, partition: int, number: int) -> None:
        """Nobody looks at it here any more, unless another does."""
        with self._lock:
            self._followers[partition, number] -= 1
            if self._followers[partition, number] <= 0:
                del self._followers[partition, number]
                self._events.pop((partition, number), None)
            self._share(partition)

    def events(self, partition: int, number: int) -> tuple[SeenEvent, ...]:
        """Of a source that is followed: its last events since then, in order."""
        return self._events.get((partition, number), ())

    def _share(self, partition: int) -> None:
        self._followed[partition] = tuple(number for place, number in self._followers if place == partition)
