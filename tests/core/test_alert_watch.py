"""Following the alerts topic: what goes wrong is said and tried again, and an end is an end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from schemas.errors import UnreachableError
from streams import alert_watch
from streams.alert_watch import Alerts, AlertWatch
from streams.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
    monkeypatch.setattr(alert_watch, "newest_alerts", lambda *_: [])
    monkeypatch.setattr(alert_watch, "open_alerts", lambda *_: [])
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
