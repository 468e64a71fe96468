"""SQL over a ledger: DuckDB in this process, over views that are read when it asks for them.

Problem: a question that nobody foresaw needs a language, and not an engine of our own. What runs it must see hot events
and archives as one, in one state, and what a query may do must end at reading these.

    events      DATA entries wherever they lie: see `sql_views`
    archives    the files that the manifest names
    jobs        the runs of jobs that were heard of last

GUARANTEE a query reads the ledger and nothing else: no file, no other database, no network, no extension, no variable
of this process; its settings are locked. What it creates is gone with it.
GUARANTEE memory: `memory_bytes` of DuckDB's, a part of a scan beside it, and `temporary_bytes` of a folder that goes.
GUARANTEE what ends a scan is raised as it is, and names the file or the partition; rows that were pruned meanwhile are
found when all were read, or when whoever reads no further asks for it.
One query at a time.
"""

from __future__ import annotations

import contextlib
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import duckdb
import pyarrow as pa

from lifecycle.arrow import AUTHORITY, LOCAL
from lifecycle.job_log import JobLog
from lifecycle.manifest_log import read_manifest
from lifecycle.sql_views import Events, Lazy, View
from schemas.errors import BadInputError
from schemas.topics import topic_names
from streams.broker import reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.job_record import Job
    from lifecycle.manifest import Segment
    from lifecycle.scan import Scan
    from lifecycle.sql_views import Pushed
    from streams.settings import Settings

#: Of DuckDB's, unless asked otherwise: beside it the command takes some 400 MB.
MEMORY_BYTES: Final = 1 << 30
TEMPORARY_BYTES: Final = 16 << 30
#: Rows of a batch of an answer.
BATCH_ROWS: Final = 8_192
#: Runs of jobs that the view has.
_JOBS_MAX: Final = 10_000
_EOL: Final = "\n"
_CONFIG: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
#: The progress bar would be on stdout; the last locks the others.
_SETTINGS: Final = (
    "TimeZone = 'UTC'",
    "enable_progress_bar = false",
    "enable_external_access = false",
    "lock_configuration = true",
)
_ARCHIVES: Final = pa.schema(
    [
        ("path", pa.string()),
        ("tier", pa.string()),
        ("grain", pa.string()),
        ("period", pa.string()),
        ("partition", pa.int32()),
        ("rows", pa.int64()),
        ("size_bytes", pa.int64()),
        ("first_index", pa.int64()),
        ("last_index", pa.int64()),
        ("first_sequence", pa.int64()),
        ("last_sequence", pa.int64()),
        ("from_timestamp", AUTHORITY),
        ("to_timestamp", AUTHORITY),
        ("merkle_root", pa.string()),
        ("sha256", pa.string()),
    ]
)
_JOBS: Final = pa.schema(
    [
        ("id", pa.string()),
        ("job", pa.string()),
        ("state", pa.string()),
        ("host", pa.string()),
        ("pid", pa.int64()),
        ("started", LOCAL),
        ("ended", LOCAL),
        ("rows", pa.int64()),
        ("bytes_in", pa.int64()),
        ("bytes_out", pa.int64()),
        ("added", pa.int64()),
        ("dropped", pa.int64()),
        ("commits", pa.int64()),
        ("error", pa.string()),
    ]
)


class Sql:
    """A ledger in SQL; also a context manager. scan: what events are read by."""

    def __init__(
        self,
        settings: Settings,
        scan: Scan,
        *,
        memory_bytes: int = MEMORY_BYTES,
        temporary_bytes: int = TEMPORARY_BYTES,
    ) -> None:
        self._settings, self._scan = settings, scan
        self._names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self._opened = ExitStack()
        try:
            self._events = Events(scan)
            archives, jobs = Lazy(_ARCHIVES, self._archives), Lazy(_JOBS, self._jobs)
            self._all: list[Events | Lazy] = [self._events, archives, jobs]
            folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="driftledger-sql-"))
            sizes: dict[str, str | bool | int | float | list[str]] = {
                "memory_limit": f"{memory_bytes}B",
                "temp_directory": folder,
            }
            self._duck = self._opened.enter_context(contextlib.closing(duckdb.connect(config=sizes | _CONFIG)))
            for name, readable in zip(("events", "archives", "jobs"), self._all, strict=True):
                self._duck.register(name, View(readable))
            # in the configuration it would be told, and not kept
            for setting in (f"max_temp_directory_size = '{temporary_bytes}B'", *_SETTINGS):
                self._duck.execute(f"SET {setting}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._opened.close()

    @property
    def pushed(self) -> list[Pushed]:
        """What the scans of events were about, one for each."""
        return self._events.pushed

    def ask(self, query: str) -> Answer:
        """The rows of the last statement, as they are made; without columns where it has none.

        Raises BadInputError for what DuckDB refuses, with what it says, and what a scan raises; both also the batches.
        """
        for readable in self._all:
            readable.failed = None
        try:
            relation = self._duck.sql(query)
            if relation is None:
                return Answer(pa.schema([]), iter(()))
            reader = relation.to_arrow_reader(BATCH_ROWS)
        except (duckdb.Error, RuntimeError) as error:
            raise self._why(error) from error
        return Answer(reader.schema, self._batches(reader))

    def check(self) -> None:
        """Raise PrunedError where events that the query reads are gone by now; who reads all batches need not ask."""
        if self.pushed:
            self._scan.check()

    def _batches(self, reader: Any) -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
            raise self._why(error) from error
        self.check()

    def _why(self, error: Exception) -> BaseException:
        """What ended a scan, where one was; DuckDB knows its text alone. Ctrl-C is RuntimeError to it."""
        if "Query interrupted" in str(error):
            return KeyboardInterrupt()
        for readable in self._all:
            if readable.failed is not None:
                return readable.failed
        told = str(error).strip()
        if isinstance(error, duckdb.OutOfMemoryException):
            told = f"{told.partition(_EOL)[0]}. Give more --memory or --temporary, or ask for less at once"
        return BadInputError(told)

    def _archives(self) -> pa.Table:
        tree = read_manifest(reach(self._settings), self._names)
        return pa.Table.from_pylist([_archive_row(segment) for segment in tree.segments()], _ARCHIVES)

    def _jobs(self) -> pa.Table:
        with JobLog(reach(self._settings), self._names.jobs) as log:
            return pa.Table.from_pylist([_job_row(job) for job in log.history(_JOBS_MAX)], _JOBS)


class Answer(NamedTuple):
    """Columns, and rows as they are made."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def _archive_row(segment: Segment) -> dict[str, Any]:
    facts = segment.facts
    return {
        **{name: getattr(segment, name) for name in ("path", "tier", "grain", "period", "size_bytes", "sha256")},
        **{name: getattr(facts, name) for name in ("partition", "rows", "first_index", "last_index", "first_sequence",
                                                  "last_sequence", "merkle_root")},
        "from_timestamp": facts.authority_ms_min,
        "to_timestamp": facts.authority_ms_max,
    }  # fmt: skip


def _job_row(job: Job) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in ("id", "job", "host", "pid", "error")}
    return row | job.did._asdict() | {"state": job.state.value, "started": job.started_us, "ended": job.ended_us}
