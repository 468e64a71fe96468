"""Runs the application until it is told to stop."""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING

import faust

from streams.app import build
from streams.warm import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.lane import Point
    from streams.settings import Settings

#: glibc's name for the number of heaps that threads spread over.
_M_ARENA_MAX = -8
#: librdkafka's threads pass buffers to one another; with the default of 16 heaps a worker keeps 50 to 100 MB more.
_ARENAS = 2


def run(settings: Settings, bootstrap: str, *, at: Callable[[Point], None] | None = None) -> None:
    """Block until SIGTERM or SIGINT; leaves by SystemExit, as Faust's worker does."""
    prepare()
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, _ARENAS)
    app = build(settings, bootstrap, at=at)
    host = faust.Worker(app, loglevel=logging.WARNING, quiet=True, redirect_stdouts=False)
    host.spinner = None  # it writes terminal codes to stdout, also where that is no terminal
    # While the broker is away it says so ten times a second; the worker says so itself, once each time it looks.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    host.execute_from_commandline()
