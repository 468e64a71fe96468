"""The windows' table, panes, blocks and sketches against a dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.quantiles import SKETCH_SLOTS, bin_of, sketch_add, sketch_sorted
from streams.window_room import grown, no_windows, referenced, renumbered, spare_of, within_bounds
from streams.window_table import (
    BLOCK_VALUES,
    END_PANE,
    EXACT_VALUES,
    FIRST_PANE,
    FIRST_SEQUENCE,
    KEPT,
    KEY,
    LIVE,
    LIVE_BLOCKS,
    LIVE_SKETCHES,
    NEXT,
    PANE_HEAD,
    SKETCHED,
    SKETCHES_MAX,
    START,
    STATE,
    UNKEPT,
    VALUES,
    WINDOWS_MAX,
    Windows,
    drop_window,
    find_window,
    keep_value,
    kept_values,
    open_window,
    window_hash,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOTS = 40
STARTS = 6


@dataclass
class Twin:
    """The windows, and what they ought to be: first sequence and values by (start, slot), in order of opening."""

    windows: Windows = field(default_factory=no_windows)
    plain: dict[tuple[int, int], tuple[int, list[float]]] = field(default_factory=dict)
    sequence: int = 0

    def find(self, start: int, slot: int) -> int:
        """Its row, -1 for none."""
        return int(find_window(self.windows.table, self.windows.rows, slot, start, window_hash(slot, start)))

    def open(self, start: int, slot: int) -> None:
        """Unless it is there."""
        if (start, slot) in self.plain:
            return
        self._make_room()
        self.sequence += 1
        open_window(self.windows, slot, start, window_hash(slot, start), self.sequence)
        self.plain[start, slot] = (self.sequence, [])

    def keep(self, place: tuple[int, int], values: list[float]) -> None:
        """Of a window that is there."""
        row = self.find(*place)
        for value in values:
            self._make_room()
            keep_value(self.windows, row, value)
            self.windows.rows[row, VALUES] += 1
        self.plain[place][1].extend(values)

    def close_first(self) -> None:
        """All windows of the least start."""
        windows = self.windows
        pane = int(windows.used[FIRST_PANE])
        if pane == windows.used[END_PANE]:
            return
        rows = self.rows_of(pane)
        start = int(windows.rows[rows[0], START])
        for row in rows:
            drop_window(windows, row)
        windows.used[FIRST_PANE] += 1
        self.plain = {key: window for key, window in self.plain.items() if key[0] != start}

    def renumber(self) -> None:
        """Slots without windows close up, the others keep their order."""
        marks = np.zeros(SLOTS, np.uint8)
        referenced(self.windows, marks)
        assert set(np.flatnonzero(marks)) == {slot for _, slot in self.plain}
        slots = np.cumsum(marks, dtype=np.int64) - 1
        self.windows = renumbered(self.windows, slots)
        self.plain = {(start, int(slots[slot])): window for (start, slot), window in self.plain.items()}

    def rows_of(self, pane: int) -> list[int]:
        """Of one start, in the order of the list."""
        rows, row = [], int(self.windows.panes[pane, PANE_HEAD])
        while row >= 0:
            rows.append(row)
            row = int(self.windows.rows[row, NEXT])
        return rows

    def check(self) -> None:
        """Every window is found, stands in its place and keeps its values; nothing else is there."""
        windows, used = self.windows, self.windows.used
        listed = [row for pane in range(used[FIRST_PANE], used[END_PANE]) for row in self.rows_of(pane)]
        found = [(int(windows.rows[row, START]), int(windows.rows[row, FIRST_SEQUENCE])) for row in listed]
        assert found == sorted((start, sequence) for (start, _), (sequence, _) in self.plain.items())
        for start in range(-STARTS, STARTS):
            for slot in range(SLOTS):
                row = self.find(start, slot)
                assert (row >= 0) == ((start, slot) in self.plain)
                assert row < 0 or (windows.rows[row, KEY], windows.rows[row, START]) == (slot, start)
        for (start, slot), (_, values) in self.plain.items():
            self.check_kept(self.find(start, slot), values)
        exact = [len(values) for _, values in self.plain.values() if len(values) <= EXACT_VALUES]
        assert used[LIVE] == len(self.plain)
        assert used[LIVE_SKETCHES] == len(self.plain) - len(exact)
        assert used[LIVE_BLOCKS] == sum(-(-count // BLOCK_VALUES) for count in exact)
        assert np.count_nonzero(windows.table) == len(self.plain)

    def check_kept(self, row: int, values: list[float]) -> None:
        """The values themselves, or a sketch of them."""
        sketched = bool(self.windows.rows[row, STATE] & SKETCHED)
        assert sketched == (len(values) > EXACT_VALUES)
        if sketched:
            assert _bins(self.windows.sketches[self.windows.rows[row, KEPT] - 1]) == _bins(_sketch(values))
        else:
            kept = np.empty(EXACT_VALUES)
            assert kept[: kept_values(self.windows, row, kept)].tolist() == values

    def _make_room(self) -> None:
        if spare_of(self.windows) < 1:
            self.windows = grown(self.windows, 1)


def _sketch(values: list[float]) -> NDArray[np.int64]:
    sketch = np.zeros(SKETCH_SLOTS, np.int64)
    for value in values:
        assert sketch_add(sketch, bin_of(value), 1)
    return sketch


def _bins(sketch: NDArray[np.int64]) -> list[tuple[int, int]]:
    bins, counts = np.empty((2, SKETCH_SLOTS), np.int64)
    count = sketch_sorted(sketch, bins, counts)
    return list(zip(bins[:count].tolist(), counts[:count].tolist(), strict=True))


PLACES = st.tuples(st.integers(-STARTS, STARTS - 1), st.integers(0, SLOTS - 1))
STEPS = st.one_of(
    st.tuples(st.just("open"), st.lists(PLACES, min_size=1, max_size=120)),
    st.tuples(st.just("keep"), PLACES, st.sampled_from([1, 6, 7, 8, 255, 256, 257]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["close", "grow", "renumber"])),
)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=60, deadline=None)
def test_windows_are_those_of_a_dictionary(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is opened, kept, closed, grown and renumbered, and in which order."""
    twin = Twin()
    for step in steps:
        match step:
            case ("open", places):
                for place in places:
                    twin.open(*place)
            case ("keep", place, count, first):
                twin.open(*place)
                twin.keep(place, [first + i / 2 for i in range(count)])
            case ("close",):
                twin.close_first()
            case ("grow",):
                twin.windows = grown(twin.windows, 300)
                assert spare_of(twin.windows) >= 300
            case ("renumber",):
                twin.renumber()
        twin.check()


def test_what_was_closed_is_used_again() -> None:
    """A thousand windows come and go in the room of the first ones."""
    twin = Twin()
    for number in range(1_000):
        place = (number // 10, number % SLOTS)
        twin.open(*place)
        twin.keep(place, [1.0] * (number % 20))
        if number % 10 == 9:
            twin.close_first()
    assert twin.windows.rows.shape[0] == no_windows().rows.shape[0]
    assert twin.windows.blocks.shape[0] == no_windows().blocks.shape[0]
    assert twin.windows.panes.shape[0] == no_windows().panes.shape[0]
    twin.check()


def test_neighbours_in_the_table_survive_a_closing() -> None:
    """Windows whose places collide: what probed past the one that goes is still found."""
    twin = Twin()
    mask = twin.windows.table.size - 1
    homes: dict[int, list[tuple[int, int]]] = {}
    for start in range(60):
        for slot in range(SLOTS):
            homes.setdefault(window_hash(slot, start) & mask, []).append((start, slot))
    largest = max(homes.values(), key=len)
    crowd = sorted(largest)
    assert len(crowd) > 3
    for place in crowd:
        twin.open(*place)
    for gone in range(len({start for start, _ in crowd})):
        assert [twin.find(*place) >= 0 for place in crowd] == [place in twin.plain for place in crowd], gone
        twin.close_first()
    assert np.count_nonzero(twin.windows.table) == 0


@pytest.mark.parametrize("why", ["wide", "many"])
def test_percentiles_that_cannot_be_kept_are_given_up(why: str) -> None:
    """Values that spread over more bins than a sketch has; or no sketch is left. Nothing is held for them any more."""
    twin = Twin()
    twin.open(0, 0)
    if why == "many":
        twin.windows = grown(twin.windows, SKETCHES_MAX)
        twin.windows.used[LIVE_SKETCHES] = SKETCHES_MAX
    twin.keep((0, 0), [2.0 ** (i - 950) * 1.3 for i in range(1_900)] if why == "wide" else [1.0] * 300)
    row = twin.find(0, 0)
    assert twin.windows.rows[row, STATE] & (SKETCHED | UNKEPT) == UNKEPT
    assert twin.windows.rows[row, KEPT] == 0
    assert twin.windows.used[LIVE_BLOCKS] == 0
    assert twin.windows.used[LIVE_SKETCHES] == (SKETCHES_MAX if why == "many" else 0)


def test_a_definition_has_bounds() -> None:
    """Of open windows, exactly."""
    used = no_windows().used
    used[LIVE] = WINDOWS_MAX - 3
    assert within_bounds(used, 3)
    assert not within_bounds(used, 4)
