"""Folds brought level with their ledger: states from snapshots, what is written already folded again, the rest spoken.

Problem: after a crash, an upgrade or a loss each fold of a partition may stand elsewhere, and none may write an output
twice or leave one out. So each says from its progress how far its outputs are written; all are restored to where one
reading of the ledger can begin, stepped silently up to there, and from there on they speak.

    snapshot of judge     snapshot of derive         derive's progress     judge's progress      the ledger's tail
    |-- judge, silently ----|-- both, silently -----------|-- derive speaks -----|-- both speak ---------|

Derive is stepped with what judge says of the same entries, so judge begins at derive's snapshot or before.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import structlog

from schemas.columns import slice_rows
from schemas.errors import HaltCode, HaltError
from streams.folds import States, Stepped
from streams.ledger_reader import REMEDY, find_offset, read_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from schemas.columns import Entries
    from streams.derive import Derive
    from streams.fold_progress import FoldProgress, Standing
    from streams.folds import Folds
    from streams.judge import Judge, JudgeState
    from streams.ledger_reader import Tail
    from streams.log import Log
    from streams.snapshots import Packed

    #: Entries with first <= index <= last of the fold's partition, as batches.
    Read = Callable[[int, int], Iterator[Entries]]
    #: Writes outputs and the progress that they are, in one transaction.
    Speak = Callable[[Stepped, Mapping[str, FoldProgress]], object]

_logger = structlog.get_logger()
_LOG_EVERY_ENTRIES = 1_000_000
#: A transaction costs more than folding some thousand entries.
ROWS_MAX = 20_000


class Level(NamedTuple):
    """The states of a partition, and what judge and derive were restored from, None for none."""

    states: States
    judge_from: Packed | None
    derive_from: Packed | None

    @property
    def used(self) -> list[Packed]:
        """The snapshots that the states were restored from."""
        return [packed for packed in (self.judge_from, self.derive_from) if packed is not None]

    @property
    def snapshot_index(self) -> int:
        """Up to where every fold has a snapshot that can be used, 0 where one has none."""
        return min(_index(self.judge_from), _index(self.derive_from))


def bring_level(
    folds: Folds,
    standing: Standing,
    partition: int,
    tail_index: int,
    snapshots: Iterable[Packed],
    read: Read,
    speak: Speak,
) -> Level:
    """The states after the entry at tail_index; outputs that are not written yet are spoken on the way.

    snapshots: newest first. Raises FoldError where a fold must not go on.
    """
    kept = list(snapshots)
    judge, derive = folds.judge, folds.derive
    judge_done = standing.of(judge.name).done(partition, tail_index)
    derive_done = standing.of(derive.name).done(partition, tail_index)
    derive_from, derive_state = _newest(derive, partition, kept, derive_done, read)
    derive_at = _index(derive_from)
    judge_from, judge_state = _newest(judge, partition, kept, min(judge_done, derive_at), read)
    states = States(judge_state, derive_state)
    at = _index(judge_from)
    for until in sorted({derive_at, judge_done, derive_done, tail_index}):
        for entries in _portions(read(at + 1, until), derive, states):
            judged = judge.step(states.judge, entries)
            derived = derive.step(states.derive, entries, judged) if at >= derive_at else None
            index = int(entries.index[-1])
            said = Stepped(judged if at >= judge_done else None, derived if at >= derive_done else None)
            if said.any():
                progress: dict[str, FoldProgress] = {}
                for fold, done in ((judge, judge_done), (derive, derive_done)):
                    if at >= done:
                        progress.update(standing.catch_up(fold.name, fold.version, partition, index))
                speak(said, progress)
            if (index - entries.index.size) // _LOG_EVERY_ENTRIES != index // _LOG_EVERY_ENTRIES:
                _logger.info("folds_restoring", partition=partition, index=index, until=tail_index)
        at = max(at, until)
    return Level(states, judge_from, derive_from)


def _portions(batches: Iterator[Entries], derive: Derive, states: States) -> Iterator[Entries]:
    """The same entries, no more at once than derive should take."""
    for entries in batches:
        start = 0
        while start < entries.kind.size:
            stop = min(start + derive.rows_max(states.derive), entries.kind.size)
            yield slice_rows(entries, start, stop)
            start = stop


def restore(judge: Judge, partition: int, snapshots: Iterable[Packed], until: int, read: Read) -> JudgeState:
    """Judge's state alone after the entry at index `until`: the newest fitting snapshot, then a silent re-fold."""
    begun_from, state = _newest(judge, partition, list(snapshots), until, read)
    judged: JudgeState = state
    for entries in read(_index(begun_from) + 1, until):
        judge.step(judged, entries)
    return judged


def _index(packed: Packed | None) -> int:
    return 0 if packed is None else packed.index


def _newest(fold: Any, partition: int, snapshots: list[Packed], until: int, read: Read) -> tuple[Packed | None, Any]:
    """The newest snapshot that fits and its state, None and a new state for none.

    A snapshot fits that is of this fold, version and partition, stands at or before `until`, and carries the chain hash
    that the ledger has at its index.
    """
    for packed in snapshots:
        same = (packed.fold, packed.version, packed.partition) == (fold.name, fold.version, partition)
        if not same or packed.index > until:
            continue
        if [entries.chain_hash[-1].tobytes() for entries in read(packed.index, packed.index)] != [packed.chain_hash]:
            packed.pass_over("it is of another ledger: the chain hash at its index differs")
        elif (state := packed.loaded(partial(fold.load, partition))) is not None:
            return packed, state
    return None, fold.new_state(partition)


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
    for batch in read_entries(bootstrap, topic, partition, begin, tail.offset + 1, ROWS_MAX):
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
