"""What a definition of windows says beside its results: late events by source, that it is suspended, dead letters.

DEFINITION/late/SOURCE    {"definition", "version", "partition", "source", "late", "ahead", "at_index"}, and before the
                          last one "doubtful" in frame corrected
DEFINITION/suspended      {"definition", "version", "partition", "suspended", "at_index"}
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from streams import sources
from streams.dead_letters import dead_letter
from streams.derive_kernel import TALLY_COLUMNS, TALLY_MAX, Aside, Tally
from streams.derived import WindowCounts
from streams.windows import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.derived import Gathered
    from streams.windows import WindowDefinition

_TALLY_MIN: Final = 64
_NO_COUNTS: Final = WindowCounts(0, 0, 0, 0, 0)
#: In Late and in Doubtful: with a dead letter.
_SIDE: Final = "side"
#: The field of a definition that says whether an event that was set aside becomes one.
_LETTERS: Final = {Aside.LATE: "late", Aside.AHEAD: "late", Aside.RED: "red", Aside.UNKNOWN: "unknown"}


def no_tally() -> Tally:
    """No late events."""
    return Tally(sources.no_names(), np.zeros((_TALLY_MIN, TALLY_COLUMNS), np.int64))


@dataclass(frozen=True, slots=True)
class Notices:
    """Of one definition in one partition. version: index of its DEFINITION entry."""

    definition: WindowDefinition
    version: int
    partition: int

    def late(self, gathered: Gathered, index: int, tally: Tally) -> Tally:
        """Of each source in the tally, in order of names: how many events were left out since the last time, and why.

        Returns the tally of the time to come.
        """
        names, counts = tally
        count = int(names.used[sources.COUNT])
        texts = names.arena[: int(names.used[sources.ARENA_USED])].tobytes()
        ends = np.cumsum(sources.lengths_of(names)).tolist()
        of_slots = zip([0, *ends], ends, counts[:count].tolist(), strict=False)
        prefix = f"{self.definition.name}/late/".encode()
        gathered.add_documents(
            [
                (prefix + name, self._document(index, source=name.decode(), **self._left_out(*numbers)))
                for name, numbers in sorted((texts[start:end], numbers) for start, end, numbers in of_slots)
            ],
            index,
        )
        return no_tally()

    def with_room(self, gathered: Gathered, index: int, tally: Tally) -> Tally:
        """The tally with room for another source; of one that has as many as it may have, `late` before that."""
        names, counts = tally
        if names.used[sources.COUNT] >= TALLY_MAX:
            return self.late(gathered, index, tally)
        larger = np.zeros((2 * counts.shape[0], TALLY_COLUMNS), np.int64)
        larger[: counts.shape[0]] = counts
        return Tally(sources.grown(names), larger)

    def suspended(self, gathered: Gathered, index: int, reason: str) -> None:
        """It does nothing from that entry on."""
        document = self._document(index, suspended=reason)
        gathered.add_documents([(f"{self.definition.name}/suspended".encode(), document)], index)
        gathered.suspended.append(self.definition.name)

    def letters(self, gathered: Gathered, entries: Entries, aside: NDArray[np.uint8]) -> None:
        """A dead letter for each row that was set aside, if the definition asks for them. aside: an Aside each row."""
        asked = [why for why, field in _LETTERS.items() if getattr(self.definition, field) == _SIDE]
        if asked:
            gathered.letters += [
                dead_letter(self.partition, entries, row, f"{Aside(int(aside[row])).name} {self.definition.name}")
                for row in np.flatnonzero(np.isin(aside, asked)).tolist()
            ]

    def count(self, gathered: Gathered, counts: WindowCounts) -> None:
        """Add to what the definition did in this step."""
        before = gathered.counts.get(self.definition.name, _NO_COUNTS)
        gathered.counts[self.definition.name] = WindowCounts(*map(operator.add, before, counts))

    def _left_out(self, late: int, ahead: int, doubtful: int) -> dict[str, int]:
        counts = {"late": late, "ahead": ahead}
        return {**counts, "doubtful": doubtful} if self.definition.frame is Frame.CORRECTED else counts

    def _document(self, index: int, **facts: Any) -> dict[str, Any]:
        common = {"definition": self.definition.name, "version": self.version, "partition": self.partition}
        return {**common, **facts, "at_index": index}
