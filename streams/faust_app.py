"""The Faust application as a worker wants it, before anything of ours is in it.

HAZARD Faust starts the services of users once its own consumer has joined its group, which after a kill takes until
the dead member's session ends. Lanes do not wait for that: the worker starts with the application (`start_with`).

HAZARD Faust's consumer reads uncommitted records and has no setting for it, and our topics are transactional: the
transport below makes every consumer of this application read_committed (pinned by a test on a real broker).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faust
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver

if TYPE_CHECKING:
    from mode import Service

    from streams.settings import Settings

#: Alerts are logged in time for people, not one by one: each answer to the agent's consumer wakes two event loops,
#: and with a hundred thousand sources nearly every transaction holds an alert.
_ALERTS_WAIT_MS = 500
_ALERTS_BYTES = 1_048_576


class _ReadCommittedThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        """With what Faust has no setting for, and the consumer's start() reads."""
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - as above
        consumer._fetch_max_wait_ms = _ALERTS_WAIT_MS  # noqa: SLF001 - as above
        consumer._fetch_min_bytes = _ALERTS_BYTES  # noqa: SLF001 - as above
        return consumer


class _ReadCommittedConsumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)


class _ReadCommittedTransport(driver.Transport):
    Consumer = _ReadCommittedConsumer


class _Boot(BootStrategy):
    """What the application starts, in order; it ends in the reverse one."""

    worker: Service
    enable_web = False  # Faust's command would turn it on, without authentication on every address

    def server(self) -> Any:
        """Faust's own services, the agents among them, then ours."""
        return [*super().server(), self.worker]


def bare_app(settings: Settings, bootstrap: str) -> faust.App:
    """The application of one ledger's worker, without agents and without the worker."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)  # Faust makes the last folder of its path only
    app = faust.App(
        f"{settings.prefix}.{settings.ledger}.host",
        broker=f"kafka://{bootstrap}".replace(",", ";"),
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
        Worker="streams.worker:Host",
        datadir=settings.data_dir / "faust",
        broker_session_timeout=settings.session_timeout_ms / 1_000,
        broker_heartbeat_interval=settings.session_timeout_ms / 4_000,
    )
    app.transport = _ReadCommittedTransport(app.conf.broker_consumer, app, loop=app.loop)
    return app


def start_with(app: faust.App, worker: Service) -> None:
    """Have the application start the worker after Faust's own services, and end it before them."""
    app.boot_strategy = boot = _Boot(app)
    boot.worker = worker
