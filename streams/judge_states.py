"""The judge's state of a partition as any process can have it: its newest snapshot that fits, and the entries since.

Nobody is asked but the broker, so the answer is the same whether a worker runs or not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from streams.judge import Judge
from streams.restore import entries_between, restore
from streams.snapshots import read_snapshots

if TYPE_CHECKING:
    from streams.judge import JudgeState
    from streams.ledger_reader import Tail
    from streams.queries import Ledger
    from streams.restore import Read
    from streams.snapshots import Packed


def judge_at(ledger: Ledger, partition: int, tail: Tail) -> JudgeState:
    """After the entry at a tail."""
    reader = reader_of(ledger, partition, tail)
    return restore(Judge(), partition, snapshots_of(ledger, partition), tail.head.index, reader)


def snapshots_of(ledger: Ledger, partition: int) -> list[Packed]:
    """Judge's snapshots of a partition, newest first."""
    judge, lane = Judge(), ledger.lane_of(partition)
    return [
        packed
        for packed in read_snapshots(ledger.log, ledger.names.snapshots, lane, (judge.name,), partition)
        if (packed.fold, packed.version, packed.partition) == (judge.name, judge.version, partition)
    ]


def reader_of(ledger: Ledger, partition: int, tail: Tail) -> Read:
    """Entries with first <= index <= last, as far as that tail."""
    return partial(entries_between, ledger.log, ledger.bootstrap, ledger.names.sequenced, partition, tail)
