"""The alerts of a ledger as a page shows them: each by its last record, the open ones and the newest closed ones.

GUARANTEE memory is bounded by CLOSED_MAX closed alerts and by those that are open: at most two a source, and one a
partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from streams.alert_record import CLOSED, subject_of
from streams.causes import Cause
from streams.live_view import View
from streams.severity import Severity

if TYPE_CHECKING:
    from streams.alert_record import AlertRecord

CLOSED_MAX: Final = 500
#: Rows of a page.
ROWS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class AlertsQuestion:
    """Which alerts. Empty sets choose all; search: found in the name of the source or in the text."""

    open: bool | None = None
    search: str = ""
    severities: frozenset[Severity] = frozenset()
    causes: frozenset[Cause] = frozenset()
    offset: int = 0
    limit: int = ROWS_MAX


class AlertShelf:
    """The last record of each alert, from the records of the alerts topic, each partition's in order."""

    def __init__(self) -> None:
        self._open: dict[str, AlertRecord] = {}
        self._closed: dict[str, AlertRecord] = {}

    def apply(self, record: AlertRecord) -> None:
        """Take one record. One that is older than what is known of its alert changes nothing."""
        alert_id, revision = record.alert["alert_id"], record.alert["revision"]
        known = self._open.get(alert_id) or self._closed.get(alert_id)
        if known is not None and known.alert["revision"] >= revision:
            return
        self._open.pop(alert_id, None)
        self._closed.pop(alert_id, None)  # so that the order is that of the last records
        if record.alert["state"] != CLOSED:
            self._open[alert_id] = record
            return
        self._closed[alert_id] = record
        while len(self._closed) > CLOSED_MAX:
            del self._closed[next(iter(self._closed))]

    def copy(self) -> AlertShelf:
        """The same, which does not change with this one."""
        other = AlertShelf()
        other._open, other._closed = dict(self._open), dict(self._closed)
        return other

    def is_full(self) -> bool:
        """Whether there may be more closed ones than are kept."""
        return len(self._closed) == CLOSED_MAX

    def select(self, asked: AlertsQuestion) -> list[AlertRecord]:
        """Those asked for: open ones first, the worst first and of those the newest; then closed ones, newest first."""
        shown: list[AlertRecord] = []
        if asked.open is not False:
            newest = sorted(self._open.values(), key=_newest_first)
            shown += sorted(newest, key=lambda record: -Severity[record.alert["severity"]])
        if asked.open is not True:
            shown += sorted(self._closed.values(), key=_newest_first)
        return [record for record in shown if _is_wanted(record.alert, asked)]

    def view(self, asked: AlertsQuestion) -> View:
        """What a page shows; its facts say how many there are."""
        found = self.select(asked)
        shown = found[asked.offset : asked.offset + min(asked.limit, ROWS_MAX)]
        rows = {record.alert["alert_id"]: row_of(record) for record in shown}
        facts = {"found": len(found), "offset": asked.offset, "open": len(self._open), "closed": len(self._closed)}
        facts["full"] = self.is_full()
        return View(facts, tuple(rows), rows)


def row_of(record: AlertRecord) -> dict[str, Any]:
    """What a page shows of an alert."""
    alert = record.alert
    closed = alert["at_close"]
    return {
        "alert_id": alert["alert_id"],
        "state": alert["state"],
        "severity": alert["severity"],
        "cause": alert["cause"],
        "source": alert["source"],
        "subject": subject_of(alert),
        "partition": alert["partition"],
        "opened_ms": alert["at_open"]["authority_timestamp"],
        "closed_ms": None if closed is None else closed["authority_timestamp"],
        "changed_ms": record.recorded_at_ms,
        "open_value_ms": alert["at_open"]["value_ms"],
        "worst_value_ms": alert["worst"]["value_ms"],
        "close_value_ms": None if closed is None else closed["value_ms"],
        "first_sequence": alert["first_sequence"],
        "last_sequence": alert["last_sequence"],
        "events": alert["events"],
        "text": alert["text"],
    }


def _newest_first(record: AlertRecord) -> tuple[int, str]:
    return -record.recorded_at_ms, record.alert["alert_id"]


def _is_wanted(alert: dict[str, Any], asked: AlertsQuestion) -> bool:
    if asked.severities and Severity[alert["severity"]] not in asked.severities:
        return False
    if asked.causes and Cause[alert["cause"]] not in asked.causes:
        return False
    search = asked.search.casefold()
    return not search or search in alert["source"].casefold() or search in alert["text"].casefold()
