"""`driftledger up` as a user meets it: a process in a folder, looked at from outside, ended in every way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

import streams.up
from schemas.clock import SystemTime
from schemas.codec import Framing, decode
from streams.kafka_cluster import Cluster, answers
from streams.settings import Settings
from streams.topics_admin import TopicsAdmin, specs_of
from streams.up import WindowFeed
from tests.broker.ledgers import begin, names_of, produce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    WaitUntil = Callable[[Callable[[], object], float, str], None]

COMMAND = (sys.executable, "-c", "from streams.cli.main import run; run()", "up")
#: From the start on, the jars being there.
FIRST_ALERTS_S = 120
#: The path of some is cut for so long that it takes two minutes to tell.
CAUSES_S = 150
#: Until a window of ten seconds has closed and was looked at.
WINDOWS_S = 40
STOP_S = 15
ORPHANS_S = 5
ALERTS = "driftledger.events.drift.alerts"
time = SystemTime()


class Kafka(Protocol):
    """The broker of this run."""

    bootstrap: str


class Running:
    """A process in a folder of its own; on a terminal where asked for."""

    def __init__(self, folder: Path, *options: str, terminal: bool = False, **settings: str) -> None:
        self.folder = folder
        self.errors = folder / "stderr"
        self._text = ""
        self._read, write = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(write, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*COMMAND, *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=errors,
                env=environment(**settings),
            )
        os.close(write)

    def output(self) -> str:
        """All it has written to stdout."""
        with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
            while select.select([self._read], [], [], 0)[0] and (read := os.read(self._read, 65_536)):
                self._text += read.decode()
        return self._text

    def ended(self) -> bool:
        """Whether it has; its output is taken all the while, so that it never waits for us."""
        self.output()
        return self.process.poll() is not None

    def close(self) -> None:
        """End it, if a failed test has not."""
        self.process.kill()
        self.process.wait()
        os.close(self._read)


def environment(**settings: str) -> Mapping[str, str]:
    """Ours without its settings, and those of the test; HTTP on a free port, colours and widths by the terminal."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("DRIFTLEDGER_")}
    given = {f"DRIFTLEDGER_{key.upper()}": value for key, value in settings.items()}
    return ours | {"DRIFTLEDGER_HTTP_PORT": "0", "TERM": "xterm"} | given


def processes_in(folder: Path) -> list[int]:
    """Whose working directory is there: broker, worker, and what starts them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cwd().startswith(str(folder)):
                found.append(process.pid)
    return found


class Alerts:
    """Sources and the first severity that an alert gave them, as the topic says it to anybody; and all their causes."""

    def __init__(self, bootstrap: str, partitions: int = 4) -> None:
        self.opened: dict[str, str] = {}
        self.causes: dict[str, set[str]] = {}
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "a-test", "isolation.level": "read_committed"}
        )
        self._consumer.assign([TopicPartition(ALERTS, p, OFFSET_BEGINNING) for p in range(partitions)])

    def read(self) -> dict[str, str]:
        """All that were opened up to now."""
        for message in self._consumer.consume(1_000, 0.1):
            if message.error() is None:
                alert: dict[str, Any] = decode("DriftAlert", message.value() or b"", Framing.JSON)
                self.opened.setdefault(alert["source"], alert["severity"])
                self.causes.setdefault(alert["source"], set()).add(alert["cause"])
        return self.opened

    def close(self) -> None:
        """Let go."""
        self._consumer.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start `driftledger up` in the test's folder; whatever is left at the end is ended."""
    running: list[Running] = []

    def started(*options: str, **more: Any) -> Running:
        running.append(Running(tmp_path, *options, **more))
        return running[-1]

    yield started
    for one in running:
        one.close()


@pytest.mark.parametrize("kernels", ["cached", pytest.param("to compile", marks=pytest.mark.soak)])
def test_the_sample_fleet_is_found_out_and_all_of_it_ends_with_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Running], wait_until: WaitUntil, kernels: str
) -> None:
    """On a terminal: alerts name the sources that are wrong and no other, windows close without the one a day ahead.

    A second one is refused; exit code 0.
    """
    if kernels == "to compile":
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    begun_ns = time.monotonic_ns()
    up = start("--sample", terminal=True, cases=str(tmp_path / "absent"))
    wait_until(lambda: up.ended() or "fleet " in up.output(), FIRST_ALERTS_S, "topics and fleet are there")
    cluster = Cluster.of_folder(tmp_path / ".driftledger")
    assert cluster is not None
    wrong = {f"fast-2s-{n}": "YELLOW" for n in range(1, 5)} | {f"slow-2s-{n}": "YELLOW" for n in range(1, 4)}
    wrong |= {f"fast-7s-{n}": "RED" for n in range(1, 4)} | {f"slow-7s-{n}": "RED" for n in range(1, 3)}
    wrong |= {"day-ahead": "RED"}
    with contextlib.closing(Alerts(cluster.bootstrap)) as alerts:
        left_s = FIRST_ALERTS_S - (time.monotonic_ns() - begun_ns) / 1e9
        wait_until(lambda: up.ended() or wrong.items() <= alerts.read().items(), left_s, "alerts for all")
        assert not up.ended(), up.errors.read_text()
        causes = {f"step+3s-{n}": "STEP" for n in range(1, 5)} | {f"step-3s-{n}": "STEP" for n in range(1, 5)}
        causes |= {f"cut-off-{n}": "BACKLOG" for n in range(1, 11)} | {"slow-2s-1": "BEHIND", "fast-2s-1": "AHEAD"}

        def told() -> bool:
            alerts.read()
            return all(cause in alerts.causes.get(source, ()) for source, cause in causes.items())

        wait_until(lambda: up.ended() or told(), CAUSES_S, "every cause")
        assert not [name for name in alerts.opened if name.startswith(("steady", "quartz"))]
        assert {cause for n in range(1, 11) for cause in alerts.causes[f"cut-off-{n}"]} == {"BACKLOG"}
    wait_until(lambda: "open alerts, the newest first" in up.output(), 10, "the picture shows alerts")
    wait_until(lambda: "day-ahead is 86" in up.output(), 10, "the picture shows this one")
    assert "generated series" in up.output()
    for shown in (
        "all_10s from",
        "too far ahead, in no window: day-ahead (",
        "events are hot; mean of the last minute",
    ):
        wait_until(lambda shown=shown: up.ended() or shown in up.output(), WINDOWS_S, shown)  # type: ignore[misc]
    assert not up.ended(), up.errors.read_text()

    second = subprocess.run(COMMAND, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment())
    assert second.returncode == 1
    assert f"runs already in .driftledger (process {up.process.pid})" in second.stderr

    up.process.send_signal(signal.SIGINT)
    wait_until(up.ended, STOP_S, "it ends")
    assert up.process.returncode == 0
    assert processes_in(tmp_path) == []
    assert up.output().rstrip().endswith("`driftledger up` goes on with the data in .driftledger")


def test_of_the_windows_those_that_closed_last_are_read(
    kafka: Kafka, prefix: str, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """From shortly before the end; of more than can be looked at, what is between is left out."""
    monkeypatch.setattr(streams.up, "WINDOWS_BEHIND_MAX", 100)
    settings = begin(kafka, prefix)
    topic = names_of(settings).aggregates
    seen: list[int] = []

    def write(first: int, end: int) -> None:
        common = {"definition": "a", "version": 3, "partition": 0, "frame": "local", "key": None, "revision": 1}
        records = [
            common
            | {"window_start_us": n, "window_end_us": n + 1, "final": True, "at_index": n, "count": 1, "values": 0}
            for n in range(first, end)
        ]
        produce(settings, topic, [(b"a", orjson.dumps(record), []) for record in records])

    def reads(feed: WindowFeed, last: int) -> bool:
        seen.extend(news.record["window_start_us"] for news in feed.poll() if news.fresh == (last > 500))
        return last in seen

    write(0, 500)
    produce(settings, topic, [(b"a", b"no record of a window", [])])
    with contextlib.closing(WindowFeed(kafka.bootstrap, topic, 1)) as feed:
        wait_until(lambda: reads(feed, 499), 30, "what was there")
        assert 200 <= min(seen) <= 202
        assert seen == list(range(min(seen), 500))
        seen.clear()
        write(1_000, 9_000)
        wait_until(lambda: reads(feed, 8_999), 30, "what came")
        assert 999 < len(seen) < 8_000


def test_killed_it_leaves_no_orphan_and_the_next_one_goes_on_with_its_data(
    tmp_path: Path, start: Callable[..., Running], wait_until: WaitUntil
) -> None:
    """kill -9 ends worker and broker within seconds; sequences go on where they were."""
    up = start("--sample")
    wait_until(lambda: up.ended() or "| sequence " in up.output(), FIRST_ALERTS_S, "events are sequenced")
    assert len(processes_in(tmp_path)) == 3, up.errors.read_text()
    up.process.kill()
    wait_until(lambda: not processes_in(tmp_path), ORPHANS_S, "worker and broker are gone")

    again = start()
    wait_until(lambda: again.ended() or "| sequence " in again.output(), FIRST_ALERTS_S, "partitions are served")
    assert "0 created, 11 there before" in again.output(), again.errors.read_text()
    line = next(line for line in again.output().splitlines() if "| sequence " in line)
    assert any(int(part.partition(":")[2]) > 0 for part in line.split("|")[1].split()[1:])
    again.process.send_signal(signal.SIGTERM)
    wait_until(again.ended, STOP_S, "it ends")
    assert again.process.returncode == 0
    assert processes_in(tmp_path) == []


def test_a_foreign_kafka_is_used_and_not_ended(
    tmp_path: Path, kafka: Kafka, prefix: str, start: Callable[..., Running], wait_until: WaitUntil
) -> None:
    """Topics that do not fit are refused with the remedy; a worker that dies is told of, its exit code is ours."""
    place = {"bootstrap": kafka.bootstrap, "prefix": prefix}
    TopicsAdmin(kafka.bootstrap).create(specs_of(Settings(prefix=prefix, partitions=2)))
    refused = start(**place)
    wait_until(refused.ended, 60, "it refuses")
    assert refused.process.returncode == 1
    assert "set partitions = 2" in refused.errors.read_text()

    up = start(**place, partitions="2")
    wait_until(lambda: up.ended() or "| sequence " in up.output(), FIRST_ALERTS_S, "partitions are served")
    assert f"export DRIFTLEDGER_BOOTSTRAP={kafka.bootstrap}" in up.output(), up.errors.read_text()
    os.kill(int((tmp_path / ".driftledger" / "worker.pid").read_text()), signal.SIGKILL)
    wait_until(up.ended, STOP_S, "it ends with its worker")
    assert up.process.returncode == 128 + signal.SIGKILL
    assert "the worker ended by itself, exit code 137; its log, .driftledger/worker.log" in up.errors.read_text()
    assert up.output().endswith(f"ended; the data is in the Kafka at {kafka.bootstrap}\n")
    assert processes_in(tmp_path) == []
    assert answers(kafka.bootstrap, 1, 5)


def test_it_can_be_interrupted_while_it_starts(
    tmp_path: Path, start: Callable[..., Running], wait_until: WaitUntil
) -> None:
    """Before Kafka answers."""
    up = start()
    wait_until(lambda: up.ended() or "Ctrl-C ends" in up.output(), 30, "it begins")
    up.process.send_signal(signal.SIGINT)
    wait_until(up.ended, STOP_S, "it ends")
    assert up.process.returncode == 0, up.errors.read_text()
    assert "Traceback" not in up.errors.read_text()
    assert processes_in(tmp_path) == []


def test_a_kafka_of_its_own_that_dies_ends_it(
    tmp_path: Path, start: Callable[..., Running], wait_until: WaitUntil
) -> None:
    """Nobody would start it again; where its output is, is told."""
    up = start()
    wait_until(lambda: up.ended() or "| sequence " in up.output(), FIRST_ALERTS_S, "partitions are served")
    cluster = Cluster.of_folder(tmp_path / ".driftledger")
    assert cluster is not None
    cluster.kill()
    wait_until(up.ended, 30, "it ends")
    assert up.process.returncode == 3
    assert "Kafka ended by itself" in up.errors.read_text()
    assert processes_in(tmp_path) == []


def test_an_address_where_no_kafka_answers_is_refused(tmp_path: Path, start: Callable[..., Running]) -> None:
    """Exit code 3, and no other is started in its place."""
    up = start(bootstrap="127.0.0.1:1")
    assert up.process.wait(60) == 3
    assert "no Kafka answers at 127.0.0.1:1" in up.errors.read_text()
    assert "ended" not in up.output()
    assert Cluster.of_folder(tmp_path / ".driftledger") is None
