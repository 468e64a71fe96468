"""The drift log and warnings out of chunks: what the ledger says, to the byte, however it is cut."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import orjson
import pytest

from lifecycle import drift_reader, drift_requests, drift_rows
from lifecycle.arrow_stream import ArrowWriter
from lifecycle.chunk_codec import decode_header, read_section
from lifecycle.drift_arrow import part_of
from lifecycle.drift_question import PAGE_ENTRIES, DriftQuestion
from lifecycle.drift_reader import HotDrift, find_holders
from lifecycle.hot_tier import Standing
from lifecycle.query import HotQueries
from lifecycle.store import Store
from schemas.codec import Framing
from schemas.errors import BadInputError, UnreachableError
from schemas.faults import Fault
from schemas.instants import INT64_MAX, INT64_MIN
from streams.causes import Cause
from streams.cli.output import Output, emit
from streams.drift_entries import DriftLogger, with_verdicts
from streams.judge import Judge
from streams.order import merge, newest_first
from streams.warning_log import warnings_of
from tests.core.judge_oracle import START_MS, Ledger, Row, control, event
from tests.core.test_store import every, hashed, long_ledger, ragged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from lifecycle.catalog import Unsealed
    from lifecycle.chunks import Column, Header, Read
    from lifecycle.drift_rows import DriftPage
    from lifecycle.store import Sealed
    from schemas.columns import Entries
    from streams.judge import Outputs

    Rows = list[dict[str, Any]]
    #: Name of the cause, offset and bound in milliseconds.
    Verdict = tuple[str | None, int | None, int | None]

PARTITIONS = 3
LENGTH = 1_500
#: What judge says of an event besides its severity.
_NAMES = ("cause", "offset_us", "bound_us")


class DriftPartition:
    """A ledger as the hot tier has it, and as the ledger itself tells it."""

    def __init__(self, number: int, ledger: Ledger, unseen: int = 0) -> None:
        self.number, self.ledger, self.fold = number, ledger, Store()
        self.state = self.fold.new_state(number)
        self.sealed: list[Sealed] = []
        self.log: Rows = []
        self.warnings: Rows = []
        self.verdicts: dict[str, Verdict] = {}
        judge = Judge()
        judged = judge.new_state(number)
        logger = DriftLogger(number, Framing.SINGLE_OBJECT, None)
        done = 0
        for entries in ledger.batches(ragged(number)):
            outputs = judge.step(judged, entries)
            done += entries.index.size
            if done <= len(ledger.rows) - unseen:
                self.step(entries, outputs)
                self.log += [entry.row() for entry in with_verdicts(logger.all(entries), entries, outputs)]
                self.warnings += [w.row() for w in warnings_of(number, entries, outputs, outputs.warned)]
                self.verdicts |= _verdicts(number, entries, outputs)

    def step(self, entries: Entries, outputs: Outputs) -> None:
        """Take a batch."""
        self.sealed += self.fold.step(self.state, entries, outputs)
        self.fold.publish(self.state)


def _verdicts(partition: int, entries: Entries, outputs: Outputs) -> dict[str, Verdict]:
    """Cause, offset and bound of each event, by its id."""
    found = {}
    for row in np.flatnonzero(outputs.verdicts.fault == Fault.NONE).tolist():
        cause, offset_us, bound_us = (int(getattr(outputs.verdicts, name)[row]) for name in _NAMES)
        offset_ms = (Decimal(offset_us) / 1000).quantize(Decimal(1), ROUND_HALF_UP)
        estimate = (int(offset_ms), math.ceil(Fraction(bound_us, 1000))) if bound_us >= 0 else (None, None)
        found[f"{partition}:{entries.index[row]}"] = (Cause(cause).name if cause else None, *estimate)
    return found


class DriftChunks:
    """Partitions as a store; columns that were read are counted."""

    def __init__(self, *partitions: DriftPartition) -> None:
        self._partitions = {partition.number: partition for partition in partitions}
        self.read = 0

    def partitions(self) -> list[int]:
        """All."""
        return sorted(self._partitions)

    def unsealed(self, partition: int) -> Unsealed | None:
        """Of the fold."""
        found = self._partitions[partition]
        return found.fold.unsealed(found.state)

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of the chunks that ended."""
        later = [sealed for sealed in self._partitions[partition].sealed if sealed.first_sequence >= first_sequence]
        return [decode_header(partition, sealed.first_sequence, sealed.header) for sealed in later[:most]]

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """Of a chunk."""
        self.read += 1
        chunks = self._partitions[partition].sealed
        sections = next(sealed for sealed in chunks if sealed.first_sequence == first_sequence).sections
        return read_section(partition, first_sequence, column, rows, sections[column])

    def archived(self, _partition: int, _first_sequences: NDArray[np.int64]) -> int:
        """None."""
        return 0


@pytest.fixture(scope="module")
def partitions() -> list[DriftPartition]:
    """Histories with everything in them, and a clock that jumps: many chunks, and something behind them."""
    return [DriftPartition(p, long_ledger(7 + p, LENGTH, jumps=0.03), unseen=100 * p) for p in range(PARTITIONS)]


@pytest.fixture
def asked(partitions: list[DriftPartition], monkeypatch: pytest.MonkeyPatch) -> HotDrift:
    """A reader of two workers, which answer here; pages are small."""
    stores = {"http://a": DriftChunks(*partitions[:2]), "http://b": DriftChunks(*partitions[2:])}
    queries = {address: HotQueries(chunks) for address, chunks in stores.items()}

    def fetch(address: str, path: str, *, token: str | None) -> tuple[int, None, bytes]:
        assert token is None
        parts = urlsplit(path)
        question = drift_requests.parse(parts.path, parse_qsl(parts.query, keep_blank_values=True))
        return 200, None, ArrowWriter().write(part_of(question, queries[address].drift(question)))

    monkeypatch.setattr(drift_reader, "fetch", fetch)
    monkeypatch.setattr(drift_reader, "PAGE_ENTRIES", 70)
    monkeypatch.setattr(drift_rows, "CHUNKS_MAX", 5)
    return HotDrift({0: "http://a", 1: "http://a", 2: "http://b"})


def _printed(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], capsys: pytest.CaptureFixture[str]) -> str:
    """In each form."""
    listed = list(rows)
    for output in (Output.JSONL, Output.CSV, *([Output.TABLE] if len(listed) < 50 else ())):
        emit(listed, list(columns), output)
    return capsys.readouterr().out


def _placed(rows: Rows, time: str, keep: Callable[[dict[str, Any]], bool]) -> list[tuple[int, dict[str, Any]]]:
    return [(row[time], row) for row in rows if keep(row)]


def _bytes(source: str | None) -> bytes | None:
    return None if source is None else source.encode()


def _ranges(rows: Rows, time: str) -> list[tuple[int, int]]:
    times = sorted(row[time] for row in rows)
    low, high = times[len(times) // 3], times[len(times) // 3 * 2]
    return [
        (INT64_MIN, INT64_MAX),
        (low, high),
        (times[5], times[5]),
        (high + 1, INT64_MAX),
        (times[-1] + 1, INT64_MAX),
    ]


@pytest.mark.parametrize("warned", [False, True])
def test_a_list_is_that_of_the_ledger(
    partitions: list[DriftPartition], asked: HotDrift, capsys: pytest.CaptureFixture[str], *, warned: bool
) -> None:
    """Ranges of time, one source or all, and the newest, in the order across partitions; to the byte."""
    of_each = [partition.warnings if warned else partition.log for partition in partitions]
    time = "authority_timestamp_ms" if warned else "created_at_ms"
    everything = [row for rows in of_each for row in rows]
    columns = list(everything[0])
    assert len(everything) > 200
    if not warned:
        assert {row["reading"] for row in everything} == {"DATA", "ANCHOR", "VERIFY", "LOCK", "RELEASE"}
    names = sorted({row["source"] for row in everything}, key=str)
    assert partitions[0].sealed
    assert asked.addresses == ["http://a", "http://b"]
    for source in (None, names[0], "anchor-1", "nobody", ""):
        for low, high in _ranges(everything, time):

            def keep(row: dict[str, Any], source: str | None = source, low: int = low, high: int = high) -> bool:
                return source in (None, row["source"]) and low <= row[time] <= high

            question = DriftQuestion(0, warned, _bytes(source), low, high, limit=50)
            expected = list(merge(_placed(rows, time, keep) for rows in of_each))
            assert _printed(asked.between(question), columns, capsys) == _printed(expected, columns, capsys)
        for most in (1, 10, 69, 71, 500, 100_000):
            of_source = ([row for row in rows if source in (None, row["source"])] for rows in of_each)
            newest = newest_first([[(row[time], row) for row in rows[-most:]] for rows in of_source], most)
            question = DriftQuestion(0, warned, _bytes(source))
            assert _printed(asked.newest(question, most), columns, capsys) == _printed(newest, columns, capsys)


@pytest.mark.parametrize("warned", [False, True])
def test_events_have_their_cause_and_the_estimate(
    partitions: list[DriftPartition], asked: HotDrift, *, warned: bool
) -> None:
    """As judge said, which the ledger's own drift log does not know; readings that are no events have neither."""
    verdicts = {key: verdict for partition in partitions for key, verdict in partition.verdicts.items()}
    rows = list(asked.between(DriftQuestion(0, warned)))
    found = [(row["cause"], row["offset_ms"], row["bound_ms"]) for row in rows]
    assert found == [verdicts.get(row["id"], (None, None, None)) for row in rows]
    assert len({cause for cause, _, _ in found}) > 2
    assert {bound is None for _, _, bound in found} == {True, False}


def test_warnings_of_sequences_are_those_of_the_ledger(partitions: list[DriftPartition], asked: HotDrift) -> None:
    """Both ends included."""
    of_each = [partition.warnings for partition in partitions]
    for first, last in ((1, INT64_MAX), (100, 500), (251, 251), (LENGTH * 2, INT64_MAX)):

        def keep(row: dict[str, Any], first: int = first, last: int = last) -> bool:
            return bool(first <= row["sequence"] <= last)

        expected = list(merge(_placed(rows, "logged_at_ms", keep) for rows in of_each))
        found = asked.between(DriftQuestion(0, warned=True, first=first, last=last, limit=9))
        assert [row["id"] for row in found] == [row["id"] for row in expected]


def test_pages_go_on_from_where_they_end(partitions: list[DriftPartition]) -> None:
    """Forward and backward, of any length, each entry once."""
    indexes = [int(row["id"].split(":")[1]) for row in partitions[1].log]
    queries = HotQueries(DriftChunks(partitions[1]))
    for limit in (1, 64, 1_000, PAGE_ENTRIES):
        for newest in (False, True):
            found: list[int] = []
            page: DriftPage | None = None
            while page is None or page.more:
                asked = DriftQuestion(1, newest=newest, limit=limit)
                if page is not None:
                    asked = replace(asked, before=page.reached) if newest else replace(asked, after=page.reached)
                page = queries.drift(asked)
                assert page.index.size <= limit
                found = [*page.index.tolist(), *found] if newest else [*found, *page.index.tolist()]
                if len(found) > 300 and limit == 1:
                    break
            assert found == (indexes[-len(found) :] if newest else indexes[: len(found)])


def test_chunks_that_have_nothing_of_it_are_not_read(partitions: list[DriftPartition]) -> None:
    """By time, name and warnings; and with few readable rows a page ends all the same."""
    chunks = DriftChunks(*partitions)
    queries = HotQueries(chunks)
    page = queries.drift(DriftQuestion(0, source=b"nobody", warned=True))
    assert (chunks.read, page.index.size, page.more) == (0, 0, False)
    assert page.explain.chunks_skipped == len(partitions[0].sealed)
    page = queries.drift(DriftQuestion(0, first_ms=INT64_MAX, warned=True))
    assert (chunks.read, page.index.size, page.more) == (0, 0, False)
    queries.drift(DriftQuestion(0, newest=True, limit=1))
    assert chunks.read == 0  # what is in no chunk has it


def test_what_comes_meanwhile_is_in_no_list() -> None:
    """A list ends where the store did when it was asked first; what is sealed meanwhile is in it once."""
    rows = [Row(event("s", f"e{n}", START_MS * 1_000), START_MS + n * 400_000) for n in range(60)]
    ledger = hashed(Ledger(rows), 1)
    partition = DriftPartition(0, Ledger([]))
    judge = Judge()
    judged = judge.new_state(0)
    queries = HotQueries(DriftChunks(partition))
    batches = [(entries, judge.step(judged, entries)) for entries in ledger.batches(every(20))]
    partition.step(*batches[0])
    page = queries.drift(DriftQuestion(0, limit=12))
    assert (page.head, page.reached, page.more) == (20, 12, True)
    for batch in batches[1:]:
        partition.step(*batch)
    assert queries.drift(DriftQuestion(0, after=12, before=page.head + 1)).index.tolist() == list(range(13, 21))
    assert queries.drift(DriftQuestion(0)).index.tolist() == list(range(1, 61))


@pytest.mark.parametrize("newest", [False, True])
def test_a_chunk_that_ends_while_it_is_asked_is_told_once(*, newest: bool) -> None:
    """What was in no chunk when the page began is not told from the chunk as well."""
    rows = [Row(event("s", f"e{n}", START_MS * 1_000), START_MS + n * 400_000) for n in range(60)]
    partition, judge = DriftPartition(0, Ledger([])), Judge()
    judged = judge.new_state(0)
    ledger = hashed(Ledger(rows), 1)
    batches = [(entries, judge.step(judged, entries)) for entries in ledger.batches(every(20))]
    partition.step(*batches[0])

    class _Racing(DriftChunks):
        def unsealed(self, partition: int) -> Unsealed | None:
            found = super().unsealed(partition)
            self._partitions[partition].step(*batches[1])
            return found

    page = HotQueries(_Racing(partition)).drift(DriftQuestion(0, newest=newest))
    assert (page.index.tolist(), page.head) == (list(range(1, 21)), 20)


def test_readings_alone_are_a_list() -> None:
    """Anchors before any event, and of a store that has nothing at all."""
    partition = DriftPartition(0, Ledger([]))
    queries = HotQueries(DriftChunks(partition))
    page = queries.drift(DriftQuestion(0))
    assert (page.index.size, page.head, page.more) == (0, 0, False)
    rows = [
        control("Anchor", START_MS, source="a", anchor_timestamp=None),
        control("Verify", START_MS, source="b", client_timestamp=0),
    ]
    partition = DriftPartition(0, hashed(Ledger(rows), 1))
    page = HotQueries(DriftChunks(partition)).drift(DriftQuestion(0))
    assert (page.index.tolist(), page.head) == ([1, 2], 2)
    assert [page.names[code] for code in page.source] == [b"a", b"b"]
    assert HotQueries(DriftChunks(partition)).get(b"a").rows == 0
    with pytest.raises(BadInputError, match="partition 7 is not held here"):
        HotQueries(DriftChunks(partition)).drift(DriftQuestion(7))


@pytest.mark.parametrize(
    "asked",
    [
        DriftQuestion(3),
        DriftQuestion(0, warned=True, source="Füllstand".encode(), first=3, last=9, limit=1),
        DriftQuestion(1, first_ms=-5, last_ms=START_MS, after=4, before=9, newest=True, source=b""),
    ],
)
def test_questions_travel(asked: DriftQuestion) -> None:
    """And come out as they were."""
    assert drift_requests.parse(drift_requests.path_of(asked), drift_requests.encode(asked)) == asked


@pytest.mark.parametrize(
    ("path", "pairs", "told"),
    [
        ("/drift/log", [], "partition is given 0 times"),
        ("/drift/log", [("partition", "1"), ("first", "3")], "unknown parameter 'first'"),
        ("/drift/log", [("partition", "-1")], "no whole number"),
        ("/drift/log", [("partition", "1"), ("source", "a"), ("source", "b")], "source is given 2 times"),
        ("/drift/warnings", [("partition", "1"), ("newest", "yes")], "newest: it is 'yes'"),
        ("/drift/warnings", [("partition", "1"), ("limit", "65537")], "1 to 65536"),
        ("/drift/warnings", [("partition", "1"), ("from", "noon")], "from: 'noon' is not an instant"),
    ],
)
def test_what_cannot_be_asked_is_named(path: str, pairs: list[tuple[str, str]], told: str) -> None:
    """With what to give."""
    with pytest.raises(BadInputError, match=told):
        drift_requests.parse(path, pairs)


def test_who_lists_loads_neither_a_kafka_client_nor_a_store() -> None:
    """They take longer to load than a list takes."""
    heavy = ("confluent_kafka", "rocksdict", "lifecycle.hot_tier", "streams.judge")
    script = f"import sys, lifecycle.drift_reader; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "[]\n"


def _place(partition: int, standing: str = Standing.LEVEL, reached: int = 5, head: int = 9) -> dict[str, Any]:
    return {"partition": partition, "standing": standing, "reached": reached, "head": head, "error": None}


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([[_place(0)], []], r"no worker of this machine holds partitions \[1\]"),
        ([[_place(0), _place(1, Standing.BEHIND)], []], "partition 1 is behind at index 5 of 9"),
        ([[_place(0), _place(1)], [_place(2)]], r"hold partitions \[2\], and the settings say there are 2"),
    ],
)
def test_without_all_partitions_there_is_no_list(
    monkeypatch: pytest.MonkeyPatch, places: list[list[dict[str, Any]]], told: str
) -> None:
    """It is said which is missing."""
    _serve(monkeypatch, places)
    with pytest.raises(UnreachableError, match=told):
        find_holders(["http://a", "http://b"], 2, None)


def test_of_two_that_claim_a_partition_the_one_that_is_further_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one was taken its lane from; what is not asked for may be anyhow."""
    _serve(monkeypatch, [[_place(0), _place(1, Standing.BEHIND)], [_place(0, reached=6)]])
    assert find_holders(["http://a", "http://b"], 2, 0) == {0: "http://b"}


def test_of_two_that_claim_a_partition_the_former_owner_is_not_asked_for_the_latter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose store is not level yet: the list would lack what it has committed."""
    _serve(monkeypatch, [[_place(0, reached=9)], [_place(0, Standing.BEHIND, reached=4, head=12)]])
    with pytest.raises(UnreachableError, match="partition 0 is behind at index 4 of 12"):
        find_holders(["http://a", "http://b"], 1, None)


def _serve(monkeypatch: pytest.MonkeyPatch, places: list[list[dict[str, Any]]]) -> None:
    answers = dict(zip(("http://a", "http://b"), places, strict=True))

    def fetch(address: str, _path: str, *, token: str | None) -> tuple[int, None, bytes]:
        assert token is None
        return 200, None, orjson.dumps({"partitions": answers[address]})

    monkeypatch.setattr(drift_reader, "fetch", fetch)
