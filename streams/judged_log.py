"""Judge's word beside the drift log's entries: why an event's times lie apart, and what was known of its clock by then.

Problem: an entry of the drift log follows from one entry of the ledger, cause and estimate from all before it. So judge
is run over what is listed, from its newest snapshot before that, else from GENESIS: it says what it said to the worker.

GUARANTEE what is said is the worker's word; where that is not to be had nothing is said, and `tell` is told why, once
for a partition: the ledger begins later than GENESIS, a newer judge wrote on, or there is more than REFOLD_MAX before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.errors import HaltError
from streams.drift_entries import with_verdicts
from streams.fold import FoldError
from streams.judge import Judge
from streams.judge_states import reader_of, snapshots_of
from streams.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.columns import Entries
    from streams.drift_entries import DriftEntry
    from streams.judge import JudgeState
    from streams.ledger_reader import Tail
    from streams.queries import Ledger

#: Entries folded to come to the first that is listed: some ten seconds, longer than anybody waits for a list.
REFOLD_MAX: Final = 10_000_000


class JudgedLog:
    """Of one partition, from an index on; entries are to be given in order, without a gap."""

    def __init__(self, ledger: Ledger, partition: int, tell: Callable[[str], None]) -> None:
        self._ledger, self._partition, self._tell = ledger, partition, tell
        self._judge = Judge()
        self._state: JudgeState | None = None

    def begin(self, tail: Tail | None, index: int) -> None:
        """Stand after the entry of that index, not beyond the tail; 0 is before the first."""
        if tail is None or index == 0:
            self._state = self._judge.new_state(self._partition)
            return
        snapshots = snapshots_of(self._ledger, self._partition)
        behind = index - max((packed.index for packed in snapshots if packed.index <= index), default=0)
        if behind > REFOLD_MAX:
            self._give_up(f"{behind:,} entries lie between judge's last snapshot and the first that is listed")
            return
        try:
            read = reader_of(self._ledger, self._partition, tail)
            self._state = restore(self._judge, self._partition, snapshots, index, read)
        except (HaltError, FoldError) as error:
            self._give_up(str(error))

    def judged(self, found: list[DriftEntry], entries: Entries) -> list[DriftEntry]:
        """Those of the next entries, with what judge says of them."""
        if self._state is None:
            return found
        try:
            return with_verdicts(found, entries, self._judge.step(self._state, entries))
        except FoldError as error:
            self._give_up(str(error))
            return found

    def _give_up(self, why: str) -> None:
        self._state = None
        self._tell(f"cause, offset_ms and bound_ms of partition {self._partition} are left out: {why}")


def judged(
    ledger: Ledger, partition: int, tail: Tail, found: list[DriftEntry], tell: Callable[[str], None]
) -> list[DriftEntry]:
    """Entries of a partition in order of index, with what judge says of them."""
    if not found:
        return found
    log = JudgedLog(ledger, partition, tell)
    log.begin(tail, found[0].index - 1)
    told: list[DriftEntry] = []
    for entries in reader_of(ledger, partition, tail)(found[0].index, found[-1].index):
        here = [entry for entry in found[len(told) :] if entry.index <= entries.index[-1]]
        told += log.judged(here, entries)
    return told


def follow(ledger: Ledger, partition: int, tail: Tail | None, tell: Callable[[str], None]) -> JudgedLog:
    """A log that stands after a tail."""
    log = JudgedLog(ledger, partition, tell)
    log.begin(tail, 0 if tail is None else tail.head.index)
    return log
