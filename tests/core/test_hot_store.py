"""The hot tier on disk: what is read is what was written, or damage is told; whatever became of the files."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lifecycle import hot_database
from lifecycle.chunk_codec import (
    decode_applied,
    decode_header,
    decode_readings,
    decode_rows,
    encode_applied,
    encode_header,
    encode_rows,
)
from lifecycle.chunks import Applied, Column, Rows, StoreDamagedError
from lifecycle.hot_database import HotStoreDamagedError, HotStoreUnavailableError
from lifecycle.hot_store import HotStore
from lifecycle.packing import texts_of
from lifecycle.slots import claim_slot
from lifecycle.store import Sealed, Store
from streams.judge import Judge
from tests.core.test_chunks import a_header
from tests.core.test_store import bits, every, long_ledger

ROOT = Path(__file__).parents[2]
PARTITIONS = (0, 5)


def chunks_of(partition: int, seed: int, length: int, jumps: float = 0.02) -> list[Sealed]:
    """The chunks of a ledger of that partition."""
    judge, store = Judge(), Store()
    judged, state = judge.new_state(partition), store.new_state(partition)
    sealed: list[Sealed] = []
    for entries in long_ledger(seed, length, jumps).batches(every(200)):
        sealed += store.step(state, entries, judge.step(judged, entries))
    return sealed


@pytest.fixture(scope="module")
def chunks() -> list[Sealed]:
    """Of two partitions, in the order in which they are written."""
    both = [chunks_of(partition, partition + 1, 2500) for partition in PARTITIONS]
    return [chunk for pair in zip(*both, strict=False) for chunk in pair]


def write_all(folder: Path, chunks: list[Sealed], pieces: int = 5) -> None:
    """In so many flushes."""
    store = HotStore.open(folder)
    for piece in range(pieces):
        store.write(chunks[len(chunks) * piece // pieces : len(chunks) * (piece + 1) // pieces])
        store.flush()
    store.close()


def check_all(store: HotStore, chunks: list[Sealed]) -> None:
    """Every question has the answer that was written."""
    assert store.partitions() == sorted({chunk.partition for chunk in chunks})
    for partition in store.partitions():
        mine = [chunk for chunk in chunks if chunk.partition == partition]
        assert store.applied(partition) == decode_applied(partition, mine[-1].applied)
        headers = store.headers(partition)
        assert bits(tuple(headers)) == bits(tuple(decode_header(partition, c.first_sequence, c.header) for c in mine))
        for header, chunk in zip(headers, mine, strict=True):
            rows = decode_rows(partition, chunk.first_sequence, chunk.rows, chunk.sections)
            assert bits(store.rows(header)) == bits(rows)
            assert store.column(partition, chunk.first_sequence, Column.VALUE) == chunk.sections[Column.VALUE]
    assert read_all(store) == len(chunks)


def read_all(store: HotStore) -> int:
    """Every row and every reading; returns how many chunks there are."""
    headers = [header for partition in store.partitions() for header in store.headers(partition)]
    for header in headers:
        store.rows(header)
        where = header.partition, header.first_sequence
        if header.readings:
            decode_readings(*where, header.readings, store.column(*where, Column.READINGS))
    return len(headers)


def test_what_was_written_is_read(tmp_path: Path, chunks: list[Sealed]) -> None:
    """At once, after another opening, and by a reader beside the writer."""
    folder = tmp_path / "lane-0"
    store = HotStore.open(folder)
    assert (store.partitions(), store.applied(0), store.headers(0)) == ([], None, [])
    store.write([])
    store.write(chunks[:3])
    for chunk in chunks[3:]:
        store.write([chunk])
    check_all(store, chunks)
    store.flush()
    reader = HotStore.open_read_only(folder)
    check_all(reader, chunks)
    reader.close()
    store.close()
    again = HotStore.open(folder)
    check_all(again, chunks)
    later = [line.first_sequence for line in again.lines(5)][3:]
    assert [header.first_sequence for header in again.headers(5, later[0])] == later
    assert [line.first_sequence for line in again.lines(5, later[0], 2)] == later[:2]
    assert again.headers(5, later[-1] + 1) == again.headers(4) == []
    again.close()


def test_a_chunk_that_does_not_follow_is_refused(tmp_path: Path, chunks: list[Sealed]) -> None:
    """Neither one again nor one too far; nothing of the list is written."""
    mine = [chunk for chunk in chunks if chunk.partition == PARTITIONS[0]]
    store = HotStore.open(tmp_path / "s")
    store.write(mine[:2])
    for wrong in ([mine[1]], [mine[3]], [mine[2], mine[4]]):
        with pytest.raises(HotStoreDamagedError, match="does not follow"):
            store.write(wrong)
    assert read_all(store) == 2
    store.close()


def test_a_store_may_begin_with_any_chunk(tmp_path: Path, chunks: list[Sealed]) -> None:
    """What is before it lies elsewhere."""
    mine = [chunk for chunk in chunks if chunk.partition == PARTITIONS[1]]
    write_all(tmp_path / "s", mine[2:])
    store = HotStore.open(tmp_path / "s")
    assert store.lines(PARTITIONS[1])[0].number == 3
    check_all(store, mine[2:])
    store.close()


def test_a_store_that_was_not_begun_to_its_end_is_damaged(tmp_path: Path) -> None:
    """A folder without what `open` writes last is none that anybody flushed to."""
    (tmp_path / "s" / "rocksdb").mkdir(parents=True)
    for opening in (HotStore.open, HotStore.open_read_only):
        with pytest.raises(HotStoreDamagedError):
            opening(tmp_path / "s")


def test_one_process_at_a_time_has_a_store(tmp_path: Path) -> None:
    """The second is told so, which is no damage."""
    store = HotStore.open(tmp_path / "s")
    with pytest.raises(HotStoreUnavailableError, match="open elsewhere"):
        HotStore.open(tmp_path / "s")
    store.close()
    HotStore.open(tmp_path / "s").close()


def test_a_discarded_store_begins_anew(tmp_path: Path, chunks: list[Sealed]) -> None:
    """Also when an earlier one was not removed to its end; the next opening removes that."""
    folder = tmp_path / "s"
    write_all(folder, chunks)
    (tmp_path / "s.discarded-0").mkdir()
    HotStore.discard(folder)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.discarded-0"]
    write_all(folder, chunks)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s"]
    store = HotStore.open(folder)
    check_all(store, chunks)
    store.close()
    HotStore.discard(tmp_path / "none")


def test_what_the_system_refuses_is_told_as_such(tmp_path: Path, chunks: list[Sealed]) -> None:
    """A file where a folder should be, whoever put it there: it is not removed, and nothing is damaged by it."""
    folder, other = tmp_path / "s", tmp_path / "file"
    write_all(folder, chunks)
    other.write_text("not ours")
    for refused in (other, other / "s"):
        with pytest.raises(HotStoreUnavailableError, match="cannot be used"):
            HotStore.open(refused)
    with pytest.raises(HotStoreUnavailableError, match="cannot be used"):
        claim_slot(other)
    store = HotStore.open(folder)
    (folder / "FLUSHED.new").mkdir()
    with pytest.raises(HotStoreUnavailableError, match="cannot be used"):
        store.flush()
    (folder / "FLUSHED.new").rmdir()
    check_all(store, chunks)
    store.close()
    assert other.read_text() == "not ours"


def test_the_last_line_and_row_are_found(tmp_path: Path, chunks: list[Sealed]) -> None:
    """Of each partition; None where there is no chunk."""
    store = HotStore.open(tmp_path / "s")
    assert store.last_line(0) is None
    store.write(chunks)
    for partition in PARTITIONS:
        last = store.lines(partition)[-1]
        rows = store.rows(store.header(partition, last.first_sequence))
        assert store.last_line(partition) == last
        assert store.last_row(partition) == (rows.index[-1], rows.chain_hash[-1].tobytes())
    assert (store.last_line(3), store.last_row(3)) == (None, None)
    store.close()


# -------------------------------------------------------------------------------------------------------------- damage


class Injury(NamedTuple):
    """What was done to which file."""

    file: str
    how: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, chunks: list[Sealed]) -> Path:
    """A store that was closed, of several tables."""
    folder = tmp_path_factory.mktemp("whole") / "lane-0"
    write_all(folder, chunks)
    return folder


def injure(rng: random.Random, folder: Path) -> Injury:
    """Flip a bit of a file, cut it, or delete it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    kind = rng.choice((".sst", ".blob", "MANIFEST", "CURRENT", "OPTIONS", ".log", "FLUSHED", ""))
    file = rng.choice([file for file in files if kind in file.name])
    content = bytearray(file.read_bytes())
    how = rng.choice(("flip", "cut", "delete", "zero", "grow"))
    if how == "flip" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "cut" and content:
        del content[rng.randrange(len(content)) :]
    elif how == "zero" and content:
        start = rng.randrange(len(content))
        stop = min(len(content), start + rng.choice((1, 8, 4096)))
        content[start:stop] = bytes(stop - start)
    elif how == "grow":
        content += rng.randbytes(rng.choice((1, 100)))
    if how == "delete":
        file.unlink()
    else:
        file.write_bytes(content)
    return Injury(file.name, how)


def answers_or_damage(folder: Path, chunks: list[Sealed]) -> bool:
    """Whether damage was told; every answer that is given is the one that was written."""
    try:
        store = HotStore.open(folder)
    except StoreDamagedError:
        return True
    told = False
    try:
        for chunk in chunks:
            try:
                header = store.header(chunk.partition, chunk.first_sequence)
                assert bits(header) == bits(decode_header(chunk.partition, chunk.first_sequence, chunk.header))
                rows = store.rows(header)
                assert bits(rows) == bits(
                    decode_rows(chunk.partition, chunk.first_sequence, chunk.rows, chunk.sections)
                )
            except StoreDamagedError:
                told = True
        try:
            check_all(store, chunks)
        except StoreDamagedError:
            told = True
        else:
            assert not told  # what is read one by one is read there, too
    finally:
        try:
            store.close()
        except StoreDamagedError:
            told = True
    return told


def check_injuries(times: int, seed: int, whole: Path, tmp_path: Path, chunks: list[Sealed]) -> set[Injury]:
    """Injure so many copies; returns what was told."""
    rng = random.Random(seed)
    told = set()
    for number in range(times):
        folder = tmp_path / str(number) / "lane-0"
        shutil.copytree(whole, folder)
        injury = injure(rng, folder)
        if answers_or_damage(folder, chunks):
            told.add(injury)
            HotStore.discard(folder)
            write_all(folder, chunks, 1)
            assert not answers_or_damage(folder, chunks)
        shutil.rmtree(tmp_path / str(number))
    return told


def test_damage_is_told_or_harmless(whole: Path, tmp_path: Path, chunks: list[Sealed]) -> None:
    """Never a wrong answer, never a shorter one; rebuilt, the store answers again."""
    assert check_injuries(10, 11, whole, tmp_path, chunks)


@pytest.mark.soak
def test_damage_is_told_or_harmless_two_hundred_times(whole: Path, tmp_path: Path, chunks: list[Sealed]) -> None:
    """As above, in every file and in every way."""
    told = check_injuries(200, 12, whole, tmp_path, chunks)
    for kind in (".sst", ".blob", "MANIFEST", "CURRENT", "FLUSHED"):
        assert any(kind in injury.file for injury in told)


@pytest.mark.parametrize("kind", [".sst", ".blob", "MANIFEST", "CURRENT", "FLUSHED", "rocksdb"])
def test_a_file_that_is_gone_is_noticed(kind: str, whole: Path, tmp_path: Path, chunks: list[Sealed]) -> None:
    """Each kind of file that the rows need."""
    folder = tmp_path / "lane-0"
    shutil.copytree(whole, folder)
    if kind == "rocksdb":
        shutil.rmtree(folder / kind)
    else:
        next(file for file in sorted(folder.rglob("*")) if kind in file.name).unlink()
    assert answers_or_damage(folder, chunks)


@pytest.mark.parametrize("kind", [b"a", b"c", b"f", b"h", b"l"])
def test_a_key_that_is_gone_or_another_is_noticed(kind: bytes, tmp_path: Path, chunks: list[Sealed]) -> None:
    """Even if RocksDB itself is content."""
    for number, change in enumerate((None, b"", b"x" * 60, "next")):
        folder = tmp_path / str(number) / "s"
        folder.parent.mkdir()
        write_all(folder, chunks)
        store = HotStore.open(folder)
        keys = [key for key, _ in store._database.scan(kind, bytes([kind[0] + 1]))]
        if change is None:
            del store._database._rocks[keys[-1]]
        else:
            store._database._rocks[keys[-1]] = store._database._rocks[keys[0]] if change == "next" else change
        store._database.flush()
        store._database.close()
        assert answers_or_damage(folder, chunks)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Corruption: block checksum mismatch", HotStoreDamagedError),
        ("IO error: No such file or directory: While open a file", HotStoreDamagedError),
        ("IO error: No space left on device: While appending to file", HotStoreUnavailableError),
        ("IO error: Too many open files", HotStoreUnavailableError),
        ("IO error: While lock file: /BLOCK/rocksdb/LOCK: Resource temporarily unavailable", HotStoreUnavailableError),
        ("Corruption: block checksum mismatch in /BLOCK/rocksdb/000008.sst", HotStoreDamagedError),
    ],
)
def test_what_the_system_refuses_is_no_damage(text: str, told: type[Exception]) -> None:
    """A full disk must not cost the store, nor the name of its folder keep what is damaged."""
    assert type(hot_database._told(Path("/BLOCK"), OSError(text))) is told


def test_a_store_of_an_earlier_day_is_noticed(tmp_path: Path, chunks: list[Sealed]) -> None:
    """Tables that fall back behind what was flushed, as from a backup, are damage, not a shorter answer."""
    folder = tmp_path / "s"
    write_all(folder, chunks[:4])
    shutil.copytree(folder / "rocksdb", tmp_path / "early")
    store = HotStore.open(folder)
    store.write(chunks[4:])
    store.close()
    shutil.rmtree(folder / "rocksdb")
    shutil.move(tmp_path / "early", folder / "rocksdb")
    with pytest.raises(HotStoreDamagedError, match="was flushed up to"):
        HotStore.open(folder)


# --------------------------------------------------------------------------------------------------------------- crash


def large_chunk(partition: int, number: int) -> Sealed:
    """About 1 MiB that cannot be compressed, so that buffers are flushed while it is written."""
    rows, generator = 4, np.random.default_rng(number)
    zeros, small = np.zeros(rows, np.int64), np.zeros(rows, np.uint8)
    first = 4 * number + 1
    sequence = np.arange(first, first + rows)
    filled = Rows(
        sequence, sequence, zeros, zeros, zeros, zeros.astype(np.float64), small, small, small, small,
        zeros.astype(np.int32), zeros.astype(np.int32), texts_of([b"id"] * rows),
        texts_of([generator.bytes(300_000) for _ in range(rows)]), np.zeros((rows, 32), np.uint8), zeros, small,
        small, zeros, zeros,
    )  # fmt: skip
    header = a_header()._replace(
        partition=partition, first_sequence=first, last_sequence=first + 3, first_index=first, last_index=first + 3,
        rows=rows, readings=0,
    )  # fmt: skip
    return Sealed(
        *header[:6], number + 1, encode_header(header), encode_rows(partition, filled),
        encode_applied(partition, Applied(first + 3, first + 3, number + 1, 0)),
    )  # fmt: skip


def write_until_killed(folder: str) -> None:
    """Say before each chunk how many there are."""
    store = HotStore.open(Path(folder))
    applied = store.applied(2)
    number = 0 if applied is None else applied.chunks
    while True:
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        store.write([large_chunk(2, number)])
        number += 1


def killed_after(folder: Path, chunks: int) -> tuple[int, int]:
    """How many chunks a writing process began with, and had written for sure when it was killed."""
    program = f"from tests.core.test_hot_store import write_until_killed; write_until_killed({str(folder)!r})"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        began = written = int(process.stdout.readline())
        while written < began + chunks:
            written = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    return began, written


def test_a_killed_writer_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    """As of some earlier write, whole; nothing that it had before it was opened is lost."""
    folder, chunks = tmp_path / "s", 0
    for more in (40, 3, 70):
        began, written = killed_after(folder, more)
        assert began == chunks
        store = HotStore.open(folder)
        applied = store.applied(2)
        chunks = 0 if applied is None else applied.chunks
        assert chunks == read_all(store)
        assert began <= chunks <= written + 1
        store.close()
    assert chunks >= 30  # buffers are flushed on the way


def test_what_was_flushed_is_there_after_a_kill(tmp_path: Path) -> None:
    """That is what flush promises."""
    program = (
        "import os, signal; from pathlib import Path; from tests.core.test_hot_store import HotStore, large_chunk\n"
        f"store = HotStore.open(Path({str(tmp_path / 's')!r}))\n"
        "store.write([large_chunk(2, 0), large_chunk(2, 1)]); store.flush(); store.write([large_chunk(2, 2)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    store = HotStore.open(tmp_path / "s")
    assert read_all(store) >= 2
    store.close()
