"""The folds of a lane, stepped together: judge first, then what builds on its verdicts.

Judge and derive go through the same entries in the same order, so their states stand after the same entry; whoever
restores one brings the other to it (`restore`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from streams.derive import Derive
from streams.fold import Target
from streams.judge import Judge
from streams.locks import message_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.columns import Entries
    from streams.definitions import JudgeSettings
    from streams.derive import DeriveState
    from streams.derived import Derived, WindowCounts
    from streams.judge import Counts, JudgeState, Outputs
    from streams.windows import WindowDefinition

Message = tuple[bytes | None, bytes]
#: None lifts what an earlier one of its key said.
Note = tuple[bytes, bytes | None]


@dataclass(slots=True)
class States:
    """Of one partition, all after the same entry."""

    judge: JudgeState
    derive: DeriveState


class Counted(NamedTuple):
    """What the folds counted in a batch of one partition.

    judged: None without judge. alerts: records. windows: by definition. suspended: definitions. refused: those passed
    over.
    """

    judged: Counts | None
    alerts: int
    windows: dict[str, WindowCounts]
    suspended: list[str]
    refused: int


class Stepped(NamedTuple):
    """What the folds made of a batch of one partition; None of a fold that must not say it again."""

    judged: Outputs | None
    derived: Derived | None

    def counted(self) -> Counted:
        """Of these outputs what may outlive their batch."""
        derived = self.derived
        return Counted(
            None if self.judged is None else self.judged.counts,
            len(self.alerts()),
            {} if derived is None else derived.counts,
            [] if derived is None else derived.suspended,
            0 if derived is None else derived.refused,
        )

    def any(self) -> bool:
        """Whether there is a record for a topic."""
        judged = self.judged is not None and bool(
            self.judged.records or self.judged.estimates.at_index.size or self.judged.locks
        )
        derived = self.derived is not None and bool(self.derived.aggregates.at_index.size or self.derived.letters)
        return judged or derived

    def alerts(self) -> list[Message]:
        """Key and value of each alert record, in order."""
        return [] if self.judged is None else self.judged.messages(Target.DRIFT_ALERTS)

    def locks(self) -> list[Note]:
        """Key and value of a record of the progress topic for each lock that was engaged or released, in order."""
        return [] if self.judged is None else [message_of(change) for change in self.judged.locks]

    def dead_letters(self) -> list[Message]:
        """Key and value of each dead letter, in order of the entries; of one entry judge's first."""
        judged = [] if self.judged is None else [r for r in self.judged.records if r.target is Target.DEAD_LETTERS]
        derived = [] if self.derived is None else self.derived.letters
        letters = sorted([*judged, *derived], key=lambda record: record.at_index) if derived else judged
        return [(record.key, record.value) for record in letters]


@dataclass(frozen=True, slots=True)
class Folds:
    """The folds of every lane."""

    judge: Judge = field(default_factory=Judge)
    derive: Derive = field(default_factory=Derive)

    def versions(self) -> dict[str, int]:
        """Of the rules of each, by name."""
        return {fold.name: fold.version for fold in (self.judge, self.derive)}

    def step(self, states: States, entries: Entries) -> tuple[Outputs, Derived]:
        """Take the next entries. Raises FoldError."""
        judged = self.judge.step(states.judge, entries)
        return judged, self.derive.step(states.derive, entries, judged)

    def dumps(self, states: States) -> Mapping[str, bytes]:
        """The canonical bytes of each state, by name of its fold."""
        return {
            self.judge.name: self.judge.dump(states.judge),
            self.derive.name: self.derive.dump(states.derive),
        }


@dataclass(frozen=True, slots=True)
class Configured:
    """What a deployment wants defined, and by which folds; what of it is not in force becomes DEFINITION entries."""

    judge: JudgeSettings
    windows: tuple[WindowDefinition, ...] = ()
    folds: Folds = field(default_factory=Folds)


FOLDS: Final = Folds()
