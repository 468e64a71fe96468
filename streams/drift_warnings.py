"""Warnings of S1.4, recomputed: which events lay further from the authority than the threshold in force allowed.

Problem: a warning depends on more than its entry: on the threshold in force there, and on whether the event was a
duplicate, which judge alone knows. So judge itself is run over the range, from the newest snapshot of its state that
stands before it, else from GENESIS, and its word is listed. Nothing is stored, and nothing can disagree with the lane.

GUARANTEE the list equals what the lane warned of, whichever range is asked for and whatever snapshots there are.
HAZARD there are snapshots of the last moments only, so an old range is folded from GENESIS: about a second for a
million entries.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from schemas.errors import BadInputError
from streams.drift_entries import rows_of_source
from streams.judge import Judge
from streams.ledger_reader import decode_entry
from streams.restore import entries_between
from streams.snapshots import Snapshot, read_snapshots
from streams.warning_log import DriftWarning, warnings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.ledger_reader import Tail
    from streams.queries import Ledger


def warnings_between(
    ledger: Ledger, partition: int, first: int, last: int | None = None, *, source: str | None = None
) -> Iterator[DriftWarning]:
    """Warnings of the sequences first to last (None: to the end) of a partition, in order.

    Raises BadInputError for a range that is none.
    """
    if first < 1 or (last is not None and last < first):
        raise BadInputError(f"{first} to {last} is no range of sequences: they begin at 1. Give 1 <= from <= to")
    return _between(ledger, partition, first, last, source)


def _between(
    ledger: Ledger, partition: int, first: int, last: int | None, source: str | None
) -> Iterator[DriftWarning]:
    tail = ledger.tail(partition)
    if tail is None or first > tail.head.sequence:
        return
    offset = ledger.offset_of(partition, tail, first)
    message = next(ledger.log.scan(ledger.names.sequenced, partition, offset, offset + 1))
    first_index = decode_entry(partition, message.value())["index"]
    start = next((s for s in _snapshots(ledger, partition) if s.index < first_index), None)
    for warning in _fold(ledger, partition, tail, start, source):
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
    found: deque[DriftWarning] = deque(maxlen=most)
    for start in [*_snapshots(ledger, partition), None]:
        found.clear()
        found.extend(_fold(ledger, partition, tail, start, source))
        if len(found) == most:
            break
    return list(found)


def _snapshots(ledger: Ledger, partition: int) -> list[Snapshot]:
    """Judge's usable snapshots of a partition, newest first."""
    judge = Judge()
    return [
        snapshot
        for snapshot in read_snapshots(ledger.log, ledger.names.snapshots, ledger.lane_of(partition))
        if (snapshot.fold, snapshot.version, snapshot.partition) == (judge.name, judge.version, partition)
    ]


def _fold(
    ledger: Ledger, partition: int, tail: Tail, start: Snapshot | None, source: str | None
) -> Iterator[DriftWarning]:
    """Warnings of the entries behind a snapshot, None for all entries, up to the tail."""
    judge = Judge()
    state = judge.new_state(partition) if start is None else judge.load(partition, start.state)
    begin = 1 if start is None else start.index + 1
    topic = ledger.names.sequenced
    for entries in entries_between(ledger.log, ledger.bootstrap, topic, partition, tail, begin, tail.head.index):
        outputs = judge.step(state, entries)
        rows = outputs.warned
        if source is not None and rows.size:
            rows = rows[rows_of_source(outputs.events, source)[rows]]
        yield from warnings_of(partition, entries, outputs, rows)
