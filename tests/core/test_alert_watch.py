"""Following the alerts topic: what goes wrong is said and tried again, and an end is an end."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from schemas.errors import UnreachableError
from streams import alert_log, alert_watch
from streams.alert_shelf import CLOSED_MAX, AlertsQuestion
from streams.alert_watch import Alerts, AlertWatch
from streams.settings import Settings
from tests.core.test_alert_shelf import record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from streams.alert_record import AlertRecord


class _Ledger:
    """Of a broker that is not there."""

    def __init__(self, *_: Any) -> None:
        self.chosen: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


def _watch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> AlertWatch:
    monkeypatch.setattr(alert_watch, "Ledger", _Ledger)
    monkeypatch.setattr(alert_watch, "PAUSE_S", 0.01)
    return AlertWatch(Settings(data_dir=folder), "nowhere:1")


class _Kept:
    """A ledger whose alerts are these, of each partition; so is its log."""

    def __init__(self, *partitions: list[AlertRecord]) -> None:
        self._partitions = partitions
        self.names = SimpleNamespace(drift_alerts="alerts")
        self.log = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def chosen(self, _partition: int | None) -> list[int]:
        """All."""
        return list(range(len(self._partitions)))

    def bounds(self, _topic: str, partition: int) -> SimpleNamespace:
        """Of its records."""
        return SimpleNamespace(start=0, stable_end=len(self._partitions[partition]))

    def scan(self, _topic: str, partition: int, begin: int, end: int) -> list[AlertRecord]:
        """Those from there to there."""
        return self._partitions[partition][begin:end]


def test_as_many_closed_alerts_are_read_as_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many records each has had; and every open one, however old."""
    alerts = CLOSED_MAX + 20
    partitions = [
        [record(f"old-{p}", at_ms=-1)]
        + [
            record(f"{p}.{n}", revision, state, at_ms=2 * n + p)
            for n in range(alerts)
            for revision, state in enumerate(("OPENED", "CHANGED", "CHANGED", "CLOSED"), start=1)
        ]
        for p in range(2)
    ]
    watch, seen = _watch(monkeypatch, tmp_path), threading.Event()
    monkeypatch.setattr(alert_watch, "Ledger", lambda *_: _Kept(*partitions))
    monkeypatch.setattr(alert_log, "_record", lambda message: message)
    monkeypatch.setattr(alert_watch, "follow", lambda *_: (None for _ in iter(lambda: seen.wait(0.01), None)))
    watch.on_news = seen.set
    watch.start()
    assert seen.wait(10)
    shelf = watch.now.shelf
    watch.stop()
    assert shelf is not None
    shown = [found.alert["alert_id"] for found in shelf.select(AlertsQuestion())]
    newest = [f"{p}.{n}" for n in range(alerts - 1, -1, -1) for p in (1, 0)][:CLOSED_MAX]
    assert shown == ["old-0", "old-1", *newest]


def test_whatever_goes_wrong_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An error that nobody thought of, too: else a page would wait for alerts for ever."""
    watch, told = _watch(monkeypatch, tmp_path), list[Alerts]()
    errors = iter([UnreachableError("no broker"), ValueError("odd"), KeyError("severity")])
    seen = threading.Event()

    def hear() -> None:
        told.append(watch.now)
        if watch.now.shelf is not None:
            seen.set()

    def ends(_ledger: object) -> dict[int, int]:
        for error in errors:
            raise error
        return {}

    def follow(*_: object) -> Any:
        while not seen.wait(0.01):
            yield None
        yield None
        yield None

    monkeypatch.setattr(alert_watch, "ends", ends)
    monkeypatch.setattr(alert_watch, "last_records", lambda *_: [])
    monkeypatch.setattr(alert_watch, "follow", follow)
    watch.on_news = hear
    watch.start()
    assert seen.wait(10)
    watch.stop()
    assert [alerts.error for alerts in told[:4]] == [
        "no broker",
        "the alerts topic could not be read: ValueError('odd')",
        "the alerts topic could not be read: KeyError('severity')",
        None,
    ]
    assert watch.now == Alerts()


def test_what_was_read_before_the_end_is_not_published_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever watches an hour later would see it as new."""
    watch = _watch(monkeypatch, tmp_path)
    stopping: list[threading.Thread] = []

    class Ended(threading.Event):
        """Somebody ends it just after the one who reads has looked."""

        def is_set(self) -> bool:
            found = super().is_set()
            if not stopping:
                stopping.append(threading.Thread(target=watch.stop))
                stopping[0].start()
                stopping[0].join(0.1)
            return found

    ended = watch._ended = Ended()
    watch._publish(ended, Alerts(None, "of before"))
    stopping[0].join()
    assert watch.now == Alerts()
