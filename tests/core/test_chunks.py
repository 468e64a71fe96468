"""Chunks as bytes: golden ones, round trips, and damage."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from lifecycle.chunk_codec import (
    decode_applied,
    decode_column,
    decode_header,
    decode_readings,
    decode_rows,
    encode_applied,
    encode_column,
    encode_header,
    encode_readings,
    encode_rows,
)
from lifecycle.chunks import (
    NOTHING,
    ROW_COLUMNS,
    Applied,
    ChunkDamagedError,
    Column,
    Header,
    Readings,
    Rows,
    Stats,
)
from lifecycle.packing import Texts, texts_of

PARTITION = 3
FIRST = 8193

GOLDEN_SECTION = "444c4331040300000019000000000100000000000000000b00000000000000030000000001036f6feaf9"
GOLDEN_APPLIED = "444c413502000000000000000300000000000000040000000000000005000000000000003cab29d8"


def _texts(rng: random.Random, count: int) -> Texts:
    return texts_of([rng.randbytes(rng.choice((0, 1, 36, 300))) for _ in range(count)])


def a_chunk(seed: int, rows: int = 300) -> Rows:
    """Rows whose columns are of all kinds."""
    generator = np.random.default_rng(seed)
    rng = random.Random(seed)

    def small(most: int) -> Any:
        return generator.integers(0, most, rows).astype(np.uint8)

    return Rows(
        sequence=np.arange(FIRST, FIRST + rows),
        index=np.cumsum(generator.integers(1, 3, rows)),
        input_offset=np.cumsum(generator.integers(1, 9, rows)),
        authority_ms=generator.integers(-(2**63), 2**63 - 1, rows),
        local_us=1_795_000_000_000_000 + generator.integers(0, 10**9, rows),
        value=generator.choice([np.nan, np.inf, -0.0, 20.25, 1e-300], rows),
        has_value=small(2),
        severity=small(256),
        flags=small(16),
        fault=small(17),
        source=generator.integers(-1, 100, rows).astype(np.int32),
        kind=np.zeros(rows, np.int32),
        event_id=_texts(rng, rows),
        payload=_texts(rng, rows),
        chain_hash=generator.integers(0, 256, (rows, 32)).astype(np.uint8),
        hlc=generator.integers(0, 2**40, rows),
        has_hlc=small(2),
        cause=small(7),
        offset_us=generator.integers(-(2**63), 2**63 - 1, rows),
        bound_us=generator.integers(-1, 90, rows),
    )


def a_header(groups: int = 5) -> Header:
    """A header with names of every length."""
    numbers = np.arange(groups)
    stats = Stats(
        source=numbers.astype(np.int32),
        kind=(numbers % 2).astype(np.int32),
        local_minute=29_916_666 + numbers,
        authority_minute=numbers - 3,
        count=numbers + 1,
        values=numbers,
        minimum=np.where(numbers == 0, np.nan, -1.5 * numbers),
        maximum=np.where(numbers == 0, np.nan, 1.5 * numbers),
        sum=np.stack([1e16 * numbers, 0.1 * numbers, 1e-18 * numbers], axis=1),
        exact=(numbers != 2).astype(np.uint8),
    )
    names = tuple(f"sensor-{number:03d}".encode() * (number + 1) for number in range(groups))
    return Header(
        PARTITION, FIRST, FIRST + 299, 9000, 9420, 300, 290, 4, 2, -5, 2**62, -(2**63), -1, 2**63 - 1, -7, 2**61,
        names, (b"", "\N{SNOWMAN}".encode()), stats,
    )  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """To the bit, and of the same type."""
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_rows_come_back(rows: int) -> None:
    """All columns, to the bit."""
    chunk = a_chunk(rows, rows)
    sections = encode_rows(PARTITION, chunk)
    assert tuple(sections) == ROW_COLUMNS
    assert same(decode_rows(PARTITION, FIRST, rows, sections), chunk)


def test_a_header_comes_back() -> None:
    """Names, statistics and all; also with none."""
    header = a_header()
    assert same(decode_header(PARTITION, FIRST, encode_header(header)), header)
    bare = a_header(0)._replace(kinds=())
    assert same(decode_header(PARTITION, FIRST, encode_header(bare)), bare)


def test_readings_and_applied_records_come_back() -> None:
    """Both ends of int64 too."""
    rng = random.Random(1)
    numbers = np.array([-(2**63), 0, 2**63 - 1])
    hashes = np.arange(96, dtype=np.uint8).reshape(3, 32)
    readings = Readings(numbers, numbers, numbers, numbers, np.array([1, 2, 1], np.uint8), _texts(rng, 3), hashes)
    assert same(decode_readings(PARTITION, FIRST, 3, encode_readings(PARTITION, FIRST, readings)), readings)
    for applied in (NOTHING, Applied(2**62, 2**61, 7, 1_795_000_000_000)):
        assert decode_applied(PARTITION, encode_applied(PARTITION, applied)) == applied


def test_the_bytes_of_a_section_stand() -> None:
    """They are on disks: other bytes need another magic."""
    section = encode_column(PARTITION, FIRST, Column.AUTHORITY_MS, np.array([11, 12, 14]))
    assert section.hex() == GOLDEN_SECTION
    assert encode_applied(1, Applied(2, 3, 4, 5)).hex() == GOLDEN_APPLIED


def test_any_damaged_byte_is_found() -> None:
    """Every byte of every part, cut at every length, and longer ones."""
    chunk = a_chunk(5, 40)
    sections = encode_rows(PARTITION, chunk)
    rng = random.Random(3)
    header = encode_header(a_header())
    applied = encode_applied(PARTITION, Applied(1, 2, 3, 4))

    def read(column: Column | None, content: bytes) -> None:
        if column is None:
            decode_header(PARTITION, FIRST, content)
        else:
            decode_column(PARTITION, FIRST, column, 40, content)

    for column, whole in [(None, header), *sections.items()]:
        places = range(len(whole)) if len(whole) < 500 else rng.sample(range(len(whole)), 500)
        for place in places:
            spoilt = bytearray(whole)
            spoilt[place] ^= 1 << rng.randrange(8)
            with pytest.raises(ChunkDamagedError):
                read(column, bytes(spoilt))
            with pytest.raises(ChunkDamagedError):
                read(column, whole[:place])
        with pytest.raises(ChunkDamagedError):
            read(column, whole + b"\0")
    for place in range(len(applied)):
        with pytest.raises(ChunkDamagedError):
            decode_applied(PARTITION, applied[:place] + bytes([applied[place] ^ 1]) + applied[place + 1 :])
        with pytest.raises(ChunkDamagedError):
            decode_applied(PARTITION, applied[:place])


def test_an_applied_record_of_another_layout_is_damaged() -> None:
    """Its checksum agrees: it is the magic that says so, at each opening of a store."""
    body = b"DLA4" + encode_applied(PARTITION, Applied(1, 2, 3, 4))[4:-4]
    checksum = zlib.crc32(body, zlib.crc32(struct.pack("<iqB", PARTITION, 0, 255)))
    with pytest.raises(ChunkDamagedError, match="it begins with b'DLA4'"):
        decode_applied(PARTITION, body + struct.pack("<I", checksum))


def test_a_whole_section_under_another_key_is_damaged() -> None:
    """Of another partition, chunk, column or number of rows; and one that is not there."""
    sections = encode_rows(PARTITION, a_chunk(6, 40))
    severity = sections[Column.SEVERITY]
    for key in (
        (PARTITION + 1, FIRST, Column.SEVERITY, 40),
        (PARTITION, FIRST + 1, Column.SEVERITY, 40),
        (PARTITION, FIRST, Column.FLAGS, 40),
        (PARTITION, FIRST, Column.SEVERITY, 41),
    ):
        with pytest.raises(ChunkDamagedError, match="rebuilt from the ledger"):
            decode_column(*key, severity)
    with pytest.raises(ChunkDamagedError, match="SEVERITY of the chunk at sequence 3:8193 is damaged: it is not there"):
        decode_rows(PARTITION, FIRST, 40, {c: s for c, s in sections.items() if c is not Column.SEVERITY})
    header = encode_header(a_header())
    with pytest.raises(ChunkDamagedError) as caught:
        decode_header(PARTITION, FIRST + 1, header)
    assert (caught.value.partition, caught.value.first_sequence, caught.value.part) == (
        PARTITION,
        FIRST + 1,
        "the header",
    )


def test_columns_of_a_kind_take_the_bytes_they_should() -> None:
    """A column that says nothing new takes none: contiguous numbers, one kind, no payloads."""
    rows = 8192
    chunk = a_chunk(7, rows)
    sections = encode_rows(PARTITION, chunk._replace(payload=texts_of([b""] * rows)))
    for column in (Column.SEQUENCE, Column.KIND, Column.PAYLOAD):
        assert len(sections[column]) < 100
    assert len(sections[Column.CHAIN_HASH]) < 32 * rows + 20
