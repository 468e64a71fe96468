"""Answers as they travel: Arrow tables part by part, and at the end how they were found.

Problem: an answer may be larger than memory should hold, and what explains it is known only when the last part is made.
So rows are asked for in parts of PART_ROWS or PART_TEXT_BYTES, each from where the last one ended; how the parts are
written is said in `arrow_stream`.

For answers that will be merged with those of other workers (`partial`) rows have a column order_ms, their order across
partitions, and groups a column sum_exact, see `partial`; with percentiles also spread_values and spread_bins, of which
one is null, or both, see `spread`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from lifecycle.arrow import aggregates_table, rows_table
from lifecycle.arrow_stream import Ending, Part
from lifecycle.partial import needed
from lifecycle.planner import Explain, Field
from lifecycle.requests import Aggregate, Get
from schemas.instants import INT64_MAX
from streams.windows import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from lifecycle.parts import Selected
    from lifecycle.query import HotQueries
    from lifecycle.requests import Range, Request

T = TypeVar("T")

#: Rows of a part: some ten MB.
PART_ROWS: Final = 65_536
#: Of ids and payloads in a part, but for what the last chunk of each partition has beyond it.
PART_TEXT_BYTES: Final = 16 * 1_048_576
#: When a row was, by frame.
TIME_FIELDS: Final = {
    Frame.LOCAL: Field.LOCAL_US,
    Frame.AUTHORITY: Field.AUTHORITY_MS,
    Frame.CORRECTED: Field.CORRECTED_US,
}
ORDER: Final = "order_ms"
SUM_EXACT: Final = "sum_exact"
SPREAD: Final = ("spread_values", "spread_bins")


class Ask(Protocol):
    """Has a question asked: of queries, and of what tells the last sequence of a partition."""

    def __call__(self, question: Callable[[HotQueries, Callable[[int], int]], T]) -> T:
        """Its answer."""
        ...


def parts_of(request: Request, partitions: Sequence[int], ask: Ask, *, partial: bool) -> Iterator[Part]:
    """The answer to a question about these partitions."""
    chosen = tuple(partitions)
    if isinstance(request, Get):
        get = request
        columns = fields_of(get) if partial else get.fields
        selected = ask(lambda queries, _last: queries.get(get.source, get.at_us, get.frame, columns, chosen))
        table = rows_table(selected)
        yield Part(table, Ending(asdict(selected.explain), False, chosen))  # noqa: FBT003 - of a tuple
    elif isinstance(request, Aggregate):
        yield from _aggregate(request, chosen, ask, partial=partial)
    else:
        yield from _range(request, chosen, ask, partial=partial)


def _aggregate(request: Aggregate, partitions: tuple[int, ...], ask: Ask, *, partial: bool) -> Iterator[Part]:
    question, aggregation = replace(request.question, partitions=partitions), request.aggregation
    if not partial:
        answer = ask(lambda queries, _last: queries.aggregate(question, aggregation))
        yield from _in_parts(aggregates_table(answer), Ending(asdict(answer.explain), False, partitions))  # noqa: FBT003
        return
    more = replace(aggregation, functions=needed(aggregation))
    answer, exact = ask(lambda queries, _last: queries.aggregate_partial(question, more))
    table = aggregates_table(answer)
    sums = [number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True) for number in exact]
    table = table.append_column(SUM_EXACT, pa.array(sums[: table.num_rows], pa.binary()))
    if aggregation.percentiles:
        packed = [spread.packed() for spread in answer.spreads]
        for place, name in enumerate(SPREAD):
            table = table.append_column(name, pa.array([parts[place] for parts in packed], pa.binary()))
    yield from _in_parts(table, Ending(asdict(answer.explain), False, partitions))  # noqa: FBT003


def _in_parts(table: pa.Table, ending: Ending) -> Iterator[Part]:
    """A table that is held as a whole, written by parts: as JSON it is several times as large."""
    first = 0
    while table.num_rows - first > PART_ROWS:
        yield Part(table.slice(first, PART_ROWS), None)
        first += PART_ROWS
    yield Part(table.slice(first), ending)


def _range(request: Range, partitions: tuple[int, ...], ask: Ask, *, partial: bool) -> Iterator[Part]:
    spans = {p: request.question.sequences.get(p, (0, INT64_MAX)) for p in partitions}
    rest = _Rest(request, spans, request.limit, partial)
    total, done = Explain(), False
    while not done:
        selected, order = ask(rest.select)
        _add(total, selected.explain)
        done = rest.go_on(selected)
        table = _table(selected, request.fields, order if partial else None)
        yield Part(table, Ending(asdict(total), selected.more, partitions) if done else None)


@dataclass(slots=True)
class _Rest:
    """What is left of a range: sequences by partition, and rows at most. begun: its end is known."""

    request: Range
    spans: dict[int, tuple[int, int]]
    rows: int
    partial: bool
    begun: bool = False

    def select(self, queries: HotQueries, last: Callable[[int], int]) -> tuple[Selected, NDArray[np.int64]]:
        """The next part."""
        if not self.begun:  # what comes meanwhile is not in it: it would never end, nor be in order
            _cut(self.spans, {partition: last(partition) for partition in self.spans})
        self.begun = True
        question = replace(self.request.question, partitions=tuple(self.spans), sequences=dict(self.spans))
        return queries.range_ordered(
            question,
            fields_of(self.request),
            min(self.rows, PART_ROWS),
            of_one=self.partial,
            text_bytes=PART_TEXT_BYTES,
        )

    def go_on(self, selected: Selected) -> bool:
        """Leave out what was selected; whether nothing is left to be asked for."""
        self.rows -= selected.rows
        partition, sequence = (selected.columns[name].values for name in (Field.PARTITION, Field.SEQUENCE))
        for number in np.unique(partition).tolist():
            first, last = int(sequence[partition == number][-1]) + 1, self.spans.pop(number)[1]
            if first <= last:
                self.spans[number] = first, last
        return not selected.more or not self.rows


def _cut(spans: dict[int, tuple[int, int]], ends: Mapping[int, int]) -> None:
    """Leave out what is behind these ends."""
    for partition, end in ends.items():
        first, last = spans.pop(partition)
        if first <= min(last, end):
            spans[partition] = first, min(last, end)


def fields_of(request: Get | Range) -> tuple[Field, ...]:
    """The columns of a partial answer: those asked for, then what says which row it is, and for the last one when."""
    place = [Field.PARTITION, Field.SEQUENCE]
    if isinstance(request, Get):
        place.append(TIME_FIELDS[request.frame])
    return tuple(dict.fromkeys([*request.fields, *place]))


def _table(selected: Selected, asked: tuple[Field, ...], order: NDArray[np.int64] | None) -> pa.Table:
    """The columns asked for; with the order, all."""
    if order is None:
        return rows_table(selected._replace(columns={name: selected.columns[name] for name in asked}))
    return rows_table(selected).append_column(ORDER, pa.array(order))


def _add(total: Explain, more: Explain) -> None:
    """What the parts took together."""
    for field in fields(Explain):
        value = getattr(more, field.name)
        if isinstance(value, dict):
            columns = getattr(total, field.name)
            for name, count in value.items():
                columns[name] = columns.get(name, 0) + count
        else:
            setattr(total, field.name, getattr(total, field.name) + value)


def total_of(explains: Sequence[dict[str, Any]]) -> Explain:
    """Of several answers."""
    total = Explain()
    for explain in explains:
        _add(total, Explain(**explain))
    return total
