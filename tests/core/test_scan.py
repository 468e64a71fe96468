"""A ledger read in parts is the ledger, in order, however the parts are cut."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from lifecycle import scan as scanning
from lifecycle.arrow import rows_table
from lifecycle.arrow_stream import ArrowWriter, Ending, Part
from lifecycle.planner import Explain, Field, Question
from lifecycle.requests import Range
from lifecycle.rows import rows_in
from lifecycle.scan import PrunedError, Scan
from schemas.errors import BadInputError, UnreachableError
from streams.settings import Settings
from tests.core.held_scan import HeldScan
from tests.core.hot_rows import DictionaryStore, odd_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = tuple(Field)
QUESTIONS = [
    Question(),
    Question(sources=(b"s1", b"late")),
    Question(sequences={0: (17, 120)}),
    Question(partitions=(1, 2), sequences={1: (290, 2**63 - 1)}),
    Question(partitions=(1,), kinds=(b"t",)),
    Question(sources=(b"nobody",)),
]


def scan(seed: int = 9) -> HeldScan:
    """Three partitions, in chunks and not."""
    return HeldScan(DictionaryStore({p: odd_rows(p, 300, seed) for p in (0, 1, 2)}, chunk_rows=64, unsealed=10))


@pytest.fixture(params=[7, 100, 65_536])
def _parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many rows, about twice as many sequences."""
    monkeypatch.setattr(scanning, "PART_ROWS", request.param)
    monkeypatch.setattr(scanning, "_MERGED_ROWS_MIN", 1)
    monkeypatch.setattr(scanning, "SPAN_ROWS", 2 * request.param)


def whole(of: HeldScan, question: Question) -> pa.Table:
    """As the range query has it; sequences of one partition mean that one alone, where none is named."""
    if question.partitions is None and question.sequences:
        question = Question(partitions=tuple(question.sequences), sequences=question.sequences)
    return rows_table(of.queries.range(question, FIELDS, 10_000))


@pytest.mark.usefixtures("_parts")
@pytest.mark.parametrize("question", QUESTIONS)
def test_merged_parts_are_the_range(question: Question) -> None:
    """Row by row, in the same order, with the columns that were asked for."""
    of = scan()
    found = [row for table in of.merged(question, FIELDS) for row in rows_in(table)]
    assert found == list(rows_in(whole(of, question)))
    done, total = of.covered()
    assert done == total == 900


@pytest.mark.usefixtures("_parts")
@pytest.mark.parametrize("question", QUESTIONS)
def test_parts_are_the_range_by_partition(question: Question) -> None:
    """Each in order of sequence."""
    of = scan()
    found = [row for table in of.parts(question, FIELDS) for row in rows_in(table)]
    wanted = sorted(rows_in(whole(of, question)), key=lambda row: (row["partition"], row["sequence"]))
    assert found == wanted
    assert of.covered()[0] == 900


def test_merged_has_the_columns_that_were_asked_for_alone() -> None:
    """Not those that the order needs."""
    (first, *_) = scan().merged(Question(), (Field.VALUE, Field.SOURCE))
    assert first.column_names == ["value", "source"]


def test_what_is_pruned_meanwhile_is_found() -> None:
    """Partly, or all of it."""
    of = scan()
    of.check()
    of.pruned[1] = 65
    with pytest.raises(PrunedError, match="partition 1 began at sequence 1, and now at 65") as found:
        of.check()
    assert (found.value.partition, found.value.sequence) == (1, 65)
    of.pruned[1] = 0
    with pytest.raises(PrunedError, match="nowhere"):
        of.check()


def test_what_comes_later_is_not_read() -> None:
    """The last sequences are those of the first look."""
    of = scan()
    assert of.spans == {0: (1, 300), 1: (1, 300), 2: (1, 300)}
    of.store.contents[0] = odd_rows(0, 400, 9)
    of.store.seal(0, 10)
    assert sum(table.num_rows for table in of.parts(Question(), (Field.SEQUENCE,))) == 900


# --------------------------------------------------------------------------------------------------------- of a worker

TABLE = pa.table({"sequence": pa.array([1, 2, 3], pa.int64())})


def arrow(*, end: bool = True, more: bool = False) -> bytes:
    """An answer of a worker."""
    writer = ArrowWriter()
    ending = Ending(asdict(Explain()), more, (0,))
    return writer.write(Part(TABLE, ending)) if end else writer.write(Part(TABLE, None))


@contextmanager
def worker(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, bytes]) -> Iterator[tuple[Scan, list[str]]]:
    """A scan whose partition 0 a worker has, which gives these answers, the last one for ever; and the paths asked."""
    asked: list[str] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """To nobody."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        scan = Scan(Settings(), wait_s=0.5)
        monkeypatch.setattr(scan._reader, "assigned", lambda _wanted: {address: (0,)})
        try:
            yield scan, asked
        finally:
            server.shutdown()
            thread.join()


WANTED = Range(Question(partitions=(0,), sequences={0: (1, 9)}), (Field.SEQUENCE,), 3)


@pytest.mark.parametrize(
    "first",
    [
        (503, b'{"error": "not level yet"}'),
        (404, b'{"error": "another has it"}'),
        (200, arrow(end=False)),
        (200, b"no Arrow"),
        (500, b"broken"),
    ],
)
def test_a_part_that_does_not_come_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, first: tuple[int, bytes]
) -> None:
    """Of whoever has the partition by then; not for ever, and never less than all of it."""
    with worker(monkeypatch, first, (200, arrow(more=True))) as (of, asked):
        answer = of._ask(0, WANTED, ordered=False)
        assert answer.table.equals(TABLE)
        assert answer.more
        assert len(asked) == 2
        assert asked[1].startswith("/range?")
    with worker(monkeypatch, first) as (of, asked), pytest.raises(UnreachableError):
        of._ask(0, WANTED, ordered=False)
    assert len(asked) > 1


def test_what_cannot_be_asked_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the worker says."""
    with worker(monkeypatch, (400, b'{"error": "a shorter range"}')) as (of, asked):
        with pytest.raises(BadInputError, match="a shorter range"):
            of._ask(0, WANTED, ordered=False)
        assert len(asked) == 1


def test_of_a_part_that_is_very_large_the_beginning_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what follows is asked for by its sequences."""
    monkeypatch.setattr(scanning, "_PART_BYTES_MAX", 1)
    with worker(monkeypatch, (200, arrow(end=False))) as (of, _):
        answer = of._ask(0, WANTED, ordered=False)
        assert answer.table.equals(TABLE)
        assert answer.more
