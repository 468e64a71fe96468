"""Results as records, against a dict and json.dumps for each."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.memory import address_of
from streams import results as results_module
from streams.json_text import PIECE_BYTES
from streams.quantiles import RELATIVE_ERROR
from streams.results import FLOAT_COLUMNS, INT_COLUMNS, Encoded, Layout, Method, Results, encode_results
from streams.windows import Frame, Function, WindowDefinition, percentile_text
from tests.core.interpreted import interpreted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "schemas" / "aggregate.v1.avsc").read_bytes())
GUARD = 0xA5
VERSION, PARTITION = 17, 3
#: The largest int64 and the longest texts of numbers.
INT_MIN, LONGEST = -(2**63), -2.2250738585072014e-308


@dataclass(frozen=True, slots=True)
class Row:
    """One result, plainly. numbers: sum, min, max, mean, variance, first, last; percentiles behind them."""

    key: bytes | None
    start_us: int
    end_us: int
    revision: int
    final: bool
    at_index: int
    count: int
    values: int
    near_edge: int
    method: Method
    numbers: tuple[float, ...]


def columns(rows: Sequence[Row], definition: WindowDefinition) -> tuple[Results, NDArray[np.uint8]]:
    """The rows as the kernel takes them, and the memory that they point into."""
    arena = np.frombuffer(b"".join(row.key or b"" for row in rows) + b"\0", np.uint8)
    at = address_of(arena)
    ints = np.empty((len(rows), INT_COLUMNS), np.int64)
    floats = np.empty((len(rows), FLOAT_COLUMNS + len(definition.percentiles)), np.float64)
    for place, row in enumerate(rows):
        length = -1 if row.key is None else len(row.key)
        ints[place] = (
            at, length, row.start_us, row.end_us, row.revision, row.final, row.at_index, row.count, row.values,
            row.method, row.near_edge,
        )  # fmt: skip
        floats[place] = row.numbers[: floats.shape[1]]
        at += max(length, 0)
    return Results(ints, floats), arena


def plain_value(definition: WindowDefinition, row: Row) -> dict[str, Any]:
    """The record as a dict: fields of the schema, in its order."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    names = ("sum", "min", "max", "mean", "variance", "first", "last")
    value: dict[str, Any] = {
        "definition": definition.name, "version": VERSION, "partition": PARTITION, "frame": str(definition.frame),
        "key": None if row.key is None else row.key.decode(), "window_start_us": row.start_us,
        "window_end_us": row.end_us, "revision": row.revision, "final": row.final, "at_index": row.at_index,
        "count": row.count, "values": row.values,
    }  # fmt: skip
    if definition.frame is Frame.CORRECTED:
        value["near_edge"] = row.near_edge
    value |= {
        name: number(found) for name, found in zip(names, row.numbers, strict=False) if name in definition.functions
    }
    if definition.percentiles:
        found = row.numbers[len(names) :]
        value["percentiles"] = {
            percentile_text(percentile): number(found[place]) for place, percentile in enumerate(definition.percentiles)
        }
        value["method"] = row.method.name.lower()
        value["relative_error"] = [0, RELATIVE_ERROR, None][row.method]
    return value


def plain_record(definition: WindowDefinition, row: Row) -> tuple[bytes, bytes]:
    """Key and value, by json.dumps."""
    value = json.dumps(plain_value(definition, row), ensure_ascii=False, separators=(",", ":"))
    return f"{definition.name}/{row.start_us}/".encode() + (row.key or b""), value.encode()


def cut(encoded: Encoded) -> list[tuple[bytes, bytes]]:
    """Keys and values as bytes."""
    memory, *places = encoded
    return [
        (memory[key : key + key_length].tobytes(), memory[value : value + value_length].tobytes())
        for key, key_length, value, value_length in zip(*(place.tolist() for place in places), strict=True)
    ]


def encoded_rows(definition: WindowDefinition, rows: Sequence[Row]) -> list[tuple[bytes, bytes]]:
    """Through the kernel."""
    results, _arena = columns(rows, definition)
    return cut(encode_results(Layout(definition, VERSION, PARTITION), results, len(rows)))


int64 = st.integers(-(2**63), 2**63 - 1)
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).map(str.encode)
row_strategy = st.builds(
    Row,
    key=st.none() | keys | st.text('\0\x1f\x7f"\\/\b\f\n\r\t é€😀', min_size=1).map(str.encode),
    start_us=int64, end_us=int64, revision=int64, final=st.booleans(), at_index=int64, count=int64, values=int64,
    near_edge=int64, method=st.sampled_from(Method),
    numbers=st.tuples(*[st.floats()] * (FLOAT_COLUMNS + 8)),
)  # fmt: skip
definition_strategy = st.builds(
    WindowDefinition,
    name=st.from_regex("[a-z0-9_]{1,64}", fullmatch=True),
    size_us=st.just(10_000_000),
    frame=st.sampled_from(Frame),
    functions=st.lists(st.sampled_from(Function), min_size=1, unique=True).map(tuple),
    percentiles=st.lists(st.integers(1, 100_000), unique=True, max_size=8).map(tuple),
)


def usual_row(**changed: Any) -> Row:
    """A result as it mostly is."""
    fields: dict[str, Any] = {
        "key": b"pump", "start_us": 1_763_720_990_000_000, "end_us": 1_763_721_000_000_000, "revision": 1,
        "final": True, "at_index": 5_099_999, "count": 24, "values": 23, "near_edge": 3, "method": Method.EXACT,
        "numbers": (1747.31, 7.52, 99.88, 75.97, 12.5, 8.0, 9.0, 53.2, 99.88, *[0.5] * 6),
    }  # fmt: skip
    return Row(**{**fields, **changed})


def worst_rows() -> list[Row]:
    """The longest texts there are: every byte of the key is six, every number as long as can be."""
    numbers = (LONGEST,) * (FLOAT_COLUMNS + 8)
    return [
        Row(b"\x01" * 256, INT_MIN, INT_MIN, INT_MIN, final, INT_MIN, INT_MIN, INT_MIN, INT_MIN, method, numbers)
        for final in (False, True)
        for method in Method
    ]


WORST = WindowDefinition(
    "w" * 64, 10_000_000, frame=Frame.AUTHORITY, functions=tuple(Function),
    percentiles=tuple(range(99_991, 99_999)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(definition_strategy, st.lists(row_strategy, max_size=6))
def test_records_are_what_json_writes_of_a_dict(definition: WindowDefinition, rows: list[Row]) -> None:
    """To the byte, so readers find the very same numbers and text."""
    expected = [plain_record(definition, row) for row in rows]
    found = encoded_rows(definition, rows)
    assert found == expected
    for row, (_key, value) in zip(rows, found, strict=True):
        assert repr(json.loads(value)) == repr(plain_value(definition, row))


@given(keys)
@settings(max_examples=300, deadline=None)
def test_any_key_comes_back_as_it_was(key: bytes) -> None:
    """UTF-8 stands as it is; quotes, backslashes and control characters are escaped in the value, not in the key."""
    ((record_key, value),) = encoded_rows(WindowDefinition("d", 1_000), [usual_row(key=key)])
    assert json.loads(value)["key"].encode() == key
    assert record_key == b"d/1763720990000000/" + key


def test_every_character_of_one_byte_is_escaped_as_json_does() -> None:
    """All 128, one by one and together."""
    characters = [bytes([byte]) for byte in range(128)]
    rows = [usual_row(key=key) for key in [*characters, b"".join(characters)]]
    definition = WindowDefinition("d", 1_000)
    assert encoded_rows(definition, rows) == [plain_record(definition, row) for row in rows]


def test_a_record_is_pinned() -> None:
    """What a tool sees."""
    ((key, value),) = encoded_rows(WindowDefinition("source_10s", 10_000_000), [usual_row()])
    assert key == b"source_10s/1763720990000000/pump"
    assert value == (
        b'{"definition":"source_10s","version":17,"partition":3,"frame":"local","key":"pump",'
        b'"window_start_us":1763720990000000,"window_end_us":1763721000000000,"revision":1,"final":true,'
        b'"at_index":5099999,"count":24,"values":23,"sum":1747.31,"min":7.52,"max":99.88,"mean":75.97,'
        b'"percentiles":{"50":53.2,"99":99.88},"method":"exact","relative_error":0}'
    )


def test_what_is_not_a_number_is_null_and_what_is_not_asked_for_is_absent() -> None:
    """A window of all, without finite values, of which only the last is asked."""
    definition = WindowDefinition("d", 1_000, functions=(Function.LAST,), percentiles=())
    row = usual_row(key=None, numbers=(math.nan, math.inf, -math.inf, 0.0, 0.0, 0.0, math.nan))
    ((key, value),) = encoded_rows(definition, [row])
    assert key == b"d/1763720990000000/"
    found = json.loads(value)
    assert found["key"] is found["last"] is None
    assert list(found)[-3:] == ["count", "values", "last"]


def test_the_method_says_how_far_percentiles_can_be_off() -> None:
    """Exactly, within the sketch's error, or there are none."""
    rows = [usual_row(method=method) for method in Method]
    ends = [json.loads(value) for _key, value in encoded_rows(WindowDefinition("d", 1_000), rows)]
    assert [(end["method"], end["relative_error"]) for end in ends] == [
        ("exact", 0), ("ddsketch", 0.01), ("none", None),
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(definition_strategy, row_strategy)
def test_a_value_is_a_record_of_the_schema(definition: WindowDefinition, row: Row) -> None:
    """Its fields in the schema's order; those that may be absent have a default there."""
    ((_key, value),) = encoded_rows(definition, [row])
    found = json.loads(value)
    names = [field["name"] for field in SCHEMA["fields"]]
    assert list(found) == [name for name in names if name in found]
    defaults = {field["name"]: field["default"] for field in SCHEMA["fields"] if "default" in field}
    assert fastavro.validate({**defaults, **found}, fastavro.parse_schema(SCHEMA), strict=True)


@pytest.mark.parametrize(
    "definition", [WORST, WindowDefinition("d", 1_000), WindowDefinition("d", 1_000, percentiles=())]
)
def test_nothing_is_written_outside_the_room_that_was_bounded(definition: WindowDefinition) -> None:
    """The longest rows there are, between guards."""
    for rows in (worst_rows(), [usual_row(key=None)], [usual_row(numbers=(math.nan,) * 15)], []):
        results, _arena = columns(rows, definition)
        layout = Layout(definition, INT_MIN, -(2**31))
        room = results_module._room(layout, results, len(rows))
        memory = np.full(room + 128, GUARD, np.uint8)
        places = np.empty((4, len(rows)), np.int64)
        results_module._encode(layout.pieces, *results, len(rows), address_of(memory) + 64, places)
        assert (memory[:64] == GUARD).all()
        assert (memory[-64:] == GUARD).all()
        assert int((places[2] + places[3]).max(initial=0)) <= room - PIECE_BYTES


def test_every_piece_fits_its_place() -> None:
    """Pieces between numbers are copied whole, so none may be longer."""
    assert Layout(WORST, 1, 0).pieces.lengths.max() <= PIECE_BYTES


def test_only_the_first_results_are_encoded() -> None:
    """Arrays may be larger than what they hold, and a batch may be encoded in parts."""
    definition = WindowDefinition("d", 1_000)
    rows = [usual_row(revision=number) for number in range(1, 6)]
    results, _arena = columns(rows, definition)
    layout = Layout(definition, VERSION, PARTITION)
    assert cut(encode_results(layout, results, 2)) == [plain_record(definition, row) for row in rows[:2]]
    assert cut(encode_results(layout, results, 0)) == []
    rest = Results(results.ints[2:], results.floats[2:])
    assert cut(encode_results(layout, rest, 3)) == [plain_record(definition, row) for row in rows[2:]]


def test_columns_of_another_shape_are_refused() -> None:
    """The kernel reads without asking."""
    definition = WindowDefinition("d", 1_000)
    layout = Layout(definition, VERSION, PARTITION)
    (ints, floats), _arena = columns([usual_row()], definition)
    for wrong, count in (
        (Results(ints[:, :-1], floats), 1),
        (Results(ints, floats[:, :-1]), 1),
        (Results(ints, floats), 2),
        (Results(ints, floats[:0]), 1),
        (Results(ints, floats), -1),
    ):
        with pytest.raises(ValueError, match="there must be 11 integers and 9 floats"):
            encode_results(layout, wrong, count)


def dump() -> bytes:
    """Records of seeded rows, to compare two processes."""
    rng = random.Random(5)
    rows = [
        usual_row(
            key=rng.choice([None, "schlüssel\n".encode(), rng.randbytes(3).hex().encode()]),
            at_index=rng.getrandbits(rng.randint(1, 62)),
            numbers=tuple(rng.choice([round(rng.gauss(50, 9), 2), rng.gauss(0, 1e9), math.nan]) for _ in range(15)),
        )
        for _ in range(50)
    ]
    return b"\n".join(b" ".join(record) for record in encoded_rows(WORST, rows + worst_rows()))


def test_kernels_write_the_same_bytes_interpreted() -> None:
    """NUMBA_DISABLE_JIT=1 in a process of its own."""
    assert interpreted("tests.core.test_results", "dump()") == dump()
