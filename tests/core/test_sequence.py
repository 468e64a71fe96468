"""The sequencer against its plain twin, its own check, and itself under other batch splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import LABELS_BYTES_MAX, EntryKind
from schemas.codec import decode
from schemas.columns import slice_rows
from streams.records import slice_records
from streams.sequence import CONTROL, DATA, Break, Head, Sequenced, advance, head_of, verify
from tests.core.interpreted import interpreted
from tests.core.sequence_oracle import Given, advance_plainly, as_read, columns_of

if TYPE_CHECKING:
    import random

VALUE_BYTES_MAX = 300

headers = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9), st.none() | st.binary(max_size=40)
    ),
    max_size=3,
)
record = st.builds(
    Given,
    offset=st.integers(1, 5),  # a distance here; made rising below
    timestamp_ms=st.integers(0, 2**41),
    leader_epoch=st.integers(-1, 2**31 - 1),
    key=st.none() | st.binary(max_size=20) | st.binary(min_size=505, max_size=520),
    value=st.none() | st.binary(max_size=120) | st.binary(min_size=VALUE_BYTES_MAX - 2, max_size=VALUE_BYTES_MAX + 2),
    headers=headers.map(tuple),
)


def rising(records: list[Given]) -> list[Given]:
    """With offsets that rise by what stood in their place."""
    offset, out = 0, []
    for one in records:
        offset += one.offset
        out.append(one._replace(offset=offset))
    return out


def decoded(sequenced: Sequenced) -> list[dict[str, object]]:
    """Each encoded entry, read back by the general decoder."""
    starts, data = sequenced.starts, sequenced.encoded
    return [
        decode("LedgerEntry", data[a:b].tobytes())
        for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]


@settings(max_examples=60)
@given(st.lists(record, min_size=1, max_size=30), st.lists(record, max_size=5))
def test_entries_equal_those_of_the_plain_twin(data: list[Given], control: list[Given]) -> None:
    """Every field, the encoded bytes and the chain, for DATA and CONTROL."""
    data, control = rising(data), rising(control)
    head, expected = advance_plainly(Head(), data, EntryKind.DATA, VALUE_BYTES_MAX)
    head, more = advance_plainly(head, control, EntryKind.CONTROL, VALUE_BYTES_MAX)
    data_columns, control_columns = columns_of(data), columns_of(control)
    middle, first = advance(Head(), data_columns[0], DATA, VALUE_BYTES_MAX)
    end, second = advance(middle, control_columns[0], CONTROL, VALUE_BYTES_MAX)
    assert end == head
    for found, wanted in zip(decoded(first) + decoded(second), expected + more, strict=True):
        assert found == as_read(wanted)


@settings(max_examples=30)
@given(st.lists(record, min_size=1, max_size=40), st.randoms())
def test_the_bytes_do_not_depend_on_how_the_records_were_cut_into_batches(
    records: list[Given], chance: random.Random
) -> None:
    """One batch or many: the same encoded entries and the same head."""
    records = rising(records)
    columns, memory = columns_of(records)
    whole_head, whole = advance(Head(), columns, DATA, VALUE_BYTES_MAX)
    head, encoded, row = Head(), [], 0
    while row < len(records):
        stop = min(len(records), row + chance.choice((1, 2, 7)))
        head, part = advance(head, slice_records(columns, row, stop), DATA, VALUE_BYTES_MAX)
        encoded.append(part.encoded[: part.starts[-1]].tobytes())
        row = stop
    assert head == whole_head
    assert b"".join(encoded) == whole.encoded[: whole.starts[-1]].tobytes()
    assert memory.size  # alive until here


def test_labels_that_no_request_takes_are_named_by_their_hash() -> None:
    """At the limit they stand; above it the entry has neither, and its value all the same."""
    limit = LABELS_BYTES_MAX
    name, frame = "h", 4 + 4 + 1 + 1 + 4  # count, name length, name, presence, value length
    labels: list[tuple[bytes | None, bytes | None]] = [
        (b"", b"x" * (limit - frame)),
        (b"", b"x" * (limit - frame + 1)),
        (b"k", b"x" * (limit - frame)),
        (b"k" * (limit + 1), None),
        (None, b"x" * (2 * limit)),
        (b"k", b"short"),
    ]
    records = [
        Given(row, 5, 3, key, b"value-%d" % row, ((name, value),) if value is not None else ())
        for row, (key, value) in enumerate(labels)
    ]
    columns, memory = columns_of(records)
    for kind, number in ((EntryKind.DATA, DATA), (EntryKind.CONTROL, CONTROL)):
        head, expected = advance_plainly(Head(), records, kind, VALUE_BYTES_MAX)
        found_head, found = advance(Head(), columns, number, VALUE_BYTES_MAX)
        assert found_head == head
        for entry, wanted in zip(decoded(found), expected, strict=True):
            assert entry == as_read(wanted)
    assert [len(fields.headers[0][0]) for fields, _, _ in expected] == [1, 19, 19, 19, 19, 1]
    assert [fields.key for fields, _, _ in expected] == [b"", None, None, None, None, b"k"]
    assert memory.size  # alive until here


def ledger(rows: int = 50) -> tuple[Sequenced, object]:
    """A small whole ledger, and the memory it points into."""
    records = [
        Given(i * 2, 1_700_000_000_000 + i, 3, b"key-%d" % i, b"value-%d" % i, (("h", b"x"), ("h", None)))
        for i in range(rows)
    ]
    columns, memory = columns_of(records)
    return advance(Head(), columns, DATA, VALUE_BYTES_MAX)[1], memory


def test_verify_accepts_what_advance_made_in_any_split() -> None:
    """From the beginning, and from any head in between."""
    sequenced, _memory = ledger()
    entries = sequenced.entries
    end, bad, why = verify(Head(), entries)
    assert (bad, why) == (-1, Break.NONE)
    assert end == head_of(entries, 49)
    middle = head_of(entries, 19)
    assert verify(middle, slice_rows(entries, 20, 50)) == (end, -1, Break.NONE)


@pytest.mark.parametrize(
    ("column", "row", "change", "why"),
    [
        ("index", 20, 1, Break.INDEX),
        ("sequence", 20, 1, Break.SEQUENCE),
        ("input_offset", 20, -9, Break.OFFSET),
        ("input_offset", 20, 1, Break.CHAIN),
        ("control_offset", 20, 1, Break.OFFSET),
        ("leader_epoch", 20, 1, Break.CHAIN),
        ("authority_ms", 20, 1, Break.CHAIN),
        ("authority_kind", 20, 1, Break.CHAIN),
        ("value_state", 20, 2, Break.CHAIN),
        ("value_length", 20, -1, Break.VALUE_HASH),
        ("key_length", 20, -1, Break.CHAIN),
        ("headers_length", 20, -1, Break.CHAIN),
        ("kind", 20, 1, Break.SEQUENCE),
    ],
)
def test_verify_finds_a_changed_field_at_its_row(column: str, row: int, change: int, why: Break) -> None:
    """Whatever is altered, the first row that is wrong is named, with what is wrong with it."""
    sequenced, _memory = ledger()
    getattr(sequenced.entries, column)[row] += change
    head, bad, found = verify(Head(), sequenced.entries)
    assert (bad, found) == (row, why)
    assert head.index == row


def test_verify_finds_a_changed_byte_of_value_key_header_and_hashes() -> None:
    """The value through its hash, everything else through the chain."""
    for name, why in (("value", Break.VALUE_HASH), ("key", Break.CHAIN), ("headers", Break.CHAIN)):
        sequenced, memory = ledger()
        assert isinstance(memory, np.ndarray)
        place = int(getattr(sequenced.entries, f"{name}_address")[7]) - memory.ctypes.data
        memory[place + 1] ^= 1
        assert verify(Head(), sequenced.entries)[1:] == (7, why), name
    for name, why in (("value_hash", Break.VALUE_HASH), ("chain_hash", Break.CHAIN)):
        sequenced, _memory = ledger()
        getattr(sequenced.entries, name)[7, 31] ^= 1
        assert verify(Head(), sequenced.entries)[1:] == (7, why), name


def test_verify_finds_an_entry_that_is_missing_or_swapped() -> None:
    """Gaps and exchanges break index order where they happen."""
    sequenced, _memory = ledger()
    entries = sequenced.entries
    assert verify(head_of(entries, 9), slice_rows(entries, 11, 50))[1:] == (0, Break.INDEX)
    for column in entries:
        column[[30, 31]] = column[[31, 30]]
    assert verify(Head(), entries)[1:] == (30, Break.INDEX)


def test_an_erased_value_keeps_the_chain_whole() -> None:
    """The bytes go, the hash and the link stay."""
    sequenced, _memory = ledger()
    entries = sequenced.entries
    entries.value_state[5] = 3
    entries.value_address[5] = 0
    assert verify(Head(), entries)[1:] == (-1, Break.NONE)


def last_hash(entries: int) -> str:
    """The chain hash of the last of so many entries."""
    sequenced, _memory = ledger(entries)
    return bytes(sequenced.entries.chain_hash[-1]).hex()


def test_a_thousand_entries_have_the_pinned_chain_hash() -> None:
    """Golden: the chain of this history may never change."""
    assert last_hash(1_000) == GOLDEN


GOLDEN = "d3d220716aacf702e489fd0ee6a1c294fe25d1ce96603e2709909ee884815317"


def test_the_kernel_writes_the_same_bytes_interpreted() -> None:
    """NUMBA_DISABLE_JIT=1: the golden hash again, from plain Python."""
    assert interpreted("tests.core.test_sequence", "last_hash(1_000)") == GOLDEN.encode()
