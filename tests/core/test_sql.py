"""SQL over a ledger gives what its rows give, reads no more than it must, and can do nothing else."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from lifecycle.arrow import rows_table
from lifecycle.planner import Field, Question
from lifecycle.scan import PrunedError
from lifecycle.sql import Sql
from lifecycle.sql_rows import names_of, rows_of
from lifecycle.sql_views import EVENTS, View
from lifecycle.tiered import ArchiveDamagedError
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX
from streams.judge_kernel import Flag
from streams.settings import Settings
from tests.core.held_scan import HeldScan
from tests.core.hot_rows import DictionaryStore, odd_rows
from tests.core.query_oracle import all_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture
def scan() -> HeldScan:
    """Odd rows of three partitions."""
    return HeldScan(DictionaryStore({p: odd_rows(p, 300, 9) for p in (0, 1, 2)}, chunk_rows=64, unsealed=10))


@pytest.fixture
def sql(scan: HeldScan) -> Iterator[Sql]:
    """Over them."""
    with Sql(Settings(), scan) as session:
        yield session


def asked(sql: Sql, query: str) -> list[dict[str, Any]]:
    """The rows as they are."""
    answer = sql.ask(query)
    rows: list[dict[str, Any]] = pa.Table.from_batches(list(answer.batches), answer.schema).to_pylist()
    return rows


def shown(sql: Sql, query: str) -> list[dict[str, Any]]:
    """The rows as they are printed."""
    answer = sql.ask(query)
    return list(rows_of(answer.schema, answer.batches))


def test_every_row_is_there_once_with_all_that_is_known_of_it(sql: Sql, scan: HeldScan) -> None:
    """As the range query has it; instants beyond DuckDB's calendar are infinite."""
    answer = sql.ask("SELECT * FROM events ORDER BY partition, sequence")
    assert answer.schema.names == EVENTS.names
    found = _numbered(pa.Table.from_batches(list(answer.batches), answer.schema))
    table = _numbered(rows_table(scan.queries.range(Question(), tuple(Field), 10_000)))
    wanted = sorted(table.to_pylist(), key=lambda row: (row["partition"], row["sequence"]))
    for one, other in zip(found.to_pylist(), wanted, strict=True):
        other["counted"] = other["fault"] == "NONE" and not other["flags"] & (Flag.DUPLICATE | Flag.CONFLICT)
        other["authority_timestamp"] *= 1_000
        for name in ("local_timestamp", "corrected_timestamp"):
            if other[name] is not None and other[name] < -9_223_372_022_400_000_000:
                other[name] = -INT64_MAX
        assert _plain(one) == _plain(other)


def _numbered(table: pa.Table) -> pa.Table:
    """Instants as numbers: some are in no year that Python has."""
    for name in table.column_names:
        if pa.types.is_timestamp(table.schema.field(name).type):
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    return table


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: "NaN" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def test_groups_are_those_of_a_loop(sql: Sql, scan: HeldScan) -> None:
    """Counts, and the first of each, of counted rows by source."""
    groups: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in all_rows(scan.store):
        if row.counted:
            place = row.fields[Field.PARTITION], row.fields[Field.SEQUENCE]
            groups[row.fields[Field.SOURCE].decode()].append(place)
    query = """
        SELECT source, count(*) AS n, min(partition * 1000 + sequence) AS first
        FROM events WHERE counted GROUP BY source ORDER BY source
    """
    assert asked(sql, query) == [
        {"source": source, "n": len(places), "first": min(p * 1_000 + s for p, s in places)}
        for source, places in sorted(groups.items())
    ]


CONDITIONS = [
    "source = 's1'",
    "source IN ('s0', 'late') AND kind = 't'",
    "source LIKE 's%'",
    "source IS NULL OR source = 's0'",
    "partition = 1 AND sequence BETWEEN 17 AND 120",
    "partition <> 1 AND sequence > 250",
    "authority_timestamp >= TIMESTAMPTZ '2026-11-21T10:05:00Z' AND authority_timestamp < '2026-11-21T10:09:00.0015Z'",
    "local_timestamp < '1970-01-01' OR local_timestamp >= '2026-11-21 10:10:00'",
    "local_timestamp = 'infinity' OR local_timestamp = '-infinity'",
    "corrected_timestamp > '2026-11-21 10:10:00Z' AND severity = 'RED'",
    "value > 1e3",
    "value = 'NaN'::DOUBLE OR value < -1",
    "value IS NULL AND cause IS NOT NULL",
    "NOT (source = 's1')",
    "NOT counted",
    "hlc % 2 = 0 AND payload <> ''",
    "event_id = 'e1-17'",
    "source = 's1' AND value > (SELECT avg(value) FROM events WHERE isfinite(value))",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_means_what_it_means_to_duckdb(sql: Sql, condition: str) -> None:
    """Pushed down or not: the same rows as of a table of its own."""
    asked(sql, "CREATE TABLE copied AS SELECT * FROM events")
    query = "SELECT partition, sequence FROM {} WHERE " + condition + " ORDER BY ALL"  # noqa: S608 - of ours
    wanted = asked(sql, query.format("copied").replace("FROM events", "FROM copied"))
    assert asked(sql, query.format("events")) == wanted
    assert wanted


def test_what_a_condition_leaves_out_is_not_read(sql: Sql, scan: HeldScan) -> None:
    """One partition, one source, a few sequences; of columns those that are needed."""
    assert scan.spans
    scan.asked.clear()
    asked(sql, "SELECT max(value) FROM events WHERE source = 's1' AND partition = 1 AND sequence <= 64")
    (request,) = [request for request in scan.asked if request.question.sources]
    assert request.question.sources == (b"s1",)
    assert request.question.sequences == {1: (1, 64)}
    assert set(request.fields) == {Field.VALUE, Field.SOURCE, Field.PARTITION, Field.SEQUENCE}
    assert scan.explain.rows_scanned == 64
    scan.asked.clear()
    assert asked(sql, "SELECT count(*) AS n FROM events WHERE source = 's1' AND partition = 9") == [{"n": 0}]
    assert not [request for request in scan.asked if request.question.sources]


def test_only_the_first_parts_are_read_where_a_limit_ends(scan: HeldScan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the ledger is not."""
    monkeypatch.setattr("lifecycle.scan.PART_ROWS", 50)
    with Sql(Settings(), scan) as sql:
        assert len(asked(sql, "SELECT sequence FROM events LIMIT 3")) == 3
    assert scan.covered()[0] < 900


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_parquet('https://127.0.0.1/x.parquet')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM glob('/*')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '64GB'",
        "SET temp_directory = '{folder}'",
        "SELECT * FROM secret",
        "CREATE PERSISTENT SECRET s (TYPE http)",
        "SELECT getenv('HOME')",
    ],
)
def test_a_query_reaches_nothing_else(sql: Sql, tmp_path: Path, query: str) -> None:
    """No file, no network, no extension, no setting, no variable of this process."""
    secret = pa.table({"a": [1]})
    assert secret.num_rows
    with pytest.raises(BadInputError):
        asked(sql, query.replace("{folder}", str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_what_takes_more_than_the_memory_is_refused(scan: HeldScan) -> None:
    """With what to do; and the folder that it may fill is gone afterwards."""
    wide = "SELECT count(*) FROM (SELECT DISTINCT md5(range::VARCHAR) FROM range(3_000_000))"
    with Sql(Settings(), scan, memory_bytes=64 << 20, temporary_bytes=1 << 20) as sql:
        (folder,) = (row["t"] for row in asked(sql, "SELECT current_setting('temp_directory') AS t"))
        assert Path(folder).is_dir()
        with pytest.raises(BadInputError, match="--memory"):
            asked(sql, wide)
    assert not Path(folder).exists()


def test_an_error_of_a_scan_is_told_as_it_is(sql: Sql, scan: HeldScan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which file, which sequences; and the next query goes on."""

    def damaged(*_: Any, **__: Any) -> Any:
        raise ArchiveDamagedError(1, "p00001.parquet, which has sequences 1 to 9: a checksum does not agree")

    with monkeypatch.context() as patched:
        patched.setattr(scan, "_ask", damaged)
        patched.setattr(scan, "_first", lambda _partition, _last: 1)
        with pytest.raises(ArchiveDamagedError, match=r"p00001\.parquet"):
            asked(sql, "SELECT sum(value) FROM events")
    assert asked(sql, "SELECT count(*) AS n FROM events") == [{"n": 900}]
    with pytest.raises(BadInputError, match="nonsense"):
        asked(sql, "SELECT nonsense FROM events")


def test_rows_that_were_pruned_meanwhile_are_no_answer(sql: Sql, scan: HeldScan) -> None:
    """It would look whole."""
    scan.pruned[2] = 65
    with pytest.raises(PrunedError):
        asked(sql, "SELECT count(*) FROM events")


def test_answers_can_be_printed_whatever_their_types(sql: Sql) -> None:
    """Instants of any year, wide numbers, bytes, lists, objects; two columns of one name are two."""
    query = """
        SELECT TIMESTAMPTZ '2026-01-31 12:00:00.5+01' AS at, TIMESTAMP '2026-01-31 12:00:00' AS naive,
               TIMESTAMPTZ '-infinity' AS never, DATE '12026-01-31' AS day, TIME '01:02:03' AS time,
               TIMESTAMP_NS '2026-01-31 12:00:00.123456789' AS fine,
               sum(9223372036854775807::BIGINT) AS one, 170141183460469231731687303715884105727::HUGEINT AS huge,
               1.50::DECIMAL(5, 2) AS money, 'nan'::DOUBLE AS odd, '-inf'::DOUBLE AS low,
               'text'::BLOB AS text, '\\x80\\x00'::BLOB AS bytes, [1, NULL] AS list, {'a': 'b'::BLOB} AS object,
               MAP {'k': 1} AS map, INTERVAL 1 DAY AS span, true AS yes, NULL AS none, 1 AS twice, 2 AS twice
    """
    (row,) = shown(sql, query)
    assert row["at"] == "2026-01-31T11:00:00.500000Z"
    assert row["naive"] == "2026-01-31T12:00:00.000000"
    assert row["never"] == "-infinity"
    assert row["day"] == "+012026-01-31"
    assert row["time"] == "01:02:03"
    assert row["fine"] == "2026-01-31T12:00:00.123456789"
    assert row["one"] == INT64_MAX
    assert row["huge"] == "170141183460469231731687303715884105727"
    assert (row["money"], row["odd"], row["low"]) == ("1.50", "NaN", "-Infinity")
    assert (row["text"], row["bytes"]) == ("text", "\\x8000")
    assert (row["list"], row["object"]) == ([1, None], {"a": "b"})
    assert (row["yes"], row["none"]) == (True, None)
    assert (row["twice"], row["twice_2"]) == (1, 2)


def test_a_statement_may_make_a_table(sql: Sql) -> None:
    """What it made is there for the next; of several the last is told."""
    asked(sql, "CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE u AS SELECT 2 AS b")
    assert asked(sql, "SELECT * FROM t") == [{"a": 1}]
    assert names_of(pa.schema([("a", pa.int8()), ("a", pa.int8())])) == ["a", "a_2"]


class Numbers:
    """Readable: numbers, all of them however they are asked for. asked: the columns of each time."""

    def __init__(self) -> None:
        self.schema = pa.schema([("number", pa.int64()), ("double", pa.int64()), ("text", pa.string())])
        self.asked: list[tuple[list[str], bool]] = []

    def tables(self, columns: Sequence[str], condition: Any) -> Iterator[pa.Table]:
        """Three at a time."""
        self.asked.append((list(columns), condition is not None))
        for first in range(0, 9, 3):
            rows = [{"number": n, "double": 2 * n, "text": str(n)} for n in range(first, first + 3)]
            yield pa.Table.from_pylist(rows, self.schema).select(columns)


def test_duckdb_takes_for_a_data_set_what_is_readable() -> None:
    """It tells columns and condition, and is given no row that the condition leaves out; pyarrow knows it as well."""
    numbers = Numbers()
    view = View(numbers)
    assert isinstance(view, ds.Dataset)
    with duckdb.connect() as duck:
        duck.register("numbers", view)
        described = duck.execute("DESCRIBE numbers").fetchall()
        assert [row[:2] for row in described] == [("number", "BIGINT"), ("double", "BIGINT"), ("text", "VARCHAR")]
        assert numbers.asked == []
        found = duck.execute("SELECT text FROM numbers WHERE double >= 14 ORDER BY number").fetchall()
        assert found == [("7",), ("8",)]
        assert duck.execute("SELECT count(*), sum(number) FROM numbers").fetchone() == (9, 36)
    filtered, summed = numbers.asked
    assert (set(filtered[0]), filtered[1]) == ({"number", "double", "text"}, True)
    assert summed == (["number"], False)
    read = view.scanner(["text"], ds.field("number") > 6).to_reader().read_all()
    assert read.to_pydict() == {"text": ["7", "8"]}
