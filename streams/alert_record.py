"""A record of the alerts topic, as it was read there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.instants import format_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The state of the last record of an alert.
CLOSED: Final = "CLOSED"
#: The subject of an alert about a source.
SOURCE: Final = "SOURCE"
#: Of alerts that are about no source: the ending of their name, and whose clock it is.
_SUBJECTS: Final = {"authority": "BROKER", "worker": "WORKER"}


def subject_of(alert: Mapping[str, Any]) -> str:
    """Whose clock it is; records from before there was a field for it are told by their name."""
    return str(alert.get("subject") or _SUBJECTS.get(alert["alert_id"].rpartition(":")[2], SOURCE))


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
            "subject": subject_of(alert),
            "recorded_at_ms": self.recorded_at_ms,
            "recorded_at": format_ms(self.recorded_at_ms),
            "worst_ms": alert["worst"]["value_ms"],
            "opened_at": format_ms(alert["at_open"]["authority_timestamp"]),
        }
