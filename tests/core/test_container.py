"""The container's configuration and its end; that the image starts is for machines with Docker."""

from __future__ import annotations

import pytest

from schemas.errors import UnreachableError
from streams import container
from streams.container import environment, started
from streams.kafka_layout import Ports


class Stand:
    """Stands in for the container: it runs between start and stop."""

    bootstrap = "127.0.0.1:12345"
    runs = False

    def start(self) -> None:
        """As testcontainers does."""
        Stand.runs = True

    def stop(self) -> None:
        """As testcontainers does."""
        Stand.runs = False


@pytest.fixture(autouse=True)
def stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Docker in these tests."""
    monkeypatch.setattr(container, "KafkaContainer", Stand)


def test_the_container_is_configured_as_the_embedded_node_but_listens_on_every_interface() -> None:
    """Inside, loopback is the container's own; what it advertises is the host's."""
    found = environment(Ports(12345, 12346))
    assert found["KAFKA_LISTENERS"] == "PLAINTEXT://:12345,CONTROLLER://:12346"
    assert found["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:12345"
    assert found["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert found["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"


def test_the_container_runs_for_the_duration_of_the_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is handed out once it answers, and ended whatever happens."""
    monkeypatch.setattr(container, "answers", lambda *_: Stand.runs)

    def work(bootstrap: str) -> None:
        assert bootstrap == Stand.bootstrap
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), started(UnreachableError("no jars")) as bootstrap:
        work(bootstrap)
    assert not Stand.runs


def test_a_container_that_never_answers_is_ended_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With where to look."""
    monkeypatch.setattr(container, "answers", lambda *_: False)
    monkeypatch.setattr(container, "START_TIMEOUT_S", 0)
    with pytest.raises(UnreachableError, match="docker logs"), started(UnreachableError("no jars")):
        pass
    assert not Stand.runs
