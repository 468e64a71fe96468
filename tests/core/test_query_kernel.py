"""Kernels against plain loops: what decides over chunks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.query_kernel import (
    Decision,
    Limits,
    Lines,
    Wanted,
    chunks_with,
    decide,
    latest_minute,
)
from schemas.instants import INT64_MIN


class _Line(NamedTuple):
    source: int
    kind: int
    minute: int
    exact: bool


class _Chunk(NamedTuple):
    first: int
    last: int
    low: int
    high: int
    lines: list[_Line]


def _lines_of(chunks: list[_Chunk]) -> Lines:
    lines = [line for chunk in chunks for line in chunk.lines]
    start = np.cumsum([0, *(len(chunk.lines) for chunk in chunks)]).astype(np.int64)
    zeros = np.zeros(len(lines), np.int64)
    return Lines(
        np.array([chunk.first for chunk in chunks], np.int64),
        np.array([chunk.last for chunk in chunks], np.int64),
        np.array([chunk.low for chunk in chunks], np.int64),
        np.array([chunk.high for chunk in chunks], np.int64),
        np.array([min((line.minute for line in chunk.lines), default=1) for chunk in chunks], np.int64),
        np.array([max((line.minute for line in chunk.lines), default=0) for chunk in chunks], np.int64),
        np.array([not all(line.exact for line in chunk.lines) for chunk in chunks], np.uint8),
        start,
        np.array([line.source for line in lines], np.int32),
        np.array([line.kind for line in lines], np.int32),
        np.array([line.minute for line in lines], np.int64),
        zeros, zeros, np.zeros(len(lines)), np.zeros(len(lines)), np.zeros((len(lines), 3), np.int64),
        np.array([line.exact for line in lines], np.uint8),
    )  # fmt: skip


def _plain(chunk: _Chunk, limits: Limits, wanted: Wanted) -> Decision:
    """What answers for a chunk."""
    lines = [
        line
        for line in chunk.lines
        if (not wanted.filter_sources or line.source in wanted.sources.tolist())
        and (not wanted.filter_kinds or wanted.kinds[line.kind])
    ]
    whole = limits.low <= chunk.low and chunk.high <= limits.high
    apart = chunk.high < limits.low or chunk.low > limits.high
    out = chunk.last < limits.first_sequence or chunk.first > limits.last_sequence
    inside = [line for line in lines if whole or limits.inside_first <= line.minute <= limits.inside_last]
    edge = [line for line in lines if line not in inside and limits.touched_first <= line.minute <= limits.touched_last]
    if out or apart or not (inside or edge):
        return Decision.SKIP
    part = chunk.first < limits.first_sequence or chunk.last > limits.last_sequence
    inexact = limits.by_exact_lines and not all(line.exact for line in inside)
    if not limits.by_lines or part or inexact or not inside:
        return Decision.ROWS
    return Decision.EDGES if edge else Decision.STATISTICS


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[list[_Chunk], Limits, Wanted]:
    chunks = []
    first = 1
    for _ in range(draw(st.integers(1, 4))):
        last = first + draw(st.integers(0, 3))
        line = st.builds(_Line, st.integers(0, 3), st.integers(0, 1), st.integers(0, 5), st.booleans())
        lines = sorted(draw(st.lists(line, max_size=4, unique_by=lambda line: line[:3])))
        minutes = [line.minute for line in lines] or [0]
        low, high = 10 * min(minutes) + draw(st.integers(0, 3)), 10 * max(minutes) + draw(st.integers(3, 9))
        chunks.append(_Chunk(first, last, low, high, lines))
        first = last + 1
    low = draw(st.integers(-1, 60))
    high = low + draw(st.integers(-1, 60))
    first, last = sorted(draw(st.tuples(st.integers(0, 20), st.integers(0, 20))))
    limits = Limits(
        low, high, low // 10, high // 10, -(-low // 10), (high + 1) // 10 - 1, first, last,
        by_lines=draw(st.booleans()), by_exact_lines=draw(st.booleans()),
    )  # fmt: skip
    wanted = Wanted(
        draw(st.booleans()),
        np.array(sorted(draw(st.sets(st.integers(0, 3)))), np.int32),
        draw(st.booleans()),
        np.array([draw(st.integers(0, 1)), draw(st.integers(0, 1))], np.uint8),
    )
    return chunks, limits, wanted


@given(_worlds())
@settings(max_examples=300)
def test_decisions_are_those_of_a_plain_loop(world: tuple[list[_Chunk], Limits, Wanted]) -> None:
    """Over every line that the filters let through."""
    chunks, limits, wanted = world
    decisions = np.empty(len(chunks), np.uint8)
    decide(_lines_of(chunks), limits, wanted, decisions)
    for chunk, decision in zip(chunks, decisions.tolist(), strict=True):
        assert decision == _plain(chunk, limits, wanted)


@given(_worlds(), st.integers(0, 3), st.integers(-1, 6))
@settings(max_examples=100)
def test_the_latest_minute_is_that_of_a_plain_loop(
    world: tuple[list[_Chunk], Limits, Wanted], source: int, most: int
) -> None:
    """And the chunks that have lines of it are all found."""
    chunks = world[0]
    lines = _lines_of(chunks)
    minutes = [line.minute for chunk in chunks for line in chunk.lines if line.source == source and line.minute <= most]
    latest = latest_minute(lines, source, most)
    assert latest == max(minutes, default=INT64_MIN)
    found = np.empty(len(chunks), np.uint8)
    chunks_with(lines, source, latest, found)
    assert found.tolist() == [
        any(line.source == source and line.minute == latest for line in chunk.lines) for chunk in chunks
    ]
