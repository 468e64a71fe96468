"""Stores that are servers: PostgreSQL, VictoriaMetrics, InfluxDB. Each is started here, on loopback, and ended.

Their data lies in a folder of the run. They end with this process, also when that is killed.
"""

from __future__ import annotations

import grp
import importlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

import numpy as np
import orjson

from benchmarks.store.embedded import SUMS, groups_in, piece_table, rows_in
from benchmarks.store.questions import MINUTE_US, Groups, Kind, RowsOut, Tolerance
from benchmarks.store.rows import NAMES
from benchmarks.store.subjects import Stopwatch, folder_bytes
from schemas.clock import SystemTime
from schemas.errors import UnreachableError
from schemas.instants import US_PER_MS, US_PER_S, format_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.store.questions import Answer, Asked
    from benchmarks.store.rows import Piece, Rows

_READY_S: Final = 60
_STOP_S: Final = 60
_POLL_S: Final = 0.1
#: A folder that is as large as it was for so long has settled.
_SETTLED_S: Final = 5
_SETTLE_MAX_S: Final = 900
_ANSWER_S: Final = 600
_LINES: Final = 20_000
_OK: Final = (200, 204)
_HOST: Final = "127.0.0.1"
_POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")
_NONE: Final = np.zeros(0, np.int64)
_MB: Final = 1024 * 1024
_TEXTS: Final = [name.decode() for name in NAMES]
_time = SystemTime()


class ServerError(UnreachableError):
    """A server did not start, or refused."""


def program(name: str) -> str | None:
    """Where a server's program is; None where it is not installed."""
    return shutil.which(name, path=f"{_POSTGRES}:{os.environ.get('PATH', '')}")


class _Account(NamedTuple):
    """Who a server runs as. name: None for whoever we are."""

    name: str | None

    def command(self, *program: str) -> list[str]:
        """As that account, killed with us."""
        account = []
        if self.name is not None:
            group = grp.getgrgid(pwd.getpwnam(self.name).pw_gid).gr_name
            account = ["--reuid", self.name, "--regid", group, "--clear-groups"]
        return ["setpriv", "--pdeathsig", "KILL", *account, *program]

    def give(self, folder: Path) -> None:
        """Have a folder be the account's, and reachable."""
        if self.name is not None:
            shutil.chown(folder, self.name)
            folder.parent.chmod(0o711)


def _unprivileged() -> _Account:
    """For what refuses to run as root."""
    if os.geteuid() != 0:
        return _Account(None)
    names = [entry.pw_name for entry in pwd.getpwall()]
    return _Account("postgres" if "postgres" in names else "nobody")


class _Server:
    """A process that answers once it is ready. log: what it says."""

    def __init__(self, command: list[str], log: Path, variables: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as out:
            environment = {**os.environ, **variables}
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd="/"
            )

    def wait(self, is_ready: Callable[[], bool]) -> None:
        """Until it answers. Raises ServerError."""
        deadline_ns = _time.monotonic_ns() + _READY_S * 1_000_000_000
        while not is_ready():
            if self._process.poll() is not None or _time.monotonic_ns() > deadline_ns:
                tail = self._log.read_bytes()[-1_000:].decode(errors="replace")
                self.stop()
                raise ServerError(f"{self._process.args!r:.200} does not answer. It says: {tail}")
            _time.sleep_s(_POLL_S)

    def stop(self) -> None:
        """Ask it to end, and end it."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind((_HOST, 0))
        port: int = found.getsockname()[1]
        return port


def _settle(folder: Path) -> None:
    """Wait until nothing is written below a folder any more."""
    size, still, waited = -1, 0, 0
    while still < _SETTLED_S and waited < _SETTLE_MAX_S:
        found = _size_of(folder)
        still = still + 1 if found == size else 0
        size = found
        waited += 1
        _time.sleep_s(1.0)


def _size_of(folder: Path) -> int:
    try:
        return folder_bytes(folder)
    except OSError:  # a file went while it was looked at
        return -2


# ----------------------------------------------------------------------------------------------------------- PostgreSQL


class Postgres:
    """A table in the order of time; indexes of time and of source and time have the value with them."""

    name = "PostgreSQL"
    tolerance = SUMS

    def __init__(self, folder: Path, rows: Rows, threads: int) -> None:
        driver: Any = importlib.import_module("adbc_driver_postgresql.dbapi")
        account, data, sockets = _unprivileged(), folder / "data", folder / "sockets"
        for made in (data, sockets):
            made.mkdir()
            account.give(made)
        folder.parent.chmod(0o711)
        subprocess.run(
            account.command(str(program("initdb")), "-D", str(data), "-U", "bench", "-A", "trust", "-E", "UTF8",
                            "--locale=C"),
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MB
        settings = {
            "listen_addresses": "", "unix_socket_directories": str(sockets), "shared_buffers": f"{memory_mb // 4}MB",
            "effective_cache_size": f"{memory_mb // 2}MB", "work_mem": "256MB", "maintenance_work_mem": "1GB",
            "max_wal_size": "16GB", "random_page_cost": "1.1", "max_parallel_workers": threads,
            "max_parallel_workers_per_gather": threads - 1, "synchronous_commit": "off", "jit": "off",
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._server = _Server(account.command(str(program("postgres")), "-D", str(data), *options), folder / "log", {})
        address = f"postgresql:///postgres?host={sockets}&user=bench"
        self._server.wait(lambda: _connects(driver, address))
        self._connection = driver.connect(address, autocommit=True)
        self._cursor = self._connection.cursor()
        self.rows_loaded = rows.count
        [[said]] = self._lines("SELECT split_part(version(), ' ', 2)")
        self.version = str(said)
        self._run(
            "CREATE TABLE rows (local timestamptz NOT NULL, authority timestamptz NOT NULL, sequence bigint NOT NULL, "
            "value double precision NOT NULL, source text NOT NULL)"
        )
        watch = Stopwatch()
        for piece in rows.pieces():
            table = piece_table(piece)
            with watch:
                self._cursor.adbc_ingest("rows", table, mode="append")
        with watch:
            self._run("CREATE INDEX ON rows (local) INCLUDE (value)")
            self._run("CREATE INDEX ON rows (source, local) INCLUDE (value)")
            self._run("VACUUM (ANALYZE, FREEZE) rows")
            self._run("CHECKPOINT")
        self.load_s = watch.seconds
        [[size]] = self._lines("SELECT pg_total_relation_size('rows')")
        self.size_bytes = int(size)

    def ask(self, asked: Asked) -> Any:
        """Of rows an Arrow table, else lines."""
        where = f"WHERE local >= '{format_us(asked.from_us)}' AND local < '{format_us(asked.to_us)}'"
        if asked.rows:
            names = "sequence, authority, value" if asked.kind is Kind.POINTS else "*"
            self._cursor.execute(f"SELECT {names} FROM rows {where} ORDER BY local")  # noqa: S608 - of ours
            return self._cursor.fetch_arrow_table()
        functions = "count(*), sum(value), min(value), max(value), avg(value) FROM rows"
        if asked.kind is Kind.TUMBLING:
            minute = "date_bin('1 minute', local, 'epoch')"
            return self._lines(
                f"SELECT extract(epoch FROM minute)::bigint * {US_PER_S}, count, sum, min, max, avg FROM "  # noqa: S608
                f"(SELECT {minute} AS minute, {functions} GROUP BY minute) AS found ORDER BY minute"
            )
        if asked.source is not None:
            where += f" AND source = '{_TEXTS[asked.source]}'"
        return self._lines(f"SELECT 0::bigint, {functions} {where}")

    def told(self, asked: Asked, said: Any) -> Answer:
        """As it is compared."""
        return rows_in(asked, said) if asked.rows else groups_in(said)

    def close(self) -> None:
        """End it."""
        self._cursor.close()
        self._connection.close()
        self._server.stop()

    def _run(self, sql: str) -> None:
        self._cursor.execute(sql)

    def _lines(self, sql: str) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql)
        lines: list[tuple[Any, ...]] = self._cursor.fetchall()
        return lines


def _connects(driver: Any, address: str) -> bool:
    try:
        driver.connect(address).close()
    except driver.Error:
        return False
    return True


# ----------------------------------------------------------------------------------------------------- those over HTTP


class _Http:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(_HOST, port, timeout=_ANSWER_S)

    def answers(self, path: str) -> bool:
        """Whether anybody is there."""
        try:
            self.get(path)
        except (OSError, HTTPException, ServerError):
            self._connection.close()
            return False
        return True

    def get(self, path: str, **parameters: str | int) -> bytes:
        """What is answered. Raises ServerError."""
        return self._request("GET", f"{path}?{urlencode(parameters)}" if parameters else path, None)

    def post(self, path: str, body: bytes) -> bytes:
        """What is answered. Raises ServerError."""
        return self._request("POST", path, body)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status not in _OK:
            raise ServerError(f"{method} {path:.200} is answered {answer.status}: {content[:500]!r}")
        return content


def _line_protocol(piece: Piece) -> Iterator[bytes]:
    """Rows as lines of source, value, sequence and authority time, at their local microsecond."""
    columns = (piece.source, piece.value, piece.sequence, piece.authority_ms, piece.local_us)
    lines = [
        f"rows,source={_TEXTS[source]} value={value!r},sequence={sequence}i,authority={authority}i {local}\n"
        for source, value, sequence, authority, local in zip(*(column.tolist() for column in columns), strict=True)
    ]
    for start in range(0, len(lines), _LINES):
        yield "".join(lines[start : start + _LINES]).encode()


def _load_lines(http: _Http, path: str, rows: Rows, watch: Stopwatch) -> None:
    for piece in rows.pieces():
        for body in _line_protocol(piece):
            with watch:
                http.post(path, body)


class Influx:
    """A measurement with the source as its tag."""

    name = "InfluxDB"
    tolerance = SUMS

    def __init__(self, folder: Path, rows: Rows, threads: int) -> None:
        port, config, data = _free_port(), folder / "influxdb.conf", folder / "data"
        config.write_text(
            f'reporting-disabled = true\nbind-address = "{_HOST}:{_free_port()}"\n'
            f'[meta]\ndir = "{folder}/meta"\n[data]\ndir = "{data}"\nwal-dir = "{folder}/wal"\n'
            'index-version = "tsi1"\nquery-log-enabled = false\ncache-max-memory-size = "4g"\n'
            'cache-snapshot-write-cold-duration = "1s"\ncompact-full-write-cold-duration = "1s"\n'
            f'[http]\nbind-address = "{_HOST}:{port}"\nlog-enabled = false\n'
            "[monitor]\nstore-enabled = false\n[subscriber]\nenabled = false\n",
            encoding="utf-8",
        )
        command = _Account(None).command(str(program("influxd")), "-config", str(config))
        self._server = _Server(command, folder / "log", {"GOMAXPROCS": str(threads)})
        self._http = _Http(port)
        self._server.wait(lambda: self._http.answers("/ping"))
        self.rows_loaded, self.version = rows.count, _said(str(program("influxd")), "version")
        watch = Stopwatch()
        self._http.post("/query?" + urlencode({"q": "CREATE DATABASE bench"}), b"")
        _load_lines(self._http, "/write?db=bench&precision=u", rows, watch)
        self.load_s = watch.seconds
        _settle(data)
        self.size_bytes = folder_bytes(data)

    def ask(self, asked: Asked) -> Any:
        """Of rows columns, else lines."""
        where = f"FROM rows WHERE time >= {asked.from_us}u AND time < {asked.to_us}u"
        if asked.rows:
            names = '"sequence", authority, value' + ("" if asked.kind is Kind.POINTS else ", source")
            return list(zip(*self._lines(f"SELECT {names} {where}"), strict=True))
        if asked.source is not None:
            where += f" AND source = '{_TEXTS[asked.source]}'"
        grouped = " GROUP BY time(1m) fill(none)" if asked.kind is Kind.TUMBLING else ""
        return self._lines(f"SELECT count(value), sum(value), min(value), max(value), mean(value) {where}{grouped}")

    def told(self, asked: Asked, said: Any) -> Answer:
        """As it is compared."""
        if asked.rows:
            local, sequence, authority, value, *names = said
            source = np.array([int(name[-5:]) for name in names[0]], np.int64) if names else _NONE
            place = np.array(sequence, np.int64), np.array(authority, np.int64)
            return RowsOut(*place, np.array(local, np.int64) if names else _NONE, source, np.array(value))
        found = groups_in(said)
        return found if asked.kind is Kind.TUMBLING else found._replace(start_us=np.zeros(1, np.int64))

    def close(self) -> None:
        """End it."""
        self._http.close()
        self._server.stop()

    def _lines(self, query: str) -> list[tuple[Any, ...]]:
        content = orjson.loads(self._http.get("/query", db="bench", epoch="u", q=query))
        [result] = content["results"]
        if "error" in result:
            raise ServerError(f"InfluxDB does not answer {query}: {result['error']}")
        lines: list[tuple[Any, ...]] = result["series"][0]["values"]
        return lines


class Victoria:
    """Three series for each source: value, sequence and authority time. Instants are kept to the millisecond."""

    name = "VictoriaMetrics"
    #: It keeps decimals of its own, of which those of a block share their places: it is doubles that are asked for.
    tolerance = Tolerance(sums=1e-9, values=1e-10, local_us=US_PER_MS - 1)

    def __init__(self, folder: Path, rows: Rows, threads: int) -> None:
        port, data = _free_port(), folder / "data"
        command = _Account(None).command(
            str(program("victoria-metrics")), f"-storageDataPath={data}", f"-httpListenAddr={_HOST}:{port}",
            "-retentionPeriod=100y", "-search.disableCache", "-search.maxQueryDuration=10m",
            "-search.maxPointsPerTimeseries=1000000", "-search.maxSamplesPerQuery=10000000000",
            "-search.maxExportDuration=1h",
        )  # fmt: skip
        self._server = _Server(command, folder / "log", {"GOMAXPROCS": str(threads)})
        self._http = _Http(port)
        self._server.wait(lambda: self._http.answers("/health"))
        self.rows_loaded, self.version = rows.count, _said("dpkg-query", "-W", "-f", "${Version}", "victoria-metrics")
        watch = Stopwatch()
        _load_lines(self._http, "/write?precision=u", rows, watch)
        with watch:
            self._http.get("/internal/force_flush")
        self.load_s = watch.seconds
        self._http.get("/internal/force_merge")
        _settle(data)
        self.size_bytes = folder_bytes(data)

    def ask(self, asked: Asked) -> Any:
        """Columns of rows in the order of time; else groups, of what it tells of each source."""
        if asked.rows:
            return self._rows(asked)
        if asked.kind is Kind.TUMBLING:
            return self._windows(asked)
        source = "" if asked.source is None else f'{{source="{_TEXTS[asked.source]}"}}'
        length_ms = (asked.to_us - asked.from_us) // US_PER_MS
        functions = '("count_over_time", "sum_over_time", "min_over_time", "max_over_time")'
        query = f"aggr_over_time({functions}, rows_value{source}[{length_ms}ms])"
        found = self._result("/api/v1/query", query=query, time=_before(asked.to_us), nocache=1)
        columns: dict[str, list[float]] = {}
        for series in found:
            columns.setdefault(series["metric"]["rollup"], []).append(float(series["value"][1]))
        count, total = sum(columns["count_over_time"]), sum(columns["sum_over_time"])
        return [(0, count, total, min(columns["min_over_time"]), max(columns["max_over_time"]), total / count)]

    def told(self, asked: Asked, said: Any) -> Answer:
        """As it is compared."""
        if not asked.rows:
            return said if isinstance(said, Groups) else groups_in(said)
        local_ms, source, columns = said
        sequence, authority_ms = (
            np.rint(columns[f"rows_{name}"]).astype(np.int64) for name in ("sequence", "authority")
        )
        if asked.kind is Kind.POINTS:
            return RowsOut(sequence, authority_ms, _NONE, _NONE, columns["rows_value"])
        return RowsOut(sequence, authority_ms, local_ms * US_PER_MS, source, columns["rows_value"])

    def close(self) -> None:
        """End it."""
        self._http.close()
        self._server.stop()

    def _windows(self, asked: Asked) -> Groups:
        """Windows are behind their ends, which are in them."""
        value = "rows_value[1m]"
        parts = [f'sum(aggr_over_time(("count_over_time", "sum_over_time"), {value})) by (rollup)']
        parts += [
            f'label_set({name}({name}_over_time({value})), "rollup", "{name}_over_time")' for name in ("min", "max")
        ]
        first_us = asked.from_us // MINUTE_US * MINUTE_US + MINUTE_US
        last_us = -(-asked.to_us // MINUTE_US) * MINUTE_US
        found = self._result(
            "/api/v1/query_range", query=f"union({', '.join(parts)})", start=_before(first_us), end=_before(last_us),
            step="60s", nocache=1,
        )  # fmt: skip
        columns = {series["metric"]["rollup"]: np.array(series["values"], np.float64) for series in found}
        times_s = columns["count_over_time"][:, 0]
        start_us = np.rint(times_s * 1_000).astype(np.int64) * US_PER_MS + US_PER_MS - MINUTE_US
        count, total, least, greatest = (columns[f"{name}_over_time"][:, 1] for name in ("count", "sum", "min", "max"))
        return Groups(start_us, count.astype(np.int64), total, least, greatest, total / count)

    def _rows(self, asked: Asked) -> tuple[Any, Any, dict[str, Any]]:
        """Local times, sources and columns by name, put in the order of time here."""
        wanted = "rows_sequence|rows_authority|rows_value"
        content = self._http.get(
            "/api/v1/export", **{"match[]": f'{{__name__=~"{wanted}"}}'}, start=_seconds(asked.from_us),
            end=_before(asked.to_us), reduce_mem_usage=1,
        )  # fmt: skip
        times: dict[str, list[Any]] = {name: [] for name in wanted.split("|")}
        values: dict[str, list[Any]] = {name: [] for name in times}
        sources: list[Any] = []
        for line in content.splitlines():
            block = orjson.loads(line)
            name = block["metric"]["__name__"]
            times[name].append(np.array(block["timestamps"], np.int64))
            values[name].append(np.array(block["values"], np.float64))
            if name == "rows_value":
                sources.append(np.full(times[name][-1].size, int(block["metric"]["source"][-5:])))
        columns, local_ms, order = {}, _NONE, _NONE
        for name, parts in times.items():  # no two rows have one millisecond
            local_ms = np.concatenate(parts)
            order = np.argsort(local_ms)
            columns[name] = np.concatenate(values[name])[order]
        return local_ms[order], np.concatenate(sources)[order], columns

    def _result(self, path: str, **parameters: str | int) -> Any:
        return orjson.loads(self._http.get(path, **parameters))["data"]["result"]


def _seconds(us: int) -> str:
    return f"{us // US_PER_S}.{us % US_PER_S // US_PER_MS:03d}"


def _before(us: int) -> str:
    """The last millisecond before an instant."""
    return _seconds(us - US_PER_MS)


def _said(*command: str) -> str:
    """What a program says of a version, without whose it is."""
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
    return next((word for word in said if word.lstrip("v")[:1].isdigit()), "unknown")
