"""The last event of a source, found without looking at many chunks.

Problem: a source may have been silent for days, and then its last event is behind thousands of chunks of others. But
lines of headers tell in which minute it last had counted rows, so only chunks with that minute are read; in frame
corrected, where there are no lines, chunks are read by their greatest time until no other can have a later one.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING

import numpy as np

from lifecycle.parts import NO_ORDER, Piece
from lifecycle.planner import unit_of
from lifecycle.query_kernel import Span, chunks_with, holding, latest_minute
from lifecycle.row_kernel import latest_row
from schemas.instants import INT64_MAX, INT64_MIN
from streams.windows import Frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lifecycle.inquiry import Inquiry
    from lifecycle.parts import Part

    #: An event: its time, partition and sequence, and the part it is in.
    _Found = tuple[int, int, int, Part]


def last_event(asked: Inquiry, source: bytes) -> list[Piece]:
    """The last counted event in the range as `query` says which: a piece of one row, or none. asked: of that source."""
    unsealed = [asked.refresh(partition) for partition in asked.partitions]
    found = _latest(asked, [part for part in unsealed if part is not None])
    dated = asked.question.frame is Frame.CORRECTED
    stored = _stored_dated(asked, found) if dated else _stored_latest(asked, source)
    if not found and not stored:
        return []
    _, _, sequence, part = max([*found, *stored], key=itemgetter(0, 1, 2))
    row = sequence - part.first_sequence
    return [Piece(part, slice(row, row + 1), NO_ORDER)]


def _stored_latest(asked: Inquiry, source: bytes) -> list[_Found]:
    """Of the chunks that may have the last event, by the minutes of their lines."""
    frame = asked.question.frame
    of_minute = unit_of(frame).of_minute
    code, minute = asked.catalog.sources.code(source), asked.high // of_minute
    stored: list[_Found] = []
    while code >= 0 and minute != INT64_MIN and not any(at // of_minute > minute for at, *_ in stored):
        blocks = [asked.blocks(partition) for partition in asked.partitions]
        minute = max((latest_minute(block.lines[frame], code, minute) for block in chain(*blocks)), default=INT64_MIN)
        if minute != INT64_MIN:
            stored += _latest(asked, _holding(asked, code, minute))
            minute -= 1  # in the minute of the instant itself, all may be after it; what was found is from before
    return stored


def _stored_dated(asked: Inquiry, found: list[_Found]) -> list[_Found]:
    """As _stored_latest, where there are no lines: chunks by their greatest time, until all others are before.

    found: elsewhere already.
    """
    mask = asked.catalog.sources.mask(asked.question.sources or ())
    held: list[Part] = []
    for partition in asked.partitions:
        for block in asked.blocks(partition):
            numbers = block.numbers
            marks = ((numbers["counted"] > 0) & (numbers["corrected_us_min"] <= asked.high)).view(np.uint8)
            holding(*block.sources, mask, marks)
            held += [asked.part(block, chunk) for chunk in np.flatnonzero(marks).tolist()]
    stored: list[_Found] = []
    latest = max((at for at, *_ in found), default=INT64_MIN)
    for part in sorted(held, key=attrgetter("high"), reverse=True):
        if part.high < latest:
            break
        asked.explain_rows(part)
        stored += _latest(asked, [part])
        latest = max([latest, *(at for at, *_ in stored)])
    return stored


def _holding(asked: Inquiry, code: int, minute: int) -> Iterator[Part]:
    """Chunks in which the source has counted rows in that minute."""
    for partition in asked.partitions:
        for block in asked.blocks(partition):
            found = np.empty(block.chunks, np.uint8)
            chunks_with(block.lines[asked.question.frame], code, minute, found)
            for chunk in np.flatnonzero(found).tolist():
                part = asked.part(block, chunk)
                asked.explain_rows(part)
                yield part


def _latest(asked: Inquiry, parts: Iterable[Part]) -> list[_Found]:
    """Of each part the last counted row in the range: its time, partition and sequence."""
    found = []
    for part in parts:
        rows = asked.rows(part, times=True, values=False, faults=True, flags=True, sources=True, kinds=False)
        row = latest_row(rows, Span(0, part.rows, asked.low, asked.high, INT64_MAX, INT64_MIN))
        if row >= 0:
            found.append((int(rows.time[row]), part.partition, part.first_sequence + row, part))
    return found
