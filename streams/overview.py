"""What somebody who watches a ledger wants to see, worked out from what it publishes.

Known from outside are what a worker says, again and again, and the records of the alerts and aggregates topics. From
the first follow the partitions and the rate, from the second the alerts that are open now; of the third see
`window_board`. Nothing here reads any of them, nor a clock.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.instants import NS_PER_S
from streams.alert_record import SOURCE, subject_of
from streams.severity import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: The rate shown is the mean of so long: shorter flickers, longer lags behind.
RATE_WINDOW_NS: Final = 5 * NS_PER_S


class PartitionState(NamedTuple):
    """A partition as a worker reports it. state: of its lane; hot: of its hot tier, None where there is none."""

    partition: int
    state: str
    sequence: int
    hot: Hot | None = None


class Hot(NamedTuple):
    """How far the hot tier of a partition is. standing: level, behind or unavailable; reached: of how many entries.

    error: what was wrong last, None where nothing was.
    """

    standing: str
    reached: int
    entries: int
    error: str | None

    def __str__(self) -> str:
        return f"behind, {self.reached} of {self.entries}" if self.standing == "behind" else self.standing


class InForce(NamedTuple):
    """A window in force in a partition, as a worker reports it. suspended: why it does nothing, None while it works."""

    partition: int
    name: str
    version: int
    suspended: str | None


class Halted(NamedTuple):
    """A halted partition, with what was found and what to do."""

    partition: int
    code: str
    detail: str
    remedy: str


class Locked(NamedTuple):
    """A locked partition, or source of it, in words: since when, by whom and why; and what to do."""

    partition: int
    told: str


class Health(NamedTuple):
    """What /health said. troubles: errors of lanes that are not live, one line each."""

    partitions: tuple[PartitionState, ...]
    lanes_live: int
    lanes: int
    troubles: tuple[str, ...]
    halts: tuple[Halted, ...]
    windows: tuple[InForce, ...] = ()
    locks: tuple[Locked, ...] = ()


def parse_health(answer: Mapping[str, Any]) -> Health:
    """The JSON of /health as values; partitions in order."""
    lanes = answer["lanes"]
    parts = [(part, lane["state"]) for lane in lanes for part in lane["partitions"]]
    return Health(
        partitions=tuple(sorted(_partition_state(part, state) for part, state in parts)),
        lanes_live=sum(lane["state"] == "live" for lane in lanes),
        lanes=len(lanes),
        troubles=tuple(f"lane {lane['lane']} is {lane['state']}: {lane['error']}" for lane in lanes if lane["error"]),
        halts=tuple(
            Halted(halt["partition"], halt["code"], halt["detail"], halt["remedy"]) for halt in answer["halts"]
        ),
        windows=tuple(
            InForce(part["partition"], window["name"], window["version"], window["suspended"])
            for part, _ in parts
            for window in part.get("windows", ())
        ),
        locks=tuple(Locked(lock["partition"], lock["told"]) for part, _ in parts for lock in part.get("locks", ())),
    )


def _partition_state(part: Mapping[str, Any], lane_state: str) -> PartitionState:
    hot = part.get("hot")
    known = None if hot is None else Hot(hot["standing"], hot["reached"], part["index"], hot["error"])
    return PartitionState(part["partition"], lane_state, part["sequence"], known)


class RateMeter:
    """Events a second, from sequences seen at different times.

    A partition counts from when it was first seen, or came back: what it held before was not sequenced just now.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, dict[int, int]]] = deque()

    def observe(self, now_ns: int, partitions: tuple[PartitionState, ...]) -> None:
        """Note sequences as they are at now_ns (monotonic)."""
        self._seen.append((now_ns, {state.partition: state.sequence for state in partitions}))
        while len(self._seen) > 2 and now_ns - self._seen[1][0] >= RATE_WINDOW_NS:  # noqa: PLR2004 - two make a rate
            self._seen.popleft()

    def events_per_s(self) -> float | None:
        """The sum of the partitions' means over the window; None before any was seen twice in a row."""
        rates = [rate for partition in (self._seen[-1][1] if self._seen else ()) if (rate := self._rate(partition))]
        return sum(events * NS_PER_S / elapsed_ns for events, elapsed_ns in rates) if rates else None

    def _rate(self, partition: int) -> tuple[int, int] | None:
        """Events of a partition and how long they took, since it has been seen without a gap."""
        run = list(itertools.takewhile(lambda seen: partition in seen[1], reversed(self._seen)))
        (last_ns, last), (first_ns, first) = run[0], run[-1]
        return (max(last[partition] - first[partition], 0), last_ns - first_ns) if last_ns > first_ns else None


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert as its last record tells it; changed_ms: when the broker appended that."""

    alert_id: str
    source: str
    subject: str
    severity: str
    text: str
    changed_ms: int


class AlertBoard:
    """The alerts that are open, from the records of the alerts topic, each partition's in order."""

    def __init__(self) -> None:
        self.closed = 0
        self._open: dict[str, OpenAlert] = {}

    def apply(self, alert: Mapping[str, Any], appended_ms: int) -> None:
        """Take one DriftAlert record."""
        if alert["state"] == "CLOSED":
            self.closed += 1
            self._open.pop(alert["alert_id"], None)
            return
        self._open[alert["alert_id"]] = OpenAlert(
            alert["alert_id"], alert["source"], subject_of(alert), alert["severity"], alert["text"], appended_ms
        )

    def __len__(self) -> int:
        return len(self._open)

    def newest(self, count: int) -> list[OpenAlert]:
        """At most so many, those changed last first."""
        return sorted(self._open.values(), key=lambda alert: (-alert.changed_ms, alert.source))[:count]

    def severities(self, sources: Collection[str] = ()) -> Counter[str]:
        """How many sources have which severity: those with an open alert, and as GREEN those named without one.

        A source may have two, about its clock and about the way of its events: the worse counts. Alerts about a broker
        or a worker are of no source, whatever theirs are called.
        """
        worst = dict.fromkeys(sources, Severity.GREEN)
        for alert in self._open.values():
            if alert.subject == SOURCE:
                worst[alert.source] = max(Severity[alert.severity], worst.get(alert.source, Severity.GREEN))
        return Counter(severity.name for severity in worst.values())


class HotAnswer(NamedTuple):
    """What the hot tier answered. events: all that are hot; mean: of the last minute, None of nothing.

    took_ns: from asking to answer, as the asker saw it.
    """

    events: int
    mean: float | None
    took_ns: int
