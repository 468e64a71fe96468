"""Stores that live in this process: DuckDB's own file, and chDB, which is ClickHouse."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.store.questions import MINUTE_US, Groups, Kind, RowsOut, Tolerance, source_codes
from benchmarks.store.rows import NAMES
from benchmarks.store.subjects import Stopwatch, folder_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.store.questions import Answer, Asked
    from benchmarks.store.rows import Piece, Rows

#: Sums of doubles one after the other, in any order.
SUMS: Final = Tolerance(sums=1e-9)
_NONE: Final = np.zeros(0, np.int64)
_SOURCES: Final = pa.array([name.decode() for name in NAMES], pa.string())


def piece_table(piece: Piece) -> pa.Table:
    """Rows as Arrow: sequence, authority, local, source, value."""
    return pa.table(
        {
            "sequence": pa.array(piece.sequence, pa.int64()),
            "authority": pa.array(piece.authority_ms, pa.timestamp("ms", tz="UTC")),
            "local": pa.array(piece.local_us, pa.timestamp("us", tz="UTC")),
            "source": pa.DictionaryArray.from_arrays(pa.array(piece.source, pa.int32()), _SOURCES).cast(pa.string()),
            "value": pa.array(piece.value, pa.float64()),
        }
    )


def groups_in(lines: list[tuple[Any, ...]]) -> Groups:
    """Of lines of start, count, sum, min, max, mean."""
    start_us, count, *functions = np.array(lines, np.float64).reshape(-1, 6).T
    return Groups(start_us.astype(np.int64), count.astype(np.int64), *functions)


def rows_in(asked: Asked, table: pa.Table) -> RowsOut:
    """Of a table with the columns of `piece_table`, instants in any form."""

    def integers(name: str, unit: str) -> NDArray[np.int64]:
        column = table[name].combine_chunks()
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp(unit, tz=column.type.tz))
        return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)

    value = np.asarray(table["value"].to_numpy(), np.float64)
    place = integers("sequence", ""), integers("authority", "ms")
    if asked.kind is Kind.POINTS:
        return RowsOut(*place, _NONE, _NONE, value)
    names = table["source"].unify_dictionaries().combine_chunks()
    names = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    source = source_codes(names.dictionary.to_pylist())[names.indices.to_numpy()]
    return RowsOut(*place, integers("local", "us"), source, value)


class DuckDb:
    """A table in a file, in the order of time, so that its zones are narrow; the source is an enumeration."""

    name = "DuckDB, own file"
    tolerance = SUMS

    def __init__(self, folder: Path, rows: Rows, threads: int) -> None:
        self.version, self.rows_loaded = duckdb.__version__, rows.count
        file = str(folder / "rows.duckdb")
        watch = Stopwatch()
        with duckdb.connect(file, config={"threads": threads}) as database:
            names = ", ".join(f"'{name.decode()}'" for name in NAMES)
            database.execute(f"CREATE TYPE source AS ENUM ({names})")
            database.execute(
                "CREATE TABLE rows (sequence BIGINT, authority TIMESTAMP_MS, local TIMESTAMP, source source, "
                "value DOUBLE)"
            )
            for piece in rows.pieces():
                table = piece_table(piece)
                with watch:
                    database.register("piece", table)
                    database.execute("INSERT INTO rows SELECT * FROM piece")
                    database.unregister("piece")
            with watch:
                database.execute("CHECKPOINT")
        self.load_s, self.size_bytes = watch.seconds, folder_bytes(folder)
        self._database = duckdb.connect(file, read_only=True, config={"threads": threads})

    def ask(self, asked: Asked) -> Any:
        """Of rows an Arrow table: those of a table that was filled in order come in that order."""
        if asked.rows:
            names = "sequence, authority, value" if asked.kind is Kind.POINTS else "*"
            sql = f"SELECT {names} FROM rows WHERE local >= make_timestamp($1) AND local < make_timestamp($2)"  # noqa: S608 - of ours
            return self._database.sql(sql, params=[asked.from_us, asked.to_us]).to_arrow_table()
        functions = "count(*), sum(value), min(value), max(value), avg(value) FROM rows"
        if asked.kind is Kind.TUMBLING:
            minute = f"epoch_us(local) // {MINUTE_US}"
            sql = f"SELECT {minute} AS minute, {functions} GROUP BY minute ORDER BY minute"
            return self._database.execute(sql).fetchall()
        sql = f"SELECT 0, {functions} WHERE local >= make_timestamp($1) AND local < make_timestamp($2)"
        values: list[Any] = [asked.from_us, asked.to_us]
        if asked.source is not None:
            sql += " AND source = $3"
            values.append(NAMES[asked.source].decode())
        return self._database.execute(sql, values).fetchall()

    def told(self, asked: Asked, said: Any) -> Answer:
        """As it is compared."""
        if asked.rows:
            return rows_in(asked, said)
        found = groups_in(said)
        return found._replace(start_us=found.start_us * MINUTE_US)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


class ChDb:
    """A MergeTree in the order of time, with a projection by source."""

    name = "chDB"
    tolerance = SUMS

    def __init__(self, folder: Path, rows: Rows, threads: int) -> None:
        chdb: Any = importlib.import_module("chdb.session")
        self.version, self.rows_loaded = version("chdb"), rows.count
        # Compressing what this process reads at once, and writing each name out, would take most of the time.
        self._settings = (
            f" SETTINGS max_threads = {threads}, output_format_arrow_compression_method = 'none', "
            "output_format_arrow_low_cardinality_as_dictionary = 1"
        )
        self._session = chdb.Session(str(folder / "chdb"))
        self._run("CREATE DATABASE bench")
        self._run(
            "CREATE TABLE bench.rows (sequence Int64 CODEC(Delta, LZ4), authority DateTime64(3, 'UTC') "
            "CODEC(Delta, LZ4), local DateTime64(6, 'UTC') CODEC(Delta, LZ4), source LowCardinality(String), "
            "value Float64, PROJECTION by_source (SELECT * ORDER BY source, local)) ENGINE = MergeTree ORDER BY local"
        )
        watch = Stopwatch()
        file = folder / "piece.parquet"
        for piece in rows.pieces():
            pq.write_table(piece_table(piece), file)
            with watch:
                self._run(f"INSERT INTO bench.rows SELECT * FROM file('{file}', Parquet)")  # noqa: S608 - of ours
        file.unlink()
        with watch:
            self._run("OPTIMIZE TABLE bench.rows FINAL")
        self.load_s = watch.seconds
        [[size]] = self._lines("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'rows'")
        self.size_bytes = int(size)

    def ask(self, asked: Asked) -> Any:
        """An Arrow table."""
        where = f"WHERE local >= {_instant(asked.from_us)} AND local < {_instant(asked.to_us)}"
        if asked.rows:
            names = "sequence, authority, value" if asked.kind is Kind.POINTS else "*"
            return self._table(f"SELECT {names} FROM bench.rows {where} ORDER BY local" + self._settings)  # noqa: S608
        functions = "count(), sum(value), min(value), max(value), avg(value) FROM bench.rows"
        if asked.kind is Kind.TUMBLING:
            sql = f"SELECT intDiv(toUnixTimestamp64Micro(local), {MINUTE_US}) AS minute, {functions} GROUP BY minute "
            return self._table(sql + "ORDER BY minute" + self._settings)
        if asked.source is not None:
            where += f" AND source = '{NAMES[asked.source].decode()}'"
        return self._table(f"SELECT 0, {functions} {where}" + self._settings)

    def told(self, asked: Asked, said: Any) -> Answer:
        """As it is compared."""
        if asked.rows:
            return rows_in(asked, said)
        found = groups_in(list(zip(*(column.to_pylist() for column in said.columns), strict=True)))
        return found._replace(start_us=found.start_us * MINUTE_US)

    def close(self) -> None:
        """Let go of the folder."""
        self._session.close()

    def _run(self, sql: str) -> Any:
        return self._session.query(sql)

    def _lines(self, sql: str) -> list[list[str]]:
        content = bytes(self._session.query(sql, "TSV").bytes())
        return [line.split("\t") for line in content.decode().splitlines()]

    def _table(self, sql: str) -> pa.Table:
        content = self._session.query(sql, "ArrowStream").bytes()
        return pa.ipc.open_stream(pa.py_buffer(content)).read_all()


def _instant(us: int) -> str:
    return f"fromUnixTimestamp64Micro({us}, 'UTC')"
