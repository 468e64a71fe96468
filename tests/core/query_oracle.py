"""The plain twin of the hot tier's queries: every row looked at, one after the other, each rule in its own words."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from lifecycle.planner import Aggregation, Field, Function, Question
from schemas.faults import Fault
from schemas.instants import INT64_MAX, INT64_MIN
from streams.judge_kernel import Flag
from streams.quantiles import RELATIVE_ERROR, bin_of, value_of
from streams.severity_kernel import delta_ms_of
from streams.window_table import EXACT_VALUES
from streams.windows import By, Doubtful, Frame
from tests.core.hot_rows import corrected_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.core.hot_rows import DictionaryStore


class Row(NamedTuple):
    """A row as a query may show it, by name of the field; order: the running maximum of authority."""

    order_ms: int
    counted: bool
    fields: dict[Field, Any]


class Group(NamedTuple):
    """What is told of a group; keyed by window and name."""

    count: int  # type: ignore[assignment] # hides tuple.count
    values: int
    functions: dict[Function, float]
    percentiles: dict[int, float]
    near_edge: int | None = None
    unknown: int | None = None
    relative_error: float | None = None


def all_rows(store: DictionaryStore) -> list[Row]:
    """In order across partitions."""
    return in_order(row for partition in store.partitions() for row in _rows_of(store, partition))


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Across partitions."""
    return sorted(rows, key=lambda row: (row.order_ms, row.fields[Field.PARTITION], row.fields[Field.INDEX]))


def _rows_of(store: DictionaryStore, partition: int) -> Iterator[Row]:
    rows, sources, kinds = store.contents[partition]
    highest = INT64_MIN
    for i in range(rows.sequence.size):
        authority_ms, readable = int(rows.authority_ms[i]), rows.fault[i] == Fault.NONE
        highest = max(highest, authority_ms)
        local_us = int(rows.local_us[i]) if readable else None
        fields: dict[Field, Any] = {
            Field.PARTITION: partition,
            Field.SEQUENCE: int(rows.sequence[i]),
            Field.INDEX: int(rows.index[i]),
            Field.INPUT_OFFSET: int(rows.input_offset[i]),
            Field.AUTHORITY_MS: authority_ms,
            Field.LOCAL_US: local_us,
            Field.CORRECTED_US: corrected_us(rows, i),
            Field.DELTA_MS: None if local_us is None else int(delta_ms_of(local_us, authority_ms)),
            Field.SEVERITY: int(rows.severity[i]),
            Field.CAUSE: int(rows.cause[i]),
            Field.OFFSET_US: int(rows.offset_us[i]) if rows.bound_us[i] >= 0 else None,
            Field.BOUND_US: int(rows.bound_us[i]) if rows.bound_us[i] >= 0 else None,
            Field.FLAGS: int(rows.flags[i]),
            Field.FAULT: int(rows.fault[i]),
            Field.SOURCE: sources[rows.source[i]] if readable else None,
            Field.KIND: kinds[rows.kind[i]] if readable else None,
            Field.EVENT_ID: rows.event_id.at(i) if readable else None,
            Field.VALUE: float(rows.value[i]) if rows.has_value[i] else None,
            Field.PAYLOAD: rows.payload.at(i) if readable else None,
            Field.HLC: int(rows.hlc[i]) if rows.has_hlc[i] else None,
            Field.CHAIN_HASH: rows.chain_hash[i].tobytes(),
        }
        counted = readable and not rows.flags[i] & (Flag.DUPLICATE | Flag.CONFLICT)
        yield Row(highest, bool(counted), fields)


def time_us(row: Row, frame: Frame, unknown: Doubtful = Doubtful.AUTHORITY) -> int | None:
    """In a frame; None for the local time of a row that cannot be read, and for a row that is left out."""
    if frame is Frame.CORRECTED:
        left_out = unknown is Doubtful.EXCLUDE and row.fields[Field.BOUND_US] is None
        corrected: int | None = None if left_out else row.fields[Field.CORRECTED_US]
        return corrected
    if frame is Frame.LOCAL:
        local_us: int | None = row.fields[Field.LOCAL_US]
        return local_us
    return int(row.fields[Field.AUTHORITY_MS]) * 1_000


def asked(question: Question, row: Row) -> bool:
    """Whether the question is about it."""
    at = time_us(row, question.frame, question.unknown)
    if question.from_us is not None and (at is None or at < question.from_us):
        return False
    if question.to_us is not None and (at is None or at >= question.to_us):
        return False
    if question.sources is not None and row.fields[Field.SOURCE] not in question.sources:
        return False
    if question.kinds is not None and row.fields[Field.KIND] not in question.kinds:
        return False
    partition = row.fields[Field.PARTITION]
    if question.partitions is not None and partition not in question.partitions:
        return False
    first, last = question.sequences.get(partition, (0, INT64_MAX))
    return bool(first <= row.fields[Field.SEQUENCE] <= last)


def last_event(rows: list[Row], source: bytes, at_us: int | None, frame: Frame) -> Row | None:
    """The last counted event of a source at or before an instant."""

    def when(row: Row) -> tuple[int, int, int]:
        at = time_us(row, frame)
        assert at is not None
        return at, row.fields[Field.PARTITION], row.fields[Field.SEQUENCE]

    own = [row for row in rows if row.counted and row.fields[Field.SOURCE] == source]
    return max((row for row in own if at_us is None or when(row)[0] <= at_us), key=when, default=None)


def aggregate(
    rows: list[Row], question: Question, aggregation: Aggregation
) -> list[tuple[int | None, bytes | None, Group]]:
    """Groups in order, each behind the start of its window, cut to 64 bits, and its name."""
    groups: dict[tuple[int | None, bytes | None], list[Row]] = {}
    if aggregation.by is By.ALL and aggregation.window is None:
        groups[None, None] = []
    for row in rows:
        if row.counted and asked(question, row) and time_us(row, question.frame, question.unknown) is not None:
            name = None if aggregation.by is By.ALL else row.fields[Field(aggregation.by.value)]
            at = time_us(row, question.frame)
            assert at is not None
            for start in _starts(aggregation, at):
                groups.setdefault((start, name), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] or 0, item[0][1] or b""))
    return [
        (_cut(start), name, _doubted(_group(members, aggregation), members, start, question, aggregation))
        for (start, name), members in ordered
    ]


def left_out(rows: list[Row], question: Question) -> int:
    """Counted rows without an estimate whose authority time is in the range, where they are left out."""
    if question.unknown is not Doubtful.EXCLUDE:
        return 0
    all_of_them = replace(question, unknown=Doubtful.AUTHORITY)
    return sum(row.counted and row.fields[Field.BOUND_US] is None and asked(all_of_them, row) for row in rows)


def _doubted(
    group: Group, members: list[Row], start: int | None, question: Question, aggregation: Aggregation
) -> Group:
    """In frame corrected: events that may lie outside of their window, or of the range; those without an estimate."""
    if question.frame is not Frame.CORRECTED:
        return group
    low, high = question.from_us, question.to_us
    if start is not None and aggregation.window is not None:
        low, high = start, start + aggregation.window.size_us
    low = None if low is None or low <= INT64_MIN else low
    high = None if high is None or high > INT64_MAX else high
    near = 0
    for row in members:
        at, bound = time_us(row, question.frame), row.fields[Field.BOUND_US]
        assert at is not None
        if bound is None:
            near += low is not None or high is not None
        else:
            near += (low is not None and at - bound < low) or (high is not None and at + bound >= high)
    return group._replace(near_edge=near, unknown=sum(row.fields[Field.BOUND_US] is None for row in members))


def _cut(instant: int | None) -> int | None:
    return None if instant is None else max(min(instant, INT64_MAX), INT64_MIN)


def _starts(aggregation: Aggregation, at: int) -> Iterator[int | None]:
    """Starts of the windows that an instant is in."""
    window = aggregation.window
    if window is None:
        yield None
        return
    start = at // window.slide_us * window.slide_us
    for back in itertools.count():
        earlier = start - back * window.slide_us
        if earlier + window.size_us <= at:
            return
        yield earlier


def _group(members: list[Row], aggregation: Aggregation) -> Group:
    said = [row.fields[Field.VALUE] for row in members]
    values = sorted(value + 0.0 for value in said if value is not None and math.isfinite(value))
    nothing = math.nan
    total = math.fsum(values) if values else nothing
    functions = {
        Function.SUM: total,
        Function.MIN: values[0] if values else nothing,
        Function.MAX: values[-1] if values else nothing,
        Function.MEAN: total / len(values) if values else nothing,
    }
    ranks = {p: math.ceil(Fraction(p * len(values), 100_000)) for p in aggregation.percentiles}
    exact = aggregation.exact or len(values) <= EXACT_VALUES
    told = values if exact else [value_of(bin_of(value)) for value in values]
    return Group(
        len(members),
        len(values),
        {name: functions[name] for name in Function if name in aggregation.functions},
        {p: told[rank - 1] if values else nothing for p, rank in ranks.items()},
        relative_error=(0.0 if exact else RELATIVE_ERROR) if ranks else None,
    )
