"""Rows of an Arrow stream: what becomes an event, what is rejected, and which streams are none."""

from __future__ import annotations

import base64
import contextlib
import io
import math
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadInputError
from streams.arrow_events import open_table, read_table, text_bytes
from streams.publish import Accepted, Format, Rejected, read

CAUSE = pa.struct([("partition", pa.int32()), ("sequence", pa.int64())])


def stream(table: pa.Table) -> bytes:
    """The table as it is sent."""
    target = io.BytesIO()
    with pa.ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return target.getvalue()


def rows(table: pa.Table) -> list[Accepted | Rejected]:
    """What is read of it."""
    return list(read_table(open_table(stream(table)), {"kind": "k"}))


def events(table: pa.Table) -> list[dict[str, Any]]:
    """Of rows that are all events."""
    found = rows(table)
    assert not [row for row in found if isinstance(row, Rejected)], found
    return [row.event for row in found if isinstance(row, Accepted)]


def test_columns_become_the_fields_of_events() -> None:
    """Nulls and columns that are not there are absent members."""
    first, second = events(
        pa.table(
            {
                "source": ["a", "b"],
                "event_id": ["1", None],
                "local_timestamp": pa.array([5, None], pa.int64()),
                "value": [1.5, None],
                "payload": ["text", None],
                "hlc": pa.array([7, None], pa.int32()),
                "causes": pa.array([[{"partition": 1, "sequence": 2}], None], pa.list_(CAUSE)),
            }
        )
    )
    assert first == {
        "event_id": "1",
        "source": "a",
        "local_timestamp": 5,
        "kind": "k",
        "value": 1.5,
        "payload": b"text",
        "hlc": 7,
        "causes": [{"partition": 1, "sequence": 2}],
        "exchange": None,
    }
    assert (second["source"], second["event_id"], second["local_timestamp"]) == ("b", None, None)
    assert (second["value"], second["payload"], second["hlc"], second["causes"]) == (None, b"", None, [])


def test_values_may_be_any_numbers_and_payloads_bytes() -> None:
    """Also those that JSON cannot spell."""
    table = pa.table(
        {"source": ["s"] * 4, "value": [math.nan, math.inf, -math.inf, 2.0], "payload": [b"\xff", b"", None, b"a"]}
    )
    found = events(table)
    assert math.isnan(found[0]["value"])
    assert [event["value"] for event in found[1:]] == [math.inf, -math.inf, 2.0]
    assert [event["payload"] for event in found] == [b"\xff", b"", b"", b"a"]
    integers = pa.table({"source": ["s"], "value": pa.array([3], pa.uint8())})
    assert events(integers)[0]["value"] == 3.0


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_an_instant_may_be_a_timestamp_of_any_unit(unit: str) -> None:
    """In its time zone; what is finer than a microsecond is rounded down."""
    instants = [datetime(2026, 1, 31, 12, tzinfo=UTC), None, datetime(1969, 12, 31, tzinfo=UTC)]
    table = pa.table({"source": ["s"] * 3, "local_timestamp": pa.array(instants, pa.timestamp(unit, "UTC"))})
    assert [event["local_timestamp"] for event in events(table)] == [1_769_860_800_000_000, None, -86_400_000_000]
    before = pa.table({"source": ["s"], "local_timestamp": pa.array([-1], pa.timestamp("ns", "UTC"))})
    assert events(before)[0]["local_timestamp"] == -1


def test_texts_may_be_dictionaries_and_instants_text() -> None:
    """As files of Parquet and of spreadsheets give them."""
    table = pa.table(
        {"source": pa.array(["a", "b", "a"]).dictionary_encode(), "local_timestamp": ["1970-01-01T00:00:01Z"] * 3}
    )
    assert [event["source"] for event in events(table)] == ["a", "b", "a"]
    assert {event["local_timestamp"] for event in events(table)} == {1_000_000}


def test_the_texts_of_dictionaries_count_for_each_row() -> None:
    """A short stream can hold a long table."""
    once = pa.array(["x" * 1_000] * 500)
    assert text_bytes(pa.table({"source": once.dictionary_encode()})) == 500_000
    assert text_bytes(pa.table({"source": once})) == 0


def test_a_column_of_nulls_is_one_that_is_not_there() -> None:
    """Its type says nothing, as that of an empty column of a data frame."""
    (found,) = events(
        pa.table({"source": ["s"], "event_id": [None], "value": [None], "payload": [None], "causes": [None]})
    )
    assert (found["event_id"], found["value"], found["payload"], found["causes"]) == (None, None, b"", [])


def test_a_bad_row_costs_only_itself() -> None:
    """It is named by its number, in the words that a bad line is refused with."""
    found = rows(pa.table({"source": ["a", "", None, "b"], "value": [1, 2, 3, 4]}))
    assert [(row.number, row.reason) for row in found if isinstance(row, Rejected)] == [
        (2, "source has 0 bytes; 1 to 256 are allowed"),
        (3, "source is missing"),
    ]
    assert [row.number for row in found if isinstance(row, Accepted)] == [1, 4]


def test_numbers_go_on_over_many_rows() -> None:
    """Rows are taken in parts."""
    found = rows(pa.table({"source": ["s"] * 2_500}))
    assert [row.number for row in found] == list(range(1, 2_501))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("colour", ["red"], "column 'colour' is unknown"),
        ("source", [1], "column source is int64, it must be text"),
        ("value", ["1"], "column value is string, it must be a number"),
        ("local_timestamp", [datetime(2026, 1, 1)], "it must be a timestamp with a time zone"),  # noqa: DTZ001 - without
        ("local_timestamp", pa.array([2**62], pa.timestamp("s", "UTC")), "outside the microseconds of 64 bits"),
        ("causes", [["x"]], "it must be a list of struct of integers"),
        ("exchange", [1], "it must be a struct of integers"),
        ("payload", [[1]], "it must be text or binary"),
    ],
)
def test_a_column_that_no_event_has_is_refused_as_a_whole(column: str, values: Any, said: str) -> None:
    """Before anything is taken, naming it and what it should be."""
    with pytest.raises(BadInputError, match=said.replace("(", r"\(")):
        rows(pa.table({column: values}))


def test_a_column_that_is_there_twice_is_refused() -> None:
    """Under one name, or as payload and payload_base64."""
    with pytest.raises(BadInputError, match="column source is there twice"):
        rows(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["source", "source"]))
    with pytest.raises(BadInputError, match="payload_base64 too"):
        rows(pa.table({"payload": [b"a"], "payload_base64": ["YQ=="]}))


def test_a_stream_with_a_flipped_byte_is_read_or_refused() -> None:
    """Whichever byte it is, and whatever Arrow makes of it: nothing else is raised."""
    table = pa.table({"source": pa.array(["a", "b"]).dictionary_encode(), "value": [1.0, None], "hlc": [1, 2]})
    content = stream(table)
    for at in range(len(content)):
        for number in (0x00, 0xFF, 0x80):
            damaged = content[:at] + bytes([number]) + content[at + 1 :]
            with contextlib.suppress(BadInputError):
                list(read_table(open_table(damaged), {"kind": "k"}))


def test_rows_without_a_column_are_refused() -> None:
    """An Arrow stream can count rows that hold nothing."""
    sink = pa.BufferOutputStream()
    nothing = pa.table({"value": [1.0, 2.0]}).select([])
    with pa.ipc.new_stream(sink, nothing.schema) as stream:
        stream.write_table(nothing)
    with pytest.raises(BadInputError, match="has rows and no column"):
        open_table(sink.getvalue())


def test_what_is_no_stream_is_refused() -> None:
    """Nothing, noise, and a stream that ends early."""
    whole = stream(pa.table({"source": ["s"] * 10}))
    for body in (b"", b"noise", whole[: len(whole) // 2]):
        with pytest.raises(BadInputError, match="the body is not an Arrow stream"):
            open_table(body)


TEXT = st.one_of(st.none(), st.text(max_size=5), st.just("x" * 300))
INT64 = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
ROWS = st.lists(
    st.tuples(
        TEXT, TEXT, TEXT, INT64, st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.binary(max_size=5)), INT64
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=100)
@given(data=ROWS, defaults=st.sampled_from([{}, {"kind": "k"}, {"kind": "k", "source": "s"}, {"source": "y" * 300}]))
def test_columns_say_what_their_rows_would(data: list[Any], defaults: dict[str, str]) -> None:
    """The same events, the same rejections, as when each row is made a line and read."""
    names = ("event_id", "source", "kind", "local_timestamp", "value", "payload", "hlc")
    types = (pa.string(), pa.string(), pa.large_string(), pa.int64(), pa.float64(), pa.binary(), pa.int64())
    columns = [pa.array(values, found) for values, found in zip(zip(*data, strict=True), types, strict=True)]
    table = pa.table(dict(zip(names, columns, strict=True)))
    documents = []
    for row in table.to_pylist():
        value, payload = row["value"], row.pop("payload")
        if value is not None and not math.isfinite(value):
            row["value"] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        if payload is not None:
            row["payload_base64"] = base64.b64encode(payload).decode()
        documents.append(orjson.dumps(row))
    expected = list(read(io.BytesIO(b"\n".join(documents)), Format.JSONL, defaults))
    found = list(read_table(table, defaults))
    assert repr(found) == repr(expected)
