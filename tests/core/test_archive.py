"""Archives against the ledger they are of: whatever was in it comes back byte for byte, and any change is found."""

from __future__ import annotations

import io
import random
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lifecycle import archiving
from lifecycle.archive import opened
from lifecycle.archive_facts import Compression
from lifecycle.archive_index import Blob, Index
from lifecycle.archive_table import data_of
from lifecycle.archiving import Builder, ChainError, check_joined, gathered, join
from lifecycle.chunk_codec import decode_header, decode_readings
from lifecycle.chunks import ROWS, ChunkBytes, Column
from lifecycle.packing import DamagedError, Texts, texts_of
from lifecycle.proving import entries_in, prove
from lifecycle.reindexing import index_again
from lifecycle.sealing import KeyIs, TooMuchAtOnceError, copied
from lifecycle.store import Store
from schemas.canonical import EntryKind, ValueState, canonical_headers
from schemas.columns import allocate_entries, slice_rows
from schemas.errors import DriftledgerError
from schemas.memory import address_of
from schemas.merkle import span_of
from streams.judge import Judge
from streams.sequence import ZERO_HASH, Break, Head, encode, head_of, relink, verify
from tests.core.judge_histories import history
from tests.core.judge_oracle import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lifecycle.archive import ArchiveFile
    from lifecycle.archive_facts import Facts
    from lifecycle.store import Sealed
    from schemas.columns import Entries

PARTITION = 3


def ledger_of(seed: int, length: int) -> tuple[Ledger, NDArray[np.uint8]]:
    """An invented ledger whose hashes are right, with headers and erased values; and where the headers are."""
    rng = random.Random(seed)
    ledger = Ledger(history(seed, length))
    entries = ledger.entries
    some: list[list[tuple[str | bytes, bytes | None]]] = [[], [], [("h", b"x")], [("", None), (b"\xff", b"")]]
    parts = [canonical_headers(rng.choice(some)) for _ in range(entries.index.size)]
    memory = np.frombuffer(b"".join(parts) + b"\0", np.uint8)
    entries.headers_length[:] = [len(part) for part in parts]
    starts = np.cumsum(entries.headers_length) - entries.headers_length
    entries.headers_address[:] = np.where(entries.headers_length > 0, starts + address_of(memory), 0)
    erased = np.array([rng.random() < 0.02 for _ in parts]) & (entries.kind == EntryKind.DATA)
    erased &= entries.value_state == ValueState.PRESENT
    entries.value_state[erased] = ValueState.ERASED
    entries.value_address[erased] = 0
    relink(ZERO_HASH, entries)
    return ledger, memory


def chunks_of(entries: Entries) -> list[Sealed]:
    """What the hot store has of them."""
    judge, fold = Judge(), Store()
    state = fold.new_state(PARTITION)
    return fold.step(state, entries, judge.step(judge.new_state(PARTITION), entries))


def stored(chunks: list[Sealed]) -> list[ChunkBytes]:
    """As they are archived."""
    return [ChunkBytes(chunk.first_sequence, chunk.header, chunk.sections) for chunk in chunks]


def blob_of(chunk: Sealed) -> Blob:
    """What an index has of a chunk."""
    return Blob(chunk.first_sequence, chunk.header, chunk.sections.get(Column.READINGS, b""))


def key_by_source(entries: Entries, chunks: list[Sealed]) -> Texts:
    """Give every second event its source for a key, as producers do; returns what the keys point into."""
    rows, sources, _ = gathered(PARTITION, stored(chunks))
    names = texts_of(sources)
    readable = np.flatnonzero(rows.source >= 0)[::2]
    codes, at = rows.source[readable], np.flatnonzero(entries.kind == EntryKind.DATA)[readable]
    entries.key_address[at] = names.offsets[:-1].astype(np.int64)[codes] + address_of(names.content)
    entries.key_length[at] = np.diff(names.offsets)[codes]
    relink(ZERO_HASH, entries)
    return names


def between(entries: Entries, first_index: int, last_index: int) -> Entries:
    """Those with these indexes, inclusive."""
    return slice_rows(entries, first_index - 1, last_index)


def archived(
    open_files: ExitStack,
    folder: Path,
    entries: Entries,
    chunks: list[Sealed],
    groups: list[int],
    compression: Compression = Compression.LZ4,
) -> tuple[ArchiveFile, Index, Facts]:
    """Chunks as an archive, so many to each row group, opened."""
    first_index = chunks[0].first_index
    before = head_of(entries, first_index - 2) if first_index > 1 else Head()
    folder.mkdir(exist_ok=True)
    order_ms = decode_header(PARTITION, chunks[0].first_sequence, chunks[0].header).order_ms
    builder = Builder(folder / "fresh", PARTITION, before, order_ms, compression)
    for start, end in pairwise([0, *np.cumsum(groups).tolist()]):
        part = chunks[start:end]
        builder.add(stored(part), between(entries, part[0].first_index, part[-1].last_index))
    name, index, facts = builder.close()
    (folder / "fresh").rename(folder / name)
    (folder / "index").write_bytes(index)
    return *opened_in(open_files, folder, name), facts


def opened_in(open_files: ExitStack, folder: Path, name: str) -> tuple[ArchiveFile, Index]:
    """An archive and its index."""
    return open_files.enter_context(opened(name, (folder / name).open("rb"), (folder / "index").open("rb")))


@pytest.fixture
def open_files() -> Iterator[ExitStack]:
    """What is closed at the end of a test."""
    with ExitStack() as stack:
        yield stack


def bytes_of(entries: Entries) -> bytes:
    """As they stand in the ledger."""
    encoded, starts = encode(entries)
    return encoded[: starts[-1]].tobytes()


def bytes_in(archive: ArchiveFile) -> bytes:
    """All entries of an archive, as they stand in the ledger."""
    return b"".join(bytes_of(entries) for _, _, entries in entries_in(archive))


def read_whole(archive: ArchiveFile, index: Index) -> None:
    """Prove an archive, and look at all that its index has."""
    prove(archive)
    for number in range(index.chunks):
        first, header, readings = index.blob(number)
        count = decode_header(PARTITION, first, header).readings
        if count:
            decode_readings(PARTITION, first, count, readings)


def whole(seed: int, length: int) -> tuple[Entries, list[Sealed], object]:
    """A ledger, its chunks, the last of which may be less than all of it, and what it points into."""
    ledger, memory = ledger_of(seed, length)
    entries = ledger.entries
    names = key_by_source(entries, chunks_of(entries))
    return entries, chunks_of(entries), (ledger, memory, names)


@pytest.mark.parametrize("seed", range(4))
def test_a_ledger_comes_back_from_an_archive_byte_for_byte(open_files: ExitStack, tmp_path: Path, seed: int) -> None:
    """Poison, forgeries, other framings, exchanges, headers, erased values, control entries."""
    entries, chunks, memory = whole(seed, 20_000)
    assert verify(Head(), entries)[1:] == (-1, Break.NONE)
    assert len(chunks) >= 2
    compression = random.Random(seed).choice(list(Compression))
    archive, index, facts = archived(open_files, tmp_path, entries, chunks, [1] * len(chunks), compression)
    last = chunks[-1].last_index
    assert bytes_in(archive) == bytes_of(between(entries, 1, last))
    proof = prove(archive)
    assert proof.head == head_of(entries, last - 1) == facts.head
    leaves = [entries.chain_hash[row].tobytes() for row in range(last)]
    assert bytes.fromhex(proof.merkle_root) == span_of(0, leaves).root()
    for number, chunk in enumerate(chunks):
        assert index.blob(number) == blob_of(chunk)
    assert index_again((tmp_path / archive.name).open("rb"), archive.name) == (tmp_path / "index").read_bytes()
    assert memory


def test_what_tools_read_is_what_the_hot_tier_had(open_files: ExitStack, tmp_path: Path) -> None:
    """Every column of rows and verdicts."""
    entries, chunks, memory = whole(11, 12_000)
    archive, _, _ = archived(open_files, tmp_path, entries, chunks, [len(chunks)])
    kept, sources, kinds = gathered(PARTITION, stored(chunks))
    found, sealing, names = data_of(archive.read(0))
    assert set(KeyIs) == set(sealing.key_is.tolist())
    assert sealing.kept.any()
    assert not sealing.kept.all()
    readable = kept.fault == 0
    for name in ("value", "severity", "flags", "fault", "cause", "offset_us", "bound_us", "local_us", "has_value"):
        assert getattr(found, name)[readable].tobytes() == getattr(kept, name)[readable].tobytes(), name
    plain = pq.read_table(tmp_path / archive.name, page_checksum_verification=True)
    data = plain.filter(pc.equal(plain["entry"], "DATA"))
    assert data["sequence"].to_pylist() == kept.sequence.tolist()
    assert data["source"].to_pylist() == [None if code < 0 else sources[code].decode() for code in kept.source]
    assert names[1].strings() == tuple(kinds)
    assert memory


def test_rows_say_which_partition_they_are_of(
    open_files: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So files of several may be read together; it takes no room, and rows that say another are damage."""
    entries, chunks, memory = whole(12, 20_000)
    archive, _, _ = archived(open_files, tmp_path, entries, chunks, [len(chunks)])
    plain = pq.read_table(tmp_path / archive.name)
    assert plain.schema.field("partition").type == pa.int32()
    assert set(plain["partition"].to_pylist()) == {PARTITION}
    column = duckdb.read_parquet(str(tmp_path / archive.name)).project("partition")
    assert column.distinct().fetchall() == [(PARTITION,)]
    groups = range(archive.table.rows.size)
    assert sum(archive.bytes_of(group, "partition") for group in groups) < 100 * len(groups)
    for made_by in ("data_table", "control_table"):
        make = getattr(archiving, made_by)
        monkeypatch.setattr(archiving, made_by, lambda partition, *rest, _make=make: _make(partition + 1, *rest))
        wrong, found, _ = archived(open_files, tmp_path / made_by, entries, chunks, [len(chunks)])
        with pytest.raises(DamagedError, match="not of partition 3"):
            prove(wrong)
        with pytest.raises(DamagedError, match="not of partition 3"):
            join(tmp_path / "fresh", [(wrong, [found.blob(at) for at in range(found.chunks)])], Compression.LZ4)
        monkeypatch.undo()
    assert memory


@pytest.mark.parametrize("seed", range(3))
def test_row_groups_are_joined_up_to_what_a_job_may_gather(open_files: ExitStack, tmp_path: Path, seed: int) -> None:
    """Whatever the bound: the same entries, and no group of several that is larger."""
    entries, chunks, memory = whole(seed, 40_000)
    archive, found, facts = archived(open_files, tmp_path / "one", entries, chunks, [1] * len(chunks))
    parts = [(archive, [found.blob(at) for at in range(found.chunks)])]
    data = [group for group in range(archive.table.rows.size) if archive.table.is_data[group]]
    largest = max(archive.raw_bytes_of(group) for group in data)
    counts = []
    for bound in (1, 2 * largest, 2**40):
        name, index, again = join(tmp_path / "fresh", parts, Compression.LZ4, bound)
        (tmp_path / "fresh").rename(tmp_path / name)
        (tmp_path / "index").write_bytes(index)
        joined, _ = opened_in(open_files, tmp_path, name)
        check_joined(parts, joined, bound)
        assert again == facts
        assert bytes_in(joined) == bytes_in(archive)
        counts.append(int(joined.table.is_data.sum()))
    assert counts[0] == len(data) > counts[1] >= counts[2] == 1
    assert memory


@pytest.mark.parametrize("seed", range(3))
def test_archives_that_are_joined_are_those_of_the_whole(open_files: ExitStack, tmp_path: Path, seed: int) -> None:
    """Whatever they were cut into, and joined step by step."""
    entries, chunks, memory = whole(seed, 40_000)
    rng = random.Random(seed)
    cuts = sorted({0, len(chunks), *(rng.randrange(len(chunks)) for _ in range(3))})
    parts = [
        archived(open_files, tmp_path / str(start), entries, chunks[start:end], [1] * (end - start))[:2]
        for start, end in pairwise(cuts)
    ]
    blobs = [(archive, [found.blob(at) for at in range(found.chunks)]) for archive, found in parts]
    name, index, facts = join(tmp_path / "fresh", blobs, Compression.LZ4)
    (tmp_path / "fresh").rename(tmp_path / name)
    (tmp_path / "index").write_bytes(index)
    joined, found = opened_in(open_files, tmp_path, name)
    assert bytes_in(joined) == bytes_of(between(entries, 1, chunks[-1].last_index))
    assert prove(joined).head == facts.head
    check_joined(blobs, joined)
    if len(blobs) > 1:
        with pytest.raises(DamagedError):
            check_joined(blobs[1:], joined)
        with pytest.raises(DamagedError):
            check_joined(blobs[:-1], joined)
    once = archived(open_files, tmp_path / "once", entries, chunks, [len(chunks)])[2]
    assert facts == once
    assert [found.blob(at) for at in range(found.chunks)] == [blob_of(chunk) for chunk in chunks]
    assert int(joined.table.rows[0]) > ROWS
    assert index_again((tmp_path / name).open("rb"), name) == index
    assert memory


def test_only_neighbours_are_joined(open_files: ExitStack, tmp_path: Path) -> None:
    """A gap is an error, not an archive."""
    entries, chunks, memory = whole(5, 40_000)
    first, last = (archived(open_files, tmp_path / str(at), entries, [chunks[at]], [1]) for at in (0, 2))
    with pytest.raises(ChainError, match="does not follow"):
        join(tmp_path / "fresh", [(first[0], []), (last[0], [])], Compression.LZ4)
    assert memory


def test_entries_that_do_not_follow_are_not_archived(tmp_path: Path) -> None:
    """A changed value, and rows of another ledger."""
    entries, chunks, memory = whole(6, 20_000)
    chunk = chunks[0]
    part = between(entries, chunk.first_index, chunk.last_index)
    broken = part._replace(authority_ms=part.authority_ms.copy())
    broken.authority_ms[100] += 1
    builder = Builder(tmp_path / "one", PARTITION, Head(), -(2**63))
    with pytest.raises(ChainError, match="entry 101 of partition 3"):
        builder.add(stored([chunk]), broken)
    builder.abandon()
    builder = Builder(tmp_path / "two", PARTITION, Head(), -(2**63))
    with pytest.raises(ChainError, match="differ"):
        builder.add(stored([chunks[1]]), part)
    builder.abandon()
    assert memory


def test_a_flipped_bit_is_found_or_changes_nothing(open_files: ExitStack, tmp_path: Path) -> None:
    """Anywhere in the file or its index; so is each truncation at a sixteenth, and what is appended."""
    entries, chunks, memory = whole(7, 12_000)
    archive, _, _ = archived(open_files, tmp_path, entries, chunks, [1] * len(chunks))
    name, wanted = archive.name, bytes_in(archive)
    rng = random.Random(7)
    for path in (tmp_path / name, tmp_path / "index"):
        content = path.read_bytes()
        damaged = [content[: len(content) * part // 16] for part in range(16)] + [content + b"x", content + content]
        for _ in range(150):
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            damaged.append(bytes(flipped))
        detected = 0
        for change in damaged:
            path.write_bytes(change)
            try:
                with ExitStack() as files:
                    read_whole(*opened_in(files, tmp_path, name))
            except DriftledgerError:
                detected += 1
            else:
                with ExitStack() as files:
                    assert bytes_in(opened_in(files, tmp_path, name)[0]) == wanted
        assert detected >= len(damaged) - 4, (path.name, detected, len(damaged))
        path.write_bytes(content)
    assert memory


def test_an_index_is_not_made_again_of_a_damaged_archive(open_files: ExitStack, tmp_path: Path) -> None:
    """Where it is all the same, what is damaged is read by nobody; another file under the name is refused, too."""
    entries, chunks, memory = whole(8, 12_000)
    archive, index, _ = archived(open_files, tmp_path, entries, chunks, [1] * len(chunks))
    path, blobs = tmp_path / archive.name, [index.blob(at) for at in range(index.chunks)]
    content = path.read_bytes()
    other = archived(open_files, tmp_path / "other", entries, chunks, [1] * len(chunks), Compression.ZSTD)[0]
    rng = random.Random(8)
    damaged = [content[: len(content) * part // 16] for part in range(16)] + [content + b"x"]
    damaged.append((tmp_path / "other" / other.name).read_bytes())
    certain = len(damaged)
    for _ in range(150):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    detected = 0
    for number, change in enumerate(damaged):
        path.write_bytes(change)
        try:
            made = index_again(path.open("rb"), archive.name)
        except DamagedError:
            detected += 1
        else:
            assert number >= certain
            found = Index(io.BytesIO(made))
            assert [found.blob(at) for at in range(found.chunks)] == blobs
    assert detected >= len(damaged) - 8
    assert memory


def test_more_than_offsets_can_tell_apart_is_refused() -> None:
    """Before anybody makes room for it."""
    entries = allocate_entries(2)
    entries.headers_length[:] = 2**31 - 1, 1
    with pytest.raises(TooMuchAtOnceError, match="2,147,483,648 bytes"):
        copied(entries)
