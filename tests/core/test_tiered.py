"""Chunks in the hot store and in archives: what is asked is answered as if all lay in one place, or not at all."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.arrow import aggregates_table, ipc_bytes, rows_table
from lifecycle.chunk_codec import decode_header, read_section
from lifecycle.chunks import (
    Applied,
    ChunkAwayError,
    ChunkBytes,
    ChunkDamagedError,
    Column,
    Line,
    StoreDamagedError,
)
from lifecycle.drift_question import DriftQuestion
from lifecycle.hot_store import HotStore
from lifecycle.hot_tier import Place, Standing
from lifecycle.local import LocalPartitions
from lifecycle.owned import OwnedLane, OwnedPartitions
from lifecycle.planner import Aggregation, Question
from lifecycle.query import HotQueries
from lifecycle.tiered import ArchiveDamagedError, MissingChunkError, Tiered
from schemas.errors import UnreachableError
from schemas.instants import INT64_MAX
from streams.settings import Settings
from streams.windows import Frame
from tests.core import test_query
from tests.core.hot_rows import START_MS, DictionaryStore, many_rows, odd_rows
from tests.core.test_drift_rows import LENGTH, DriftPartition
from tests.core.test_drift_rows import DriftChunks as _Drift
from tests.core.test_hot_store import chunks_of, write_all
from tests.core.test_local import STORED, serve_ledger
from tests.core.test_query import FIELDS, SHAPES, SOURCES, aggregations, questions
from tests.core.test_store import bits, long_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lifecycle.catalog import Chunks, Unsealed
    from lifecycle.chunks import Header, Read
    from lifecycle.hot_tier import HotTier
    from lifecycle.store import Sealed
    from lifecycle.tiered import Archives, Hot


class _Kept:
    """What lies beside stores; reads that are told."""

    def __init__(self, archives: _Archives) -> None:
        self.archives = archives
        self.noted: dict[int, set[int]] = {}

    def note(self, partition: int, first_sequences: Iterable[int]) -> None:
        """Keep them."""
        self.noted.setdefault(partition, set()).update(first_sequences)


class _Archives:
    """Chunks in memory, of which the test may take some."""

    def __init__(self, headers: Iterable[Header], section: Callable[[int, int, Column], bytes]) -> None:
        self.chunks = {(header.partition, header.first_sequence): header for header in headers}
        self.section = section
        self.read = 0

    def refresh(self) -> None:
        """Nobody else has any."""

    def first_sequence(self, partition: int) -> int:
        """Of the first one."""
        firsts = [first for of, first in self.chunks if of == partition]
        return min(firsts, default=self.last_sequence(partition) + 1)

    def last_sequence(self, partition: int) -> int:
        """Of the last one."""
        return max((header.last_sequence for (of, _), header in self.chunks.items() if of == partition), default=0)

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """The next ones."""
        places = sorted(place for place in self.chunks if place[0] == partition and place[1] >= first_sequence)
        return [self.chunks[place] for place in places[:most]]

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """Of one of them."""
        if (partition, first_sequence) not in self.chunks:
            raise ChunkDamagedError(partition, first_sequence, column.name, "it is not there")
        self.read += 1
        return read_section(partition, first_sequence, column, rows, self.section(partition, first_sequence, column))


class _Hot:
    """Some chunks of a dictionary as a hot store has them: from some chunk on, but for those that are away."""

    def __init__(self, content: DictionaryStore, begins: dict[int, int], away: set[tuple[int, int]]) -> None:
        self._content, self._begins, self.gone = content, begins, away

    def applied(self, partition: int) -> Applied | None:
        """Up to the end, where there is a chunk."""
        headers = self._content.headers(partition, 1, 10**6)
        if self.begins(partition) is None:
            return None
        return Applied(headers[-1].last_index, headers[-1].last_sequence, len(headers), 0)

    def begins(self, partition: int) -> int | None:
        """As said."""
        return self._begins.get(partition)

    def away(self, partition: int) -> NDArray[np.int64]:
        """As said."""
        return np.array(sorted(first for of, first in self.gone if of == partition), np.int64)

    def lines(self, partition: int, first_sequence: int, most: int) -> list[Line]:
        """Of all from the first on."""
        begins = self.begins(partition)
        if begins is None:
            return []
        return [
            Line(0, *header[1:6], (partition, header.first_sequence) not in self.gone)
            for header in self._content.headers(partition, max(first_sequence, begins), most)
        ]

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """All, or none."""
        return [self.header(partition, line.first_sequence) for line in self.lines(partition, first_sequence, most)]

    def header(self, partition: int, first_sequence: int) -> Header:
        """Where it is held."""
        self._check_held(partition, first_sequence)
        return self._content.headers(partition, first_sequence, 1)[0]

    def column(self, partition: int, first_sequence: int, column: Column) -> bytes:
        """Where it is held."""
        self._check_held(partition, first_sequence)
        return self._content.section(partition, first_sequence, column)

    def _check_held(self, partition: int, first_sequence: int) -> None:
        begins = self.begins(partition)
        if begins is None or first_sequence < begins or (partition, first_sequence) in self.gone:
            raise ChunkAwayError(partition, first_sequence)


class _Union(Tiered):
    """With partitions and rows that are in no chunk, as a question needs them."""

    def __init__(self, plain: Chunks, hot: Hot | None, archives: Archives | None) -> None:
        super().__init__(hot, archives)
        self._plain = plain

    def partitions(self) -> Iterable[int]:
        """All."""
        return self._plain.partitions()

    def unsealed(self, partition: int) -> Unsealed | None:
        """Of the dictionary."""
        return self._plain.unsealed(partition)


def scattered(content: DictionaryStore, seed: int) -> tuple[_Hot, _Archives]:
    """Chunks here and there; archives also have some that are held, as those have that were brought back."""
    rng = random.Random(seed)
    begins: dict[int, int] = {}
    away: set[tuple[int, int]] = set()
    archived: list[Header] = []
    for partition in content.partitions():
        headers = content.headers(partition, 1, 10**6)
        first = rng.choice((0, 0, rng.randint(0, len(headers))))  # all of them: the store has no chunk
        share = rng.choice((0.0, 0.3, 0.9))
        gone = [at for at in range(first, len(headers) - 1) if rng.random() < share]
        if first < len(headers):
            begins[partition] = headers[first].first_sequence
        away |= {(partition, headers[at].first_sequence) for at in gone}
        archived += headers[: rng.randint(max([first, *(at + 1 for at in gone)]), len(headers))]
    return _Hot(content, begins, away), _Archives(archived, content.section)


def union_of(content: DictionaryStore, seed: int) -> _Union:
    """As scattered."""
    return _Union(content, *scattered(content, seed))


# ------------------------------------------------------------------------------------------------------------- answers


@given(questions(), aggregations, st.integers(0, 10**6))
@settings(max_examples=60)
def test_aggregates_are_those_of_one_store(asking: tuple[int, Question], aggregation: Aggregation, seed: int) -> None:
    """To the bit, with all that explains but where it came from."""
    shape, question = asking
    store = test_query.made(shape)[0]
    union = union_of(store, seed)
    for memory in ({}, {"header_bytes_max": 0, "column_bytes_max": 0}):
        expected = HotQueries(store, **memory).aggregate(question, aggregation)
        found = HotQueries(union, **memory).aggregate(question, aggregation)
        assert ipc_bytes(aggregates_table(found)) == ipc_bytes(aggregates_table(expected))
        assert _explained(found) == _explained(expected)
        explain = found.explain
        assert explain.chunks_archived <= explain.chunks_statistics + explain.chunks_edges + explain.chunks_rows


def _explained(answer: Any) -> Any:
    return replace(answer.explain, elapsed_us=0, headers_read=0, chunks_archived=0)


@given(questions(), st.integers(1, 400), st.integers(0, 10**6))
@settings(max_examples=40)
def test_rows_are_those_of_one_store(asking: tuple[int, Question], limit: int, seed: int) -> None:
    """All fields, in order."""
    shape, question = asking
    store = test_query.made(shape)[0]
    expected = HotQueries(store).range(question, FIELDS, limit)
    found = HotQueries(union_of(store, seed)).range(question, FIELDS, limit)
    assert ipc_bytes(rows_table(found)) == ipc_bytes(rows_table(expected))
    assert (found.more, _explained(found)) == (expected.more, _explained(expected))


@given(st.integers(0, len(SHAPES) - 1), st.sampled_from(SOURCES), st.sampled_from(Frame), st.integers(0, 10**6))
@settings(max_examples=40)
def test_the_last_event_is_that_of_one_store(shape: int, source: bytes, frame: Frame, seed: int) -> None:
    """At any time."""
    store = test_query.made(shape)[0]
    plain, queries = HotQueries(store), HotQueries(union_of(store, seed))
    for at_us in (None, *(START_MS * 1_000 + minutes * 60_000_000 for minutes in (0, 58, 61, 75, 10**6))):
        expected, found = plain.get(source, at_us, frame), queries.get(source, at_us, frame)
        assert ipc_bytes(rows_table(found)) == ipc_bytes(rows_table(expected))
        assert _explained(found) == _explained(expected)


class _Stored(NamedTuple):
    """Ledgers in one dictionary, and in a hot store with holes and archives."""

    plain: _Drift
    union: _Union
    store: HotStore
    sealed: dict[tuple[int, int], Sealed]


@pytest.fixture(scope="module")
def ledgers() -> list[DriftPartition]:
    """With readings of the drift log, and many chunks."""
    return [DriftPartition(p, long_ledger(7 + p, LENGTH, jumps=0.05), unseen=100 * p) for p in range(2)]


@pytest.fixture(params=range(3))
def stored(request: pytest.FixtureRequest, ledgers: list[DriftPartition], tmp_path: Path) -> Iterator[_Stored]:
    """A store as the product has it; partition 1 begins with a later chunk."""
    rng = random.Random(request.param)
    store = HotStore.open(tmp_path / "s")
    sealed = {(c.partition, c.first_sequence): c for ledger in ledgers for c in ledger.sealed}
    archived: list[Header] = []
    for ledger in ledgers:
        begin = 3 * ledger.number
        store.write(ledger.sealed[begin:])
        gone = rng.sample(ledger.sealed[begin:-1], len(ledger.sealed) // 2)
        store.send_away(ledger.number, [chunk.first_sequence for chunk in gone])
        last = max(chunk.number for chunk in gone)
        archived += [decode_header(c.partition, c.first_sequence, c.header) for c in ledger.sealed[:last]]

    def section(partition: int, first_sequence: int, column: Column) -> bytes:
        return sealed[partition, first_sequence].sections[column]

    plain = _Drift(*ledgers)
    yield _Stored(plain, _Union(plain, store, _Archives(archived, section)), store, sealed)
    store.close()


def test_the_drift_log_and_warnings_are_those_of_one_store(stored: _Stored) -> None:
    """Whole, by source, in pages, forward and backward: rows and readings."""
    plain, queries = HotQueries(stored.plain), HotQueries(stored.union)
    archived = 0
    for partition in (0, 1):
        for warned in (False, True):
            for more in (
                {}, {"source": b"anchor-1"}, {"newest": True, "limit": 30}, {"after": 300, "before": 700, "limit": 50},
                {"first_ms": START_MS, "last_ms": START_MS + 40_000},
            ):  # fmt: skip
                asked = replace(DriftQuestion(partition, warned), **cast("dict[str, Any]", more))
                found, expected = queries.drift(asked), plain.drift(asked)
                assert bits(found[:-1]) == bits(expected[:-1])
                assert _explained(found) == _explained(expected)
                archived += found.explain.chunks_archived
    assert archived


def test_a_store_with_holes_answers_as_one_without(stored: _Stored) -> None:
    """Rows, aggregates and the last event, from the product's own store."""
    plain, queries = HotQueries(stored.plain), HotQueries(stored.union)
    for frame in Frame:
        question = Question(frame)
        found, expected = (each.range(question, FIELDS, 10**6) for each in (queries, plain))
        assert ipc_bytes(rows_table(found)) == ipc_bytes(rows_table(expected))
        answers = [each.aggregate(question, Aggregation(percentiles=(50_000,))) for each in (queries, plain)]
        assert len({ipc_bytes(aggregates_table(answer)) for answer in answers}) == 1
        away = sum(stored.store.away(partition).size for partition in (0, 1)) + 3  # before the first line of 1
        assert found.explain.chunks_archived == away
        assert 0 < answers[0].explain.chunks_archived <= away
        assert answers[1].explain.chunks_archived == 0


def test_chunks_may_move_between_and_within_questions(stored: _Stored) -> None:
    """Headers that are remembered hold for a chunk wherever it lies by then."""
    queries, store = HotQueries(stored.union, column_bytes_max=0), stored.store
    expected = HotQueries(stored.plain).aggregate(Question(), Aggregation(percentiles=(50_000,)))
    archives = cast("_Archives", stored.union._archives)
    rng = random.Random(5)
    for _ in range(6):
        found = queries.aggregate(Question(), Aggregation(percentiles=(50_000,)))
        assert ipc_bytes(aggregates_table(found)) == ipc_bytes(aggregates_table(expected))
        before, archives.read = archives.read, 0
        assert before
        for partition in (0, 1):
            lines = [line.first_sequence for line in store.lines(partition)[:-1] if line.held]
            movable = [first for first in lines if (partition, first) in archives.chunks]
            back = [stored.sealed[partition, first] for first in rng.sample(store.away(partition).tolist(), 2)]
            store.bring_back(partition, [ChunkBytes(c.first_sequence, c.header, c.sections) for c in back])
            store.send_away(partition, rng.sample(movable, len(movable) // 2))


def test_a_chunk_that_is_sent_away_after_its_line_was_read_is_read_from_its_archive() -> None:
    """Lines are read first, headers then."""
    content = DictionaryStore({0: odd_rows(0, 100, 4)}, chunk_rows=10)
    headers = content.headers(0, 1, 100)

    class _Moving(_Hot):
        def lines(self, partition: int, first_sequence: int, most: int) -> list[Line]:
            found = super().lines(partition, first_sequence, most)
            self.gone |= {(0, headers[2].first_sequence), (0, headers[3].first_sequence)}
            return found

    tiered = Tiered(_Moving(content, {0: 1}, set()), _Archives(headers[:5], content.section))
    assert tiered.headers(0, 1, 64) == headers


def test_without_archives_nothing_is_looked_up() -> None:
    """A store that holds all is asked for headers and columns, and for nothing else."""
    content = DictionaryStore({0: odd_rows(0, 100, 4)}, chunk_rows=10, unsealed=7)

    class _Level:
        headers, column = content.headers, content.section

    union = _Union(content, cast("Hot", _Level()), None)
    found = HotQueries(union).aggregate(Question(), Aggregation(percentiles=(50_000,)))
    expected = HotQueries(content).aggregate(Question(), Aggregation(percentiles=(50_000,)))
    assert ipc_bytes(aggregates_table(found)) == ipc_bytes(aggregates_table(expected))
    assert _explained(found) == _explained(expected)
    assert found.explain.chunks_archived == 0


# ------------------------------------------------------------------------------------------------------------- missing


@pytest.mark.parametrize("lost", range(10))
def test_a_chunk_that_is_nowhere_is_named(lost: int) -> None:
    """Before the store's first line, between archives and that, or away: there is no answer without it."""
    content = DictionaryStore({4: many_rows(4, 120, sources=[b"a"])}, chunk_rows=10)
    headers = content.headers(4, 1, 100)
    hot = _Hot(content, {4: headers[5].first_sequence}, {(4, header.first_sequence) for header in headers[6:10]})
    archives = _Archives([header for at, header in enumerate(headers[:10]) if at != lost], content.section)
    queries = HotQueries(_Union(content, hot, archives))
    asked: list[Callable[[], object]] = [
        lambda: queries.aggregate(Question(), Aggregation()),
        lambda: queries.range(Question(), FIELDS, 10),
        lambda: queries.get(b"a"),
        lambda: queries.drift(DriftQuestion(4)),
    ]
    if lost in (0, 5):  # the union then begins with the second; the store holds the sixth
        assert queries.aggregate(Question(), Aggregation()).count[0] == 120 - (headers[0].rows if lost == 0 else 0)
        return
    for ask in asked:
        with pytest.raises(MissingChunkError) as told:
            ask()
        assert (told.value.partition, told.value.sequence) == (4, headers[lost].first_sequence)
        assert isinstance(told.value, UnreachableError)


@pytest.mark.parametrize("most", [1, 2, 3, 64])
def test_a_gap_is_found_however_many_headers_are_asked_for(most: int) -> None:
    """Also where it lies between two askings."""
    content = DictionaryStore({0: many_rows(0, 120, sources=[b"a"])}, chunk_rows=10)
    headers = content.headers(0, 1, 100)
    for lost in range(1, 9):
        for begins in (headers[9].first_sequence, None):
            hot = _Hot(content, {} if begins is None else {0: begins}, set())
            kept = [header for at, header in enumerate(headers[:9]) if at != lost]
            tiered, at = Tiered(hot, _Archives(kept, content.section)), 1
            seen: list[Header] = []
            try:
                while found := tiered.headers(0, at, most):
                    seen += found
                    at = found[-1].last_sequence + 1
            except MissingChunkError as error:
                assert error.sequence == headers[lost].first_sequence  # noqa: PT017 - it may come in any of the rounds
                assert seen == headers[: len(seen)]
            else:
                assert (lost, begins) == (8, None)  # what is archived ends there, and there is nothing else


def test_an_archive_of_other_chunks_is_not_taken_for_them() -> None:
    """Under the same first sequence, with fewer rows."""
    content = DictionaryStore({0: many_rows(0, 120, sources=[b"a"])}, chunk_rows=10)
    other = DictionaryStore({0: many_rows(0, 120, sources=[b"a"])}, chunk_rows=5)
    headers = content.headers(0, 1, 100)
    hot = _Hot(content, {0: 1}, {(0, headers[1].first_sequence)})
    tiered = Tiered(hot, _Archives(other.headers(0, 1, 100), other.section))
    with pytest.raises(MissingChunkError):
        tiered.headers(0, 1, 64)


def test_without_archives_what_is_away_is_missing(tmp_path: Path) -> None:
    """It is told, whether its header or its rows are asked for."""
    chunks = chunks_of(0, 1, 1_500)
    write_all(tmp_path / "s", chunks)
    store = HotStore.open(tmp_path / "s")
    store.send_away(0, [chunks[1].first_sequence])
    for hot, archives in ((store, None), (store, _Archives([], _nothing)), (None, None)):
        tiered = Tiered(hot, archives)
        with pytest.raises(MissingChunkError) as told:
            tiered.column(0, chunks[1].first_sequence, Column.VALUE, chunks[1].rows)
        assert told.value.sequence == chunks[1].first_sequence
        if hot is not None:
            with pytest.raises(MissingChunkError) as told:
                tiered.headers(0, 1, 64)
            assert told.value.sequence == chunks[1].first_sequence
    assert Tiered(None, None).headers(0, 1, 64) == []
    store.close()


def _nothing(*_: object) -> bytes:
    raise AssertionError


def _answered(tiered: Tiered, most: int) -> list[Header]:
    """All headers, so many at a time."""
    seen: list[Header] = []
    while found := tiered.headers(0, seen[-1].last_sequence + 1 if seen else 1, most):
        seen += found
    return seen


@pytest.mark.parametrize("archives", [None, _Archives([], _nothing)])
def test_what_begins_behind_archives_that_nobody_has_here_is_no_answer(archives: _Archives | None) -> None:
    """A store that was made anew behind them, or what is read of the ledger from there on."""
    content = DictionaryStore({0: many_rows(0, 120, sources=[b"a"])}, chunk_rows=10)
    headers = content.headers(0, 1, 100)
    behind = headers[4].last_sequence
    stores: list[tuple[Hot | None, int]] = [
        (_Hot(content, {0: headers[5].first_sequence}, set()), 0), (_Hot(content, {}, set()), behind), (None, behind)
    ]  # fmt: skip
    for hot, resumed in stores:
        with pytest.raises(MissingChunkError, match="give this process the data directory, or the archive_uri") as told:
            Tiered(hot, archives, lambda _, resumed=resumed: resumed).headers(0, 1, 64)  # type: ignore[misc]
        assert told.value.sequence == 1
    assert Tiered(None, archives, lambda _: 0).headers(0, 1, 64) == []


@pytest.mark.parametrize("begins", [5, None])
@pytest.mark.parametrize("known", [0, 3])
def test_what_was_archived_since_is_looked_for(begins: int | None, known: int) -> None:
    """By who looked when there was less: a store that was made anew says where it goes on."""
    content = DictionaryStore({0: many_rows(0, 120, sources=[b"a"])}, chunk_rows=10)
    headers = content.headers(0, 1, 100)
    hot = _Hot(content, {} if begins is None else {0: headers[begins].first_sequence}, set())
    since: list[Header] = []

    class _Followed(_Archives):
        def refresh(self) -> None:
            self.chunks |= {(0, header.first_sequence): header for header in since}

    tiered = Tiered(hot, _Followed(headers[:known], content.section), lambda _: headers[-1].last_sequence)
    with pytest.raises(MissingChunkError) as told:
        tiered.headers(0, 1, 64)
    assert told.value.sequence == headers[known].first_sequence
    since += headers
    assert tiered.headers(0, 1, 64) == headers


@pytest.mark.parametrize("most", [1, 2, 64])
@pytest.mark.parametrize(
    ("begins", "away", "archived", "seen"),
    [
        (0, {0, 1, 2, 4}, 3, 3),
        (0, {0, 1}, 3, 2),
        (0, {1, 4}, 3, 2),  # the first is held, and nothing has the second
        (0, {4}, 3, 0),
        (0, {0, 1, 2, 3, 4, 5}, 6, 6),
        (2, {2, 3, 4}, 4, 4),
        (2, set(), 4, 2),
        (2, {4}, 1, 1),
        (None, set(), 3, 3),
    ],
)
def test_what_there_is_begins_behind_what_was_pruned(
    most: int, begins: int | None, away: set[int], archived: int, seen: int
) -> None:
    """Whatever the store has lines of: chunks that were away and then pruned are no loss."""
    content = DictionaryStore({0: many_rows(0, 120, sources=[b"a"])}, chunk_rows=10)
    headers = content.headers(0, 1, 100)
    hot = _Hot(
        content,
        {} if begins is None else {0: headers[begins].first_sequence},
        {(0, headers[at].first_sequence) for at in away},
    )
    tiered = Tiered(hot, _Archives(headers[archived:], content.section))
    assert _answered(tiered, most) == headers[seen:]
    assert tiered.begins(0) == headers[seen].first_sequence


def test_damage_of_an_archive_is_not_that_of_the_store() -> None:
    """For that one would be thrown away."""
    content = DictionaryStore({0: odd_rows(0, 100, 4)}, chunk_rows=10)
    hot = _Hot(content, {0: content.headers(0, 2, 1)[0].first_sequence}, set())

    class _Damaged(_Archives):
        def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
            if self.read:
                raise StoreDamagedError("as a whole")
            return super().headers(partition, first_sequence, most)

    def cut(*where: Any) -> bytes:
        return content.section(*where)[:-1]

    archives = _Damaged(content.headers(0, 1, 3), cut)
    queries = HotQueries(_Union(content, hot, archives))
    for told in ("of the chunk at sequence 1: its checksum", "as a whole"):
        with pytest.raises(ArchiveDamagedError, match=told) as raised:
            HotQueries(_Union(content, hot, archives)).aggregate(Question(), Aggregation(percentiles=(50_000,)))
        assert not isinstance(raised.value, StoreDamagedError)
    archives.read = 0
    assert queries.aggregate(Question(), Aggregation(functions=frozenset())).count[0] > 0  # by headers alone


# --------------------------------------------------------------------------------------------------------------- users


class _Tier:
    """A lane's hot tier, of one store."""

    def __init__(self, store: Any, content: DictionaryStore) -> None:
        self._store, self._content = store, content
        self.using = 0
        self.told: list[Exception] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """Damage that passes is noted."""
        self.using += 1
        try:
            yield self._store
        except StoreDamagedError as error:
            self.told.append(error)
            raise
        finally:
            self.using -= 1

    def unsealed(self, partition: int) -> Any:
        """Of the content."""
        return self._content.unsealed(partition)

    def places(self) -> dict[int, Place]:
        """Level."""
        return {partition: Place(Standing.LEVEL, 0, None) for partition in self._content.partitions()}


def test_a_worker_answers_from_stores_and_archives() -> None:
    """Each store is let go of while an archive is read, and is not blamed for it."""
    contents = [DictionaryStore({p: odd_rows(p, 200, 3)}, chunk_rows=16, unsealed=9) for p in (0, 1)]
    both = DictionaryStore({p: odd_rows(p, 200, 3) for p in (0, 1)}, chunk_rows=16, unsealed=9)
    scatter = [scattered(content, seed) for seed, content in enumerate(contents, start=40)]
    tiers = [_Tier(hot, content) for (hot, _), content in zip(scatter, contents, strict=True)]
    bad = False

    def section(partition: int, first_sequence: int, column: Column) -> bytes:
        assert [tier.using for tier in tiers] == [0, 0]
        return contents[partition].section(partition, first_sequence, column)[: -1 if bad else None]

    archives = _Archives([header for _, some in scatter for header in some.chunks.values()], section)
    lanes = [OwnedLane((p,), {p: 200}, cast("HotTier", tier)) for p, tier in enumerate(tiers)]
    owned = OwnedPartitions(lambda: lanes, _Kept(archives))

    def ask(queries: HotQueries) -> bytes:
        return ipc_bytes(rows_table(queries.range(Question(), FIELDS, 1_000)))

    assert owned.ask(lambda asker: ask(asker.queries)) == ask(HotQueries(both))
    assert archives.read
    assert owned.ask(lambda asker: [asker.last_sequence(p) for p in (0, 1)]) == [200, 200]
    bad = True
    lanes.reverse()  # another asker, that remembers nothing
    lanes[0] = OwnedLane((1,), {1: 200}, cast("HotTier", _Tier(scatter[1][0], contents[1])))
    with pytest.raises(ArchiveDamagedError):
        owned.ask(lambda asker: ask(asker.queries))
    assert [tier.told for tier in tiers] == [[], []]


def test_rows_end_with_the_last_archived_chunk_where_the_store_has_none() -> None:
    """As of a store that was made anew behind archives."""
    content = DictionaryStore({0: odd_rows(0, 96, 3)}, chunk_rows=16)
    archives = _Archives(content.headers(0, 1, 100), content.section)
    lane = OwnedLane((0,), {0: 96}, cast("HotTier", _Tier(_Hot(content, {}, set()), content)))
    owned = OwnedPartitions(lambda: [lane], _Kept(archives))
    assert owned.ask(lambda asker: asker.last_sequence(0)) == 96
    found = owned.ask(lambda asker: asker.queries.range(Question(sequences={0: (1, INT64_MAX)}), FIELDS, 1_000))
    assert (found.rows, found.explain.chunks_archived) == (96, found.explain.chunks_rows)


def test_a_worker_forgets_what_was_pruned() -> None:
    """Chunks it was asked for before: a question then begins where the first row is that there is."""
    content = DictionaryStore({0: many_rows(0, 120, sources=[b"a"])}, chunk_rows=10)
    headers = content.headers(0, 1, 100)
    away = {(0, header.first_sequence) for header in headers[:5]}
    archives = _Archives(headers[:8], content.section)
    lane = OwnedLane((0,), {0: 120}, cast("HotTier", _Tier(_Hot(content, {0: 1}, away), content)))
    owned = OwnedPartitions(lambda: [lane], _Kept(archives))

    def rows() -> tuple[int, int]:
        found = owned.ask(lambda asker: asker.queries.range(Question(), FIELDS, 1_000))
        counted = owned.ask(lambda asker: asker.queries.aggregate(Question(), Aggregation()))
        return found.rows, int(counted.count[0])

    before = rows()
    for header in headers[:3]:
        del archives.chunks[0, header.first_sequence]
    pruned = sum(header.rows for header in headers[:3])
    assert rows() == (before[0] - pruned, before[1] - pruned)


def test_without_a_worker_archives_are_read_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside a store with holes that begins later, and what the ledger has behind it."""
    asked = Settings(data_dir=tmp_path)
    folder = tmp_path / "hot" / "0" / f"{asked.prefix}.{asked.ledger}" / "lane-0"
    chunks = chunks_of(0, 1, STORED)
    assert len(chunks) > 4
    sections = {chunk.first_sequence: chunk.sections for chunk in chunks}
    serve_ledger(monkeypatch, long_ledger(1, STORED), [])

    def rows(archives: _Archives | None, stored: bool = True) -> tuple[bytes, int]:  # noqa: FBT001, FBT002
        with LocalPartitions(asked, "nowhere:1", [0], stored=stored, archives=archives) as partitions:
            found = partitions.ask(lambda queries, _: queries.range(Question(), FIELDS, 10_000))
            answer = partitions.ask(lambda queries, _: queries.aggregate(Question(), Aggregation()))
            assert partitions.ask(lambda _, last: last(0)) == found.rows
            assert answer.explain.chunks_archived == found.explain.chunks_archived
            return ipc_bytes(rows_table(found)), found.explain.chunks_archived

    expected = rows(None)
    assert expected[1] == 0
    write_all(folder, chunks[1:-1])
    store = HotStore.open(folder)
    store.send_away(0, [chunks[2].first_sequence])
    store.close()
    headers = [decode_header(0, chunk.first_sequence, chunk.header) for chunk in chunks[:4]]
    archives = _Archives(headers, lambda _, first_sequence, column: sections[first_sequence][column])
    assert rows(archives) == (expected[0], 2)
    assert rows(archives, stored=False) == expected  # all from the ledger
    with pytest.raises(MissingChunkError):
        rows(None)
