"""The parts that `driftledger up` is made of: one worker as a child, the sample fleet, and what both can be seen by.

    lock        one `up` in a data folder at a time
    Worker      the process that sequences, judges, aggregates and keeps hot; its log is {data_dir}/worker.log
    Fleet       200 sources (streams/sample_fleet.py) that send into the input, in a thread of this process
    AlertFeed   the alerts topic, committed records only, from its beginning
    WindowFeed  the aggregates topic, committed records only, from shortly before its end

GUARANTEE no orphan: the worker ends with the process that started it, also when that is killed (streams/launcher.py).
HAZARD the kernel watches the thread that starts the worker: start it from the main thread.
HAZARD the fleet sends to the input of the ledger it is given: beside real events, on a real topic, it is noise.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.clock import PPM, Linear, Noisy, Periodic, SkewedTime, Step, SystemTime, Together
from schemas.codec import Framing
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.instants import NS_PER_MS, NS_PER_S
from schemas.producer import EventProducer
from schemas.topics import topic_names
from streams import aggregates, alert_log
from streams.gate import Gate
from streams.overview import HotAnswer, parse_health
from streams.sample_fleet import generate, parse_nab
from streams.worker_http import ask

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from schemas.clock import Offset
    from streams.gate import Closed
    from streams.overview import Health
    from streams.sample_fleet import Clock, Source
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
_RECORDS_MAX: Final = 1_000
#: Records of a partition's aggregates read back at the start, for something to show at once.
_WINDOWS_BACK: Final = 300
#: A feed that is further behind leaves out what is between: what closed last is what is shown.
WINDOWS_BEHIND_MAX: Final = 20_000
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

    Its log begins anew; what an earlier one left is worker.log.1. token: what it asks for by HTTP.
    """

    def __init__(self, data_dir: Path, bootstrap: str, options: Sequence[str], token: str | None = None) -> None:
        self.log = data_dir / "worker.log"
        self._address: str | None = None
        self._token = token
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

    def compiles(self) -> bool:
        """Whether it found no kernels and compiles them, or did: the log says that, too."""
        return b'"kernels_compiling"' in self.log.read_bytes()

    def health(self) -> Health | None:
        """What /health answers now, None where nothing does."""
        address = self.address()
        answer = None if address is None else ask(address, "/health", HEALTH_TIMEOUT_S, self._token)
        return None if answer is None else parse_health(answer)

    def ask_hot(self) -> HotAnswer | None:
        """What its hot tier says of all it has and of the last minute; None where it cannot tell yet."""
        address = self.address()
        if address is None:
            return None
        began = _time.create_checkpoint()
        minute = ask(address, "/aggregate?frame=authority&last=1m&functions=mean", HEALTH_TIMEOUT_S, self._token)
        took_ns = began.elapsed_ns(_time.create_checkpoint())
        every = ask(address, "/aggregate?frame=authority&functions=", HEALTH_TIMEOUT_S, self._token)
        if minute is None or every is None or "error" in minute or "error" in every:
            return None
        return HotAnswer(every["count"], minute["mean"], took_ns)

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
    if clock.step_ms:
        offsets.append(Step(clock.step_ms * NS_PER_MS, begin_ns + clock.step_after_s * NS_PER_S))
    if clock.rate_ppm:
        offsets.append(Linear(clock.rate_ppm * PPM, begin_ns))
    if clock.sway_ms:
        offsets.append(Periodic(clock.sway_ms * NS_PER_MS, clock.sway_period_s * NS_PER_S, begin_ns))
    return Together(tuple(offsets))


class Fleet:
    """Sends the events of all sources as they fall due, from construction until `stop`, each stamped by its clock.

    Not those of a source that a halt or a lock keeps from being put, which are left out.
    """

    def __init__(
        self, settings: Settings, bootstrap: str, sources: Sequence[Source], series: Mapping[str, array[float]]
    ) -> None:
        self.sent = 0
        self._sources, self._series = sources, series
        names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self._gate = Gate(bootstrap, names.progress, settings.partitions, settings.lanes)
        self._closed: Closed | None = None
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
            self._gate.close()

    def _send_all(self) -> None:
        begin_wall_ns = _time.now_ns()
        clocks = [SkewedTime(_time, offset_of(s.clock, begin_wall_ns, n)) for n, s in enumerate(self._sources)]
        counts = [source.due(0) for source in self._sources]
        #: When events were made that wait for their path, by their clocks.
        kept: list[deque[int]] = [deque() for _ in self._sources]
        with self._producer as producer:
            # What waits for the connection would make all clocks look slow.
            while not producer.connect() and not self._stopping.wait(_TICK_S):
                pass
            begin_ns = _time.monotonic_ns()
            while not self._stopping.wait(_TICK_S):
                with contextlib.suppress(UnreachableError):  # what is sent meanwhile Kafka does not take either
                    self._closed = self._gate.closed()
                elapsed_ns = _time.monotonic_ns() - begin_ns
                for number, source in enumerate(self._sources):
                    due, passed = source.due(elapsed_ns), source.passed(elapsed_ns)
                    made = range(max(counts[number], due - _ARREARS_MAX), due)
                    counts[number] = due
                    if passed == due and not kept[number]:
                        for count in made:
                            self._send(producer, source, count, clock=clocks[number])
                        continue
                    kept[number].extend(clocks[number].now_us() for _ in made)
                    while len(kept[number]) > due - passed:
                        made_us = kept[number].popleft()
                        self._send(producer, source, due - 1 - len(kept[number]), local_timestamp_us=made_us)

    def _send(self, producer: EventProducer, source: Source, count: int, **when: Any) -> None:
        if self._closed and self._closed.refusal(source.name) is not None:
            return
        values = self._series[source.series]
        value = values[(source.first_value + count) % len(values)]
        producer.send(source=source.name, kind=source.series, value=value, **when)
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
        self._consumer = _reader(bootstrap)
        self._history_ends = [end for _, end in _bounds(self._consumer, topic, partitions)]
        self._consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])

    def poll(self, timeout_s: float) -> list[AlertNews]:
        """What came; waits up to timeout_s for the first.

        Raises UnreachableError when the topic cannot be read for good.
        """
        news = []
        for message in _polled(self._consumer, timeout_s):
            record = alert_log.record_of(message)
            if record is not None:
                fresh = record.offset >= self._history_ends[record.partition]
                news.append(AlertNews(record.alert, record.recorded_at_ms, fresh))
        return news

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


class WindowNews(NamedTuple):
    """A record of the aggregates topic as a listing has it. fresh: it was not there when the feed began."""

    record: Mapping[str, Any]
    fresh: bool


class WindowFeed:
    """The newest committed records of an aggregates topic.

    HAZARD where windows close faster than they are looked at, records are left out: late events among them are not
    counted.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        """Raises UnreachableError when Kafka does not say where the topic ends."""
        self._consumer = _reader(bootstrap)
        bounds = _bounds(self._consumer, topic, partitions)
        self._history_ends = [end for _, end in bounds]
        self._places = [
            TopicPartition(topic, p, max(start, end - _WINDOWS_BACK)) for p, (start, end) in enumerate(bounds)
        ]
        self._consumer.assign(self._places)

    def poll(self) -> list[WindowNews]:
        """What came, without waiting. Raises UnreachableError when the topic cannot be read for good."""
        news = []
        messages = _polled(self._consumer, 0)
        for message in messages:
            record = None if _passes(message) else aggregates.record_of(message)
            if record is not None:
                news.append(WindowNews(record.row(), record.offset >= self._history_ends[record.partition]))
        if len(messages) >= _RECORDS_MAX:
            self._skip()
        return news

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def _skip(self) -> None:
        """Leave out what cannot be caught up with."""
        for place in self._consumer.position(self._places):
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            if end - place.offset > WINDOWS_BEHIND_MAX:
                self._consumer.seek(TopicPartition(place.topic, place.partition, end - _WINDOWS_BACK))


def _passes(message: Message) -> bool:
    """Whether it is an error that will pass, and no record. Raises UnreachableError for one that will not."""
    error = message.error()
    if error is None:
        return False
    if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):  # noqa: SLF001 - public names
        return True
    raise UnreachableError(f"{message.topic()} cannot be read: {error.str()}. Is Kafka up?")


def _reader(bootstrap: str) -> Consumer:
    return Consumer(
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


def _bounds(consumer: Consumer, topic: str, partitions: int) -> list[tuple[int, int]]:
    """First offset and end of each partition; closes the consumer where Kafka does not say them."""
    try:
        return [consumer.get_watermark_offsets(TopicPartition(topic, p), KAFKA_TIMEOUT_S) for p in range(partitions)]
    except KafkaException as error:
        consumer.close()
        raise UnreachableError(f"{topic} cannot be read: {error.args[0].str()}. Is Kafka up?") from error


def _polled(consumer: Consumer, timeout_s: float) -> list[Message]:
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *consumer.consume(_RECORDS_MAX, 0)]
