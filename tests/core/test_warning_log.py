"""The worker's log of warnings: every one has its fields, and there is a limit on lines a second."""

from __future__ import annotations

from structlog.testing import capture_logs

from streams.warning_log import LOGGED_PER_SECOND, DriftWarning, WarningLog

WARNING = DriftWarning(
    3, 88_121, 90_001, "e-1", "sensor-0042", 1_700_000_005_001_000, 1_700_000_000_000, "5.001", "AHEAD", 5_002, 3
)  # fmt: skip
SECOND_NS = 1_000_000_000


def test_a_warning_carries_the_event_both_times_and_the_drift() -> None:
    """The event, both times, the drift, and where it stands in the ledger."""
    with capture_logs() as lines:
        WarningLog().log([WARNING], 1, 0)
    [line] = lines
    assert line["event"] == "clock_drift_detected"
    assert line["event_id"] == "e-1"
    assert line["local_timestamp"] == "2023-11-14T22:13:25.001000Z"
    assert line["authority_timestamp"] == "2023-11-14T22:13:20.000Z"
    assert line["drift_seconds"] == "5.001"
    assert (line["cause"], line["offset_ms"], line["bound_ms"]) == ("AHEAD", 5_002, 3)
    assert (line["id"], line["source"], line["left_out_before"]) == ("3:90001", "sensor-0042", 0)


def test_more_warnings_than_fit_in_a_second_are_counted_in_the_next_line() -> None:
    """Nothing is dropped unseen: the log says how many lines it left out."""
    log = WarningLog()
    with capture_logs() as lines:
        log.log([WARNING] * LOGGED_PER_SECOND, 1_000, 5)
        log.log([WARNING] * 4, 4, SECOND_NS - 1)
        log.log([WARNING] * 2, 2, SECOND_NS)
    assert len(lines) == LOGGED_PER_SECOND + 2
    assert [line["left_out_before"] for line in lines[-2:]] == [1_000 - LOGGED_PER_SECOND + 4, 0]
