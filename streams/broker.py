"""A real Apache Kafka on this machine, without an installation: one or three KRaft nodes on loopback.

Problem: what an imitation of Kafka proves about order and atomicity it proves about the imitation. So tests, the tour
and `driftledger up` run the real one: its jars by coordinates and hash (streams/java.py), each node a JVM with its own
folder

    {data_dir}/kafka/cluster.json           nodes, cluster id, ports
    {data_dir}/kafka/node-{n}/              server.properties, pid, output.log, log/ (Kafka's own data)

GUARANTEE start returns when every node of the cluster answers an AdminClient; a cluster of the same folder that already
answers is adopted instead, one that is stuck is ended first.
GUARANTEE no orphan: a node ends with the process that started it, also when that is killed (streams/launcher.py),
unless it was started detached; then its pid file leads to it. A pid is believed only if that process runs this folder's
configuration.
GUARANTEE a transaction that was decided when a node was killed is complete after the next start (`_end_sessions`).
GUARANTEE data and address survive a stop, a kill and a start of the same folder, as long as the ports are still free.
HAZARD acknowledged data survives the death of the JVM, not of the machine: Kafka leaves flushing to the operating
system.

Where a Kafka is to be had is decided here too: reach() finds one that runs, locate() starts one if none does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

import psutil
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.clock import SystemTime
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.instants import NS_PER_S
from streams import java
from streams.kafka_layout import (
    HOST,
    Layout,
    accepts,
    choose_ports,
    controller_properties,
    node_properties,
    random_cluster_id,
    read_layout,
    write_layout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streams.settings import Settings

#: Enough heap for the tests' load with room; RSS stays near 0.5 GB. At 50,000 events/s the serial collector stopped the
#: broker for 20 ms every 1.4 s, this one for 6 to 9 ms every 2 s.
JVM_FLAGS: Final = (
    "-Xmx512m",
    "-Xmn128m",
    "-XX:+UseParallelGC",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)
#: So that a controller says whose session it ends, and when that is in its log.
_TELL_FENCED: Final = "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.controller=debug"
#: A start takes 3 s on two idle cores, three nodes 8 s; a busy machine may need much more.
START_TIMEOUT_S: Final = 90
FORMAT_TIMEOUT_S: Final = 60
#: A cluster that runs and does not answer for this long is stuck.
ADOPT_TIMEOUT_S: Final = 10
#: Kafka's own shutdown takes below 2 s; three nodes that go at once wait for one another.
STOP_TIMEOUT_S: Final = 15
REACH_TIMEOUT_S: Final = 10
POLL_S: Final = 0.05
EXEC_MAX_S: Final = 2.0
EXEC_POLL_S: Final = 0.001
#: Another process may take a port between its choice and its use.
PORT_ATTEMPTS: Final = 3
OUTPUT_TAIL_BYTES: Final = 2_000

_log = structlog.get_logger()
_time = SystemTime()


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node as it is now: pid is None if it does not run."""

    node: int
    address: str
    pid: int | None


class _PortTakenError(Exception):
    """A node did not start because somebody else has its port."""


class Cluster:
    """An embedded Kafka in a folder. Also a context manager: started on entry, stopped on exit.

    nodes: 1 or 3. properties: Kafka's own settings, over ours. java: the JVM's program; None finds one. detached: the
    nodes outlive this process; otherwise they end with the thread that called start.
    """

    def __init__(
        self,
        data_dir: Path,
        nodes: Literal[1, 3] = 1,
        *,
        properties: Mapping[str, str] | None = None,
        java: Path | None = None,
        detached: bool = False,
    ) -> None:
        self.directory = Path(data_dir).resolve() / "kafka"
        self.nodes = nodes
        self.detached = detached
        self.adopted = False
        self._properties = dict(properties or {})
        self._java = java
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    def of_folder(cls, data_dir: Path) -> Cluster | None:
        """The cluster that was last started in this folder, running or not; None if there never was one."""
        cluster = cls(data_dir)
        layout = cluster._layout()
        if layout is None:
            return None
        cluster.nodes = 3 if len(layout.ports) > 1 else 1
        return cluster

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, "host:port,...". Raises UnreachableError before the first start."""
        layout = self._layout()
        if layout is None:
            raise UnreachableError(f"{self.directory}: no Kafka was ever started there. Run `driftledger broker start`")
        return layout.bootstrap

    @property
    def pids(self) -> list[int]:
        """Processes of the nodes that run."""
        return [state.pid for state in self.states() if state.pid is not None]

    def states(self) -> list[NodeState]:
        """Every node, in order."""
        layout = self._layout()
        ports = layout.ports if layout else ()
        return [NodeState(n, f"{HOST}:{p.client}", self._pid(n)) for n, p in enumerate(ports, start=1)]

    def answers(self, timeout_s: float) -> bool:
        """Whether all nodes are up and in the cluster, asked for at most timeout_s."""
        return answers(self.bootstrap, self.nodes, timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start or adopt; return the bootstrap address.

        Raises BadInputError (the folder holds a cluster of another size, the chosen JVM will not do), UnreachableError
        (no jars, or Kafka does not start: with the end of its output).
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._exclusive():
            layout = self._layout()
            if layout is not None and len(layout.ports) != self.nodes:
                raise BadInputError(
                    f"{self.directory} holds a cluster of {len(layout.ports)} nodes, not {self.nodes}. Start it with "
                    f"--nodes {len(layout.ports)}, or choose another DRIFTLEDGER_DATA_DIR"
                )
            if self.pids:
                if len(self.pids) == self.nodes and self.answers(ADOPT_TIMEOUT_S):
                    self.adopted = True
                    return self.bootstrap
                _log.warning("kafka_stuck_ended", directory=str(self.directory), pids=self.pids)
                self._end()
            return self._launch(layout)

    def stop(self) -> None:
        """End all nodes: asked first, killed after STOP_TIMEOUT_S. Data stays."""
        if not self.directory.is_dir():
            return
        with self._exclusive():
            self.resume()
            self._signal(signal.SIGTERM)
            if not self._gone_within(STOP_TIMEOUT_S):
                _log.warning("kafka_killed", directory=str(self.directory), pids=self.pids)
            self._end()

    def kill(self, node: int | None = None) -> None:
        """SIGKILL to one node (from 1) or all, and wait for the end."""
        self._end(node)

    def pause(self, node: int | None = None) -> None:
        """SIGSTOP: the node keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP, node)

    def resume(self, node: int | None = None) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT, node)

    def restart(self, node: int | None = None) -> str:
        """Kill one node (the others must run), or stop all in order; start again on the same ports.

        Raises UnreachableError if another process has taken one of them.
        """
        before = self.bootstrap
        if node is None:
            self.stop()
            after: str | None = self.start()
        else:
            self.kill(node)
            after = self._revive(node)
        if after != before:
            self.stop()
            raise UnreachableError(f"Kafka's ports {before} were taken by another process. End it, or start anew")
        return after

    # ------------------------------------------------------------------------------------------------------- starting

    def _program(self) -> list[str]:
        """The JVM with its class path and flags: what stands before the class to run."""
        jars = java.fetch()
        return [str(java.find_java(self._java)), "-cp", os.pathsep.join(str(jar) for jar in jars), *JVM_FLAGS]

    def _revive(self, node: int) -> str | None:
        """Start one node of a cluster whose others may run; None if its port is taken."""
        with self._exclusive():
            self._spawn(node, self._program())
            try:
                self._wait_until_ready()
            except _PortTakenError:
                return None
            return self.bootstrap

    def _launch(self, layout: Layout | None) -> str:
        program = self._program()
        for _ in range(PORT_ATTEMPTS):
            if layout is None or not layout.is_free():
                layout = Layout(layout.cluster_id if layout else random_cluster_id(), choose_ports(self.nodes))
            write_layout(self.directory, layout)
            try:
                self._end_sessions(program, layout)
                for node in self._nodes():
                    self._configure(node, node_properties(node, layout, self._log_folder(node)))
                self._format(program, layout.cluster_id)
                for node in self._nodes():
                    self._spawn(node, program)
                self._wait_until_ready()
            except _PortTakenError:
                self._end()
                layout = Layout(layout.cluster_id, choose_ports(self.nodes))
            except (UnreachableError, KeyboardInterrupt):
                self._end()
                raise
            else:
                self.adopted = False
                return layout.bootstrap
        raise UnreachableError(f"no free ports for Kafka in {PORT_ATTEMPTS} tries. Look at what listens on {HOST}")

    def _end_sessions(self, program: Sequence[str], layout: Layout) -> None:
        """After a kill, run the controllers alone until they have fenced every node that was killed.

        A broker that comes back before takes up transactions whose markers were not written, cannot reach itself yet,
        and drops the markers when it is fenced in between: then partitions have no leader, and Kafka (4.3.0,
        KRaftMetadataCache.getPartitionLeaderEndpoint) takes such a one for deleted. They then stay open for good.
        """
        killed = [n for n in self._nodes() if self._was_killed(n)]
        if not killed:
            return
        for node in self._nodes():
            self._configure(node, controller_properties(node, layout, self._log_folder(node)))
        for node in self._nodes():
            self._spawn(node, [*program, _TELL_FENCED])
        deadline_ns = _time.monotonic_ns() + START_TIMEOUT_S * NS_PER_S
        while killed and _time.monotonic_ns() < deadline_ns:
            _time.sleep_s(POLL_S)
            self._check_alive()
            told = [(self._folder(n) / "output.log").read_text(errors="replace") for n in self._nodes()]
            killed = [n for n in killed if not any(_is_fenced(n, text) for text in told)]
        self._signal(signal.SIGTERM)  # so that the controllers' log has it
        self._gone_within(STOP_TIMEOUT_S)
        self._end()
        if killed:
            _log.warning("kafka_session_not_ended", directory=str(self.directory), nodes=killed)

    def _was_killed(self, node: int) -> bool:
        """It has run, and did not write what Kafka writes at the end of a run."""
        log = self._log_folder(node)
        return (log / "__cluster_metadata-0").is_dir() and not (log / ".kafka_cleanshutdown").exists()

    def _configure(self, node: int, properties: Mapping[str, str]) -> None:
        folder = self._folder(node)
        folder.mkdir(exist_ok=True)
        merged = {**properties, **self._properties}
        text = "".join(f"{key}={value}\n" for key, value in merged.items())
        (folder / "server.properties").write_text(text, encoding="utf-8")

    def _format(self, program: Sequence[str], cluster_id: str) -> None:
        """Prepare the data folders of nodes that have none; all at once, for each is a JVM of its own."""
        fresh = [n for n in self._nodes() if not (self._folder(n) / "log" / "meta.properties").exists()]
        tools = [
            subprocess.Popen(
                [
                    *program,
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    cluster_id,
                    "-c",
                    self._folder(n) / "server.properties",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for n in fresh
        ]
        for tool in tools:
            with tool:
                try:
                    output, _ = tool.communicate(timeout=FORMAT_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    tool.kill()
                    raise UnreachableError(
                        f"preparing {self.directory} took over {FORMAT_TIMEOUT_S} s. Try again"
                    ) from None
                if tool.returncode:
                    raise UnreachableError(f"{self.directory} cannot be prepared for Kafka: {output.decode().strip()}")

    def _spawn(self, node: int, program: Sequence[str]) -> None:
        folder = self._folder(node)
        owner = "detached" if self.detached else str(os.getpid())
        launcher = [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).with_name("launcher.py")),
            owner,
            str(folder / "pid"),
        ]
        (folder / "pid").unlink(missing_ok=True)
        with (folder / "output.log").open("wb") as output:
            child = subprocess.Popen(
                [*launcher, *program, "kafka.Kafka", str(folder / "server.properties")],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us; we stop Kafka in order
            )
        if self.detached:
            child.wait()
        else:
            self._children[node] = child

    def _wait_until_ready(self) -> None:
        deadline_ns = _time.monotonic_ns() + START_TIMEOUT_S * NS_PER_S
        waiting = [int(state.address.rpartition(":")[2]) for state in self.states()]
        while _time.monotonic_ns() < deadline_ns:
            self._check_alive()
            waiting = [port for port in waiting if not accepts(port)]  # far cheaper than a client that fails
            if not waiting and self.answers(1):
                return
            _time.sleep_s(POLL_S)
        raise UnreachableError(f"Kafka did not answer within {START_TIMEOUT_S} s. Its output: {self._output_tail(1)}")

    def _check_alive(self) -> None:
        for node in self._nodes():
            # Asked for in this order: a launcher that is on its way may write the file at any moment.
            on_its_way = self.detached and not (self._folder(node) / "pid").exists()
            if on_its_way or self._pid(node) is not None:
                continue
            tail = self._output_tail(node)
            if "Address already in use" in tail or "BindException" in tail:
                raise _PortTakenError
            raise UnreachableError(f"Kafka's node {node} ended while starting. Its output: {tail}")

    def _output_tail(self, node: int) -> str:
        output = (self._folder(node) / "output.log").read_bytes()
        return output[-OUTPUT_TAIL_BYTES:].decode(errors="replace").strip() or "none"

    # ---------------------------------------------------------------------------------------------------- what is there

    def _nodes(self) -> range:
        return range(1, self.nodes + 1)

    def _folder(self, node: int) -> Path:
        return self.directory / f"node-{node}"

    def _log_folder(self, node: int) -> Path:
        return self._folder(node) / "log"

    def _layout(self) -> Layout | None:
        return read_layout(self.directory)

    def _pid(self, node: int) -> int | None:
        """The node's process: our own child, or the one of its pid file, if that runs this node's configuration."""
        child = self._children.get(node)
        if child is not None:
            if child.poll() is None:
                return child.pid
            del self._children[node]
        try:
            pid = int((self._folder(node) / "pid").read_text(encoding="ascii"))
            command = _command_of(pid)
        except (OSError, ValueError, psutil.Error):
            return None
        return pid if command and command[-1] == str(self._folder(node) / "server.properties") else None

    # -------------------------------------------------------------------------------------------------------- signals

    def _signal(self, number: signal.Signals, node: int | None = None) -> None:
        for state in self.states():
            if state.pid is not None and node in (None, state.node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(state.pid, number)

    def _end(self, node: int | None = None) -> None:
        self._signal(signal.SIGKILL, node)
        if not self._gone_within(STOP_TIMEOUT_S, node):
            raise DriftledgerError(
                f"Kafka's processes {self.pids} survive SIGKILL. Look at them: they wait for the kernel"
            )

    def _gone_within(self, timeout_s: float, node: int | None = None) -> bool:
        deadline_ns = _time.monotonic_ns() + int(timeout_s * NS_PER_S)
        while any(state.pid is not None and node in (None, state.node) for state in self.states()):
            if _time.monotonic_ns() > deadline_ns:
                return False
            _time.sleep_s(POLL_S)
        return True

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process at a time starts or stops in this folder; the kernel frees the lock of a dead one."""
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _command_of(pid: int) -> list[str]:
    """The command line of a process. Raises psutil.Error.

    While the kernel puts another program into a process, as our launcher asks, it tells none (0.1 ms, more on a busy
    machine); so none is believed only after EXEC_MAX_S.
    """
    process = psutil.Process(pid)
    deadline_ns = _time.monotonic_ns() + int(EXEC_MAX_S * NS_PER_S)
    command: list[str] = []
    while not (command := process.cmdline()) and _time.monotonic_ns() < deadline_ns:
        _time.sleep_s(EXEC_POLL_S)
    return command


def reach(settings: Settings) -> str:
    """Address of a Kafka that runs and answers: the one of the settings, else the embedded one of the data folder.

    Raises UnreachableError.
    """
    if settings.bootstrap:
        if not answers(settings.bootstrap, 1, REACH_TIMEOUT_S):
            raise UnreachableError(
                f"no Kafka answers at {settings.bootstrap} within {REACH_TIMEOUT_S} s. Start it, or mend the setting "
                "bootstrap (DRIFTLEDGER_BOOTSTRAP or driftledger.toml)"
            )
        return settings.bootstrap
    cluster = Cluster.of_folder(settings.data_dir)
    if cluster is None or not cluster.pids:
        raise UnreachableError(
            f"no Kafka runs in {settings.data_dir}. Run `driftledger broker start`, or set DRIFTLEDGER_BOOTSTRAP"
        )
    if not answers(cluster.bootstrap, 1, REACH_TIMEOUT_S):
        raise UnreachableError(
            f"the Kafka of {settings.data_dir} at {cluster.bootstrap} does not answer. Run `driftledger broker start`, "
            "which ends and replaces one that is stuck"
        )
    return cluster.bootstrap


@contextlib.contextmanager
def locate(settings: Settings, nodes: Literal[1, 3] = 1) -> Iterator[str]:
    """A Kafka for the duration of a `with`: the settings' one, the one that runs, a new embedded one, else a container.

    Ends, on leaving, only what it started. Raises UnreachableError when none of the four is to be had.
    """
    if settings.bootstrap:
        yield reach(settings)
        return
    cluster = Cluster(settings.data_dir, nodes, java=settings.java)
    try:
        bootstrap = cluster.start()
    except UnreachableError as error:
        with _container(error) as bootstrap:
            yield bootstrap
        return
    try:
        yield bootstrap
    finally:
        if not cluster.adopted:
            cluster.stop()


@contextlib.contextmanager
def _container(reason: UnreachableError) -> Iterator[str]:
    """Kafka in a container, where the embedded one cannot run and Docker can; otherwise the reason is raised."""
    try:
        from streams.container import started  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise reason from None
    with started(reason) as bootstrap:
        yield bootstrap


def answers(bootstrap: str, nodes: int, timeout_s: float) -> bool:
    """Whether an AdminClient sees at least that many brokers."""
    try:
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
        return len(admin.list_topics(timeout=timeout_s).brokers) >= nodes
    except KafkaException:
        return False


def _is_fenced(node: int, told: str) -> bool:
    """Whether a controller has ended a broker's session and that is in its log, for good.

    It says so in three lines: that it ends the session, in which operation, and, some 30 ms later, that this is done. A
    controller that is told to stop in between forgets it; the broker is then refused for as long as its session lasts.
    """
    operation = re.search(
        rf"Fencing broker {node} .*?registration for broker {node}:.*?operation (\S+) will be completed",
        told,
        re.DOTALL,
    )
    return operation is not None and f"Processed {operation[1]} in" in told[operation.end() :]
