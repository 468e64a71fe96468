"""Percentiles of groups against sorted values: whatever is kept, counted by bin, read twice or merged."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.planner import Aggregation, Explain
from lifecycle.query_kernel import RowsIn, Span, bits_of
from lifecycle.spread import Spread, joined, percentile_of
from lifecycle.sum_kernel import Grouping
from lifecycle.tally import Aggregates, Tally
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from schemas.memory import JIT
from streams.quantiles import RELATIVE_ERROR, bin_of, value_of
from streams.window_table import EXACT_VALUES
from streams.windows import By

if TYPE_CHECKING:
    import random

PERCENTILES = (1, 1_000, 50_000, 99_000, 99_900, 100_000)
NAMES = (b"few", b"many", b"more")
NO_CODES = np.zeros(0, np.int32)
NO_MARKS = np.zeros(0, np.uint8)

finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 0.1, 20.5, 20.500000001, -7.25, 5e-324, -5e-324, 1.7976931348623157e308]),
)


def tallied(values: list[float], codes: list[int], aggregation: Aggregation, size: int) -> Aggregates:
    """By source, so many rows at a time, read again where that is wanted."""
    tally = Tally(aggregation, Grouping(1, 0, 0), Grouping(1, 0, 0))
    readings = 1
    while readings:
        readings -= 1
        for start in range(0, len(values), size):
            column, sources = np.array(values[start : start + size]), np.array(codes[start : start + size], np.int32)
            rows = RowsIn(
                np.zeros(0, np.int64), column, bits_of(column), NO_MARKS, NO_MARKS, sources,
                np.arange(len(NAMES), dtype=np.int32), NO_CODES, NO_CODES,
            )  # fmt: skip
            tally.add_rows(rows, Span(0, column.size, INT64_MIN, INT64_MAX, INT64_MAX, INT64_MIN))
        if tally.look_again():
            readings += 1
    return tally.result(NAMES, Explain())


def plain(values: list[float], percentile: int, *, exact: bool) -> float:
    """The value at the nearest rank, or what stands for its bin."""
    ordered = sorted(value + 0.0 for value in values)
    found = ordered[math.ceil(Fraction(percentile * len(ordered), 100_000)) - 1]
    return found if exact or len(ordered) <= EXACT_VALUES else float(value_of(bin_of(found)))


def check(values: list[float], codes: list[int], size: int, *, exact: bool) -> None:
    """Every percentile of every group, to the bit."""
    found = tallied(values, codes, Aggregation(By.SOURCE, percentiles=PERCENTILES, exact=exact), size)
    assert found.key is not None
    assert found.relative_error is not None
    for place, code in enumerate(found.key.tolist()):
        own = [value for value, other in zip(values, codes, strict=True) if found.names[code] == NAMES[other]]
        assert found.values[place] == len(own)
        for percentile in PERCENTILES:
            expected = np.float64(plain(own, percentile, exact=exact))
            assert found.percentiles[percentile][place].tobytes() == expected.tobytes()
        assert found.relative_error[place] == (0 if exact or len(own) <= EXACT_VALUES else RELATIVE_ERROR)


@given(st.lists(finite, min_size=1, max_size=40), st.integers(1, 100), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=60 if JIT else 10, deadline=None)
def test_percentiles_are_those_of_sorted_values(
    some: list[float],
    size: int,
    exact: bool,  # noqa: FBT001
    rng: random.Random,
) -> None:
    """Of few values and of many, in any order and in parts of any size; also where hardly any can be kept."""
    values = some * 20 + [value / 3 for value in some]
    codes = [rng.choice((0, 1, 1, 1, 2, 2)) for _ in values]
    with pytest.MonkeyPatch.context() as patch:
        if rng.random() < 0.8:
            patch.setattr("lifecycle.tally.SAMPLES_MAX", 2 * EXACT_VALUES + 50)
        check(values, codes, size * 7, exact=exact)


def test_many_values_need_no_room_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smooth ones, negative ones and one that comes all the time: exact as well, read twice."""
    monkeypatch.setattr("lifecycle.tally.SAMPLES_MAX", 2_000)
    rng = np.random.default_rng(1)
    count = 40_000 if JIT else 5_000
    values = np.where(rng.random(count) < 0.3, 20.5, rng.normal(0, 40, count)).tolist()
    codes = rng.integers(0, 3, count).tolist()
    for exact in (False, True):
        check(values, codes, 8_192, exact=exact)


def test_too_many_different_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bins, and beside a rank; it is said what to ask for."""
    monkeypatch.setattr("lifecycle.tally.SAMPLES_MAX", 1_000)
    monkeypatch.setattr("lifecycle.spread.ENTRIES_MAX", 1_000)
    wide = [math.ldexp(1.0, n % 2_000 - 1_000) for n in range(40_000)]
    narrow = [20 + n * 1e-7 for n in range(40_000)]
    for values, exact, told in ((wide, False, "bins of sketches"), (narrow, True, "different values beside the ranks")):
        aggregation = Aggregation(By.SOURCE, percentiles=(50_000,), exact=exact)
        with pytest.raises(BadInputError, match=told):
            tallied([value * factor for factor in (1, -1) for value in values], [1] * 80_000, aggregation, 8_192)


@given(st.lists(st.lists(finite, max_size=300), min_size=1, max_size=4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_spreads_of_parts_are_that_of_the_whole(parts: list[list[float]], exact: bool) -> None:  # noqa: FBT001
    """In any order, and merged of what was merged; as bytes, too."""
    values = [value + 0.0 for part in parts for value in part]
    spreads = [
        Spread.unpacked(*joined([Spread(np.sort(np.array(part) + 0.0))], exact=exact).packed()) for part in parts
    ]
    whole = joined(spreads, exact=exact)
    by_pairs = spreads[-1]
    for spread in reversed(spreads[:-1]):
        by_pairs = joined([spread, by_pairs], exact=exact)
    assert whole.packed() == by_pairs.packed()
    for percentile in PERCENTILES if values else ():
        assert percentile_of(whole, percentile) == plain(values, percentile, exact=exact)


def test_what_is_not_known_stays_so() -> None:
    """As bytes, too."""
    assert not Spread(None).known
    assert not Spread.unpacked(*Spread(None).packed()).known
    assert Spread.unpacked(*joined([], exact=True).packed()).known
