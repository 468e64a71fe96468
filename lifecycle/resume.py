"""Where a store is read on from: judge's and the store's snapshots, each as new as fits the ledger and the disk.

Problem: reading a ledger from its beginning takes a second for a million entries, and a snapshot that does not belong
to the ledger, or to the chunks that are stored, would give rows that nobody sent. So one fits whose chain hash the
ledger has; of the store, besides, one with no more chunks than the disk; of judge, one that does not stand after the
store's state, whose rows it is to judge.

GUARANTEE a snapshot that cannot be loaded is passed over, and logged: an older one, or the ledger, takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from lifecycle import store_dump
from lifecycle.store import Store
from lifecycle.store_dump import STORE
from streams.fold import FoldError
from streams.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from lifecycle.chunks import Applied
    from lifecycle.store import StoreState
    from streams.judge import JudgeState
    from streams.snapshots import Snapshot

    State = TypeVar("State", JudgeState, StoreState)

_logger = structlog.get_logger()


def resume(
    partition: int, applied: Applied | None, snapshots: list[Snapshot], fits: Callable[[Snapshot], bool]
) -> tuple[int, JudgeState, StoreState]:
    """Judge's index and state, and the store's state, to read on from.

    applied: up to where the partition is in chunks; snapshots: of its lane, newest first; fits: whether one is of this
    ledger, which is asked of few.
    """
    judge, fold = Judge(), Store()
    ours = [snapshot for snapshot in snapshots if snapshot.partition == partition]
    state = fold.new_state(partition, applied)
    for _, dumped in _loaded(ours, STORE, store_dump.VERSION, store_dump.load, fits):
        if dumped.applied.chunks <= state.applied.chunks:
            state = max(state, dumped, key=lambda state: state.last_index)
            break
    before = [snapshot for snapshot in ours if snapshot.index <= state.last_index]
    judges = _loaded(before, judge.name, judge.version, judge.load, fits)
    index, judged = next(judges, (0, judge.new_state(partition)))
    return index, judged, state


def _loaded(
    snapshots: list[Snapshot],
    fold: str,
    version: int,
    load: Callable[[int, bytes], State],
    fits: Callable[[Snapshot], bool],
) -> Iterator[tuple[int, State]]:
    """Index and state of those of a fold that fit and can be loaded."""
    for snapshot in snapshots:
        if (snapshot.fold, snapshot.version) != (fold, version) or not fits(snapshot):
            continue
        try:
            state = load(snapshot.partition, snapshot.state)
        except FoldError as error:
            _logger.warning(
                "snapshot_unusable",
                fold=fold,
                partition=snapshot.partition,
                index=snapshot.index,
                reason=str(error),
            )
        else:
            yield snapshot.index, state
