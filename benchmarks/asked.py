"""Questions to the hot store, and events through the API: how long each takes, how many a second.

Queries. Two million rows of 50 sources in 4 partitions, made by the product's own way from events to chunks (sequence,
judge, store, RocksDB), over some three hours, a last part of them unsealed. Each kind of question is asked with other
borders every time, so caches hold what they hold for a user who looks around; the median counts. Before that, a count
and a sum over everything are compared with the rows that went in.

Put. A worker with everything on, one client that sends one request after the other over one connection, each answered
when Kafka has the events. What counts is the rate over all requests after the first minute.
"""

from __future__ import annotations

import itertools
import math
import os
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import orjson

from benchmarks.events import ROW_BYTES, SOURCE_BYTES, EventFactory
from benchmarks.ledger_check import CheckFailedError
from benchmarks.sampler import Sampler
from benchmarks.subjects import start_worker, wait_until_ready
from lifecycle.arrow import rows_table
from lifecycle.chunk_codec import read_section
from lifecycle.hot_store import HotStore
from lifecycle.planner import Aggregation, Field, Function, Question, Window
from lifecycle.query import HotQueries
from lifecycle.store import Store
from schemas.clock import SystemTime
from schemas.memory import address_of
from streams import sequence
from streams.address import find_workers
from streams.judge import Judge
from streams.records import allocate_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from benchmarks.cases import Asked
    from benchmarks.surroundings import Surroundings
    from lifecycle.catalog import Unsealed
    from lifecycle.chunks import Column, Header, Read
    from lifecycle.store import StoreState

_SOURCES: Final = 50
_BATCH: Final = 5_000
_SPREAD_US: Final = 10_000_000_000
_ROUNDS: Final = 31
_OUT: Final = 100_000
_VALUE_BYTES_MAX: Final = 1_048_576
_SAMPLE_S: Final = 0.25
_REQUEST_EVENTS: Final = (1_000, 5_000)
_PUT_WARM: Final = 10
#: Of the events of a case, one in so many is put in requests of each size: 286,000 of two million.
_PUT_SHARE: Final = 7
_FIELDS: Final = (Field.SEQUENCE, Field.AUTHORITY_MS, Field.LOCAL_US, Field.SOURCE, Field.VALUE)
_time = SystemTime()


class AskedFigures(NamedTuple):
    """What each question took (ms) or reached (events per second), by its name."""

    found: dict[str, float]
    rss_peak_mb: float


class _Chunks:
    """One store and the rows that are not in it yet."""

    def __init__(self, store: HotStore, states: dict[int, StoreState]) -> None:
        self._store, self._states, self._fold = store, states, Store()

    def partitions(self) -> Iterable[int]:
        return sorted(self._states)

    def unsealed(self, partition: int) -> Unsealed | None:
        return self._fold.unsealed(self._states[partition])

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        return self._store.headers(partition, first_sequence, most)

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        section = self._store.column(partition, first_sequence, column)
        return read_section(partition, first_sequence, column, rows, section)

    def archived(self, _partition: int, _first_sequences: NDArray[np.int64]) -> int:
        return 0


def measure_queries(case: Asked, around: Surroundings) -> AskedFigures:
    """Fill a store, then ask."""
    partitions = around.settings.partitions
    began_us = _time.now_us() - _SPREAD_US
    store, fold, judge = HotStore.open(around.folder / "hot"), Store(), Judge()
    states: dict[int, StoreState] = {}
    factory = EventFactory(_SOURCES, partitions, 0)
    values: list[float] = []
    per_partition = case.events // partitions
    try:
        for partition in range(partitions):
            state, judged, head = fold.new_state(partition), judge.new_state(partition), sequence.Head()
            for made in range(0, per_partition, _BATCH):
                now_us = began_us + _SPREAD_US * made // per_partition
                rows = factory.rows(partition, _BATCH, now_us)  # the entries point into it
                head, sequenced = _sequenced(rows, head, made, now_us)
                outputs = judge.step(judged, sequenced.entries)
                values += outputs.events.value.tolist()
                store.write(fold.step(state, sequenced.entries, outputs))
            fold.publish(state)
            states[partition] = state
        store.flush()
        queries = HotQueries(_Chunks(store, states))
        everything = queries.aggregate(Question(), Aggregation())
        if (int(everything.count[0]), float(everything.functions[Function.SUM][0])) != (len(values), math.fsum(values)):
            raise CheckFailedError("the hot store does not hold the events that were stored. No figure counts")
        with Sampler(os.getpid(), [], _SAMPLE_S) as sampler:
            found = {name: _median_ms(ask) for name, ask in _questions(queries, began_us).items()}
        return AskedFigures(found, sampler.peak_bytes() / 2**20)
    finally:
        store.close()


def _questions(queries: HotQueries, began_us: int) -> dict[str, Callable[[], object]]:
    """Each asks something else at each call."""
    random = np.random.default_rng(1)

    def part(share: float) -> tuple[int, int]:
        length_us = int(_SPREAD_US * share)
        start_us = began_us + int(random.integers(0, _SPREAD_US - length_us))
        return start_us, start_us + length_us

    def most() -> object:
        start_us, end_us = part(0.8)
        return queries.aggregate(Question(from_us=start_us, to_us=end_us), Aggregation())

    def tumbling() -> object:
        return queries.aggregate(Question(), Aggregation(window=Window(60_000_000)))

    def one_source() -> object:
        source = b"sensor-%05d" % random.integers(0, _SOURCES)
        start_us, end_us = part(0.5)  # of one source in fifty: a hundredth of the rows
        question = Question(from_us=start_us, to_us=end_us, sources=(source,))
        return queries.aggregate(question, Aggregation())

    def out() -> object:
        start_us, end_us = part(0.05)
        return rows_table(queries.range(Question(from_us=start_us, to_us=end_us), _FIELDS, _OUT))

    return {"aggregate of 80 %": most, "1 minute over all": tumbling, "one source, 1 %": one_source, "100 k rows": out}


def _sequenced(
    rows: np.ndarray[tuple[int, int], np.dtype[np.uint8]], head: sequence.Head, first_offset: int, now_us: int
) -> tuple[sequence.Head, sequence.Sequenced]:
    """Ledger entries of events as the factory makes them."""
    count = rows.shape[0]
    records = allocate_records(count)
    records.offset[:] = np.arange(first_offset, first_offset + count)
    records.timestamp_ms[:] = now_us // 1_000
    records.key_address[:] = address_of(rows) + np.arange(count) * ROW_BYTES
    records.key_length[:] = SOURCE_BYTES
    records.value_address[:] = records.key_address + SOURCE_BYTES
    records.value_length[:] = ROW_BYTES - SOURCE_BYTES
    return sequence.advance(head, records, sequence.DATA, _VALUE_BYTES_MAX)


def _median_ms(ask: Callable[[], object]) -> float:
    ask()  # its kernels are loaded, its headers read
    took = []
    for _ in range(_ROUNDS):
        began_ns = _time.monotonic_ns()
        ask()
        took.append((_time.monotonic_ns() - began_ns) / 1e6)
    return float(np.median(took))


def measure_put(case: Asked, around: Surroundings) -> AskedFigures:
    """Put events in requests of each size."""
    subject = start_worker(around.settings, around.bootstrap, around.folder)
    try:
        wait_until_ready(subject)
        [worker] = find_workers(around.settings)
        connection = HTTPConnection(worker.address.removeprefix("http://"))
        found = {}
        with Sampler(subject.pid, around.brokers, _SAMPLE_S) as sampler:
            firsts = itertools.count(step=max(_REQUEST_EVENTS))
            warm_ns = _time.monotonic_ns() + case.warm_s * 1_000_000_000
            for size in _REQUEST_EVENTS:
                warm = 0
                while warm < _PUT_WARM or _time.monotonic_ns() < warm_ns:
                    _put(connection, _body(next(firsts), size), size)
                    warm += 1
                requests = max(1, case.events // _PUT_SHARE // size)
                bodies = [_body(next(firsts), size) for _ in range(requests)]
                began_ns = _time.monotonic_ns()
                for body in bodies:
                    _put(connection, body, size)
                seconds = (_time.monotonic_ns() - began_ns) / 1e9
                found[f"put, {size:,} a request"] = requests * size / seconds
        connection.close()
        subject.check()
        return AskedFigures(found, sampler.peak_bytes() / 2**20)
    finally:
        subject.stop()


def _body(first: int, count: int) -> bytes:
    now_us = _time.now_us()
    return b"".join(
        orjson.dumps(
            {
                "event_id": f"event-{number:030d}",
                "source": f"sensor-{number % 1_000:05d}",
                "local_timestamp": now_us + number % 1_000,
                "kind": "temperature",
                "value": number * 0.37,
                "payload": {"unit": "degC"},
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for number in range(first, first + count)
    )


def _put(connection: HTTPConnection, body: bytes, count: int) -> None:
    connection.request("POST", "/put", body, {"Content-Type": "application/x-ndjson"})
    answer = connection.getresponse()
    said = orjson.loads(answer.read())
    if answer.status != 200 or said["accepted"] != count:  # noqa: PLR2004 - HTTP's
        raise CheckFailedError(f"a put was answered {answer.status}: {said}. No figure counts")
