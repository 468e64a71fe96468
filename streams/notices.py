"""What a definition of windows says beside its results: late events by source, that it is suspended, dead letters.

DEFINITION/late/SOURCE    {"definition", "version", "partition", "source", "late", "ahead", "at_index"}
DEFINITION/suspended      {"definition", "version", "partition", "suspended", "at_index"}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from streams import sources
from streams.dead_letters import dead_letter
from streams.derive_kernel import TALLY_MAX, Aside, Tally
from streams.derived import WindowCounts
from streams.windows import Late

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.derived import Gathered
    from streams.windows import WindowDefinition

_TALLY_MIN: Final = 64
_TALLY_COLUMNS: Final = 2


def no_tally() -> Tally:
    """No late events."""
    return Tally(sources.no_names(), np.zeros((_TALLY_MIN, _TALLY_COLUMNS), np.int64))


@dataclass(frozen=True, slots=True)
class Notices:
    """Of one definition in one partition. version: index of its DEFINITION entry."""

    definition: WindowDefinition
    version: int
    partition: int

    def late(self, gathered: Gathered, index: int, tally: Tally) -> Tally:
        """Of each source in the tally, in order of names: how many events were late, and ahead, since the last time.

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
                (prefix + name, self._document(index, source=name.decode(), late=late, ahead=ahead))
                for name, (late, ahead) in sorted((texts[start:end], numbers) for start, end, numbers in of_slots)
            ],
            index,
        )
        return no_tally()

    def with_room(self, gathered: Gathered, index: int, tally: Tally) -> Tally:
        """The tally with room for another source; of one that has as many as it may have, `late` before that."""
        names, counts = tally
        if names.used[sources.COUNT] >= TALLY_MAX:
            return self.late(gathered, index, tally)
        larger = np.zeros((2 * counts.shape[0], _TALLY_COLUMNS), np.int64)
        larger[: counts.shape[0]] = counts
        return Tally(sources.grown(names), larger)

    def suspended(self, gathered: Gathered, index: int, reason: str) -> None:
        """It does nothing from that entry on."""
        document = self._document(index, suspended=reason)
        gathered.add_documents([(f"{self.definition.name}/suspended".encode(), document)], index)
        gathered.suspended.append(self.definition.name)

    def letters(self, gathered: Gathered, entries: Entries, aside: NDArray[np.uint8]) -> None:
        """A dead letter for each row that was set aside, if the definition asks for them. aside: an Aside each row."""
        if self.definition.late is Late.SIDE:
            gathered.letters += [
                dead_letter(self.partition, entries, row, f"{Aside(int(aside[row])).name} {self.definition.name}")
                for row in np.flatnonzero(aside).tolist()
            ]

    def count(self, gathered: Gathered, taken: int, late: int, ahead: int, results: int) -> None:
        """Add to what the definition did in this step."""
        counts = gathered.counts.get(self.definition.name, WindowCounts(0, 0, 0, 0))
        gathered.counts[self.definition.name] = WindowCounts(
            counts.taken + taken, counts.late + late, counts.ahead + ahead, counts.results + results
        )

    def _document(self, index: int, **facts: Any) -> dict[str, Any]:
        common = {"definition": self.definition.name, "version": self.version, "partition": self.partition}
        return {**common, **facts, "at_index": index}
