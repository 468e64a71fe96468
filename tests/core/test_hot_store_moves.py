"""Chunks that go away from the hot store and come back: what is held is read, what is away is no damage."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lifecycle import hot_keys
from lifecycle.chunk_codec import decode_applied, decode_header, decode_rows, encode_header
from lifecycle.chunks import ChunkAwayError, ChunkBytes, ChunkDamagedError, Column, StoreDamagedError
from lifecycle.hot_database import HotStoreDamagedError
from lifecycle.hot_store import HotStore, LastChunkError
from lifecycle.whole_store import NoSuchChunkError
from schemas.errors import BadInputError, UnreachableError
from tests.core.test_hot_store import (
    PARTITIONS,
    ROOT,
    check_all,
    chunks_of,
    injure,
    large_chunk,
    read_all,
    write_all,
)
from tests.core.test_store import bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lifecycle.store import Sealed


@pytest.fixture(scope="module")
def chunks() -> list[Sealed]:
    """Of two partitions, in the order in which they are written."""
    both = [chunks_of(partition, partition + 1, 2500, jumps=0.1) for partition in PARTITIONS]
    assert min(map(len, both)) > 20
    return [chunk for pair in zip(*both, strict=False) for chunk in pair]


def bytes_of(chunk: Sealed) -> ChunkBytes:
    """As an archive would give it back."""
    return ChunkBytes(chunk.first_sequence, chunk.header, chunk.sections)


def of(partition: int, chunks: Iterable[Sealed]) -> list[Sealed]:
    """Those of a partition."""
    return [chunk for chunk in chunks if chunk.partition == partition]


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def check(store: HotStore, chunks: Iterable[Sealed], away: Iterable[tuple[int, int]]) -> None:
    """What is held reads as it was written, what is away is told to be; lines stand for all."""
    gone = set(away)
    for partition in PARTITIONS:
        mine = of(partition, chunks)
        lines = store.lines(partition)
        assert [line[:-1] for line in lines] == [
            (c.number, c.first_sequence, c.last_sequence, c.first_index, c.last_index, c.rows) for c in mine
        ]
        assert store.away(partition).tolist() == sorted(first for where, first in gone if where == partition)
        assert store.begins(partition) == (mine[0].first_sequence if mine else None)
        for line, chunk in zip(lines, mine, strict=True):
            where = partition, chunk.first_sequence
            assert line.held == (where not in gone)
            if line.held:
                header = store.header(*where)
                assert bits(header) == bits(decode_header(*where, chunk.header))
                assert bits(store.rows(header)) == bits(decode_rows(*where, chunk.rows, chunk.sections))
                continue
            for ask in (lambda: store.header(*where), lambda: store.column(*where, Column.VALUE)):  # noqa: B023
                with pytest.raises(ChunkAwayError) as told:
                    ask()
                assert (told.value.partition, told.value.first_sequence) == where
        if mine:
            assert store.applied(partition) == decode_applied(partition, mine[-1].applied)
            rows = decode_rows(partition, mine[-1].first_sequence, mine[-1].rows, mine[-1].sections)
            assert store.last_row(partition) == (rows.index[-1], rows.chain_hash[-1].tobytes())


def test_what_was_sent_away_is_away_until_it_is_back(tmp_path: Path, chunks: list[Sealed]) -> None:
    """At once, after another opening, and for a reader beside the writer; twice is once."""
    folder = tmp_path / "s"
    write_all(folder, chunks)
    firsts = [chunk.first_sequence for chunk in of(5, chunks)]
    gone = [(5, firsts[1]), (5, firsts[3]), (5, firsts[-2])]
    store = HotStore.open(folder)
    store.send_away(5, [])
    check(store, chunks, [])
    store.send_away(5, [first for _, first in gone])
    store.send_away(5, [firsts[3]])
    check(store, chunks, gone)
    with pytest.raises(ChunkAwayError):
        store.headers(5)
    store.close()
    for opening in (HotStore.open_read_only, HotStore.open):
        store = opening(folder)
        check(store, chunks, gone)
        if opening is HotStore.open_read_only:
            store.close()
    back = {chunk.first_sequence: bytes_of(chunk) for chunk in of(5, chunks)}
    store.bring_back(5, [back[firsts[3]], back[firsts[3]], back[firsts[0]]])  # the last was never away
    check(store, chunks, [gone[0], gone[2]])
    store.bring_back(5, [back[first] for _, first in gone])
    check_all(store, chunks)
    store.close()
    store = HotStore.open(folder)
    check_all(store, chunks)
    store.close()


def test_who_asks_can_tell_away_from_damaged() -> None:
    """And from a store that begins later: what is away is read elsewhere, what is damaged is made again."""
    assert issubclass(ChunkAwayError, UnreachableError)
    assert not issubclass(ChunkAwayError, StoreDamagedError)


def test_what_lies_before_the_first_chunk_is_away(tmp_path: Path, chunks: list[Sealed]) -> None:
    """And all of a partition that has none; what lies within, and is not there, is damage."""
    mine = of(0, chunks)
    write_all(tmp_path / "s", mine[2:])
    store = HotStore.open(tmp_path / "s")
    for partition, first_sequence in ((0, 1), (0, mine[1].first_sequence), (3, 1)):
        with pytest.raises(ChunkAwayError):
            store.header(partition, first_sequence)
    with pytest.raises(ChunkDamagedError):
        store.header(0, mine[2].first_sequence + 1)
    store.close()


def test_the_last_chunk_stays(tmp_path: Path, chunks: list[Sealed]) -> None:
    """Nothing of a list that cannot be sent away is; once another follows, it can."""
    mine = of(0, chunks)
    store = HotStore.open(tmp_path / "s")
    store.write(mine[:3])
    with pytest.raises(LastChunkError, match="is the last of its partition") as last:
        store.send_away(0, [mine[0].first_sequence, mine[2].first_sequence])
    assert (last.value.partition, last.value.first_sequence) == (0, mine[2].first_sequence)
    for first_sequence in (2, mine[3].first_sequence):
        with pytest.raises(NoSuchChunkError, match="never had it"):
            store.send_away(0, [mine[0].first_sequence, first_sequence])
    with pytest.raises(NoSuchChunkError):
        store.send_away(3, [1])
    check(store, mine[:3], [])
    store.write(mine[3:4])
    store.send_away(0, [chunk.first_sequence for chunk in mine[:3]])
    check(store, mine[:4], [(0, chunk.first_sequence) for chunk in mine[:3]])
    store.close()


def _flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _changed(chunk: ChunkBytes, changes: Mapping[Column, bytes | None]) -> ChunkBytes:
    sections = {**chunk.sections, **changes}
    return chunk._replace(sections={column: section for column, section in sections.items() if section is not None})


def test_only_the_chunk_itself_comes_back(tmp_path: Path, chunks: list[Sealed]) -> None:
    """What is cut, flipped, short or another's is refused, all of the list; and it is not the store that is damaged."""
    mine = [bytes_of(chunk) for chunk in of(0, chunks)]
    gone, other = mine[2], mine[3]
    where = 0, gone.first_sequence
    shorter = decode_header(*where, gone.header)
    shorter = shorter._replace(last_sequence=shorter.last_sequence - 1)
    readings = {Column.READINGS: None if Column.READINGS in gone.sections else b"?"}
    wrong = [
        gone._replace(header=_flipped(gone.header)),
        gone._replace(header=other.header),
        gone._replace(header=encode_header(shorter)),
        gone._replace(sections=other.sections),
        gone._replace(sections={}),
        _changed(gone, {Column.VALUE: _flipped(gone.sections[Column.VALUE])}),
        _changed(gone, {Column.VALUE: gone.sections[Column.VALUE][:-1]}),
        _changed(gone, {Column.VALUE: gone.sections[Column.LOCAL_US]}),
        _changed(gone, {Column.PAYLOAD: None}),
        _changed(gone, readings),
        bytes_of(of(5, chunks)[2])._replace(first_sequence=gone.first_sequence),
        gone._replace(first_sequence=gone.first_sequence + 1),
    ]
    folder = tmp_path / "s"
    write_all(folder, chunks)
    store = HotStore.open(folder)
    store.send_away(0, [mine[1].first_sequence, gone.first_sequence])
    for chunk in wrong:
        with pytest.raises(NoSuchChunkError) as told:
            store.bring_back(0, [mine[1], chunk])
        assert isinstance(told.value, BadInputError)
    check(store, chunks, [(0, mine[1].first_sequence), where])
    store.bring_back(0, [mine[1], gone])
    check_all(store, chunks)
    store.close()


# --------------------------------------------------------------------------------------------------------------- plans


class _Plan:
    """A store, and a dictionary of what it should hold."""

    def __init__(self, seed: int, folder: Path, chunks: list[Sealed]) -> None:
        self._rng, self._folder = random.Random(seed), folder
        self._left = list(chunks)
        self._written: list[Sealed] = []
        self._away: set[tuple[int, int]] = set()
        self._store = HotStore.open(folder)

    def run(self, steps: int) -> None:
        """So many steps, looking after each few."""
        acts = (self._write, self._write, self._send, self._send, self._bring, self._flush, self._reopen, self._reclaim)
        for step in range(steps):
            self._rng.choice(acts)()
            if step % 5 == 4:
                check(self._store, self._written, self._away)
        self._store.close()

    def _write(self) -> None:
        count = self._rng.randrange(4)
        self._store.write(self._left[:count])
        self._written += self._left[:count]
        del self._left[:count]

    def _some(self, partition: int) -> list[Sealed]:
        mine = of(partition, self._written)
        return self._rng.sample(mine, self._rng.randint(0, len(mine)))

    def _send(self) -> None:
        partition = self._rng.choice(PARTITIONS)
        chosen = self._some(partition)
        last = of(partition, self._written)[-1:]
        firsts = [chunk.first_sequence for chunk in chosen]
        if last and last[0] in chosen:
            with pytest.raises(LastChunkError):
                self._store.send_away(partition, firsts)
            return
        self._store.send_away(partition, firsts)
        self._away |= {(partition, first) for first in firsts}

    def _bring(self) -> None:
        partition = self._rng.choice(PARTITIONS)
        chosen = self._some(partition)
        self._store.bring_back(partition, map(bytes_of, chosen))
        self._away -= {(partition, chunk.first_sequence) for chunk in chosen}

    def _flush(self) -> None:
        self._store.flush()

    def _reclaim(self) -> None:
        self._store.reclaim()

    def _reopen(self) -> None:
        self._store.close()
        self._store = HotStore.open(self._folder)


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_moves_is_that_of_a_dictionary(seed: int, tmp_path: Path, chunks: list[Sealed]) -> None:
    """Written, sent away, brought back, flushed, opened again, reclaimed."""
    _Plan(seed, tmp_path / "s", chunks).run(40)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 112))
def test_any_order_of_moves_is_that_of_a_dictionary_at_length(seed: int, tmp_path: Path, chunks: list[Sealed]) -> None:
    """As above, longer."""
    _Plan(seed, tmp_path / "s", chunks).run(150)


def test_a_chunk_that_moves_while_it_is_read_is_there_or_away(tmp_path: Path, chunks: list[Sealed]) -> None:
    """Never damaged: the store would be thrown away for it."""
    store = HotStore.open(tmp_path / "s")
    store.write(chunks)
    moved = of(0, chunks)[1]
    where = 0, moved.first_sequence
    stopped = threading.Event()

    def move() -> None:
        while not stopped.is_set():
            store.send_away(0, [moved.first_sequence])
            store.bring_back(0, [bytes_of(moved)])

    mover = threading.Thread(target=move)
    mover.start()
    told = 0
    try:
        for _ in range(3_000):
            try:
                assert store.header(*where).rows == moved.rows
                assert store.column(*where, Column.VALUE) == moved.sections[Column.VALUE]
            except ChunkAwayError:
                told += 1
    finally:
        stopped.set()
        mover.join()
    assert told
    store.close()


# --------------------------------------------------------------------------------------------------------------- space


@pytest.mark.parametrize("order", ["holes", "oldest"])
def test_the_space_of_what_was_sent_away_comes_back(order: str, tmp_path: Path) -> None:
    """Nine of ten chunks gone, wherever they were, leave less than three tenths; what is left reads whole."""
    folder, count = tmp_path / "s", 60
    large = [large_chunk(5, number) for number in range(count)]
    store = HotStore.open(folder)
    for chunk in large:
        store.write([chunk])
    store.flush()
    full = size_of(folder)
    assert full > count * 1_000_000
    gone = random.Random(1).sample(large[:-1], count * 9 // 10) if order == "holes" else large[: count * 9 // 10]
    store.send_away(5, [chunk.first_sequence for chunk in gone])
    store.reclaim()
    assert size_of(folder) < 0.3 * full
    away = [(5, chunk.first_sequence) for chunk in gone]
    check(store, large, away)
    store.close()
    store = HotStore.open(folder)
    check(store, large, away)
    store.bring_back(5, map(bytes_of, gone))
    check_all(store, large)
    store.close()


def test_little_that_is_gone_is_not_worth_the_writing(tmp_path: Path) -> None:
    """Blob files of which most is left stay as they are."""
    folder = tmp_path / "s"
    large = [large_chunk(5, number) for number in range(20)]
    store = HotStore.open(folder)
    store.write(large)
    store.flush()
    before = {file.name for file in folder.rglob("*.blob")}
    store.send_away(5, [large[3].first_sequence])
    store.reclaim()
    assert {file.name for file in folder.rglob("*.blob")} == before
    check(store, large, [(5, large[3].first_sequence)])
    store.close()


# -------------------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory, chunks: list[Sealed]) -> tuple[Path, set[tuple[int, int]]]:
    """A store that was closed, half of it away and some of that back, and what is away."""
    folder = tmp_path_factory.mktemp("holed") / "lane-0"
    write_all(folder, chunks)
    rng = random.Random(3)
    store = HotStore.open(folder)
    gone: set[tuple[int, int]] = set()
    for partition in PARTITIONS:
        mine = of(partition, chunks)
        sent = rng.sample(mine[:-1], len(mine) // 2)
        store.send_away(partition, [chunk.first_sequence for chunk in sent])
        store.flush()
        store.bring_back(partition, map(bytes_of, sent[:2]))
        gone |= {(partition, chunk.first_sequence) for chunk in sent[2:]}
    store.close()
    return folder, gone


def answers_or_damage(folder: Path, chunks: list[Sealed], gone: set[tuple[int, int]]) -> bool:
    """Whether damage was told; what is held is told to be away as little as the other way round."""
    try:
        store = HotStore.open(folder)
    except StoreDamagedError:
        return True
    try:
        check(store, chunks, gone)
    except StoreDamagedError:
        return True
    finally:
        with contextlib.suppress(StoreDamagedError):
            store.close()
    return False


def check_injuries(
    times: int, seed: int, holed: tuple[Path, set[tuple[int, int]]], tmp_path: Path, chunks: list[Sealed]
) -> int:
    """Injure so many copies; returns how often damage was told."""
    rng, told = random.Random(seed), 0
    for number in range(times):
        folder = tmp_path / str(number) / "lane-0"
        shutil.copytree(holed[0], folder)
        injure(rng, folder)
        told += answers_or_damage(folder, chunks, holed[1])
        shutil.rmtree(tmp_path / str(number))
    return told


def test_damage_beside_holes_is_told_or_harmless(
    holed: tuple[Path, set[tuple[int, int]]], tmp_path: Path, chunks: list[Sealed]
) -> None:
    """Flipped, cut, emptied and lost files: never a wrong answer, and no hole where there is none."""
    shutil.copytree(holed[0], tmp_path / "copy")
    assert not answers_or_damage(tmp_path / "copy", chunks, holed[1])
    assert check_injuries(10, 21, holed, tmp_path, chunks)


@pytest.mark.soak
def test_damage_beside_holes_is_told_or_harmless_two_hundred_times(
    holed: tuple[Path, set[tuple[int, int]]], tmp_path: Path, chunks: list[Sealed]
) -> None:
    """As above."""
    assert check_injuries(200, 22, holed, tmp_path, chunks) > 20


@pytest.mark.parametrize("change", ["header lost", "line says held", "last line says away", "flipped"])
def test_a_store_whose_lines_lie_is_not_opened(change: str, tmp_path: Path, chunks: list[Sealed]) -> None:
    """Even if RocksDB itself is content: what is held has a header, the last chunk is held."""
    folder, mine = tmp_path / "s", of(5, chunks)
    write_all(folder, chunks)
    store = HotStore.open(folder)
    store.send_away(5, [mine[1].first_sequence])
    lines = {line.first_sequence: line for line in store.lines(5)}
    if change == "header lost":
        del store._database._rocks[hot_keys.header_key(5, mine[0].first_sequence)]
    else:
        number, held = {"line says held": (1, 1), "last line says away": (-1, 0), "flipped": (0, 0)}[change]
        key = hot_keys.line_key(5, mine[number].first_sequence)
        line = bytearray(hot_keys.packed_line(5, lines[mine[number].first_sequence]._replace(held=held)))
        line[2] ^= change == "flipped"
        store._database._rocks[key] = bytes(line)
    store._database.flush()
    store._database.close()
    for opening in (HotStore.open, HotStore.open_read_only):
        with pytest.raises((HotStoreDamagedError, ChunkDamagedError)) as kept:
            opening(folder)
    assert kept.value.__traceback__ is not None
    HotStore.discard(folder)
    write_all(folder, chunks)  # whoever keeps the error keeps nothing open


# --------------------------------------------------------------------------------------------------------------- crash


def move_until_killed(folder: str) -> None:
    """Send away and bring back without end."""
    store, rng = HotStore.open(Path(folder)), random.Random()
    large = [large_chunk(5, number) for number in range(25)]
    applied = store.applied(5)
    if applied is None:
        store.write(large[:20])
        store.flush()
    for number in range(10_000):
        some = rng.sample(large[:19], 5)
        if number % 2:
            store.send_away(5, [chunk.first_sequence for chunk in some])
        else:
            store.bring_back(5, map(bytes_of, some))
        if number % 7 == 0:
            store.flush()
        if number % 20 == 19:
            store.reclaim()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def test_a_store_that_is_killed_among_moves_goes_on(tmp_path: Path) -> None:
    """Each chunk is there or away, as a whole, and can be moved again."""
    folder = tmp_path / "s"
    program = f"from tests.core.test_hot_store_moves import move_until_killed; move_until_killed({str(folder)!r})"
    large = [large_chunk(5, number) for number in range(20)]
    for moves in (3, 25, 41):
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while int(process.stdout.readline()) < moves:
                pass
            process.send_signal(signal.SIGKILL)
        store = HotStore.open(folder)
        away = [(5, first) for first in store.away(5).tolist()]
        check(store, large, away)
        store.close()
    store = HotStore.open(folder)
    store.bring_back(5, map(bytes_of, large))
    assert read_all(store) == len(large)
    check_all(store, large)
    store.close()
