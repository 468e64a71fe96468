"""Room for keys: those of open windows stay, the others are forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.memory import address_of
from streams import sources
from streams.window_keys import with_key_room
from streams.window_room import no_windows
from streams.window_table import find_window, open_window, window_hash


def _table(names: list[bytes]) -> sources.Sources:
    table = sources.with_names(len(names), sum(map(len, names)))
    for name in names:
        memory = np.frombuffer(name, np.uint8)
        address = address_of(memory)
        digest = sources.hash_of(address, len(name))
        sources.add(table, address_of(table.arena), address, len(name), digest)
    return table


@pytest.mark.parametrize("open_every", [1, 3, 100])
def test_keys_of_open_windows_stay_in_their_order(open_every: int) -> None:
    """Each window is found under the new slot of its key; there is room for more keys than stay."""
    names = [b"%d" % number * (1 + number % 40) for number in range(1_000)]
    names = [name[:256] for name in names]
    keys, windows = _table(names), no_windows()
    staying = list(range(0, 200, open_every))
    for slot in staying:
        open_window(windows, slot, slot % 50, window_hash(slot, slot % 50), slot)
    keys, windows = with_key_room(keys, windows)
    assert [sources.name_of(keys, slot) for slot in range(int(keys.used[sources.COUNT]))] == [
        names[slot] for slot in staying
    ]
    for new, slot in enumerate(staying):
        row = find_window(windows.table, windows.rows, new, slot % 50, window_hash(new, slot % 50))
        assert row >= 0
        memory = np.frombuffer(names[slot], np.uint8)
        address, length = address_of(memory), len(names[slot])
        digest = sources.hash_of(address, length)
        assert sources.find(keys.places, keys.hot, keys.arena, address, length, digest) == new
    assert keys.hot.shape[0] >= 2 * len(staying)
    assert sources.has_room(keys)


def test_no_windows_no_keys() -> None:
    """And room for the first again."""
    keys, _ = with_key_room(_table([b"gone", b"also"]), no_windows())
    assert keys.used[sources.COUNT] == 0
    assert sources.has_room(keys)
