"""Queries against a plain loop over the rows, however the rows are cut into chunks and whatever answers."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.arrow import aggregates_table, ipc_bytes, rows_table
from lifecycle.chunks import ChunkDamagedError, Column
from lifecycle.packing import Texts
from lifecycle.planner import UNKNOWN, Aggregation, Explain, Field, Function, Question, Window
from lifecycle.query import HotQueries
from lifecycle.requests import usual_fields
from schemas.errors import BadInputError
from schemas.faults import Fault
from streams.causes import Cause
from streams.cli import query as command
from streams.cli.questions import Form
from streams.windows import DURATION_MAX_US, By, Doubtful, Frame
from tests.core.hot_rows import START_MS, DictionaryStore, many_rows, odd_rows
from tests.core.interpreted import interpreted
from tests.core.query_oracle import Group, Row, aggregate, all_rows, asked, last_event, left_out, time_us

if TYPE_CHECKING:
    from lifecycle.parts import Selected
    from lifecycle.tally import Aggregates

FIELDS = tuple(Field)
SOURCES = (b"s0", b"s1", "Füllstand".encode(), b"late", b"nobody")
KINDS = (b"t", b"p", b"", b"nothing")
MINUTE_US = 60_000_000
WINDOWS = (
    None,
    Window(MINUTE_US),
    Window(2 * MINUTE_US, MINUTE_US),
    Window(90_000_000),
    Window(10_000_000),
    Window(60_000_000, 25_000_000),
)
#: Rows of a partition, rows of a chunk, unsealed rows, seed.
SHAPES = [(300, 16, 0, 1), (300, 64, 21, 2), (90, 8_192, 0, 3), (40, 8_192, 40, 4), (260, 1, 3, 5)]


@functools.cache
def made(shape: int) -> tuple[DictionaryStore, list[Row]]:
    """A store and its rows."""
    rows, chunk_rows, unsealed, seed = SHAPES[shape]
    partitions = {partition: odd_rows(partition, rows - 7 * partition, seed) for partition in (0, 2, 3)}
    store = DictionaryStore(partitions, chunk_rows=chunk_rows, unsealed=unsealed)
    return store, all_rows(store)


@st.composite
def questions(draw: st.DrawFn) -> tuple[int, Question]:
    """A shape and a question about it, whose edges often are times of rows or minutes."""
    shape = draw(st.integers(0, len(SHAPES) - 1))
    rows = made(shape)[1]
    frame = draw(st.sampled_from(Frame))
    times = sorted({at for row in rows if (at := time_us(row, frame)) is not None})
    near = st.builds(lambda at, by: at + by, st.sampled_from(times), st.sampled_from([0, 1, -1, 1_000, 500]))
    minutes = st.builds(lambda at: at // MINUTE_US * MINUTE_US, near)
    edges = st.one_of(st.none(), near, minutes, st.sampled_from([-(2**63), 2**63 - 1, 2**63, 0, -(2**70), 2**70]))
    start, end = sorted([draw(edges), draw(edges)], key=lambda at: -math.inf if at is None else at)
    if start is None and draw(st.booleans()):
        start, end = end, start
    filters = [
        draw(st.one_of(st.none(), st.lists(st.sampled_from(names), max_size=3).map(tuple)))
        for names in (SOURCES, KINDS)
    ]
    partitions = draw(st.one_of(st.none(), st.lists(st.sampled_from([0, 2, 3]), max_size=3, unique=True).map(tuple)))
    ranges = st.tuples(st.integers(-5, 320), st.integers(0, 320)).map(lambda pair: (pair[0], pair[0] + pair[1]))
    sequences = draw(st.one_of(st.just({}), st.dictionaries(st.sampled_from([0, 2, 3]), ranges, max_size=3)))
    unknown = draw(st.sampled_from(UNKNOWN)) if frame is Frame.CORRECTED else Doubtful.AUTHORITY
    return shape, Question(frame, start, end, filters[0], filters[1], partitions, sequences, unknown)


aggregations = st.builds(
    lambda by, window, functions, percentiles, exact: Aggregation(
        by, window, functions, percentiles, exact and bool(percentiles)
    ),
    st.sampled_from(By),
    st.sampled_from(WINDOWS),
    st.one_of(st.just(frozenset(Function)), st.frozensets(st.sampled_from(Function))),
    st.one_of(st.just(()), st.sampled_from([(50_000,), (1, 33_333, 99_900, 100_000)])),
    st.booleans(),
)


def bits(number: float) -> bytes:
    """So that NaN is itself and -0.0 is not 0.0."""
    return struct.pack("<d", number)


def shown(found: Aggregates) -> list[tuple[int | None, bytes | None, Group]]:
    """As the oracle tells it."""
    groups = []
    for i in range(found.count.size):
        start = None if found.window_start_us is None else int(found.window_start_us[i])
        name = None if found.key is None else found.names[found.key[i]]
        group = Group(
            int(found.count[i]),
            int(found.values[i]),
            {function: float(column[i]) for function, column in found.functions.items()},
            {percentile: float(column[i]) for percentile, column in found.percentiles.items()},
            **{name: int(column[i]) for name, column in found.doubt.items()},
            relative_error=None if found.relative_error is None else float(found.relative_error[i]),
        )
        groups.append((start, name, group))
    return groups


def listed(selected: Selected) -> list[dict[Field, Any]]:
    """Rows as the oracle tells them."""
    rows: list[dict[Field, Any]] = [{} for _ in range(selected.rows)]
    for name, (values, valid) in selected.columns.items():
        for i, row in enumerate(rows):
            if valid is not None and not valid[i]:
                row[name] = None
            elif isinstance(values, Texts):
                row[name] = values.at(i)
            elif name is Field.SOURCE or name is Field.KIND:
                row[name] = (selected.sources if name is Field.SOURCE else selected.kinds)[values[i]]
            else:
                row[name] = values[i].tobytes() if name is Field.CHAIN_HASH else values[i].item()
    return rows


@given(questions(), aggregations)
@settings(max_examples=80)
def test_aggregates_are_those_of_a_plain_loop(asking: tuple[int, Question], aggregation: Aggregation) -> None:
    """Counts, names and windows equal, doubles to the bit, in this order."""
    shape, question = asking
    store, rows = made(shape)
    answer = HotQueries(store).aggregate(question, aggregation)
    found, expected = shown(answer), aggregate(rows, question, aggregation)
    assert [_exact(*group) for group in found] == [_exact(*group) for group in expected]
    assert answer.explain.rows_left_out == left_out(rows, question)


def _exact(start: int | None, name: bytes | None, group: Group) -> tuple[Any, ...]:
    functions = {function: bits(value) for function, value in group.functions.items()}
    percentiles = {percentile: bits(value) for percentile, value in group.percentiles.items()}
    doubt = group.near_edge, group.unknown
    return start, name, group.count, group.values, functions, percentiles, doubt, group.relative_error


@pytest.mark.parametrize("frame", [Frame.LOCAL, Frame.AUTHORITY])
@pytest.mark.parametrize("by", By)
def test_hours_are_summed_up_without_a_row(frame: Frame, by: By) -> None:
    """Of whatever chunks: no row is read, and the answer is that of all rows."""
    store = DictionaryStore({0: many_rows(0, 20_000, sources=[b"a", b"b"], rate_per_s=2.0)})
    hours = Aggregation(by, Window(60 * MINUTE_US))
    answer = HotQueries(store).aggregate(Question(frame), hours)
    assert (answer.explain.rows_scanned, answer.explain.columns, answer.explain.chunks_rows) == (0, {}, 0)
    assert answer.count.size >= 3
    by_rows = HotQueries(store).aggregate(Question(frame), hours, statistics=False)
    assert [_exact(*group) for group in shown(answer)] == [_exact(*group) for group in shown(by_rows)]


@pytest.mark.parametrize("frame", Frame)
def test_exact_percentiles_of_more_values_than_are_kept_are_read_twice(
    frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with windows, and beside sums; what came between the readings is in none."""
    monkeypatch.setattr("lifecycle.tally.SAMPLES_MAX", 1_200)
    store = DictionaryStore({p: odd_rows(p, 3_000, 7) for p in range(2)}, chunk_rows=64, unsealed=10)
    rows, question = all_rows(store), Question(frame)
    for by, window in ((By.KIND, None), (By.ALL, Window(DURATION_MAX_US))):
        aggregation = Aggregation(by, window, percentiles=(1_000, 50_000, 99_900), exact=True)
        answer = HotQueries(store).aggregate(question, aggregation)
        expected = aggregate(rows, question, aggregation)
        assert [_exact(*group) for group in shown(answer)] == [_exact(*group) for group in expected]
        once = HotQueries(store).aggregate(question, replace(aggregation, exact=False)).explain
        assert (once.readings, answer.explain.readings) == (1, 2)
        assert answer.explain.rows_scanned == 2 * once.rows_scanned
        assert answer.explain.chunks_rows == once.chunks_rows


@given(questions(), aggregations)
@settings(max_examples=30)
def test_what_answers_shows_nowhere_in_the_answer(asking: tuple[int, Question], aggregation: Aggregation) -> None:
    """The same bytes from statistics, from rows alone, with a memory for nothing, and asked again."""
    shape, question = asking
    store = made(shape)[0]
    queries, forgetful = HotQueries(store), HotQueries(store, header_bytes_max=0, column_bytes_max=0)
    answers = [
        queries.aggregate(question, aggregation),
        queries.aggregate(question, aggregation, statistics=False),
        queries.aggregate(question, aggregation),
        forgetful.aggregate(question, aggregation),
        forgetful.aggregate(question, aggregation),
    ]
    assert len({ipc_bytes(aggregates_table(answer)) for answer in answers}) == 1


@given(questions(), st.integers(1, 400), st.sets(st.sampled_from(FIELDS), min_size=1))
@settings(max_examples=50)
def test_rows_are_those_of_a_plain_loop(asking: tuple[int, Question], limit: int, fields: set[Field]) -> None:
    """The first of them, in the order across partitions, each field as it was stored; `more` says what is left."""
    shape, question = asking
    store, rows = made(shape)
    matching = [row for row in rows if asked(question, row)]
    found = HotQueries(store).range(question, tuple(sorted(fields)), limit)
    expected = [{name: row.fields[name] for name in fields} for row in matching[:limit]]
    assert [_comparable(row) for row in listed(found)] == [_comparable(row) for row in expected]
    assert found.more == (len(matching) > limit)


def _comparable(row: dict[Field, Any]) -> dict[Field, Any]:
    return {name: bits(value) if isinstance(value, float) else value for name, value in row.items()}


@given(st.integers(0, len(SHAPES) - 1), st.sampled_from(SOURCES), st.sampled_from(Frame), st.data())
@settings(max_examples=50)
def test_the_last_event_is_that_of_a_plain_loop(shape: int, source: bytes, frame: Frame, data: st.DataObject) -> None:
    """At or before an instant, in either frame, sealed or not."""
    store, rows = made(shape)
    times = sorted({at for row in rows if (at := time_us(row, frame)) is not None})
    near = st.builds(lambda at, by: at + by, st.sampled_from(times), st.sampled_from([0, 1, -1, 999, -MINUTE_US]))
    at_us = data.draw(st.one_of(st.none(), near, st.sampled_from([-(2**63), -(2**64), 2**64])))
    found = listed(HotQueries(store).get(source, at_us, frame))
    expected = last_event(rows, source, at_us, frame)
    assert [_comparable(row) for row in found] == ([] if expected is None else [_comparable(expected.fields)])


@pytest.mark.parametrize("frame", Frame)
def test_the_last_event_may_be_in_another_chunk_than_what_is_later_in_its_minute(frame: Frame) -> None:
    """At the instant of a row its minute holds later ones, beside older rows in the same chunk."""
    store, rows = made(0)
    queries = HotQueries(store)
    times = sorted({at for row in rows if (at := time_us(row, frame)) is not None})
    for at_us in times[::15]:
        found = listed(queries.get(b"s0", at_us, frame))
        expected = last_event(rows, b"s0", at_us, frame)
        assert [_comparable(row) for row in found] == ([] if expected is None else [_comparable(expected.fields)])


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("frame", Frame)
def test_before_all_time_there_is_no_event(shape: int, frame: Frame) -> None:
    """Not even of a source whose clock once said the first instant there is."""
    store, rows = made(shape)
    queries = HotQueries(store)
    for source in SOURCES:
        assert queries.get(source, -(2**63) - 1, frame).rows == 0
        first = last_event(rows, source, -(2**63), frame)
        assert queries.get(source, -(2**63), frame).rows == (first is not None)


@pytest.mark.parametrize("chunk_rows", [1, 16, 64, 8_192])
@pytest.mark.parametrize("unsealed", [0, 50])
def test_an_answer_does_not_depend_on_where_chunks_end(chunk_rows: int, unsealed: int) -> None:
    """Nor on what is in none yet."""
    partitions = {partition: odd_rows(partition, 200, 6) for partition in (0, 1)}
    question, aggregation = Question(sources=(b"s0", b"late")), Aggregation(By.SOURCE, WINDOWS[1])
    answers = [
        _answers(HotQueries(DictionaryStore(partitions, chunk_rows=rows, unsealed=last)), question, aggregation)
        for rows, last in ((32, 0), (chunk_rows, unsealed))
    ]
    assert answers[0] == answers[1]


def _answers(queries: HotQueries, question: Question, aggregation: Aggregation) -> list[bytes]:
    return [
        ipc_bytes(aggregates_table(queries.aggregate(question, aggregation))),
        ipc_bytes(rows_table(queries.range(question, FIELDS, 1_000))),
        ipc_bytes(rows_table(queries.get(b"s0"))),
    ]


def test_chunks_that_come_between_two_questions_are_seen() -> None:
    """And rows that are in a chunk by the time the headers are read count once."""
    partitions = {1: odd_rows(1, 200, 7)}
    grown = DictionaryStore(partitions, chunk_rows=16)
    growing = DictionaryStore(partitions, chunk_rows=16, unsealed=120)
    queries, question, aggregation = HotQueries(growing), Question(), Aggregation(By.SOURCE)
    before = queries.aggregate(question, aggregation)
    growing.seal(1, 40)
    growing.keep_unsealed(1, 120)
    assert growing.unsealed(1) is not None
    expected = ipc_bytes(aggregates_table(before))
    assert ipc_bytes(aggregates_table(queries.aggregate(question, aggregation))) == expected
    assert ipc_bytes(aggregates_table(HotQueries(grown).aggregate(question, aggregation))) == expected
    assert queries.aggregate(question, aggregation).explain.rows_unsealed == 40


# ------------------------------------------------------------------------------------------------------------- explain


def test_whole_minutes_read_no_rows_and_edges_read_only_theirs() -> None:
    """What a question costs is what it must cost."""
    names = [b"a", b"b"]
    store = DictionaryStore({0: many_rows(0, 60_000, sources=names, rate_per_s=100.0, spread_s=0.0)})
    queries, start = HotQueries(store), START_MS * 1_000
    explain = queries.aggregate(Question(Frame.AUTHORITY), Aggregation(window=WINDOWS[1])).explain
    assert (explain.chunks_statistics, explain.chunks_rows, explain.bytes_read) == (8, 0, 0)
    assert explain.headers_read == 8
    cut = Question(Frame.AUTHORITY, start + 90_000_000, start + 400_000_000)
    explain = queries.aggregate(cut, Aggregation()).explain
    assert (explain.chunks_skipped, explain.chunks_statistics, explain.chunks_edges) == (4, 2, 2)
    assert explain.columns == {"value": 2, "authority_ms": 2}
    assert explain.headers_read == 0
    explain = queries.aggregate(cut, Aggregation(functions=frozenset())).explain
    assert explain.bytes_read == 0
    assert explain.cached > 0


def test_a_question_over_more_than_is_kept_finds_most_of_what_is_kept_when_it_is_asked_again() -> None:
    """Order of last use would have given up each column before it was needed again."""
    store = DictionaryStore({0: many_rows(0, 5_000, sources=[b"a"])}, chunk_rows=512)
    queries = HotQueries(store, column_bytes_max=6 * 8 * 512)
    asked_ten_times = [
        queries.aggregate(Question(Frame.AUTHORITY), Aggregation(), statistics=False).explain for _ in range(10)
    ]
    read = [explain.columns["value"] for explain in asked_ten_times]
    assert read[0] == 10
    assert read[-1] <= 6
    assert all(explain.cached + number == 10 for explain, number in zip(asked_ten_times, read, strict=True))


def test_a_source_that_a_chunk_does_not_have_costs_nothing() -> None:
    """Its rows are not read, in whatever way the question is asked."""
    store = DictionaryStore({0: many_rows(0, 20_000, sources=[b"a"]), 1: many_rows(1, 20_000, sources=[b"b"])})
    queries = HotQueries(store)
    only = Question(Frame.AUTHORITY, START_MS * 1_000 + 1, None, sources=(b"b",))
    explain = queries.aggregate(only, Aggregation(percentiles=(50_000,))).explain
    assert explain.chunks_skipped == 3
    selected = queries.range(only, (Field.SEQUENCE,), 100_000)
    assert selected.explain.chunks_skipped == 3
    assert selected.rows == 19_999
    assert queries.get(b"c").rows == 0


def test_names_that_unsealed_rows_do_not_have_leave_them_unread() -> None:
    """Of every partition, whatever is asked."""
    partitions = {0: many_rows(0, 500, sources=[b"a"]), 1: many_rows(1, 500, sources=[b"b"])}
    queries = HotQueries(DictionaryStore(partitions, unsealed=300))
    only = Question(sources=(b"b",))
    assert queries.aggregate(only, Aggregation()).explain.rows_unsealed == 300
    assert queries.range(only, (Field.SEQUENCE,), 1_000).explain.rows_unsealed == 300
    assert queries.aggregate(Question(kinds=(b"no kind",)), Aggregation()).explain.rows_unsealed == 0


def test_whether_rows_have_values_is_read_only_where_some_have_none() -> None:
    """Statistics say it."""
    full, odd = DictionaryStore({0: many_rows(0, 500, sources=[b"a"])}), DictionaryStore({0: odd_rows(0, 500, 9)})
    columns = [HotQueries(store).range(Question(), (Field.VALUE,), 500).explain.columns for store in (full, odd)]
    assert [set(read) for read in columns] == [{"value"}, {"value", "has_value"}]


def test_a_limit_ends_the_reading() -> None:
    """Chunks that cannot hold one of the first rows are not opened."""
    store = DictionaryStore({p: many_rows(p, 50_000, sources=[b"a"]) for p in (0, 1)})
    selected = HotQueries(store).range(Question(sources=(b"a",)), (Field.SEQUENCE, Field.PARTITION), 10)
    assert selected.more
    assert selected.explain.rows_scanned <= 4 * 8_192


# -------------------------------------------------------------------------------------------------------------- refuse


def test_a_damaged_column_is_no_answer() -> None:
    """Nor is one that is not there; other questions are answered."""

    class Damaged(DictionaryStore):
        def section(self, partition: int, first_sequence: int, column: Column) -> bytes:
            section = bytearray(super().section(partition, first_sequence, column))
            section[len(section) // 2] ^= 1
            return bytes(section)

    queries = HotQueries(Damaged({0: odd_rows(0, 100, 8)}))
    assert queries.aggregate(Question(), Aggregation()).count[0] > 0
    with pytest.raises(ChunkDamagedError):
        queries.aggregate(Question(), Aggregation(percentiles=(50_000,)))


def test_what_cannot_be_asked_is_refused() -> None:
    """With what to do."""
    queries = HotQueries(DictionaryStore({0: odd_rows(0, 10, 9)}))
    with pytest.raises(BadInputError, match="not held here"):
        queries.aggregate(Question(partitions=(0, 7)), Aggregation())
    with pytest.raises(BadInputError, match="limit"):
        queries.range(Question(), FIELDS, 0)


def test_more_groups_than_an_answer_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has a bound, and the message says how to stay under it."""
    monkeypatch.setattr("lifecycle.tally.GROUPS_MAX", 300)
    queries = HotQueries(DictionaryStore({0: many_rows(0, 5_000, sources=[b"a"], rate_per_s=1.0)}))
    with pytest.raises(BadInputError, match="longer windows"):
        queries.aggregate(Question(), Aggregation(window=WINDOWS[4]))
    monkeypatch.setattr("lifecycle.tally.SAMPLES_MAX", 100)
    with pytest.raises(BadInputError, match="shorter range"):
        queries.aggregate(Question(), Aggregation(window=Window(MINUTE_US), percentiles=(50_000,)))


# --------------------------------------------------------------------------------------------------------------- arrow


def test_arrow_has_the_types_that_other_tools_expect() -> None:
    """Every field of a row, readable or not, and what is null where it is not."""
    store, rows = made(1)
    table = rows_table(HotQueries(store).range(Question(), FIELDS, 1_000))
    table.validate(full=True)
    assert table.schema.field("authority_timestamp").type == pa.timestamp("ms", tz="UTC")
    assert table.schema.field("local_timestamp").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("source").type == pa.dictionary(pa.int32(), pa.string())
    assert table.schema.field("chain_hash").type == pa.binary(32)
    names = ["event_id", "source", "severity", "cause", "offset_us", "bound_us", "fault", "payload", "value"]
    found = table.select(names).to_pylist()
    for row, one in zip(rows, found, strict=True):
        readable = row.fields[Field.FAULT] == Fault.NONE
        assert one["fault"] == Fault(row.fields[Field.FAULT]).name
        assert one["severity"] == (["GREEN", "YELLOW", "RED"][row.fields[Field.SEVERITY]] if readable else None)
        cause = Cause(row.fields[Field.CAUSE])
        assert one["cause"] == (None if cause is Cause.NONE else cause.name)
        assert (one["offset_us"], one["bound_us"]) == (row.fields[Field.OFFSET_US], row.fields[Field.BOUND_US])
        assert one["event_id"] == (row.fields[Field.EVENT_ID].decode() if readable else None)
        assert one["source"] == (row.fields[Field.SOURCE].decode() if readable else None)
        assert one["payload"] == row.fields[Field.PAYLOAD]
        assert (one["value"] is None) == (row.fields[Field.VALUE] is None)


@pytest.mark.parametrize("cause", [Cause.NONE, Cause.BACKLOG])
def test_a_table_has_causes_where_an_event_has_one(capsys: pytest.CaptureFixture[str], cause: Cause) -> None:
    """Else it has no such column, unless it was asked for."""
    made_of = many_rows(0, 3, sources=[b"s"])
    made_of.rows.cause[1] = cause
    queries = HotQueries(DictionaryStore({0: made_of}))
    command._print("/range", rows_table(queries.range(Question(), FIELDS, 9)), Form.TABLE)
    told = capsys.readouterr().out
    assert ("cause" in told, "BACKLOG" in told) == (cause is not Cause.NONE,) * 2
    command._print("/range", rows_table(queries.range(Question(), (Field.SEQUENCE, Field.CAUSE), 9)), Form.TABLE)
    assert "cause" in capsys.readouterr().out


def test_a_table_of_frame_corrected_has_its_time_and_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the local one; in other frames it has neither."""
    queries = HotQueries(DictionaryStore({0: many_rows(0, 3, sources=[b"s"])}))
    for frame in Frame:
        answer = queries.range(Question(frame), usual_fields(frame), 9)
        command._print("/range", rows_table(answer), Form.TABLE)
        told = capsys.readouterr().out
        assert ("corrected timestamp" in told, "bound us" in told) == (frame is Frame.CORRECTED,) * 2


def test_an_explanation_says_that_frame_corrected_has_no_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    """Of which the user might wonder."""
    explained = dataclasses.asdict(Explain(chunks_rows=3)) | {"answers": []}
    for corrected in (False, True):
        command._explain(explained, 1, corrected=corrected)
        assert ("statistics none in frame corrected" in capsys.readouterr().err) == corrected


def test_an_explanation_says_how_many_chunks_are_in_archives(capsys: pytest.CaptureFixture[str]) -> None:
    """Of those that were not skipped."""
    explained = dataclasses.asdict(Explain(chunks_edges=1, chunks_rows=3, chunks_archived=2)) | {"answers": []}
    command._explain(explained, 1, corrected=False)
    assert "1 in part from statistics, 3 by rows; 2 of these in archives\n" in capsys.readouterr().err


def test_aggregates_as_arrow_read_back_from_a_stream() -> None:
    """Columns in order, null where there is no value."""
    store = made(1)[0]
    queries = HotQueries(store)
    found = queries.aggregate(Question(kinds=(b"t",)), Aggregation(By.SOURCE, WINDOWS[1], percentiles=(99_900,)))
    table = pa.ipc.open_stream(ipc_bytes(aggregates_table(found))).read_all()
    table.validate(full=True)
    names = ["window_start", "window_end", "source", "count", "values", "sum", "min", "max", "mean", "p99.9"]
    assert table.column_names == [*names, "method", "relative_error"]
    assert table["sum"].null_count == int((found.values == 0).sum())
    nothing = aggregates_table(queries.aggregate(Question(sources=()), Aggregation()))
    assert nothing.to_pylist() == [{"count": 0, "values": 0, "sum": None, "min": None, "max": None, "mean": None}]
    assert rows_table(queries.range(Question(sources=()), FIELDS, 5)).num_rows == 0


# --------------------------------------------------------------------------------------------------------- interpreted


def fingerprint() -> str:
    """A digest of answers of all sorts; the subprocess below prints it."""
    digest = hashlib.sha256()
    store = DictionaryStore({p: odd_rows(p, 120, 10) for p in (0, 1)}, chunk_rows=32, unsealed=9)
    queries = HotQueries(store)
    at = START_MS * 1_000 + 3_700_000_000
    for question in (Question(), Question(Frame.AUTHORITY, at - 100_000_000, at + 222_222_222, kinds=(b"t", b"p"))):
        for window in WINDOWS[:4]:
            for answer in _answers(queries, question, Aggregation(By.SOURCE, window)):
                digest.update(answer)
    return digest.hexdigest()


def test_interpreted_kernels_give_the_same_answers() -> None:
    """With NUMBA_DISABLE_JIT=1 the same sources run as plain Python, where no integer wraps unseen."""
    assert (
        interpreted("tests.core.test_query", "fingerprint()", refused="error::RuntimeWarning") == fingerprint().encode()
    )
