"""How far the folds of a lane have come, and when that must be written down.

Problem: after a crash a fold must know which outputs are written, or it writes them twice. A fold that is level with
the ledger is stepped in the transaction of the entries themselves: the ledger's own tail says how far it has come, and
a record in each transaction would only cost. So a record says of each partition either an index, or `inline`: level,
wherever the tail is by now. It is written where that changes, and now and then as a bound: a ledger that is found to
end before it has lost its end.

GUARANTEE what `to_write` returns is true once the transaction that it is written in is committed, and stays true until
the next record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A lost end of the ledger that is younger than this is not noticed by it.
BOUND_INTERVAL_NS: Final = 1_000_000_000


class FoldProgress(NamedTuple):
    """A fold of a lane: its version and, by partition, the last index whose outputs are written.

    inline: the partitions in which the fold is at the tail of the ledger, wherever that is by now.
    """

    version: int
    indexes: dict[int, int]
    inline: frozenset[int]

    def done(self, partition: int, tail: int) -> int:
        """The last index whose outputs are written, where the ledger ends at index `tail`."""
        return tail if partition in self.inline else min(self.indexes.get(partition, 0), tail)

    def advance(self, version: int, indexes: Mapping[int, int], *, inline: bool) -> FoldProgress:
        """The progress after transactions that end at these indexes; other partitions stay as they are."""
        others = self.inline - indexes.keys()
        return FoldProgress(version, {**self.indexes, **indexes}, others | indexes.keys() if inline else others)


NO_PROGRESS: Final = FoldProgress(0, {}, frozenset())


class Standing:
    """Of all folds that ever ran on one lane. folds: as they stand on the progress topic, by name."""

    def __init__(self, folds: Mapping[str, FoldProgress]) -> None:
        self._folds = dict(folds)
        self._level: dict[str, int] = {}
        self._tails: dict[int, int] = {}
        self._due = False
        self._due_ns = 0

    def of(self, fold: str) -> FoldProgress:
        """Of one fold, NO_PROGRESS where nothing is known of it."""
        return self._folds.get(fold, NO_PROGRESS)

    def bound(self, partition: int) -> int:
        """An index that the ledger has reached."""
        return max((progress.indexes.get(partition, 0) for progress in self._folds.values()), default=0)

    def catch_up(self, fold: str, version: int, partition: int, index: int) -> Mapping[str, FoldProgress]:
        """What to write with the outputs, up to an index, of a fold that is behind; level, its new version begins."""
        before = self.of(fold)
        self._folds[fold] = before.advance(before.version or version, {partition: index}, inline=False)
        return {fold: self._folds[fold]}

    def begin(self, level: Mapping[str, int], tails: Mapping[int, int]) -> None:
        """From here on the folds in `level` (name: version) are stepped with each entry, all others are left behind.

        tails: index of the last entry by partition. Partitions that are not in it keep what is known of them.
        """
        self._level, self._tails = dict(level), dict(tails)
        for name in sorted(self._folds.keys() | level.keys()):
            before = self.of(name)
            done = {partition: before.done(partition, tail) for partition, tail in tails.items()}
            now = before.advance(level.get(name, before.version), done, inline=name in level)
            self._due |= (now.inline, now.version) != (before.inline, before.version)
            self._folds[name] = now

    def to_write(self, tails: Mapping[int, int], now_ns: int) -> Mapping[str, FoldProgress]:
        """What the transaction that makes these the tails must hold, by fold: mostly nothing."""
        began = any(index and not self._tails[partition] for partition, index in tails.items())
        if not (self._due or began or now_ns >= self._due_ns):
            return {}
        self._tails, self._due, self._due_ns = dict(tails), False, now_ns + BOUND_INTERVAL_NS
        for name, version in self._level.items():
            self._folds[name] = self._folds[name].advance(version, tails, inline=True)
        return self._folds
