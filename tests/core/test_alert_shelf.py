"""Alerts by their last record, as a page lists them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from streams.alert_record import AlertRecord
from streams.alert_shelf import CLOSED_MAX, AlertShelf, AlertsQuestion, row_of
from streams.causes import Cause
from streams.overview import AlertBoard
from streams.severity import Severity


def record(alert_id: str, revision: int = 1, state: str = "OPENED", **more: Any) -> AlertRecord:
    """As much of a record as is looked at."""
    reading = {"authority_timestamp": 1_000 * revision, "value_ms": 7_000}
    alert = {
        "alert_id": alert_id, "revision": revision, "state": state, "partition": 3, "source": f"source of {alert_id}",
        "subject": "SOURCE", "cause": "AHEAD", "severity": "RED", "first_sequence": 1, "last_sequence": revision,
        "events": revision,
        "at_open": reading, "worst": reading, "at_close": reading if state == "CLOSED" else None,
        "text": f"{alert_id} is off", **more,
    }  # fmt: skip
    return AlertRecord(recorded_at_ms=more.get("at_ms", revision), partition=3, offset=revision, alert=alert)


def _shelf(*records: AlertRecord) -> AlertShelf:
    shelf = AlertShelf()
    for one in records:
        shelf.apply(one)
    return shelf


def test_open_ones_come_first_the_worst_of_them_first() -> None:
    """Then the closed ones, those that closed last first."""
    shelf = _shelf(
        record("a", severity="YELLOW"), record("b", 2), record("c", 3), record("d"), record("d", 5, "CLOSED"),
        record("e", 4, "CLOSED"),
    )  # fmt: skip
    view = shelf.view(AlertsQuestion())
    assert view.order == ("c", "b", "a", "d", "e")
    assert (view.facts["open"], view.facts["closed"], view.facts["found"]) == (3, 2, 5)
    assert view.rows["d"]["closed_ms"] == 5_000
    assert view.rows["c"]["closed_ms"] is None


def test_what_is_asked_for_is_chosen() -> None:
    """By state, severity, cause and text, in any combination."""
    shelf = _shelf(record("a", severity="YELLOW"), record("b", cause="STEP"), record("c", 2, "CLOSED"))
    for asked, found in (
        (AlertsQuestion(open=True), ["b", "a"]),
        (AlertsQuestion(open=False), ["c"]),
        (AlertsQuestion(severities=frozenset({Severity.YELLOW})), ["a"]),
        (AlertsQuestion(causes=frozenset({Cause.STEP})), ["b"]),
        (AlertsQuestion(search="B IS"), ["b"]),
        (AlertsQuestion(search="SOURCE OF A"), ["a"]),
        (AlertsQuestion(offset=1, limit=1), ["a"]),
    ):
        assert list(shelf.view(asked).order) == found


def test_records_in_any_order_leave_the_last_of_each() -> None:
    """What was read twice, at the end and from the beginning, changes nothing."""
    records = [record(name, n, "CLOSED" if n == 4 else "CHANGED") for name in "abc" for n in range(1, 5)]
    for seed in range(20):
        shuffled = records * 2
        random.Random(seed).shuffle(shuffled)
        rows = _shelf(*shuffled).view(AlertsQuestion()).rows
        assert {key: row["events"] for key, row in rows.items()} == dict.fromkeys("abc", 4)


def test_closed_ones_are_bounded_and_a_copy_does_not_change() -> None:
    """The oldest go."""
    shelf = _shelf(*(record(f"x{n}", n + 1, "CLOSED") for n in range(CLOSED_MAX + 20)))
    copy = shelf.copy()
    shelf.apply(record("new"))
    assert copy.view(AlertsQuestion()).facts["open"] == 0
    assert shelf.view(AlertsQuestion()).facts["closed"] == CLOSED_MAX
    assert len(copy.select(AlertsQuestion(search="x19 "))) == 0
    assert len(copy.select(AlertsQuestion(search="x20 "))) == 1


@pytest.mark.parametrize(
    ("name", "subject"), [("3:1:clock", "SOURCE"), ("3:1:authority", "BROKER"), ("3:1:worker", "WORKER")]
)
def test_a_record_from_before_there_was_a_subject_is_told_by_its_name(name: str, subject: str) -> None:
    """And listed like any other."""
    old = record(name)
    del old.alert["subject"]
    assert row_of(old)["subject"] == old.row()["subject"] == subject
    board = AlertBoard()
    board.apply(old.alert, 1)
    assert [alert.subject for alert in board.newest(1)] == [subject]
