"""Room for the keys of windows: keys that no open window has are forgotten on the way.

The table of sources serves, though of a key there is nothing to remember but its name. It is made anew for twice the
keys that stay, so that making it costs each new key about as much as a look at one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schemas.memory import address_of, kernel
from streams import sources
from streams.sources import HASH, LENGTH_BITS, NAME, add
from streams.window_room import referenced, renumbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.sources import Sources
    from streams.window_table import Windows

_LENGTH_MASK = (1 << LENGTH_BITS) - 1


@kernel
def _copy_keys(keys: Sources, arena: int, marks: NDArray[np.uint8], target: Sources, target_arena: int) -> None:
    """Add those that are marked."""
    hot = keys.hot
    for slot in range(marks.size):
        if marks[slot]:
            name = hot[slot, NAME]
            add(target, target_arena, arena + (name >> LENGTH_BITS), name & _LENGTH_MASK, hot[slot, HASH])


def with_key_room(keys: Sources, windows: Windows) -> tuple[Sources, Windows]:
    """The keys of open windows, with room for as many more; and the windows under their new slots."""
    marks = np.zeros(int(keys.used[sources.COUNT]), np.uint8)
    referenced(windows, marks)
    staying = np.flatnonzero(marks)
    names_bytes = int(sources.lengths_of(keys)[staying].sum())
    target = sources.with_names(2 * staying.size, 2 * names_bytes)
    _copy_keys(keys, address_of(keys.arena), marks, target, address_of(target.arena))
    return target, renumbered(windows, np.cumsum(marks, dtype=np.int64) - 1)
