"""Archives that somebody made to be more than they are: refused by what they say, before there is room for it."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import chunk_codec
from lifecycle.archive import ArchiveWriter, opened, opened_alone
from lifecycle.archive_facts import Compression, facts_of
from lifecycle.archive_index import encode, read_at
from lifecycle.archive_places import decode_places
from lifecycle.archive_table import ROWS_MAX, SCHEMA
from lifecycle.archiving import BUFFER_BYTES, join
from lifecycle.chunk_codec import decode_header, decode_readings, encode_header
from lifecycle.chunks import ROWS, ChunkDamagedError, Column
from lifecycle.packing import DamagedError, Reader
from lifecycle.parquet_pages import TEXTS_BYTES_MAX, VALUES_BYTES_MAX, check_pages, page_at
from lifecycle.proving import prove
from lifecycle.reindexing import index_again
from tests.core.manifest_histories import segment
from tests.core.test_archive import archived, whole
from tests.core.test_chunks import a_header

if TYPE_CHECKING:
    from collections.abc import Callable


#: A bomb becomes so much, and what refuses it takes less than a fourth of that.
BOMB_BYTES = 256 * 1024 * 1024


def peak_of(call: Callable[[], object]) -> int:
    """Bytes by which this process grows at most meanwhile."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def varint(value: int) -> bytes:
    """Of Thrift's compact protocol."""
    value = (value << 1) ^ (value >> 63)
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def header(raw: int, packed: int, values: int, kind: int = 0) -> bytes:
    """Of a page of data (0) or names (2): plain values, levels by runs."""
    encodings = b"".join(b"\x15" + varint(encoding) for encoding in ((0, 3, 3) if kind == 0 else (0,)))
    inner = (b"\x2c" if kind == 0 else b"\x4c") + b"\x15" + varint(values) + encodings + b"\0"
    return b"\x15" + varint(kind) + b"\x15" + varint(raw) + b"\x15" + varint(packed) + inner + b"\0"


def zeros(size: int) -> bytes:
    """So many, in a frame of zstd."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for _ in range(size // 2**20):
            stream.write(bytes(2**20))
    content: bytes = sink.getvalue().to_pybytes()
    return content


@pytest.fixture(scope="module")
def frame() -> bytes:
    """A few kilobytes that become hundreds of megabytes."""
    frame = zeros(BOMB_BYTES)
    assert len(frame) < BOMB_BYTES // 5_000
    return frame


class Forged:
    """An archive with the page of a column in place of what was there, and an index that agrees."""

    def __init__(self, folder: Path, page: Callable[[int, int], bytes], column: str) -> None:
        with ExitStack() as files:
            entries, chunks, self._memory = whole(9, 12_000)
            archive, index, _ = archived(files, folder, entries, chunks, [1] * len(chunks), Compression.ZSTD)
            self.name, table, blobs = archive.name, index.table, [index.blob(at) for at in range(index.chunks)]
        path = folder / self.name
        metadata, place = pq.read_metadata(path), SCHEMA.get_field_index(column)
        found = metadata.row_group(0).column(place)
        start = found.data_page_offset
        if found.dictionary_page_offset is not None:
            start = min(start, found.dictionary_page_offset)
        size = found.total_compressed_size
        content = page(size, metadata.row_group(0).num_rows)
        assert len(content) == size
        whole_file = path.read_bytes()
        path.write_bytes(whole_file[:start] + content + whole_file[start + size :])
        sums = table.sums.copy()
        sums[0, place] = zlib.crc32(content)
        (folder / "index").write_bytes(encode(table._replace(sums=sums), blobs))
        self.folder = folder

    def read(self) -> None:
        """With its index, as questions do."""
        with opened(self.name, (self.folder / self.name).open("rb"), (self.folder / "index").open("rb")) as (file, _):
            prove(file)

    def read_alone(self) -> None:
        """Without it, as who makes it again does."""
        index_again((self.folder / self.name).open("rb"), self.name)


def bomb(frame: bytes, raw: int = BOMB_BYTES) -> Callable[[int, int], bytes]:
    """A page that is a frame, and a frame behind it that is passed over, up to the size of the column."""

    def page(size: int, rows: int) -> bytes:
        before = header(raw, size, rows)
        before = header(raw, size - len(before), rows)
        rest = size - len(before) - len(frame)
        assert rest >= 8, rest
        return before + frame + struct.pack("<II", 0x184D2A50, rest - 8) + bytes(rest - 8)

    return page


def test_a_page_that_becomes_far_more_is_not_decompressed(tmp_path: Path, frame: bytes) -> None:
    """Though all checksums agree."""
    forged = Forged(tmp_path, bomb(frame), "event_id")

    def refuse() -> None:
        for read in (forged.read, forged.read_alone):
            with pytest.raises(DamagedError, match="once they are decompressed"):
                read()

    assert peak_of(refuse) < BOMB_BYTES // 4


@pytest.mark.parametrize("column", ["event_id", "sequence", "source"])
@pytest.mark.parametrize("claim", ["raw", "packed", "values", "names", "none"])
def test_a_page_that_claims_gigabytes_is_refused(tmp_path: Path, column: str, claim: str) -> None:
    """Bytes, values or names: nothing is done by what it says."""

    def page(size: int, rows: int) -> bytes:
        most = 2**31 - 1
        found = {
            "raw": header(most, size, rows),
            "packed": header(10, most, rows),
            "values": header(10, size, most),
            "names": header(10, size, most, kind=2),
            "none": b"",
        }[claim]
        return found + bytes(size - len(found))

    forged = Forged(tmp_path, page, column)
    for read in (forged.read, forged.read_alone):
        assert peak_of(lambda read=read: refused(read)) < BOMB_BYTES // 4  # type: ignore[misc]


def refused(read: Callable[[], object]) -> None:
    """That it is damaged."""
    with pytest.raises(DamagedError):
        read()


@given(st.binary(max_size=60))
def test_any_bytes_are_pages_or_damage(content: bytes) -> None:
    """Nothing else is raised, however they end."""
    try:
        check_pages(content, 1, 1_000, VALUES_BYTES_MAX)
    except DamagedError:
        return
    assert content


def test_pages_are_those_of_parquet(tmp_path: Path) -> None:
    """Each column of an archive, with names and without; a limit that is one byte less refuses it."""
    with ExitStack() as files:
        entries, chunks, memory = whole(9, 12_000)
        archive, _, _ = archived(files, tmp_path, entries, chunks, [len(chunks)])
        metadata, content = pq.read_metadata(tmp_path / archive.name), (tmp_path / archive.name).read_bytes()
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            start = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
            pages = content[start : start + column.total_compressed_size]
            raw = column.total_uncompressed_size
            check_pages(pages, rows, raw, raw)
            assert (page_at(pages, 0).kind == 2) == (column.dictionary_page_offset is not None)
            for wrong in ((pages, rows + 1, raw, raw), (pages, rows - 1, raw, raw), (pages, rows, raw - 1, raw)):
                with pytest.raises(DamagedError):
                    check_pages(*wrong)
            for part in (pages[:-1], pages + pages[:10]):
                with pytest.raises(DamagedError):
                    check_pages(part, rows, raw, raw)
    assert memory


@pytest.mark.parametrize("raw", [-1, TEXTS_BYTES_MAX + 1])
def test_a_column_of_more_than_there_can_be_is_refused(raw: int) -> None:
    """By its footer alone."""
    with pytest.raises(DamagedError, match="its footer says"):
        check_pages(b"", 0, raw, TEXTS_BYTES_MAX)


def absurd(tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> Callable[[], object]:
    """An archive whose only row group is something else."""
    with ExitStack() as files:
        entries, chunks, memory = whole(9, 12_000)
        archive, index, facts = archived(files, tmp_path, entries, chunks[:1], [1])
        writer = ArchiveWriter(tmp_path / "absurd")
        writer.add(change(archive.read(0)), facts.first_index, bytes(32), is_data=True)
        name, _ = writer.close(facts, [index.blob(0)])
        assert memory

    def read() -> None:
        with opened_alone(name, (tmp_path / "absurd").open("rb")) as made:
            prove(made)

    return read


def test_a_row_group_of_more_rows_than_one_can_have_is_refused(tmp_path: Path) -> None:
    """Whatever takes no bytes a row."""
    many = ROWS_MAX // 8_192 + 1
    with pytest.raises(DamagedError, match="rows"):
        absurd(tmp_path, lambda table: pa.concat_tables([table.slice(0, 8_000)] * many).combine_chunks())()


def test_names_that_are_none_are_damage(tmp_path: Path) -> None:
    """Not an error of ours."""

    def other(table: pa.Table) -> pa.Table:
        names = pa.array(["SOMETHING"] * len(table)).dictionary_encode()
        return table.set_column(table.schema.get_field_index("key_is"), table.schema.field("key_is"), names)

    with pytest.raises(DamagedError, match="SOMETHING"):
        absurd(tmp_path, other)()


def facts(**changes: Any) -> dict[str, Any]:
    """As JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(segment(0, 1, 5).facts._asdict()))
    return found | changes


@pytest.mark.parametrize(
    "change",
    [{"first_index": "1"}, {"last_index": 1.5}, {"partition": True}, {"chain_after": "zz"}, {"merkle_root": "00"},
     {"merkle": [[0, "x"]]}, {"merkle": 7}, {"other": 1}, {"event_fingerprint": None}],
)  # fmt: skip
def test_facts_that_are_none_are_refused(change: dict[str, Any]) -> None:
    """By type and form."""
    assert facts_of(facts())
    with pytest.raises((KeyError, TypeError, ValueError)):
        facts_of(facts(**change))


def test_chunks_that_take_no_bytes_are_counted(tmp_path: Path) -> None:
    """A footer may say that there are as many as numbers go."""
    del tmp_path
    found = facts_of(facts(last_index=10**12, last_sequence=10**12))
    starts = struct.pack("<BBqqI", 1, 0, 1, 1, 0) * 2 + struct.pack("<BBqqI", 0, 0, 1, 1, 0)
    content = json.dumps({"chunks": 40_000_000, "places": base64.b64encode(starts).decode()}).encode()
    assert peak_of(lambda: refused(lambda: decode_places(content, found, 1))) < BOMB_BYTES // 8


def test_readings_that_take_no_bytes_are_counted() -> None:
    """A header may say that there are as many as numbers go; its checksum agrees."""
    none = struct.pack("<BBqqI", 0, 0, 0, 0, 0)
    body = none * 6 + struct.pack("<BII", 0, 0, 0)
    content = chunk_codec._section(3, 1, Column.READINGS, 40_000_000, body)

    def decode() -> None:
        with pytest.raises(ChunkDamagedError):
            decode_readings(3, 1, 40_000_000, content)

    assert peak_of(decode) < BOMB_BYTES // 8


def test_a_header_of_more_rows_than_a_chunk_has_is_damage() -> None:
    """Whoever decodes its columns makes room for as many."""
    header_of = a_header()._replace(rows=ROWS)
    where = header_of.partition, header_of.first_sequence
    assert decode_header(*where, encode_header(header_of)).rows == ROWS
    with pytest.raises(ChunkDamagedError, match="what no header says"):
        decode_header(*where, encode_header(header_of._replace(rows=ROWS + 1)))


def test_a_block_of_lz4_becomes_no_more_than_it_can() -> None:
    """Whatever it says: of 100 bytes no gigabyte."""
    content = struct.pack("<BBqqI", 2, 8, 0, 0, 100) + bytes(100)
    with pytest.raises(DamagedError, match="cannot become"):
        Reader(content).ints(2**25)


def test_bytes_that_are_not_there_are_not_made_room_for() -> None:
    """Nor is what is before the first."""
    for start, size in ((0, 2**40), (-1, 1), (5, -1), (2**62, 1), (9, 2)):
        with pytest.raises(DamagedError, match="has 10 bytes"):
            read_at(io.BytesIO(bytes(10)), start, size)


def test_row_groups_of_long_texts_are_not_gathered(tmp_path: Path) -> None:
    """A join takes memory of some row groups, by their bytes and not by rows alone; nothing else is other."""
    with ExitStack() as files:
        entries, chunks, memory = whole(4, 40_000)
        parts = [archived(files, tmp_path / str(at), entries, [chunk], [1])[:2] for at, chunk in enumerate(chunks)]
        blobs = [(archive, [index.blob(at) for at in range(index.chunks)]) for archive, index in parts]
        found = {}
        for most in (BUFFER_BYTES, 1, parts[0][0].raw_bytes_of(0) * 2):
            fresh = tmp_path / f"fresh-{most}"
            name, index_bytes, joined_facts = join(fresh, blobs, Compression.LZ4, most)
            with opened(name, fresh.open("rb"), io.BytesIO(index_bytes)) as (joined, _):
                found[most] = int(joined.table.is_data.sum()), joined_facts, prove(joined).merkle_root
        groups = [each[0] for each in found.values()]
        assert groups[0] < groups[2] < groups[1] == len(chunks)
        assert len({each[2] for each in found.values()}) == 1
        assert memory
