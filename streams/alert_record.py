"""A record of the alerts topic, as it was read there."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from schemas.instants import format_ms

#: The state of the last record of an alert.
CLOSED: Final = "CLOSED"


class AlertRecord(NamedTuple):
    """A record of the alerts topic and when the broker appended it."""

    recorded_at_ms: int
    partition: int
    offset: int
    alert: dict[str, Any]

    def row(self) -> dict[str, Any]:
        """For a listing: the fields of the record, its times also as text."""
        alert = self.alert
        return {
            **alert,
            "recorded_at_ms": self.recorded_at_ms,
            "recorded_at": format_ms(self.recorded_at_ms),
            "worst_ms": alert["worst"]["value_ms"],
            "opened_at": format_ms(alert["at_open"]["authority_timestamp"]),
        }
