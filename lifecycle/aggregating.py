"""What an aggregate counts: lines of headers where these answer, rows where they do not, and how it was found.

Problem: the same groups come from lines of hundreds of chunks, from rows of the chunks that a range cuts, and from rows
that no chunk holds yet. `query_kernel.decide` says which of it answers for a chunk; here the one and the other are
handed to a `tally`, partition by partition. In frame corrected there are no lines, so all are rows.

GUARANTEE a second reading, where a tally asks for one, finds the rows of the first and none that came since.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from lifecycle.planner import Explain, grouping_of, limits_of, spans_of
from lifecycle.query_kernel import Decision, decide
from lifecycle.tally import Tally
from schemas.instants import INT64_MAX
from streams.windows import By, Frame

if TYPE_CHECKING:
    from lifecycle.catalog import Block
    from lifecycle.inquiry import Inquiry
    from lifecycle.parts import Part
    from lifecycle.planner import Aggregation, Question
    from lifecycle.query_kernel import Limits

AnyTally = TypeVar("AnyTally", bound=Tally)

#: Sequences that no row has.
_NONE: Final = (-1, -1)


def tallied(kind: type[AnyTally], asked: Inquiry, aggregation: Aggregation, *, statistics: bool) -> AnyTally:
    """The counted rows of a question, counted; without statistics from rows alone. Its result is to be asked for.

    Raises BadInputError where there are more groups, or values to keep, than an answer holds.
    """
    question, explain = asked.question, asked.explain
    if aggregation.exact:
        asked = replace(asked, question=_until_now(asked))
    tally = kind(
        aggregation,
        grouping_of(question, aggregation, minutes=True),
        grouping_of(question, aggregation, minutes=False),
        doubtful=question.frame is Frame.CORRECTED,
    )
    _tally_all(asked, aggregation, tally, statistics=statistics)
    if tally.look_again():
        again = replace(asked, explain=Explain())
        _tally_all(again, aggregation, tally, statistics=statistics)
        for name in ("rows_scanned", "rows_unsealed", "cached", "bytes_read", "readings"):
            setattr(explain, name, getattr(explain, name) + getattr(again.explain, name))
        for name, count in again.explain.columns.items():
            explain.columns[name] = explain.columns.get(name, 0) + count
    explain.chunks_skipped += asked.count_chunks() - (
        explain.chunks_skipped + explain.chunks_statistics + explain.chunks_edges + explain.chunks_rows
    )
    return tally


def _until_now(asked: Inquiry) -> Question:
    """The question, without what comes from now on: another reading must find the same rows."""
    sequences = {}
    for partition in asked.partitions:
        unsealed = asked.chunks.unsealed(partition)
        rows = [] if unsealed is None else unsealed.rows.sequence[-1:].tolist()
        last = max([asked.catalog.refresh(partition)[0] - 1, *rows])
        first, wanted = asked.question.sequences.get(partition, (0, INT64_MAX))
        sequences[partition] = (first, min(wanted, last)) if first <= min(wanted, last) else _NONE
    return replace(asked.question, sequences=sequences)


def _tally_all(asked: Inquiry, aggregation: Aggregation, tally: Tally, *, statistics: bool) -> None:
    """Everything that is asked for, once."""
    question = asked.question
    asked.explain.readings += 1
    for partition in asked.partitions:
        limits = limits_of(question, aggregation, partition, statistics=statistics)
        if question.frame is Frame.CORRECTED:
            for _, part in asked.parts(partition):
                _tally_dated(asked, part, limits, aggregation, tally)
            continue
        unsealed = asked.refresh(partition)
        for block in asked.blocks(partition):
            _tally_block(asked, block, limits, aggregation, tally)
        if unsealed is not None:
            _tally_rows(asked, unsealed, limits, aggregation, tally, edges=False)


def _tally_block(asked: Inquiry, block: Block, limits: Limits, aggregation: Aggregation, tally: Tally) -> None:
    lines = block.lines[asked.question.frame]
    wanted = asked.catalog.wanted(asked.question)
    decisions = np.empty(block.chunks, np.uint8)
    decide(lines, limits, wanted, decisions)
    skipped, statistics, edges_too, rows = np.bincount(decisions, minlength=len(Decision)).tolist()
    if skipped == block.chunks:
        return
    explain = asked.explain
    explain.chunks_statistics += statistics
    explain.chunks_edges += edges_too
    explain.chunks_rows += rows
    explain.chunks_archived += asked.chunks.archived(
        block.partition, block.numbers["first_sequence"][decisions != Decision.SKIP]
    )
    if statistics or edges_too:
        tally.add_lines(lines, limits, wanted, decisions)
    for chunk in np.flatnonzero(decisions >= Decision.EDGES).tolist():
        edges = bool(decisions[chunk] == Decision.EDGES)
        part = asked.part(block, chunk)
        asked.explain.rows_scanned += part.rows
        _tally_rows(asked, part, limits, aggregation, tally, edges=edges)


def _tally_rows(
    asked: Inquiry, part: Part, limits: Limits, aggregation: Aggregation, tally: Tally, *, edges: bool
) -> None:
    question = asked.question
    rows = asked.rows(
        part,
        times=edges or aggregation.window is not None or part.low < asked.low or part.high > asked.high,
        values=True,
        faults=True,
        flags=True,
        sources=question.sources is not None or aggregation.by is By.SOURCE,
        kinds=question.kinds is not None or aggregation.by is By.KIND,
    )
    with_lines, alone = spans_of(question, limits, question.span(part.partition, part.first_sequence, part.rows))
    tally.add_rows(rows, with_lines if edges else alone)


def _tally_dated(asked: Inquiry, part: Part, limits: Limits, aggregation: Aggregation, tally: Tally) -> None:
    """Rows in frame corrected, with how sure their times are."""
    question = asked.question
    dated = part.dated()
    rows = asked.rows(
        part,
        times=True,
        values=True,
        faults=True,
        flags=True,
        sources=question.sources is not None or aggregation.by is By.SOURCE,
        kinds=question.kinds is not None or aggregation.by is By.KIND,
        dated=dated,
    )
    span = spans_of(question, limits, question.span(part.partition, part.first_sequence, part.rows))[1]
    tally.add_rows(rows, span)
    asked.explain.rows_left_out += tally.add_doubt(rows, dated.bound_us, span)
