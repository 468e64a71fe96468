"""A cache that keeps what is read often and of late, and lets no pass over everything push it out.

Problem: a cache that gives up what was least recently used is emptied by each pass over more than it can hold, and a
question over a long range is such a pass. One that keeps what was read most clings to what was popular once.

Method: what comes in stands in a window first, in order of last use. What leaves the window is chosen if it counts for
more, by HYSTERESIS, than those least chosen before that have to go for it; else it goes itself. What it counts for is
the score that data ages by (`ageing`): a sum over its accesses by forward decay, kept as one float, and remembered for
some time after it went. Which part of the bound is the window's follows from what order of last use alone would hold,
of which the keys are known: a hit that only it would have had widens the window by the size of what was read, a hit
that only the chosen had narrows it by as much. So they have room for as long as they earn it, and where order of last
use does better, this comes close to it.

Time is what was read so far, in bytes, and a half-life is HALF_LIFE times the bound. So it is told in caches full,
whatever the sizes are. Of the size a score knows nothing: what a hit saves and the room it takes both grow with it.

GUARANTEE what is held is never more than `bytes_max` together, and of never more than `ghosts_max` keys that are not
held the score is remembered. The same accesses have the same hits.
HAZARD a hit is the very object that was put: who changes it changes it for all. Where all that is asked for changes at
once, and the new fills the bound but for SHARE_MIN, it has no hits before the old has faded.

Not for two threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from lifecycle.ageing import COLD, after_read

if TYPE_CHECKING:
    from collections.abc import Hashable

KeyT = TypeVar("KeyT", bound="Hashable")
ValueT = TypeVar("ValueT")

#: Of a score, in caches full that were read: so long that a loop over several times what fits is seen to come around.
HALF_LIFE: Final = 8
#: Bits that one must count for more than another to take its place: without, those that are read as often as one
#: another push each other out by turns.
HYSTERESIS: Final = 1.0
#: The window's share of the bound at first; and its least, and that of the chosen: none earns anything without room.
SHARE_AT_FIRST: Final = 0.5
SHARE_MIN: Final = 0.05


@dataclass(slots=True)
class _Entry(Generic[ValueT]):
    value: ValueT
    size: int
    score: float


class ScoreCache(Generic[KeyT, ValueT]):
    """Values by key. bytes_max: of the values held; ghosts_max: keys that were given up and are remembered."""

    def __init__(self, bytes_max: int, ghosts_max: int) -> None:
        self._bytes_max, self._ghosts_max = bytes_max, ghosts_max
        self._read_bytes = 0
        #: What is held: in order of last use, and as it was chosen.
        self._window: dict[KeyT, _Entry[ValueT]] = {}
        self._chosen: dict[KeyT, _Entry[ValueT]] = {}
        self._window_bytes = self._chosen_bytes = 0
        #: A heap of the chosen: a score that may have grown since, when it was chosen, the key.
        self._order: list[tuple[float, int, KeyT]] = []
        self._choices = 0
        #: Scores of what was given up, in that order.
        self._ghosts: dict[KeyT, float] = {}
        #: Sizes of what a cache by order of last use would hold, in that order.
        self._recent: dict[KeyT, int] = {}
        self._recent_bytes = 0
        self._share_bytes = SHARE_AT_FIRST * bytes_max

    def get(self, key: KeyT) -> ValueT | None:
        """What is held of a key, None if nothing is: then the access counts once its value is put."""
        entry = self._window.pop(key, None)
        if entry is None:
            entry = self._chosen.get(key)
            if entry is None:
                return None
        else:
            self._window[key] = entry
        if not self._read(key, entry.size):
            self._share_bytes = max(self._share_bytes - entry.size, SHARE_MIN * self._bytes_max)
        entry.score = self._scored(entry.score)
        return entry.value

    def put(self, key: KeyT, value: ValueT, size: int) -> None:
        """Hold the value of a key that `get` had none of, or not. size: in bytes; more than the bound is not held."""
        size = max(size, 1)  # or there would be no bound on how many are held
        if size > self._bytes_max:
            return
        if self._read(key, size):
            self._share_bytes = min(self._share_bytes + size, (1 - SHARE_MIN) * self._bytes_max)
        entry = _Entry(value, size, self._scored(self._ghosts.pop(key, COLD)))
        if size > self._share_bytes:  # the window would be emptied for what cannot stay in it
            self._choose(key, entry)
            return
        self._window[key] = entry
        self._window_bytes += size
        while self._window_bytes > self._share_bytes:
            oldest = next(iter(self._window))
            left = self._window.pop(oldest)
            self._window_bytes -= left.size
            self._choose(oldest, left)
        while self._excess() > 0:
            self._give_up_least()

    def _read(self, key: KeyT, size: int) -> bool:
        """Count an access; whether a cache by order of last use would have had a hit."""
        self._read_bytes += size
        before = self._recent.pop(key, None)
        self._recent[key] = size
        self._recent_bytes += size - (before or 0)
        while self._recent_bytes > self._bytes_max:
            self._recent_bytes -= self._recent.pop(next(iter(self._recent)))
        return before is not None

    def _scored(self, score: float) -> float:
        """A score with an access now."""
        return after_read(score, 0, self._read_bytes, HALF_LIFE * self._bytes_max)

    def _excess(self) -> int:
        """Bytes that have to go."""
        return self._window_bytes + self._chosen_bytes - self._bytes_max

    def _choose(self, key: KeyT, entry: _Entry[ValueT]) -> None:
        """Choose it, in place of lesser ones where there is no room for it; give it up where they are too few."""
        room = min(self._excess() + entry.size, entry.size)
        worse = []
        while room > 0 and self._order and self._least() + HYSTERESIS < entry.score:
            worse.append(heappop(self._order))
            room -= self._chosen[worse[-1][2]].size
        if room > 0:
            for least in worse:
                heappush(self._order, least)
            self._remember(key, entry.score)
            return
        for score, _, other in worse:
            self._chosen_bytes -= self._chosen.pop(other).size
            self._remember(other, score)
        self._chosen[key] = entry
        self._chosen_bytes += entry.size
        heappush(self._order, (entry.score, self._choices, key))
        self._choices += 1

    def _give_up_least(self) -> None:
        score = self._least()
        key = heappop(self._order)[2]
        self._chosen_bytes -= self._chosen.pop(key).size
        self._remember(key, score)

    def _least(self) -> float:
        """The least score of the chosen, of which the heap then is right at its top."""
        while True:
            known, choice, key = self._order[0]
            score = self._chosen[key].score
            if score == known:
                return score
            heapreplace(self._order, (score, choice, key))

    def _remember(self, key: KeyT, score: float) -> None:
        self._ghosts[key] = score
        if len(self._ghosts) > self._ghosts_max:
            del self._ghosts[next(iter(self._ghosts))]
