"""Figures of stores for people and for programs: tables, and a JSON line for each store, size and job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from rich.box import SIMPLE
from rich.table import Table

from benchmarks.store.questions import Kind, label
from benchmarks.store.sizes import Sizes
from benchmarks.store.subjects import Timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NONE: Final = "-"
LEGEND: Final = (
    "Each store is asked the same questions, with other borders each time, and every answer is compared with the rows "
    "before any is timed. ms: median / 95th percentile, from the question to the whole answer in the memory of the "
    "client. rows/s: what storing them took, indexes and merges included, the making of the rows not. B/row: on disk."
)


class StoreFigures(NamedTuple):
    """One store. load_s: of storing all rows."""

    name: str
    version: str
    rows: int
    threads: int
    timings: dict[Kind, Timing]
    load_s: float
    bytes_per_row: float


class SizeFigures(NamedTuple):
    """One way to store rows. payload: of how many bytes."""

    name: str
    payload: int
    sizes: Sizes


class JobFigures(NamedTuple):
    """One job. files: or hours, or chunks."""

    name: str
    rows: int
    files: int
    seconds: float
    peak_mb: float

    @property
    def per_s(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds if self.seconds else 0.0


class Report(NamedTuple):
    """All of a run.

    left_out: stores that are not installed, and how they would be; failed: those that did not start, or answered
    wrongly, and why.
    """

    stores: list[StoreFigures]
    sizes: list[SizeFigures]
    jobs: list[JobFigures]
    plan_ms: float | None
    left_out: dict[str, str]
    failed: dict[str, str]


def tables(report: Report) -> list[Table]:
    """Those that there are."""
    found = []
    if report.stores:
        first = report.stores[0]
        kinds = [kind for kind in Kind if any(kind in each.timings for each in report.stores)]
        columns = ["store", *(label(kind, first.rows) for kind in kinds), "rows/s", "B/row", "version"]
        title = f"{first.rows:,} rows, {first.threads} threads: ms"
        found.append(_table(title, columns, [_store_row(each, kinds) for each in report.stores]))
    if report.sizes:
        columns = ["bytes a row", "payload", "row", *Sizes._fields]
        found.append(_table("row: sequence, both timestamps, source and value", columns, map(_size_row, report.sizes)))
    if report.jobs:
        columns = ["job", "rows", "files", "seconds", "rows/s", "peak MB"]
        found.append(_table("jobs, each in a process of its own", columns, [_job_row(each) for each in report.jobs]))
    return found


def notes(report: Report) -> list[str]:
    """What is no table."""
    lines = [] if report.plan_ms is None else [f"plan of a prune over 10,000 files: {report.plan_ms:.1f} ms"]
    lines += [f"left out: {name}: {why}" for name, why in report.left_out.items()]
    return lines + [f"FAILED: {name}: {why}" for name, why in report.failed.items()]


def lines(report: Report, facts: Mapping[str, Any], at: str) -> list[bytes]:
    """JSON, one object a line: what, its figures, machine, when."""
    documents: list[dict[str, Any]] = []
    for store in report.stores:
        timings = {kind.value: timing._asdict() for kind, timing in store.timings.items()}
        documents.append({"what": "store", **store._asdict(), "timings": timings})
    documents += [{"what": "size", **each._asdict(), "sizes": each.sizes._asdict()} for each in report.sizes]
    documents += [{"what": "job", **each._asdict(), "rows_per_s": each.per_s} for each in report.jobs]
    if report.plan_ms is not None:
        documents.append({"what": "plan", "files": 10_000, "ms": report.plan_ms})
    for what, stores in (("left out", report.left_out), ("failed", report.failed)):
        documents += [{"what": what, "name": name, "why": why} for name, why in stores.items()]
    options = orjson.OPT_APPEND_NEWLINE
    return [orjson.dumps({**document, "machine": dict(facts), "at": at}, option=options) for document in documents]


def stores_in(content: bytes) -> list[StoreFigures]:
    """The stores of the last run in a file of such lines."""
    documents = [orjson.loads(line) for line in content.splitlines()]
    last = max((document["at"] for document in documents), default="")
    found = []
    for document in documents:
        if document["what"] == "store" and document["at"] == last:
            timings = {Kind(name): Timing(**timing) for name, timing in document["timings"].items()}
            found.append(StoreFigures(**{name: document[name] for name in StoreFigures._fields} | {"timings": timings}))
    return found


def _table(title: str, columns: Sequence[str], rows: Any) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _store_row(store: StoreFigures, kinds: Sequence[Kind]) -> tuple[str, ...]:
    cells = []
    for kind in kinds:
        timing = store.timings.get(kind)
        cells.append(_NONE if timing is None else f"{_ms(timing.p50_ms)} / {_ms(timing.p95_ms)}")
    rate = f"{store.rows / store.load_s:,.0f}"
    return store.name, *cells, rate, f"{store.bytes_per_row:.1f}", store.version


def _ms(ms: float) -> str:
    return f"{ms:.2f}" if ms < 10 else f"{ms:,.0f}"  # noqa: PLR2004 - three digits


def _size_row(size: SizeFigures) -> tuple[str, ...]:
    numbers = (size.sizes.row, *size.sizes)
    return size.name, f"{size.payload} B", *(f"{number:.2f}" for number in numbers)


def _job_row(job: JobFigures) -> tuple[str, ...]:
    numbers = f"{job.rows:,}", f"{job.files:,}", f"{job.seconds:.2f}", f"{job.per_s:,.0f}", f"{job.peak_mb:,.0f}"
    return job.name, *numbers
