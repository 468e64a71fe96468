"""How an embedded Kafka is laid out: its nodes, their ports, and the configuration of each.

The layout of a folder is fixed when it is first used and kept in its cluster.json; only the ports may change, when
another process has taken them.

HAZARD ports are chosen below the system's ephemeral range: a client that reconnects to a dead broker's port inside it
can be given that very port as its own, connect to itself, and keep the broker from coming back.
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from schemas.errors import BadInputError

PORT_MIN: Final = 10_000
EPHEMERAL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
HOST: Final = "127.0.0.1"
#: A broker whose heartbeats stay away for so long is fenced: its partitions have no leader, and markers that end a
#: transaction then are dropped for good (see kafka_cluster), which halts the lanes that wait for them. A single broker
#: has nobody to take over from it, and on a busy machine 2 s pass without a heartbeat. Three are to go on soon.
ALONE_SESSION_MS: Final = "300000"
AMONG_OTHERS_SESSION_MS: Final = "6000"
#: While controllers wait for the sessions of killed nodes to end, with no broker at work.
ENDED_SESSION_MS: Final = "2000"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one node listens: to clients, and to the other controllers."""

    client: int
    controller: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What cluster.json holds: fixed when the folder is first used, except the ports."""

    cluster_id: str
    ports: tuple[Ports, ...]

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, "host:port,..."."""
        return ",".join(f"{HOST}:{ports.client}" for ports in self.ports)

    def is_free(self) -> bool:
        """Whether nobody listens on any of the ports."""
        return all(is_free(port) for ports in self.ports for port in (ports.client, ports.controller))


def read_layout(directory: Path) -> Layout | None:
    """The layout of a folder; None if it was never used. Raises BadInputError if the file is damaged."""
    path = directory / "cluster.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Layout(stored["cluster_id"], tuple(Ports(**ports) for ports in stored["ports"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: damaged: {error}. Remove {directory}, which loses that Kafka's data") from error


def write_layout(directory: Path, layout: Layout) -> None:
    """Keep the layout, whole or not at all."""
    new = directory / "cluster.json.new"
    new.write_text(json.dumps(asdict(layout)), encoding="utf-8")
    new.replace(directory / "cluster.json")


def node_properties(node: int, layout: Layout, log: Path | str) -> dict[str, str]:
    """Kafka's configuration of one node."""
    ports = layout.ports[node - 1]
    copies = str(len(layout.ports))
    in_sync = "2" if len(layout.ports) > 1 else "1"
    cores = os.cpu_count() or 1
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "listeners": f"PLAINTEXT://{HOST}:{ports.client},CONTROLLER://{HOST}:{ports.controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports.client}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        # Voters by configuration, not in the log: so the ports may differ at the next start.
        "controller.quorum.voters": ",".join(f"{n}@{HOST}:{p.controller}" for n, p in enumerate(layout.ports, start=1)),
        "log.dirs": str(log),
        "broker.session.timeout.ms": ALONE_SESSION_MS if len(layout.ports) == 1 else AMONG_OTHERS_SESSION_MS,
        "broker.heartbeat.interval.ms": "500",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        # Kafka's own 3 and 8 are for a machine of its own. More threads than cores cost changes from one to another.
        "num.network.threads": str(max(1, min(3, cores // 2))),
        "num.io.threads": str(max(2, min(8, cores))),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def controller_properties(node: int, layout: Layout, log: Path | str) -> dict[str, str]:
    """Of a node that is no broker for once."""
    properties = node_properties(node, layout, log)
    del properties["advertised.listeners"]
    return properties | {
        "process.roles": "controller",
        "broker.session.timeout.ms": ENDED_SESSION_MS,
        "listeners": f"CONTROLLER://{HOST}:{layout.ports[node - 1].controller}",
    }


def random_cluster_id() -> str:
    """A cluster id in Kafka's form: never with a leading hyphen, which its tools would take for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def choose_ports(nodes: int) -> tuple[Ports, ...]:
    """Ports that are free now, below the ephemeral range."""
    chosen: list[int] = []
    while len(chosen) < 2 * nodes:
        port = random.SystemRandom().randrange(PORT_MIN, _ephemeral_min())
        if port not in chosen and is_free(port):
            chosen.append(port)
    return tuple(Ports(chosen[2 * n], chosen[2 * n + 1]) for n in range(nodes))


def _ephemeral_min() -> int:
    try:
        return max(int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0]), PORT_MIN + 1_000)
    except (OSError, ValueError, IndexError):
        return 32_768  # Linux's default


def is_free(port: int) -> bool:
    """Whether Kafka could listen on it now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Kafka does: remains of closed connections are no hindrance
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Whether something listens on it."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
