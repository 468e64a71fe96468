"""The layout of an embedded Kafka: identity, ports, what is kept in its folder."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadInputError
from streams import kafka_layout
from streams.kafka_layout import (
    Layout,
    Ports,
    choose_ports,
    node_properties,
    random_cluster_id,
    read_layout,
    write_layout,
)

if TYPE_CHECKING:
    from pathlib import Path

THREE = Layout("id", (Ports(1, 2), Ports(3, 4), Ports(5, 6)))


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    """One in 64 random ids begins with a hyphen, and Kafka's tool would refuse to prepare the folder."""
    assert not any(random_cluster_id().startswith("-") for _ in range(1000))


def test_a_layout_reads_back(tmp_path: Path) -> None:
    """And a folder that was never used has none."""
    assert read_layout(tmp_path) is None
    write_layout(tmp_path, THREE)
    assert read_layout(tmp_path) == THREE


@pytest.mark.parametrize("text", ["", "[]", '{"ports": 3}', '{"cluster_id": "x", "ports": [{"client": 1}]}'])
def test_a_damaged_layout_is_refused_with_what_to_remove(tmp_path: Path, text: str) -> None:
    """Guessing would start an empty cluster beside the data."""
    (tmp_path / "cluster.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=r"cluster\.json: damaged.*Remove"):
        read_layout(tmp_path)


def test_ports_are_free_distinct_and_no_clients() -> None:
    """Six for three nodes, below what the system hands to outgoing connections."""
    ports = [port for node in choose_ports(3) for port in (node.client, node.controller)]
    lowest = int(kafka_layout.EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    assert len(set(ports)) == 6
    assert all(kafka_layout.PORT_MIN <= port < lowest for port in ports)


def test_a_system_that_does_not_tell_its_ephemeral_range_has_linuxs_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Containers may hide /proc."""
    monkeypatch.setattr(kafka_layout, "EPHEMERAL_RANGE", tmp_path / "absent")
    assert all(port.client < 32_768 for port in choose_ports(3))


def test_a_port_in_use_is_not_free() -> None:
    """And it accepts; a free one does not."""
    with socket.socket() as listener:
        listener.bind((kafka_layout.HOST, 0))
        port = listener.getsockname()[1]
        listener.listen()
        assert not Layout("id", (Ports(port, port),)).is_free()
        assert kafka_layout.accepts(port)
    assert Layout("id", (Ports(port, port),)).is_free()
    assert not kafka_layout.accepts(port)


@pytest.mark.parametrize(("cores", "network", "io"), [(None, "1", "2"), (2, "1", "2"), (4, "2", "4"), (64, "3", "8")])
def test_a_node_has_no_more_threads_than_serve_it(
    cores: int | None, network: str, io: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never more than Kafka's own defaults."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    found = node_properties(1, Layout("id", (Ports(1, 2),)), "data")
    assert (found["num.network.threads"], found["num.io.threads"]) == (network, io)


def test_three_nodes_know_one_another_and_keep_three_copies() -> None:
    """One node keeps one, or its internal topics could not be created."""
    second = node_properties(2, THREE, "data")
    assert second["controller.quorum.voters"] == "1@127.0.0.1:2,2@127.0.0.1:4,3@127.0.0.1:6"
    assert second["listeners"] == "PLAINTEXT://127.0.0.1:3,CONTROLLER://127.0.0.1:4"
    assert (second["transaction.state.log.replication.factor"], second["transaction.state.log.min.isr"]) == ("3", "2")
    one = node_properties(1, Layout("id", (Ports(1, 2),)), "data")
    assert (one["transaction.state.log.replication.factor"], one["transaction.state.log.min.isr"]) == ("1", "1")
    assert THREE.bootstrap == "127.0.0.1:1,127.0.0.1:3,127.0.0.1:5"
