"""Warnings, recomputed: which events lay further from the authority than the threshold in force allowed.

Problem: a warning depends on more than its entry: on the threshold in force there, and on whether the event was a
duplicate, which judge alone knows. So judge itself is run over the range, from the newest snapshot of its state that
stands before it, else from GENESIS, and its word is listed. Nothing is stored, and nothing can disagree with the lane.

GUARANTEE the list equals what the lane warned of, whichever range is asked for and whatever snapshots there are.
HAZARD there are snapshots of the last moments only, so an old range is folded from GENESIS: about a second for a
million entries.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from schemas.errors import BadInputError
from streams.drift_entries import rows_of_source
from streams.judge import Judge
from streams.ledger_reader import decode_entry
from streams.restore import entries_between, restore
from streams.snapshots import read_snapshots
from streams.warning_log import DriftWarning, warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from schemas.columns import Entries
    from streams.judge import JudgeState
    from streams.ledger_reader import Tail
    from streams.queries import Ledger
    from streams.snapshots import Snapshot


def warnings_between(
    ledger: Ledger, partition: int, first: int, last: int | None = None, *, source: str | None = None
) -> Iterator[DriftWarning]:
    """Warnings of the sequences first to last (None: to the end) of a partition, in order.

    Raises BadInputError for a range that is none.
    """
    ledger.check_range(partition, first, last)
    return _between(ledger, partition, first, last, source)


def _between(
    ledger: Ledger, partition: int, first: int, last: int | None, source: str | None
) -> Iterator[DriftWarning]:
    tail = ledger.tail(partition)
    if tail is None or first > tail.head.sequence:
        return
    offset = ledger.offset_of(partition, tail, first)
    message = next(ledger.log.scan(ledger.names.sequenced, partition, offset, offset + 1))
    before = decode_entry(partition, message.value())["index"] - 1
    for warning in _behind(ledger, partition, tail, before, _snapshots(ledger, partition), source):
        if last is not None and warning.sequence > last:
            return
        if warning.sequence >= first:
            yield warning


def last_warnings(ledger: Ledger, partition: int, most: int, *, source: str | None = None) -> list[DriftWarning]:
    """The last warnings of a partition, in order: from the newest snapshot, then an earlier one, then GENESIS on."""
    if most < 1:
        raise BadInputError(f"the last {most} warnings are none. Ask for 1 or more")
    tail = ledger.tail(partition)
    if tail is None:
        return []
    snapshots = _snapshots(ledger, partition)
    found: deque[DriftWarning] = deque(maxlen=most)
    for index in [*(snapshot.index for snapshot in snapshots if snapshot.index <= tail.head.index), 0]:
        found.clear()
        found.extend(_behind(ledger, partition, tail, index, snapshots, source))
        if len(found) == most:
            break
    return list(found)


def follow_warnings(
    ledger: Ledger, tails: Mapping[int, Tail | None], *, source: str | None = None
) -> Iterator[DriftWarning]:
    """Warnings of what comes behind those tails, by partition, as it is committed, for ever."""
    judge = Judge()
    states = {
        p: judge.new_state(p)
        if tail is None
        else restore(judge, p, _snapshots(ledger, p), tail.head.index, _reader(ledger, p, tail))
        for p, tail in tails.items()
    }
    positions = {p: ledger.end(p) if tail is None else tail.offset + 1 for p, tail in tails.items()}
    for p, batch in ledger.follow(positions):
        yield from _step(judge, states[p], p, batch.entries, source)


def _snapshots(ledger: Ledger, partition: int) -> list[Snapshot]:
    """Judge's snapshots of a partition, newest first."""
    judge = Judge()
    return [
        snapshot
        for snapshot in read_snapshots(ledger.log, ledger.names.snapshots, ledger.lane_of(partition))
        if (snapshot.fold, snapshot.version, snapshot.partition) == (judge.name, judge.version, partition)
    ]


def _behind(
    ledger: Ledger, partition: int, tail: Tail, index: int, snapshots: list[Snapshot], source: str | None
) -> Iterator[DriftWarning]:
    """Warnings of the entries behind an index, 0 for all entries, up to the tail."""
    judge, read = Judge(), _reader(ledger, partition, tail)
    state = restore(judge, partition, snapshots, index, read)
    for entries in read(index + 1, tail.head.index):
        yield from _step(judge, state, partition, entries, source)


def _reader(ledger: Ledger, partition: int, tail: Tail) -> Callable[[int, int], Iterator[Entries]]:
    """Entries with first <= index <= last, as far as that tail."""
    return partial(entries_between, ledger.log, ledger.bootstrap, ledger.names.sequenced, partition, tail)


def _step(
    judge: Judge, state: JudgeState, partition: int, entries: Entries, source: str | None
) -> Iterator[DriftWarning]:
    outputs = judge.step(state, entries)
    rows = outputs.warned
    if source is not None and rows.size:
        rows = rows[rows_of_source(outputs.events, source)[rows]]
    yield from warnings_of(partition, entries, outputs, rows)
