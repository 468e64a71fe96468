"""The agents of the Faust application: one for each lane, over a channel of batches, and the ordinary ones.

A batch is one item: what happens inside it happens in kernels. The agent of a lane awaits the commit of each item
before it takes the next, so the order of the channel is the order of the ledger. `LaneHost.commit` never
raises, because Faust would acknowledge the item and go on: what went wrong stays in the turn, which the serving loop
takes.

HAZARD whenever Faust's own consumer gets or loses a partition, and when the application stops, Faust suspends the
queues of all channels, throws away what is in them and cancels who waits to put: what it throws away there it would
read again from Kafka. A lane's batch would be lost. So lanes have a channel of their own (`BatchChannel`), and the
lane itself refuses a batch that does not begin where the one before it ended.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import faust
import structlog
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from schemas.codec import DecodeError, Framing, decode
from streams.alert_record import subject_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.topics import TopicNames

_logger = structlog.get_logger()


class BatchChannel(faust.Channel[Any]):
    """A channel that Faust's flow control leaves alone; see the module."""

    @property
    def queue(self) -> Any:
        """What waits for this subscriber."""
        if self._queue is None:
            never_suspended = FlowControlEvent(initially_suspended=False)
            self._queue = ThrowableQueue(maxsize=self.maxsize, flow_control=never_suspended)
        return self._queue


def lane_agent(app: faust.App, number: int) -> Any:
    """The channel that feeds lane `number`, with the agent behind it; at most one item waits."""
    channel = BatchChannel(app, maxsize=1)

    async def commit(stream: Any) -> None:
        async for work in stream:
            await work.host.commit(work)

    app.agent(channel, name=f"lane-{number}")(commit)
    return channel


class Turn(NamedTuple):
    """A job that is to be run; run raises nothing that is expected."""

    run: Callable[[], None]


def job_agent(app: faust.App, waiting_max: int) -> Any:
    """The channel of jobs that are asked of this worker, with the agent that runs them in a thread of their own.

    One after the other: a job takes a processor, and lanes need the rest.
    """
    channel = BatchChannel(app, maxsize=waiting_max)
    thread = ThreadPoolExecutor(1, "asked-jobs")

    async def run(stream: Any) -> None:
        async for turn in stream:
            await asyncio.get_running_loop().run_in_executor(thread, turn.run)

    app.agent(channel, name="jobs")(run)
    return channel


def alert_agent(app: faust.App, names: TopicNames) -> None:
    """Log every alert of the ledger, once per deployment: where users hang their own notification."""
    topic = app.topic(names.drift_alerts, key_serializer="raw", value_serializer="raw", internal=True)

    async def notify(stream: Any) -> None:
        async for value in stream:
            try:
                alert = decode("DriftAlert", value, Framing.JSON)
            except DecodeError as error:
                _logger.warning("alert_not_readable", error=str(error))
                continue
            _logger.warning(
                "drift_alert",
                state=alert["state"],
                severity=alert["severity"],
                source=alert["source"],
                subject=subject_of(alert),
                alert_id=alert["alert_id"],
                text=alert["text"],
            )

    app.agent(topic, name="notify")(notify)
