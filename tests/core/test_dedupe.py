"""The memory of recent events against a dictionary, in tables small enough to wrap and collide all the time."""

from __future__ import annotations

import random

import numpy as np
import pytest

from streams.dedupe import empty_memory, forget, remember, remembered, restored, seek


class _Model:
    """What the memory should know: key to (sequence, content), the horizon's last ones only."""

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.known: dict[tuple[int, int], tuple[int, tuple[int, int]]] = {}

    def find(self, key: tuple[int, int], sequence: int) -> tuple[int, tuple[int, int]] | None:
        found = self.known.get(key)
        return found if found and sequence - found[0] <= self.horizon else None


def _keys(rng: random.Random, crowded: bool) -> list[tuple[int, int]]:  # noqa: FBT001 - a parameter of the test
    """Crowded keys share their home place, and some their whole tag."""
    seconds = [7 << 24, 7 << 24 | 5, -(1 << 63), (7 << 24) + (1 << 60)] if crowded else []
    return [
        (rng.randrange(1, 2**63), rng.choice(seconds) if crowded else rng.randrange(-(2**63), 2**63)) for _ in range(60)
    ]


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("horizon", [1, 2, 3, 8, 33])
def test_memory_agrees_with_a_dictionary(horizon: int, crowded: bool) -> None:  # noqa: FBT001 - a parameter
    """Look up, forget what leaves the horizon, remember what is new: as judge does, for thousands of sequences."""
    rng = random.Random(horizon)
    keys = _keys(rng, crowded)
    memory, model = empty_memory(horizon), _Model(horizon)
    for sequence in range(1, 4_000):
        key, content = rng.choice(keys), (rng.randrange(3), rng.randrange(3))
        row = seek(*memory, *key)
        expected = model.find(key, sequence)
        assert (row >= 0) == (expected is not None)
        if expected is not None:
            assert row == expected[0] % horizon
            assert tuple(memory.ring[row, 2:].tolist()) == expected[1]
        forget(*memory, sequence % horizon)
        if expected is None and rng.random() < 0.9:
            remember(*memory, sequence % horizon, *key, *content)
            model.known[key] = (sequence, content)
        if sequence % 97 == 0:
            memory = restored(remembered(memory, horizon, sequence), horizon, sequence)
    assert np.count_nonzero(memory.table) == np.count_nonzero(memory.ring[:, 0])


def test_an_entry_exactly_at_the_horizon_is_still_known_and_one_beyond_is_not() -> None:
    """Remembered up to and including sequence s + horizon."""
    memory = empty_memory(10)
    remember(*memory, 1 % 10, 5, 6, 7, 8)
    for sequence in range(2, 11):
        forget(*memory, sequence % 10)
    assert seek(*memory, 5, 6) == 1
    forget(*memory, 11 % 10)
    assert seek(*memory, 5, 6) == -1


@pytest.mark.parametrize(("before", "after"), [(10, 4), (10, 10), (4, 10), (10, 0), (0, 10), (1, 2)])
def test_another_horizon_keeps_what_both_remember(before: int, after: int) -> None:
    """A smaller one forgets at once, a larger one starts from what there is."""
    memory, last = empty_memory(before), 25
    for sequence in range(1, last + 1):
        if before:
            forget(*memory, sequence % before)
            if sequence % 3:
                remember(*memory, sequence % before, sequence, sequence << 30, 0, 0)
    changed = restored(remembered(memory, before, last), after, last)
    for sequence in range(1, last + 1):
        expected = sequence % 3 != 0 and sequence > last - min(before, after)
        assert (seek(*changed, sequence, sequence << 30) >= 0) == expected
    assert len(remembered(changed, after, last)) == min(after, last)


def test_what_is_dumped_does_not_show_how_the_table_came_to_be() -> None:
    """The same rows, put in and taken out in another order, are the same bytes."""
    one, other = empty_memory(8), empty_memory(8)
    for row in range(8):
        remember(*one, row, row + 1, 1 << 24, 0, 0)
    for row in (3, 1, 7, 0, 2, 6, 5, 4):
        remember(*other, row, 99, 1 << 24, 0, 0)
        forget(*other, row)
        remember(*other, row, row + 1, 1 << 24, 0, 0)
    assert remembered(one, 8, 8).tobytes() == remembered(other, 8, 8).tobytes()
