"""Compiles every kernel a lane calls before the lane is there, so that no batch waits for a compiler.

Compiling takes half a minute of one core and some 150 MB that a process never gives back. So `prepare` does it in a
process of its own, once for each state of the sources; the worker then loads the result, in about a second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog
from numba import config

from lifecycle import store_dump
from lifecycle.query_warm import warm_queries
from lifecycle.store import Store
from schemas.clock import source as time_source
from schemas.codec import encode
from schemas.columns import Scratch, allocate_entries, decode_entries
from schemas.errors import DriftledgerError
from schemas.memory import address_of, sources_state
from streams import sequence
from streams.folds import FOLDS, States
from streams.rdkafka import warm_kernels
from streams.records import allocate_records
from streams.sources import no_sources
from streams.window_keys import with_key_room
from streams.window_room import grown, no_windows
from streams.window_run import WindowRun, first_numbers
from streams.windows import WindowDefinition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.records import Records

#: Kernels of sources that no process has started with for so long are removed.
_UNUSED_DAYS = 30
_SECONDS_PER_DAY = 86_400
_WINDOW: Final = WindowDefinition("warm", size_us=1_000_000)
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
    nothing = np.zeros(0, np.int64)
    decode_entries(nothing, nothing, nothing, nothing, allocate_entries(0), Scratch())
    states = States(FOLDS.judge.new_state(0), FOLDS.derive.new_state(0))
    states.derive.running[_WINDOW.name] = WindowRun(0, _WINDOW, 1, first_numbers(states.derive.clock))
    memory, records = _two_events()
    _, sequenced = sequence.advance(sequence.Head(), records, sequence.DATA, memory.size)
    judged, _ = FOLDS.step(states, sequenced.entries)
    store = Store()
    kept = store.new_state(0)
    store.step(kept, sequenced.entries, judged)
    warm_queries(sequenced.entries, judged)
    store_dump.load(0, store_dump.dump(kept))
    for fold, state in FOLDS.dumps(states).items():
        (FOLDS.judge if fold == FOLDS.judge.name else FOLDS.derive).load(0, state)
    with_key_room(no_sources(), grown(no_windows(), 1))
    warm_kernels()


def _two_events() -> tuple[NDArray[np.uint8], Records]:
    """Two records of one source, an hour apart: the second closes the window, and the chunk, of the first."""
    event = {
        "event_id": "", "source": "warm", "local_timestamp": 0, "kind": "warm", "value": 1.0, "payload": b"",
        "hlc": None, "causes": [], "exchange": None,
    }  # fmt: skip
    values = [encode("Event", event), encode("Event", {**event, "local_timestamp": 60_000_000})]
    memory = np.frombuffer(b"".join(values), np.uint8)
    records = allocate_records(len(values))
    records.timestamp_ms[:] = 0, 3_600_000
    records.offset[:] = 0, 1
    records.value_length[:] = [len(value) for value in values]
    records.value_address[:] = np.cumsum(records.value_length) - records.value_length + address_of(memory)
    return memory, records


if __name__ == "__main__":
    warm()
