"""Ledger entries against input records: the merge of two logs."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import EntryKind
from schemas.columns import Entries, allocate_entries, slice_rows
from schemas.memory import SHA256_CONTEXT_BYTES, address_of
from streams.compare_kernel import UNKNOWN_RANK, Met, compare_input
from streams.records import Records, allocate_records, slice_records


class Input(NamedTuple):
    """One input record."""

    offset: int
    value: bytes | None = b"value"
    key: bytes | None = b"key"
    headers: bytes = b""
    time_ms: int = 5


class Logs:
    """Records as both logs hold them, and the memory they point into."""

    def __init__(self, inputs: list[Input]) -> None:
        rows = len(inputs)
        self.records: Records = allocate_records(rows)
        self.entries: Entries = allocate_entries(rows)
        self._memory = [
            [np.frombuffer((part or b"") + b"\0", np.uint8) for part in (i.value, i.key, i.headers)] for i in inputs
        ]
        for row, record in enumerate(inputs):
            value, key, headers = (address_of(part) for part in self._memory[row])
            lengths = [-1 if part is None else len(part) for part in (record.value, record.key)]
            self.entries.kind[row] = EntryKind.DATA
            self.entries.sequence[row] = row + 1
            self.entries.authority_ms[row] = self.records.timestamp_ms[row] = record.time_ms
            self.entries.input_offset[row] = self.records.offset[row] = record.offset
            for columns in (self.entries, self.records):
                columns.value_address[row], columns.value_length[row] = value, lengths[0]
                columns.key_address[row], columns.key_length[row] = key, lengths[1]
                columns.headers_address[row], columns.headers_length[row] = headers, len(record.headers)
            if record.value is not None:
                self.entries.value_hash[row] = np.frombuffer(hashlib.sha256(record.value).digest(), np.uint8)


class Merged(NamedTuple):
    """What compare_input returned, and the numbers after it."""

    record: int
    row: int
    met: Met
    numbers: list[int]


def merge(records: Records, entries: Entries, *, ended: bool = True, start: int = 0, rank: int = 0) -> Merged:
    """From the first rows on."""
    numbers = np.array([rank, 0, 0], np.int64)
    context, digest = np.empty(SHA256_CONTEXT_BYTES, np.uint8), np.empty(32, np.uint8)
    record, row, met = compare_input(
        records, 0, ended, entries, 0, start, numbers, address_of(context), digest, address_of(digest)
    )
    return Merged(record, row, Met(met), numbers.tolist())


FOUR = [
    Input(3),
    Input(4, None, None),
    Input(7, b"", b"", b"\x00\x00\x00\x01"),
    Input(9, b"v" * 900, b"k" * 600, b"h" * 50, -1),
]


def test_entries_that_are_their_records_are_compared_to_the_end() -> None:
    """Offsets may have gaps: markers, records that were aborted."""
    logs = Logs(FOUR)
    assert merge(logs.records, logs.entries) == (4, 4, Met.ENTRIES_DONE, [4, 4, 0])


def test_control_entries_and_entries_without_a_kept_record_are_passed() -> None:
    """The latter are counted."""
    logs = Logs(FOUR)
    logs.entries.kind[1] = EntryKind.CONTROL
    found = merge(slice_records(logs.records, 2, 4), logs.entries, start=5, rank=UNKNOWN_RANK)
    assert found == (2, 4, Met.ENTRIES_DONE, [4, 2, 1])


def test_more_records_are_asked_for_until_there_are_none() -> None:
    """Then an entry without one is wrong."""
    logs = Logs(FOUR)
    some = slice_records(logs.records, 0, 2)
    assert merge(some, logs.entries, ended=False) == (2, 2, Met.RECORDS_DONE, [2, 2, 0])
    assert merge(some, logs.entries) == (2, 2, Met.NO_RECORD, [2, 2, 0])


def test_a_record_that_was_passed_over_is_a_hole() -> None:
    """Named before the entry that stands behind it."""
    logs = Logs(FOUR)
    assert merge(logs.records, slice_rows(logs.entries, 1, 4))[:3] == (0, 0, Met.HOLE)


def test_an_entry_between_two_records_has_none() -> None:
    """It stands where no record is."""
    logs = Logs(FOUR)
    logs.entries.input_offset[2] = 6
    assert merge(logs.records, logs.entries)[:3] == (2, 2, Met.NO_RECORD)


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize(
    ("column", "met"),
    [
        ("value_hash", Met.VALUE),
        ("value_length", Met.VALUE),
        ("key_length", Met.KEY),
        ("headers_length", Met.HEADERS),
        ("authority_ms", Met.TIME),
        ("sequence", Met.RANK),
    ],
)
def test_every_difference_is_named(row: int, column: str, met: Met) -> None:
    """At its row; a null value has a hash that nothing is compared with."""
    logs = Logs(FOUR)
    if (row, column) == (1, "value_hash"):
        column = "value_length"
    changed = getattr(logs.entries, column)
    if column.endswith("length"):
        changed[row] = 1 if changed[row] != 1 else 2
    else:
        changed[row] += 1
    assert merge(logs.records, logs.entries)[:3] == (row, row, met)


def test_one_byte_of_a_key_or_a_header_is_enough() -> None:
    """The last one."""
    logs, others = Logs(FOUR), Logs([*FOUR[:3], Input(9, b"v" * 900, b"k" * 599 + b"j", b"h" * 50, -1)])
    assert merge(others.records, logs.entries)[:3] == (3, 3, Met.KEY)
    others = Logs([*FOUR[:3], Input(9, b"v" * 900, b"k" * 600, b"h" * 49 + b"i", -1)])
    assert merge(others.records, logs.entries)[:3] == (3, 3, Met.HEADERS)


def test_an_unknown_rank_is_taken_from_the_entry() -> None:
    """From there on it is counted."""
    logs = Logs(FOUR)
    logs.entries.sequence[:] += 100
    assert merge(logs.records, logs.entries, rank=UNKNOWN_RANK)[2] is Met.ENTRIES_DONE
    assert merge(logs.records, logs.entries)[:3] == (0, 0, Met.RANK)


@settings(deadline=None, max_examples=100)
@given(gone=st.sets(st.integers(0, 19), max_size=4), invented=st.sets(st.integers(0, 19), max_size=4))
def test_the_first_wrong_place_is_the_first_in_either_log(gone: set[int], invented: set[int]) -> None:
    """gone: records without an entry. invented: entries without a record."""
    logs = Logs([Input(n) for n in range(20)])
    kept = np.array([n for n in range(20) if n not in gone], np.int64)
    there = np.array([n for n in range(20) if n not in invented], np.int64)
    columns: list[Any] = [column[kept] for column in logs.entries]
    entries = Entries(*columns)
    records = Records(*(column[there] for column in logs.records))
    entries.sequence[:] = np.arange(1, kept.size + 1)
    found = merge(records, entries, rank=UNKNOWN_RANK)
    wrong = [n for n in sorted(gone ^ invented) if n in invented or any(k > n for k in kept.tolist())]
    if not wrong:
        assert found.met is Met.ENTRIES_DONE
    elif wrong[0] in gone:
        assert (found.met, records.offset[found.record]) == (Met.HOLE, wrong[0])
    else:
        assert (found.met, entries.input_offset[found.row]) == (Met.NO_RECORD, wrong[0])
