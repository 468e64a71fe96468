"""Follows the alerts topic on a thread of its own, while somebody watches.

Problem: what is open is known only to who has read all that is kept of the topic, and reading it for each page would
cost more than the page. So one thread reads it once, then goes on with what comes, and every page shows the same shelf.

GUARANTEE a shelf that was published does not change. GUARANTEE after an error, of whatever sort, it is said what was
wrong, and after PAUSE_S all is read again. GUARANTEE what was read before `stop` is not published after it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from schemas.clock import source as time_source
from schemas.errors import DriftledgerError
from schemas.instants import NS_PER_MS
from streams.alert_log import ends, follow, last_records
from streams.alert_shelf import CLOSED_MAX, AlertShelf
from streams.queries import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.settings import Settings

PAUSE_S: Final = 2.0
#: While records keep coming.
_PUBLISH_MS: Final = 250
_logger = structlog.get_logger()


class Alerts(NamedTuple):
    """What is known. shelf: None until it was read; error: why it cannot be read now."""

    shelf: AlertShelf | None = None
    error: str | None = None


class AlertWatch:
    """Of one ledger. `start` and `stop` by one thread; on_news is called by the one that reads."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self.now = Alerts()
        self.on_news: Callable[[], None] = lambda: None
        self._settings, self._bootstrap = settings, bootstrap
        self._ended = threading.Event()
        self._ended.set()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Read, unless it does already."""
        if self._ended.is_set():
            self._ended = threading.Event()
            threading.Thread(target=self._run, args=(self._ended,), name="alerts", daemon=True).start()

    def stop(self) -> None:
        """Read no more; what is known goes. What is being asked of Kafka now is not waited for."""
        with self._lock:
            self._ended.set()
            self.now = Alerts()

    def _run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                with Ledger(self._settings, self._bootstrap) as ledger:
                    self._read(ledger, ended)
            except DriftledgerError as error:
                _logger.warning("alerts_not_readable", error=str(error))
                self._publish(ended, Alerts(None, str(error)))
            except Exception as error:
                _logger.exception("alerts_watch_failed")
                self._publish(ended, Alerts(None, f"the alerts topic could not be read: {error!r}"))
            ended.wait(PAUSE_S)

    def _read(self, ledger: Ledger, ended: threading.Event) -> None:
        positions = ends(ledger)
        shelf = AlertShelf()
        for record in last_records(ledger, CLOSED_MAX):
            shelf.apply(record)
        self._publish(ended, Alerts(shelf.copy()))
        clock, changed, published_ns = time_source(), False, 0
        for news in follow(ledger, positions):
            if ended.is_set():
                return
            if news is not None:
                shelf.apply(news)
                changed = True
            if changed and (news is None or clock.monotonic_ns() - published_ns >= _PUBLISH_MS * NS_PER_MS):
                self._publish(ended, Alerts(shelf.copy()))
                changed, published_ns = False, clock.monotonic_ns()

    def _publish(self, ended: threading.Event, alerts: Alerts) -> None:
        with self._lock:
            if ended.is_set():
                return
            self.now = alerts
        self.on_news()
