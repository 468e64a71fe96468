"""An export has every row in order, in every form, and its lines can be put again."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Transaction

from lifecycle import exporting, iceberg
from lifecycle.arrow import rows_table
from lifecycle.export_rows import EVENT_FIELDS
from lifecycle.exporting import Exported, Shape, export, shape_of
from lifecycle.planner import Field, Question
from lifecycle.rows import rows_in
from lifecycle.scan import PrunedError
from lifecycle.whole_file import WriteError
from schemas.errors import BadInputError
from streams.publish import Accepted, Format, read
from tests.core.held_scan import HeldScan
from tests.core.hot_rows import DictionaryStore, odd_rows
from tests.core.query_oracle import all_rows

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = tuple(Field)
SHAPES = (Shape.CSV, Shape.JSONL, Shape.ARROW, Shape.PARQUET)


@pytest.fixture
def scan() -> HeldScan:
    """Odd rows of three partitions."""
    return HeldScan(DictionaryStore({p: odd_rows(p, 300, 9) for p in (0, 1, 2)}, chunk_rows=64, unsealed=10))


def whole(scan: HeldScan, question: Question | None = None) -> pa.Table:
    """What is to be in a file."""
    return rows_table(scan.queries.range(question or Question(), FIELDS, 10_000))


def read_file(path: Path, shape: Shape) -> pa.Table:
    """An Arrow or a Parquet file."""
    if shape is Shape.PARQUET:
        return pq.read_table(path)
    with pa.ipc.open_file(path) as file:
        return file.read_all()


@pytest.mark.parametrize("shape", [Shape.ARROW, Shape.PARQUET])
def test_a_file_of_columns_has_every_row(scan: HeldScan, tmp_path: Path, shape: Shape) -> None:
    """In order across partitions, bit by bit."""
    told = []
    path = tmp_path / f"x.{shape}"
    exported = export(scan, Question(), FIELDS, path, shape, tell=lambda: told.append(scan.covered()))
    assert exported == Exported(900, 0)
    assert told[-1] == (900, 900)
    assert list(rows_in(read_file(path, shape))) == list(rows_in(whole(scan)))


def test_a_file_of_lines_is_that_of_a_range(scan: HeldScan, tmp_path: Path) -> None:
    """As `range` prints them."""
    question = Question(sources=(b"s1",))
    export(scan, question, FIELDS, tmp_path / "x.jsonl", Shape.JSONL)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_bytes().splitlines()]
    wanted = list(rows_in(whole(scan, question)))
    assert lines == wanted
    export(scan, question, FIELDS, tmp_path / "x.csv", Shape.CSV)
    found = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text(), newline="")))
    assert [{name: "" if v is None else str(v) for name, v in row.items()} for row in wanted] == found


@pytest.mark.parametrize("form", [Format.JSONL, Format.CSV])
def test_events_can_be_put_again(scan: HeldScan, tmp_path: Path, form: Format) -> None:
    """Each as it was sent: extreme instants, numbers that JSON cannot spell, any bytes; unreadable ones are counted."""
    path = tmp_path / f"x.{form}"
    exported = export(scan, Question(), FIELDS, path, Shape(form.value), events=True)
    wanted = [row.fields for row in all_rows(scan.store) if row.fields[Field.SOURCE] is not None]
    assert exported == Exported(len(wanted), 900 - len(wanted))
    with path.open("rb") as stream:
        lines = list(read(stream, form, {"kind": ""}))
    assert len(lines) == len(wanted)
    for line, fields in zip(lines, wanted, strict=True):
        assert isinstance(line, Accepted)
        event = line.event
        assert (event["event_id"].encode(), event["source"].encode()) == (fields[Field.EVENT_ID], fields[Field.SOURCE])
        assert (event["kind"].encode(), event["payload"]) == (fields[Field.KIND], fields[Field.PAYLOAD])
        assert (event["local_timestamp"], event["hlc"]) == (fields[Field.LOCAL_US], fields[Field.HLC])
        assert _bits(event["value"]) == _bits(fields[Field.VALUE])


def _bits(value: float | None) -> Any:
    if value is None or math.isnan(value):
        return str(value)
    return value.hex()


@pytest.mark.parametrize("content", [b"a\rb", b'"', b"a\r\nb,\n", b"\0", b"\xff", "Füll, \u2028".encode(), b" x ", b""])
def test_any_payload_survives_a_line(scan: HeldScan, tmp_path: Path, content: bytes) -> None:
    """Line ends, quotes, commas, bytes that are no text."""
    table = pa.table(
        {
            "event_id": ["e"], "source": ["s"], "kind": ["k"], "value": [1.0], "payload": [content],
            "local_timestamp": pa.array([5], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "hlc": pa.array([None], pa.int64()),
        }
    )  # fmt: skip
    scan.merged = lambda *_: iter([table.select(exporting.schema_of(EVENT_FIELDS).names)])  # type: ignore[method-assign]
    for form in Format:
        path = tmp_path / f"x.{form}"
        export(scan, Question(), (), path, Shape(form.value), events=True)
        with path.open("rb") as stream:
            (line,) = read(stream, form, {})
        assert isinstance(line, Accepted)
        assert line.event["payload"] == content


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_export_is_a_file_too(scan: HeldScan, tmp_path: Path, shape: Shape) -> None:
    """With its columns."""
    path = tmp_path / f"x.{shape}"
    assert export(scan, Question(sources=(b"nobody",)), FIELDS, path, shape) == Exported(0, 0)
    assert path.exists()
    if shape in (Shape.ARROW, Shape.PARQUET):
        assert read_file(path, shape).schema.names == exporting.schema_of(FIELDS).names


@pytest.mark.parametrize("shape", [*SHAPES, Shape.ICEBERG])
def test_what_ends_an_export_leaves_nothing(scan: HeldScan, tmp_path: Path, shape: Shape) -> None:
    """Rows that were pruned, a disk that is full, a file that is there."""
    path = tmp_path / f"x.{shape}"
    scan.pruned[1] = 65
    with pytest.raises(PrunedError):
        export(scan, Question(), FIELDS, path, shape)
    scan.pruned.clear()

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match="No space left"):
        export(scan, Question(), FIELDS, path, shape, tell=full)
    assert not [found for found in tmp_path.rglob("*.parquet") if found.stat().st_size]
    if shape is not Shape.ICEBERG:
        assert not list(tmp_path.iterdir())
    export(scan, Question(), FIELDS, path, shape)
    with pytest.raises(BadInputError, match="--force"):
        export(scan, Question(), FIELDS, path, shape)
    export(scan, Question(), FIELDS, path, shape, force=True)


def test_row_groups_have_a_size(scan: HeldScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the parts come."""
    monkeypatch.setattr("lifecycle.scan.PART_ROWS", 20)
    monkeypatch.setattr("lifecycle.scan._MERGED_ROWS_MIN", 1)
    monkeypatch.setattr(exporting, "GROUP_ROWS", 400)
    export(scan, Question(), FIELDS, tmp_path / "x.parquet", Shape.PARQUET)
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert metadata.num_row_groups == 3
    monkeypatch.setattr(exporting, "GROUP_BYTES", 1)
    export(scan, Question(), FIELDS, tmp_path / "y.parquet", Shape.PARQUET)
    assert pq.read_metadata(tmp_path / "y.parquet").num_row_groups > 3


def test_a_suffix_says_the_format() -> None:
    """Some do."""
    assert [shape_of("x", suffix) for suffix in (".csv", ".NDJSON", ".feather", ".parquet")] == list(SHAPES)
    with pytest.raises(BadInputError, match="--format"):
        shape_of("lake", "")


def test_a_table_of_iceberg_has_every_row(scan: HeldScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one commit, as pyiceberg reads it and hands it to DuckDB; a second is its next snapshot."""
    monkeypatch.setattr(iceberg, "_FILE_ROWS", 400)
    monkeypatch.setattr("lifecycle.scan.PART_ROWS", 64)
    folder = tmp_path / "lake"
    export(scan, Question(), FIELDS, folder, Shape.ICEBERG)
    catalog = SqlCatalog("driftledger", uri=f"sqlite:///{folder}/catalog.db", warehouse=folder.as_uri())
    table = catalog.load_table("driftledger.events")
    found = table.scan().to_arrow()
    key = [("partition", "ascending"), ("sequence", "ascending")]
    wanted = whole(scan).cast(found.schema)
    assert list(rows_in(found.sort_by(key))) == list(rows_in(wanted.sort_by(key)))
    assert len(list(folder.rglob("part-*.parquet"))) > 1
    with duckdb.connect() as duck:
        duck.register("lake", found)
        assert duck.execute("SELECT count(*) FROM lake").fetchone() == (900,)
    export(scan, Question(sources=(b"s1",)), FIELDS, folder, Shape.ICEBERG, force=True)
    table.refresh()
    assert set(table.scan().to_arrow()["source"].to_pylist()) == {"s1"}
    with pytest.raises(BadInputError, match="other columns"):
        export(scan, Question(), (Field.VALUE,), folder, Shape.ICEBERG, force=True)
    catalog.close()


def test_what_a_killed_run_left_beside_a_table_is_removed(scan: HeldScan, tmp_path: Path) -> None:
    """And nothing that any snapshot of the table has."""
    folder = tmp_path / "lake"
    export(scan, Question(), FIELDS, folder, Shape.ICEBERG)
    data = folder / "events" / "data"
    before = set(data.iterdir())
    (data / "part-left.parquet").write_bytes(b"by halves")
    export(scan, Question(sources=(b"s1",)), FIELDS, folder, Shape.ICEBERG, force=True)
    assert before < set(data.iterdir())
    assert not (data / "part-left.parquet").exists()


def test_a_table_that_is_committed_has_its_rows_whatever_ends_the_run(
    scan: HeldScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment behind the commit, too."""
    folder = tmp_path / "lake"
    export(scan, Question(), FIELDS, folder, Shape.ICEBERG)
    commit = Transaction.commit_transaction

    def interrupted(transaction: Transaction) -> None:
        commit(transaction)
        raise KeyboardInterrupt

    monkeypatch.setattr(Transaction, "commit_transaction", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(scan, Question(sources=(b"s1",)), FIELDS, folder, Shape.ICEBERG, force=True)
    catalog = SqlCatalog("driftledger", uri=f"sqlite:///{folder}/catalog.db", warehouse=folder.as_uri())
    assert set(catalog.load_table("driftledger.events").scan().to_arrow()["source"].to_pylist()) == {"s1"}
    catalog.close()


def test_without_pyiceberg_it_says_how_to_get_it(
    scan: HeldScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And makes no folder."""
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    with pytest.raises(BadInputError, match=r"pip install 'driftledger\[iceberg\]'"):
        export(scan, Question(), FIELDS, tmp_path / "lake", Shape.ICEBERG)
    assert not list(tmp_path.iterdir())
