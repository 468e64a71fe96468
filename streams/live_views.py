"""What each view of the page shows now, and as CSV: of boards, alerts, hot tiers, the worker, the lifecycle of data.

Facts that every view has, for the page's head:

    worker, healthy, halted (partitions), served, partitions (of the ledger), sources, severities and causes (how many
    sources have which open alert), at_ms (authority time of the newest board, null without), missing (by partition:
    why its sources are not among these)

GUARANTEE what is not there is said, never left out in silence: `error` says why a list is not to be had now, and a file
that would be short is none, or breaks off. Of closed alerts CLOSED_MAX are kept: the view says so, and its file's name.
HAZARD a view is of this worker's partitions; but for alerts, archives and jobs, which are the ledger's.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from lifecycle.lifecycle_page import Lifecycle, rows_of, view_of
from lifecycle.live_questions import LifecycleQuestion, LogQuestion, SourceQuestion
from lifecycle.owned import OwnedPartitions
from schemas.errors import DriftledgerError
from streams.alert_shelf import CLOSED_MAX, AlertShelf, AlertsQuestion, row_of
from streams.boards import clock_of
from streams.csv_text import csv_line
from streams.fleet_view import Fleet, FleetQuestion
from streams.live_log import LiveLog
from streams.live_view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lifecycle.live_questions import LiveQuestion
    from lifecycle.owned import Kept, OwnedLane
    from streams.alert_watch import Alerts
    from streams.live_boards import LiveBoards

#: How old what is shown of tiers and jobs may be: less than a look is apart, so each look is of what there is.
LIFECYCLE_FRESH_S: Final = 0.9
#: Rows that are made into text at once.
_ROWS_AT_ONCE: Final = 1_000


class AlertsWatched(Protocol):
    """Who follows the alerts topic: see `alert_watch`."""

    on_news: Callable[[], None]

    @property
    def now(self) -> Alerts:
        """What is known."""

    def start(self) -> None:
        """Follow it, unless it does."""

    def stop(self) -> None:
        """Follow it no more."""


class LifecycleWatched(Protocol):
    """Who follows manifest and jobs: see `lifecycle_watch`."""

    def look(self, fresh_s: float) -> Lifecycle:
        """What is known, not older than that unless it cannot be read now."""


class LiveViews:
    """Answers questions of pages. `head` and `view` are for any thread, of one question at a time each."""

    def __init__(
        self,
        boards: LiveBoards,
        alerts: AlertsWatched,
        lanes: Callable[[], Sequence[OwnedLane]],
        kept: Kept | None = None,
        lifecycle: LifecycleWatched | None = None,
    ) -> None:
        self._boards, self._alerts, self._lifecycle = boards, alerts, lifecycle
        self._log = LiveLog(OwnedPartitions(lanes, kept))
        self._fleet = Fleet([])
        self._fleet_version = -1

    def view(self, asked: LiveQuestion, status: Mapping[str, Any]) -> View:
        """What a page shows. status: see `page_status`."""
        fleet = self.fleet()
        match asked:
            case FleetQuestion():
                found = fleet.view(asked)
            case SourceQuestion():
                found = self._source(asked, fleet)
            case AlertsQuestion():
                found = self._of_alerts(asked)
            case LogQuestion():
                found = self._log.view(asked)
            case LifecycleQuestion():
                found = view_of(self._of_lifecycle(), asked.limit)
            case _:
                found = _partitions(status)
        head = {name: status[name] for name in ("worker", "healthy", "halted", "served", "partitions")}
        head["missing"] = {str(partition): why for partition, why in self._boards.missing().items()}
        return found._replace(facts={**head, **fleet.counts(), "at_ms": fleet.at_ms, "error": None, **found.facts})

    def fleet(self) -> Fleet:
        """All boards as one; made again when one is new."""
        version = self._boards.version
        if version != self._fleet_version:
            boards = [board for _, board in sorted(self._boards.boards().items())]
            shown = self._fleet.boards
            if len(boards) != len(shown) or any(a is not b for a, b in zip(boards, shown, strict=True)):
                self._fleet = Fleet(boards)
            self._fleet_version = version
        return self._fleet

    def ready(self, asked: LiveQuestion, served: int) -> bool:
        """Whether there is something to answer with; served: how many partitions have a board where all have."""
        if isinstance(asked, AlertsQuestion):
            return self._alerts.now != (None, None)
        known = len(self._boards.boards()) + len(self._boards.missing())
        return not isinstance(asked, FleetQuestion) or known >= served

    def csv(self, asked: LiveQuestion, status: Mapping[str, Any]) -> Iterator[str]:
        """The whole list as CSV, in parts, some of them empty. Raises DriftledgerError where it is not to be had."""
        match asked:
            case FleetQuestion():
                return _csv(self._fleet_rows(asked, [row["partition"] for row in status["rows"]]))
            case AlertsQuestion():
                shelf = self._shelf()
                return _csv(_in_parts(row_of(record) for record in shelf.select(asked)))
            case LogQuestion():
                return _csv(self._log.parts(asked.source, None))
            case SourceQuestion():
                return _csv(self._log.parts(asked.source, (asked.partition,)))
            case LifecycleQuestion():
                return _csv(_in_parts(rows_of(self._of_lifecycle())))
            case _:
                return _csv(_in_parts(_partitions(status).rows.values()))

    def newest_alone(self, asked: LiveQuestion) -> str:
        """What the name of its file says where that may not have all there is; empty where it has."""
        shelf = self._alerts.now.shelf
        cut = isinstance(asked, AlertsQuestion) and asked.open is not True and shelf is not None and shelf.is_full()
        return f"-newest-{CLOSED_MAX}-closed" if cut else ""

    # ---------------------------------------------------------------------------------------------------------- views

    def _source(self, asked: SourceQuestion, fleet: Fleet) -> View:
        board = next((board for board in fleet.boards if board.partition == asked.partition), None)
        row = None if board is None else board.names.places.get(asked.source)
        if board is None or row is None:
            nothing = {"words": None, "clock": None, "broker_ms": 0, "number": None}
            why = "judge does not know it" if board is not None else "its partition is not served here"
            failed = self._boards.missing().get(asked.partition)
            if failed is not None:
                why = f"what judge knows of its partition could not be read ({failed}); it is tried again"
            return View({**nothing, "error": f"Nothing is known of this source: {why}."}, (), {})
        number = int(board.rows[row, 0])
        events = {str(event.sequence): event.row() for event in self._boards.events(asked.partition, number)}
        clock = clock_of(board, row)
        facts: dict[str, Any] = {
            "words": clock.in_words(),
            "clock": clock.row(),
            "broker_ms": board.broker_ms,
            "number": number,
        }
        return View(facts, tuple(events), events)

    def _of_alerts(self, asked: AlertsQuestion) -> View:
        now = self._alerts.now
        found = (now.shelf or AlertShelf()).view(asked)
        return found._replace(facts={**found.facts, "loaded": now.shelf is not None, "error": now.error})

    def _of_lifecycle(self) -> Lifecycle:
        if self._lifecycle is None:
            return Lifecycle(error="this worker does not follow it")
        return self._lifecycle.look(LIFECYCLE_FRESH_S)

    def _shelf(self) -> AlertShelf:
        now = self._alerts.now
        if now.shelf is None:
            raise DriftledgerError(now.error or "the alerts topic is being read. Ask again in a moment")
        return now.shelf

    def _fleet_rows(self, asked: FleetQuestion, served: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        fleet = self.fleet()
        missing, known = self._boards.missing(), {board.partition for board in fleet.boards}
        unknown = [p for p in served if p not in known and (not asked.partitions or p in asked.partitions)]
        if unknown:
            told = ", ".join(f"{p} ({missing[p]})" if p in missing else str(p) for p in unknown)
            raise DriftledgerError(f"the sources of these partitions are not known now: {told}. Ask again in a moment")
        places = fleet.select(asked)
        return (fleet.rows(places[first : first + _ROWS_AT_ONCE]) for first in range(0, len(places), _ROWS_AT_ONCE))


def _partitions(status: Mapping[str, Any]) -> View:
    rows = {str(row["partition"]): row for row in status["rows"]}
    names = ("broker", "member", "lanes", "halts")
    return View({name: status[name] for name in names}, tuple(rows), rows)


def _in_parts(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    rest = iter(rows)
    while part := list(islice(rest, _ROWS_AT_ONCE)):
        yield part


def _csv(parts: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """A line of names, then the rows, a text for each part; nothing of no rows."""
    named = False
    for part in parts:
        lines = [csv_line(row.values()) for row in part]
        if part and not named:
            lines.insert(0, csv_line(part[0]))
            named = True
        yield "".join(lines)
