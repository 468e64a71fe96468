"""Limits against every instant of small worlds, and questions that are refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifecycle.planner import (
    Aggregation,
    Function,
    Question,
    Window,
    grouping_of,
    limits_of,
    spans_of,
    times_of,
    unit_of,
)
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from streams.windows import By, Frame

MINUTE_US = 60_000_000
edges = st.one_of(
    st.none(),
    st.builds(
        lambda minute, by: minute * MINUTE_US + by, st.integers(-3, 3), st.sampled_from([0, 1, -1, 999, 30_000_000])
    ),
    st.sampled_from([INT64_MIN, INT64_MAX, INT64_MIN - 1, INT64_MAX + 1, INT64_MAX + 2, 2**80, -(2**80)]),
)
instants = st.one_of(
    st.builds(lambda minute, by: minute * MINUTE_US + by, st.integers(-3, 3), st.sampled_from([0, 1, -1, 999, 1_000])),
    st.sampled_from([INT64_MIN, INT64_MAX, INT64_MIN + 1]),
)


def _question(frame: Frame, one: int | None, other: int | None) -> Question:
    if one is not None and other is not None and other < one:
        one, other = other, one
    return Question(frame, one, other)


@given(st.sampled_from(Frame), edges, edges, instants)
@settings(max_examples=300)
@example(Frame.LOCAL, INT64_MAX, None, INT64_MAX)
def test_limits_agree_with_the_range_about_every_instant(
    frame: Frame, one: int | None, other: int | None, at: int
) -> None:
    """In the range: its time and its minute are within; in a minute inside: it is in the range."""
    question = _question(frame, one, other)
    unit = unit_of(frame)
    at_us = at * 1_000 if frame is Frame.AUTHORITY else at  # authority has milliseconds, and more room
    wanted = (question.from_us is None or at_us >= question.from_us) and (
        question.to_us is None or at_us < question.to_us
    )
    low, high = times_of(question)
    assert (low <= at <= high) == wanted
    limits = limits_of(question, Aggregation(), 0)
    minute = at // unit.of_minute
    if wanted:
        assert limits.touched_first <= minute <= limits.touched_last
    if limits.inside_first <= minute <= limits.inside_last and low <= high:
        assert wanted
    with_lines, alone = spans_of(question, limits, (0, 1))
    assert (with_lines.skip_low <= at <= with_lines.skip_high) == (limits.inside_first <= minute <= limits.inside_last)
    assert not alone.skip_low <= at <= alone.skip_high
    assert all(INT64_MIN <= number <= INT64_MAX for number in (*limits, *with_lines, *alone))


def test_a_range_of_whole_minutes_has_no_edges() -> None:
    """From the first to the last minute inside, all are."""
    limits = limits_of(Question(Frame.AUTHORITY, 2 * MINUTE_US, 5 * MINUTE_US), Aggregation(), 0)
    assert (limits.touched_first, limits.touched_last) == (2, 4) == (limits.inside_first, limits.inside_last)


@pytest.mark.parametrize(
    ("aggregation", "by_lines"),
    [
        (Aggregation(), True),
        (Aggregation(window=Window(MINUTE_US)), True),
        (Aggregation(window=Window(3 * MINUTE_US, MINUTE_US)), True),
        (Aggregation(window=Window(MINUTE_US, MINUTE_US // 2)), False),
        (Aggregation(window=Window(10_000_000)), False),
        (Aggregation(percentiles=(50_000,)), False),
    ],
)
def test_lines_answer_only_what_minutes_can_tell(aggregation: Aggregation, by_lines: bool) -> None:  # noqa: FBT001
    """Windows of whole minutes, and no percentile; and nothing where statistics are not to be used."""
    assert limits_of(Question(), aggregation, 0).by_lines == by_lines
    assert not limits_of(Question(), aggregation, 0, statistics=False).by_lines


def test_only_sums_need_exact_lines() -> None:
    """A minimum is one of the values."""
    assert not limits_of(Question(), Aggregation(functions=frozenset({Function.MIN, Function.MAX})), 0).by_exact_lines
    assert limits_of(Question(), Aggregation(functions=frozenset({Function.MEAN})), 0).by_exact_lines


@pytest.mark.parametrize(
    ("sequences", "span"),
    [({}, (0, 10)), ({1: (1, 2)}, (0, 10)), ({0: (1, 100)}, (0, 0)), ({0: (103, 104)}, (2, 4)),
     ({0: (110, 900)}, (9, 10)), ({0: (111, 120)}, (10, 10)), ({0: (-5, INT64_MAX + 7)}, (0, 10))],
)  # fmt: skip
def test_rows_of_a_span_are_those_of_the_sequences(
    sequences: dict[int, tuple[int, int]], span: tuple[int, int]
) -> None:
    """Of ten rows from sequence 101 on, in partition 0."""
    assert Question(sequences=sequences).span(0, 101, 10) == span


def test_a_grouping_is_in_the_unit_of_what_it_groups() -> None:
    """Minutes for lines; for rows that of the frame."""
    aggregation = Aggregation(By.KIND, Window(2 * MINUTE_US, MINUTE_US))
    local, authority = Question(Frame.LOCAL), Question(Frame.AUTHORITY)
    assert grouping_of(local, aggregation, minutes=True) == (2, 2, 1)
    assert grouping_of(local, aggregation, minutes=False) == (2, 120_000_000, 60_000_000)
    assert grouping_of(authority, aggregation, minutes=False) == (2, 120_000, 60_000)
    assert grouping_of(authority, Aggregation(), minutes=False) == (0, 0, 0)


@pytest.mark.parametrize(
    ("size_us", "slide_us"),
    [(0, 0), (1_500, 0), (1_000, 500), (1_000, 2_000), (-1_000, 0), (10**15, 0), (1_001_000, 1_000)],
)
def test_a_window_that_cannot_be_is_refused(size_us: int, slide_us: int) -> None:
    """Whole milliseconds, no gaps, and not too many for one event."""
    with pytest.raises(BadInputError):
        Window(size_us, slide_us)


def test_ranges_that_end_before_they_begin_are_refused() -> None:
    """Of time, of sequences; and percentiles that there are not, or too many."""
    with pytest.raises(BadInputError, match="Swap them"):
        Question(from_us=2, to_us=1)
    with pytest.raises(BadInputError, match="Swap them"):
        Question(sequences={3: (2, 1)})
    for percentile in (0, -1, 100_001):
        with pytest.raises(BadInputError, match="thousandths"):
            Aggregation(percentiles=(percentile,))
