"""Where a store is read on from: judge's and the store's snapshots, each as new as fits the ledger and the disk.

Problem: reading a ledger from its beginning takes a second for a million entries, and a snapshot that does not belong
to the ledger, or to the chunks that are stored, would give rows that nobody sent. So one fits whose chain hash the
ledger has; of the store, besides, one with no more chunks than the disk; of judge, one that does not stand after the
store's state, whose rows it is to judge.

Where the first entries of the ledger were cut, and nothing stored reaches so far, it is where the archives end: what is
before is read from them; judge's state at the cut is kept as a snapshot for that (`cutting`).

GUARANTEE a snapshot that cannot be loaded is passed over, and logged: an older one, or the ledger, takes its place.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from lifecycle import store_dump
from lifecycle.chunks import Applied
from lifecycle.store import Store
from lifecycle.store_dump import STORE
from schemas.errors import DriftledgerError
from streams.definitions import JUDGE
from streams.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from lifecycle.manifest import Tree
    from lifecycle.store import StoreState
    from streams.judge import JudgeState
    from streams.snapshots import Packed

    State = TypeVar("State", JudgeState, StoreState)

#: Folds whose snapshots are wanted.
RESUMED: Final = (JUDGE, STORE)


def resume(
    partition: int,
    applied: Applied | None,
    snapshots: list[Packed],
    fits: Callable[[Packed], bool],
    begins: int = 1,
    archived: Callable[[], Applied | None] = lambda: None,
) -> tuple[int, JudgeState, StoreState]:
    """Judge's index and state, and the store's state, to read on from.

    applied: up to where the partition is in chunks; snapshots: its RESUMED, newest first; fits: whether one is of this
    ledger, which is asked of few; begins: the first index that the ledger has; archived: where the archives end. Raises
    DriftledgerError where the entries between are gone.
    """
    judge, fold = Judge(), Store()
    state = fold.new_state(partition, applied)
    for _, dumped in _loaded(snapshots, STORE, store_dump.VERSION, partial(store_dump.load, partition), fits):
        if dumped.applied.chunks <= state.applied.chunks:
            state = max(state, dumped, key=lambda state: state.last_index)
            break
    if state.last_index + 1 < begins:
        end = archived()
        if end is None or end.index + 1 < begins:
            detail = "no archive" if end is None else f"archives to entry {end.index}"
            raise DriftledgerError(
                f"partition {partition} of the ledger begins at entry {begins}, and there is {detail}. Give this "
                "process the data directory that has the archives, or run `driftledger lifecycle status`"
            )
        state = fold.new_state(partition, end)
    before = [snapshot for snapshot in snapshots if snapshot.index <= state.last_index]
    judges = _loaded(before, judge.name, judge.version, partial(judge.load, partition), fits)
    index, judged = next(judges, (0, judge.new_state(partition)))
    if index + 1 < begins:
        raise DriftledgerError(
            f"partition {partition} of the ledger begins at entry {begins}, and judge has no snapshot from there to "
            f"entry {state.last_index}. Restore the snapshots topic, or the hot store, from a copy"
        )
    return index, judged, state


def end_of(tree: Tree, partition: int) -> Applied | None:
    """Where the archives of a partition end, as what is stored up to there; its chunks are counted anew from there."""
    segment = tree.end(partition)
    if segment is None:
        return None
    facts = segment.facts
    return Applied(facts.last_index, facts.last_sequence, 0, max(facts.order_ms, facts.authority_ms_max))


def _loaded(
    snapshots: list[Packed],
    fold: str,
    version: int,
    load: Callable[[bytes], State],
    fits: Callable[[Packed], bool],
) -> Iterator[tuple[int, State]]:
    """Index and state of those of a fold that fit and can be loaded."""
    for snapshot in snapshots:
        if (snapshot.fold, snapshot.version) == (fold, version) and fits(snapshot):
            state = snapshot.loaded(load)
            if state is not None:
                yield snapshot.index, state
