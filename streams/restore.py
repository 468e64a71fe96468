"""A fold's state, brought back from snapshots and the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import structlog

from schemas.columns import slice_rows
from schemas.errors import HaltCode, HaltError
from streams.fold import FoldError
from streams.ledger_reader import REMEDY, find_offset, read_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from schemas.columns import Entries
    from streams.judge import Judge, JudgeState
    from streams.ledger_reader import Tail
    from streams.log import Log
    from streams.snapshots import Snapshot

    #: Entries with first <= index <= last of the fold's partition, as batches.
    Read = Callable[[int, int], Iterator[Entries]]

_logger = structlog.get_logger()
_PROGRESS_EVERY_ENTRIES = 1_000_000


def restore(judge: Judge, partition: int, snapshots: Iterable[Snapshot], until: int, read: Read) -> JudgeState:
    """The state after the entry at index `until`: the newest fitting snapshot, then a silent re-fold."""
    done, state = _newest(judge, partition, snapshots, until, read)
    for entries in read(done + 1, until):
        judge.step(state, entries)
        before, done = done, int(entries.index[-1])
        if before // _PROGRESS_EVERY_ENTRIES != done // _PROGRESS_EVERY_ENTRIES:
            _logger.info("fold_restoring", fold=judge.name, partition=partition, index=done, until=until)
    return state


def _newest(
    judge: Judge, partition: int, snapshots: Iterable[Snapshot], until: int, read: Read
) -> tuple[int, JudgeState]:
    """Index and state of the newest snapshot that fits, 0 and a new state for none.

    A snapshot fits that is of this fold, version and partition, stands at or before `until`, and carries the chain hash
    that the ledger has at its index.
    """
    for snapshot in snapshots:
        same = (snapshot.fold, snapshot.version, snapshot.partition) == (judge.name, judge.version, partition)
        if not same or snapshot.index > until:
            continue
        hashes = [entries.chain_hash[-1].tobytes() for entries in read(snapshot.index, snapshot.index)]
        try:
            if hashes == [snapshot.chain_hash]:
                return snapshot.index, judge.load(partition, snapshot.state)
            reason = "it is of another ledger: the chain hash at its index differs"
        except FoldError as error:
            reason = str(error)
        _logger.warning("snapshot_unusable", fold=judge.name, partition=partition, index=snapshot.index, reason=reason)
    return 0, judge.new_state(partition)


def entries_between(
    log: Log, bootstrap: str, topic: str, partition: int, tail: Tail, first: int, last: int
) -> Iterator[Entries]:
    """Entries with first <= index <= last as batches; each is valid until the next is asked for.

    Raises HaltError (LEDGER_BROKEN) where an index is missing or there twice.
    """
    if first > last:
        return
    begin = find_offset(log, topic, partition, tail, "index", first)
    following = first
    for batch in read_entries(bootstrap, topic, partition, begin, tail.offset + 1):
        wrong = np.flatnonzero(batch.entries.index != np.arange(following, following + batch.entries.index.size))
        if wrong.size:
            where = f"{topic}[{partition}]@{batch.offsets[wrong[0]]}"
            detail = f"index {batch.entries.index[wrong[0]]} stands at {where}, where {following + wrong[0]} should"
            raise HaltError(partition, HaltCode.LEDGER_BROKEN, detail, REMEDY)
        following += batch.entries.index.size
        keep = int((batch.entries.index <= last).sum())
        if keep:
            yield slice_rows(batch.entries, 0, keep)
        if keep < batch.entries.index.size:
            return
