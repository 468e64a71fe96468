"""Bars on stderr for commands that take a while; they show only on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def entries_progress() -> Progress:
    """Of so many of so many entries."""
    from rich.progress import MofNCompleteColumn

    return _progress(MofNCompleteColumn())


def bytes_progress() -> Progress:
    """Of so many bytes of a file."""
    from rich.progress import DownloadColumn

    return _progress(DownloadColumn())


def _progress(done: ProgressColumn) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        done,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
