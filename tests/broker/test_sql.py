"""SQL and exports over a real ledger whose events are in archives, in the hot store, and in neither yet."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from lifecycle.hot_store import HotStore
from lifecycle.keeper import Keeper
from lifecycle.owned import OwnedLane
from lifecycle.planner import Field, Question
from lifecycle.reader import Reader
from lifecycle.rows import rows_in
from lifecycle.scan import Scan
from schemas.clock import SkewedTime, Step, SystemTime, using
from streams.cli.main import main
from tests.broker.harness import Ledger, Load, wait_for
from tests.broker.test_tiers import DAY_NS, OneStore

if TYPE_CHECKING:
    from pathlib import Path

ARCHIVED, HOT = 60_000, 3_000
FIELDS = tuple(Field)
ALL = 10 * (ARCHIVED + HOT)


@pytest.fixture(scope="module")
def ledger(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Two partitions: hours that are in archives alone, later events that are hot alone; no worker runs."""
    folder = tmp_path_factory.mktemp("sql")
    made = Ledger(kafka.bootstrap, f"sql-{SystemTime().now_us():x}", folder, {"partitions": 2, "lanes": 1}).create()
    load = Load(made)
    _feed(made, load, ARCHIVED)
    (store_folder,) = made.settings.data_dir.glob("hot/*/*/lane-0")
    store = HotStore.open(store_folder)
    tier: Any = OneStore(store)
    for days in (6, 9):
        with using(SkewedTime(SystemTime(), Step(days * DAY_NS))):
            keeper = Keeper(made.settings, made.bootstrap, lambda: [OwnedLane((0, 1), {}, tier)])
            keeper.turn(made.folder)
            keeper.close()
    assert store.away(0).size
    assert store.away(1).size
    store.close()
    _feed(made, load, HOT)
    return made


def _feed(ledger: Ledger, load: Load, count: int) -> None:
    load.send(count)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 2, "it is hot")
        worker.stop()


@pytest.fixture
def _command(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)


def whole(ledger: Ledger, **asked: Any) -> pa.Table:
    """What the range query says."""
    return Reader(ledger.settings).temporal_range_query(limit=ALL, columns=FIELDS, **asked)


def sql(capsys: pytest.CaptureFixture[str], query: str, *options: str) -> tuple[list[dict[str, Any]], str]:
    """Rows, and what was told on stderr."""
    capsys.readouterr()
    code = main(["sql", query, "-o", "jsonl", *options])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return [json.loads(line) for line in printed.out.splitlines()], printed.err


@pytest.mark.usefixtures("_command")
def test_events_are_those_of_the_range_query(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, wherever it lies, with all its columns."""
    wanted = list(rows_in(whole(ledger)))
    assert len(wanted) == ARCHIVED + HOT
    query = """
        SELECT partition, sequence, "index", input_offset, epoch_ms(authority_timestamp) AS authority_timestamp_ms,
               epoch_us(local_timestamp) AS local_timestamp_us, delta_ms, severity, cause, offset_us, bound_us, flags,
               fault, source, kind, event_id, value, hlc, hex(chain_hash) AS chain_hash, md5(payload) AS payload
        FROM events ORDER BY partition, sequence
    """
    found, told = sql(capsys, query, "--explain")
    chunks = int(told.partition(" of these in archives")[0].rpartition("; ")[2])
    assert chunks >= 2
    by_place = {(row["partition"], row["sequence"]): row for row in wanted}
    assert len(by_place) == len(found)
    for row in found:
        other = by_place[row["partition"], row["sequence"]]
        payload = (other["payload"] or "").encode()
        if other["payload_base64"] is None and other["fault"] == "NONE":
            assert row["payload"] == hashlib.md5(payload).hexdigest()  # noqa: S324 - as DuckDB has it
        row.pop("payload")
        assert row | {"chain_hash": row["chain_hash"].lower()} == {name: other[name] for name in row}


@pytest.mark.usefixtures("_command")
def test_groups_are_those_of_a_loop_and_of_aggregate(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts by source of what is counted, and a share of them by source and time alone."""
    counts: Counter[str] = Counter()
    rows = list(rows_in(whole(ledger)))
    for row in rows:
        if row["fault"] == "NONE" and not row["flags"] & 0b110:
            counts[row["source"]] += 1
    query = "SELECT source, count(*) AS n FROM events WHERE counted GROUP BY source ORDER BY source"
    found, _ = sql(capsys, query)
    told = Reader(ledger.settings).aggregate(by="source").to_pylist()
    assert {row["source"]: row["n"] for row in found} == {row["source"]: row["count"] for row in told}
    middle = sorted(row["authority_timestamp_ms"] for row in rows)[-HOT]
    query = f"SELECT count(*) AS n FROM events WHERE source = 'source-7' AND authority_timestamp >= make_timestamptz({middle * 1_000})"  # noqa: E501, S608 - of ours
    found, said = sql(capsys, query, "--explain")
    wanted = sum(row["source"] == "source-7" and row["authority_timestamp_ms"] >= middle for row in rows)
    assert found == [{"n": wanted}]
    assert wanted
    assert "of sources source-7" in said
    assert "by authority time from" in said
    scanned = int(said.rpartition("rows       ")[2].split()[0])
    assert scanned < ARCHIVED // 2
    assert " 0 of these in archives" in said


@pytest.mark.usefixtures("_command")
def test_archives_and_jobs_are_views(capsys: pytest.CaptureFixture[str]) -> None:
    """And join with events."""
    query = """
        SELECT a.partition, count(DISTINCT path) AS files, sum(rows) AS entries, min(first_sequence) AS first,
               (SELECT count(*) FROM events e WHERE e.partition = a.partition
                AND e.sequence <= (SELECT max(last_sequence) FROM archives b WHERE b.partition = e.partition)) AS events
        FROM archives a GROUP BY a.partition ORDER BY 1
    """
    found, _ = sql(capsys, query)
    assert [row["partition"] for row in found] == [0, 1]
    assert all(row["first"] == 1 and row["entries"] >= row["events"] > 1_000 for row in found)
    found, _ = sql(capsys, "SELECT job, state, sum(rows) AS n FROM jobs WHERE job = 'seal' GROUP BY ALL")
    assert [(row["job"], row["state"]) for row in found] == [("seal", "done")]


@pytest.mark.usefixtures("_command")
def test_a_live_worker_is_asked_for_what_it_has(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """The same answers, also for a scan and an export of many parts."""
    wanted = list(rows_in(whole(ledger)))
    query = 'SELECT count(*) AS n, sum(sequence)::BIGINT AS s, max("index") AS i FROM events'
    before, _ = sql(capsys, query)
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 2, "it is hot")
        assert Reader(ledger.settings).assigned(None).keys() != {None}
        assert sql(capsys, query)[0] == before
        with Scan(ledger.settings) as scan:
            found = [row for table in scan.merged(Question(), FIELDS) for row in rows_in(table)]
            scan.check()
            assert scan.covered() == (ARCHIVED + HOT, ARCHIVED + HOT)
        assert found == wanted
        with Scan(ledger.settings) as scan:
            parts = scan.parts(Question(), (Field.EVENT_ID,))
            ids = next(parts)["sequence"].to_pylist()
            worker.stop()
            for table in parts:
                ids += table["sequence"].to_pylist()
    assert len(ids) == ARCHIVED + HOT


@pytest.mark.usefixtures("_command")
def test_a_damaged_archive_is_named_and_gives_no_answer(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """A bit of a column that is read; other columns, and sequences that are hot, are answered."""
    root = ledger.settings.data_dir / "temporal"
    path = max(root.rglob("*.parquet"), key=lambda found: found.stat().st_size)
    content = path.read_bytes()
    metadata = pq.read_metadata(path)
    names = [metadata.row_group(0).column(place).path_in_schema for place in range(metadata.num_columns)]
    column = metadata.row_group(0).column(names.index("event_id"))
    at = column.data_page_offset + column.total_compressed_size // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    try:
        assert main(["sql", "SELECT max(event_id) FROM events"]) == 1
        told = capsys.readouterr().err
        assert path.name in told
        assert "sequences" in told
        assert "Traceback" not in told
        assert main(["export", str(ledger.folder / "none.csv")]) == 1
        assert path.name in capsys.readouterr().err
        assert not list(ledger.folder.glob("*none.csv*"))
        assert sql(capsys, "SELECT count(value) > 0 AS yes FROM events")[0] == [{"yes": True}]
    finally:
        path.write_bytes(content)


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_an_export_has_every_row_in_order(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    """Of all tiers, as the range query has them."""
    path = tmp_path / f"x.{suffix}"
    assert main(["export", str(path)]) == 0
    assert f"{ARCHIVED + HOT} events written to" in capsys.readouterr().err
    wanted = list(rows_in(whole(ledger)))
    if suffix == "jsonl":
        assert [json.loads(line) for line in path.read_bytes().splitlines()] == wanted
        return
    if suffix == "arrow":
        with pa.ipc.open_file(path) as file:
            assert list(rows_in(file.read_all())) == wanted
        return
    assert list(rows_in(pq.read_table(path))) == wanted
    assert main(["export", str(path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["export", str(path), "--force", "--source", "source-3", "-p", "0", "--columns", "value"]) == 0
    assert pq.read_table(path).column_names == ["value"]
    assert pq.read_metadata(path).num_rows == whole(ledger, sources=["source-3"], partitions=[0]).num_rows


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_an_export_of_events_can_be_published_again(
    kafka: Any, ledger: Ledger, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Into another ledger, which has the same events then, in the same order by source."""
    path = tmp_path / f"x.{suffix}"
    assert main(["export", str(path), "--events", "--sequences", "0:1-1500", "--sequences", "1:1-1500"]) == 0
    other = Ledger(kafka.bootstrap, prefix, tmp_path / "other", {"partitions": 2, "lanes": 1}).create()
    (tmp_path / "other").mkdir()
    for name, value in other.environment().items():
        monkeypatch.setenv(name, value)
    assert main(["publish", str(path)]) == 0
    with other.worker() as worker:
        other.wait_level(worker)
        worker.stop()
    members = ("event_id", "source", "local_timestamp_us", "kind", "value", "payload", "payload_base64", "hlc")
    asked = {"sequences": {0: (1, 1_500), 1: (1, 1_500)}, "partitions": (0, 1)}
    sides = [
        [tuple(row[name] for name in members) for row in rows_in(table) if row["fault"] == "NONE"]
        for table in (whole(ledger, **asked), whole(other))
    ]
    by_source = [sorted(side, key=lambda event: event[1]) for side in sides]
    assert by_source[0] == by_source[1]
    assert len(by_source[0]) > 2_500


@pytest.mark.usefixtures("_command")
def test_a_table_of_iceberg_has_the_rows(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As pyiceberg scans them."""
    folder = tmp_path / "lake"
    assert main(["export", str(folder), "--format", "iceberg"]) == 0
    assert "events written" in capsys.readouterr().err
    catalog = SqlCatalog("driftledger", uri=f"sqlite:///{folder}/catalog.db", warehouse=folder.as_uri())
    found = catalog.load_table("driftledger.events").scan().to_arrow()
    catalog.close()
    key = [("partition", "ascending"), ("sequence", "ascending")]
    wanted = whole(ledger).cast(found.schema)
    assert list(rows_in(found.sort_by(key))) == list(rows_in(wanted.sort_by(key)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_killed_export_leaves_nothing_half(ledger: Ledger, tmp_path: Path, suffix: str) -> None:
    """Nothing under its name, or what was there; the next export leaves no part."""
    path = tmp_path / f"x.{suffix}"
    environment = os.environ | ledger.environment()
    part = path.with_name(f".{path.name}.part")

    def export(dies_at: str = "") -> int:
        """Killed when it is all written, or when that is on disk."""
        die = f"{dies_at} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)" if dies_at else ""
        lines = (
            "import os, pathlib, signal, sys",
            die,
            "from streams.cli.main import run",
            "sys.argv[0] = 'driftledger'",
        )
        program = "\n".join((*lines, "run()"))
        command = [sys.executable, "-c", program, "export", str(path), "--force"]
        return subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL).returncode

    for dies_at, before in (("os.fsync", None), ("pathlib.Path.replace", b"before")):
        if before is not None:
            path.write_bytes(before)
        assert export(dies_at) == -signal.SIGKILL
        assert part.stat().st_size > 100_000
        assert (path.read_bytes() if path.exists() else None) == before
    assert export() == 0
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size > 100_000
