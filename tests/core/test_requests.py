"""Questions as parameters: what is written is read, and what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.arrow import column_of
from lifecycle.planner import UNKNOWN, Aggregation, Field, Function, Question, Window
from lifecycle.reader import Reader
from lifecycle.requests import Aggregate, Get, Range, Request, encode, parse, parse_duration, path_of
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from streams.windows import By, Doubtful, Frame

instants = st.one_of(st.none(), st.integers(INT64_MIN + 1, INT64_MAX - 1))
names = st.one_of(st.none(), st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3).map(
    lambda texts: tuple(text.encode(errors="replace") for text in texts)))  # fmt: skip
partitions = st.one_of(st.none(), st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple))
fields = st.lists(st.sampled_from(Field), min_size=1, unique=True).map(tuple)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Any."""
    frame = draw(st.sampled_from(Frame))
    start, end = draw(instants), draw(instants)
    if start is not None and end is not None and start > end:
        start, end = end, start
    spans = st.tuples(st.integers(0, 9), st.integers(10, 10**6) | st.just(INT64_MAX))
    sequences = draw(st.dictionaries(st.integers(0, 9), spans, max_size=2))
    unknown = draw(st.sampled_from(UNKNOWN)) if frame is Frame.CORRECTED else Doubtful.AUTHORITY
    question = Question(frame, start, end, draw(names), draw(names), draw(partitions), sequences, unknown)
    sort = draw(st.integers(0, 2))
    if sort == 0:
        source = (draw(names) or (b"s",))[0]
        return Get(source, draw(instants), frame, draw(partitions), draw(fields))
    if sort == 1:
        return Range(question, draw(fields), draw(st.integers(1, 10**8)))
    window = draw(st.sampled_from([None, Window(60_000_000), Window(60_000_000, 70_000)]))
    functions = frozenset(draw(st.lists(st.sampled_from(Function), min_size=1)))
    percentiles = tuple(sorted(draw(st.sets(st.integers(1, 100_000), max_size=3))))
    exact = bool(percentiles) and draw(st.booleans())
    return Aggregate(question, Aggregation(draw(st.sampled_from(By)), window, functions, percentiles, exact))


@settings(max_examples=200, deadline=None)
@given(requests())
def test_what_is_written_is_read(request: Request) -> None:
    """Any question travels."""
    assert parse(path_of(request), encode(request), 0) == request


def test_times_beyond_64_bits_are_cut() -> None:
    """A range that has no end has none there either."""
    wide = Range(Question(from_us=-(2**70), to_us=2**70))
    assert parse("/range", encode(wide), 0) == replace(wide, question=Question())


def test_the_last_hour_is_up_to_now() -> None:
    """Half-open, as every range."""
    assert parse("/range", [("last", "999999999999d")], 10**15).question.from_us == -(2**63)  # type: ignore[union-attr]
    found = parse("/range", [("last", "1h")], 10**15)
    assert isinstance(found, Range)
    assert (found.question.from_us, found.question.to_us) == (10**15 - 3_600_000_000, 10**15)
    assert [parse_duration(text) for text in ("500ms", "90s", "2d")] == [500_000, 90_000_000, 172_800_000_000]


@pytest.mark.parametrize(
    ("path", "pairs", "says"),
    [
        ("/range", {"limit": "0"}, "limit: 0 is too little"),
        ("/range", {"limit": "100000001"}, "above 100000000"),
        ("/range", {"limit": "²"}, "no whole number"),
        ("/range", {"frame": "broker"}, "frame: 'broker' is none of local, authority, corrected"),
        ("/range", {"unknown": "exclude"}, "in frame corrected alone. Give that frame, too"),
        ("/aggregate", {"unknown": "side", "frame": "corrected"}, "Give authority or exclude"),
        ("/range", {"from": "5", "to": "4"}, "Swap them"),
        ("/range", {"last": "1y"}, "last: '1y' is no duration"),
        ("/range", {"last": "0s"}, "no duration"),
        ("/range", {"columns": "sequence,price"}, "columns: 'price' is none of partition"),
        ("/range", {"partition": "-1"}, "partition is '-1'"),
        ("/range", {"sequences": "0:5-4"}, "Swap them"),
        ("/get", {"source": "s", "limit": "5"}, "unknown parameter 'limit'"),
        ("/get", {"source": "s", "at": "soon"}, "at: 'soon' is not an instant"),
        ("/aggregate", {"percentiles": "50", "exact": "yes"}, "exact: 'yes' is neither. Give 0 or 1"),
        ("/aggregate", {"exact": "1"}, "exact is of percentiles, and there are none"),
        ("/aggregate", {"percentiles": "50,many"}, "percentiles: 'many' is no percentile"),
        ("/aggregate", {"percentiles": "0.0001"}, "three decimals"),
        ("/aggregate", {"percentiles": "1,2,3,4,5,6,7,8,9"}, "9 percentiles are asked for. List up to 8"),
        ("/aggregate", {"percentiles": "NaN"}, "no percentile"),
        ("/aggregate", {"percentiles": "1e999999999"}, "percentiles: '1e999999999' is no percentile"),
        ("/aggregate", {"percentiles": "inf"}, "not above 0 and up to 100"),
        ("/get", {"source": "\udcff"}, "source '\\udcff' is not UTF-8"),
        ("/range", {"kind": "\udcff"}, "kind '\\udcff' is not UTF-8"),
        ("/aggregate", {"window_ms": "1000", "slide_ms": "2000"}, "the slide is not longer than the size"),
        ("/aggregate", {"functions": "median"}, "functions: 'median' is none of sum"),
    ],
)
def test_what_is_wrong_is_named(path: str, pairs: dict[str, str], says: str) -> None:
    """With what to give."""
    with pytest.raises(BadInputError) as refused:
        parse(path, pairs.items(), 0)
    assert says in str(refused.value)


@pytest.mark.parametrize("field", Field)
def test_a_column_has_the_name_that_answers_have_for_it(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that of its field, in URLs and in Python; under both it is one column."""
    monkeypatch.setattr(Reader, "ask", lambda _self, request: request)
    names = [column_of(field).name, field.value]
    for asked in ([names[0]], [names[1]], names):
        request = parse("/range", [("columns", ",".join(asked))], 0)
        assert isinstance(request, Range)
        assert request.fields == (field,)
        found: Any = Reader("127.0.0.1:1").temporal_range_query(columns=asked)
        assert found.fields == (field,)


def test_columns_that_there_are_not_are_told_by_the_names_of_answers() -> None:
    """Those that one sees."""
    says = "'local_ms' is none of partition.* local_timestamp,"
    with pytest.raises(BadInputError, match=says):
        parse("/get", [("source", "s"), ("columns", "local_ms")], 0)
    with pytest.raises(BadInputError, match=says):
        Reader("127.0.0.1:1").temporal_get("s", columns=["local_ms"])


def test_a_count_may_be_asked_for_by_name() -> None:
    """As in the functions of a window; it is always told."""
    asked = [parse("/aggregate", [("functions", text)], 0) for text in ("count,mean", "mean", "count", "")]
    assert asked[0] == asked[1]
    assert [request.aggregation.functions for request in asked[2:]] == [frozenset()] * 2  # type: ignore[union-attr]


def test_what_may_be_given_once_is_refused_twice() -> None:
    """Whichever was meant."""
    pairs: list[Any] = [("limit", "1"), ("limit", "2")]
    with pytest.raises(BadInputError, match="limit is given 2 times"):
        parse("/range", pairs, 0)
    with pytest.raises(BadInputError, match="twice"):
        parse("/range", [("sequences", "0:1-2"), ("sequences", "0:5-6")], 0)
