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
from typing import TYPE_CHECKING

from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from streams.drift_entries import rows_of_source
from streams.judge import Judge
from streams.judge_states import judge_at, reader_of, snapshots_of
from streams.ledger_reader import decode_entry
from streams.order import merge, newest_first
from streams.restore import restore
from streams.warning_log import warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.judge import JudgeState, Outputs
    from streams.ledger_reader import Tail
    from streams.queries import Ledger
    from streams.snapshots import Packed
    from streams.warning_log import DriftWarning

    #: A warning behind its authority time.
    _Placed = tuple[int, DriftWarning]


def warnings_between(
    ledger: Ledger, partition: int, first: int, last: int | None = None, *, source: str | None = None
) -> Iterator[DriftWarning]:
    """Warnings of the sequences first to last (None: to the end) of a partition, in order.

    Raises BadInputError for a range that is none.
    """
    ledger.check_range(partition, first, last)
    return warnings_from(ledger, {partition: first}, last, source=source)


def warnings_from(
    ledger: Ledger,
    firsts: Mapping[int, int],
    last: int | None = None,
    *,
    first_ms: int = INT64_MIN,
    last_ms: int = INT64_MAX,
    source: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[DriftWarning]:
    """As warnings_between, of several partitions, each with its first sequence; merged as in `order`.

    first_ms, last_ms: authority times, both included; tell: as of newest_warnings. HAZARD all are read at once, each by
    a client of its own, which takes up to some 40 MB, and a judge.
    """
    of_each = [_between(ledger, p, first, last, source, tell) for p, first in sorted(firsts.items())]
    return merge((placed for placed in found if first_ms <= placed[0] <= last_ms) for found in of_each)


def newest_warnings(
    ledger: Ledger,
    most: int,
    *,
    source: str | None = None,
    partition: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[DriftWarning]:
    """The newest warnings, newest first; across partitions as in `order`.

    Each partition is folded from its newest snapshot, then from an earlier one, then from GENESIS, until there are
    enough. tell: is told where that would go on before the ledger begins since it was cut. Raises BadInputError for a
    partition that is not there.
    """
    if most < 1:
        raise BadInputError(f"the last {most} warnings are none. Ask for 1 or more")
    return newest_first([_last(ledger, p, most, source, tell) for p in ledger.chosen(partition)], most)


def _between(
    ledger: Ledger, partition: int, first: int, last: int | None, source: str | None, tell: Callable[[str], None]
) -> Iterator[_Placed]:
    tail = ledger.tail(partition)
    if tail is None or first > tail.head.sequence:
        return
    offset = ledger.offset_of(partition, tail, first)
    message = next(ledger.log.scan(ledger.names.sequenced, partition, offset, offset + 1))
    before = decode_entry(partition, message.value())["index"] - 1
    if before < (begin := _begin(ledger, partition)):
        before = begin
        _tell_of_cut(partition, begin, tell)
    for placed in _behind(ledger, partition, tail, before, snapshots_of(ledger, partition), source):
        sequence = placed[1].sequence
        if last is not None and sequence > last:
            return
        if sequence >= first:
            yield placed


def _begin(ledger: Ledger, partition: int) -> int:
    """The entry behind which judge can be had: 0, or where the ledger was cut its first one, of which is a snapshot."""
    first = ledger.first(partition).index
    return first if first > 1 else 0


def _tell_of_cut(partition: int, begin: int, tell: Callable[[str], None]) -> None:
    tell(f"entries 1 to {begin} of partition {partition} were cut from the ledger; their warnings are not listed")


def _last(ledger: Ledger, partition: int, most: int, source: str | None, tell: Callable[[str], None]) -> deque[_Placed]:
    """The last warnings of a partition, in order."""
    found: deque[_Placed] = deque(maxlen=most)
    tail = ledger.tail(partition)
    if tail is None:
        return found
    snapshots, begin = snapshots_of(ledger, partition), _begin(ledger, partition)
    for index in [*(snapshot.index for snapshot in snapshots if begin < snapshot.index <= tail.head.index), begin]:
        found.clear()
        found.extend(_behind(ledger, partition, tail, index, snapshots, source))
        if len(found) == most:
            return found
    if begin:
        _tell_of_cut(partition, begin, tell)
    return found


def follow_warnings(
    ledger: Ledger, tails: Mapping[int, Tail | None], *, source: str | None = None
) -> Iterator[DriftWarning]:
    """Warnings of what comes behind those tails, by partition, as it is committed, for ever."""
    judge = Judge()
    states = {p: judge.new_state(p) if tail is None else judge_at(ledger, p, tail) for p, tail in tails.items()}
    positions = {p: ledger.end(p) if tail is None else tail.offset + 1 for p, tail in tails.items()}
    for p, batch in ledger.follow(positions):
        outputs, rows = _step(judge, states[p], batch.entries, source)
        yield from warnings_of(p, batch.entries, outputs, rows)


def _behind(
    ledger: Ledger, partition: int, tail: Tail, index: int, snapshots: list[Packed], source: str | None
) -> Iterator[_Placed]:
    """Warnings of the entries behind an index, 0 for all entries, up to the tail."""
    judge, read = Judge(), reader_of(ledger, partition, tail)
    state = restore(judge, partition, snapshots, index, read)
    for entries in read(index + 1, tail.head.index):
        outputs, rows = _step(judge, state, entries, source)
        yield from (
            (warning.authority_timestamp_ms, warning) for warning in warnings_of(partition, entries, outputs, rows)
        )


def _step(judge: Judge, state: JudgeState, entries: Entries, source: str | None) -> tuple[Outputs, NDArray[np.int64]]:
    """The next entries' outputs, and which rows are warnings, of that source where one is given."""
    outputs = judge.step(state, entries)
    rows = outputs.warned
    if source is not None and rows.size:
        rows = rows[rows_of_source(outputs.events, source)[rows]]
    return outputs, rows
