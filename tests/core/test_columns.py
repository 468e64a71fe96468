"""The column decoders against fastavro, against themselves interpreted, and against memory that may not be read."""

from __future__ import annotations

import ctypes
import io
import json
import mmap
import random
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import EntryKind, ValueState, canonical_headers
from schemas.codec import DecodeError, Framing, decode, encode, single_object_prefix
from schemas.columns import (
    Entries,
    Fault,
    Scratch,
    allocate_entries,
    allocate_events,
    decode_entries,
    decode_events,
    slice_rows,
)
from schemas.memory import JIT, address_of, bytes_at
from tests.core import event_generator as make
from tests.core.interpreted import interpreted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Without logical types: fastavro makes datetimes of those, which end at the year 9999.
EVENT_SCHEMA = fastavro.parse_schema(
    json.loads(
        (Path(__file__).resolve().parents[2] / "schemas" / "event.v1.avsc").read_text(encoding="utf-8"),
        object_hook=lambda part: {key: value for key, value in part.items() if key != "logicalType"},
    )
)
#: So many at a time; the long forms take a million, or a little more.
WHOLE, SPOILT, ENTRIES, SPOILT_ENTRIES = (3_000, 24_000, 2_000, 4_000) if JIT else (600, 6_000, 400, 800)
MILLION = 1_000_000
#: What plain fastavro accepts and we refuse: numbers beyond their width, negative lengths and branches, our limits.
STRICTER = {Fault.BAD_VARINT, Fault.BAD_LENGTH, Fault.BAD_UNION, Fault.LIMIT_EXCEEDED, Fault.SOURCE_LENGTH}
PAGE = mmap.PAGESIZE


@pytest.fixture(scope="module", autouse=True)
def seed() -> int:
    """The seed of this run; shown with any failure."""
    sys.stdout.write(f"DRIFTLEDGER_TEST_SEED={make.SEED} repeats this run\n")
    return make.SEED


def lots_of(size: int) -> pytest.MarkDecorator:
    """One lot of that size; in the long form as many as make a million."""
    long = pytest.param(-(-MILLION // size), marks=pytest.mark.soak)
    return pytest.mark.parametrize("lots", [1, long])


def bits(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its value as bits, so that NaN equals NaN and 0.0 does not equal -0.0."""
    return {**event, "value": None if event["value"] is None else struct.pack("<d", event["value"])}


def reference(value: bytes) -> tuple[Fault, dict[str, Any]]:
    """What the general path says: the shape check, then fastavro."""
    try:
        return Fault.NONE, decode("Event", value)
    except DecodeError as error:
        return error.fault, {}


def plain_fastavro(value: bytes) -> dict[str, Any] | None:
    """What fastavro says alone: None where it raises or leaves bytes behind."""
    source = io.BytesIO(value[10:])
    try:
        event = fastavro.schemaless_reader(source, EVENT_SCHEMA, None)
    except (EOFError, ValueError, IndexError, struct.error, OverflowError, MemoryError):
        return None
    return cast("dict[str, Any]", event) if not source.read(1) else None


def decode_all(values: list[bytes]) -> tuple[Any, Any]:
    """Columns of the values, and what must stay alive."""
    entries, buffer = make.entries_of(values)
    columns = allocate_events(len(values))
    assert decode_events(entries, columns, Framing.SINGLE_OBJECT) is None
    return columns, buffer


@lots_of(WHOLE)
def test_whole_events_come_back_as_they_were_written(seed: int, lots: int) -> None:
    """Every field of every generated event, in blocks of both kinds, through one kernel call."""
    rng = random.Random(seed)
    for _ in range(lots):
        events = [make.random_event(rng) for _ in range(WHOLE)]
        columns, _keep = decode_all([make.event_value(rng, event) for event in events])
        for row, event in enumerate(events):
            assert columns.fault[row] == Fault.NONE
            assert bits(make.event_at(row, columns)) == bits(event)


@lots_of(SPOILT)
def test_spoilt_events_get_the_verdict_of_the_general_path(seed: int, lots: int) -> None:
    """Same fault or same values as shape check and fastavro; and plain fastavro accepts nothing else than is listed."""
    rng = random.Random(seed + 1)
    bodies = {*STRICTER, Fault.NONE, Fault.TRUNCATED, Fault.TRAILING_BYTES, Fault.BAD_UTF8, Fault.WRONG_FINGERPRINT}
    for _ in range(lots):
        assert bodies <= check_spoilt(rng), "the generator no longer reaches every fault"


def check_spoilt(rng: random.Random) -> set[Fault]:
    """One lot of them; which faults were seen."""
    values = [make.mutate(rng, make.event_value(rng, make.random_event(rng))) for _ in range(SPOILT)]
    columns, _keep = decode_all(values)
    for row, value in enumerate(values):
        fault, event = reference(value)
        assert Fault(columns.fault[row]) == fault, value.hex()
        if fault == Fault.NONE:
            assert bits(make.event_at(row, columns)) == bits(event), value.hex()
        plain = plain_fastavro(value) if value[:10] == single_object_prefix("Event") else None
        if fault == Fault.NONE or plain is not None:
            assert fault in {Fault.NONE, *STRICTER}, value.hex()
            assert plain is not None
    return set(make.count_faults(columns))


def test_noise_behind_a_valid_prefix_is_judged_alike_and_harms_nothing(seed: int) -> None:
    """Random bytes, some in the range of short varints so that the walk gets far."""
    rng = random.Random(seed + 2)
    prefix = single_object_prefix("Event")
    values = [rng.randbytes(rng.randint(1, 60)) for _ in range(2_000)]
    values += [prefix + rng.randbytes(rng.randint(0, 80)) for _ in range(2_000)]
    values += [prefix + bytes(rng.choices(range(12), k=rng.randint(0, 80))) for _ in range(4_000)]
    columns, _keep = decode_all(values)
    assert [Fault(fault) for fault in columns.fault] == [reference(value)[0] for value in values]


@pytest.fixture
def against_the_wall() -> Iterator[Callable[[bytes], int]]:
    """Places bytes so that the first one after them lies on a page that kills whoever reads it."""
    area = mmap.mmap(-1, 4 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(start + 3 * PAGE, PAGE, 0) == 0

    def place(value: bytes) -> int:
        address = start + 3 * PAGE - len(value)
        ctypes.memmove(address, value, len(value))
        return address

    yield place
    assert protect(start + 3 * PAGE, PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def test_no_byte_behind_a_value_is_read(seed: int, against_the_wall: Callable[[bytes], int]) -> None:
    """Each value ends where readable memory ends: a read too far would end the process."""
    rng = random.Random(seed + 3)
    entries, columns, scratch = allocate_entries(1), allocate_events(1), Scratch()
    null = np.full(1, -1)
    for _ in range(1_500):
        value = make.event_value(rng, make.random_event(rng))
        cut = value[: rng.randint(1, len(value))] if rng.random() < 0.6 else make.mutate(rng, value)
        entries.kind[0] = entries.value_state[0] = 0
        entries.value_address[0], entries.value_length[0] = against_the_wall(cut), len(cut)
        decode_events(entries, columns, Framing.SINGLE_OBJECT)
        record = make.entry_value(rng, make.random_entry(rng, value[:100]))
        record = make.mutate(rng, record) if rng.random() < 0.5 else record
        decode_entries(np.array([against_the_wall(record)]), np.array([len(record)]), null, null, entries, scratch)


def spoil(event: dict[str, Any], **change: Any) -> bytes:
    """An event's bytes with a field that encode would refuse."""
    return make.event_value(random.Random(0), {**event, **change})


EVENT: dict[str, Any] = {
    "event_id": "e", "source": "s", "local_timestamp": 1, "kind": "k", "value": None, "payload": b"", "hlc": None,
    "causes": [], "exchange": None,
}  # fmt: skip
GOOD = spoil(EVENT)
BODY = len(single_object_prefix("Event"))
CAUSE = {"partition": 0, "sequence": 0}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (GOOD, Fault.NONE),
        (b"", Fault.EMPTY),
        (b"{", Fault.UNKNOWN_FRAMING),
        (b"\xc3", Fault.TRUNCATED),
        (b"\xc3\x02" + GOOD[2:], Fault.UNKNOWN_FRAMING),
        (GOOD[:9], Fault.TRUNCATED),
        (b"\xc3\x01" + bytes(8) + GOOD[10:], Fault.WRONG_FINGERPRINT),
        (GOOD[:10], Fault.TRUNCATED),
        (GOOD[:-1], Fault.TRUNCATED),
        (GOOD + b"\0", Fault.TRAILING_BYTES),
        (GOOD[:10] + b"\x01" + GOOD[11:], Fault.BAD_LENGTH),
        (GOOD[:10] + b"\xff" * 9 + b"\x02" + GOOD[11:], Fault.BAD_VARINT),
        (GOOD[:10] + b"\x82" + b"\x80" * 8 + b"\0" + GOOD[11:], Fault.NONE),
        (spoil(EVENT, event_id="e" * 1024), Fault.NONE),
        (spoil(EVENT, event_id="e" * 1025), Fault.LIMIT_EXCEEDED),
        (spoil(EVENT, source="é" * 128), Fault.NONE),
        (spoil(EVENT, source="é" * 128 + "e"), Fault.SOURCE_LENGTH),
        (spoil(EVENT, source=""), Fault.SOURCE_LENGTH),
        (spoil(EVENT, kind="k" * 256), Fault.NONE),
        (spoil(EVENT, kind="k" * 257), Fault.LIMIT_EXCEEDED),
        (spoil(EVENT, causes=[CAUSE] * 1024), Fault.NONE),
        (spoil(EVENT, causes=[CAUSE] * 1025), Fault.LIMIT_EXCEEDED),
        (spoil(EVENT, causes=[{"partition": 1 << 31, "sequence": 0}]), Fault.BAD_VARINT),
        (spoil(EVENT, payload=b"p" * (1 << 20)), Fault.NONE),
        (GOOD[:-5] + b"\x04" + GOOD[-4:], Fault.BAD_UNION),
        (GOOD[:-5] + b"\x01" + GOOD[-4:], Fault.BAD_UNION),
        (GOOD[:-2] + b"\x01\x06\x00\x00\x00\x00", Fault.BAD_LENGTH),
        (GOOD[:-2] + b"\x01\x04\x00\x00\x00\x00", Fault.NONE),
        (GOOD[:-2] + b"\x01\x01\x00\x00\x00\x00", Fault.BAD_LENGTH),
        (GOOD[:-2] + make.avro_long(make.INT64_MIN) + b"\x00\x00", Fault.LIMIT_EXCEEDED),
    ],
)
def test_each_fault_is_named_alike_by_kernel_and_general_path(value: bytes, fault: Fault) -> None:
    """The limits at their edges, and the framing."""
    columns, _keep = decode_all([GOOD, value, GOOD])
    assert [Fault(found) for found in columns.fault] == [Fault.NONE, fault, Fault.NONE]
    assert reference(value)[0] == fault


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_utf8_is_what_python_calls_utf8(content: bytes) -> None:
    """No surrogates, no overlong forms, nothing beyond U+10FFFF: Python's own decoder is the judge."""
    rest = GOOD[12:]
    columns, _keep = decode_all([GOOD[:10] + make.avro_bytes(content) + rest])
    try:
        content.decode()
        expected = Fault.NONE
    except UnicodeDecodeError:
        expected = Fault.BAD_UTF8
    assert columns.fault[0] == expected


def test_every_two_byte_start_of_a_character_is_judged_as_python_does() -> None:
    """All pairs that do not begin with ASCII, completed or not, at the end of a text and in the middle of one.

    Interpreted, of second bytes those at an edge of what any first one takes.
    """
    seconds = range(256) if JIT else (0, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    contents = [
        bytes([first, second]) + tail
        for first in range(0x7F, 256)
        for second in seconds
        for tail in (b"", b"\x80", b"\x80\xbfabcdefgh")
    ]
    columns, _keep = decode_all([GOOD[:10] + make.avro_bytes(content) + GOOD[12:] for content in contents])
    for row, content in enumerate(contents):
        good = content.decode(errors="replace").encode() == content
        assert (columns.fault[row] == Fault.NONE) == good, content.hex()


def test_what_the_entry_says_comes_before_what_the_value_says() -> None:
    """CONTROL entries and values that are not there are never looked at: their addresses may be anything."""
    entries = allocate_entries(4)
    entries.kind[0] = EntryKind.CONTROL
    entries.value_state[1:] = [ValueState.NULL, ValueState.OMITTED, ValueState.ERASED]
    entries.value_length[:] = [5, -1, 9_000_000, 12]
    for framing in Framing:
        columns = allocate_events(4)
        decode_events(entries, columns, framing)
        assert [Fault(fault) for fault in columns.fault] == [
            Fault.CONTROL_ENTRY, Fault.NULL_VALUE, Fault.OMITTED, Fault.ERASED
        ]  # fmt: skip


def test_columns_that_are_too_short_are_refused() -> None:
    """Kernels check no bounds, so their doors do."""
    with pytest.raises(ValueError, match="3 entries do not fit 2 rows"):
        decode_events(allocate_entries(3), allocate_events(2), Framing.SINGLE_OBJECT)
    three = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match="3 records do not fit 2 rows"):
        decode_entries(three, three, three, three, allocate_entries(2), Scratch())
    with pytest.raises(ValueError, match="shorter"):
        decode_entries(three, three[:2], three, three, allocate_entries(3), Scratch())


def test_a_slice_of_rows_is_a_view() -> None:
    """Nothing is copied, and the kernels take it like any other columns."""
    entries, _keep = make.entries_of([GOOD, b"x", GOOD])
    columns = allocate_events(3)
    part = slice_rows(columns, 1, 3)
    decode_events(slice_rows(entries, 1, 3), part, Framing.SINGLE_OBJECT)
    assert part.exchange.shape == (2, 5)
    assert list(columns.fault) == [0, Fault.UNKNOWN_FRAMING, 0]
    assert columns.source_length[2] == 1


@settings(deadline=None, max_examples=100 if JIT else 30)
@given(st.lists(make.events(), max_size=4), st.binary(max_size=8))
def test_json_fills_the_same_columns(events: list[dict[str, Any]], noise: bytes) -> None:
    """An event means the same in both framings; a row that is not JSON costs only itself."""
    entries, _buffer = make.entries_of([b"[" + noise, *(encode("Event", event, Framing.JSON) for event in events)])
    columns = allocate_events(len(events) + 1)
    _keep = decode_events(entries, columns, Framing.JSON)
    assert columns.fault[0] in {Fault.BAD_JSON, Fault.BAD_UTF8}
    for row, event in enumerate(events, start=1):
        assert columns.fault[row] == Fault.NONE
        found = make.event_at(row, columns)
        assert found == event or bits(found)["value"] == struct.pack("<d", float("nan"))


def ledger_reference(record: bytes) -> dict[str, Any] | None:
    """The general path and the relations between the fields of an entry; None for a malformed one."""
    try:
        entry = decode("LedgerEntry", record)
    except DecodeError:
        return None
    present = entry["value_state"] == "PRESENT"
    length = entry["value_length"]
    if present != (entry["value"] is not None) or (present and length != len(entry["value"])):
        return None
    if (length != -1) if entry["value_state"] == "NULL" else (length < 0):
        return None
    return entry


def assert_row_is(entries: Entries, row: int, entry: dict[str, Any]) -> None:
    """Every column of the row against the decoded record."""
    names = {"kind": "kind", "authority_kind": "authority_kind", "value_state": "value_state"}
    symbols = {"kind": ["DATA", "CONTROL"], "authority_kind": ["APPENDED", "OBSERVED"],
               "value_state": ["PRESENT", "NULL", "OMITTED", "ERASED"]}  # fmt: skip
    for name in names:
        assert symbols[name][getattr(entries, name)[row]] == entry[name]
    for column, field in (
        ("index", "index"), ("sequence", "sequence"), ("input_offset", "input_offset"),
        ("control_offset", "control_offset"), ("leader_epoch", "input_leader_epoch"),
        ("authority_ms", "authority_timestamp"), ("value_length", "value_length"),
    ):  # fmt: skip
        assert getattr(entries, column)[row] == entry[field], column
    assert entries.value_hash[row].tobytes() == entry["value_hash"]
    assert entries.chain_hash[row].tobytes() == entry["chain_hash"]
    address, length = int(entries.value_address[row]), int(entries.value_length[row])
    assert (None if address == 0 else bytes_at(address, length)) == entry["value"]
    headers = canonical_headers([(header["name"], header["value"]) for header in entry["headers"]])
    assert entries.headers_length[row] == len(headers)
    assert bytes_at(int(entries.headers_address[row]), len(headers)) == headers if headers else True
    assert (entries.headers_address[row] == 0) == (not headers)


@lots_of(ENTRIES)
def test_ledger_entries_come_back_as_they_were_written(seed: int, lots: int) -> None:
    """Batches, with their keys: null, empty, and not."""
    rng = random.Random(seed + 4)
    for _ in range(lots):
        check_entries(rng)


def check_entries(rng: random.Random) -> None:
    """One batch."""
    records = [make.entry_value(rng, make.random_entry(rng, rng.randbytes(rng.randint(0, 90)))) for _ in range(ENTRIES)]
    keys = [rng.choice((None, b"", b"key")) for _ in records]
    _buffer, addresses, lengths = make.lay_out(records)
    _key_buffer, key_addresses, key_lengths = make.lay_out([key or b"" for key in keys])
    key_lengths = np.array([-1 if key is None else len(key) for key in keys], np.int64)
    entries, scratch = allocate_entries(len(records)), Scratch()
    assert decode_entries(addresses, lengths, key_addresses, key_lengths, entries, scratch) == -1
    for row, (record, key) in enumerate(zip(records, keys, strict=True)):
        expected = ledger_reference(record)
        assert expected is not None
        assert_row_is(entries, row, expected)
        address, length = int(entries.key_address[row]), int(entries.key_length[row])
        assert (bytes_at(address, length) if length >= 0 else None) == key
        assert address != 0 or key is None


@lots_of(SPOILT_ENTRIES)
def test_spoilt_ledger_entries_are_found_malformed_exactly_where_the_general_path_finds_them(
    seed: int, lots: int
) -> None:
    """One record at a time: same verdict, same values."""
    rng = random.Random(seed + 5)
    null, entries, scratch = np.full(1, -1), allocate_entries(1), Scratch()
    accepted = 0
    for _ in range(lots * SPOILT_ENTRIES):
        record = make.mutate(rng, make.entry_value(rng, make.random_entry(rng, rng.randbytes(20))))
        _buffer, addresses, lengths = make.lay_out([record])
        malformed = decode_entries(addresses, lengths, null, null, entries, scratch)
        expected = ledger_reference(record)
        assert (malformed == -1) == (expected is not None), record.hex()
        if expected is not None:
            accepted += 1
            assert_row_is(entries, 0, expected)
    assert 0 < accepted < lots * SPOILT_ENTRIES


def test_the_first_malformed_record_is_named_by_its_index() -> None:
    """A null value, as a tombstone would be, is malformed like any other."""
    rng = random.Random(6)
    good = make.entry_value(rng, make.random_entry(rng, b"v"))
    _buffer, addresses, lengths = make.lay_out([good, good, good[:-1], b"", good])
    null, entries = np.full(5, -1), allocate_entries(5)
    assert decode_entries(addresses, lengths, null, null, entries, Scratch()) == 2
    lengths[1] = -1
    addresses[1] = 0
    assert decode_entries(addresses, lengths, null, null, entries, Scratch()) == 1


def test_interpreted_kernels_fill_the_same_columns_byte_for_byte(seed: int) -> None:
    """NUMBA_DISABLE_JIT=1 in a process of its own, over the same generated records."""
    assert interpreted("tests.core.event_generator", f"dump_columns({seed}, 400)") == make.dump_columns(seed, 400)


def test_the_address_of_scratch_grows_with_what_is_asked() -> None:
    """A reservation that fits keeps its place; a larger one gets a new one."""
    scratch = Scratch()
    first = scratch.reserve(100)
    assert scratch.reserve(150) == first
    view = scratch._bytes
    assert scratch.reserve(100_000) == address_of(scratch._bytes)
    assert len(view) == 200
