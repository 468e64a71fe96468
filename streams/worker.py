"""Runs the application until it is told to stop: `driftledger worker` and `faust -A streams.app worker` alike.

GUARANTEE a worker that is told to stop is gone within 10 s, whoever does not answer.
GUARANTEE it ends without taking Python down first: what is still asked of Kafka (by a hot reader that nobody waits for)
is answered on a thread of the client's, and with Python gone under it that was a SIGSEGV in place of exit code 0.
HAZARD what is cut off then is what a kill cuts off: the next owners of its lanes wait for its session to end.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust
import structlog

from streams import heap
from streams.app import build
from streams.warm import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import Signals
    from types import FrameType

    from streams.settings import Settings
    from streams.transactions import Point

#: Under the 10 s that supervisors commonly give before they kill, with time to say what was waited for.
_STOP_WITHIN_S = 9.0
#: How long a thread keeps Python's lock while others want it. A lane gives it up for every kernel, and would wait up to
#: Python's 5 ms to get it back, several times in a transaction of 8 ms.
_SWITCH_S = 0.0005
_STREAMS = str(Path(__file__).parent)
_logger = structlog.get_logger()


class Host(faust.Worker):
    """The process of a worker; the application names it, so Faust's command runs it too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spinner = None  # it writes terminal codes to stdout, also where that is no terminal
        self._deadline: threading.Timer | None = None

    def execute_from_commandline(self) -> Any:
        """Block until SIGTERM or SIGINT; the process ends here."""
        prepare()
        heap.bound()
        sys.setswitchinterval(_SWITCH_S)
        # While the broker is away it says so ten times a second; the worker says so itself, once each time it looks.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        try:
            super().execute_from_commandline()
        except SystemExit as leaving:
            _leave(leaving.code if isinstance(leaving.code, int) else 1)

    def _schedule_shutdown(self, signal: Signals) -> None:
        self._limit_stop()
        super()._schedule_shutdown(signal)

    def on_worker_shutdown(self) -> None:
        """Where it ends by itself, after a crash."""
        self._limit_stop()
        super().on_worker_shutdown()

    def _limit_stop(self) -> None:
        if self._deadline is None:
            self._deadline = threading.Timer(_STOP_WITHIN_S, _end)
            self._deadline.daemon = True
            self._deadline.start()


def run(settings: Settings, bootstrap: str, *, at: Callable[[Point], None] | None = None) -> None:
    """Block until SIGTERM or SIGINT; the process ends here."""
    app = build(settings, bootstrap, at=at)
    Host(app, loglevel=logging.WARNING, quiet=True, redirect_stdouts=False).execute_from_commandline()


def _leave(code: int) -> None:
    try:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by who started us
                stream.flush()
        if code == 0 and sys.stderr is not None:
            _logger.info("worker_stopped")
    finally:
        os._exit(code)


def _end() -> None:
    _logger.critical("stop_forced", after_s=_STOP_WITHIN_S, running=_running())
    os._exit(1)


def _running() -> dict[str, str]:
    """By name of each thread that is inside this package: where."""
    frames = sys._current_frames()  # noqa: SLF001 - its public name
    found = {}
    for thread in threading.enumerate():
        frame: FrameType | None = frames.get(thread.ident or 0)
        while frame is not None and not frame.f_code.co_filename.startswith(_STREAMS):
            frame = frame.f_back
        if frame is not None and thread is not threading.current_thread():
            found[thread.name] = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
    return found
