"""Marzullo's algorithm against its worked example and against counting."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.intervals import agreement

if TYPE_CHECKING:
    from pathlib import Path

INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=12).map(
    lambda pairs: [(low, low + width) for low, width in pairs]
)


@pytest.mark.cases
def test_the_worked_example_holds(cases: Path) -> None:
    """hlc/marzullo.json, all rows."""
    rows = json.loads((cases / "hlc" / "marzullo.json").read_text())["cases"]
    assert rows
    for row in rows:
        best = [tuple(interval) for interval in row["best"]]
        assert agreement([tuple(interval) for interval in row["intervals"]]) == (row["count"], best)


@given(INTERVALS)
def test_no_place_is_covered_by_more_and_every_best_one_is_told(intervals: list[tuple[int, int]]) -> None:
    """Half places too, so that a gap of one between two stretches is seen."""
    places = [half / 2 for half in range(81)]
    covered = {place: sum(low <= place <= high for low, high in intervals) for place in places}
    most, best = agreement(intervals)
    assert most == max(covered.values())
    told = {place for place in places if any(low <= place <= high for low, high in best)}
    assert told == {place for place in places if covered[place] == most}


def test_nothing_agrees_with_nothing() -> None:
    """No interval, no stretch."""
    assert agreement([]) == (0, [])
