"""Packed columns: everything comes back to the bit, and nothing else passes for it."""

from __future__ import annotations

import random
import struct
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.packing import DamagedError, Reader, Texts, pack_ints, pack_texts, text_bytes, texts_of

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_INTS = st.integers(INT64_MIN, INT64_MAX) | st.sampled_from([0, 1, -1, 255, 256, INT64_MIN, INT64_MAX])


def _ints(values: list[int]) -> bytes:
    return pack_ints(np.array(values, np.int64))


@settings(max_examples=150, deadline=None)
@given(st.lists(_INTS, max_size=60))
def test_any_integers_come_back(values: list[int]) -> None:
    """Whatever follows whatever: differences wrap."""
    reader = Reader(_ints(values))
    assert reader.ints(len(values)).tolist() == values
    reader.end()


@pytest.mark.parametrize(
    ("values", "bytes_a_row"),
    [
        ([7] * 1000, 0),
        (list(range(5, 5000, 5)), 0),
        ([INT64_MIN] * 100, 0),
        ([i * 1_000_000 + i % 3 for i in range(1000)], 1),
        ([i % 2 * 60_000 for i in range(1000)], 2),
    ],
)
def test_even_columns_take_few_bytes(values: list[int], bytes_a_row: int) -> None:
    """A constant or an even rise none, small steps one, whatever the numbers."""
    packed = _ints(values)
    assert packed[1] == bytes_a_row
    assert len(packed) <= 22 + bytes_a_row * len(values)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(), max_size=30))
def test_doubles_come_back_to_the_bit(values: list[float]) -> None:
    """NaN, infinities and -0.0 too."""
    array = np.array(values, np.float64)
    assert Reader(pack_ints(array.view(np.int64))).doubles(len(values)).tobytes() == array.tobytes()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=50) | st.uuids().map(lambda made: str(made).encode()), max_size=30))
def test_any_texts_come_back(strings: list[bytes]) -> None:
    """With empty ones, repeated ones, and UUIDs among others."""
    reader = Reader(pack_texts(texts_of(strings)))
    read = reader.texts(len(strings), 100_000)
    reader.end()
    assert read.strings() == tuple(strings)
    assert [read.at(row) for row in range(len(strings))] == strings
    assert read.offsets.dtype == np.int32


def test_content_beside_the_texts_is_not_packed() -> None:
    """Whoever makes room for a byte more than there is, or cuts texts out of others, has the same bytes."""
    strings = [b"one", b"", b"three"]
    whole = texts_of([b"before", *strings, b"behind"])
    assert pack_texts(Texts(whole.offsets[1:5], whole.content)) == pack_texts(texts_of(strings))


def test_uuids_take_sixteen_bytes_and_other_spellings_are_kept() -> None:
    """Only the spelling that is read back may be shortened."""
    rng = random.Random(1)
    uuids = [str(uuid.UUID(int=rng.getrandbits(128))).encode() for _ in range(500)]
    assert len(pack_texts(texts_of(uuids))) < 17 * 500
    for spoilt in (
        uuids[3].upper(),
        uuids[3].replace(b"-", b"_"),
        b"g" + uuids[3][1:],
        uuids[3][:23] + b"a" + uuids[3][24:],
    ):
        strings = [*uuids[:3], spoilt, *uuids[4:]]
        assert Reader(pack_texts(texts_of(strings))).texts(500, 18_000).strings() == tuple(strings)


def test_what_was_not_packed_is_refused() -> None:
    """Cut or flipped anywhere: DamagedError or other content, no other error; more than allowed is never read."""
    rng = random.Random(2)
    texts = texts_of([b"some text %d" % (i % 7) for i in range(40)])
    whole = _ints([rng.randrange(10**6) for _ in range(40)]) + pack_texts(texts)

    def read(content: bytes) -> None:
        reader = Reader(content)
        reader.ints(40)
        reader.texts(40, 1000)
        reader.end()

    read(whole)
    for end in range(len(whole)):
        with pytest.raises(DamagedError):
            read(whole[:end])
    with pytest.raises(DamagedError):
        read(whole + b"x")
    refused = 0
    for _ in range(1500):
        spoilt = bytearray(whole)
        spoilt[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        try:
            read(bytes(spoilt))
        except DamagedError:
            refused += 1
    assert refused > 100
    with pytest.raises(DamagedError, match="at most 5"):
        Reader(pack_texts(texts)).texts(40, 5)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<BBqqI", 0, 9, 0, 0, 0),
        struct.pack("<BBqqI", 8, 1, 0, 0, 0),
        struct.pack("<BBqqI", 0, 1, 0, 0, 4) + b"1234",
        struct.pack("<BBqqI", 2, 1, 0, 0, 4) + b"\xff234",
        struct.pack("<BBqqI", 2, 1, 0, 0, 2) + b"\x10A",
    ],
)
def test_claims_of_a_width_a_flag_or_a_length_are_checked(content: bytes) -> None:
    """What the reader asked for decides what is read."""
    with pytest.raises(DamagedError):
        Reader(content).ints(3)


def test_texts_whose_lengths_do_not_add_up_are_refused() -> None:
    """Negative ones, and ones beyond the content."""
    bytes_at = len(_ints([1, 2]))
    content = pack_texts(Texts(np.array([0, 1, 3], np.int32), np.frombuffer(b"abc", np.uint8)))[bytes_at:]
    for lengths in ([1, 1], [2, 2], [-1, 4], [4, -1], [2**40, 2]):
        with pytest.raises(DamagedError):
            Reader(_ints(lengths) + content).texts(2, 10)
    flagged = bytes([content[0] | 4]) + content[1:]
    with pytest.raises(DamagedError, match="UUIDs"):
        Reader(_ints([1, 2]) + flagged).texts(2, 10)


def test_packed_texts_say_how_much_they_are() -> None:
    """Without being read: plain ones, ones that LZ4 makes smaller, UUIDs; wherever they stand."""
    some = [b"", b"abc", b"\xff" * 5_000]
    uuids = [str(uuid.UUID(int=number)).encode() for number in range(50)]
    for texts in ([], some, uuids):
        packed = pack_texts(texts_of(texts))
        assert text_bytes(packed) == text_bytes(b"before" + packed, 6) == sum(map(len, texts))
    with pytest.raises(DamagedError, match="no texts"):
        text_bytes(pack_texts(texts_of(some))[:20])
