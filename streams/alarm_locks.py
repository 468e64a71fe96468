"""The locks that a worker engages in the guardian's name (setting guardian_locks).

Its own clock only: an alarm about another worker's ends with our first heartbeat. Each alert is answered once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.clock import source as time_source
from streams.control import encode_control
from streams.guardian import alarm_of
from streams.locks import GUARDIAN, halts_in, lock_body
from streams.progress import produce_durably

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streams.guardian import Alarm
    from streams.lane_part import Part


class AlarmLocks:
    """Of one worker. control: the control topic; halts: what such a lock halts, as the setting lock_halts says it."""

    def __init__(self, bootstrap: str, control: str, worker: str, halts: str) -> None:
        self._bootstrap, self._control, self._worker = bootstrap, control, worker
        self._halts = halts_in(halts)
        #: By partition: the alarm that was answered by a lock, by its first heartbeat.
        self._answered: dict[int, int] = {}

    def due(self, parts: Iterable[Part]) -> list[tuple[int, Alarm]]:
        """The partitions to be locked now, each with its alarm, which is taken for answered from here on."""
        found = []
        for part in parts:
            judge = None if part.states is None else part.states.judge
            alarm = None if judge is None else alarm_of(part.number, judge.guard, judge.locks)
            if alarm is None or alarm.worker != self._worker or self._answered.get(part.number) == alarm.first:
                continue
            self._answered[part.number] = alarm.first
            found.append((part.number, alarm))
        return found

    def engage(self, partition: int, reason: str) -> None:
        """Append the lock to the control topic; waits for the broker. Raises DriftledgerError where it is not taken."""
        source = f"worker {self._worker}"

        def records() -> Iterator[tuple[None, bytes]]:  # made when it leaves, for its time is judged
            body = lock_body(None, self._halts, source, time_source().now_us(), engaged=True)
            yield None, encode_control("Lock", body, GUARDIAN, reason)

        produce_durably(self._bootstrap, self._control, partition, records(), idempotent=False)

    def failed(self, partition: int) -> None:
        """Its lock was not written: the alarm is due again."""
        self._answered.pop(partition, None)
