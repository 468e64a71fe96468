"""A fold's state, brought back from snapshots and the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from schemas.columns import slice_rows
from streams.ledger_reader import find_offset, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from schemas.columns import Entries
    from streams.judge import Judge, JudgeState
    from streams.ledger_reader import Tail
    from streams.log import Log
    from streams.snapshots import Snapshot

_logger = structlog.get_logger()
_PROGRESS_EVERY_ENTRIES = 1_000_000


def restore(
    log: Log, bootstrap: str, topic: str, judge: Judge, partition: int, tail: Tail | None,
    snapshots: Sequence[Snapshot], until: int,
) -> JudgeState:  # fmt: skip
    """The state after the entry at index `until`: the newest fitting snapshot, then a silent re-fold.

    A snapshot fits that is of this fold, version and partition and stands at or before `until`.
    """
    start = 0
    state = judge.new_state(partition)
    for snapshot in snapshots:
        same = (snapshot.fold, snapshot.version, snapshot.partition) == (judge.name, judge.version, partition)
        if same and snapshot.index <= until:
            state = judge.load(partition, snapshot.state)
            start = snapshot.index
            break
    if tail is not None:
        done = start
        for entries in entries_between(log, bootstrap, topic, partition, tail, start + 1, until):
            judge.step(state, entries)
            before, done = done, int(entries.index[-1])
            if before // _PROGRESS_EVERY_ENTRIES != done // _PROGRESS_EVERY_ENTRIES:
                _logger.info("fold_restoring", fold=judge.name, partition=partition, index=done, until=until)
    return state


def entries_between(
    log: Log, bootstrap: str, topic: str, partition: int, tail: Tail, first: int, last: int
) -> Iterator[Entries]:
    """Entries with first <= index <= last as batches; each is valid until the next is asked for."""
    if first > last:
        return
    begin = find_offset(log, topic, partition, tail, "index", first)
    for batch in read_entries(bootstrap, topic, partition, begin, tail.offset + 1):
        keep = int((batch.entries.index <= last).sum())
        if keep:
            yield slice_rows(batch.entries, 0, keep)
        if keep < batch.entries.index.size:
            return
