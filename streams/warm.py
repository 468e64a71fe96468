"""Compiles every kernel a lane calls before the lane is there, so that no batch waits for a compiler.

Compiling takes half a minute of one core and some 150 MB that a process never gives back. So `prepare` does it in a
process of its own, once for each state of the sources; the worker then loads the result, in about a second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import structlog
from numba import config

from schemas.clock import source as time_source
from schemas.columns import Scratch, allocate_entries, decode_entries
from schemas.errors import DriftledgerError
from schemas.memory import sources_state
from streams import sequence
from streams.judge import Judge
from streams.rdkafka import warm_kernels
from streams.records import allocate_records

#: Kernels of sources that no process has started with for so long are removed.
_UNUSED_DAYS = 30
_SECONDS_PER_DAY = 86_400
_logger = structlog.get_logger()


def prepare() -> None:
    """Fill the kernel cache where it is cold. Raises DriftledgerError where compiling fails."""
    folder = Path(config.CACHE_DIR)  # type: ignore[attr-defined]  # numba reads it from the environment
    done = folder / f"compiled-{sources_state()}"
    if done.exists():
        done.touch()
        return
    _logger.info("kernels_compiling", takes="about half a minute, once", cache=str(folder))
    compiled = subprocess.run([sys.executable, "-m", "streams.warm"], capture_output=True, text=True, check=False)
    if compiled.returncode:
        raise DriftledgerError(f"the kernels did not compile: {compiled.stderr[-2000:]}")
    folder.mkdir(parents=True, exist_ok=True)
    done.touch()
    if folder.name == sources_state():
        _remove_unused(folder.parent)


def _remove_unused(kernels: Path) -> None:
    """Delete the caches of old sources. kernels: the folder that holds one for each state of the sources."""
    oldest_s = time_source().now_us() / 1_000_000 - _UNUSED_DAYS * _SECONDS_PER_DAY
    for folder in kernels.iterdir():
        used_s = max((marker.stat().st_mtime for marker in folder.glob("compiled-*")), default=folder.stat().st_mtime)
        if used_s < oldest_s:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too


def warm() -> None:
    """Load the kernels into this process, compiling what the cache does not hold."""
    judge = Judge()
    nothing = np.zeros(0, np.int64)
    decode_entries(nothing, nothing, nothing, nothing, allocate_entries(0), Scratch())
    _, sequenced = sequence.advance(sequence.Head(), allocate_records(0), sequence.DATA, 1)
    state = judge.new_state(0)
    judge.step(state, sequenced.entries)
    judge.load(0, judge.dump(state))
    warm_kernels()


if __name__ == "__main__":
    warm()
