"""A run: our tiers and jobs, then the others, one after the other, each in a process of its own.

One of the others that is not installed is named and left out. One that does not start, or whose answer is wrong, has no
figure and fails the run at its end; ours fails it at once.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import typer
from rich.console import Console

from benchmarks.events import PAYLOAD
from benchmarks.machine import facts
from benchmarks.store import jobs
from benchmarks.store.apart import ApartError, apart
from benchmarks.store.archive_root import ArchiveRoot
from benchmarks.store.filling import fill, fill_long
from benchmarks.store.others import OTHERS, measure_other, missing, use
from benchmarks.store.ours import Archive, Hot
from benchmarks.store.report import LEGEND, JobFigures, Report, SizeFigures, StoreFigures, lines, notes, tables
from benchmarks.store.rows import LONG_PAYLOAD, Rows
from benchmarks.store.sizes import archive_sizes, hot_sizes
from benchmarks.store.subjects import measure, questions
from schemas.clock import SystemTime
from schemas.errors import BadInputError
from schemas.instants import format_us
from streams.warm import warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.store.jobs import Did
    from benchmarks.store.subjects import Questions

PLAIN_WIDTH: Final = 220
#: Our stores, by the name that --store takes.
OURS: Final = "driftledger"
#: What is on the disk at once, at most: our hot tier, its entries, and archives twice; or the largest of the others.
_DISK_BYTES_PER_ROW: Final = 450
#: What a row takes does not depend on how many there are.
_PAYLOAD_ROWS_MAX: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """Of a run. stores: names of OTHERS, or OURS; threads: that each store may use."""

    rows: int
    rounds: int
    stores: tuple[str, ...]
    threads: int
    packages: Path | None
    data_dir: Path | None
    output: Path | None


def run(options: Options) -> Report:
    """Measure, print tables, and append JSON lines to the output. Raises BadInputError, ApartError."""
    use(options.packages)
    rows = Rows(options.rows)
    report = Report([], [], [], None, {}, {})
    with _folder(options) as folder:
        _tell("the right answers")
        wanted = questions(rows, options.rounds)
        if OURS in options.stores:
            report = _ours(folder, rows, wanted, options.threads)
        for name in OTHERS:
            if name in options.stores:
                _other(report, name, folder, rows, wanted, options)
    machine, at = facts(), format_us(SystemTime().now_us())
    if options.output is not None:
        with options.output.open("ab") as file:
            file.writelines(lines(report, machine, at))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    for table in tables(report):
        console.print(table)
    for text in (*notes(report), LEGEND, ", ".join(f"{name} {value}" for name, value in machine.items())):
        console.print(text, soft_wrap=True)
    return report


def _other(report: Report, name: str, folder: Path, rows: Rows, wanted: Questions, options: Options) -> None:
    lacking = missing(name)
    if lacking:
        report.left_out[name] = lacking
        return
    _tell(name)
    home = folder / name
    home.mkdir()
    try:
        report.stores.append(apart(measure_other, name, options.packages, home, rows, wanted, options.threads).value)
    except ApartError as error:  # what was measured is told all the same
        report.failed[name] = str(error)
    shutil.rmtree(home)


def _ours(folder: Path, rows: Rows, wanted: Questions, threads: int) -> Report:
    """Both tiers, sizes and jobs."""
    home, root, days = folder / "ours", folder / "archives", folder / "days"
    _tell("kernels")
    apart(warm)
    _tell("hot tier")
    load_s = apart(fill, home, rows).value
    stores = [apart(ask_hot, home, rows, wanted, threads, load_s).value]
    sizes = [SizeFigures(Hot.name, len(PAYLOAD), apart(hot_sizes, home).value)]
    _tell("jobs")
    done = [
        _job("seal, hours", jobs.seal_hours, home, root, rows.count),
        _job("compact, hours to days", jobs.compact_hours, home, root, rows.count),
        _job("verify", jobs.verify_all, root),
    ]
    _tell("archives")
    stores.append(apart(ask_archive, home, root, rows, wanted, threads, done[0].seconds).value)
    sizes.append(SizeFigures(Archive.name, len(PAYLOAD), apart(archive_sizes, root).value))
    _tell("jobs")
    done += [
        _job("seal, 30 days", jobs.seal_days, home, days),
        _job("compact, 30 days", jobs.compact_days, days),
        _job("demote, hours", jobs.demote_hours, home, root, rows.count),
        _job("promote, hours", jobs.promote_all, home, root),
        _job("demote, files", jobs.demote_files, root),
    ]
    shutil.rmtree(days)
    apart(jobs.seal_days, home, days)
    done.append(_job("prune", jobs.prune_all, days))
    plan_ms = apart(jobs.prune_plan_ms).value
    for each in (home, root, days):
        shutil.rmtree(each)
    _tell("sizes")
    few = Rows(min(rows.count, _PAYLOAD_ROWS_MAX))
    apart(fill_long, home, few)
    apart(jobs.seal_hours, home, root, few.count)
    apart(jobs.compact_hours, home, root, few.count)
    sizes.append(SizeFigures(Hot.name, len(LONG_PAYLOAD), apart(hot_sizes, home).value))
    sizes.append(SizeFigures(Archive.name, len(LONG_PAYLOAD), apart(archive_sizes, root).value))
    for each in (home, root):
        shutil.rmtree(each)
    return Report(stores, sizes, done, plan_ms, {}, {})


def ask_hot(folder: Path, rows: Rows, wanted: Questions, threads: int, load_s: float) -> StoreFigures:
    """The hot tier. For a process of its own, like `ask_archive`."""
    return _asked(Hot(folder), rows, wanted, threads, load_s)


def ask_archive(folder: Path, root: Path, rows: Rows, wanted: Questions, threads: int, load_s: float) -> StoreFigures:
    """Archives alone."""
    return _asked(Archive(folder, ArchiveRoot(root)), rows, wanted, threads, load_s)


def _asked(store: Hot | Archive, rows: Rows, wanted: Questions, threads: int, load_s: float) -> StoreFigures:
    pa.set_cpu_count(threads)
    try:
        timings = measure(store, rows, wanted)
    finally:
        store.close()
    size = store.bytes_per_row
    return StoreFigures(store.name, version("driftledger"), rows.count, threads, timings, load_s, size)


def _job(name: str, job: Callable[..., Did], *arguments: Any) -> JobFigures:
    done = apart(job, *arguments)
    did: Did = done.value
    return JobFigures(name, did.rows, did.files, did.seconds, done.peak_mb)


@contextmanager
def _folder(options: Options) -> Iterator[Path]:
    """A new folder with room for all rows. Removed afterwards."""
    needed = options.rows * _DISK_BYTES_PER_ROW
    try:
        folder = Path(tempfile.mkdtemp(prefix="driftledger-store-", dir=options.data_dir))
    except OSError as error:
        raise BadInputError(
            f"--data-dir {options.data_dir}: {error.strerror}. Name a folder that can be written"
        ) from error
    try:
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise BadInputError(
                f"{folder} has {free / 1e9:.1f} GB free, the run may need {needed / 1e9:.1f}. Name another "
                "--data-dir, or measure fewer rows"
            )
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(text: str) -> None:
    typer.echo(f"bench-store: {text}", err=True)
