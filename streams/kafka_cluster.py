"""A real Apache Kafka on this machine, without an installation: one or three KRaft nodes on loopback.

Problem: what an imitation of Kafka proves about order and atomicity it proves about the imitation. So tests, the tour
and `driftledger up` run the real one: its jars by coordinates and hash (streams/java.py), each node a JVM with its own
folder

    {data_dir}/kafka/cluster.json           nodes, cluster id, ports
    {data_dir}/kafka/node-{n}/              server.properties, pid, output.log, log/ (Kafka's own data)

GUARANTEE start returns when every node of the cluster answers an AdminClient; a cluster of the same folder that already
answers is adopted instead, one that is stuck is ended first.
GUARANTEE no orphan: a node ends with the process that started it, also when that is killed, unless it was started
detached; then its folder leads to it (streams/kafka_node.py).
GUARANTEE a transaction that was decided when a node was killed is complete after the next start (`_end_sessions`).
GUARANTEE data and address survive a stop, a kill and a start of the same folder, as long as the ports are still free.
HAZARD acknowledged data survives the death of the JVM, not of the machine: Kafka leaves flushing to the operating
system.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

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
from streams.kafka_node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
POLL_S: Final = 0.05
#: Another process may take a port between its choice and its use.
PORT_ATTEMPTS: Final = 3

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
        self._known: dict[int, Node] = {}

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
        return [NodeState(n, f"{HOST}:{p.client}", self._node(n).pid()) for n, p in enumerate(ports, start=1)]

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
            self._node(node).spawn(self._program(), detached=self.detached)
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
                    node.configure(node_properties(node.number, layout, node.log) | self._properties)
                self._prepare(program, layout.cluster_id)
                for node in self._nodes():
                    node.spawn(program, detached=self.detached)
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
        killed = [node.number for node in self._nodes() if node.was_killed()]
        if not killed:
            return
        for node in self._nodes():
            node.configure(controller_properties(node.number, layout, node.log) | self._properties)
        for node in self._nodes():
            node.spawn([*program, _TELL_FENCED], detached=self.detached)
        deadline_ns = _time.monotonic_ns() + START_TIMEOUT_S * NS_PER_S
        while killed and _time.monotonic_ns() < deadline_ns:
            _time.sleep_s(POLL_S)
            self._check_alive()
            told = [node.output() for node in self._nodes()]
            killed = [n for n in killed if not any(_is_fenced(n, text) for text in told)]
        self._signal(signal.SIGTERM)  # so that the controllers' log has it
        self._gone_within(STOP_TIMEOUT_S)
        self._end()
        if killed:
            _log.warning("kafka_session_not_ended", directory=str(self.directory), nodes=killed)

    def _prepare(self, program: Sequence[str], cluster_id: str) -> None:
        """Prepare the data folders of nodes that have none; all at once, for each is a JVM of its own."""
        tools = [node.prepare(program, cluster_id) for node in self._nodes() if not node.is_prepared()]
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

    def _wait_until_ready(self) -> None:
        deadline_ns = _time.monotonic_ns() + START_TIMEOUT_S * NS_PER_S
        waiting = [int(state.address.rpartition(":")[2]) for state in self.states()]
        while _time.monotonic_ns() < deadline_ns:
            self._check_alive()
            waiting = [port for port in waiting if not accepts(port)]  # far cheaper than a client that fails
            if not waiting and self.answers(1):
                return
            _time.sleep_s(POLL_S)
        tail = self._node(1).output_tail()
        raise UnreachableError(f"Kafka did not answer within {START_TIMEOUT_S} s. Its output: {tail}")

    def _check_alive(self) -> None:
        for node in self._nodes():
            # Asked for in this order: a launcher that is on its way may write the file at any moment.
            on_its_way = self.detached and node.awaits_pid()
            if on_its_way or node.pid() is not None:
                continue
            tail = node.output_tail()
            if "Address already in use" in tail or "BindException" in tail:
                raise _PortTakenError
            raise UnreachableError(f"Kafka's node {node.number} ended while starting. Its output: {tail}")

    # ---------------------------------------------------------------------------------------------------- what is there

    def _node(self, number: int) -> Node:
        return self._known.setdefault(number, Node(number, self.directory / f"node-{number}"))

    def _nodes(self) -> list[Node]:
        return [self._node(number) for number in range(1, self.nodes + 1)]

    def _layout(self) -> Layout | None:
        return read_layout(self.directory)

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
