"""What our stores must reach, by themselves and beside others, and which of it they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.bars import Bar
from benchmarks.store.ours import Archive, Hot
from benchmarks.store.questions import Kind, label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.store.report import Report, StoreFigures

#: Questions are judged over so many rows.
ROWS: Final = 2_000_000
#: ms.
_HOT: Final = {Kind.MOST: 2.0, Kind.TUMBLING: 9.0, Kind.ONE_SOURCE: 1.0, Kind.ROWS_OUT: 5.0}
_ARCHIVES: Final = {Kind.MOST: 5.0, Kind.TUMBLING: 15.0, Kind.ONE_SOURCE: 4.0, Kind.ROWS_OUT: 8.0, Kind.POINTS: 30.0}
#: At least so many times as fast as another.
_TIMES: Final = {
    "DuckDB, own file": {Kind.MOST: 1.0, Kind.ONE_SOURCE: 1.0, Kind.ROWS_OUT: 1.0},
    "PostgreSQL": {Kind.MOST: 10.0, Kind.TUMBLING: 10.0},
    "InfluxDB": {Kind.MOST: 10.0, Kind.TUMBLING: 10.0},
}
_ROW_BYTES: Final = 12.0
_PAYLOAD_ROW_BYTES: Final = 32.0
_PAYLOAD_BYTES: Final = 63
_PER_S: Final = {"seal, hours": 1_000_000, "demote, hours": 1_000_000, "compact, 30 days": 2_000_000}
#: A rate over less says nothing.
_JOB_ROWS: Final = 1_500_000
_PEAK_MB: Final = 500
_PLAN_MS: Final = 100


def bars(report: Report) -> list[Bar]:
    """Those that the figures speak of."""
    return [*_of_questions(report), *_of_sizes(report), *_of_jobs(report)]


def _of_questions(report: Report) -> Iterator[Bar]:
    stores = {store.name: store for store in report.stores if store.rows == ROWS}
    for name, limits in ((Hot.name, _HOT), (Archive.name, _ARCHIVES)):
        if name in stores:
            for kind, limit in limits.items():
                timing = stores[name].timings[kind]
                yield Bar(f"{name}, {label(kind, ROWS)}, ms", timing.p50_ms, limit, at_least=False)
    if Hot.name in stores:
        for name, times in _TIMES.items():
            if name in stores:
                yield from _beside(stores[Hot.name], stores[name], times)


def _beside(hot: StoreFigures, other: StoreFigures, times: dict[Kind, float]) -> Iterator[Bar]:
    for kind, least in times.items():
        ratio = other.timings[kind].p50_ms / hot.timings[kind].p50_ms
        yield Bar(f"{hot.name} against {other.name}, {label(kind, ROWS)}, times as fast", ratio, least, at_least=True)


def _of_sizes(report: Report) -> Iterator[Bar]:
    for each in report.sizes:
        if each.payload == _PAYLOAD_BYTES:
            total = each.sizes.row + each.sizes.payload
            yield Bar(f"{each.name}, row and payload, bytes", total, _PAYLOAD_ROW_BYTES, at_least=False)
        else:
            yield Bar(f"{each.name}, row, bytes", each.sizes.row, _ROW_BYTES, at_least=False)


def _of_jobs(report: Report) -> Iterator[Bar]:
    for job in report.jobs:
        if job.name in _PER_S and job.rows >= _JOB_ROWS:
            yield Bar(f"{job.name}, rows/s", job.per_s, _PER_S[job.name], at_least=True)
        yield Bar(f"{job.name}, peak MB", job.peak_mb, _PEAK_MB, at_least=False)
    if report.plan_ms is not None:
        yield Bar("plan of a prune over 10,000 files, ms", report.plan_ms, _PLAN_MS, at_least=False)
