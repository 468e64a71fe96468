"""The parts that `driftledger up` is made of: one worker as a child, the sample fleet, and what both can be seen by.

    lock      one `up` in a data folder at a time
    Worker    the process that sequences and judges; its log is {data_dir}/worker.log
    Fleet     sixty sources (streams/fleet.py) that send into the input, in a thread of this process
    AlertFeed the alerts topic, committed records only, from its beginning

GUARANTEE no orphan: the worker ends with the process that started it, also when that is killed (streams/launcher.py).
HAZARD the kernel watches the thread that starts the worker: start it from the main thread.
HAZARD the fleet sends to the input of the ledger it is given: beside real events, on a real topic, it is noise.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from schemas.clock import PPM, Linear, Noisy, Periodic, SkewedTime, Step, SystemTime, Together
from schemas.codec import Framing
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.instants import NS_PER_MS, NS_PER_S
from schemas.producer import EventProducer
from streams.alert_log import record_of
from streams.fleet import generate, parse_nab
from streams.overview import parse_health

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Mapping, Sequence

    from schemas.clock import Offset
    from streams.fleet import Clock, Source
    from streams.overview import Health
    from streams.settings import Settings

#: A worker ends within 10 s of SIGTERM; one that does not loses nothing by SIGKILL but the time to its successor.
WORKER_STOP_TIMEOUT_S: Final = 12
#: Where Kafka is away, the end of the fleet waits for so long.
DELIVERY_TIMEOUT_S: Final = 5
HEALTH_TIMEOUT_S: Final = 1
KAFKA_TIMEOUT_S: Final = 10
LOG_TAIL_BYTES: Final = 2_000
#: Hours of a fleet whose clocks are warned of all the time.
LOG_BYTES_MAX: Final = 32 * 1_048_576
#: Between two looks at which sources are due: short beside the interval of one source's events.
_TICK_S: Final = 0.02
#: What a source sends at once after a pause of this process; what it missed beyond is not made up for.
_ARREARS_MAX: Final = 10
_ALERTS_MAX: Final = 1_000
#: The console script's program, found wherever this one was imported from.
_COMMAND: Final = ("-c", "from streams.cli.main import run; run()")

_time = SystemTime()


@contextlib.contextmanager
def lock(data_dir: Path) -> Iterator[None]:
    """Be the only `up` of a data folder; the kernel frees a dead one's.

    Raises DriftledgerError where another one is, BadInputError where the folder cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "up.lock").open("a+", encoding="ascii")
    except OSError as error:
        raise BadInputError(
            f"{data_dir} cannot be written: {error.strerror}. Give DRIFTLEDGER_DATA_DIR a folder that can"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DriftledgerError(
                f"`driftledger up` runs already in {data_dir} (process {file.read().strip()}). Look there, or end "
                "it with Ctrl-C, or give this one another folder in DRIFTLEDGER_DATA_DIR"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class Worker:
    """`driftledger worker` as a child process, from construction until `stop`. options: those before its name.

    Its log begins anew; what an earlier one left is worker.log.1.
    """

    def __init__(self, data_dir: Path, bootstrap: str, options: Sequence[str]) -> None:
        self.log = data_dir / "worker.log"
        self._address: str | None = None
        launcher = [
            *(sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py"))),
            *(str(os.getpid()), str(data_dir / "worker.pid")),
        ]
        self._last_log = data_dir / "worker.log.1"
        if self.log.exists():
            self.log.replace(self._last_log)
        with self.log.open("ab") as output:  # appending, so that it can be cut while it is written
            self._process = subprocess.Popen(
                [*launcher, sys.executable, *_COMMAND, *options, "worker"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"DRIFTLEDGER_BOOTSTRAP": bootstrap},
                start_new_session=True,  # Ctrl-C is for us; we stop the worker in order
            )
        self.pid = self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; as a shell says it: 128 and the signal's number for one that was killed."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def address(self) -> str | None:
        """URL of its HTTP server, once that listens: the log says where."""
        if self._address is None:
            for line in self.log.read_bytes().splitlines():
                if b'"http_listening"' in line:
                    self._address = orjson.loads(line[line.index(b"{") :])["health"].removesuffix("/health")
        return self._address

    def health(self) -> Health | None:
        """What /health answers now, None where nothing does."""
        address = self.address()
        if address is None:
            return None
        where = urlsplit(address)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", "/health")
            return parse_health(orjson.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def limit_log(self) -> None:
        """Keep the log, and one before it, below LOG_BYTES_MAX each; lines written at that moment may be lost."""
        if self.log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(self.log, self._last_log)
            os.truncate(self.log, 0)

    def log_tail(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip() or "empty"

    def stop(self) -> None:
        """Ask it to end, end it after WORKER_STOP_TIMEOUT_S. What it had not committed is done by the next."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(WORKER_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def read_series(cases: Path | None) -> tuple[dict[str, array[float]], str]:
    """Series for the fleet and where they are from, in words: NAB's where the folder is, else generated ones.

    Raises BadInputError for a file that is none of NAB's.
    """
    if cases is None:
        series = generate()
        return series, f"{len(series)} generated series"
    folder = cases / "nab" / "data"
    series = {}
    for path in sorted(folder.glob("*/*.csv.gz")):
        try:
            series[path.name.removesuffix(".csv.gz")] = parse_nab(gzip.decompress(path.read_bytes()).decode())
        except (OSError, EOFError, ValueError) as error:
            raise BadInputError(f"{path}: not a series of NAB: {error}. Mend DRIFTLEDGER_CASES, or unset it") from error
    if series:
        return series, f"{len(series)} series of the Numenta Anomaly Benchmark, from {folder}"
    series = generate()
    return series, f"{len(series)} generated series ({folder} holds none of the Numenta Anomaly Benchmark)"


def offset_of(clock: Clock, begin_ns: int, seed: int) -> Offset:
    """A fleet clock's error as a function of true time; begin_ns: when the fleet began."""
    offsets: list[Offset] = [Noisy(clock.jitter_ms * NS_PER_MS, seed)]
    if clock.ahead_ms:
        offsets.append(Step(clock.ahead_ms * NS_PER_MS))
    if clock.corrected_after_s is not None:
        offsets.append(Step(-clock.ahead_ms * NS_PER_MS, begin_ns + clock.corrected_after_s * NS_PER_S))
    if clock.rate_ppm:
        offsets.append(Linear(clock.rate_ppm * PPM, begin_ns))
    if clock.sway_ms:
        offsets.append(Periodic(clock.sway_ms * NS_PER_MS, clock.sway_period_s * NS_PER_S, begin_ns))
    return Together(tuple(offsets))


class Fleet:
    """Sends the events of all sources as they fall due, from construction until `stop`, each stamped by its clock."""

    def __init__(
        self, settings: Settings, bootstrap: str, sources: Sequence[Source], series: Mapping[str, array[float]]
    ) -> None:
        self.sent = 0
        self._sources, self._series = sources, series
        self._producer = EventProducer(
            bootstrap,
            settings.input_topic,
            framing=Framing(settings.framing),
            delivery_timeout_s=DELIVERY_TIMEOUT_S,
        )
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="fleet")
        self._run = self._threads.submit(self._send_all)

    def check(self) -> None:
        """Raise what has ended it, if anything has."""
        if self._run.done():
            self._run.result()

    def stop(self) -> None:
        """Send nothing more and wait until all of it is delivered. Raises DeliveryError where some was not."""
        self._stopping.set()
        try:
            self._run.result()
        finally:
            self._threads.shutdown()

    def _send_all(self) -> None:
        begin_wall_ns = _time.now_ns()
        clocks = [SkewedTime(_time, offset_of(s.clock, begin_wall_ns, n)) for n, s in enumerate(self._sources)]
        counts = [source.due(0) for source in self._sources]
        with self._producer as producer:
            # What waits for the connection would make all clocks look slow.
            while not producer.connect() and not self._stopping.wait(_TICK_S):
                pass
            begin_ns = _time.monotonic_ns()
            while not self._stopping.wait(_TICK_S):
                elapsed_ns = _time.monotonic_ns() - begin_ns
                for number, source in enumerate(self._sources):
                    due = source.due(elapsed_ns)
                    for count in range(max(counts[number], due - _ARREARS_MAX), due):
                        self._send(producer, source, clocks[number], count)
                    counts[number] = due

    def _send(self, producer: EventProducer, source: Source, clock: SkewedTime, count: int) -> None:
        values = self._series[source.series]
        value = values[(source.first_value + count) % len(values)]
        producer.send(source=source.name, kind=source.series, value=value, local_timestamp_us=clock.now_us())
        self.sent += 1


class AlertNews(NamedTuple):
    """A record of the alerts topic. fresh: it was not there when the feed began."""

    alert: Mapping[str, Any]
    appended_ms: int
    fresh: bool


class AlertFeed:
    """The committed records of an alerts topic, from the first that is kept."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        """Raises UnreachableError when Kafka does not say where the topic ends."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "driftledger-up",  # never joined: assign() only, nothing committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "log_level": 0,
            }
        )
        try:
            self._history_ends = [
                self._consumer.get_watermark_offsets(TopicPartition(topic, p), KAFKA_TIMEOUT_S)[1]
                for p in range(partitions)
            ]
        except KafkaException as error:
            self._consumer.close()
            raise UnreachableError(f"{topic} cannot be read: {error.args[0].str()}. Is Kafka up?") from error
        self._consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])

    def poll(self, timeout_s: float) -> list[AlertNews]:
        """What came; waits up to timeout_s for the first.

        Raises UnreachableError when the topic cannot be read for good.
        """
        first = self._consumer.poll(timeout_s)
        news = []
        for message in [] if first is None else [first, *self._consumer.consume(_ALERTS_MAX, 0)]:
            record = record_of(message)
            if record is not None:
                fresh = record.offset >= self._history_ends[record.partition]
                news.append(AlertNews(record.alert, record.recorded_at_ms, fresh))
        return news

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()
