"""`driftledger sql` and `export` as commands, where neither needs a ledger."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pytest

from schemas.clock import SystemTime
from streams.cli.main import main
from tests.core.held_scan import HeldScan
from tests.core.hot_rows import DictionaryStore, odd_rows

if TYPE_CHECKING:
    from pathlib import Path


class _Terminal(io.StringIO):
    """Standard input of somebody who waits."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_a_query_is_an_argument_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And gives the same."""
    query = "SELECT 1 AS a, 'x' AS b"
    (tmp_path / "q.sql").write_text(query)
    for arguments in ([query], ["--file", str(tmp_path / "q.sql")], [], ["-"]):
        monkeypatch.setattr("sys.stdin", io.StringIO(query))
        assert main(["sql", *arguments, "--format", "jsonl"]) == 0
        assert json.loads(capsys.readouterr().out) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "with --file, or on standard input"),
        (["SELECT 1", "--file", "q.sql"], "one or the other"),
        (["--file", "/nowhere/q.sql"], "cannot be read as text"),
        ([" \n"], "the query is empty"),
        (["SELECT 1", "--memory", "lots"], "is no size"),
        (["SELECT 1", "--memory", "1MB"], "less than 64MB"),
        (["SELECT * FROM nothing"], "nothing does not exist"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing on stdout."""
    monkeypatch.setattr("sys.stdin", _Terminal())
    assert main(["sql", *arguments]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""


def test_forms_of_an_answer(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A table says where it ends; others have all rows."""
    query = "SELECT range AS n, [range] AS l FROM range(1500)"
    assert main(["sql", query]) == 0
    printed = capsysbinary.readouterr()
    assert b"more than 1,000 rows" in printed.err
    assert b" 999 " in printed.out
    assert b" 1000 " not in printed.out
    assert main(["sql", query, "-o", "csv"]) == 0
    lines = capsysbinary.readouterr().out.splitlines()
    assert (lines[0], lines[-1], len(lines)) == (b"n,l", b"1499,[1499]", 1_501)
    assert main(["sql", query, "-o", "arrow"]) == 0
    with pa.ipc.open_stream(capsysbinary.readouterr().out) as stream:
        assert stream.read_all().num_rows == 1_500


def test_a_table_of_what_was_pruned_meanwhile_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor are its first 1,000 rows, behind which nobody reads."""
    scan = HeldScan(DictionaryStore({p: odd_rows(p, 600, 9) for p in (0, 1)}, chunk_rows=64, unsealed=10))
    monkeypatch.setattr("lifecycle.scan.Scan", lambda _settings: scan)
    query = "SELECT partition, sequence FROM events ORDER BY ALL"
    assert main(["sql", query]) == 0
    assert "more than 1,000 rows" in capsys.readouterr().err
    scan.pruned[1] = 65
    for asked in (query, f"{query} LIMIT 900"):
        assert main(["sql", asked]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "partition 1" in printed.err
        assert "more than" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x.txt"], "does not say the format"),
        (["x.csv", "--format", "xlsx"], "is none of csv, jsonl, arrow, parquet, iceberg"),
        (["x.csv", "--events", "--columns", "value"], "one or the other"),
        (["x.csv", "--last", "1h", "--from", "5"], "one or the other"),
        (["/nowhere/x.csv"], "is no folder"),
    ],
)
def test_an_export_that_cannot_be_is_refused_at_once(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before Kafka is looked for."""
    assert main(["export", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_query_that_is_interrupted_ends_without_a_traceback() -> None:
    """As any command does, and with nothing on stdout."""
    endless = "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b"
    program = "import sys; from streams.cli.main import run; run()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "sql", "--explain", endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    clock = SystemTime()
    while process.poll() is None and psutil.Process(process.pid).num_threads() < 3:
        clock.sleep_s(0.05)
    clock.sleep_s(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
