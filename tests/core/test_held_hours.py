"""What a worker tells of its hot hours: of chunks that are held, also while some of them are sent away."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, cast

import pytest

from lifecycle.chunks import ChunkAwayError, Line
from lifecycle.hot_hours import hours_of
from lifecycle.keeper import held_hours
from tests.core.test_hot_hours import chunks_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.chunks import Header
    from lifecycle.hot_tier import HotTier


class Store:
    """A tier and its store. leaving: chunks that are sent away when their header is asked for."""

    def __init__(self, lines: list[Line], headers: dict[int, Header], leaving: set[int]) -> None:
        self._lines, self._headers, self._leaving = lines, headers, leaving
        self.stays = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """Itself; nothing of no lines."""
        yield self if self._lines else None

    def lines(self, _partition: int) -> list[Line]:
        """As they stand now."""
        return list(self._lines)

    def header(self, partition: int, first_sequence: int) -> Header:
        """Of a chunk that is held."""
        if first_sequence in self._leaving:
            if not self.stays:
                self._lines = [
                    line._replace(held=0) if line.first_sequence == first_sequence else line for line in self._lines
                ]
            raise ChunkAwayError(partition, first_sequence)
        return self._headers[first_sequence]

    def bytes_per_row(self) -> float:
        """Of any."""
        return 30.0


def held(store: Store) -> Any:
    """Its hours."""
    return held_hours(cast("HotTier", store), 2, {})


def test_hours_are_those_of_the_chunks_that_are_held() -> None:
    """Whatever leaves meanwhile is not among them."""
    lines, headers, _ = chunks_over(random.Random(4), 60)
    stay = [line for line in lines if line.held]
    assert held(Store(lines, headers, set())) == hours_of(2, stay, headers.__getitem__, 30.0)
    leaving = {line.first_sequence for line in stay[:5]}
    rest = [line for line in stay if line.first_sequence not in leaving]
    found = held(Store(lines, headers, leaving))
    assert sum(hour.rows for hour in found) <= sum(hour.rows for hour in hours_of(2, stay, headers.__getitem__, 30.0))
    assert found[-1] == hours_of(2, rest, headers.__getitem__, 30.0)[-1]
    assert held(Store([], {}, set())) == []


def test_what_is_neither_there_nor_away_ends_the_question() -> None:
    """Rather than asking for ever."""
    lines, headers, _ = chunks_over(random.Random(4), 20)
    store = Store(lines, headers, {line.first_sequence for line in lines})
    store.stays = True
    with pytest.raises(ChunkAwayError):
        held(store)
