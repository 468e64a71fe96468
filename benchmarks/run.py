"""A run: one Kafka, one folder, case after case, and what they showed.

One embedded Kafka in a folder of its own that is removed afterwards; fresh topics for each case, deleted after it. An
unmeasured round goes first, because the broker is a JVM and warms up. A case is reported only when the contents of its
ledger have been checked; a check that fails ends the run, and neither that case nor the table is printed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from benchmarks import asked, paced, preloaded
from benchmarks.cases import PARTITIONS, SOURCES, WINDOW_MS, Asked, Case, Name, Paced, Preloaded, Subject
from benchmarks.load import GATE_TIMEOUT_S
from benchmarks.machine import facts
from benchmarks.report import LEGEND, Measured, line, ratios, tables
from benchmarks.subjects import windows_of
from benchmarks.surroundings import Surroundings
from schemas.clock import SystemTime
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import format_us
from schemas.topics import topic_names
from streams.kafka_cluster import Cluster, answers
from streams.settings import Settings
from streams.topics_admin import TopicsAdmin, specs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PLAIN_WIDTH: Final = 200
#: Input, ledger and indexes of a case, and those of the case before, which Kafka deletes after a minute.
_DISK_BYTES_PER_EVENT: Final = 800
_WARM_UP: Final = Preloaded("warm-up", Subject.WORKER, judged=True, sources=SOURCES, batch_events=5_000, events=500_000)
#: How long a case whose input is there takes, at most: its worker starts, is measured, and its ledger is checked.
_CASE_S: Final = 120
_DELETE_TIMEOUT_S: Final = 30
_ANSWER_TIMEOUT_S: Final = 10
_LEDGER: Final = "events"
_JAVA: Final = "DRIFTLEDGER_JAVA"
_BATCH_EVENTS: Final = 5_000
_WITHOUT_SNAPSHOTS: Final[dict[str, Any]] = {"snapshot_interval_ms": 86_400_000, "snapshot_entries": 10**9}


def run(
    cases: list[Case],
    *,
    output: Path | None,
    data_dir: Path | None,
    bootstrap: str | None,
    warm_up: bool,
) -> list[Measured]:
    """Measure the cases and print what they showed; output takes a JSON line as soon as a case is done.

    Raises BadInputError, UnreachableError, and CheckFailedError or another DriftledgerError where there is no figure.
    """
    with (
        _without_settings(),
        _writer(output) as write,
        _folder(data_dir, cases) as folder,
        _kafka(folder, bootstrap) as (address, brokers),
    ):
        return _measure_all(cases, address, brokers, folder, write, warm_up=warm_up)


def _measure_all(
    cases: list[Case],
    bootstrap: str,
    brokers: list[int],
    folder: Path,
    write: Callable[[bytes], object],
    *,
    warm_up: bool,
) -> list[Measured]:

    clock = SystemTime()
    machine = facts()
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    run_id = f"bench{clock.now_us():x}"
    if warm_up:
        typer.echo("warming the broker up", err=True)
        with _surroundings(_WARM_UP, f"{run_id}.0", bootstrap, brokers, folder) as around:
            list(_measure([_WARM_UP], [around]))
    measured: list[Measured] = []
    for together in filled_together(cases):
        with contextlib.ExitStack() as topics:
            arounds: list[Surroundings] = []
            for number, case in enumerate(together, start=len(measured) + 1):
                batch = "" if isinstance(case, Asked) else f", batches of {case.batch_events:,}"
                typer.echo(f"{number} of {len(cases)}: {case.name}, {case.events:,} events{batch}", err=True)
                own = _surroundings(case, f"{run_id}.{number}", bootstrap, brokers, folder)
                arounds.append(topics.enter_context(own))
            for found in _measure(together, arounds):
                write(line(found, machine, format_us(clock.now_us())))
                measured.append(found)
    for table in tables(measured):
        console.print(table)
    for text in (*ratios(measured), LEGEND):
        console.print(text, soft_wrap=True)
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), soft_wrap=True)
    return measured


def filled_together(cases: list[Case]) -> list[list[Case]]:
    """The cases in their order, those next to each other whose inputs can be filled at once in one list."""
    groups: list[list[Case]] = []
    for case in cases:
        if groups and _may_join(case, groups[-1]):
            groups[-1].append(case)
        else:
            groups.append([case])
    return groups


def _may_join(case: Case, group: list[Case]) -> bool:
    """Whether a case is filled as slowly, and measured before its gate opens by itself."""
    first = group[0]
    return (
        isinstance(case, Preloaded)
        and isinstance(first, Preloaded)
        and case.spread_s > 0
        and (case.spread_s, case.events) == (first.spread_s, first.events)
        and case.spread_s + len(group) * _CASE_S < GATE_TIMEOUT_S
    )


def _measure(together: Sequence[Case], arounds: Sequence[Surroundings]) -> Iterator[Measured]:
    """One case after the other."""
    preloaded_cases = [case for case in together if isinstance(case, Preloaded)]
    if preloaded_cases:
        for filled in preloaded.fill(preloaded_cases, arounds):
            yield Measured(filled.case, preloaded.measure(filled))
        return
    for case, around in zip(together, arounds, strict=True):
        if isinstance(case, Asked):
            measure = asked.measure_queries if case.name == Name.QUERIES else asked.measure_put
            yield Measured(case, measure(case, around))
        elif isinstance(case, Paced):
            yield Measured(case, paced.measure(case, around))


@contextlib.contextmanager
def _surroundings(case: Case, prefix: str, bootstrap: str, brokers: list[int], folder: Path) -> Iterator[Surroundings]:
    """Topics and a folder of a case's own; the topics are deleted afterwards."""
    home = folder / prefix
    home.mkdir()
    settings = Settings(
        prefix=prefix,
        ledger=_LEDGER,
        partitions=PARTITIONS,
        lanes=PARTITIONS if isinstance(case, Asked) else case.lanes,
        batch_events_max=_BATCH_EVENTS if isinstance(case, Asked) else case.batch_events,
        data_dir=home / ".driftledger",
        http_port=0,
        windows=windows_of(WINDOW_MS if isinstance(case, Asked) else case.window_ms),
        hot_store=isinstance(case, Asked) or case.window_ms > 0,
        **_WITHOUT_SNAPSHOTS if case.name == Name.BACKFILL else {},
    )
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    around = Surroundings(settings, bootstrap, names, brokers, home, os.cpu_count() or 1)
    TopicsAdmin(bootstrap).create(specs_of(settings))
    try:
        yield around
    finally:
        _delete(bootstrap, list(names))


def _delete(bootstrap: str, topics: list[str]) -> None:
    """Free the disk; a topic that stays is the folder's to remove."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for topic, future in admin.delete_topics(topics, operation_timeout=_DELETE_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            typer.echo(f"benchmarks: topic {topic} stays: {error.args[0].str()}", err=True)


@contextlib.contextmanager
def _without_settings() -> Iterator[None]:
    """The variables of somebody's deployment have no part in a measurement, neither here nor in the worker."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("DRIFTLEDGER_") and name != _JAVA}
    for name in ours:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(ours)


@contextlib.contextmanager
def _writer(output: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Appends bytes to the output file, or does nothing without one. Found out before anything is measured."""
    if output is None:
        yield lambda _line: None
        return
    try:
        stream = output.open("ab")
    except OSError as error:
        raise BadInputError(f"--output {output}: {error.strerror}. Name a file that can be written") from error
    with stream:

        def write(text: bytes) -> None:
            stream.write(text)
            stream.flush()

        yield write


@contextlib.contextmanager
def _folder(data_dir: Path | None, cases: list[Case]) -> Iterator[Path]:
    """A new folder with room for the largest cases. Removed afterwards."""
    needed = max(sum(case.events for case in group) for group in filled_together(cases)) * _DISK_BYTES_PER_EVENT
    try:
        folder = Path(tempfile.mkdtemp(prefix="driftledger-bench-", dir=data_dir))
    except OSError as error:
        raise BadInputError(f"--data-dir {data_dir}: {error.strerror}. Name a folder that can be written") from error
    try:
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise BadInputError(
                f"{folder} has {free / 1e9:.1f} GB free, the run may need {needed / 1e9:.1f}. Name another "
                "--data-dir, or measure fewer events"
            )
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _kafka(folder: Path, bootstrap: str | None) -> Iterator[tuple[str, list[int]]]:
    """Address and processes of the broker."""
    if bootstrap is not None:
        if not answers(bootstrap, 1, _ANSWER_TIMEOUT_S):
            raise UnreachableError(f"no Kafka answers at {bootstrap}. Start it, or leave --bootstrap out")
        yield bootstrap, []
        return
    java = os.environ.get(_JAVA)
    with Cluster(folder, java=Path(java) if java else None) as cluster:
        yield cluster.bootstrap, cluster.pids
