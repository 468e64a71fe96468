"""Kafka in a container: what streams.broker.locate falls back to where Docker runs and a JVM of ours does not.

The same single KRaft node as the embedded one, from the project's own image (apache/kafka; the default image of
testcontainers' KafkaContainer is another vendor's). The container listens on a port that is also its port on the host,
so the address it advertises is right without a script inside.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from schemas.clock import SystemTime
from schemas.errors import UnreachableError
from schemas.instants import NS_PER_S
from streams.java import KAFKA_VERSION
from streams.kafka_cluster import answers
from streams.kafka_layout import HOST, Layout, Ports, choose_ports, node_properties

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"
LOG_FOLDER: Final = "/tmp/kafka-logs"  # noqa: S108 - inside the container, gone with it
START_TIMEOUT_S: Final = 60


class KafkaContainer(DockerContainer):
    """One broker and controller; bootstrap is its address on the host once it runs."""

    def __init__(self) -> None:
        super().__init__(IMAGE)
        (ports,) = choose_ports(1)
        self.bootstrap = f"{HOST}:{ports.client}"
        self.with_bind_ports(ports.client, ports.client)
        for name, value in environment(ports).items():
            self.with_env(name, value)


def environment(ports: Ports) -> dict[str, str]:
    """The embedded node's configuration as the image reads it: KAFKA_ and the property's name in capitals."""
    layout = Layout("container", (ports,))
    properties = node_properties(1, layout, LOG_FOLDER)
    properties["listeners"] = f"PLAINTEXT://:{ports.client},CONTROLLER://:{ports.controller}"
    return {f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in properties.items()}


@contextlib.contextmanager
def started(reason: UnreachableError) -> Iterator[str]:
    """Address of a broker in a container for the duration of a `with`; raises reason where Docker does not answer."""
    try:
        container = KafkaContainer()
        container.start()
    except DockerException:
        raise reason from None
    try:
        time = SystemTime()
        deadline_ns = time.monotonic_ns() + START_TIMEOUT_S * NS_PER_S
        while not answers(container.bootstrap, 1, 1):
            if time.monotonic_ns() > deadline_ns:
                raise UnreachableError(
                    f"{IMAGE} did not answer within {START_TIMEOUT_S} s. See `docker logs`"
                ) from reason
        yield container.bootstrap
    finally:
        container.stop()
