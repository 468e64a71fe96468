"""The embedded Kafka: it starts, survives, is adopted, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from schemas.clock import SystemTime
from schemas.errors import BadInputError, UnreachableError
from streams import broker, kafka_cluster
from streams.broker import locate, reach
from streams.cli import main as command
from streams.kafka_cluster import Cluster
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    WaitUntil = Callable[[Callable[[], object], float, str], None]

REPOSITORY = Path(__file__).resolve().parents[2]
STARTS = 3


@pytest.fixture(autouse=True)
def no_other_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the embedded one, whatever the others use."""
    monkeypatch.delenv("DRIFTLEDGER_BOOTSTRAP", raising=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A running node of this test's own."""
    with Cluster(tmp_path) as running:
        yield running


def topic_with(bootstrap: str, values: list[bytes], copies: int = 1) -> None:
    """Create topic "kept" and fill it, every record acknowledged."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic("kept", 1, copies)])["kept"].result(30)
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce("kept", value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(30) == 0
    assert failed == []


def values_of(bootstrap: str, count: int) -> list[bytes]:
    """Read topic "kept" from its beginning."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition("kept", 0, 0)])
    read: list[bytes] = []
    deadline_ns = SystemTime().monotonic_ns() + 30 * 10**9
    while len(read) < count and SystemTime().monotonic_ns() < deadline_ns:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            read.append(message.value() or b"")
    consumer.close()
    return read


def java_processes(folder: Path) -> list[int]:
    """JVMs that run a configuration below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()) and "java" in Path(process.exe()).name:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_stopped_broker_starts_again_with_its_data_and_its_address(cluster: Cluster) -> None:
    """And what was acknowledged is there."""
    topic_with(cluster.bootstrap, [b"one", b"two"])
    address = cluster.bootstrap
    cluster.stop()
    assert cluster.pids == []
    assert not cluster.answers(0.5)
    assert cluster.restart() == address
    assert values_of(address, 2) == [b"one", b"two"]


@pytest.mark.parametrize("detached", [False, True])
def test_a_node_starts_though_the_kernel_tells_no_command_line_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, detached: bool
) -> None:
    """As while a process becomes another program; on a busy machine that was taken for a node that had ended."""
    told, untold = psutil.Process.cmdline, iter(range(10))
    monkeypatch.setattr(psutil.Process, "cmdline", lambda process: told(process) if next(untold, None) is None else [])
    with Cluster(tmp_path, detached=detached) as cluster:
        assert cluster.answers(5)
    assert cluster.pids == []


def test_a_node_whose_pid_is_written_at_this_moment_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its launcher may do so between any two looks; one that has written it, and does not run, has ended."""
    cluster = Cluster(tmp_path, detached=True)
    file = cluster.directory / "node-1" / "pid"
    file.parent.mkdir(parents=True)
    (file.parent / "output.log").touch()

    def looked() -> None:
        file.write_text("1", encoding="ascii")

    monkeypatch.setattr(cluster._node(1), "pid", looked)
    cluster._check_alive()
    looked()
    with pytest.raises(UnreachableError, match="node 1 ended while starting"):
        cluster._check_alive()


def test_a_killed_broker_starts_again_with_what_it_acknowledged(cluster: Cluster) -> None:
    """kill -9 of the JVM, not of the machine."""
    topic_with(cluster.bootstrap, [b"%d" % n for n in range(1000)])
    cluster.kill()
    assert cluster.pids == []
    assert values_of(cluster.restart(), 1000) == [b"%d" % n for n in range(1000)]


def test_a_session_has_ended_once_that_is_in_the_controllers_log() -> None:
    """As Kafka 4.3.0 says it. A controller that is told to stop before the last line forgets the session's end."""
    told = (
        "Read-write operation writeNoOpRecord(7508) will be completed when the log reaches offset 20.",
        "Fencing broker 1 at epoch 11 because its session has timed out.",
        "Replayed BrokerRegistrationChangeRecord modifying the registration for broker 1: BrokerRegistrationChange",
        "Read-write operation maybeFenceStaleBroker(1942) will be completed when the log reaches offset 21.",
        "Processed writeNoOpRecord(7508) in 30007 us",
        "Processed maybeFenceStaleBroker(1942) in 28780 us",
    )
    fenced = kafka_cluster._is_fenced
    assert [fenced(1, "\n".join(told[:lines])) for lines in range(len(told) + 1)] == [False] * 6 + [True]
    assert not fenced(2, "\n".join(told))


def test_a_paused_broker_answers_nothing_until_it_is_resumed(cluster: Cluster) -> None:
    """And it can be stopped while paused."""
    cluster.pause()
    assert not cluster.answers(0.5)
    cluster.resume()
    assert cluster.answers(10)
    cluster.pause()
    cluster.stop()
    assert cluster.pids == []


def test_a_running_broker_of_the_folder_is_adopted(cluster: Cluster, tmp_path: Path) -> None:
    """Two starts make one broker."""
    second = Cluster(tmp_path)
    assert second.start() == cluster.bootstrap
    assert second.adopted
    assert second.pids == cluster.pids


def test_a_stuck_broker_is_replaced(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is alive and does not answer is not adopted."""
    monkeypatch.setattr(kafka_cluster, "ADOPT_TIMEOUT_S", 0.5)
    old = cluster.pids
    cluster.pause()
    with Cluster(tmp_path) as second:
        assert not second.adopted
        assert second.pids != old
        assert second.answers(10)
        assert not psutil.pid_exists(old[0]) or psutil.Process(old[0]).status() == psutil.STATUS_ZOMBIE
    assert cluster.pids == []


def test_a_pid_file_that_names_somebody_else_is_not_believed(tmp_path: Path) -> None:
    """Pids are used again; a stranger is neither adopted nor ended."""
    with Cluster(tmp_path) as running:
        running.stop()
        (running.directory / "node-1" / "pid").write_text(str(os.getpid()), encoding="ascii")
        assert running.pids == []
        running.stop()
        assert running.start()


def test_properties_override_ours(tmp_path: Path) -> None:
    """Tests need a broker that is quick with retention, for one."""
    with Cluster(tmp_path, properties={"log.retention.check.interval.ms": "4321"}) as running:
        admin = AdminClient({"bootstrap.servers": running.bootstrap})
        resource = ConfigResource(ConfigResource.Type.BROKER, "1")
        found = admin.describe_configs([resource])[resource].result(10)
        assert found["log.retention.check.interval.ms"].value == "4321"


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"num.network.threads": "0"}, r"(?s)cannot be prepared for Kafka: .*num\.network\.threads"),
        ({"metric.reporters": "no.such.Thing"}, r"(?s)node 1 ended while starting.*no\.such\.Thing"),
    ],
    ids=["configuration", "class"],
)
def test_a_broker_that_cannot_start_is_told_with_its_output(
    tmp_path: Path, properties: dict[str, str], says: str
) -> None:
    """And nothing of it is left."""
    with pytest.raises(UnreachableError, match=says):
        Cluster(tmp_path, properties=properties).start()
    assert java_processes(tmp_path) == []


def test_a_port_taken_by_another_process_is_not_fought_for(cluster: Cluster, tmp_path: Path) -> None:
    """A start takes another port; a restart, which promises the same, refuses."""
    address = cluster.bootstrap
    cluster.stop()
    host, port = address.split(":")
    with socket.socket() as squatter:
        squatter.bind((host, int(port)))
        squatter.listen()
        with pytest.raises(UnreachableError, match="taken by another process"):
            cluster.restart()
        with Cluster(tmp_path) as second:
            assert second.bootstrap != address


def test_a_folder_keeps_its_number_of_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """One node's data is no part of a cluster of three."""
    with pytest.raises(BadInputError, match="holds a cluster of 1 nodes, not 3"):
        Cluster(tmp_path, 3).start()
    assert cluster.answers(10)


def test_a_damaged_layout_is_told(tmp_path: Path) -> None:
    """With what to remove."""
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "cluster.json").write_text('{"ports": 3}', encoding="utf-8")
    with pytest.raises(BadInputError, match=r"cluster\.json: damaged"):
        Cluster(tmp_path).start()


@pytest.mark.soak
@pytest.mark.parametrize(("nodes", "within_s"), [(1, 5), (3, 15)])
def test_it_answers_within_its_time_on_a_machine_that_does_nothing_else(
    tmp_path: Path, nodes: Literal[1, 3], within_s: float
) -> None:
    """From the start to the first answer of every node, the jars being there; the median of the starts."""
    clock = SystemTime()
    took_s: list[float] = []
    for start in range(STARTS):
        begun_ns = clock.monotonic_ns()
        with Cluster(tmp_path / f"start-{start}", nodes) as cluster:
            assert cluster.answers(2 * within_s)
            took_s.append((clock.monotonic_ns() - begun_ns) / 1e9)
    assert statistics.median(took_s) < within_s, took_s


def test_three_nodes_survive_the_death_of_one(tmp_path: Path) -> None:
    """Acknowledged by two, readable from two; the third comes back."""
    with Cluster(tmp_path, 3) as three:
        assert len(three.pids) == 3
        topic_with(three.bootstrap, [b"kept"], copies=3)
        three.kill(2)
        assert len(three.pids) == 2
        assert values_of(three.bootstrap, 1) == [b"kept"]
        three.restart(2)
        assert len(three.pids) == 3
        assert values_of(three.bootstrap, 1) == [b"kept"]


def test_a_killed_parent_leaves_no_orphan(tmp_path: Path, wait_until: WaitUntil) -> None:
    """kill -9 of whoever started it ends the JVM."""
    program = (
        "import sys; from pathlib import Path; from streams.kafka_cluster import Cluster;"
        "print(Cluster(Path(sys.argv[1])).start(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"127.0.0.1:")
        assert len(java_processes(tmp_path)) == 1
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not java_processes(tmp_path), 5, "the JVM ends with its parent")


def test_the_command_starts_one_that_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """start, status, start again, stop; the address is alone on stdout."""
    monkeypatch.setenv("DRIFTLEDGER_DATA_DIR", str(tmp_path))
    assert command.main(["broker", "status", "--output", "jsonl"]) == 1
    assert capsys.readouterr().out == ""
    run = [sys.executable, "-c", "from streams.cli.main import run; run()", "broker", "start"]
    started = subprocess.run(run, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    try:
        address = started.stdout.strip()
        assert started.stdout == f"{address}\n"
        assert reach(Settings()) == address
        assert command.main(["broker", "status", "--output", "csv"]) == 0
        assert f"1,{address}," in capsys.readouterr().out
        assert command.main(["broker", "start"]) == 0
        assert capsys.readouterr().out == f"{address}\n"
        assert command.main(["broker", "start", "--nodes", "3"]) == 2
        with locate(Settings()) as found:
            assert found == address
        assert reach(Settings()) == address
        monkeypatch.setattr(kafka_cluster, "ADOPT_TIMEOUT_S", 0.5)
        monkeypatch.setattr(broker, "REACH_TIMEOUT_S", 0.5)
        stuck = Cluster.of_folder(tmp_path)
        assert stuck is not None
        stuck.pause()
        assert command.main(["broker", "status"]) == 1
        assert "does not answer" in capsys.readouterr().err
        with pytest.raises(UnreachableError, match="does not answer"):
            reach(Settings())
    finally:
        assert command.main(["broker", "stop"]) == 0
    assert java_processes(tmp_path) == []
    assert command.main(["broker", "status"]) == 1
    assert command.main(["broker", "stop"]) == 0
    assert command.main(["broker", "start", "--nodes", "2"]) == 2


def test_locate_starts_one_where_none_runs_and_ends_it(tmp_path: Path) -> None:
    """The last resort but one."""
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(UnreachableError, match="driftledger broker start"):
        reach(settings)
    with locate(settings) as address:
        assert reach(settings) == address
    assert java_processes(tmp_path) == []


def test_a_given_address_comes_before_an_embedded_broker(cluster: Cluster, tmp_path: Path) -> None:
    """And one that does not answer is an error, not a reason to start another."""
    with locate(Settings(bootstrap=cluster.bootstrap, data_dir=tmp_path / "unused")) as address:
        assert address == cluster.bootstrap
    assert not (tmp_path / "unused").exists()


def test_a_given_address_that_does_not_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events must not go somewhere else than the user said."""
    monkeypatch.setattr(broker, "REACH_TIMEOUT_S", 0.3)
    settings = Settings(bootstrap="127.0.0.1:1", data_dir=tmp_path)
    with pytest.raises(UnreachableError, match=r"no Kafka answers at 127\.0\.0\.1:1"), locate(settings):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_jars_and_without_docker_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not Docker's, which few mean to use."""

    def no_jars() -> list[Path]:
        raise UnreachableError("no network")

    monkeypatch.setattr("streams.java.fetch", no_jars)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(UnreachableError, match="no network"), locate(Settings(data_dir=tmp_path / "data")):
        pass
